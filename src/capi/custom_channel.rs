//! Channels of the user's own.

use std::ffi::{CStr, CString, c_char, c_void};
use std::mem::offset_of;
use std::time::Duration;

use super::boundary::{Span, handle, not_in_reduction, out, out_named, query, text};
use super::channel::fmi_channel;
use super::config::Context;
use super::op::{FMI_OP_ASSOCIATIVE, FMI_OP_COMMUTATIVE, FMI_OP_ELEMENTWISE, fmi_drop_fn};
use super::status::fmi_status;
use super::version::FMI_TIMEOUT_NEVER;
use crate::channel::custom::{CustomChannel, Family};
use crate::collective::{Collective, GatherBuffers, ReduceBuffers, Reduction, ScatterBuffers};
use crate::communicator::Channel;
use crate::datatype::Datatype;
use crate::error::{Error, ErrorKind, Result};
use crate::op::{Op, callback_failure};
use crate::operation::Operation;

/// `family` in fmi_channel_vtable: ranks address each other.
pub const FMI_CHANNEL_PEER_TO_PEER: i32 = 1;

/// `family` in fmi_channel_vtable: ranks meet at a store that keeps objects under
/// names.
pub const FMI_CHANNEL_CLIENT_SERVER: i32 = 2;

/// `family` in fmi_channel_vtable: the channel carries out every operation
/// itself.
pub const FMI_CHANNEL_WHOLE: i32 = 3;

/// Flag in fmi_channel_vtable, of peer-to-peer channels: sending never waits for
/// the peer to receive. Without it every exchange runs in order: a rank receives
/// first if its source's rank is higher than its own, else it sends first.
pub const FMI_CHANNEL_FULL_DUPLEX: u32 = 1;

/// How a whole channel's reduction combines operands: see fmi_reduction_apply()
/// and fmi_reduction_flags(). It lives until the channel's function returns.
pub struct fmi_reduction {
    datatype: Datatype,
    op: *const Op,
}

/// The functions of a channel of your own. Set all of it to 0, then struct_size,
/// family, and what the family needs.
///
/// Functions return 0, or other than 0 for a failure: the operation then returns
/// FMI_ERR_CALLBACK, and where the number is a status, such as FMI_ERR_TIMEOUT, it
/// is the `cause` in fmi_error_info. They run on the thread that is inside the
/// operation, one at a time, and may use other communicators and channels; the
/// channel that they belong to is FMI_ERR_BUSY. They may not unwind (throw) or
/// longjmp out. The four of the model may be called by any thread at any time.
///
/// The library looks at deadlines, aborts and the wake-up descriptor between two
/// functions, not inside one.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct fmi_channel_vtable {
    /// sizeof(fmi_channel_vtable).
    pub struct_size: usize,
    /// FMI_CHANNEL_PEER_TO_PEER, FMI_CHANNEL_CLIENT_SERVER or FMI_CHANNEL_WHOLE.
    pub family: i32,
    /// FMI_CHANNEL_FULL_DUPLEX, or 0.
    pub flags: u32,
    /// How long an operation may take over the channel, in ms, where neither the
    /// environment nor fmi_comm_set_timeout() says so; 0 = the default (60 s),
    /// FMI_TIMEOUT_NEVER = no limit.
    pub timeout_ms: u32,
    /// Client-server: how long to wait between two looks for an object, in ms; 0 =
    /// the default (10).
    pub poll_ms: u32,
    /// Peer-to-peer: moves len bytes to a rank, which calls recv_object with the same
    /// length; calls between two ranks match in their order. May wait for that. Needed,
    /// with recv_object, unless there are send and recv.
    pub send_object:
        Option<unsafe extern "C" fn(user: *mut c_void, data: *const c_void, len: usize, dest: u32) -> i32>,
    /// Peer-to-peer: fills buf with the len bytes that a rank sends.
    pub recv_object:
        Option<unsafe extern "C" fn(user: *mut c_void, buf: *mut c_void, len: usize, src: u32) -> i32>,
    /// Client-server, needed: stores len bytes, at least one, under a name of at most 200
    /// bytes, which has the job's name and otherwise only A-Z a-z 0-9 . _ and -.
    pub upload_object: Option<
        unsafe extern "C" fn(user: *mut c_void, name: *const c_char, data: *const c_void, len: usize) -> i32,
    >,
    /// Client-server, needed: sets *found to 1 and copies as much of the object as there
    /// is and the capacity allows; or sets it to 0: there is none. Does not wait for one.
    pub download_object: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            name: *const c_char,
            buf: *mut c_void,
            capacity: usize,
            found: *mut i32,
        ) -> i32,
    >,
    /// Client-server, needed: removes the object, if there is one.
    pub delete_object: Option<unsafe extern "C" fn(user: *mut c_void, name: *const c_char) -> i32>,
    /// Client-server, needed: calls visit with context and the name of every object,
    /// until it returns other than 0.
    pub list_objects: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            visit: Option<unsafe extern "C" fn(context: *mut c_void, name: *const c_char) -> i32>,
            context: *mut c_void,
        ) -> i32,
    >,
    /// Client-server: as download_object, but waits until the object is there, as long as
    /// the channel likes. NULL = the library looks every poll_ms.
    pub download: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            name: *const c_char,
            buf: *mut c_void,
            capacity: usize,
        ) -> i32,
    >,
    /// How long an exchange takes, in ms: see fmi_channel_latency(). NULL = 0.
    pub latency:
        Option<unsafe extern "C" fn(user: *mut c_void, producers: u32, consumers: u32, bytes: usize) -> f64>,
    /// What it costs, in USD: see fmi_channel_price(). NULL = 0.
    pub price:
        Option<unsafe extern "C" fn(user: *mut c_void, producers: u32, consumers: u32, bytes: usize) -> f64>,
    /// How long an operation takes, in ms: see fmi_channel_operation_latency(). NULL =
    /// what follows from latency and the library's algorithm.
    pub operation_latency: Option<
        unsafe extern "C" fn(user: *mut c_void, operation: i32, bytes: usize, left_to_right: i32) -> f64,
    >,
    /// What it costs, in USD: see fmi_channel_operation_price(). NULL = what follows from
    /// price and the library's algorithm.
    pub operation_price: Option<
        unsafe extern "C" fn(user: *mut c_void, operation: i32, bytes: usize, left_to_right: i32) -> f64,
    >,
    /// As fmi_send(). Of this and the eight below NULL = as the library does it by the
    /// functions above; a whole channel needs all nine. The library has checked the
    /// arguments. Messages to oneself come here in a whole channel only.
    pub send:
        Option<unsafe extern "C" fn(user: *mut c_void, data: *const c_void, len: usize, dest: u32) -> i32>,
    /// As fmi_recv().
    pub recv: Option<unsafe extern "C" fn(user: *mut c_void, buf: *mut c_void, len: usize, src: u32) -> i32>,
    /// As fmi_bcast().
    pub bcast:
        Option<unsafe extern "C" fn(user: *mut c_void, buf: *mut c_void, len: usize, root: u32) -> i32>,
    /// As fmi_barrier().
    pub barrier: Option<unsafe extern "C" fn(user: *mut c_void) -> i32>,
    /// As fmi_gather(); recv is NULL and recv_len 0 where this rank is not the root.
    pub gather: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            send: *const c_void,
            send_len: usize,
            recv: *mut c_void,
            recv_len: usize,
            root: u32,
        ) -> i32,
    >,
    /// As fmi_scatter(); send is NULL and send_len 0 where this rank is not the root.
    pub scatter: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            send: *const c_void,
            send_len: usize,
            recv: *mut c_void,
            recv_len: usize,
            root: u32,
        ) -> i32,
    >,
    /// As fmi_reduce(), with len in bytes; recv is NULL where this rank is not the root.
    pub reduce: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            send: *const c_void,
            recv: *mut c_void,
            len: usize,
            reduction: *const fmi_reduction,
            root: u32,
        ) -> i32,
    >,
    /// As fmi_allreduce(), with len in bytes.
    pub allreduce: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            send: *const c_void,
            recv: *mut c_void,
            len: usize,
            reduction: *const fmi_reduction,
        ) -> i32,
    >,
    /// As fmi_scan(), with len in bytes.
    pub scan: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            send: *const c_void,
            recv: *mut c_void,
            len: usize,
            reduction: *const fmi_reduction,
        ) -> i32,
    >,
    /// A communicator that the channel is registered with, or the channel itself, is
    /// closed: once for each. NULL = nothing to do.
    pub finalize: Option<unsafe extern "C" fn(user: *mut c_void)>,
    /// Called with user exactly once, when neither the channel nor a communicator needs it
    /// any more, also when fmi_channel_create_custom() fails; may be NULL.
    pub drop: fmi_drop_fn,
}

/// Makes a channel of your own. The functions are copied.
///
/// @param vtable  the functions.
/// @param user    passed to all of them.
/// @param rank    this rank, from 0 to size - 1.
/// @param size    the number of ranks.
/// @param name    name of the job, NUL-terminated UTF-8, the same on all ranks; may be empty.
/// @param out     the channel, to be freed with fmi_channel_destroy(); NULL on failure.
/// @return FMI_OK; FMI_ERR_NULL also where a function is missing that the family needs; FMI_ERR_ARG
///         for an unknown family or flags, a struct_size that is too small, rank not less than size, or
///         a name that is not UTF-8; FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_create_custom(
    vtable: *const fmi_channel_vtable,
    user: *mut c_void,
    rank: u32,
    size: u32,
    name: *const c_char,
    out: *mut *mut fmi_channel,
) -> fmi_status {
    // First of all, so that whatever happens from here on drops it once.
    // SAFETY: a structure of the size that it states, as the header demands.
    let functions = unsafe { read_vtable(vtable) };
    let context = Context::new(user, functions.as_ref().ok().and_then(|functions| functions.drop));
    query(move || {
        // SAFETY: valid for writes, as the header demands.
        let out = unsafe { out!(out) }?.cleared();
        not_in_reduction()?;
        // SAFETY: NUL-terminated, as the header demands.
        let name = unsafe { text!(name) }?;
        let channel = CChannel::new(functions?, context, rank, size)?;
        out.set(fmi_channel::into_handle(Channel::custom(channel, rank, size, name)?));
        Ok(())
    })
}

/// Where the functions begin; they all have the size of a pointer.
const FIRST_FUNCTION: usize = offset_of!(fmi_channel_vtable, send_object);

/// Copies the functions that the caller's structure has.
///
/// # Safety
/// `vtable` is null, misaligned (both are refused), or begins with `struct_size` and is valid
/// for reads of as many bytes.
unsafe fn read_vtable(vtable: *const fmi_channel_vtable) -> Result<fmi_channel_vtable> {
    // SAFETY: nothing is written; the check of the pointer is the same.
    unsafe { out_named(vtable.cast_mut(), "vtable") }?;
    // SAFETY: not null and aligned, as just checked; the caller has set the field.
    let struct_size = unsafe { (&raw const (*vtable).struct_size).read() };
    if struct_size < FIRST_FUNCTION || !struct_size.is_multiple_of(size_of::<usize>()) {
        return Err(Error::new(
            ErrorKind::Arg,
            format!("vtable->struct_size is {struct_size}: set it to sizeof(fmi_channel_vtable)"),
        ));
    }
    let known = struct_size.min(size_of::<fmi_channel_vtable>());
    // SAFETY: numbers of 0 and functions that are None.
    let mut functions: fmi_channel_vtable = unsafe { std::mem::zeroed() };
    // SAFETY: `known` is within both structures; ours is on this stack. Whole fields are copied.
    unsafe { std::ptr::copy_nonoverlapping(vtable.cast::<u8>(), (&raw mut functions).cast::<u8>(), known) };
    Ok(functions)
}

/// How a whole channel's reduction may combine its operands.
///
/// @param reduction  what the channel's function was given.
/// @return FMI_OP_COMMUTATIVE, FMI_OP_ASSOCIATIVE and FMI_OP_ELEMENTWISE, or-ed: what may be relied on,
///         as in fmi_op_create(); FMI_ERR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_reduction_flags(reduction: *const fmi_reduction) -> i32 {
    let mut flags = 0;
    let status = query(|| {
        // SAFETY: what a channel's function was given, and is inside of, as the header demands.
        let op = unsafe { &*handle!(reduction)?.op };
        let (commutative, associative) = op.properties();
        flags |= if commutative { FMI_OP_COMMUTATIVE } else { 0 };
        flags |= if associative { FMI_OP_ASSOCIATIVE } else { 0 };
        // SAFETY: as above.
        let datatype = unsafe { handle!(reduction) }?.datatype;
        flags |= if op.is_splittable(datatype) { FMI_OP_ELEMENTWISE } else { 0 };
        Ok(())
    });
    if status < 0 { status } else { flags as i32 }
}

/// Combines two operands of a whole channel's reduction: inout = inout . in. May be
/// called from a reduction function, too, by which the channel has another do the work.
///
/// @param reduction  what the channel's function was given.
/// @param inout      the left operand (of the lower ranks), to be replaced by the result. Any alignment.
/// @param in         the right operand, which must not overlap inout; what it holds afterwards is not
///                   specified: never give it the buffer that is to be sent.
/// @param len        the length of each in bytes: that of the channel's function, or a part of it where
///                   the reduction is element-wise.
/// @return FMI_OK; FMI_ERR_CALLBACK where the user's function failed; FMI_ERR_ARG for a length that
///         cannot be, and where the operands overlap; FMI_ERR_NULL; FMI_ERR_NOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_reduction_apply(
    reduction: *const fmi_reduction,
    inout: *mut c_void,
    r#in: *mut c_void,
    len: usize,
) -> fmi_status {
    query(|| {
        // SAFETY: what a channel's function was given, and is inside of, as the header demands.
        let reduction = unsafe { handle!(reduction) }?;
        let (inout, input) = (Span::new(inout, len, "inout")?, Span::new(r#in, len, "in")?);
        if inout.overlaps(input) {
            return Err(Error::new(ErrorKind::Arg, "parameters inout and in overlap"));
        }
        // SAFETY: as above; the operation lives as long as the reduction. The buffers are the
        // caller's alone, and apart, as just checked.
        unsafe {
            Reduction::new(reduction.datatype, &*reduction.op)
                .apply(inout.as_mut_slice(), input.as_mut_slice())
        }
    })
}

/// The library's side of a channel of the user's own.
struct CChannel {
    functions: fmi_channel_vtable,
    context: Context,
    family: Family,
    rank: u32,
    size: u32,
}

/// How often a store is looked at where the channel does not say.
const DEFAULT_POLL_MS: u32 = 10;

impl CChannel {
    fn new(functions: fmi_channel_vtable, context: Context, rank: u32, size: u32) -> Result<Self> {
        if functions.flags & !FMI_CHANNEL_FULL_DUPLEX != 0 {
            let text = format!("vtable->flags has unknown bits: {:#x}", functions.flags);
            return Err(Error::new(ErrorKind::Arg, text));
        }
        let family = match functions.family {
            FMI_CHANNEL_PEER_TO_PEER => {
                let full_duplex = functions.flags & FMI_CHANNEL_FULL_DUPLEX != 0;
                Family::PeerToPeer { full_duplex }
            }
            FMI_CHANNEL_CLIENT_SERVER => {
                let poll = if functions.poll_ms == 0 { DEFAULT_POLL_MS } else { functions.poll_ms };
                Family::ClientServer { poll: Duration::from_millis(poll.into()) }
            }
            FMI_CHANNEL_WHOLE => Family::Whole,
            other => {
                let text = format!("vtable->family is {other}, which is no FMI_CHANNEL_... family");
                return Err(Error::new(ErrorKind::Arg, text));
            }
        };
        let channel = Self { functions, context, family, rank, size };
        channel.check_complete()?;
        Ok(channel)
    }

    fn check_complete(&self) -> Result<()> {
        let f = &self.functions;
        let has_messages = f.send.is_some() && f.recv.is_some();
        let needed: &[(&str, bool)] = match self.family {
            Family::PeerToPeer { .. } if has_messages => &[],
            Family::PeerToPeer { .. } => {
                &[("send_object", f.send_object.is_some()), ("recv_object", f.recv_object.is_some())]
            }
            Family::ClientServer { .. } => &[
                ("upload_object", f.upload_object.is_some()),
                ("download_object", f.download_object.is_some()),
                ("delete_object", f.delete_object.is_some()),
                ("list_objects", f.list_objects.is_some()),
            ],
            Family::Whole => &[
                ("send", f.send.is_some()),
                ("recv", f.recv.is_some()),
                ("bcast", f.bcast.is_some()),
                ("barrier", f.barrier.is_some()),
                ("gather", f.gather.is_some()),
                ("scatter", f.scatter.is_some()),
                ("reduce", f.reduce.is_some()),
                ("allreduce", f.allreduce.is_some()),
                ("scan", f.scan.is_some()),
            ],
        };
        match needed.iter().find(|(_, is_there)| !is_there) {
            None => Ok(()),
            Some((name, _)) => {
                Err(Error::new(ErrorKind::Null, format!("vtable->{name} is NULL, and the family needs it")))
            }
        }
    }

    fn user(&self) -> *mut c_void {
        self.context.user()
    }
}

/// What a function of the user's returned.
fn outcome(function: &str, number: i32) -> Result<()> {
    match number {
        0 => Ok(()),
        number => Err(callback_failure(&format!("the channel's {function}"), number)),
    }
}

fn not_there(function: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("the channel has no {function}"))
}

/// The name of an object as C has it. The job's name, which it holds, has no NUL.
fn c_name(name: &str) -> Result<CString> {
    CString::new(name).map_err(|_| Error::new(ErrorKind::Arg, "the name of an object has a NUL"))
}

// SAFETY, of all calls in here: the user's functions, with the user's pointer, and with
// buffers of the lengths that are stated.
impl CustomChannel for CChannel {
    fn family(&self) -> Family {
        self.family
    }

    fn timeout(&self) -> Option<Duration> {
        match self.functions.timeout_ms {
            0 => None,
            FMI_TIMEOUT_NEVER => Some(Duration::MAX),
            limited => Some(Duration::from_millis(limited.into())),
        }
    }

    fn send_object(&self, data: &[u8], dest: u32) -> Result<()> {
        let function = self.functions.send_object.ok_or_else(|| not_there("send_object"))?;
        // SAFETY: see above.
        outcome("send_object", unsafe { function(self.user(), data.as_ptr().cast(), data.len(), dest) })
    }

    fn recv_object(&self, buffer: &mut [u8], src: u32) -> Result<()> {
        let function = self.functions.recv_object.ok_or_else(|| not_there("recv_object"))?;
        let number =
            // SAFETY: see above.
            unsafe { function(self.user(), buffer.as_mut_ptr().cast(), buffer.len(), src) };
        outcome("recv_object", number)
    }

    fn upload_object(&self, name: &str, data: &[u8]) -> Result<()> {
        let function = self.functions.upload_object.ok_or_else(|| not_there("upload_object"))?;
        let name = c_name(name)?;
        let number =
            // SAFETY: see above.
            unsafe { function(self.user(), name.as_ptr(), data.as_ptr().cast(), data.len()) };
        outcome("upload_object", number)
    }

    fn download_object(&self, name: &str, buffer: &mut [u8]) -> Result<bool> {
        let function = self.functions.download_object.ok_or_else(|| not_there("download_object"))?;
        let name = c_name(name)?;
        let mut found = 0;
        // SAFETY: see above.
        let number = unsafe {
            function(self.user(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len(), &raw mut found)
        };
        outcome("download_object", number).map(|()| found != 0)
    }

    fn download(&self, name: &str, buffer: &mut [u8]) -> Option<Result<()>> {
        let function = self.functions.download?;
        let name = match c_name(name) {
            Ok(name) => name,
            Err(error) => return Some(Err(error)),
        };
        let number =
            // SAFETY: see above.
            unsafe { function(self.user(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
        Some(outcome("download", number))
    }

    fn delete_object(&self, name: &str) -> Result<()> {
        let function = self.functions.delete_object.ok_or_else(|| not_there("delete_object"))?;
        let name = c_name(name)?;
        // SAFETY: see above.
        outcome("delete_object", unsafe { function(self.user(), name.as_ptr()) })
    }

    fn list_objects(&self, visit: &mut dyn FnMut(&str)) -> Result<()> {
        unsafe extern "C" fn pass_on(context: *mut c_void, name: *const c_char) -> i32 {
            if context.is_null() || name.is_null() {
                return 1;
            }
            // SAFETY: the context is what `list_objects` made of its `visit`; the name is
            // NUL-terminated, as the header demands.
            let (visit, name) =
                unsafe { (&mut *context.cast::<&mut dyn FnMut(&str)>(), CStr::from_ptr(name)) };
            // Names that are not UTF-8 are not the library's.
            let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                if let Ok(name) = name.to_str() {
                    visit(name);
                }
            }));
            i32::from(passed.is_err())
        }
        let function = self.functions.list_objects.ok_or_else(|| not_there("list_objects"))?;
        let mut visit = visit;
        let context: *mut &mut dyn FnMut(&str) = &raw mut visit;
        // SAFETY: see above.
        outcome("list_objects", unsafe { function(self.user(), Some(pass_on), context.cast()) })
    }

    fn send(&self, data: &[u8], dest: u32) -> Option<Result<()>> {
        let function = self.functions.send?;
        // SAFETY: see above.
        Some(outcome("send", unsafe { function(self.user(), data.as_ptr().cast(), data.len(), dest) }))
    }

    fn recv(&self, buffer: &mut [u8], src: u32) -> Option<Result<()>> {
        let function = self.functions.recv?;
        let number =
            // SAFETY: see above.
            unsafe { function(self.user(), buffer.as_mut_ptr().cast(), buffer.len(), src) };
        Some(outcome("recv", number))
    }

    fn collective(&self, collective: &mut Collective<'_>) -> Option<Result<()>> {
        let (user, name) = (self.user(), collective.operation().name());
        // SAFETY: see above.
        let number = unsafe {
            match collective {
                Collective::Bcast { buffer, root } => {
                    self.functions.bcast?(user, buffer.as_mut_ptr().cast(), buffer.len(), *root)
                }
                Collective::Barrier => self.functions.barrier?(user),
                Collective::Gather { buffers, root } => {
                    let (send, recv) = self.gather_buffers(buffers);
                    self.functions.gather?(user, send.0, send.1, recv.0, recv.1, *root)
                }
                Collective::Scatter { buffers, root } => {
                    let (send, recv) = self.scatter_buffers(buffers);
                    self.functions.scatter?(user, send.0, send.1, recv.0, recv.1, *root)
                }
                Collective::Reduce { buffers, reduction, root } => {
                    let function = self.functions.reduce?;
                    let (send, recv, len) = reduce_buffers(buffers);
                    function(user, send, recv, len, &fmi_reduction::new(reduction), *root)
                }
                Collective::Allreduce { buffers, reduction } => {
                    let function = self.functions.allreduce?;
                    let (send, recv, len) = reduce_buffers(buffers);
                    function(user, send, recv, len, &fmi_reduction::new(reduction))
                }
                Collective::Scan { buffers, reduction } => {
                    let function = self.functions.scan?;
                    let (send, recv, len) = reduce_buffers(buffers);
                    function(user, send, recv, len, &fmi_reduction::new(reduction))
                }
            }
        };
        Some(outcome(name, number))
    }

    fn latency(&self, producers: u32, consumers: u32, bytes: usize) -> f64 {
        // SAFETY: see above.
        self.functions
            .latency
            .map_or(0.0, |latency| unsafe { latency(self.user(), producers, consumers, bytes) })
    }

    fn price(&self, producers: u32, consumers: u32, bytes: usize) -> f64 {
        // SAFETY: see above.
        self.functions.price.map_or(0.0, |price| unsafe { price(self.user(), producers, consumers, bytes) })
    }

    fn operation_latency(&self, operation: Operation, bytes: usize, left_to_right: bool) -> Option<f64> {
        let function = self.functions.operation_latency?;
        // SAFETY: see above.
        Some(unsafe { function(self.user(), operation as i32, bytes, left_to_right.into()) })
    }

    fn operation_price(&self, operation: Operation, bytes: usize, left_to_right: bool) -> Option<f64> {
        let function = self.functions.operation_price?;
        // SAFETY: see above.
        Some(unsafe { function(self.user(), operation as i32, bytes, left_to_right.into()) })
    }

    fn finalize(&self) {
        if let Some(finalize) = self.functions.finalize {
            // SAFETY: see above.
            unsafe { finalize(self.user()) }
        }
    }
}

/// Pointer and length as C has them.
type Input = (*const c_void, usize);
type Output = (*mut c_void, usize);

fn input(bytes: &[u8]) -> Input {
    (bytes.as_ptr().cast(), bytes.len())
}

fn output(bytes: &mut [u8]) -> Output {
    (bytes.as_mut_ptr().cast(), bytes.len())
}

impl CChannel {
    fn gather_buffers(&self, buffers: &mut GatherBuffers<'_>) -> (Input, Output) {
        match buffers {
            GatherBuffers::Leaf(block) => (input(block), (std::ptr::null_mut(), 0)),
            GatherBuffers::Root { send, recv } => (input(send), output(recv)),
            GatherBuffers::RootInPlace(all) => {
                let all = output(all);
                ((self.own_block(all.0.cast_const(), all.1), all.1 / self.size as usize), all)
            }
        }
    }

    fn scatter_buffers(&self, buffers: &mut ScatterBuffers<'_>) -> (Input, Output) {
        match buffers {
            ScatterBuffers::Leaf(block) => ((std::ptr::null(), 0), output(block)),
            ScatterBuffers::Root { send, recv } => (input(send), output(recv)),
            ScatterBuffers::RootInPlace(all) => {
                let all = input(all);
                // In place: the block is where it belongs, and must not be written to.
                (all, (self.own_block(all.0, all.1).cast_mut(), all.1 / self.size as usize))
            }
        }
    }

    fn own_block(&self, all: *const c_void, len: usize) -> *const c_void {
        all.wrapping_byte_add(len / self.size as usize * self.rank as usize)
    }
}

fn reduce_buffers(buffers: &mut ReduceBuffers<'_>) -> (*const c_void, *mut c_void, usize) {
    match buffers {
        ReduceBuffers::Leaf(operand) => (operand.as_ptr().cast(), std::ptr::null_mut(), operand.len()),
        ReduceBuffers::Separate { send, recv } => {
            (send.as_ptr().cast(), recv.as_mut_ptr().cast(), send.len())
        }
        ReduceBuffers::InPlace(buffer) => {
            let start: *mut c_void = buffer.as_mut_ptr().cast();
            (start.cast_const(), start, buffer.len())
        }
    }
}

impl fmi_reduction {
    fn new(reduction: &Reduction<'_>) -> Self {
        Self { datatype: reduction.datatype(), op: reduction.op() }
    }
}

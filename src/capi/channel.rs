//! Channels by themselves: making, registering, asking.

use std::ffi::{CString, c_char, c_void};

use super::boundary::{
    LastError, Operated, Span, bytes, fail, function, guarded, handle, not_in_reduction, on, out, query,
    text, timeout, walled,
};
use super::communicator::fmi_comm;
use super::error::{copy_info, fmi_error_info};
use super::status::fmi_status;
use crate::communicator::{Channel, Communicator};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::Operation;

/// A channel for one rank of a job: one of the library's with parameters of its
/// own, see fmi_channel_create(), or one of yours, see
/// fmi_channel_create_custom().
///
/// Register it with a communicator, or use it by itself: fmi_channel_send() and
/// its kin. One call at a time may move data over a channel; a second one, of
/// another thread or out of a function of the channel, gets FMI_ERR_BUSY.
pub struct fmi_channel {
    channel: Channel,
    last_error: LastError,
}

// A C program may use a channel from any thread.
const _: () = {
    const fn usable_from_any_thread<T: Send + Sync>() {}
    usable_from_any_thread::<fmi_channel>();
};

impl fmi_channel {
    pub(super) fn into_handle(channel: Channel) -> *mut Self {
        Box::into_raw(Box::new(Self { channel, last_error: LastError::none() }))
    }
}

impl Operated for fmi_channel {
    const NAME: &'static str = "channel";

    fn communicator(&self) -> Result<&Communicator> {
        self.channel.communicator()
    }

    fn last_error(&self) -> &LastError {
        &self.last_error
    }
}

/// Makes one of the library's channels. Does no network I/O: an absent server
/// shows at the first operation, and latency and price need none.
///
/// @param kind          "Direct", "Redis", "S3" or "Memory" (between threads of one process),
///                      NUL-terminated UTF-8.
/// @param params        its parameters, as a configuration has them under `backends`: a JSON object as
///                      NUL-terminated UTF-8, or NULL or "" for the defaults.
/// @param model_params  its parameters for the model, as a configuration has them under `model`;
///                      likewise.
/// @param rank          this rank, from 0 to size - 1.
/// @param size          the number of ranks.
/// @param name          name of the job, NUL-terminated UTF-8, the same on all ranks; may be empty. A
///                      rank can be in a job of one name only once: a channel beside a communicator's
///                      own needs another name.
/// @param out           the channel, to be freed with fmi_channel_destroy(); NULL on failure.
/// @return FMI_OK; FMI_ERR_NULL; FMI_ERR_ARG where there is no such kind, rank is not less than size,
///         or a text is not UTF-8; FMI_ERR_CONFIG for wrong parameters; FMI_ERR_REENTRANT. A channel
///         that is not in this build can be made and asked for latency and price; its operations are
///         FMI_ERR_UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_create(
    kind: *const c_char,
    params: *const c_char,
    model_params: *const c_char,
    rank: u32,
    size: u32,
    name: *const c_char,
    out: *mut *mut fmi_channel,
) -> fmi_status {
    query(|| {
        // SAFETY: valid for writes, as the header demands.
        let out = unsafe { out!(out) }?.cleared();
        not_in_reduction()?;
        // SAFETY: NUL-terminated texts, as the header demands.
        let (kind, name) = unsafe { (text!(kind)?, text!(name)?) };
        // SAFETY: NUL-terminated unless NULL, as the header demands.
        let params = if params.is_null() { "" } else { unsafe { text!(params) }? };
        // SAFETY: NUL-terminated unless NULL, as the header demands.
        let model_params = if model_params.is_null() { "" } else { unsafe { text!(model_params) }? };
        let channel = Channel::built_in(kind, params, model_params, rank, size, name)?;
        out.set(fmi_channel::into_handle(channel));
        Ok(())
    })
}

/// Ends the use of the channel by itself, as fmi_comm_close() does of a
/// communicator. Communicators that it is registered with are not concerned.
///
/// @param channel     the channel.
/// @param timeout_ms  how long to wait for the peers, in ms; FMI_TIMEOUT_NEVER = no limit.
/// @return as fmi_comm_close().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_close(channel: *mut fmi_channel, timeout_ms: u32) -> fmi_status {
    // SAFETY: a live channel, as the header demands.
    unsafe { on(channel, |comm| comm.close(timeout(timeout_ms)?)) }
}

/// Frees a channel, and leaves the job as fmi_comm_destroy() does where it was
/// used by itself. Communicators that it is registered with go on using it. Must
/// not be called while another thread is inside a call on the channel, and does
/// nothing inside a reduction function.
///
/// @param channel  the channel; NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_destroy(channel: *mut fmi_channel) {
    if channel.is_null() {
        return;
    }
    let freed = walled(|| {
        not_in_reduction()?;
        // SAFETY: as below; this only refuses what cannot be a channel.
        unsafe { handle!(channel) }?;
        // SAFETY: made by `Box::into_raw` in `into_handle`, and not used any more, as the header
        // demands.
        drop(unsafe { Box::from_raw(channel) });
        Ok(())
    });
    if let Err(error) = freed {
        fail(&error);
    }
}

/// Sets how long a call on the channel may take, connecting included.
///
/// @param channel     the channel.
/// @param timeout_ms  the time in ms; FMI_TIMEOUT_NEVER = no limit.
/// @return as fmi_comm_set_timeout().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_set_timeout(channel: *mut fmi_channel, timeout_ms: u32) -> fmi_status {
    // SAFETY: a live channel, as the header demands.
    unsafe { on(channel, |comm| comm.set_timeout(timeout(timeout_ms)?)) }
}

/// Has a communicator use a channel from its next operation on; pin it with
/// fmi_comm_set_channel() where it is not the only one. All ranks must register
/// alike. The communicator keeps what it needs of the channel: the handle may be
/// destroyed.
///
/// @param comm     the communicator.
/// @param name     what the communicator calls the channel, NUL-terminated UTF-8, not empty. A channel
///                 that has the name already is replaced and left in order, also one of the library's.
/// @param channel  the channel, for the same rank and size as the communicator.
/// @return FMI_OK; FMI_ERR_ARG where rank or size differ, or name is empty or not UTF-8;
///         FMI_ERR_UNSUPPORTED where the channel is not in this build; FMI_ERR_IO; FMI_ERR_NULL;
///         FMI_ERR_CLOSED; FMI_ERR_FORKED; FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_comm_register_channel(
    comm: *mut fmi_comm,
    name: *const c_char,
    channel: *mut fmi_channel,
) -> fmi_status {
    // SAFETY: a live communicator, a live channel and a NUL-terminated text, as the header demands.
    unsafe { on(comm, |comm| comm.register_channel(text!(name)?, &handle!(channel)?.channel)) }
}

/// Tells what is known of the last failure of a call on this channel, as
/// fmi_comm_error_info() does.
///
/// @param channel  the channel.
/// @param out      filled as far as out->struct_size, which the caller has set, reaches; untouched on
///                 failure. `status` is FMI_OK where no call has failed.
/// @return FMI_OK; FMI_ERR_NULL; FMI_ERR_ARG where out->struct_size is too small for any field.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_error_info(
    channel: *const fmi_channel,
    out: *mut fmi_error_info,
) -> fmi_status {
    // SAFETY: a live channel and a structure for the result, as the header demands.
    query(|| unsafe { copy_info(handle!(channel)?.last_error(), out) })
}

/// How long it takes until each of some ranks has the bytes of each of others,
/// as the model predicts. May be asked from any thread at any time.
///
/// @param channel    the channel.
/// @param producers  the number of ranks that send.
/// @param consumers  the number of ranks that receive.
/// @param bytes      how many bytes each producer has for each consumer.
/// @param out        the time in ms; untouched on failure.
/// @return FMI_OK; FMI_ERR_NULL; FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_latency(
    channel: *const fmi_channel,
    producers: u32,
    consumers: u32,
    bytes: usize,
    out: *mut f64,
) -> fmi_status {
    // SAFETY: a live channel and a place for the result, as the header demands.
    unsafe { ask(channel, out, |channel| Ok(channel.latency(producers, consumers, bytes))) }
}

/// What such an exchange costs, as the model predicts. May be asked from any
/// thread at any time.
///
/// @param channel    the channel.
/// @param producers  the number of ranks that send.
/// @param consumers  the number of ranks that receive.
/// @param bytes      how many bytes each producer has for each consumer.
/// @param out        the price in USD, without the time of the functions; untouched on failure.
/// @return FMI_OK; FMI_ERR_NULL; FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_price(
    channel: *const fmi_channel,
    producers: u32,
    consumers: u32,
    bytes: usize,
    out: *mut f64,
) -> fmi_status {
    // SAFETY: a live channel and a place for the result, as the header demands.
    unsafe { ask(channel, out, |channel| Ok(channel.price(producers, consumers, bytes))) }
}

/// How long an operation takes among the channel's ranks, as the model predicts.
/// May be asked from any thread at any time.
///
/// @param channel        the channel.
/// @param operation      one of FMI_OPERATION_SEND to FMI_OPERATION_SCAN.
/// @param bytes          what each rank passes, in bytes.
/// @param left_to_right  other than 0: a reduction whose operands are combined strictly from left to
///                       right.
/// @param out            the time in ms; untouched on failure.
/// @return FMI_OK; FMI_ERR_ARG where there is no such operation; FMI_ERR_NULL; FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_operation_latency(
    channel: *const fmi_channel,
    operation: i32,
    bytes: usize,
    left_to_right: i32,
    out: *mut f64,
) -> fmi_status {
    // SAFETY: a live channel and a place for the result, as the header demands.
    unsafe {
        ask(channel, out, |channel| {
            Ok(channel.operation_latency(modelled(operation)?, bytes, left_to_right != 0))
        })
    }
}

/// What an operation among the channel's ranks costs, as the model predicts. May
/// be asked from any thread at any time.
///
/// @param channel        the channel.
/// @param operation      one of FMI_OPERATION_SEND to FMI_OPERATION_SCAN.
/// @param bytes          what each rank passes, in bytes.
/// @param left_to_right  other than 0: a reduction whose operands are combined strictly from left to
///                       right.
/// @param out            the price in USD, without the time of the functions; untouched on failure.
/// @return FMI_OK; FMI_ERR_ARG where there is no such operation; FMI_ERR_NULL; FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_operation_price(
    channel: *const fmi_channel,
    operation: i32,
    bytes: usize,
    left_to_right: i32,
    out: *mut f64,
) -> fmi_status {
    // SAFETY: a live channel and a place for the result, as the header demands.
    unsafe {
        ask(channel, out, |channel| {
            Ok(channel.operation_price(modelled(operation)?, bytes, left_to_right != 0))
        })
    }
}

/// # Safety
/// `channel` is null, misaligned (both are refused), or a live channel; `out` likewise,
/// or a place for a number.
unsafe fn ask(
    channel: *const fmi_channel,
    out: *mut f64,
    question: impl FnOnce(&Channel) -> Result<f64>,
) -> fmi_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (channel, out) = unsafe { (handle!(channel)?, out!(out)?) };
        out.set(question(&channel.channel)?);
        Ok(())
    })
}

fn modelled(operation: i32) -> Result<Operation> {
    u8::try_from(operation)
        .ok()
        .and_then(Operation::from_code)
        .filter(|known| *known <= Operation::Scan)
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Arg,
                format!("parameter operation is {operation}, which is none that moves data"),
            )
        })
}

/// Stores an object in a client-server channel, as it is. For messages there is
/// fmi_channel_send().
///
/// @param channel  the channel.
/// @param name     the object's name, NUL-terminated UTF-8.
/// @param data     the object; ignored where len is 0.
/// @param len      its length in bytes.
/// @return FMI_OK; FMI_ERR_UNSUPPORTED where the channel keeps no objects, or is not in this build;
///         FMI_ERR_CALLBACK where a function of yours failed; FMI_ERR_ARG where name is not UTF-8;
///         FMI_ERR_NULL; FMI_ERR_BUSY; FMI_ERR_REENTRANT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_upload(
    channel: *mut fmi_channel,
    name: *const c_char,
    data: *const c_void,
    len: usize,
) -> fmi_status {
    // SAFETY: a live channel, a NUL-terminated text and `len` bytes, as the header demands.
    unsafe { on_store(channel, |channel| channel.upload(text!(name)?, bytes!(data, len)?.as_slice())) }
}

/// Looks for an object in a client-server channel. Does not wait for one.
///
/// @param channel   the channel.
/// @param name      the object's name, NUL-terminated UTF-8.
/// @param buf       filled with the object, as far as both reach; ignored where capacity is 0.
/// @param capacity  the size of buf in bytes.
/// @param found     1 = there was one, 0 = there was none; untouched on failure.
/// @return as fmi_channel_upload().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_download(
    channel: *mut fmi_channel,
    name: *const c_char,
    buf: *mut c_void,
    capacity: usize,
    found: *mut i32,
) -> fmi_status {
    // SAFETY: a live channel, a NUL-terminated text, `capacity` bytes that nobody else uses during the
    // call, and a place for the result, as the header demands.
    unsafe {
        on_store(channel, |channel| {
            let buf: Span = bytes!(buf, capacity)?;
            let found = out!(found)?;
            found.set(channel.download(text!(name)?, buf.as_mut_slice())?.into());
            Ok(())
        })
    }
}

/// Removes an object from a client-server channel, if there is one.
///
/// @param channel  the channel.
/// @param name     the object's name, NUL-terminated UTF-8.
/// @return as fmi_channel_upload().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_delete(channel: *mut fmi_channel, name: *const c_char) -> fmi_status {
    // SAFETY: a live channel and a NUL-terminated text, as the header demands.
    unsafe { on_store(channel, |channel| channel.delete(text!(name)?)) }
}

/// Calls a function with the name of every object of a client-server channel.
///
/// @param channel  the channel.
/// @param visit    called with user and a name, which is UTF-8 and lives until it returns. Other than 0
///                 ends the visit. May not unwind.
/// @param user     passed to visit.
/// @return as fmi_channel_upload(); FMI_ERR_CALLBACK also where visit returned other than 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_list(
    channel: *mut fmi_channel,
    visit: Option<unsafe extern "C" fn(user: *mut c_void, name: *const c_char) -> i32>,
    user: *mut c_void,
) -> fmi_status {
    // SAFETY: a live channel, as the header demands.
    unsafe {
        on_store(channel, |channel| {
            let visit = function!(visit)?;
            let mut answer = 0;
            channel.list(&mut |name| {
                if answer == 0
                    && let Ok(name) = CString::new(name)
                {
                    // The user's function; the text outlives it.
                    answer = visit(user, name.as_ptr());
                }
            })?;
            match answer {
                0 => Ok(()),
                code => Err(Error::new(ErrorKind::Callback, format!("the visit function returned {code}"))),
            }
        })
    }
}

/// # Safety
/// `channel` is null, misaligned (both are refused), or a live channel.
unsafe fn on_store(channel: *const fmi_channel, body: impl FnOnce(&Channel) -> Result<()>) -> fmi_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let handle = unsafe { handle!(channel) }?;
        body(&handle.channel).inspect_err(|error| handle.last_error.note(error.clone()))
    })
}

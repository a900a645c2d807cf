//! What is known of a failure.

use std::ffi::c_char;
use std::mem::offset_of;

use super::boundary::{LastError, Operated, copy_text, handle, out_named, query, walled, with_last_error};
use super::communicator::fmi_comm;
use super::status::{FMI_OK, fmi_status};
use crate::error::{Error, ErrorKind, Result};

/// `operation` in fmi_error_info: no operation of a communicator.
pub const FMI_OPERATION_NONE: i32 = 0;
/// `operation` in fmi_error_info: fmi_send().
pub const FMI_OPERATION_SEND: i32 = 1;
/// `operation` in fmi_error_info: fmi_recv().
pub const FMI_OPERATION_RECV: i32 = 2;
/// `operation` in fmi_error_info: fmi_sendrecv().
pub const FMI_OPERATION_SENDRECV: i32 = 3;
/// `operation` in fmi_error_info: fmi_bcast().
pub const FMI_OPERATION_BCAST: i32 = 16;
/// `operation` in fmi_error_info: fmi_barrier().
pub const FMI_OPERATION_BARRIER: i32 = 17;
/// `operation` in fmi_error_info: fmi_gather().
pub const FMI_OPERATION_GATHER: i32 = 18;
/// `operation` in fmi_error_info: fmi_scatter().
pub const FMI_OPERATION_SCATTER: i32 = 19;
/// `operation` in fmi_error_info: fmi_reduce().
pub const FMI_OPERATION_REDUCE: i32 = 20;
/// `operation` in fmi_error_info: fmi_allreduce().
pub const FMI_OPERATION_ALLREDUCE: i32 = 21;
/// `operation` in fmi_error_info: fmi_scan().
pub const FMI_OPERATION_SCAN: i32 = 22;
/// `operation` in fmi_error_info: making a communicator, or joining the job.
pub const FMI_OPERATION_CREATE: i32 = 64;
/// `operation` in fmi_error_info: fmi_comm_close().
pub const FMI_OPERATION_CLOSE: i32 = 65;

/// What is known of a failure.
///
/// Set struct_size to sizeof(fmi_error_info) before you pass it. A program that
/// was compiled with an older, smaller structure gets the fields that it knows.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct fmi_error_info {
    /// Set by the caller: the size of the structure in bytes.
    pub struct_size: usize,
    /// What the call returned; FMI_OK where no call has failed.
    pub status: fmi_status,
    /// The first failure that led to this one, perhaps on another rank; the
    /// same as status where there was no earlier.
    pub cause: fmi_status,
    /// The operation that failed: one of the FMI_OPERATION_... constants.
    pub operation: i32,
    /// The rank of the peer that the failure concerns; -1 = none.
    pub peer: i32,
    /// The rank on which the first failure was seen; -1 = not known.
    pub cause_rank: i32,
    /// The errno of the operating system; 0 = none.
    pub os_errno: i32,
    /// How long the call had waited, in ms.
    pub waited_ms: u64,
    /// The name of the channel, NUL-terminated and cut where it is longer;
    /// empty = none.
    pub channel: [c_char; 32],
}

/// Where each field ends: a caller's structure holds the fields that end within
/// its size.
const FIELD_ENDS: [usize; 8] = [
    offset_of!(fmi_error_info, cause),
    offset_of!(fmi_error_info, operation),
    offset_of!(fmi_error_info, peer),
    offset_of!(fmi_error_info, cause_rank),
    offset_of!(fmi_error_info, os_errno),
    offset_of!(fmi_error_info, waited_ms),
    offset_of!(fmi_error_info, channel),
    size_of::<fmi_error_info>(),
];

// What is copied out must hold no padding, and each field must end where the
// next begins.
const _: () = assert!(size_of::<fmi_error_info>() == size_of::<usize>() + 6 * 4 + 8 + 32);

impl fmi_error_info {
    fn new(struct_size: usize, error: Option<&Error>) -> Self {
        let rank = |rank: Option<u32>| rank.and_then(|rank| i32::try_from(rank).ok()).unwrap_or(-1);
        let mut channel = [0; 32];
        if let Some(name) = error.and_then(Error::channel) {
            // SAFETY: the array is valid for writes of its own length.
            unsafe { copy_text(name, channel.as_mut_ptr(), channel.len()) };
        }
        Self {
            struct_size,
            status: error.map_or(FMI_OK, |error| error.kind().status()),
            cause: error.map_or(FMI_OK, |error| error.cause().status()),
            operation: error.and_then(Error::operation).map_or(FMI_OPERATION_NONE, |op| op as i32),
            peer: rank(error.and_then(Error::peer)),
            cause_rank: rank(error.and_then(Error::cause_rank)),
            os_errno: error.map_or(0, Error::os_errno),
            waited_ms: error
                .and_then(Error::waited)
                .map_or(0, |waited| u64::try_from(waited.as_millis()).unwrap_or(u64::MAX)),
            channel,
        }
    }
}

/// Tells what is known of the last failure of a call on this communicator. May
/// be called from any thread, also while another is inside a call, and from a
/// reduction function.
///
/// @param comm  the communicator.
/// @param out   filled as far as out->struct_size, which the caller has set, reaches; untouched on
///              failure. `status` is FMI_OK where no call has failed.
/// @return FMI_OK; FMI_ERR_NULL; FMI_ERR_ARG where out->struct_size is too small for any field.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_comm_error_info(comm: *const fmi_comm, out: *mut fmi_error_info) -> fmi_status {
    // SAFETY: a live communicator and a structure for the result, as the header demands.
    query(|| unsafe { copy_info(handle!(comm)?.last_error(), out) })
}

/// Copies out what is known of a failure.
///
/// # Safety
/// `out` is null, misaligned (both are refused), or begins with `struct_size` and is valid
/// for writes of as many bytes.
pub(super) unsafe fn copy_info(last: &LastError, out: *mut fmi_error_info) -> Result<()> {
    // SAFETY: the caller's promise. Of the structure itself only the first field is known to be
    // there, so that no reference to the whole may be made.
    unsafe { out_named(out, "out") }?;
    // SAFETY: not null and aligned, as just checked; the caller has set the field.
    let struct_size = unsafe { (&raw const (*out).struct_size).read() };
    let Some(end) = FIELD_ENDS.into_iter().rfind(|end| *end <= struct_size) else {
        return Err(Error::new(
            ErrorKind::Arg,
            format!("out->struct_size is {struct_size}: set it to sizeof(fmi_error_info)"),
        ));
    };
    let info = fmi_error_info::new(struct_size, last.get().as_ref());
    // SAFETY: `end` is within both our structure and the caller's; ours is on this stack.
    unsafe { std::ptr::copy_nonoverlapping((&raw const info).cast::<u8>(), out.cast::<u8>(), end) };
    Ok(())
}

/// Tells the last failure of a call on this communicator as text. May be called
/// from any thread, also while another is inside a call, and from a reduction
/// function.
///
/// @param comm  the communicator; NULL gives the empty text.
/// @param buf   filled as snprintf() would: at most len - 1 bytes of the text, never a part of a
///              character, and a NUL. May be NULL where len is 0.
/// @param len   the size of buf in bytes.
/// @return the length of the whole text in bytes, without NUL: not less than len means that buf holds
///         only its beginning. 0 = no call has failed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_comm_error_message(
    comm: *const fmi_comm,
    buf: *mut c_char,
    len: usize,
) -> usize {
    let text = walled(|| {
        // SAFETY: a live communicator, as the header demands.
        let comm = unsafe { handle!(comm) }?;
        Ok(comm.last_error().get().map_or_else(String::new, |error| error.to_string()))
    })
    .unwrap_or_default();
    // SAFETY: `len` bytes, as the header demands.
    unsafe { copy_text(&text, buf, len) }
}

/// Tells this thread's last failure as text, also one without a communicator.
/// A call that succeeds leaves it as it is.
///
/// @param buf  filled as snprintf() would: at most len - 1 bytes of the text, never a part of a
///             character, and a NUL. May be NULL where len is 0.
/// @param len  the size of buf in bytes.
/// @return the length of the whole text in bytes, without NUL: not less than len means that buf holds
///         only its beginning. 0 = no call of this thread has failed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_last_error_message(buf: *mut c_char, len: usize) -> usize {
    // SAFETY: `len` bytes, as the header demands.
    with_last_error(|text| unsafe { copy_text(text, buf, len) })
}

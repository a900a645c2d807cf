//! Status codes.

use std::ffi::{CStr, c_char};

use crate::error::ErrorKind;

/// What a function returns: FMI_OK, or a negative number that says what kind of
/// failure it was. The numbers are fixed and never reused. Positive ones are
/// reserved: treat them as success.
///
/// fmi_status_name() gives the name, fmi_last_error_message() the whole story.
pub type fmi_status = i32;

/// The call succeeded.
pub const FMI_OK: fmi_status = 0;
/// An argument is out of range or contradicts another. Nothing was sent, the
/// communicator stays usable.
pub const FMI_ERR_ARG: fmi_status = -1;
/// A pointer that must not be NULL is NULL; the message names the parameter.
/// Nothing was sent, the communicator stays usable.
pub const FMI_ERR_NULL: fmi_status = -2;
/// The configuration is missing, malformed, or holds a wrong value; the message
/// names the file and the key.
pub const FMI_ERR_CONFIG: fmi_status = -3;
/// This build of the library, or the channel, cannot do this.
pub const FMI_ERR_UNSUPPORTED: fmi_status = -4;
/// Memory could not be had.
pub const FMI_ERR_NOMEM: fmi_status = -5;
/// Another thread is inside a call on the same communicator.
pub const FMI_ERR_BUSY: fmi_status = -6;
/// FMI was called from a place where it may not be called: a reduction
/// function.
pub const FMI_ERR_REENTRANT: fmi_status = -7;
/// The communicator was made before a fork, by the parent process.
pub const FMI_ERR_FORKED: fmi_status = -8;
/// The communicator is closed.
pub const FMI_ERR_CLOSED: fmi_status = -9;
/// The deadline passed; see fmi_comm_set_timeout().
pub const FMI_ERR_TIMEOUT: fmi_status = -10;
/// The call was interrupted; see fmi_comm_wakeup_fd().
pub const FMI_ERR_INTERRUPTED: fmi_status = -11;
/// The sender withdrew the message half way, because of its deadline.
pub const FMI_ERR_CANCELLED: fmi_status = -12;
/// A message is longer or shorter than the buffer of its receive. The message
/// is gone, the next one is received correctly.
pub const FMI_ERR_SIZE_MISMATCH: fmi_status = -13;
/// The ranks do not call the same collective with the same arguments.
pub const FMI_ERR_MISMATCH: fmi_status = -14;
/// A rank died, or its connection broke.
pub const FMI_ERR_PEER_LOST: fmi_status = -15;
/// A rank closed its communicator in order, and is gone.
pub const FMI_ERR_PEER_LEFT: fmi_status = -16;
/// The job was aborted; see fmi_comm_abort().
pub const FMI_ERR_ABORTED: fmi_status = -17;
/// An earlier collective of this communicator failed, so that none can work any
/// more; `cause` in fmi_error_info says how. Messages between two ranks still
/// work.
pub const FMI_ERR_POISONED: fmi_status = -18;
/// A server, a store or a peer cannot be reached.
pub const FMI_ERR_CONNECT: fmi_status = -19;
/// Another live process already has this rank.
pub const FMI_ERR_RANK_TAKEN: fmi_status = -20;
/// The secret is wrong or missing.
pub const FMI_ERR_AUTH: fmi_status = -21;
/// The other side speaks another protocol or version, or sends garbage.
pub const FMI_ERR_PROTOCOL: fmi_status = -22;
/// The operating system reported an error; `os_errno` in fmi_error_info says
/// which.
pub const FMI_ERR_IO: fmi_status = -23;
/// A function supplied by the user failed: it returned other than 0.
pub const FMI_ERR_CALLBACK: fmi_status = -24;
/// A bug in FMI.
pub const FMI_ERR_INTERNAL: fmi_status = -25;

/// The name of a status code, such as "FMI_ERR_TIMEOUT".
///
/// @param status  any number.
/// @return a static text, never NULL and not to be freed; "FMI_UNKNOWN_STATUS" for a
///         number that is no status code.
#[unsafe(no_mangle)]
pub extern "C" fn fmi_status_name(status: fmi_status) -> *const c_char {
    name(status).as_ptr()
}

/// [`ErrorKind::name`] with the NUL that C needs.
pub(super) fn name(status: fmi_status) -> &'static CStr {
    if status == FMI_OK {
        return c"FMI_OK";
    }
    match ErrorKind::from_status(status) {
        Some(ErrorKind::Arg) => c"FMI_ERR_ARG",
        Some(ErrorKind::Null) => c"FMI_ERR_NULL",
        Some(ErrorKind::Config) => c"FMI_ERR_CONFIG",
        Some(ErrorKind::Unsupported) => c"FMI_ERR_UNSUPPORTED",
        Some(ErrorKind::NoMem) => c"FMI_ERR_NOMEM",
        Some(ErrorKind::Busy) => c"FMI_ERR_BUSY",
        Some(ErrorKind::Reentrant) => c"FMI_ERR_REENTRANT",
        Some(ErrorKind::Forked) => c"FMI_ERR_FORKED",
        Some(ErrorKind::Closed) => c"FMI_ERR_CLOSED",
        Some(ErrorKind::Timeout) => c"FMI_ERR_TIMEOUT",
        Some(ErrorKind::Interrupted) => c"FMI_ERR_INTERRUPTED",
        Some(ErrorKind::Cancelled) => c"FMI_ERR_CANCELLED",
        Some(ErrorKind::SizeMismatch) => c"FMI_ERR_SIZE_MISMATCH",
        Some(ErrorKind::Mismatch) => c"FMI_ERR_MISMATCH",
        Some(ErrorKind::PeerLost) => c"FMI_ERR_PEER_LOST",
        Some(ErrorKind::PeerLeft) => c"FMI_ERR_PEER_LEFT",
        Some(ErrorKind::Aborted) => c"FMI_ERR_ABORTED",
        Some(ErrorKind::Poisoned) => c"FMI_ERR_POISONED",
        Some(ErrorKind::Connect) => c"FMI_ERR_CONNECT",
        Some(ErrorKind::RankTaken) => c"FMI_ERR_RANK_TAKEN",
        Some(ErrorKind::Auth) => c"FMI_ERR_AUTH",
        Some(ErrorKind::Protocol) => c"FMI_ERR_PROTOCOL",
        Some(ErrorKind::Io) => c"FMI_ERR_IO",
        Some(ErrorKind::Callback) => c"FMI_ERR_CALLBACK",
        Some(ErrorKind::Internal) => c"FMI_ERR_INTERNAL",
        None => c"FMI_UNKNOWN_STATUS",
    }
}

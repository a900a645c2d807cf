//! Messages between two ranks.

use std::ffi::c_void;

use super::boundary::{bytes, on};
use super::communicator::fmi_comm;
use super::status::fmi_status;
use crate::communicator::Communicator;
use crate::error::Result;

/// Sends a message. Messages to one rank arrive in the order in which they were
/// sent. Returns when the buffer may be reused, which may be before the peer
/// has called fmi_recv().
///
/// @param comm  the communicator.
/// @param buf   the message; ignored where len is 0. Never modified.
/// @param len   its length in bytes; may be 0.
/// @param dest  the rank that receives it; may be this one.
/// @return FMI_OK; FMI_ERR_ARG where dest is no rank; FMI_ERR_TIMEOUT; FMI_ERR_PEER_LOST;
///         FMI_ERR_PEER_LEFT; FMI_ERR_CONNECT; FMI_ERR_INTERRUPTED; FMI_ERR_NULL; FMI_ERR_BUSY;
///         FMI_ERR_CLOSED; FMI_ERR_FORKED; FMI_ERR_REENTRANT, and other statuses that say what happened
///         to the connection. The communicator stays usable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_send(
    comm: *mut fmi_comm,
    buf: *const c_void,
    len: usize,
    dest: u32,
) -> fmi_status {
    // SAFETY: a live communicator, and buffers as the header demands.
    unsafe { on(comm, |comm| send(comm, buf, len, dest)) }
}

/// Receives a message of exactly len bytes.
///
/// @param comm  the communicator.
/// @param buf   filled with the message; ignored where len is 0. What it holds after a failure is not
///              specified.
/// @param len   the length of the message in bytes; may be 0.
/// @param src   the rank that sends it; may be this one.
/// @return FMI_OK; FMI_ERR_SIZE_MISMATCH where the message is longer or shorter (it is gone, the next
///         one is received correctly); FMI_ERR_CANCELLED where the sender withdrew it half way;
///         otherwise as fmi_send(). The communicator stays usable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_recv(comm: *mut fmi_comm, buf: *mut c_void, len: usize, src: u32) -> fmi_status {
    // SAFETY: a live communicator, and buffers as the header demands.
    unsafe { on(comm, |comm| recv(comm, buf, len, src)) }
}

/// Sends one message and receives another at once, so that ranks that exchange
/// messages do not wait for each other. Either half may meet fmi_send() or
/// fmi_recv() on the other side.
///
/// @param comm      the communicator.
/// @param send      the message to send; ignored where send_len is 0. Never modified; must not overlap
///                  recv.
/// @param send_len  its length in bytes; may be 0.
/// @param dest      the rank that receives it; may be this one.
/// @param recv      filled with the message that is received; ignored where recv_len is 0.
/// @param recv_len  the length of that message in bytes; may be 0.
/// @param src       the rank that sends it; may be this one, and dest.
/// @return as fmi_send() and fmi_recv(); FMI_ERR_ARG also where send and recv overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_sendrecv(
    comm: *mut fmi_comm,
    send: *const c_void,
    send_len: usize,
    dest: u32,
    recv: *mut c_void,
    recv_len: usize,
    src: u32,
) -> fmi_status {
    // SAFETY: a live communicator, and buffers as the header demands.
    unsafe { on(comm, |comm| sendrecv(comm, send, send_len, dest, recv, recv_len, src)) }
}

/// # Safety
/// `len` bytes that nobody changes during the call.
pub(super) unsafe fn send(comm: &Communicator, buf: *const c_void, len: usize, dest: u32) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let buf = bytes!(buf, len)?;
        comm.send::<u8>(buf.as_slice(), dest)
    }
}

/// # Safety
/// `len` bytes that nobody else uses during the call.
pub(super) unsafe fn recv(comm: &Communicator, buf: *mut c_void, len: usize, src: u32) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let buf = bytes!(buf, len)?;
        comm.recv::<u8>(buf.as_mut_slice(), src)
    }
}

/// # Safety
/// Buffers of those lengths that nobody else changes during the call; that they are apart is
/// checked.
pub(super) unsafe fn sendrecv(
    comm: &Communicator,
    send: *const c_void,
    send_len: usize,
    dest: u32,
    recv: *mut c_void,
    recv_len: usize,
    src: u32,
) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let (send, recv) = (bytes!(send, send_len)?, bytes!(recv, recv_len)?);
        send.check_apart(recv, "")?;
        comm.sendrecv::<u8>(send.as_slice(), dest, recv.as_mut_slice(), src)
    }
}

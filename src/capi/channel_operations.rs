//! Operations over a channel by itself.

use std::ffi::c_void;

use super::boundary::on;
use super::channel::fmi_channel;
use super::datatype::fmi_datatype;
use super::op::fmi_op;
use super::status::fmi_status;
use super::{collective, point_to_point};
use crate::communicator::Communicator;

/// Sends a message over the channel, as fmi_send() does.
///
/// @param channel  the channel.
/// @param buf      the message; ignored where len is 0. Never modified.
/// @param len      its length in bytes; may be 0.
/// @param dest     the rank that receives it; may be this one.
/// @return as fmi_send().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_send(
    channel: *mut fmi_channel,
    buf: *const c_void,
    len: usize,
    dest: u32,
) -> fmi_status {
    // SAFETY: a live channel, and buffers as the header demands.
    unsafe { on(channel, |comm| point_to_point::send(comm, buf, len, dest)) }
}

/// Receives a message of exactly len bytes over the channel, as fmi_recv() does.
///
/// @param channel  the channel.
/// @param buf      filled with the message; ignored where len is 0.
/// @param len      the length of the message in bytes; may be 0.
/// @param src      the rank that sends it; may be this one.
/// @return as fmi_recv().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_recv(
    channel: *mut fmi_channel,
    buf: *mut c_void,
    len: usize,
    src: u32,
) -> fmi_status {
    // SAFETY: a live channel, and buffers as the header demands.
    unsafe { on(channel, |comm| point_to_point::recv(comm, buf, len, src)) }
}

/// Gives the root's buffer to all over the channel, as fmi_bcast() does.
///
/// @param channel  the channel.
/// @param buf      at the root what all shall have, elsewhere filled with it; ignored where len
///                 is 0.
/// @param len      its length in bytes, the same on all ranks; may be 0.
/// @param root     the rank whose buffer counts, the same on all ranks.
/// @return as fmi_bcast().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_bcast(
    channel: *mut fmi_channel,
    buf: *mut c_void,
    len: usize,
    root: u32,
) -> fmi_status {
    // SAFETY: a live channel, and buffers as the header demands.
    unsafe { on(channel, |comm| collective::bcast(comm, buf, len, root)) }
}

/// Returns when all ranks have called it on their channels, as fmi_barrier() does.
///
/// @param channel  the channel.
/// @return as fmi_barrier().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_barrier(channel: *mut fmi_channel) -> fmi_status {
    // SAFETY: a live channel, as the header demands.
    unsafe { on(channel, Communicator::barrier) }
}

/// Collects a block of every rank at the root over the channel, as fmi_gather() does.
///
/// @param channel   the channel.
/// @param send      this rank's block; ignored where send_len is 0.
/// @param send_len  the length of a block in bytes, the same on all ranks; may be 0.
/// @param recv      at the root, filled with all blocks; elsewhere ignored, whatever it is.
/// @param recv_len  at the root, size * send_len; elsewhere ignored.
/// @param root      the rank that gets the blocks, the same on all ranks.
/// @return as fmi_gather().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_gather(
    channel: *mut fmi_channel,
    send: *const c_void,
    send_len: usize,
    recv: *mut c_void,
    recv_len: usize,
    root: u32,
) -> fmi_status {
    // SAFETY: a live channel, and buffers as the header demands.
    unsafe { on(channel, |comm| collective::gather(comm, send, send_len, recv, recv_len, root)) }
}

/// Gives every rank its block of the root's buffer over the channel, as fmi_scatter() does.
///
/// @param channel   the channel.
/// @param send      at the root, the blocks of all ranks; elsewhere ignored, whatever it is.
/// @param send_len  at the root, size * recv_len; elsewhere ignored.
/// @param recv      filled with this rank's block; ignored where recv_len is 0.
/// @param recv_len  the length of a block in bytes, the same on all ranks; may be 0.
/// @param root      the rank whose buffer counts, the same on all ranks.
/// @return as fmi_scatter().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_scatter(
    channel: *mut fmi_channel,
    send: *const c_void,
    send_len: usize,
    recv: *mut c_void,
    recv_len: usize,
    root: u32,
) -> fmi_status {
    // SAFETY: a live channel, and buffers as the header demands.
    unsafe { on(channel, |comm| collective::scatter(comm, send, send_len, recv, recv_len, root)) }
}

/// Combines the buffers of all ranks at the root over the channel, as fmi_reduce() does.
///
/// @param channel  the channel.
/// @param send     this rank's operand; ignored where count is 0.
/// @param recv     at the root, filled with the result; may be send. Elsewhere ignored, whatever
///                 it is.
/// @param count    the number of elements, the same on all ranks; may be 0.
/// @param type     their type, the same on all ranks.
/// @param op       the operation, the same on all ranks: FMI_SUM, ... or of fmi_op_create().
/// @param root     the rank that gets the result, the same on all ranks.
/// @return as fmi_reduce().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_reduce(
    channel: *mut fmi_channel,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    r#type: fmi_datatype,
    op: fmi_op,
    root: u32,
) -> fmi_status {
    // SAFETY: a live channel, and buffers as the header demands.
    unsafe { on(channel, |comm| collective::reduce(comm, send, recv, count, r#type, op, root)) }
}

/// Combines the buffers of all ranks at all of them over the channel, as fmi_allreduce()
/// does.
///
/// @param channel  the channel.
/// @param send     this rank's operand; ignored where count is 0.
/// @param recv     filled with the result; may be send.
/// @param count    the number of elements, the same on all ranks; may be 0.
/// @param type     their type, the same on all ranks.
/// @param op       the operation, the same on all ranks: FMI_SUM, ... or of fmi_op_create().
/// @return as fmi_allreduce().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_allreduce(
    channel: *mut fmi_channel,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    r#type: fmi_datatype,
    op: fmi_op,
) -> fmi_status {
    // SAFETY: a live channel, and buffers as the header demands.
    unsafe { on(channel, |comm| collective::allreduce(comm, send, recv, count, r#type, op)) }
}

/// Combines the buffers of the ranks from 0 to this one over the channel, as fmi_scan()
/// does.
///
/// @param channel  the channel.
/// @param send     this rank's operand; ignored where count is 0.
/// @param recv     filled with the result; may be send.
/// @param count    the number of elements, the same on all ranks; may be 0.
/// @param type     their type, the same on all ranks.
/// @param op       the operation, the same on all ranks: FMI_SUM, ... or of fmi_op_create().
/// @return as fmi_scan().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_channel_scan(
    channel: *mut fmi_channel,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    r#type: fmi_datatype,
    op: fmi_op,
) -> fmi_status {
    // SAFETY: a live channel, and buffers as the header demands.
    unsafe { on(channel, |comm| collective::scan(comm, send, recv, count, r#type, op)) }
}

//! Operations among all ranks of a communicator.

use std::ffi::c_void;

use super::boundary::{Span, bytes, length, on};
use super::communicator::fmi_comm;
use super::datatype::fmi_datatype;
use super::op::{fmi_op, resolve};
use super::status::fmi_status;
use crate::collective::{GatherBuffers, ReduceBuffers, ScatterBuffers};
use crate::communicator::Communicator;
use crate::datatype::Datatype;
use crate::error::{Error, ErrorKind, Result};
use crate::op::Op;

/// Gives the root's buffer to all. A collective: all ranks call it, in the same
/// order among their collectives.
///
/// @param comm  the communicator.
/// @param buf   at the root what all shall have, elsewhere filled with it; ignored where len is 0.
/// @param len   its length in bytes, the same on all ranks; may be 0.
/// @param root  the rank whose buffer counts, the same on all ranks.
/// @return FMI_OK; FMI_ERR_ARG where root is no rank; FMI_ERR_MISMATCH where the ranks do not call the
///         same; FMI_ERR_TIMEOUT; FMI_ERR_PEER_LOST; FMI_ERR_PEER_LEFT; FMI_ERR_ABORTED;
///         FMI_ERR_POISONED; FMI_ERR_CONNECT; FMI_ERR_INTERRUPTED; FMI_ERR_NULL; FMI_ERR_BUSY;
///         FMI_ERR_CLOSED; FMI_ERR_FORKED; FMI_ERR_REENTRANT, and other statuses that say what happened
///         to the connections. After a failure other than of its arguments the communicator's
///         collectives return FMI_ERR_POISONED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_bcast(
    comm: *mut fmi_comm,
    buf: *mut c_void,
    len: usize,
    root: u32,
) -> fmi_status {
    // SAFETY: a live communicator, and buffers as the header demands.
    unsafe { on(comm, |comm| bcast(comm, buf, len, root)) }
}

/// Returns when all ranks have called it. A collective: all ranks call it, in
/// the same order among their collectives.
///
/// @param comm  the communicator.
/// @return as fmi_bcast().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_barrier(comm: *mut fmi_comm) -> fmi_status {
    // SAFETY: a live communicator, as the header demands.
    unsafe { on(comm, Communicator::barrier) }
}

/// Collects a block of every rank at the root, in the order of ranks. A
/// collective: all ranks call it, in the same order among their collectives.
///
/// @param comm      the communicator.
/// @param send      this rank's block; ignored where send_len is 0. Never modified. At the root it may
///                  be recv + rank * send_len: the block is in its place already. Any other overlap is
///                  FMI_ERR_ARG.
/// @param send_len  the length of a block in bytes, the same on all ranks; may be 0.
/// @param recv      at the root, filled with all blocks; elsewhere ignored, whatever it is.
/// @param recv_len  at the root, size * send_len; elsewhere ignored.
/// @param root      the rank that gets the blocks, the same on all ranks.
/// @return as fmi_bcast(); FMI_ERR_ARG also where recv_len is not size * send_len at the root.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_gather(
    comm: *mut fmi_comm,
    send: *const c_void,
    send_len: usize,
    recv: *mut c_void,
    recv_len: usize,
    root: u32,
) -> fmi_status {
    // SAFETY: a live communicator, and buffers as the header demands.
    unsafe { on(comm, |comm| gather(comm, send, send_len, recv, recv_len, root)) }
}

/// Gives every rank its block of the root's buffer. A collective: all ranks
/// call it, in the same order among their collectives.
///
/// @param comm      the communicator.
/// @param send      at the root, the blocks of all ranks in the order of ranks, never modified;
///                  elsewhere ignored, whatever it is.
/// @param send_len  at the root, size * recv_len; elsewhere ignored.
/// @param recv      filled with this rank's block; ignored where recv_len is 0. At the root it may be
///                  send + root * recv_len: the block stays where it is. Any other overlap is
///                  FMI_ERR_ARG.
/// @param recv_len  the length of a block in bytes, the same on all ranks; may be 0.
/// @param root      the rank whose buffer counts, the same on all ranks.
/// @return as fmi_bcast(); FMI_ERR_ARG also where send_len is not size * recv_len at the root.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_scatter(
    comm: *mut fmi_comm,
    send: *const c_void,
    send_len: usize,
    recv: *mut c_void,
    recv_len: usize,
    root: u32,
) -> fmi_status {
    // SAFETY: a live communicator, and buffers as the header demands.
    unsafe { on(comm, |comm| scatter(comm, send, send_len, recv, recv_len, root)) }
}

/// Combines the buffers of all ranks, element by element, at the root. A
/// collective: all ranks call it, in the same order among their collectives.
///
/// The order of operands is fixed, so that results are the same from run to
/// run: those of an operation that is not associative are combined strictly
/// from left to right by rank; of one that is associative only, in the order of
/// ranks.
///
/// @param comm   the communicator.
/// @param send   this rank's operand; ignored where count is 0. Any alignment. Never modified, unless
///               it is also recv.
/// @param recv   at the root, filled with the result; may be send; any other overlap is FMI_ERR_ARG.
///               Elsewhere ignored, whatever it is.
/// @param count  the number of elements, the same on all ranks; may be 0.
/// @param type   their type, the same on all ranks.
/// @param op     the operation, the same on all ranks: FMI_SUM, ... or of fmi_op_create().
/// @param root   the rank that gets the result, the same on all ranks.
/// @return as fmi_bcast(); FMI_ERR_CALLBACK where the operation's function failed; FMI_ERR_ARG also for
///         an unknown type or operation, an operation that is not defined for the type, and a length
///         that no buffer can have.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_reduce(
    comm: *mut fmi_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    r#type: fmi_datatype,
    op: fmi_op,
    root: u32,
) -> fmi_status {
    // SAFETY: a live communicator, and buffers as the header demands.
    unsafe { on(comm, |comm| reduce(comm, send, recv, count, r#type, op, root)) }
}

/// Combines the buffers of all ranks, element by element, at all of them, which
/// get the same bits. A collective: all ranks call it, in the same order among
/// their collectives. On the order of operands see fmi_reduce().
///
/// @param comm   the communicator.
/// @param send   this rank's operand; ignored where count is 0. Any alignment. Never modified, unless
///               it is also recv.
/// @param recv   filled with the result; may be send; any other overlap is FMI_ERR_ARG.
/// @param count  the number of elements, the same on all ranks; may be 0.
/// @param type   their type, the same on all ranks.
/// @param op     the operation, the same on all ranks: FMI_SUM, ... or of fmi_op_create().
/// @return as fmi_reduce().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_allreduce(
    comm: *mut fmi_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    r#type: fmi_datatype,
    op: fmi_op,
) -> fmi_status {
    // SAFETY: a live communicator, and buffers as the header demands.
    unsafe { on(comm, |comm| allreduce(comm, send, recv, count, r#type, op)) }
}

/// Combines, element by element, the buffers of the ranks from 0 to this one
/// (inclusive scan). A collective: all ranks call it, in the same order among
/// their collectives. On the order of operands see fmi_reduce().
///
/// @param comm   the communicator.
/// @param send   this rank's operand; ignored where count is 0. Any alignment. Never modified, unless
///               it is also recv.
/// @param recv   filled with the result; may be send; any other overlap is FMI_ERR_ARG.
/// @param count  the number of elements, the same on all ranks; may be 0.
/// @param type   their type, the same on all ranks.
/// @param op     the operation, the same on all ranks: FMI_SUM, ... or of fmi_op_create().
/// @return as fmi_reduce().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fmi_scan(
    comm: *mut fmi_comm,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    r#type: fmi_datatype,
    op: fmi_op,
) -> fmi_status {
    // SAFETY: a live communicator, and buffers as the header demands.
    unsafe { on(comm, |comm| scan(comm, send, recv, count, r#type, op)) }
}

/// # Safety
/// `len` bytes that nobody else uses during the call.
pub(super) unsafe fn bcast(comm: &Communicator, buf: *mut c_void, len: usize, root: u32) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let buf = bytes!(buf, len)?;
        comm.bcast::<u8>(buf.as_mut_slice(), root)
    }
}

/// # Safety
/// Buffers of those lengths that nobody else changes during the call; that they are apart, or
/// one lies within the other, is checked.
pub(super) unsafe fn gather(
    comm: &Communicator,
    send: *const c_void,
    send_len: usize,
    recv: *mut c_void,
    recv_len: usize,
    root: u32,
) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let send = bytes!(send, send_len)?;
        if comm.rank() != root {
            return comm.gather_bytes(GatherBuffers::Leaf(send.as_slice()), root);
        }
        let recv = bytes!(recv, recv_len)?;
        let own = own_block("recv_len", recv, "send_len", send, comm)?;
        if recv.has_at(own, send) {
            return comm.gather_bytes(GatherBuffers::RootInPlace(recv.as_mut_slice()), root);
        }
        send.check_apart(recv, ", other than send being recv + rank * send_len")?;
        comm.gather_bytes(GatherBuffers::Root { send: send.as_slice(), recv: recv.as_mut_slice() }, root)
    }
}

/// # Safety
/// As in [`gather`].
pub(super) unsafe fn scatter(
    comm: &Communicator,
    send: *const c_void,
    send_len: usize,
    recv: *mut c_void,
    recv_len: usize,
    root: u32,
) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let recv = bytes!(recv, recv_len)?;
        if comm.rank() != root {
            return comm.scatter_bytes(ScatterBuffers::Leaf(recv.as_mut_slice()), root);
        }
        let send = bytes!(send, send_len)?;
        let own = own_block("send_len", send, "recv_len", recv, comm)?;
        if send.has_at(own, recv) {
            return comm.scatter_bytes(ScatterBuffers::RootInPlace(send.as_slice()), root);
        }
        send.check_apart(recv, ", other than recv being send + root * recv_len")?;
        comm.scatter_bytes(ScatterBuffers::Root { send: send.as_slice(), recv: recv.as_mut_slice() }, root)
    }
}

/// # Safety
/// Buffers of `count` elements that nobody else changes during the call; that they are apart or
/// the same is checked.
pub(super) unsafe fn reduce(
    comm: &Communicator,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    r#type: fmi_datatype,
    op: fmi_op,
    root: u32,
) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let (datatype, op, len) = operands(r#type, op, count)?;
        let send = bytes!(send, len)?;
        let buffers = if comm.rank() == root {
            reduce_buffers(send, bytes!(recv, len)?)?
        } else {
            ReduceBuffers::Leaf(send.as_slice())
        };
        comm.reduce_bytes(buffers, datatype, &op, root)
    }
}

/// # Safety
/// As in [`reduce`].
pub(super) unsafe fn allreduce(
    comm: &Communicator,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    r#type: fmi_datatype,
    op: fmi_op,
) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let (datatype, op, len) = operands(r#type, op, count)?;
        let buffers = reduce_buffers(bytes!(send, len)?, bytes!(recv, len)?)?;
        comm.allreduce_bytes(buffers, datatype, &op)
    }
}

/// # Safety
/// As in [`reduce`].
pub(super) unsafe fn scan(
    comm: &Communicator,
    send: *const c_void,
    recv: *mut c_void,
    count: usize,
    r#type: fmi_datatype,
    op: fmi_op,
) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let (datatype, op, len) = operands(r#type, op, count)?;
        let buffers = reduce_buffers(bytes!(send, len)?, bytes!(recv, len)?)?;
        comm.scan_bytes(buffers, datatype, &op)
    }
}

/// Where the root's own block begins in the buffer of all blocks, whose length
/// is checked.
fn own_block(all_name: &str, all: Span, block_name: &str, block: Span, comm: &Communicator) -> Result<usize> {
    let size = comm.size() as usize;
    if length(block.len(), size)? != all.len() {
        return Err(Error::new(
            ErrorKind::Arg,
            format!(
                "parameter {all_name} is {}, but the root needs size * {block_name} = {size} * {}",
                all.len(),
                block.len()
            ),
        ));
    }
    Ok(comm.rank() as usize * block.len())
}

/// Datatype, operation and the length of a buffer in bytes.
fn operands(datatype: fmi_datatype, op: fmi_op, count: usize) -> Result<(Datatype, Op, usize)> {
    let datatype = Datatype::from_code(datatype)?;
    let op = resolve(op)?;
    let len = length(count, datatype.size())?;
    Ok((datatype, op, len))
}

/// # Safety
/// Both are valid for `'a`, `send` for reads and `recv` for reads and writes,
/// and nobody else changes them.
unsafe fn reduce_buffers<'a>(send: Span, recv: Span) -> Result<ReduceBuffers<'a>> {
    if recv.has_at(0, send) {
        // SAFETY: the caller's promise; there is one slice only.
        return Ok(ReduceBuffers::InPlace(unsafe { recv.as_mut_slice() }));
    }
    send.check_apart(recv, ", other than being the same")?;
    // SAFETY: the caller's promise; the slices are apart.
    Ok(unsafe { ReduceBuffers::Separate { send: send.as_slice(), recv: recv.as_mut_slice() } })
}

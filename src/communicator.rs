//! The communicator: a group of ranks and the operations among them.

use std::sync::Arc;
use std::time::Duration;

use crate::collective::{GatherBuffers, ReduceBuffers, ScatterBuffers};
use crate::config::Config;
use crate::datatype::{Datatype, Element};
use crate::error::{Error, Result};
use crate::op::Op;

/// What the choice of channel and algorithm goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(i32)]
pub enum Hint {
    /// Least price.
    #[default]
    Cheap = 1,
    /// Least latency.
    Fast = 2,
}

/// A group of ranks and the operations among them.
pub struct Communicator {}

impl Communicator {
    /// Makes rank `rank` of `size` of the job `name`. No network I/O.
    pub fn create(rank: u32, size: u32, name: &str, config: &Config) -> Result<Self> {
        todo!()
    }

    /// As [`create`](Self::create), with rank and size from the environment.
    pub fn from_env(name: &str) -> Result<Self> {
        todo!()
    }

    /// This rank.
    pub fn rank(&self) -> u32 {
        todo!()
    }

    /// The number of ranks.
    pub fn size(&self) -> u32 {
        todo!()
    }

    /// Sets what the choice goes by.
    pub fn set_hint(&self, hint: Hint) -> Result<()> {
        todo!()
    }

    /// Sets how long a call may take; `None` = for ever. Zero is an error.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<()> {
        todo!()
    }

    /// Pins the channel by its name; `None` = the policy chooses.
    pub fn set_channel(&self, name: Option<&str>) -> Result<()> {
        todo!()
    }

    /// The write end of a non-blocking pipe: a byte interrupts a blocked call.
    pub fn wakeup_fd(&self) -> Result<i32> {
        todo!()
    }

    /// Ends the job's collectives: from any thread.
    pub fn abort(&self, code: i32) -> Result<()> {
        todo!()
    }

    /// Leaves in order. Later calls return `Closed`. `None` = no limit.
    pub fn close(&self, timeout: Option<Duration>) -> Result<()> {
        todo!()
    }

    /// The last error that a call on this communicator returned.
    pub fn last_error(&self) -> Option<Error> {
        todo!()
    }

    /// Sends.
    pub fn send<T: Element>(&self, buffer: &[T], dest: u32) -> Result<()> {
        todo!()
    }

    /// Receives exactly `buffer.len()` elements.
    pub fn recv<T: Element>(&self, buffer: &mut [T], src: u32) -> Result<()> {
        todo!()
    }

    /// Sends and receives at once.
    pub fn sendrecv<T: Element>(&self, send: &[T], dest: u32, recv: &mut [T], src: u32) -> Result<()> {
        todo!()
    }

    /// The root's buffer goes to all.
    pub fn bcast<T: Element>(&self, buffer: &mut [T], root: u32) -> Result<()> {
        todo!()
    }

    /// Nobody returns before all have called.
    pub fn barrier(&self) -> Result<()> {
        todo!()
    }

    /// `recv` matters at the root only.
    pub fn gather<T: Element>(&self, send: &[T], recv: Option<&mut [T]>, root: u32) -> Result<()> {
        todo!()
    }

    /// The root's block is in its place in `buffer`; called by the root.
    pub fn gather_in_place<T: Element>(&self, buffer: &mut [T]) -> Result<()> {
        todo!()
    }

    /// `send` matters at the root only.
    pub fn scatter<T: Element>(&self, send: Option<&[T]>, recv: &mut [T], root: u32) -> Result<()> {
        todo!()
    }

    /// The root's block stays where it is; called by the root.
    pub fn scatter_in_place<T: Element>(&self, buffer: &[T]) -> Result<()> {
        todo!()
    }

    /// `recv` matters at the root only.
    pub fn reduce<T: Element>(&self, send: &[T], recv: Option<&mut [T]>, op: &Op, root: u32) -> Result<()> {
        todo!()
    }

    /// Allreduce.
    pub fn allreduce<T: Element>(&self, send: &[T], recv: &mut [T], op: &Op) -> Result<()> {
        todo!()
    }

    /// Allreduce whose result replaces the operand.
    pub fn allreduce_in_place<T: Element>(&self, buffer: &mut [T], op: &Op) -> Result<()> {
        todo!()
    }

    /// Inclusive scan.
    pub fn scan<T: Element>(&self, send: &[T], recv: &mut [T], op: &Op) -> Result<()> {
        todo!()
    }

    /// Inclusive scan whose result replaces the operand.
    pub fn scan_in_place<T: Element>(&self, buffer: &mut [T], op: &Op) -> Result<()> {
        todo!()
    }
}

/// The operations on bytes, for the C API.
impl Communicator {
    pub(crate) fn gather_bytes(&self, buffers: GatherBuffers<'_>, root: u32) -> Result<()> {
        todo!()
    }

    pub(crate) fn scatter_bytes(&self, buffers: ScatterBuffers<'_>, root: u32) -> Result<()> {
        todo!()
    }

    pub(crate) fn reduce_bytes(&self, buffers: ReduceBuffers<'_>, datatype: Datatype, op: &Op, root: u32) -> Result<()> {
        todo!()
    }

    pub(crate) fn allreduce_bytes(&self, buffers: ReduceBuffers<'_>, datatype: Datatype, op: &Op) -> Result<()> {
        todo!()
    }

    pub(crate) fn scan_bytes(&self, buffers: ReduceBuffers<'_>, datatype: Datatype, op: &Op) -> Result<()> {
        todo!()
    }
}

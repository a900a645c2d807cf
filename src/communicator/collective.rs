//! The collectives of a communicator: arguments are checked here.

use std::sync::atomic::Ordering;

use zerocopy::IntoBytes;

use super::{Carrier, Communicator, argument};
use crate::collective::{Collective, GatherBuffers, ReduceBuffers, Reduction, ScatterBuffers};
use crate::datatype::{Datatype, Element};
use crate::error::Result;
use crate::op::Op;
use crate::operation::Operation;

impl Communicator {
    /// The root's buffer goes to all.
    ///
    /// # Errors
    /// See the [type](Self#errors).
    pub fn bcast<T: Element>(&self, buffer: &mut [T], root: u32) -> Result<()> {
        self.collective(Collective::Bcast { buffer: buffer.as_mut_bytes(), root })
    }

    /// Returns once all ranks have called.
    ///
    /// # Errors
    /// See the [type](Self#errors).
    pub fn barrier(&self) -> Result<()> {
        self.collective(Collective::Barrier)
    }

    /// Every rank's `send` goes to `root`, whose `recv` has room for `size`
    /// times as much, in the order of ranks. `recv` is ignored elsewhere.
    ///
    /// # Errors
    /// [`ErrorKind::Arg`](crate::ErrorKind::Arg) at the root where `recv` is missing or has another
    /// length; see the [type](Self#errors).
    pub fn gather<T: Element>(&self, send: &[T], recv: Option<&mut [T]>, root: u32) -> Result<()> {
        self.gather_bytes(
            match recv {
                Some(recv) if root == self.rank => {
                    GatherBuffers::Root { send: send.as_bytes(), recv: recv.as_mut_bytes() }
                }
                None if root == self.rank => return self.missing(Operation::Gather, "recv"),
                _ => GatherBuffers::Leaf(send.as_bytes()),
            },
            root,
        )
    }

    /// A gather as its root calls it whose own block is in its place in
    /// `buffer` already. The other ranks call [`gather`](Self::gather).
    ///
    /// # Errors
    /// [`ErrorKind::Arg`](crate::ErrorKind::Arg) where the length is no multiple of the size; see the
    /// [type](Self#errors).
    pub fn gather_in_place<T: Element>(&self, buffer: &mut [T]) -> Result<()> {
        self.gather_bytes(GatherBuffers::RootInPlace(buffer.as_mut_bytes()), self.rank)
    }

    /// The blocks of the `root`'s `send`, in the order of ranks, go to each
    /// rank's `recv`. `send` is ignored elsewhere.
    ///
    /// # Errors
    /// [`ErrorKind::Arg`](crate::ErrorKind::Arg) at the root where `send` is missing or has another
    /// length than `size` times `recv`'s; see the [type](Self#errors).
    pub fn scatter<T: Element>(&self, send: Option<&[T]>, recv: &mut [T], root: u32) -> Result<()> {
        self.scatter_bytes(
            match send {
                Some(send) if root == self.rank => {
                    ScatterBuffers::Root { send: send.as_bytes(), recv: recv.as_mut_bytes() }
                }
                None if root == self.rank => return self.missing(Operation::Scatter, "send"),
                _ => ScatterBuffers::Leaf(recv.as_mut_bytes()),
            },
            root,
        )
    }

    /// A scatter as its root calls it whose own block stays where it is. The
    /// other ranks call [`scatter`](Self::scatter).
    ///
    /// # Errors
    /// [`ErrorKind::Arg`](crate::ErrorKind::Arg) where the length is no multiple of the size; see the
    /// [type](Self#errors).
    pub fn scatter_in_place<T: Element>(&self, buffer: &[T]) -> Result<()> {
        self.scatter_bytes(ScatterBuffers::RootInPlace(buffer.as_bytes()), self.rank)
    }

    /// Combines all ranks' `send` into the `root`'s `recv`, element by element.
    /// `recv` is ignored elsewhere.
    ///
    /// # Errors
    /// [`ErrorKind::Arg`](crate::ErrorKind::Arg) where the root's `recv` is missing or has another
    /// length, or where `op` is not defined for the datatype;
    /// [`ErrorKind::Callback`](crate::ErrorKind::Callback) where the user's function failed; see the
    /// [type](Self#errors).
    pub fn reduce<T: Element>(&self, send: &[T], recv: Option<&mut [T]>, op: &Op, root: u32) -> Result<()> {
        let buffers = match recv {
            Some(recv) if root == self.rank => {
                ReduceBuffers::Separate { send: send.as_bytes(), recv: recv.as_mut_bytes() }
            }
            None if root == self.rank => return self.missing(Operation::Reduce, "recv"),
            _ => ReduceBuffers::Leaf(send.as_bytes()),
        };
        self.reduce_bytes(buffers, T::DATATYPE, op, root)
    }

    /// A reduce as its root calls it whose result replaces its operand. The
    /// other ranks call [`reduce`](Self::reduce).
    ///
    /// # Errors
    /// Those of [`reduce`](Self::reduce).
    pub fn reduce_in_place<T: Element>(&self, buffer: &mut [T], op: &Op) -> Result<()> {
        self.reduce_bytes(ReduceBuffers::InPlace(buffer.as_mut_bytes()), T::DATATYPE, op, self.rank)
    }

    /// Combines all ranks' `send` into every rank's `recv`, the same bits on
    /// every rank.
    ///
    /// # Errors
    /// Those of [`reduce`](Self::reduce).
    pub fn allreduce<T: Element>(&self, send: &[T], recv: &mut [T], op: &Op) -> Result<()> {
        let buffers = ReduceBuffers::Separate { send: send.as_bytes(), recv: recv.as_mut_bytes() };
        self.allreduce_bytes(buffers, T::DATATYPE, op)
    }

    /// An allreduce whose result replaces the operand.
    ///
    /// # Errors
    /// Those of [`reduce`](Self::reduce).
    pub fn allreduce_in_place<T: Element>(&self, buffer: &mut [T], op: &Op) -> Result<()> {
        self.allreduce_bytes(ReduceBuffers::InPlace(buffer.as_mut_bytes()), T::DATATYPE, op)
    }

    /// Rank r's `recv` gets the combination of the `send` of ranks 0 to r.
    ///
    /// # Errors
    /// Those of [`reduce`](Self::reduce).
    pub fn scan<T: Element>(&self, send: &[T], recv: &mut [T], op: &Op) -> Result<()> {
        let buffers = ReduceBuffers::Separate { send: send.as_bytes(), recv: recv.as_mut_bytes() };
        self.scan_bytes(buffers, T::DATATYPE, op)
    }

    /// A scan whose result replaces the operand.
    ///
    /// # Errors
    /// Those of [`reduce`](Self::reduce).
    pub fn scan_in_place<T: Element>(&self, buffer: &mut [T], op: &Op) -> Result<()> {
        self.scan_bytes(ReduceBuffers::InPlace(buffer.as_mut_bytes()), T::DATATYPE, op)
    }

    pub(crate) fn gather_bytes(&self, buffers: GatherBuffers<'_>, root: u32) -> Result<()> {
        let checked = match &buffers {
            GatherBuffers::Leaf(_) => Ok(()),
            GatherBuffers::Root { send, recv } => self.check_blocks(recv.len(), send.len(), "recv", "send"),
            GatherBuffers::RootInPlace(all) => self.check_divides(all.len()),
        };
        self.keep_error(Operation::Gather, checked)?;
        self.collective(Collective::Gather { buffers, root })
    }

    pub(crate) fn scatter_bytes(&self, buffers: ScatterBuffers<'_>, root: u32) -> Result<()> {
        let checked = match &buffers {
            ScatterBuffers::Leaf(_) => Ok(()),
            ScatterBuffers::Root { send, recv } => self.check_blocks(send.len(), recv.len(), "send", "recv"),
            ScatterBuffers::RootInPlace(all) => self.check_divides(all.len()),
        };
        self.keep_error(Operation::Scatter, checked)?;
        self.collective(Collective::Scatter { buffers, root })
    }

    pub(crate) fn reduce_bytes(
        &self,
        buffers: ReduceBuffers<'_>,
        datatype: Datatype,
        op: &Op,
        root: u32,
    ) -> Result<()> {
        self.keep_error(Operation::Reduce, check_operands(&buffers, datatype, op))?;
        self.collective(Collective::Reduce { buffers, reduction: Reduction::new(datatype, op), root })
    }

    pub(crate) fn allreduce_bytes(
        &self,
        buffers: ReduceBuffers<'_>,
        datatype: Datatype,
        op: &Op,
    ) -> Result<()> {
        self.keep_error(Operation::Allreduce, check_operands(&buffers, datatype, op))?;
        self.collective(Collective::Allreduce { buffers, reduction: Reduction::new(datatype, op) })
    }

    pub(crate) fn scan_bytes(&self, buffers: ReduceBuffers<'_>, datatype: Datatype, op: &Op) -> Result<()> {
        self.keep_error(Operation::Scan, check_operands(&buffers, datatype, op))?;
        self.collective(Collective::Scan { buffers, reduction: Reduction::new(datatype, op) })
    }

    /// Runs one collective call.
    fn collective(&self, collective: Collective<'_>) -> Result<()> {
        let (operation, root) = (collective.operation(), collective.root());
        let run = || {
            self.check_rank(root)?;
            let route = self.choose()?;
            let outcome = self.over(&route, |deadline| {
                let hint = self.hint.load(Ordering::Relaxed);
                match &route.carrier {
                    Carrier::Endpoint(endpoint) => endpoint.collective(collective, hint, deadline),
                    Carrier::Custom(custom) => custom.collective(collective, hint, &self.limits(deadline)),
                }
            });
            if let Err(error) = &outcome {
                self.poison_others(&route, error);
            }
            outcome
        };
        self.keep_error(operation, run())
    }

    /// Checks that `all` bytes are one block of `block` bytes for each rank.
    fn check_blocks(&self, all: usize, block: usize, whole: &str, part: &str) -> Result<()> {
        if block.checked_mul(self.size as usize) == Some(all) {
            return Ok(());
        }
        Err(argument(format!(
            "{whole} has {all} bytes at the root; {} ranks with {part} of {block} bytes need {}",
            self.size,
            block.saturating_mul(self.size as usize)
        )))
    }

    fn check_divides(&self, all: usize) -> Result<()> {
        if all.is_multiple_of(self.size as usize) {
            return Ok(());
        }
        Err(argument(format!("a buffer of {all} bytes does not hold {} equal blocks", self.size)))
    }

    fn missing<T>(&self, operation: Operation, buffer: &str) -> Result<T> {
        self.keep_error(operation, Err(argument(format!("the root needs {buffer}"))))
    }
}

/// Checks a reduction's arguments.
fn check_operands(buffers: &ReduceBuffers<'_>, datatype: Datatype, op: &Op) -> Result<()> {
    if let ReduceBuffers::Separate { send, recv } = buffers
        && send.len() != recv.len()
    {
        return Err(argument(format!(
            "send has {} bytes and recv has {}: they must be the same",
            send.len(),
            recv.len()
        )));
    }
    op.check(datatype, buffers.operand().len())
}

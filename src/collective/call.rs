//! A call of a collective as a value: what one rank passes, and what stands for
//! it where ranks compare what they call.

use super::allreduce::allreduce;
use super::barrier::barrier;
use super::bcast::bcast;
use super::gather::gather;
use super::reduce::reduce;
use super::scan::scan;
use super::scatter::scatter;
use super::{GatherBuffers, ReduceBuffers, ScatterBuffers};
use crate::channel::{PeerToPeer, Rank};
use crate::datatype::Datatype;
use crate::error::Result;
use crate::op::{Op, Order};
use crate::operation::Operation;

/// One rank's call of a collective. Lengths have been checked.
pub enum Collective<'a> {
    /// The root's buffer goes to all.
    Bcast {
        /// At the root what all shall have, elsewhere to be filled with it.
        buffer: &'a mut [u8],
        /// Whose buffer counts.
        root: Rank,
    },
    /// Nobody returns before all have called.
    Barrier,
    /// Every rank's block goes to the root.
    Gather {
        /// What this rank holds.
        buffers: GatherBuffers<'a>,
        /// Who gets the blocks.
        root: Rank,
    },
    /// The root's blocks go to each rank.
    Scatter {
        /// What this rank holds.
        buffers: ScatterBuffers<'a>,
        /// Whose blocks count.
        root: Rank,
    },
    /// All operands are combined at the root.
    Reduce {
        /// What this rank holds.
        buffers: ReduceBuffers<'a>,
        /// How operands are combined.
        reduction: Reduction<'a>,
        /// Who gets the result.
        root: Rank,
    },
    /// All operands are combined, and everybody gets the result.
    Allreduce {
        /// What this rank holds.
        buffers: ReduceBuffers<'a>,
        /// How operands are combined.
        reduction: Reduction<'a>,
    },
    /// Rank r gets the combination of the operands of ranks 0 to r.
    Scan {
        /// What this rank holds.
        buffers: ReduceBuffers<'a>,
        /// How operands are combined.
        reduction: Reduction<'a>,
    },
}

/// How the operands of a collective are combined.
#[derive(Clone, Copy)]
pub struct Reduction<'a> {
    datatype: Datatype,
    op: &'a Op,
}

impl<'a> Reduction<'a> {
    /// `op` on elements of `datatype`, for which it must be defined.
    pub(crate) fn new(datatype: Datatype, op: &'a Op) -> Self {
        Self { datatype, op }
    }

    /// The type of the elements.
    pub fn datatype(&self) -> Datatype {
        self.datatype
    }

    /// The operation.
    pub fn op(&self) -> &'a Op {
        self.op
    }

    /// In which order the operands may be combined.
    pub fn order(&self) -> Order {
        self.op.order()
    }

    /// `inout = inout . input`; what `input` holds afterwards is of no use.
    ///
    /// # Errors
    /// [`ErrorKind::Arg`](crate::ErrorKind::Arg) where the lengths differ or are
    /// not what the operation needs;
    /// [`ErrorKind::Callback`](crate::ErrorKind::Callback) where a user's function
    /// fails.
    pub fn apply(&self, inout: &mut [u8], input: &mut [u8]) -> Result<()> {
        self.op.check(self.datatype, inout.len().max(input.len()))?;
        if inout.len() != input.len() {
            let text = format!("operands of {} and {} bytes cannot be combined", inout.len(), input.len());
            return Err(crate::Error::new(crate::ErrorKind::Arg, text));
        }
        self.op.combine_into_left(self.datatype, inout, input)
    }

    fn code(&self) -> u64 {
        self.op.signature_code() << 8 | self.datatype as u64
    }
}

impl Collective<'_> {
    /// Which operation it is.
    pub fn operation(&self) -> Operation {
        match self {
            Self::Bcast { .. } => Operation::Bcast,
            Self::Barrier => Operation::Barrier,
            Self::Gather { .. } => Operation::Gather,
            Self::Scatter { .. } => Operation::Scatter,
            Self::Reduce { .. } => Operation::Reduce,
            Self::Allreduce { .. } => Operation::Allreduce,
            Self::Scan { .. } => Operation::Scan,
        }
    }

    /// The root; 0 where there is none.
    pub fn root(&self) -> Rank {
        match self {
            Self::Bcast { root, .. }
            | Self::Gather { root, .. }
            | Self::Scatter { root, .. }
            | Self::Reduce { root, .. } => *root,
            Self::Barrier | Self::Allreduce { .. } | Self::Scan { .. } => 0,
        }
    }

    /// The bytes that each of `size` ranks passes: the buffer of a bcast, a block
    /// of a gather or scatter, an operand.
    pub fn bytes(&self, size: u32) -> usize {
        match self {
            Self::Bcast { buffer, .. } => buffer.len(),
            Self::Barrier => 0,
            Self::Gather { buffers, .. } => match buffers {
                GatherBuffers::Leaf(block) | GatherBuffers::Root { send: block, .. } => block.len(),
                GatherBuffers::RootInPlace(all) => all.len() / size as usize,
            },
            Self::Scatter { buffers, .. } => match buffers {
                ScatterBuffers::Leaf(block) | ScatterBuffers::Root { recv: block, .. } => block.len(),
                ScatterBuffers::RootInPlace(all) => all.len() / size as usize,
            },
            Self::Reduce { buffers, .. } | Self::Allreduce { buffers, .. } | Self::Scan { buffers, .. } => {
                buffers.operand().len()
            }
        }
    }

    /// FNV-1a over everything that all ranks must pass alike.
    pub(crate) fn signature(&self, size: u32, hint: i32) -> u32 {
        let reduction = match self {
            Self::Reduce { reduction, .. }
            | Self::Allreduce { reduction, .. }
            | Self::Scan { reduction, .. } => reduction.code(),
            _ => 0,
        };
        let parts =
            [self.operation() as u64, self.root().into(), self.bytes(size) as u64, reduction, hint as u64];
        let bytes = parts.into_iter().flat_map(u64::to_le_bytes);
        bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }

    /// Carries it out over a peer-to-peer channel.
    pub(crate) async fn run<C: PeerToPeer>(self, call: &C) -> Result<()> {
        match self {
            Self::Bcast { buffer, root } => bcast(call, buffer, root).await,
            Self::Barrier => barrier(call).await,
            Self::Gather { buffers, root } => gather(call, buffers, root).await,
            Self::Scatter { buffers, root } => scatter(call, buffers, root).await,
            Self::Reduce { buffers, reduction: Reduction { datatype, op }, root } => {
                reduce(call, buffers, datatype, op, root).await
            }
            Self::Allreduce { buffers, reduction: Reduction { datatype, op } } => {
                allreduce(call, buffers, datatype, op).await
            }
            Self::Scan { buffers, reduction: Reduction { datatype, op } } => {
                scan(call, buffers, datatype, op).await
            }
        }
    }
}

//! What reduce, allreduce and scan share: the actions of which their schedules
//! are made, and the one loop that carries them out.

use super::ReduceBuffers;
use crate::channel::{PeerToPeer, Rank, Step};
use crate::datatype::Datatype;
use crate::error::Result;
use crate::op::Op;
use crate::scratch::Scratch;

/// On which side of the partial result an operand belongs that comes from a
/// peer: on the left if it is made of lower ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// What a rank does next with its partial result, which to begin with is its
/// operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Sends it.
    Send { to: Rank, step: Step },
    /// Receives another in its place.
    Replace { from: Rank, step: Step },
    /// Receives an operand, and combines.
    Merge { from: Rank, step: Step, side: Side },
    /// Sends it, receives an operand at the same time, then combines.
    Exchange { to: Rank, from: Rank, step: Step, side: Side },
}

/// A partial result, which stays where the operand is until it changes.
pub(super) enum Partial<'a> {
    /// The operand of a rank that gets no result.
    Operand(&'a [u8]),
    /// What became of that, in memory of our own.
    Copy(Scratch),
    /// The buffer of the result.
    Result(&'a mut [u8]),
}

impl<'a> Partial<'a> {
    /// The operand, in the buffer of the result.
    pub(super) fn with_result(buffers: ReduceBuffers<'a>) -> Result<Self> {
        buffers.into_result().map(Self::Result)
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Operand(bytes) => bytes,
            Self::Copy(bytes) => bytes,
            Self::Result(bytes) => bytes,
        }
    }

    fn bytes_mut(&mut self) -> Result<&mut [u8]> {
        if let Self::Operand(operand) = self {
            *self = Self::Copy(Scratch::copy_of(operand)?);
        }
        Ok(match self {
            Self::Operand(_) => unreachable!("it was copied"),
            Self::Copy(bytes) => bytes,
            Self::Result(bytes) => bytes,
        })
    }
}

/// Carries out `actions` on `partial`.
pub(super) async fn execute<C: PeerToPeer>(
    call: &C,
    actions: impl Iterator<Item = Action>,
    mut partial: Partial<'_>,
    datatype: Datatype,
    op: &Op,
) -> Result<()> {
    let length = partial.bytes().len();
    let mut incoming = Scratch::empty();
    for action in actions {
        let side = match action {
            Action::Send { to, step } => {
                call.send(to, step, partial.bytes()).await?;
                continue;
            }
            Action::Replace { from, step } => {
                call.recv(from, step, partial.bytes_mut()?).await?;
                continue;
            }
            Action::Merge { from, step, side } => {
                if incoming.len() < length {
                    incoming = Scratch::zeroed(length)?;
                }
                let received = call.recv(from, step, &mut incoming);
                // The copy, if there is one, is made while the message travels.
                partial.bytes_mut()?;
                received.await?;
                side
            }
            Action::Exchange { to, from, step, side } => {
                if incoming.len() < length {
                    incoming = Scratch::zeroed(length)?;
                }
                call.exchange(step, to, partial.bytes(), from, &mut incoming).await?;
                side
            }
        };
        match side {
            Side::Left => op.combine_into_right(datatype, &mut incoming, partial.bytes_mut()?)?,
            Side::Right => op.combine_into_left(datatype, partial.bytes_mut()?, &mut incoming)?,
        }
    }
    Ok(())
}

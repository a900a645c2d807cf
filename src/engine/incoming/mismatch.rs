//! Messages of collectives that do not belong to the running call, and why a
//! receive cannot take a message that is meant for it.

use super::{Message, MessageKey, Posted, Selector};
use crate::engine::frame::MessageId;
use crate::engine::outgoing::Envelope;
use crate::engine::{CallMark, Engine};
use crate::error::{Error, ErrorKind};
use crate::operation::Operation;

impl Engine {
    pub(super) fn count_early(&mut self, context: u64, change: i32) {
        if let Some(context) = self.contexts.get_mut(&context) {
            context.early = context.early.wrapping_add_signed(change);
        }
    }

    /// How many frames of the context's collectives came before it was opened.
    pub(in crate::engine) fn early_of(&self, context: u64) -> u32 {
        self.early_steps.keys().filter(|(_, id)| id.context == context).count() as u32
    }

    /// A message of a collective that is over, and that nobody took, or one that
    /// contradicts the running collective: the ranks did not call the same.
    pub(in crate::engine) fn check_early_steps(&mut self, context: u64) {
        let Some(entry) = self.contexts.get(&context) else { return };
        let error = self.early_steps.iter().find_map(|((source, id), key)| {
            let envelope = &self.messages[key.0].envelope;
            let wrong = entry.is_finished(id.sequence) || entry.contradicts(id.sequence, envelope.mark());
            (id.context == context && wrong).then(|| stray(*source, envelope, entry.call))
        });
        if let Some(error) = error {
            self.fail_context(context, error);
        }
    }

    /// The context's collectives fail from now on; what had come for them is
    /// dropped.
    pub(in crate::engine) fn fail_context(&mut self, context: u64, error: Error) {
        if self.context_mut(context).fail(error) {
            self.drop_early_steps(context);
        }
    }

    fn drop_early_steps(&mut self, context: u64) {
        let of_context = |(_, id): &(u32, MessageId), _: &mut MessageKey| id.context == context;
        let dropped: Vec<_> = self.early_steps.extract_if(of_context).map(|(_, key)| key).collect();
        for key in dropped {
            self.discard(key);
        }
        if let Some(entry) = self.contexts.get_mut(&context) {
            entry.early = 0;
        }
    }
}

/// Why a receive cannot take a message that is meant for it.
pub(super) fn refusal(posted: &Posted, message: &Message) -> Option<Error> {
    let (has, wants) = (message.length, posted.capacity);
    let error = match &posted.selector {
        Selector::Collective(own) => {
            let other = &message.envelope;
            let same = own.operation == other.operation
                && own.algorithm == other.algorithm
                && own.signature == other.signature;
            if same && has == wants {
                return None;
            }
            let text = if own.mark() == other.mark() || own.operation == other.operation && has != wants {
                format!("rank {} sends {has} bytes where this rank expects {wants}", message.source)
            } else {
                disagreement(message.source, other.mark(), Some(own.mark()))
            };
            Error::new(ErrorKind::Mismatch, text)
        }
        Selector::PointToPoint { .. } if has > wants => {
            Error::new(ErrorKind::SizeMismatch, format!("a message of {has} bytes for a buffer of {wants}"))
        }
        Selector::PointToPoint { .. } => return None,
    };
    Some(error.with_peer(message.source))
}

/// The error of a frame that belongs to no collective that this rank calls.
pub(super) fn stray(source: u32, envelope: &Envelope, own: Option<CallMark>) -> Error {
    Error::new(ErrorKind::Mismatch, disagreement(source, envelope.mark(), own)).with_peer(source)
}

/// In words, how a rank's call differs from this rank's.
fn disagreement(source: u32, other: CallMark, own: Option<CallMark>) -> String {
    let theirs = operation_name(other.operation);
    match own {
        None => format!("rank {source} calls {theirs} where this rank has called another collective"),
        Some(own) if own.operation == other.operation => format!(
            "rank {source} calls {theirs} with other arguments: root, length, datatype, operation or hint differ"
        ),
        Some(own) => {
            format!("rank {source} calls {theirs} where this rank calls {}", operation_name(own.operation))
        }
    }
}

fn operation_name(code: u8) -> &'static str {
    Operation::from_code(code).map_or("an unknown operation", Operation::name)
}

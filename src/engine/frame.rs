//! The frame: what travels on a link.
//!
//! A frame is a header of 48 bytes, little-endian, and a payload. Only three
//! kinds have one: EAGER and RTS carry `inline` bytes, DATA carries `length`
//! bytes. `length` of EAGER and RTS is that of the whole message.

use zerocopy::byteorder::little_endian::{I32, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{Error, ErrorKind, Result};

/// Version of the frame format; both sides of a link must speak the same.
pub(crate) const FRAME_VERSION: u8 = 1;

/// Bytes of a header.
pub(crate) const HEADER_LEN: usize = size_of::<Header>();

/// The largest payload of one frame in bytes: a longer message goes in
/// fragments, so that control frames find a gap. (Measured over TCP: fragments
/// of 256 KiB cost 17 to 26 % of the bandwidth, 1 MiB ones nothing.)
pub(crate) const FRAGMENT_MAX: usize = 1 << 20;

/// First operation code of the collectives; codes below are point-to-point.
const FIRST_COLLECTIVE: u8 = 16;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A whole message.
    Eager = 1,
    /// The head of a message of which the rest waits for clear-to-send.
    Rts = 2,
    /// Clear-to-send: the rest may come.
    Cts = 3,
    /// A piece of the rest.
    Data = 4,
    /// Returns credit; every other frame does so too.
    Credit = 5,
    /// The sender withdraws a message.
    Cancel = 6,
    /// Reserved: a synchronous send was matched.
    Ack = 7,
    /// A communicator's collectives have failed.
    Abort = 8,
    /// Nothing more will come: the sender leaves in order.
    Goodbye = 9,
}

impl Kind {
    fn from_code(code: u8) -> Option<Self> {
        [
            Self::Eager,
            Self::Rts,
            Self::Cts,
            Self::Data,
            Self::Credit,
            Self::Cancel,
            Self::Ack,
            Self::Abort,
            Self::Goodbye,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == code)
    }
}

/// Identity of a message between two ranks.
///
/// Point-to-point messages and collectives live in separate halves of a
/// context. In the first, `sequence` counts the messages from one rank to one
/// other; in the second it is the number of the collective call, and `tag` the
/// step in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MessageId {
    pub(crate) context: u64,
    pub(crate) collective: bool,
    pub(crate) sequence: u64,
    pub(crate) tag: i32,
}

impl MessageId {
    /// An index for what is counted for each half of the contexts.
    pub(crate) fn half(&self) -> usize {
        usize::from(self.collective)
    }
}

/// A frame's header as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Header {
    version: u8,
    kind: u8,
    operation: u8,
    algorithm: u8,
    tag: I32,
    context: U64,
    sequence: U64,
    length: U64,
    signature: U32,
    inline: U32,
    credit_bytes: U32,
    credit_messages: U32,
}

const _: () = assert!(HEADER_LEN == 48);

impl Header {
    /// A control frame about the message `id`.
    pub(crate) fn control(kind: Kind, operation: u8, id: MessageId) -> Self {
        Self {
            version: FRAME_VERSION,
            kind: kind as u8,
            operation,
            algorithm: 0,
            tag: I32::new(id.tag),
            context: U64::new(id.context),
            sequence: U64::new(id.sequence),
            length: U64::ZERO,
            signature: U32::ZERO,
            inline: U32::ZERO,
            credit_bytes: U32::ZERO,
            credit_messages: U32::ZERO,
        }
    }

    /// A frame about no message: CREDIT or GOODBYE.
    pub(crate) fn bare(kind: Kind) -> Self {
        Self::control(kind, 0, MessageId { context: 0, collective: false, sequence: 0, tag: 0 })
    }

    pub(crate) fn with_algorithm(mut self, algorithm: u8, signature: u32) -> Self {
        self.algorithm = algorithm;
        self.signature = U32::new(signature);
        self
    }

    pub(crate) fn with_length(mut self, length: u64, inline: u32) -> Self {
        self.length = U64::new(length);
        self.inline = U32::new(inline);
        self
    }

    pub(crate) fn set_credit(&mut self, bytes: u32, messages: u32) {
        self.credit_bytes = U32::new(bytes);
        self.credit_messages = U32::new(messages);
    }

    /// Reads and checks a header: version, kind, and that the lengths make
    /// sense together.
    pub(crate) fn parse(bytes: &[u8; HEADER_LEN]) -> Result<(Self, Kind)> {
        let header = Self::read_from_bytes(bytes).expect("the length is that of a header");
        if header.version != FRAME_VERSION {
            return Err(bad(format!("frame version {} where {FRAME_VERSION} is spoken", header.version)));
        }
        let Some(kind) = Kind::from_code(header.kind) else {
            return Err(bad(format!("unknown frame kind {}", header.kind)));
        };
        let (length, inline) = (header.length.get(), u64::from(header.inline.get()));
        let sound = match kind {
            Kind::Eager => length == inline && inline <= FRAGMENT_MAX as u64,
            Kind::Rts => inline <= length && inline <= FRAGMENT_MAX as u64 && length <= isize::MAX as u64,
            Kind::Data => length > 0 && length <= FRAGMENT_MAX as u64 && inline == 0,
            Kind::Abort => inline == 0,
            Kind::Cts | Kind::Credit | Kind::Cancel | Kind::Ack | Kind::Goodbye => length == 0 && inline == 0,
        };
        if !sound {
            return Err(bad(format!("{kind:?} frame with length {length} and {inline} inline")));
        }
        Ok((header, kind))
    }

    pub(crate) fn is(&self, kind: Kind) -> bool {
        self.kind == kind as u8
    }

    pub(crate) fn id(&self) -> MessageId {
        MessageId {
            context: self.context.get(),
            collective: self.operation >= FIRST_COLLECTIVE,
            sequence: self.sequence.get(),
            tag: self.tag.get(),
        }
    }

    pub(crate) fn operation(&self) -> u8 {
        self.operation
    }

    pub(crate) fn algorithm(&self) -> u8 {
        self.algorithm
    }

    pub(crate) fn signature(&self) -> u32 {
        self.signature.get()
    }

    pub(crate) fn length(&self) -> u64 {
        self.length.get()
    }

    pub(crate) fn inline(&self) -> u32 {
        self.inline.get()
    }

    pub(crate) fn credit(&self) -> (u32, u32) {
        (self.credit_bytes.get(), self.credit_messages.get())
    }
}

fn bad(what: String) -> Error {
    Error::new(ErrorKind::Protocol, what)
}

/// Why a context's collectives failed, as an ABORT frame carries it. Ranks are
/// those of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AbortNotice {
    pub(crate) context: u64,
    /// The first failure.
    pub(crate) cause: ErrorKind,
    /// The rank on which it was seen.
    pub(crate) cause_rank: u32,
    /// The rank that it concerns, such as the one that was lost.
    pub(crate) about: Option<u32>,
    /// The code given to `fmi_comm_abort`.
    pub(crate) code: i32,
    /// The operation that failed.
    pub(crate) operation: u8,
}

impl AbortNotice {
    pub(crate) fn header(&self) -> Header {
        let code = u64::from(self.code as u32);
        let id =
            MessageId { context: self.context, collective: true, sequence: code, tag: self.cause.status() };
        let about = self.about.map_or(0, |rank| u64::from(rank) + 1);
        Header::control(Kind::Abort, self.operation, id)
            .with_algorithm(0, self.cause_rank)
            .with_length(about, 0)
    }

    pub(crate) fn parse(header: &Header) -> Self {
        let id = header.id();
        Self {
            context: id.context,
            cause: ErrorKind::from_status(id.tag).unwrap_or(ErrorKind::Aborted),
            cause_rank: header.signature(),
            about: header.length().checked_sub(1).and_then(|rank| u32::try_from(rank).ok()),
            code: id.sequence as u32 as i32,
            operation: header.operation(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_has_its_documented_bytes() {
        let id = MessageId { context: 0x0807_0605_0403_0201, collective: true, sequence: 9, tag: -2 };
        let mut header = Header::control(Kind::Rts, 21, id).with_algorithm(3, 0x1122_3344).with_length(7, 5);
        header.set_credit(10, 11);
        assert_eq!(
            header.as_bytes(),
            [
                1, 2, 21, 3, 0xfe, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0,
                0, 0, 0, 0, 0, 0x44, 0x33, 0x22, 0x11, 5, 0, 0, 0, 10, 0, 0, 0, 11, 0, 0, 0
            ]
        );
        let (parsed, kind) = Header::parse(header.as_bytes().try_into().unwrap()).unwrap();
        assert_eq!((parsed, kind, parsed.id()), (header, Kind::Rts, id));
    }

    #[test]
    fn an_abort_notice_survives_the_wire() {
        for about in [None, Some(0), Some(u32::MAX)] {
            let notice = AbortNotice {
                context: 5,
                cause: ErrorKind::PeerLost,
                cause_rank: 2,
                about,
                code: -7,
                operation: 21,
            };
            let header = notice.header();
            let (parsed, kind) = Header::parse(header.as_bytes().try_into().unwrap()).unwrap();
            assert_eq!(kind, Kind::Abort);
            assert_eq!(AbortNotice::parse(&parsed), notice);
        }
    }

    #[test]
    fn lengths_that_contradict_each_other_are_refused() {
        let message = |kind, length, inline| Header::bare(kind).with_length(length, inline);
        for header in [
            message(Kind::Eager, 5, 4),
            message(Kind::Eager, 2 << 20, 2 << 20),
            message(Kind::Rts, 4, 5),
            message(Kind::Rts, u64::MAX, 0),
            message(Kind::Data, 0, 0),
            message(Kind::Data, (1 << 20) + 1, 0),
            message(Kind::Credit, 1, 0),
            message(Kind::Goodbye, 0, 1),
        ] {
            let error = Header::parse(header.as_bytes().try_into().unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol);
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::array::uniform32(any::<u8>()), tail in any::<[u8; 16]>()) {
            let mut all = [0; HEADER_LEN];
            all[..32].copy_from_slice(&bytes);
            all[32..].copy_from_slice(&tail);
            if let Ok((header, Kind::Abort)) = Header::parse(&all) {
                AbortNotice::parse(&header);
            }
        }
    }
}

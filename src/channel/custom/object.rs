//! The objects in a store: each says what it is, and whether it is whole.

use sha2::{Digest, Sha256};
use zerocopy::byteorder::little_endian::{I32, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::super::Rank;
use super::mark::Mark;
use crate::error::{Error, ErrorKind, Result};

const MAGIC: [u8; 4] = *b"FMIo";
const VERSION: u8 = 1;

/// What comes before the payload of an object.
#[derive(Clone, Copy, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    magic: [u8; 4],
    version: u8,
    /// 0 where the message is of no collective.
    operation: u8,
    reserved: [u8; 2],
    epoch: U64,
    source: U32,
    dest: U32,
    sequence: U64,
    signature: U32,
    step: I32,
    length: U64,
    payload_check: U64,
    /// Over all that comes before.
    header_check: U64,
}

pub(super) const HEADER_LEN: usize = size_of::<Header>();

/// What a message is, apart from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) epoch: u64,
    pub(super) source: Rank,
    pub(super) dest: Rank,
    /// Of messages between the two ranks, where there is no mark.
    pub(super) sequence: u64,
    pub(super) mark: Option<Mark>,
}

impl Header {
    /// The header of the message `identity` with this payload.
    pub(super) fn new(identity: &Identity, payload: &[u8]) -> Self {
        let mark = identity.mark;
        let mut header = Self {
            magic: MAGIC,
            version: VERSION,
            operation: mark.map_or(0, |mark| mark.operation),
            reserved: [0; 2],
            epoch: U64::new(identity.epoch),
            source: U32::new(identity.source),
            dest: U32::new(identity.dest),
            sequence: U64::new(mark.map_or(identity.sequence, |mark| mark.sequence)),
            signature: U32::new(mark.map_or(0, |mark| mark.signature)),
            step: I32::new(mark.map_or(0, |mark| mark.step)),
            length: U64::new(payload.len() as u64),
            payload_check: U64::new(digest(payload)),
            header_check: U64::ZERO,
        };
        header.header_check = U64::new(header.check());
        header
    }

    fn check(&self) -> u64 {
        digest(&self.as_bytes()[..HEADER_LEN - size_of::<U64>()])
    }

    /// The header that `object` begins with; `None` where it is damaged, or not all
    /// there yet.
    pub(super) fn parse(object: &[u8]) -> Option<Self> {
        let (header, _) = Self::read_from_prefix(object).ok()?;
        let is_whole =
            header.magic == MAGIC && header.version == VERSION && header.header_check.get() == header.check();
        is_whole.then_some(header)
    }

    /// Whether `payload`, of the length that the header states, is what was sent.
    pub(super) fn is_of(&self, payload: &[u8]) -> bool {
        self.payload_check.get() == digest(payload)
    }

    pub(super) fn length(&self) -> u64 {
        self.length.get()
    }

    /// Checks that the object is what its name promised.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] where the ranks call different collectives,
    /// [`ErrorKind::Protocol`] where the object is a stranger's.
    pub(super) fn check_identity(&self, wanted: &Identity) -> Result<()> {
        let own = Self::new(wanted, &[]);
        if (self.epoch, self.source, self.dest, self.sequence, self.step)
            != (own.epoch, own.source, own.dest, own.sequence, own.step)
        {
            return Err(Error::new(ErrorKind::Protocol, "an object is not what its name says"));
        }
        if (self.operation, self.signature) != (own.operation, own.signature) {
            let text = "the ranks do not call the same collective with the same arguments";
            return Err(Error::new(ErrorKind::Mismatch, text));
        }
        Ok(())
    }
}

/// The first 64 bits of a SHA-256: what the store itself may have done to the bytes
/// shows.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    digest[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

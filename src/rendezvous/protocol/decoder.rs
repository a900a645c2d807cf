//! Cutting what comes from the network into preamble and frames, and putting a
//! frame together.

use super::{MAGIC, MAJOR, MAX_FRAME, MAX_FRAME_EARLY, PREAMBLE, malformed};
use crate::error::{Error, ErrorKind, Result};

const LENGTH: usize = 2;

/// A frame as it stands in the decoder's buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) body: &'a [u8],
}

/// Cuts what comes from the network into preamble and frames.
pub(crate) struct Decoder {
    buffer: Vec<u8>,
    /// Where in `buffer` the bytes begin that are not yet decoded.
    start: usize,
    /// The longest frame that is allowed now.
    limit: usize,
    greeted: bool,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { buffer: Vec::new(), start: 0, limit: MAX_FRAME_EARLY, greeted: false }
    }

    /// Takes what was read. Decode until nothing is left before the next call:
    /// then the buffer never holds more than `bytes` and one frame.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether the other side has begun as our protocol does.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "for the server's refusals"))]
    pub(crate) fn is_ours(&self) -> bool {
        let seen = &self.buffer[self.start..];
        self.greeted || (!seen.is_empty() && seen.iter().zip(&MAGIC).all(|(byte, expected)| byte == expected))
    }

    /// Allows the long frames that may follow an answered join.
    pub(crate) fn allow_long_frames(&mut self) {
        self.limit = MAX_FRAME;
    }

    /// How many bytes it holds that are not decoded.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// The next frame, `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Protocol`] if the other side speaks another protocol or
    /// another major version of this one, or if a frame is too long or empty.
    /// The connection cannot be used after it.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame<'_>>> {
        if !self.greeted && !self.take_preamble()? {
            return Ok(None);
        }
        let rest = &self.buffer[self.start..];
        let Some(length) = rest.first_chunk::<LENGTH>() else { return Ok(None) };
        let end = LENGTH + usize::from(u16::from_le_bytes(*length));
        if end > self.limit {
            let limit = self.limit;
            return Err(malformed(format!("a message of {end} bytes, where at most {limit} are allowed")));
        }
        if end == LENGTH {
            return Err(malformed("a message without a kind"));
        }
        let Some(frame) = rest.get(LENGTH..end) else { return Ok(None) };
        self.start += end;
        Ok(Some(Frame { kind: frame[0], body: &frame[1..] }))
    }

    /// True once the preamble has come and is good. The first byte that is not
    /// ours is enough to refuse: who speaks another protocol may be waiting
    /// for us, and would never send as many bytes as a preamble has.
    fn take_preamble(&mut self) -> Result<bool> {
        let seen = &self.buffer[self.start..];
        if seen.iter().zip(&MAGIC).any(|(byte, expected)| byte != expected) {
            let shown = seen[..seen.len().min(MAGIC.len())].escape_ascii();
            let text = format!(
                "the other side does not speak version {MAJOR} of FMI's rendezvous protocol: it sent \"{shown}\""
            );
            return Err(Error::new(ErrorKind::Protocol, text));
        }
        let Some(&major) = seen.get(MAGIC.len()) else { return Ok(false) };
        if major != MAJOR {
            let text = format!(
                "the other side speaks version {major} of FMI's rendezvous protocol, this one speaks version {MAJOR}"
            );
            return Err(Error::new(ErrorKind::Protocol, text));
        }
        if seen.len() < PREAMBLE {
            return Ok(false);
        }
        self.start += PREAMBLE;
        self.greeted = true;
        Ok(true)
    }
}

/// Appends a frame of `kind`, with the body that `body` appends.
pub(super) fn frame(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, kind]);
    body(out);
    let length = u16::try_from(out.len() - start - LENGTH).expect("every body is bounded");
    out[start..start + LENGTH].copy_from_slice(&length.to_le_bytes());
}

//! Buffers that notice who writes where, and contents that tell which message
//! they are.

use std::sync::OnceLock;

use super::random::Random;

const GUARD: usize = 32;
const GUARD_BYTE: u8 = 0xa5;

/// What a receive's buffer holds before anything came.
pub(super) const BLANK: u8 = 0x3c;

/// What fills a buffer once its request is over.
pub(super) const SCRIBBLE: u8 = 0xee;

/// A buffer between guard bytes.
///
/// It is reached through one raw pointer only, as the engine reaches it: a
/// reference made in between would end the engine's right to it.
pub(super) struct Buffer {
    all: *mut [u8],
}

impl Buffer {
    pub(super) fn filled_with(byte: u8, length: usize) -> Self {
        let mut bytes = vec![byte; length + 2 * GUARD].into_boxed_slice();
        bytes[..GUARD].fill(GUARD_BYTE);
        bytes[GUARD + length..].fill(GUARD_BYTE);
        Self { all: Box::into_raw(bytes) }
    }

    pub(super) fn of_message(number: u64, length: usize) -> Self {
        let mut buffer = Self::filled_with(0, length);
        write_content(number, buffer.bytes_mut());
        buffer
    }

    pub(super) fn len(&self) -> usize {
        self.all.len() - 2 * GUARD
    }

    pub(super) fn pointer(&self) -> *mut u8 {
        // SAFETY: the allocation is longer than its first guard.
        unsafe { self.all.cast::<u8>().add(GUARD) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the bytes between the guards; the engine does not run while
        // the caller looks.
        unsafe { std::slice::from_raw_parts(self.pointer(), self.len()) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(), self.len()) }
    }

    pub(super) fn check_guards(&self) {
        let guards = [self.all.cast::<u8>(), self.pointer().wrapping_add(self.len())];
        for guard in guards {
            // SAFETY: the guards are part of the allocation.
            let bytes = unsafe { std::slice::from_raw_parts(guard, GUARD) };
            assert!(is_all(GUARD_BYTE, bytes), "a guard byte was overwritten");
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: it came from a box, and nobody uses it any more.
        drop(unsafe { Box::from_raw(self.all) });
    }
}

/// Whether every byte is `byte`: by one comparison of the slice with itself, as
/// a loop takes seconds in a debug build.
pub(super) fn is_all(byte: u8, bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|first| *first == byte && bytes[1..] == bytes[..bytes.len() - 1])
}

/// Random bytes that contents are cut from. The length is prime: content that
/// lands a power of two away from its place differs.
fn table() -> &'static [u8] {
    const LENGTH: usize = 65_521;
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut random = Random::new(4711);
        (0..LENGTH).map(|_| random.next() as u8).collect()
    })
}

fn pieces(number: u64, length: usize) -> impl Iterator<Item = (usize, &'static [u8])> {
    let table = table();
    let mut start = (number.wrapping_mul(7919) % table.len() as u64) as usize;
    let mut done = 0;
    std::iter::from_fn(move || {
        let count = (table.len() - start).min(length - done);
        let piece = (done, &table[start..start + count]);
        (start, done) = (0, done + count);
        (count > 0).then_some(piece)
    })
}

fn write_content(number: u64, bytes: &mut [u8]) {
    for (at, piece) in pieces(number, bytes.len()) {
        bytes[at..at + piece.len()].copy_from_slice(piece);
    }
}

/// Whether `bytes` are the content of the message with this number.
pub(super) fn is_content(number: u64, bytes: &[u8]) -> bool {
    pieces(number, bytes.len()).all(|(at, piece)| bytes[at..at + piece.len()] == *piece)
}

//! A peer that sends what no peer sends.

use std::io::IoSlice;
use std::task::Poll;

use zerocopy::IntoBytes;

use super::for_each_seed;
use super::random::Random;
use crate::engine::credit::ANNOUNCED_MAX;
use crate::engine::frame::{HEADER_LEN, Header, Kind, MessageId};
use crate::engine::incoming::MESSAGE_OVERHEAD;
use crate::engine::{Engine, Envelope, Selector};
use crate::error::ErrorKind;
use crate::operation::Operation;

/// The frames that an honest rank 1 sends to rank 0.
fn honest_stream(random: &mut Random) -> Vec<u8> {
    let mut engine = Engine::new(1, 2, 1 << 20);
    engine.link_opened(0);
    let data = [7u8; 3000];
    for sequence in 0..4 {
        let collective = random.chance(50);
        let operation = if collective { Operation::Bcast } else { Operation::Send } as u8;
        let id = MessageId { context: 1, collective, sequence, tag: 0 };
        let envelope = Envelope { id, operation, algorithm: 0, signature: 0 };
        engine.post_send(0, envelope, data.as_ptr(), random.between(0, data.len()));
    }
    engine.say_goodbye(0);
    let mut stream = Vec::new();
    while let Some(parts) = engine.output(0) {
        let count = parts.iter().map(|part: &IoSlice<'_>| part.len()).sum();
        parts.iter().for_each(|part| stream.extend_from_slice(part));
        engine.written(0, count);
    }
    stream
}

/// Whatever comes is refused as a fault of protocol or borne: no panic, no
/// memory without bound, nothing beyond a buffer.
#[test]
fn mutated_streams_do_no_harm() {
    for_each_seed(400, |seed| {
        let mut random = Random::new(seed);
        let mut stream = honest_stream(&mut random);
        for _ in 0..random.between(0, 6) {
            let at = random.below(stream.len());
            match random.below(4) {
                0 => stream[at] = random.below(256) as u8,
                1 => stream[at] ^= 1 << random.below(8),
                2 => stream.truncate(at.max(1)),
                _ => {
                    let from = random.below(stream.len());
                    let piece = stream[from..stream.len().min(from + HEADER_LEN)].to_vec();
                    stream.splice(at..at, piece);
                }
            }
        }
        let mut engine = Engine::new(0, 2, 1 << 20);
        engine.link_opened(1);
        engine.open_context(1, vec![0, 1]);
        let mut buffer = vec![0u8; 20_000];
        let selector = Selector::PointToPoint { context: 1, tag: None };
        let key = engine.post_recv(Some(1), selector, buffer.as_mut_ptr(), 10_000);
        let mut rest = &stream[..];
        let mut refused = false;
        while !rest.is_empty() && !refused {
            let (now, later) = rest.split_at(random.between(1, rest.len()));
            rest = later;
            let landing = engine.landing(1);
            let mut staged = now;
            for (at, room) in landing.parts {
                let (here, beyond) = staged.split_at(staged.len().min(room));
                // SAFETY: the part has room for as much.
                unsafe { std::ptr::copy_nonoverlapping(here.as_ptr(), at, here.len()) };
                staged = beyond;
            }
            let taken = engine.landed(1, &landing, now.len() - staged.len());
            if let Err(error) = taken.and_then(|()| engine.feed(1, staged)) {
                assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
                engine.link_closed(1, error);
                refused = true;
            }
        }
        assert!(buffer[10_000..].iter().all(|byte| *byte == 0), "written beyond the buffer");
        let census = engine.check_invariants();
        assert!(census.kept_bytes <= (2 << 20) + 20_000, "{} bytes are kept", census.kept_bytes);
        if refused {
            assert!(matches!(engine.poll_recv(key), Poll::Ready(_)), "a receive from a refused peer waits");
        }
    });
}

fn frame(kind: Kind, operation: Operation, id: MessageId, length: u64, inline: u32) -> Vec<u8> {
    let header = Header::control(kind, operation as u8, id).with_length(length, inline);
    header.as_bytes().to_vec()
}

/// A message that is withdrawn at once leaves nothing behind, in whichever
/// context it was; not even the grant that it was about to get.
#[test]
fn withdrawn_messages_leave_nothing_behind() {
    let mut engine = Engine::new(0, 2, 1 << 20);
    engine.link_opened(1);
    for context in 0..10_000 {
        let id = MessageId { context, collective: false, sequence: 0, tag: 0 };
        engine.feed(1, &frame(Kind::Rts, Operation::Send, id, 10, 0)).unwrap();
        engine.feed(1, &frame(Kind::Cancel, Operation::Send, id, 0, 0)).unwrap();
    }
    assert_eq!(engine.check_invariants().messages, 0);
    assert_eq!(engine.unexpected.len(), 0);
}

/// A step that was refused while it still comes, and another by the same name:
/// withdrawing means the first.
#[test]
fn a_withdrawn_step_does_not_take_its_namesake_along() {
    let mut engine = Engine::new(0, 2, 1 << 20);
    engine.link_opened(1);
    let id = MessageId { context: 1, collective: true, sequence: 0, tag: 0 };
    let wanted = Envelope { id, operation: Operation::Bcast as u8, algorithm: 0, signature: 0 };
    let mut buffer = [0u8; 4];
    let key = engine.post_recv(Some(1), Selector::Collective(wanted), buffer.as_mut_ptr(), 4);
    for _ in 0..2 {
        engine.feed(1, &frame(Kind::Rts, Operation::Bcast, id, 10, 0)).unwrap();
    }
    assert!(engine.poll_recv(key).is_ready());
    engine.feed(1, &frame(Kind::Cancel, Operation::Bcast, id, 0, 0)).unwrap();
    engine.check_invariants();
}

/// Credit that comes back for a frame of which no byte has left was never spent.
#[test]
fn credit_for_a_frame_that_has_not_left_is_refused() {
    let mut engine = Engine::new(0, 2, 1 << 20);
    engine.link_opened(1);
    let id = MessageId { context: 1, collective: false, sequence: 0, tag: 0 };
    let envelope = Envelope { id, operation: Operation::Send as u8, algorithm: 0, signature: 0 };
    let data = [7u8; 100];
    let key = engine.post_send(1, envelope, data.as_ptr(), data.len());
    assert!(engine.output(1).is_some());
    let mut header = Header::bare(Kind::Credit);
    header.set_credit(100, 1);
    let error = engine.feed(1, header.as_bytes()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    engine.cancel_send(key);
    assert_eq!(engine.spent_at(1), (0, 0));
}

/// A peer that announces on and on is refused before it has made the engine keep
/// much, whether it reads the answers or not.
#[test]
fn announcements_without_end_are_refused() {
    for reads in [false, true] {
        for operation in [Operation::Send, Operation::Bcast] {
            let limit = 1 << 20;
            let mut engine = Engine::new(0, 2, limit);
            engine.link_opened(1);
            let mut count = 0;
            let error = loop {
                let id = MessageId {
                    context: 1,
                    collective: operation == Operation::Bcast,
                    sequence: 0,
                    tag: count,
                };
                if let Err(error) = engine.feed(1, &frame(Kind::Rts, operation, id, 10, 0)) {
                    break error;
                }
                count += 1;
                assert!(count < 300_000, "all were taken");
                while let Some(parts) = engine.output(1).filter(|_| reads) {
                    let length = parts.iter().map(|part| part.len()).sum();
                    engine.written(1, length);
                }
            };
            let text = if reads { "announced without credit" } else { "does not read the answers" };
            assert_eq!(error.kind(), ErrorKind::Protocol);
            assert!(error.message().contains(text), "{error}");
            let census = engine.check_invariants();
            let bound = limit as usize / MESSAGE_OVERHEAD as usize + ANNOUNCED_MAX as usize;
            assert!(census.messages <= bound, "{} messages are kept", census.messages);
        }
    }
}

/// Who has said GOODBYE sends nothing more, whatever comes and asks for an answer,
/// and keeps nothing of it: its socket may be gone when the answer arrives.
#[test]
fn nothing_follows_a_goodbye() {
    let mut engine = Engine::new(0, 2, 1 << 20);
    engine.link_opened(1);
    engine.say_goodbye(1);
    assert!(engine.output(1).is_some());
    engine.written(1, HEADER_LEN);
    for sequence in 0..1000 {
        let id = MessageId { context: 1, collective: false, sequence, tag: 0 };
        let (kind, length) = if sequence % 2 == 0 { (Kind::Eager, 0) } else { (Kind::Rts, 10) };
        engine.feed(1, &frame(kind, Operation::Send, id, length, 0)).unwrap();
        if kind == Kind::Rts {
            engine.feed(1, &frame(Kind::Cancel, Operation::Send, id, 0, 0)).unwrap();
        }
    }
    assert!(!engine.has_output(1) && engine.output(1).is_none(), "a frame after GOODBYE");
    engine.feed(1, Header::bare(Kind::Goodbye).as_bytes()).unwrap();
    assert!(!engine.has_output(1) && engine.output(1).is_none(), "a frame after GOODBYE");
    assert_eq!(engine.check_invariants().messages, 0);
}

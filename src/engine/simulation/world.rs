//! Engines joined by pipes, the requests on them, and a model of what must
//! come out.

use std::collections::{HashMap, VecDeque};
use std::task::Poll;

use super::buffer::{BLANK, Buffer, SCRIBBLE, is_all, is_content};
use super::random::Random;
use crate::engine::frame::MessageId;
use crate::engine::incoming::BULK;
use crate::engine::{Census, Engine, Envelope, RecvKey, Selector, SendKey, WINDOW_BYTES, Withdrawal};
use crate::error::{Error, ErrorKind};
use crate::operation::Operation;

/// What happened to a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Pending,
    Sent,
    Withdrawn,
    Failed(ErrorKind),
}

/// A message that was posted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) context: u64,
    pub(super) tag: i32,
    pub(super) length: usize,
    pub(super) outcome: Outcome,
}

/// Messages that must keep their order: source, destination, context, tag.
type Stream = (u32, u32, u64, i32);

impl Message {
    pub(super) fn stream(&self) -> Stream {
        (self.from, self.to, self.context, self.tag)
    }
}

/// A receive as it was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) rank: u32,
    pub(super) source: Option<u32>,
    pub(super) context: u64,
    pub(super) tag: Option<i32>,
    pub(super) capacity: usize,
}

impl Wanted {
    fn takes(&self, (from, to, context, tag): Stream) -> bool {
        self.rank == to
            && self.context == context
            && self.source.is_none_or(|source| source == from)
            && self.tag.is_none_or(|wanted| wanted == tag)
    }
}

struct Sending {
    message: usize,
    key: SendKey,
    buffer: Buffer,
}

struct Receiving {
    wanted: Wanted,
    key: RecvKey,
    buffer: Buffer,
    /// When it was posted, among all receives.
    order: u64,
}

/// What a receive ended with; no bytes = it was too short for its message.
struct Delivery {
    order: u64,
    bytes: Option<Vec<u8>>,
}

/// Bytes under way from one engine to another.
#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    /// Whether this side's engine regards the link as open.
    open: bool,
    /// Nothing written after this arrives.
    broken: bool,
}

/// How long the steps of the bytes are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) capacity: usize,
    pub(super) largest_step: usize,
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) engines: Vec<Engine>,
    pub(super) messages: Vec<Message>,
    /// Receives that failed, in the order in which that was seen.
    pub(super) failures: Vec<(Wanted, ErrorKind)>,
    pipes: Vec<Pipe>,
    pace: Pace,
    sendings: Vec<Sending>,
    receivings: Vec<Receiving>,
    deliveries: HashMap<Stream, Vec<Delivery>>,
    /// Buffers of requests that are over: nothing may be written to them.
    retired: Vec<Buffer>,
    sequences: HashMap<(u64, u32, u32), u64>,
    withdrawn: usize,
    limit: u64,
    /// Bytes that cancelled receives may have put back, per rank.
    put_back: Vec<u64>,
    orders: u64,
}

impl World {
    pub(super) fn new(seed: u64, size: u32, limit: u64, pace: Pace) -> Self {
        Self {
            random: Random::new(seed),
            engines: (0..size).map(|rank| Engine::new(rank, size, limit)).collect(),
            messages: Vec::new(),
            failures: Vec::new(),
            pipes: (0..size * size).map(|_| Pipe::default()).collect(),
            pace,
            sendings: Vec::new(),
            receivings: Vec::new(),
            deliveries: HashMap::new(),
            retired: Vec::new(),
            sequences: HashMap::new(),
            withdrawn: 0,
            limit,
            put_back: vec![0; size as usize],
            orders: 0,
        }
    }

    pub(super) fn size(&self) -> u32 {
        self.engines.len() as u32
    }

    pub(super) fn engine(&mut self, rank: u32) -> &mut Engine {
        &mut self.engines[rank as usize]
    }

    pub(super) fn some_rank(&mut self) -> u32 {
        self.random.below(self.engines.len()) as u32
    }

    fn pipe(&mut self, from: u32, to: u32) -> &mut Pipe {
        let size = self.size();
        &mut self.pipes[(from * size + to) as usize]
    }

    pub(super) fn is_open(&self, rank: u32, peer: u32) -> bool {
        self.pipes[(rank * self.size() + peer) as usize].open
    }
}

/// Requests.
impl World {
    /// Posts a send and returns the number of its message.
    pub(super) fn send(&mut self, from: u32, to: u32, context: u64, tag: i32, length: usize) -> usize {
        let sequence = self.sequences.entry((context, from, to)).or_default();
        *sequence += 1;
        let id = MessageId { context, collective: false, sequence: *sequence, tag };
        let envelope = Envelope { id, operation: Operation::Send as u8, algorithm: 0, signature: 0 };
        let message = self.messages.len();
        let buffer = Buffer::of_message(message as u64, length);
        let pointer = if length == 0 { std::ptr::null() } else { buffer.pointer().cast_const() };
        let key = self.engine(from).post_send(to, envelope, pointer, length);
        self.messages.push(Message { from, to, context, tag, length, outcome: Outcome::Pending });
        self.sendings.push(Sending { message, key, buffer });
        message
    }

    pub(super) fn receive(&mut self, wanted: Wanted) {
        let buffer = Buffer::filled_with(BLANK, wanted.capacity);
        let pointer = if wanted.capacity == 0 { std::ptr::null_mut() } else { buffer.pointer() };
        let selector = Selector::PointToPoint { context: wanted.context, tag: wanted.tag };
        let key = self.engine(wanted.rank).post_recv(wanted.source, selector, pointer, wanted.capacity);
        self.orders += 1;
        self.receivings.push(Receiving { wanted, key, buffer, order: self.orders });
    }

    pub(super) fn pending_sends(&self) -> usize {
        self.sendings.len()
    }

    pub(super) fn pending_receives(&self) -> impl Iterator<Item = &Wanted> {
        self.receivings.iter().map(|receiving| &receiving.wanted)
    }

    fn end_sending(&mut self, at: usize, outcome: Outcome) {
        let mut sending = self.sendings.swap_remove(at);
        sending.buffer.check_guards();
        assert!(
            is_content(sending.message as u64, sending.buffer.bytes()),
            "the engine wrote to a send's buffer"
        );
        sending.buffer.bytes_mut().fill(SCRIBBLE);
        self.retire(sending.buffer);
        self.messages[sending.message].outcome = outcome;
    }

    fn retire(&mut self, mut buffer: Buffer) {
        buffer.bytes_mut().fill(SCRIBBLE);
        // Large ones are too many to keep; freed memory is watched by Miri.
        if buffer.len() <= 1 << 16 || self.retired.len() < 8 {
            self.retired.push(buffer);
        }
    }

    fn poll_sending(&mut self, at: usize) -> bool {
        let Sending { message, key, .. } = self.sendings[at];
        let from = self.messages[message].from;
        match self.engine(from).poll_send(key) {
            Poll::Pending => return false,
            Poll::Ready(Ok(())) => self.end_sending(at, Outcome::Sent),
            Poll::Ready(Err(error)) => self.end_sending(at, Outcome::Failed(error.kind())),
        }
        true
    }

    fn poll_receiving(&mut self, at: usize) -> bool {
        let Receiving { wanted, key, .. } = self.receivings[at];
        let Poll::Ready(result) = self.engine(wanted.rank).poll_recv(key) else { return false };
        let Receiving { buffer, order, .. } = self.receivings.swap_remove(at);
        buffer.check_guards();
        match result {
            Ok(received) => {
                let stream = (received.source, wanted.rank, wanted.context, received.tag);
                assert!(wanted.takes(stream), "{wanted:?} took {received:?}");
                let (bytes, rest) = buffer.bytes().split_at(received.length);
                // A message that was withdrawn may have left bytes behind, and a
                // wrong guess of what comes next too.
                let guessed = wanted.capacity >= BULK;
                let untouched = self.withdrawn > 0 || guessed || is_all(BLANK, rest);
                assert!(untouched, "more was written than was received");
                let delivery = Delivery { order, bytes: Some(bytes.to_vec()) };
                self.deliveries.entry(stream).or_default().push(delivery);
            }
            Err(error) if error.kind() == ErrorKind::SizeMismatch => {
                let (source, tag) = wanted.source.zip(wanted.tag).expect("only exact receives are short");
                let stream = (source, wanted.rank, wanted.context, tag);
                self.deliveries.entry(stream).or_default().push(Delivery { order, bytes: None });
            }
            Err(error) => self.failures.push((wanted, error.kind())),
        }
        self.retire(buffer);
        true
    }

    /// Polls a request picked at random.
    pub(super) fn poll_some(&mut self) {
        if !self.sendings.is_empty() && self.random.chance(50) {
            let at = self.random.below(self.sendings.len());
            self.poll_sending(at);
        } else if !self.receivings.is_empty() {
            let at = self.random.below(self.receivings.len());
            self.poll_receiving(at);
        }
    }

    /// Polls every request; whether one of them ended.
    pub(super) fn poll_all(&mut self) -> bool {
        let before = self.sendings.len() + self.receivings.len();
        for at in (0..self.sendings.len()).rev() {
            self.poll_sending(at);
        }
        for at in (0..self.receivings.len()).rev() {
            self.poll_receiving(at);
        }
        self.sendings.len() + self.receivings.len() < before
    }

    /// Cancels a send picked at random; what it was, where it was withdrawn.
    pub(super) fn cancel_some_send(&mut self) -> Option<Message> {
        if self.sendings.is_empty() {
            return None;
        }
        let at = self.random.below(self.sendings.len());
        self.cancel_sending(at)
    }

    fn cancel_sending(&mut self, at: usize) -> Option<Message> {
        let Sending { message, key, .. } = self.sendings[at];
        let from = self.messages[message].from;
        match self.engine(from).cancel_send(key) {
            Withdrawal::Sent => {
                self.end_sending(at, Outcome::Sent);
                None
            }
            Withdrawal::Withdrawn => {
                self.end_sending(at, Outcome::Withdrawn);
                self.withdrawn += 1;
                Some(self.messages[message])
            }
        }
    }

    pub(super) fn cancel_sends_of(&mut self, rank: u32) {
        for at in (0..self.sendings.len()).rev() {
            if self.messages[self.sendings[at].message].from == rank {
                self.cancel_sending(at);
            }
        }
    }

    /// Cancels a receive picked at random and returns what it asked for.
    pub(super) fn cancel_some_receive(&mut self) -> Option<Wanted> {
        if self.receivings.is_empty() {
            return None;
        }
        let at = self.random.below(self.receivings.len());
        Some(self.cancel_receiving(at))
    }

    fn cancel_receiving(&mut self, at: usize) -> Wanted {
        let Receiving { wanted, key, buffer, .. } = self.receivings.swap_remove(at);
        self.engine(wanted.rank).cancel_recv(key);
        buffer.check_guards();
        self.retire(buffer);
        self.put_back[wanted.rank as usize] += wanted.capacity as u64 + 256;
        wanted
    }

    pub(super) fn cancel_all_receives(&mut self) {
        while !self.receivings.is_empty() {
            self.cancel_receiving(self.receivings.len() - 1);
        }
    }
}

/// Links and bytes.
impl World {
    pub(super) fn open_link(&mut self, a: u32, b: u32) {
        for (from, to) in [(a, b), (b, a)] {
            self.pipe(from, to).open = true;
            self.engine(from).link_opened(to);
        }
    }

    pub(super) fn open_all_links(&mut self) {
        for a in 0..self.size() {
            for b in 0..a {
                self.open_link(a, b);
            }
        }
    }

    /// The link between two ranks breaks: of what is under way, some random
    /// part arrives yet. Each side notices at a time of its own.
    pub(super) fn break_link(&mut self, a: u32, b: u32) {
        for (from, to) in [(a, b), (b, a)] {
            let length = self.pipe(from, to).bytes.len();
            let arrives = self.random.between(0, length);
            let pipe = self.pipe(from, to);
            pipe.bytes.truncate(arrives);
            pipe.broken = true;
        }
    }

    /// One side of a link notices that it ended.
    pub(super) fn close_side(&mut self, rank: u32, peer: u32) {
        self.pipe(rank, peer).open = false;
        self.pipe(peer, rank).bytes.clear();
        self.pipe(rank, peer).broken = true;
        let why = Error::new(ErrorKind::PeerLost, "the connection broke");
        self.engine(rank).link_closed(peer, why);
        assert!(!self.engine(rank).has_output(peer), "output for a link that is closed");
    }

    fn step_length(&mut self) -> usize {
        let largest = self.pace.largest_step;
        match self.random.below(4) {
            0 => self.random.between(1, largest.min(3)),
            1 => self.random.between(1, largest.min(200)),
            _ => self.random.between(largest.div_ceil(2), largest),
        }
    }

    /// Some bytes of `from`'s output go into the pipe.
    fn move_out(&mut self, from: u32, to: u32) -> bool {
        if from == to || !self.is_open(from, to) || !self.engines[from as usize].has_output(to) {
            return false;
        }
        let capacity = self.pace.capacity;
        let limit = self.step_length().min(capacity.saturating_sub(self.pipe(from, to).bytes.len()));
        // A full pipe also happens between making a frame and writing it.
        let stalls = self.random.chance(10);
        let size = self.size();
        let pipe = &mut self.pipes[(from * size + to) as usize];
        let engine = &mut self.engines[from as usize];
        let Some(slices) = engine.output(to) else { panic!("has_output, but there is none") };
        assert!(slices.iter().any(|slice| !slice.is_empty()), "an empty frame");
        if limit == 0 || stalls {
            return stalls && limit > 0;
        }
        let mut count = 0;
        for slice in &slices {
            let part = &slice[..slice.len().min(limit - count)];
            if !pipe.broken {
                pipe.bytes.extend(part);
            }
            count += part.len();
        }
        engine.written(to, count);
        true
    }

    /// Some bytes of the pipe go into the engine of `to`.
    fn move_in(&mut self, from: u32, to: u32) -> Result<bool, Error> {
        if from == to || !self.is_open(to, from) || self.pipe(from, to).bytes.is_empty() {
            return Ok(false);
        }
        let limit = self.step_length();
        let direct = self.random.chance(60);
        let size = self.size();
        let bytes = &mut self.pipes[(from * size + to) as usize].bytes;
        let engine = &mut self.engines[to as usize];
        let (front, _) = bytes.as_slices();
        let piece = &front[..front.len().min(limit)];
        let mut rest = piece;
        if direct {
            let landing = engine.landing(from);
            for (at, room) in landing.parts {
                let (here, beyond) = rest.split_at(rest.len().min(room));
                // SAFETY: the part has room for as much.
                unsafe { std::ptr::copy_nonoverlapping(here.as_ptr(), at, here.len()) };
                rest = beyond;
            }
            engine.landed(from, &landing, piece.len() - rest.len())?;
        }
        engine.feed(from, rest)?;
        let count = piece.len();
        bytes.drain(..count);
        Ok(true)
    }

    /// Moves some bytes one way only.
    pub(super) fn carry(&mut self, from: u32, to: u32) {
        self.move_out(from, to);
        self.move_in(from, to).expect("engines understand each other");
    }

    /// Moves some bytes somewhere; whether there were any.
    pub(super) fn move_some(&mut self) -> bool {
        let size = self.engines.len();
        let start = self.random.below(size * size);
        for offset in 0..size * size {
            let pair = (start + offset) % (size * size);
            let (a, b) = ((pair / size) as u32, (pair % size) as u32);
            if self.engines[a as usize].wants_link(b) && !self.is_open(a, b) && !self.pipe(a, b).broken {
                self.open_link(a, b);
            }
            let moved = if self.random.chance(50) {
                self.move_out(a, b)
            } else {
                self.move_in(a, b).expect("engines understand each other")
            };
            if moved {
                return true;
            }
        }
        false
    }

    /// Lets bytes flow and requests end until nothing moves any more.
    pub(super) fn settle(&mut self) {
        let mut idle = 0;
        let mut steps = 0_u64;
        // Either half of a move may be passed over by chance: only many idle
        // rounds in a row mean that all is quiet.
        while idle < 40 {
            let moved = self.move_some();
            let polled = if !moved || self.random.chance(5) { self.poll_all() } else { false };
            idle = if moved || polled { 0 } else { idle + 1 };
            steps += 1;
            assert!(steps < 5_000_000, "the engines never come to rest");
        }
        for a in 0..self.size() {
            for b in 0..self.size() {
                let done = !self.is_open(a, b) || !self.engines[a as usize].has_output(b);
                assert!(done, "rank {a} has output for rank {b} that does not leave");
            }
        }
        self.check_invariants();
        self.check_credit();
    }
}

/// What must hold.
impl World {
    /// At rest a sender misses at most half a window of what was returned.
    fn check_credit(&self) {
        for a in 0..self.size() {
            for b in (0..self.size()).filter(|b| *b != a) {
                let [there, back] = [(a, b), (b, a)];
                let open = [there, back].iter().all(|(x, y)| self.is_open(*x, *y));
                if !open || self.engines[a as usize].is_gone(b) || self.engines[b as usize].is_gone(a) {
                    continue;
                }
                let (spent_bytes, spent_messages) = self.engines[a as usize].spent_at(b);
                let (owed_bytes, owed_messages) = self.engines[b as usize].owed_to(a);
                let missing = (spent_bytes - owed_bytes, spent_messages - owed_messages);
                let fits = missing.0 <= WINDOW_BYTES / 2 && missing.1 <= 512;
                assert!(fits, "rank {b} keeps {missing:?} of the credit of rank {a} to itself");
            }
        }
    }

    pub(super) fn check_invariants(&self) {
        for (rank, engine) in self.engines.iter().enumerate() {
            let Census { kept_bytes, .. } = engine.check_invariants();
            let windows = self.engines.len() as u64 * u64::from(WINDOW_BYTES);
            let bound = self.limit + windows + self.put_back[rank];
            assert!(kept_bytes <= bound, "rank {rank} keeps {kept_bytes} bytes, more than {bound}");
        }
    }

    /// No request may wait for another that waits for it: call when all is
    /// quiet.
    pub(super) fn check_liveness(&self) {
        let mut left: HashMap<Stream, i64> = HashMap::new();
        for message in &self.messages {
            if matches!(message.outcome, Outcome::Pending | Outcome::Sent) {
                *left.entry(message.stream()).or_default() += 1;
            }
        }
        for (stream, deliveries) in &self.deliveries {
            *left.entry(*stream).or_default() -= deliveries.len() as i64;
        }
        for wanted in self.pending_receives() {
            for (stream, count) in &left {
                assert!(
                    *count <= 0 || !wanted.takes(*stream),
                    "{wanted:?} is stuck: {count} of {stream:?} left"
                );
            }
        }
    }

    /// Receives whatever has not been received yet.
    pub(super) fn drain(&mut self, contexts: &[u64]) {
        self.cancel_all_receives();
        let largest = self.messages.iter().map(|message| message.length).max().unwrap_or(0);
        loop {
            let before = self.delivered();
            for rank in 0..self.size() {
                for &context in contexts {
                    let wanted = Wanted { rank, source: None, context, tag: None, capacity: largest };
                    self.receive(wanted);
                }
            }
            self.settle();
            if self.delivered() == before {
                break;
            }
        }
        self.cancel_all_receives();
    }

    pub(super) fn delivered(&self) -> usize {
        self.deliveries.values().map(Vec::len).sum()
    }

    /// Every message that was sent has been received once, whole, and (where
    /// `ordered`) in its order; others were not.
    pub(super) fn check_deliveries(&mut self, ordered: bool) {
        self.check_deliveries_but(ordered, |_, _| false);
    }

    /// As [`check_deliveries`](Self::check_deliveries); between ranks that lost
    /// each other the last messages may be missing.
    pub(super) fn check_deliveries_but(&mut self, ordered: bool, lost: impl Fn(u32, u32) -> bool) {
        let mut expected: HashMap<Stream, Vec<u64>> = HashMap::new();
        for (number, message) in self.messages.iter().enumerate() {
            assert_ne!(message.outcome, Outcome::Pending, "{message:?}");
            if message.outcome == Outcome::Sent {
                expected.entry(message.stream()).or_default().push(number as u64);
            }
        }
        for (stream, deliveries) in &mut self.deliveries {
            deliveries.sort_by_key(|delivery| delivery.order);
            let mut numbers = expected.remove(stream).unwrap_or_default();
            if lost(stream.0, stream.1) {
                assert!(deliveries.len() <= numbers.len(), "messages of {stream:?} that were received");
            } else {
                assert_eq!(deliveries.len(), numbers.len(), "messages of {stream:?} that were received");
            }
            for delivery in deliveries {
                let suits = |number: &u64| match &delivery.bytes {
                    Some(bytes) => {
                        bytes.len() == self.messages[*number as usize].length && is_content(*number, bytes)
                    }
                    None => true,
                };
                let at = if ordered {
                    Some(0).filter(|_| suits(&numbers[0]))
                } else {
                    numbers.iter().position(suits)
                };
                let at = at.unwrap_or_else(|| {
                    panic!(
                        "a delivery of {:?} bytes on {stream:?} where {numbers:?} were due",
                        delivery.bytes.as_ref().map(Vec::len)
                    )
                });
                numbers.remove(at);
            }
        }
        expected.retain(|(from, to, ..), _| !lost(*from, *to));
        assert!(expected.is_empty(), "never received: {expected:?}");
    }

    /// Nothing is left in the engines, and nobody wrote where he may not.
    pub(super) fn check_end(&self) {
        for (rank, engine) in self.engines.iter().enumerate() {
            let census = engine.check_invariants();
            assert_eq!((census.sends, census.recvs, census.messages), (0, 0, 0), "left on rank {rank}");
        }
        for buffer in &self.retired {
            buffer.check_guards();
            assert!(is_all(SCRIBBLE, buffer.bytes()), "a retired buffer was written to");
        }
    }
}

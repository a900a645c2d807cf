//! A busy rank and a peer whose every frame is well formed, but which sends them
//! in any order and about anything.

use std::task::Poll;

use zerocopy::IntoBytes;

use super::buffer::{BLANK, Buffer, SCRIBBLE, is_all};
use super::for_each_seed;
use super::random::Random;
use crate::engine::frame::{AbortNotice, FRAGMENT_MAX, HEADER_LEN, Header, Kind, MessageId};
use crate::engine::{Engine, Envelope, RecvKey, Selector, SendKey, WINDOW_BYTES};
use crate::error::{Error, ErrorKind};
use crate::operation::Operation;

const LIMIT: u64 = 100_000;
const CONTEXTS: [u64; 2] = [1, 2];
const CAPACITY: usize = 20_000;

/// Rank 0, its requests, and what the peer has to say.
struct Busy {
    random: Random,
    engine: Engine,
    sends: Vec<(SendKey, Buffer, u32)>,
    /// The messages that have been sent to the peer.
    sent: Vec<MessageId>,
    recvs: Vec<(RecvKey, Buffer, Option<u32>)>,
    retired: Vec<Buffer>,
    /// The collective that runs in the first context.
    running: Option<u64>,
    sequence: u64,
    steps: i32,
    returned: (u32, u32),
    put_back: u64,
}

impl Busy {
    fn new(seed: u64) -> Self {
        let mut engine = Engine::new(0, 2, LIMIT);
        engine.link_opened(1);
        // The second context is one that this rank does not know.
        engine.open_context(CONTEXTS[0], vec![0, 1]);
        Self {
            random: Random::new(seed),
            engine,
            sends: Vec::new(),
            sent: Vec::new(),
            recvs: Vec::new(),
            retired: Vec::new(),
            running: None,
            sequence: 0,
            steps: 0,
            returned: (0, 0),
            put_back: 0,
        }
    }

    fn id(&mut self) -> (MessageId, Operation) {
        let collective = self.random.chance(40);
        let operation = match (collective, self.random.chance(80)) {
            (false, _) => Operation::Send,
            (true, true) => Operation::Bcast,
            (true, false) => Operation::Reduce,
        };
        let context = self.random.pick(&CONTEXTS);
        let around = if collective { self.running.unwrap_or(0) } else { self.sequence };
        let sequence = (around + self.random.below(3) as u64).saturating_sub(1);
        let tag = self.random.below(self.steps as usize % 5 + 2) as i32;
        (MessageId { context, collective, sequence, tag }, operation)
    }

    /// The peer's next frame, with its payload.
    fn frame(&mut self) -> Vec<u8> {
        let (id, operation) = self.id();
        let kinds = [
            (Kind::Eager, 6),
            (Kind::Rts, 6),
            (Kind::Data, 5),
            (Kind::Cts, 6),
            (Kind::Cancel, 5),
            (Kind::Credit, 3),
            (Kind::Ack, 1),
        ];
        let all: Vec<Kind> = kinds.iter().flat_map(|(kind, times)| vec![*kind; *times]).collect();
        let kind = match self.random.below(150) {
            0 => Kind::Goodbye,
            1 => Kind::Abort,
            _ => self.random.pick(&all),
        };
        // Mostly about what is under way: a stray DATA frame ends the link.
        let aims = self.random.chance(95);
        let mut aim = (id, operation as u8, self.random.pick(&[1, 40, 9000]));
        let under_way = self.engine.under_way(1);
        let granted: Vec<_> = under_way.iter().filter(|(.., granted)| *granted).collect();
        let kind = if kind == Kind::Data && aims && granted.is_empty() { Kind::Rts } else { kind };
        match kind {
            Kind::Data if aims => {
                let (id, operation, missing, _) = *self.random.pick(&granted);
                aim = (id, operation, self.random.pick(&[missing, missing.div_ceil(2)]));
            }
            Kind::Cancel if aims && !under_way.is_empty() => {
                let (id, operation, ..) = self.random.pick(&under_way);
                aim = (id, operation, 0);
            }
            Kind::Cts if aims && !self.sent.is_empty() => {
                aim = (self.random.pick(&self.sent), Operation::Send as u8, 0);
            }
            _ => {}
        }
        let (id, operation, missing) = aim;
        let length = self.random.pick(&[0, 1, 40, 3000, 9000, CAPACITY, 70_000]);
        let part = self.random.between(0, length);
        let (length, inline) = match kind {
            Kind::Eager => (length, length),
            Kind::Rts if self.random.chance(2) => (isize::MAX as usize, 0),
            Kind::Rts => (length, self.random.pick(&[0, part, length])),
            Kind::Data => (missing.clamp(1, FRAGMENT_MAX), 0),
            _ => (0, 0),
        };
        let signature = u32::from(self.random.chance(5));
        let mut header = match kind {
            Kind::Abort => AbortNotice {
                context: id.context,
                cause: ErrorKind::Timeout,
                cause_rank: 1,
                about: None,
                code: 0,
                operation: Operation::Bcast as u8,
            }
            .header(),
            kind => Header::control(kind, operation, id)
                .with_algorithm(0, signature)
                .with_length(length as u64, inline as u32),
        };
        let (bytes, messages) = self.engine.spent_at(1);
        if self.random.chance(30) {
            self.returned.0 = self.returned.0.wrapping_add(self.random.between(0, bytes as usize) as u32);
            self.returned.1 = self.returned.1.wrapping_add(self.random.between(0, messages as usize) as u32);
        }
        header.set_credit(self.returned.0, self.returned.1);
        let mut frame = header.as_bytes().to_vec();
        let payload = if kind == Kind::Data { length } else { inline };
        frame.resize(HEADER_LEN + payload, 0x77);
        frame
    }

    fn act(&mut self) {
        match self.random.below(9) {
            0 | 1 => self.post_recv(),
            2 => self.post_send(),
            3 if !self.recvs.is_empty() => {
                let at = self.random.below(self.recvs.len());
                let (key, buffer, _) = self.recvs.swap_remove(at);
                self.engine.cancel_recv(key);
                self.put_back += CAPACITY as u64;
                self.retire(buffer);
            }
            4 if !self.sends.is_empty() => {
                let at = self.random.below(self.sends.len());
                let (key, buffer, _) = self.sends.swap_remove(at);
                self.engine.cancel_send(key);
                self.retire(buffer);
            }
            5 => self.poll(),
            6 => self.begin_or_end(),
            _ => self.write(),
        }
    }

    fn post_recv(&mut self) {
        let source = self.random.pick(&[Some(1), Some(1), Some(0), None]);
        let (mut id, operation) = self.id();
        let selector = match self.running {
            Some(sequence) if source.is_some() && self.random.chance(60) => {
                // Nobody waits twice for one step.
                self.steps += 1;
                id = MessageId { context: CONTEXTS[0], collective: true, sequence, tag: self.steps };
                Selector::Collective(Envelope { id, operation: operation as u8, algorithm: 0, signature: 0 })
            }
            _ => {
                let tag = self.random.chance(50).then_some(id.tag);
                Selector::PointToPoint { context: id.context, tag }
            }
        };
        let buffer = Buffer::filled_with(BLANK, self.random.pick(&[0, 40, 3000, CAPACITY]));
        let key = self.engine.post_recv(source, selector, buffer.pointer(), buffer.len());
        self.recvs.push((key, buffer, source));
    }

    fn post_send(&mut self) {
        let to = u32::from(self.random.chance(80));
        self.sequence += 1;
        let (mut id, operation) = (self.id().0, Operation::Send);
        (id.collective, id.sequence) = (false, self.sequence);
        let length = self.random.pick(&[0, 1, 40, 3000, 70_000]);
        let buffer = Buffer::filled_with(BLANK, length);
        let envelope = Envelope { id, operation: operation as u8, algorithm: 0, signature: 0 };
        if to == 1 {
            self.sent.push(id);
        }
        let key = self.engine.post_send(to, envelope, buffer.pointer(), length);
        self.sends.push((key, buffer, to));
    }

    fn poll(&mut self) {
        for (key, buffer, to) in std::mem::take(&mut self.sends) {
            match self.engine.poll_send(key) {
                Poll::Ready(_) => self.retire(buffer),
                Poll::Pending => self.sends.push((key, buffer, to)),
            }
        }
        for (key, buffer, source) in std::mem::take(&mut self.recvs) {
            match self.engine.poll_recv(key) {
                Poll::Ready(_) => self.retire(buffer),
                Poll::Pending => self.recvs.push((key, buffer, source)),
            }
        }
    }

    fn begin_or_end(&mut self) {
        let context = CONTEXTS[0];
        if self.running.take().is_none() {
            self.running = self.engine.begin_collective(context).ok();
            return;
        }
        let failure = self.random.chance(5).then(|| {
            let notice = AbortNotice {
                context,
                cause: ErrorKind::Timeout,
                cause_rank: 0,
                about: None,
                code: 0,
                operation: Operation::Bcast as u8,
            };
            (Error::new(ErrorKind::Timeout, "the deadline passed"), notice)
        });
        self.engine.end_collective(context, failure);
    }

    fn write(&mut self) {
        let Some(parts) = self.engine.output(1) else { return };
        let room: usize = parts.iter().map(|part| part.len()).sum();
        assert!(room > 0, "an empty frame");
        let count = self.random.between(0, room);
        self.engine.written(1, count);
    }

    fn retire(&mut self, mut buffer: Buffer) {
        buffer.check_guards();
        buffer.bytes_mut().fill(SCRIBBLE);
        self.retired.push(buffer);
    }

    fn hand_in(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut rest = bytes;
        if self.random.chance(50) {
            let landing = self.engine.landing(1);
            for (at, room) in landing.parts {
                let (here, beyond) = rest.split_at(rest.len().min(room));
                // SAFETY: the part has room for as much.
                unsafe { std::ptr::copy_nonoverlapping(here.as_ptr(), at, here.len()) };
                rest = beyond;
            }
            self.engine.landed(1, &landing, bytes.len() - rest.len())?;
        }
        self.engine.feed(1, rest)
    }

    /// Hands in a frame in pieces, and goes on with its own work in between.
    fn live_through(&mut self, frame: &[u8]) -> Result<(), Error> {
        let mut rest = frame;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.random.between(1, rest.len()));
            self.hand_in(now)?;
            rest = later;
            self.act();
            self.check();
        }
        Ok(())
    }

    fn check(&mut self) {
        let kept = self.engine.check_invariants().kept_bytes;
        let bound = LIMIT + 2 * u64::from(WINDOW_BYTES) + self.put_back;
        assert!(kept <= bound, "{kept} bytes are kept, more than {bound}");
    }
}

#[test]
fn well_formed_nonsense_does_no_harm() {
    for_each_seed(400, |seed| {
        let mut busy = Busy::new(seed);
        let mut refusal = None;
        // A fault of protocol ends the link: most frames must pass to get far.
        for _ in 0..busy.random.between(1, 60) {
            let frame = busy.frame();
            if let Err(error) = busy.live_through(&frame) {
                assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
                refusal = Some(error);
                break;
            }
        }
        let why = refusal.unwrap_or_else(|| Error::new(ErrorKind::PeerLost, "the connection broke"));
        busy.engine.link_closed(1, why);
        busy.check();
        assert!(busy.engine.output(1).is_none(), "output for a link that is closed");
        busy.poll();
        assert!(busy.sends.iter().all(|(_, _, to)| *to == 0), "a send waits for a rank that is lost");
        let waits = busy.recvs.iter().any(|(_, _, source)| *source == Some(1));
        assert!(!waits, "a receive waits for a rank that is lost");
        for _ in 0..30 {
            busy.act();
            busy.check();
        }
        for (key, buffer, _) in std::mem::take(&mut busy.recvs) {
            busy.engine.cancel_recv(key);
            busy.retire(buffer);
        }
        for (key, buffer, _) in std::mem::take(&mut busy.sends) {
            busy.engine.cancel_send(key);
            busy.retire(buffer);
        }
        let census = busy.engine.check_invariants();
        assert_eq!((census.sends, census.recvs), (0, 0));
        for buffer in &busy.retired {
            buffer.check_guards();
            assert!(is_all(SCRIBBLE, buffer.bytes()), "a retired buffer was written to");
        }
    });
}

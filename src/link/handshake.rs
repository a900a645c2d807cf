//! The handshake on a new connection between two ranks, without a socket.
//!
//! Each side says hello (who it is, whom it wants, the epoch, a nonce) and then
//! proves by an HMAC over both hellos that it belongs to the epoch, and knows
//! the job's secret where there is one. The connecting side speaks first: a
//! stranger that connects learns nothing. The higher rank proves itself first;
//! the lower rank's proof is its decision for this connection.
//!
//! | flight | lower rank connects to higher | higher rank connects to lower |
//! |---|---|---|
//! | 1 | lower: hello | higher: hello |
//! | 2 | higher: hello, filler, proof | lower: hello, filler |
//! | 3 | lower: filler, proof | higher: filler, proof |
//! | 4 | | lower: proof |
//!
//! Both may also connect to each other at once (the simultaneous open of TCP):
//! then each says hello unasked.
//!
//! The filler is 64 KiB each way. It is sent where the path leaves the host:
//! on one cloud connections were seen to stall after 16 to 64 KiB. A side proves
//! itself only once it has all of the other's filler, so that the lower rank's
//! decision comes after a proof that both directions carry.
//!
//! A pair may have several connections under way. The lower rank decides for one
//! of them ([`Handshake::decide`]), and the higher rank takes the one that it is
//! sent the decision on.

use hmac::Mac;

use crate::engine::frame::FRAME_VERSION;
use crate::error::{Error, ErrorKind, Result};
use crate::proof::transcript;

const MAGIC: [u8; 8] = *b"FMI link";
const HELLO_LEN: usize = 64;
const PROOF_LEN: usize = 32;

/// Where the hello says whether its side wants the path to be tried.
const FLAGS: usize = 57;
const WANTS_FILLER: u8 = 1;

/// What is sent each way over a path that is to be tried: connections were seen
/// to stall after as much.
const FILLER_LEN: usize = 64 << 10;

/// A piece of filler: no path can make it shorter.
static FILLER: [u8; 8 << 10] = noise();

/// What a rank shows on every connection.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) rank: u32,
    pub(crate) size: u32,
    pub(crate) epoch: [u8; 16],
    /// Fingerprint of the configuration that all ranks must share.
    pub(crate) fingerprint: u64,
    pub(crate) secret: Vec<u8>,
}

type Hello = [u8; HELLO_LEN];

/// One connection's handshake.
pub(crate) struct Handshake {
    identity: Identity,
    peer: Option<u32>,
    own: Option<Hello>,
    other: Option<Hello>,
    leaves_host: bool,
    filler_to_send: usize,
    filler_to_come: usize,
    proven: bool,
    sent_proof: bool,
    incoming: Vec<u8>,
    /// The hello, before the filler.
    hello: Vec<u8>,
    /// The proof, after it.
    proof: Vec<u8>,
}

impl Handshake {
    /// The side that connects, to `peer`. `leaves_host`: the path is to be tried.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the kernel gives no random bytes.
    pub(crate) fn connecting(identity: Identity, peer: u32, leaves_host: bool) -> Result<Self> {
        let mut handshake = Self::accepting(identity, leaves_host);
        handshake.peer = Some(peer);
        handshake.say_hello(peer)?;
        Ok(handshake)
    }

    /// The side that was connected to, by it does not know whom.
    pub(crate) fn accepting(identity: Identity, leaves_host: bool) -> Self {
        Self {
            identity,
            peer: None,
            own: None,
            other: None,
            leaves_host,
            filler_to_send: 0,
            filler_to_come: 0,
            proven: false,
            sent_proof: false,
            incoming: Vec::new(),
            hello: Vec::new(),
            proof: Vec::new(),
        }
    }

    /// The rank at the other end, as far as it has said.
    pub(crate) fn peer(&self) -> Option<u32> {
        self.peer
    }

    /// Whether the other side has said who it is.
    pub(crate) fn is_introduced(&self) -> bool {
        self.other.is_some()
    }

    /// What is to be sent next.
    pub(crate) fn outgoing(&self) -> &[u8] {
        match (self.hello.is_empty(), self.filler_to_send) {
            (false, _) => &self.hello,
            (true, 0) => &self.proof,
            (true, left) => &FILLER[..left.min(FILLER.len())],
        }
    }

    /// The first `count` bytes of it were sent.
    pub(crate) fn advance(&mut self, count: usize) {
        match (self.hello.is_empty(), self.filler_to_send) {
            (false, _) => drop(self.hello.drain(..count)),
            (true, 0) => drop(self.proof.drain(..count)),
            (true, _) => self.filler_to_send -= count,
        }
    }

    /// How many bytes may be read: what comes behind the handshake is not ours.
    pub(crate) fn wanted(&self) -> usize {
        match (&self.other, self.filler_to_come) {
            (None, _) => HELLO_LEN - self.incoming.len(),
            (Some(_), 0) if self.proven => 0,
            (Some(_), 0) => PROOF_LEN - self.incoming.len(),
            (Some(_), left) => left,
        }
    }

    /// Takes what was read, at most [`wanted`](Self::wanted) bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] for a stranger, [`ErrorKind::Auth`] for one
    /// without the secret, [`ErrorKind::Mismatch`] for a rank with another
    /// configuration.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<()> {
        if self.filler_to_come > 0 {
            self.filler_to_come -= bytes.len();
            if self.filler_to_come == 0 {
                self.prove_as_higher();
            }
            return Ok(());
        }
        self.incoming.extend_from_slice(bytes);
        if self.other.is_none() {
            let Ok(hello) = Hello::try_from(&self.incoming[..]) else { return Ok(()) };
            self.incoming.clear();
            return self.receive_hello(hello);
        }
        if self.incoming.len() < PROOF_LEN {
            return Ok(());
        }
        let proof = std::mem::take(&mut self.incoming);
        let peer = self.peer.expect("the hello named it");
        let (own, other) = self.hellos();
        if proof_of(&self.identity.secret, other, own).verify_slice(&proof).is_err() {
            let text = format!("rank {peer} does not prove that it knows the job's secret");
            return Err(Error::new(ErrorKind::Auth, text).with_peer(peer));
        }
        self.proven = true;
        Ok(())
    }

    /// Whether this is the lower rank, and could decide for this connection.
    pub(crate) fn may_decide(&self) -> bool {
        self.proven && !self.sent_proof
    }

    /// The lower rank decides for this connection, among those to the peer.
    pub(crate) fn decide(&mut self) {
        debug_assert!(self.may_decide());
        self.prove();
    }

    /// Whether the connection is a link: both sides have proven themselves, and
    /// all of ours is sent.
    pub(crate) fn is_finished(&self) -> bool {
        self.proven && self.sent_proof && self.outgoing().is_empty()
    }

    fn receive_hello(&mut self, hello: Hello) -> Result<()> {
        let stranger = |text: String| Err(Error::new(ErrorKind::Protocol, text));
        let (from, to) = (number(&hello[8..12]), number(&hello[12..16]));
        if hello[..8] != MAGIC {
            return stranger("something that is not an FMI rank connected".into());
        }
        if hello[16..32] != self.identity.epoch {
            return stranger(format!("rank {from} of another run connected"));
        }
        if to != self.identity.rank || from >= self.identity.size || from == to {
            return stranger(format!("rank {from} looks for rank {to} here"));
        }
        if self.peer.is_some_and(|peer| peer != from) {
            return stranger(format!("rank {from} answers in another's place"));
        }
        if hello[56] != FRAME_VERSION {
            return stranger(format!("rank {from} speaks version {} of the frame format", hello[56]));
        }
        if hello[48..56] != self.identity.fingerprint.to_le_bytes() {
            let text = format!("rank {from} has another configuration: model, channels or function memory");
            return Err(Error::new(ErrorKind::Mismatch, text).with_peer(from));
        }
        self.peer = Some(from);
        self.other = Some(hello);
        if self.own.is_none() {
            self.say_hello(from)?;
        }
        if self.leaves_host || hello[FLAGS] & WANTS_FILLER != 0 {
            self.filler_to_send = FILLER_LEN;
            self.filler_to_come = FILLER_LEN;
        } else {
            self.prove_as_higher();
        }
        Ok(())
    }

    fn say_hello(&mut self, peer: u32) -> Result<()> {
        let mut hello = [0; HELLO_LEN];
        hello[..8].copy_from_slice(&MAGIC);
        hello[8..12].copy_from_slice(&self.identity.rank.to_le_bytes());
        hello[12..16].copy_from_slice(&peer.to_le_bytes());
        hello[16..32].copy_from_slice(&self.identity.epoch);
        getrandom::fill(&mut hello[32..48])
            .map_err(|error| Error::new(ErrorKind::Io, format!("cannot get random bytes: {error}")))?;
        hello[48..56].copy_from_slice(&self.identity.fingerprint.to_le_bytes());
        hello[56] = FRAME_VERSION;
        hello[FLAGS] = if self.leaves_host { WANTS_FILLER } else { 0 };
        self.hello.extend_from_slice(&hello);
        self.own = Some(hello);
        Ok(())
    }

    /// The higher rank proves itself first.
    fn prove_as_higher(&mut self) {
        if self.peer.is_some_and(|peer| self.identity.rank > peer) {
            self.prove();
        }
    }

    fn prove(&mut self) {
        let (own, other) = self.hellos();
        let proof = proof_of(&self.identity.secret, own, other).finalize().into_bytes();
        self.proof.extend_from_slice(&proof);
        self.sent_proof = true;
    }

    fn hellos(&self) -> (&Hello, &Hello) {
        let both = "proofs follow the hellos";
        (self.own.as_ref().expect(both), self.other.as_ref().expect(both))
    }
}

/// The proof of the side that said `own`. The hellos name both ranks: one
/// side's proof is never the other's.
fn proof_of(secret: &[u8], own: &Hello, other: &Hello) -> hmac::Hmac<sha2::Sha256> {
    transcript(secret, &[b"FMI link proof", own, other])
}

/// Bytes without a pattern that a compressing path would find (xorshift64,
/// Marsaglia 2003).
const fn noise() -> [u8; 8 << 10] {
    let mut bytes = [0; 8 << 10];
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut at = 0;
    while at < bytes.len() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes[at] = state as u8;
        at += 1;
    }
    bytes
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(rank: u32, secret: &[u8]) -> Identity {
        Identity { rank, size: 4, epoch: [7; 16], fingerprint: 9, secret: secret.to_vec() }
    }

    /// Moves bytes one at a time until nothing moves or one side fails; who can
    /// decide does.
    fn run(a: &mut Handshake, b: &mut Handshake) -> Result<()> {
        loop {
            let mut moved = false;
            for _ in 0..2 {
                while !a.outgoing().is_empty() && b.wanted() > 0 {
                    let byte = a.outgoing()[0];
                    a.advance(1);
                    b.receive(&[byte])?;
                    moved = true;
                }
                if a.may_decide() {
                    a.decide();
                    moved = true;
                }
                std::mem::swap(a, b);
            }
            if !moved {
                return Ok(());
            }
        }
    }

    #[test]
    fn either_side_may_connect() {
        for (from, to) in [(1, 2), (2, 1), (0, 3)] {
            for (a_leaves, b_leaves) in [(false, false), (true, false), (false, true), (true, true)] {
                let mut a = Handshake::connecting(identity(from, b"secret"), to, a_leaves).unwrap();
                let mut b = Handshake::accepting(identity(to, b"secret"), b_leaves);
                run(&mut a, &mut b).unwrap();
                assert!(a.is_finished() && b.is_finished());
                assert_eq!((a.peer(), b.peer()), (Some(to), Some(from)));
                assert_eq!((a.wanted(), b.wanted()), (0, 0));
            }
        }
    }

    /// Neither rank takes a connection for good that does not carry 64 KiB.
    #[test]
    fn a_path_that_stalls_is_no_link() {
        for from_lower in [true, false] {
            let mut lower = Handshake::connecting(identity(1, b""), 2, true).unwrap();
            let mut higher = Handshake::accepting(identity(2, b""), true);
            let mut budget = HELLO_LEN + FILLER_LEN - 1;
            loop {
                let mut moved = false;
                for is_lower in [true, false] {
                    let (from, to) =
                        if is_lower { (&mut lower, &mut higher) } else { (&mut higher, &mut lower) };
                    let limit = if is_lower == from_lower { budget } else { usize::MAX };
                    let count = from.outgoing().len().min(to.wanted()).min(limit);
                    if count > 0 {
                        let bytes = from.outgoing()[..count].to_vec();
                        from.advance(count);
                        to.receive(&bytes).unwrap();
                        budget -= if is_lower == from_lower { count } else { 0 };
                        moved = true;
                    }
                }
                if !moved {
                    break;
                }
            }
            assert_eq!(budget, 0);
            assert!(!lower.may_decide() && !lower.is_finished() && !higher.is_finished());
        }
    }

    /// Of two good connections the higher rank takes the one decided for.
    #[test]
    fn the_lower_rank_decides() {
        let mut connections: Vec<_> = (0..2)
            .map(|_| {
                let a = Handshake::connecting(identity(2, b""), 1, false).unwrap();
                (a, Handshake::accepting(identity(1, b""), false))
            })
            .collect();
        for (higher, lower) in &mut connections {
            for _ in 0..3 {
                let bytes = higher.outgoing().to_vec();
                higher.advance(bytes.len());
                bytes.chunks(32).for_each(|bytes| lower.receive(bytes).unwrap());
                let bytes = lower.outgoing().to_vec();
                lower.advance(bytes.len());
                bytes.chunks(32).for_each(|bytes| higher.receive(bytes).unwrap());
            }
            assert!(lower.may_decide() && !lower.is_finished() && !higher.is_finished());
        }
        let (higher, lower) = &mut connections[1];
        lower.decide();
        run(higher, lower).unwrap();
        assert!(higher.is_finished() && lower.is_finished());
        assert!(!connections[0].0.is_finished());
    }

    #[test]
    fn both_may_connect_at_once() {
        let mut a = Handshake::connecting(identity(1, b""), 2, false).unwrap();
        let mut b = Handshake::connecting(identity(2, b""), 1, false).unwrap();
        run(&mut a, &mut b).unwrap();
        assert!(a.is_finished() && b.is_finished());
    }

    fn fails_with(a: Identity, to: u32, b: Identity) -> ErrorKind {
        let mut a = Handshake::connecting(a, to, false).unwrap();
        let mut b = Handshake::accepting(b, false);
        let error = run(&mut a, &mut b).unwrap_err();
        assert!(!a.is_finished() && !b.is_finished());
        error.kind()
    }

    #[test]
    fn strangers_are_told_apart() {
        let right = || identity(1, b"secret");
        let other = |change: fn(&mut Identity)| {
            let mut identity = identity(2, b"secret");
            change(&mut identity);
            identity
        };
        assert_eq!(fails_with(right(), 2, identity(2, b"wrong")), ErrorKind::Auth);
        assert_eq!(fails_with(right(), 2, other(|id| id.epoch = [8; 16])), ErrorKind::Protocol);
        assert_eq!(fails_with(right(), 2, other(|id| id.fingerprint = 1)), ErrorKind::Mismatch);
        assert_eq!(fails_with(right(), 3, identity(2, b"secret")), ErrorKind::Protocol);
        assert_eq!(fails_with(identity(9, b"secret"), 2, identity(2, b"secret")), ErrorKind::Protocol);
    }

    #[test]
    fn garbage_is_refused_and_gets_no_answer() {
        let mut b = Handshake::accepting(identity(2, b"secret"), false);
        assert_eq!(b.receive(&[b'G'; HELLO_LEN]).unwrap_err().kind(), ErrorKind::Protocol);
        assert!(b.outgoing().is_empty());
    }

    #[test]
    fn a_reflected_proof_proves_nothing() {
        let mut b = Handshake::accepting(identity(2, b"secret"), false);
        let mut hello = Handshake::connecting(identity(1, b"guess"), 2, false).unwrap().outgoing().to_vec();
        hello.truncate(HELLO_LEN);
        b.receive(&hello).unwrap();
        b.advance(HELLO_LEN);
        let proof = b.outgoing().to_vec();
        assert_eq!(b.receive(&proof).unwrap_err().kind(), ErrorKind::Auth);
    }
}

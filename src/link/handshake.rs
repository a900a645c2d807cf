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
//! | 2 | higher: hello, proof | lower: hello |
//! | 3 | lower: proof | higher: proof |
//! | 4 | | lower: proof |

use hmac::Mac;

use crate::engine::frame::FRAME_VERSION;
use crate::error::{Error, ErrorKind, Result};
use crate::proof::transcript;

const MAGIC: [u8; 8] = *b"FMI link";
const HELLO_LEN: usize = 64;
const PROOF_LEN: usize = 32;

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
    proven: bool,
    sent_proof: bool,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl Handshake {
    /// The side that connects, to `peer`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the kernel gives no random bytes.
    pub(crate) fn connecting(identity: Identity, peer: u32) -> Result<Self> {
        let mut handshake = Self::accepting(identity);
        handshake.peer = Some(peer);
        handshake.say_hello(peer)?;
        Ok(handshake)
    }

    /// The side that was connected to, by it does not know whom.
    pub(crate) fn accepting(identity: Identity) -> Self {
        Self {
            identity,
            peer: None,
            own: None,
            other: None,
            proven: false,
            sent_proof: false,
            incoming: Vec::new(),
            outgoing: Vec::new(),
        }
    }

    /// The rank at the other end, as far as it has said.
    pub(crate) fn peer(&self) -> Option<u32> {
        self.peer
    }

    /// What is to be sent.
    pub(crate) fn outgoing(&self) -> &[u8] {
        &self.outgoing
    }

    /// The first `count` bytes of it were sent.
    pub(crate) fn advance(&mut self, count: usize) {
        self.outgoing.drain(..count);
    }

    /// How many bytes may be read: what comes behind the handshake is not ours.
    pub(crate) fn wanted(&self) -> usize {
        let total = if self.other.is_none() { HELLO_LEN } else { PROOF_LEN };
        if self.proven { 0 } else { total - self.incoming.len() }
    }

    /// Takes what was read, at most [`wanted`](Self::wanted) bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] for a stranger, [`ErrorKind::Auth`] for one
    /// without the secret, [`ErrorKind::Mismatch`] for a rank with another
    /// configuration.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<()> {
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
        self.prove();
        Ok(())
    }

    /// Whether the connection is a link: both sides have proven themselves, and
    /// all of ours is sent.
    pub(crate) fn is_finished(&self) -> bool {
        self.proven && self.sent_proof && self.outgoing.is_empty()
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
        if self.identity.rank > from {
            self.prove();
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
        self.outgoing.extend_from_slice(&hello);
        self.own = Some(hello);
        Ok(())
    }

    fn prove(&mut self) {
        if !std::mem::replace(&mut self.sent_proof, true) {
            let (own, other) = self.hellos();
            let proof = proof_of(&self.identity.secret, own, other).finalize().into_bytes();
            self.outgoing.extend_from_slice(&proof);
        }
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

fn number(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(rank: u32, secret: &[u8]) -> Identity {
        Identity { rank, size: 4, epoch: [7; 16], fingerprint: 9, secret: secret.to_vec() }
    }

    /// Moves bytes one at a time until nothing moves or one side fails.
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
            let mut a = Handshake::connecting(identity(from, b"secret"), to).unwrap();
            let mut b = Handshake::accepting(identity(to, b"secret"));
            run(&mut a, &mut b).unwrap();
            assert!(a.is_finished() && b.is_finished());
            assert_eq!((a.peer(), b.peer()), (Some(to), Some(from)));
            assert_eq!((a.wanted(), b.wanted()), (0, 0));
        }
    }

    #[test]
    fn both_may_connect_at_once() {
        let mut a = Handshake::connecting(identity(1, b""), 2).unwrap();
        let mut b = Handshake::connecting(identity(2, b""), 1).unwrap();
        run(&mut a, &mut b).unwrap();
        assert!(a.is_finished() && b.is_finished());
    }

    fn fails_with(a: Identity, to: u32, b: Identity) -> ErrorKind {
        let mut a = Handshake::connecting(a, to).unwrap();
        let mut b = Handshake::accepting(b);
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
        let mut b = Handshake::accepting(identity(2, b"secret"));
        assert_eq!(b.receive(&[b'G'; HELLO_LEN]).unwrap_err().kind(), ErrorKind::Protocol);
        assert!(b.outgoing().is_empty());
    }

    #[test]
    fn a_reflected_proof_proves_nothing() {
        let mut b = Handshake::accepting(identity(2, b"secret"));
        let mut hello = Handshake::connecting(identity(1, b"guess"), 2).unwrap().outgoing().to_vec();
        hello.truncate(HELLO_LEN);
        b.receive(&hello).unwrap();
        let proof = b.outgoing()[HELLO_LEN..].to_vec();
        assert_eq!(b.receive(&proof).unwrap_err().kind(), ErrorKind::Auth);
    }
}

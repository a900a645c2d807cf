//! The rendezvous protocol, version 2: what stands on the wire.
//!
//! Each side first sends a preamble: eight bytes of [`MAGIC`], the major and
//! the minor version, sixteen random bytes. After it come frames: the length of
//! what follows (u16), the kind (u8), the body; all numbers are little-endian. A
//! frame of a kind that a newer minor version added is skipped by its length; a
//! known frame is decoded strictly, to its last byte. Until the join is answered a
//! frame has at most [`MAX_FRAME_EARLY`] bytes, after that [`MAX_FRAME`].
//!
//! ```text
//! client                                   server
//! preamble, Hello{nonce}             ->
//!                                    <-    preamble, Challenge{nonce, secret known, secret required}
//! Join{job, rank, size, ..., mac}    ->                              (or Rejoin)
//!                                    <-    Joined{public address, epoch, token, ..., mac}   or Refused
//! Connect{rank}, Ready{rank}         ->
//!                                    <-    Offer{rank}, Go{rank, addresses}, NotYet, Unreachable
//!                                    <-    Suspect{rank}
//! Link{rank, alive}                  ->
//! Abort{notice}                      ->
//!                                    <-    Aborted{rank, notice}
//! Leave                              ->
//! ```
//!
//! The end of a member's connection is not its death as long as another has a
//! live link to it. The server asks those that it has told to connect to it
//! (Suspect), and they answer (Link); a member whose link breaks says so unasked.
//!
//! A rank that joins a restarted server before those that know the run have come
//! back opens another. When the first of them comes back, it is told (Moved), as
//! long as no GO was given in its own.
//!
//! Where there is a job secret, both sides prove that they know it
//! ([`proof`]) over both nonces and everything that the
//! join and its answer say; the secret itself is never sent. What follows the
//! join is not authenticated frame by frame: who can write into the connection
//! can disturb a job, but not become a member of it, because peers prove the
//! secret to each other again on their link.

mod decoder;
mod fields;
pub(crate) mod proof;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use sha2::{Digest, Sha256};

use decoder::frame;
pub(crate) use decoder::{Decoder, Frame};
use fields::{
    Reader, put_addresses, put_join, put_joined, put_membership, put_notice, put_option, put_text, put_u32,
};

use crate::engine::frame::AbortNotice;
use crate::error::{Error, ErrorKind, Result};

/// The first bytes of each side. A server of protocol 1 answers with an IPv4
/// address, which never begins with 0xf5, and its clients send names, which in
/// UTF-8 never do either.
pub(crate) const MAGIC: [u8; 8] = *b"\xf5FMI\r\nrv";
/// Another major version cannot be understood.
pub(crate) const MAJOR: u8 = 2;
/// A newer minor version only adds kinds of frames.
pub(crate) const MINOR: u8 = 1;
/// Bytes of the preamble: magic, versions, and sixteen that are others each time
/// and never zero. A server of protocol 1 takes what a client says first for the
/// name of a pair, some only to the first zero byte, and must never find two
/// clients that say the same.
pub(crate) const PREAMBLE: usize = MAGIC.len() + 2 + size_of::<Nonce>();

/// The longest frame, length field included, until the join is answered.
pub(crate) const MAX_FRAME_EARLY: usize = 512;
/// The longest frame after that.
pub(crate) const MAX_FRAME: usize = 4096;

/// In a join: the server shall choose the rank. Reserved, not yet served.
pub(crate) const RANK_ANY: u32 = u32::MAX;
/// The largest job. An endpoint keeps a few hundred bytes for each rank, and what a
/// member may make the server remember grows with the size that it claims.
pub(crate) const MAX_SIZE: u32 = 1 << 16;
/// The most private addresses that a join may name.
pub(crate) const MAX_PRIVATE: usize = 4;
/// The most addresses in a GO: the private ones, the public one, and room for
/// what later versions learn on the way.
pub(crate) const MAX_CANDIDATES: usize = 8;
/// The longest text, in bytes.
pub(crate) const MAX_TEXT: usize = 256;

pub(crate) type Nonce = [u8; 16];
pub(crate) type Epoch = [u8; 16];
pub(crate) type Token = [u8; 16];
pub(crate) type Hash = [u8; 32];

/// What a rank says of itself when it joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Join {
    /// [`hash`] of the job's name: the name itself stays at home.
    pub(crate) job: Hash,
    /// [`hash`] of the job id, where one was given.
    pub(crate) job_id: Option<Hash>,
    pub(crate) rank: u32,
    pub(crate) size: u32,
    /// The same for two ranks exactly if they share a host.
    pub(crate) host_id: u64,
    /// Of the configuration that all ranks must agree on.
    pub(crate) fingerprint: u64,
    /// The addresses by which ranks of the same private network reach it.
    pub(crate) private: Vec<SocketAddr>,
}

/// A membership that a broken connection interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) epoch: Epoch,
    pub(crate) token: Token,
}

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClientMessage {
    Hello { nonce: Nonce },
    Join { join: Join, mac: Option<Hash> },
    Rejoin { join: Join, membership: Membership, mac: Option<Hash> },
    Connect { rank: u32 },
    Ready { rank: u32 },
    Link { rank: u32, alive: bool },
    Leave,
    Abort { notice: AbortNotice },
}

/// The server's answer to a join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) rank: u32,
    /// The client's address as the server sees it.
    pub(crate) public: SocketAddr,
    pub(crate) membership: Membership,
    /// Members on the client's host, itself included, so far.
    pub(crate) ranks_on_host: u32,
}

/// Why a server refuses a client. Codes that a newer version adds are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    RankTaken,
    Mismatch,
    Auth,
    Protocol,
    /// The server has no room.
    Full,
    /// This server cannot do what is asked.
    Unsupported,
    /// The membership is over: the server declared the rank lost, or the rank
    /// had left.
    Gone,
    Other(u8),
}

/// Why a peer will not come any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It left in order.
    Left,
    /// Its connection to the server broke, and nobody has a link to it.
    Lost,
    /// Its launcher says that its process has ended.
    Ended,
}

/// What is still missing before a connect can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The peer has not joined the job.
    NotJoined,
    /// The peer has joined, but has not entered an FMI call since.
    NotReady,
}

/// What a server sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerMessage {
    Challenge { nonce: Nonce, secret_known: bool, secret_required: bool, version: String },
    Joined { joined: Joined, mac: Option<Hash> },
    Refused { refusal: Refusal, text: String },
    Offer { rank: u32 },
    Go { rank: u32, ranks_on_host: u32, candidates: Vec<SocketAddr> },
    Unreachable { rank: u32, reason: Reason },
    NotYet { rank: u32, missing: Missing },
    Suspect { rank: u32 },
    Moved { epoch: Epoch },
    Aborted { rank: u32, notice: AbortNotice },
}

mod kind {
    pub(super) const HELLO: u8 = 0x01;
    pub(super) const JOIN: u8 = 0x02;
    pub(super) const REJOIN: u8 = 0x03;
    pub(super) const CONNECT: u8 = 0x04;
    pub(super) const READY: u8 = 0x05;
    pub(super) const LEAVE: u8 = 0x06;
    pub(super) const ABORT: u8 = 0x07;
    pub(super) const LINK: u8 = 0x08;
    pub(super) const CHALLENGE: u8 = 0x81;
    pub(super) const JOINED: u8 = 0x82;
    pub(super) const REFUSED: u8 = 0x83;
    pub(super) const OFFER: u8 = 0x84;
    pub(super) const GO: u8 = 0x85;
    pub(super) const UNREACHABLE: u8 = 0x86;
    pub(super) const NOT_YET: u8 = 0x87;
    pub(super) const ABORTED: u8 = 0x88;
    pub(super) const SUSPECT: u8 = 0x89;
    pub(super) const MOVED: u8 = 0x8a;
}

/// SHA-256, by which names travel.
pub(crate) fn hash(text: &str) -> Hash {
    Sha256::digest(text.as_bytes()).into()
}

/// Whether `address` may stand among the private addresses of a join: nobody
/// shall be able to point the ranks of a job at a stranger's host.
pub(crate) fn is_private(address: &SocketAddr) -> bool {
    let private = match address.ip() {
        IpAddr::V4(ip) => {
            // 100.64.0.0/10 is RFC 6598's space for carrier-grade NAT.
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            ip.is_private() || ip.is_loopback() || shared
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback(),
    };
    private && address.port() != 0
}

/// Appends the preamble to `out`; `nonce` is its side's.
pub(crate) fn put_preamble(out: &mut Vec<u8>, nonce: &Nonce) {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[MAJOR, MINOR]);
    out.extend_from_slice(&nonce.map(|byte| byte | 1));
}

impl ClientMessage {
    /// Appends the frame to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello { nonce } => frame(out, kind::HELLO, |out| out.extend_from_slice(nonce)),
            Self::Join { join, mac } => frame(out, kind::JOIN, |out| {
                put_join(out, join);
                put_option(out, mac.as_ref());
            }),
            Self::Rejoin { join, membership, mac } => frame(out, kind::REJOIN, |out| {
                put_join(out, join);
                put_membership(out, membership);
                put_option(out, mac.as_ref());
            }),
            Self::Connect { rank } => frame(out, kind::CONNECT, |out| put_u32(out, *rank)),
            Self::Ready { rank } => frame(out, kind::READY, |out| put_u32(out, *rank)),
            Self::Link { rank, alive } => frame(out, kind::LINK, |out| {
                put_u32(out, *rank);
                out.push(u8::from(*alive));
            }),
            Self::Leave => frame(out, kind::LEAVE, |_| {}),
            Self::Abort { notice } => frame(out, kind::ABORT, |out| put_notice(out, notice)),
        }
    }

    /// The message in a frame; `None` if its kind is not known.
    pub(crate) fn decode(frame: &Frame<'_>) -> Result<Option<Self>> {
        let mut body = Reader(frame.body);
        let message = match frame.kind {
            kind::HELLO => Self::Hello { nonce: body.array()? },
            kind::JOIN => Self::Join { join: body.join()?, mac: body.option()? },
            kind::REJOIN => {
                Self::Rejoin { join: body.join()?, membership: body.membership()?, mac: body.option()? }
            }
            kind::CONNECT => Self::Connect { rank: body.u32()? },
            kind::READY => Self::Ready { rank: body.u32()? },
            kind::LINK => Self::Link { rank: body.u32()?, alive: body.bool()? },
            kind::LEAVE => Self::Leave,
            kind::ABORT => Self::Abort { notice: body.notice()? },
            _ => return Ok(None),
        };
        body.end()?;
        Ok(Some(message))
    }
}

impl ServerMessage {
    /// Appends the frame to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Challenge { nonce, secret_known, secret_required, version } => {
                frame(out, kind::CHALLENGE, |out| {
                    out.extend_from_slice(nonce);
                    out.push(u8::from(*secret_known) | u8::from(*secret_required) << 1);
                    put_text(out, version);
                });
            }
            Self::Joined { joined, mac } => frame(out, kind::JOINED, |out| {
                put_joined(out, joined);
                put_option(out, mac.as_ref());
            }),
            Self::Refused { refusal, text } => frame(out, kind::REFUSED, |out| {
                out.push(refusal.code());
                put_text(out, text);
            }),
            Self::Offer { rank } => frame(out, kind::OFFER, |out| put_u32(out, *rank)),
            Self::Go { rank, ranks_on_host, candidates } => frame(out, kind::GO, |out| {
                put_u32(out, *rank);
                put_u32(out, *ranks_on_host);
                put_addresses(out, candidates);
            }),
            Self::Unreachable { rank, reason } => frame(out, kind::UNREACHABLE, |out| {
                put_u32(out, *rank);
                out.push(match reason {
                    Reason::Left => 1,
                    Reason::Lost => 2,
                    Reason::Ended => 3,
                });
            }),
            Self::NotYet { rank, missing } => frame(out, kind::NOT_YET, |out| {
                put_u32(out, *rank);
                out.push(match missing {
                    Missing::NotJoined => 1,
                    Missing::NotReady => 2,
                });
            }),
            Self::Suspect { rank } => frame(out, kind::SUSPECT, |out| put_u32(out, *rank)),
            Self::Moved { epoch } => frame(out, kind::MOVED, |out| out.extend_from_slice(epoch)),
            Self::Aborted { rank, notice } => frame(out, kind::ABORTED, |out| {
                put_u32(out, *rank);
                put_notice(out, notice);
            }),
        }
    }

    /// The message in a frame; `None` if its kind is not known.
    pub(crate) fn decode(frame: &Frame<'_>) -> Result<Option<Self>> {
        let mut body = Reader(frame.body);
        let message = match frame.kind {
            kind::CHALLENGE => {
                let nonce = body.array()?;
                let flags = body.u8()?;
                if flags > 3 {
                    return Err(malformed("unknown flags in a challenge"));
                }
                let (secret_known, secret_required) = (flags & 1 != 0, flags & 2 != 0);
                Self::Challenge { nonce, secret_known, secret_required, version: body.text()? }
            }
            kind::JOINED => Self::Joined { joined: body.joined()?, mac: body.option()? },
            kind::REFUSED => Self::Refused { refusal: Refusal::from_code(body.u8()?), text: body.text()? },
            kind::OFFER => Self::Offer { rank: body.u32()? },
            kind::GO => Self::Go {
                rank: body.u32()?,
                ranks_on_host: body.u32()?,
                candidates: body.addresses(MAX_CANDIDATES)?,
            },
            kind::UNREACHABLE => {
                let rank = body.u32()?;
                let reason = match body.u8()? {
                    1 => Reason::Left,
                    2 => Reason::Lost,
                    3 => Reason::Ended,
                    _ => return Err(malformed("unknown reason why a peer is unreachable")),
                };
                Self::Unreachable { rank, reason }
            }
            kind::NOT_YET => {
                let rank = body.u32()?;
                let missing = match body.u8()? {
                    1 => Missing::NotJoined,
                    2 => Missing::NotReady,
                    _ => return Err(malformed("unknown reason why a peer is not there yet")),
                };
                Self::NotYet { rank, missing }
            }
            kind::SUSPECT => Self::Suspect { rank: body.u32()? },
            kind::MOVED => Self::Moved { epoch: body.array()? },
            kind::ABORTED => Self::Aborted { rank: body.u32()?, notice: body.notice()? },
            _ => return Ok(None),
        };
        body.end()?;
        Ok(Some(message))
    }
}

impl Refusal {
    fn code(self) -> u8 {
        match self {
            Self::RankTaken => 1,
            Self::Mismatch => 2,
            Self::Auth => 3,
            Self::Protocol => 4,
            Self::Full => 5,
            Self::Unsupported => 6,
            Self::Gone => 7,
            Self::Other(code) => code,
        }
    }

    fn from_code(code: u8) -> Self {
        match code {
            1 => Self::RankTaken,
            2 => Self::Mismatch,
            3 => Self::Auth,
            4 => Self::Protocol,
            5 => Self::Full,
            6 => Self::Unsupported,
            7 => Self::Gone,
            code => Self::Other(code),
        }
    }

    /// The kind of error that the refused client reports.
    pub(crate) fn error_kind(self) -> ErrorKind {
        match self {
            Self::RankTaken => ErrorKind::RankTaken,
            Self::Mismatch => ErrorKind::Mismatch,
            Self::Auth => ErrorKind::Auth,
            Self::Full | Self::Gone => ErrorKind::Connect,
            Self::Unsupported => ErrorKind::Unsupported,
            Self::Protocol | Self::Other(_) => ErrorKind::Protocol,
        }
    }
}

fn malformed(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Protocol, format!("malformed rendezvous message: {what}"))
}

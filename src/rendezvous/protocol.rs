//! The rendezvous protocol, version 2: what stands on the wire.
//!
//! Each side first sends a preamble: eight bytes of [`MAGIC`], the major and
//! the minor version, sixteen random bytes. After it come frames: the length of what follows (u16),
//! the kind (u8), the body; all numbers are little-endian. A frame of a kind
//! that a newer minor version added is skipped by its length; a known frame is
//! decoded strictly, to its last byte. Until the join is answered a frame has
//! at most [`MAX_FRAME_EARLY`] bytes, after that [`MAX_FRAME`].
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
//! ([`client_mac`], [`server_mac`]) over both nonces and everything that the
//! join and its answer say; the secret itself is never sent. What follows the
//! join is not authenticated frame by frame: who can write into the connection
//! can disturb a job, but not become a member of it, because peers prove the
//! secret to each other again on their link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::engine::frame::AbortNotice;
use crate::error::{Error, ErrorKind, Result};
use crate::proof::transcript;

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
/// The most private addresses that a join may name.
pub(crate) const MAX_PRIVATE: usize = 4;
/// The most addresses in a GO: the private ones, the public one, and room for
/// what later versions learn on the way.
pub(crate) const MAX_CANDIDATES: usize = 8;
/// The longest text, in bytes.
pub(crate) const MAX_TEXT: usize = 256;

const LENGTH: usize = 2;

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

/// The client's proof that it knows `secret`, over all that its join says.
pub(crate) fn client_mac(
    secret: &[u8],
    client: &Nonce,
    server: &Nonce,
    join: &Join,
    membership: Option<&Membership>,
) -> Hash {
    client_transcript(secret, client, server, join, membership).finalize().into_bytes().into()
}

/// Whether `mac` is that proof; takes the same time whatever it is.
pub(crate) fn client_mac_is_right(
    secret: &[u8],
    client: &Nonce,
    server: &Nonce,
    join: &Join,
    membership: Option<&Membership>,
    mac: &Hash,
) -> bool {
    client_transcript(secret, client, server, join, membership).verify_slice(mac).is_ok()
}

/// The server's proof, over all that its answer says; `join_mac`, the proof of
/// the join that it answers, binds it to that.
pub(crate) fn server_mac(
    secret: &[u8],
    client: &Nonce,
    server: &Nonce,
    join_mac: &Hash,
    joined: &Joined,
) -> Hash {
    server_transcript(secret, client, server, join_mac, joined).finalize().into_bytes().into()
}

/// Whether `mac` is that proof.
pub(crate) fn server_mac_is_right(
    secret: &[u8],
    client: &Nonce,
    server: &Nonce,
    join_mac: &Hash,
    joined: &Joined,
    mac: &Hash,
) -> bool {
    server_transcript(secret, client, server, join_mac, joined).verify_slice(mac).is_ok()
}

fn client_transcript(
    secret: &[u8],
    client: &Nonce,
    server: &Nonce,
    join: &Join,
    membership: Option<&Membership>,
) -> Hmac<Sha256> {
    let mut said = Vec::new();
    put_join(&mut said, join);
    if let Some(membership) = membership {
        put_membership(&mut said, membership);
    }
    let kind = if membership.is_some() { kind::REJOIN } else { kind::JOIN };
    transcript(secret, &[b"FMI rendezvous 2 client", &[kind], client, server, &said])
}

fn server_transcript(
    secret: &[u8],
    client: &Nonce,
    server: &Nonce,
    join_mac: &Hash,
    joined: &Joined,
) -> Hmac<Sha256> {
    let mut said = Vec::new();
    put_joined(&mut said, joined);
    transcript(secret, &[b"FMI rendezvous 2 server", client, server, join_mac, &said])
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

/// A frame as it stands in the decoder's buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    kind: u8,
    body: &'a [u8],
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

fn malformed(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Protocol, format!("malformed rendezvous message: {what}"))
}

fn frame(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, kind]);
    body(out);
    let length = u16::try_from(out.len() - start - LENGTH).expect("every body is bounded");
    out[start..start + LENGTH].copy_from_slice(&length.to_le_bytes());
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_option(out: &mut Vec<u8>, value: Option<&Hash>) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        out.extend_from_slice(value);
    }
}

/// Text that is too long is cut: it is for people.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(MAX_TEXT)];
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_address(out: &mut Vec<u8>, address: &SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_le_bytes());
}

fn put_addresses(out: &mut Vec<u8>, addresses: &[SocketAddr]) {
    debug_assert!(addresses.len() <= MAX_CANDIDATES);
    out.push(addresses.len() as u8);
    for address in addresses {
        put_address(out, address);
    }
}

fn put_join(out: &mut Vec<u8>, join: &Join) {
    out.extend_from_slice(&join.job);
    put_option(out, join.job_id.as_ref());
    put_u32(out, join.rank);
    put_u32(out, join.size);
    out.extend_from_slice(&join.host_id.to_le_bytes());
    out.extend_from_slice(&join.fingerprint.to_le_bytes());
    put_addresses(out, &join.private);
}

fn put_membership(out: &mut Vec<u8>, membership: &Membership) {
    out.extend_from_slice(&membership.epoch);
    out.extend_from_slice(&membership.token);
}

fn put_joined(out: &mut Vec<u8>, joined: &Joined) {
    put_u32(out, joined.rank);
    put_address(out, &joined.public);
    put_membership(out, &joined.membership);
    put_u32(out, joined.ranks_on_host);
}

fn put_notice(out: &mut Vec<u8>, notice: &AbortNotice) {
    out.extend_from_slice(&notice.context.to_le_bytes());
    out.extend_from_slice(&notice.cause.status().to_le_bytes());
    put_u32(out, notice.cause_rank);
    out.push(u8::from(notice.about.is_some()));
    if let Some(about) = notice.about {
        put_u32(out, about);
    }
    out.extend_from_slice(&notice.code.to_le_bytes());
    out.push(notice.operation);
}

/// Takes values from the front of a body.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(|| malformed("it ends too early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn end(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(malformed("it has bytes after its end")) }
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn bool(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(malformed("neither yes nor no")),
        }
    }

    fn option(&mut self) -> Result<Option<Hash>> {
        self.bool()?.then(|| self.array()).transpose()
    }

    fn text(&mut self) -> Result<String> {
        let length = usize::from(self.u16()?);
        if length > MAX_TEXT {
            return Err(malformed("a text is too long"));
        }
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| malformed("a text is not UTF-8"))?;
        Ok(text.to_owned())
    }

    fn address(&mut self) -> Result<SocketAddr> {
        let ip = match self.u8()? {
            4 => IpAddr::V4(Ipv4Addr::from(self.array::<4>()?)),
            6 => IpAddr::V6(Ipv6Addr::from(self.array::<16>()?)),
            _ => return Err(malformed("an address of an unknown family")),
        };
        Ok(SocketAddr::new(ip, self.u16()?))
    }

    fn addresses(&mut self, most: usize) -> Result<Vec<SocketAddr>> {
        let count = usize::from(self.u8()?);
        if count > most {
            return Err(malformed(format!("{count} addresses, where at most {most} are allowed")));
        }
        (0..count).map(|_| self.address()).collect()
    }

    fn join(&mut self) -> Result<Join> {
        Ok(Join {
            job: self.array()?,
            job_id: self.option()?,
            rank: self.u32()?,
            size: self.u32()?,
            host_id: self.u64()?,
            fingerprint: self.u64()?,
            private: self.addresses(MAX_PRIVATE)?,
        })
    }

    fn notice(&mut self) -> Result<AbortNotice> {
        Ok(AbortNotice {
            context: self.u64()?,
            // A kind that a newer version adds.
            cause: ErrorKind::from_status(self.i32()?).unwrap_or(ErrorKind::Aborted),
            cause_rank: self.u32()?,
            about: self.bool()?.then(|| self.u32()).transpose()?,
            code: self.i32()?,
            operation: self.u8()?,
        })
    }

    fn membership(&mut self) -> Result<Membership> {
        Ok(Membership { epoch: self.array()?, token: self.array()? })
    }

    fn joined(&mut self) -> Result<Joined> {
        Ok(Joined {
            rank: self.u32()?,
            public: self.address()?,
            membership: self.membership()?,
            ranks_on_host: self.u32()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::error::ALL_KINDS;

    fn address() -> impl Strategy<Value = SocketAddr> {
        (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
    }

    fn text() -> impl Strategy<Value = String> {
        "\\PC{0,64}"
    }

    prop_compose! {
        fn join()(
            job in any::<Hash>(), job_id in option::of(any::<Hash>()), rank: u32, size: u32, host_id: u64,
            fingerprint: u64, private in vec(address(), 0..=MAX_PRIVATE),
        ) -> Join {
            Join { job, job_id, rank, size, host_id, fingerprint, private }
        }
    }

    prop_compose! {
        fn membership()(epoch: Epoch, token: Token) -> Membership {
            Membership { epoch, token }
        }
    }

    prop_compose! {
        fn joined()(
            rank: u32, public in address(), membership in membership(), ranks_on_host: u32,
        ) -> Joined {
            Joined { rank, public, membership, ranks_on_host }
        }
    }

    prop_compose! {
        fn notice()(
            context: u64, cause in select(&ALL_KINDS[..]), cause_rank: u32, about in option::of(any::<u32>()),
            code: i32, operation: u8,
        ) -> AbortNotice {
            AbortNotice { context, cause, cause_rank, about, code, operation }
        }
    }

    fn client_message() -> impl Strategy<Value = ClientMessage> {
        use ClientMessage::*;
        prop_oneof![
            any::<Nonce>().prop_map(|nonce| Hello { nonce }),
            (join(), option::of(any::<Hash>())).prop_map(|(join, mac)| Join { join, mac }),
            (join(), membership(), option::of(any::<Hash>())).prop_map(|(join, membership, mac)| Rejoin {
                join,
                membership,
                mac
            }),
            any::<u32>().prop_map(|rank| Connect { rank }),
            any::<u32>().prop_map(|rank| Ready { rank }),
            (any::<u32>(), any::<bool>()).prop_map(|(rank, alive)| Link { rank, alive }),
            Just(Leave),
            notice().prop_map(|notice| Abort { notice }),
        ]
    }

    fn server_message() -> impl Strategy<Value = ServerMessage> {
        use ServerMessage::*;
        prop_oneof![
            (any::<Nonce>(), any::<bool>(), any::<bool>(), text()).prop_map(
                |(nonce, secret_known, secret_required, version)| Challenge {
                    nonce,
                    secret_known,
                    secret_required,
                    version
                }
            ),
            (joined(), option::of(any::<Hash>())).prop_map(|(joined, mac)| Joined { joined, mac }),
            (any::<u8>(), text())
                .prop_map(|(code, text)| Refused { refusal: Refusal::from_code(code), text }),
            any::<u32>().prop_map(|rank| Offer { rank }),
            (any::<u32>(), any::<u32>(), vec(address(), 0..=MAX_CANDIDATES))
                .prop_map(|(rank, ranks_on_host, candidates)| Go { rank, ranks_on_host, candidates }),
            (any::<u32>(), select(&[Reason::Left, Reason::Lost, Reason::Ended][..]))
                .prop_map(|(rank, reason)| Unreachable { rank, reason }),
            (any::<u32>(), any::<bool>()).prop_map(|(rank, joined)| NotYet {
                rank,
                missing: if joined { Missing::NotReady } else { Missing::NotJoined }
            }),
            any::<u32>().prop_map(|rank| Suspect { rank }),
            any::<Epoch>().prop_map(|epoch| Moved { epoch }),
            (any::<u32>(), notice()).prop_map(|(rank, notice)| Aborted { rank, notice }),
        ]
    }

    /// Everything in `bytes`, pushed in pieces of `piece` bytes.
    fn decode_all<T>(
        bytes: &[u8],
        piece: usize,
        decode: impl Fn(&Frame<'_>) -> Result<Option<T>>,
    ) -> Result<Vec<T>> {
        let mut decoder = Decoder::new();
        let mut messages = Vec::new();
        for piece in bytes.chunks(piece) {
            decoder.push(piece);
            while let Some(frame) = decoder.next_frame()? {
                messages.extend(decode(&frame)?);
            }
            assert!(decoder.buffer.len() - decoder.start < MAX_FRAME);
        }
        Ok(messages)
    }

    proptest! {
        #[test]
        fn client_messages_survive_the_wire(sent in vec(client_message(), 0..8), piece in 1usize..600) {
            let mut bytes = Vec::new();
            put_preamble(&mut bytes, &[2; 16]);
            sent.iter().for_each(|message| message.encode(&mut bytes));
            prop_assert_eq!(decode_all(&bytes, piece, ClientMessage::decode), Ok(sent));
        }

        #[test]
        fn server_messages_survive_the_wire(sent in vec(server_message(), 0..8), piece in 1usize..600) {
            let mut bytes = Vec::new();
            put_preamble(&mut bytes, &[2; 16]);
            sent.iter().for_each(|message| message.encode(&mut bytes));
            prop_assert_eq!(decode_all(&bytes, piece, ServerMessage::decode), Ok(sent));
        }

        #[test]
        fn every_message_fits_the_early_bound(client in client_message(), server in server_message()) {
            let mut bytes = Vec::new();
            client.encode(&mut bytes);
            prop_assert!(bytes.len() <= MAX_FRAME_EARLY);
            bytes.clear();
            server.encode(&mut bytes);
            prop_assert!(bytes.len() <= MAX_FRAME_EARLY);
        }

        #[test]
        fn garbage_is_an_error_or_nothing(garbage in vec(any::<u8>(), 0..2000), greet: bool) {
            let mut bytes = Vec::new();
            if greet {
                put_preamble(&mut bytes, &[2; 16]);
            }
            bytes.extend_from_slice(&garbage);
            for result in [
                decode_all(&bytes, 97, ClientMessage::decode).map(drop),
                decode_all(&bytes, 97, ServerMessage::decode).map(drop),
            ] {
                if let Err(error) = result {
                    prop_assert_eq!(error.kind(), ErrorKind::Protocol);
                }
            }
        }

        #[test]
        fn a_body_cut_short_or_prolonged_is_an_error(message in client_message(), cut in 1usize..4) {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            let (kind, body) = (bytes[2], &bytes[3..]);
            if !body.is_empty() {
                let short = &body[..body.len().saturating_sub(cut)];
                let result = ClientMessage::decode(&Frame { kind, body: short });
                prop_assert!(result.is_err());
            }
            let long = [body, &[0]].concat();
            let result = ClientMessage::decode(&Frame { kind, body: &long });
            prop_assert!(result.is_err());
        }

        #[test]
        fn one_changed_bit_spoils_the_proofs(join in join(), joined in joined(), bit in 0usize..256) {
            let (secret, client, server) = (b"0123456789abcdef", [1; 16], [2; 16]);
            let mut mac = client_mac(secret, &client, &server, &join, None);
            prop_assert!(client_mac_is_right(secret, &client, &server, &join, None, &mac));
            prop_assert!(!client_mac_is_right(b"0123456789abcdeF", &client, &server, &join, None, &mac));
            prop_assert!(!client_mac_is_right(secret, &server, &client, &join, None, &mac));
            let membership = Membership { epoch: [0; 16], token: [0; 16] };
            prop_assert!(!client_mac_is_right(secret, &client, &server, &join, Some(&membership), &mac));
            let answer = server_mac(secret, &client, &server, &mac, &joined);
            prop_assert!(server_mac_is_right(secret, &client, &server, &mac, &joined, &answer));
            mac[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!client_mac_is_right(secret, &client, &server, &join, None, &mac));
            prop_assert!(!server_mac_is_right(secret, &client, &server, &mac, &joined, &answer));
        }
    }

    #[test]
    fn a_frame_of_an_unknown_kind_is_skipped_by_its_length() {
        let mut bytes = Vec::new();
        put_preamble(&mut bytes, &[2; 16]);
        bytes.extend_from_slice(&[4, 0, 0x7f, 1, 2, 3]);
        ClientMessage::Leave.encode(&mut bytes);
        assert_eq!(decode_all(&bytes, 1000, ClientMessage::decode), Ok(vec![ClientMessage::Leave]));
    }

    #[test]
    fn long_frames_are_refused_until_they_are_allowed() {
        let mut frame = vec![0; 600];
        frame[..3].copy_from_slice(&[86, 2, 0x7f]);
        let mut decoder = Decoder::new();
        let mut bytes = Vec::new();
        put_preamble(&mut bytes, &[2; 16]);
        decoder.push(&[&bytes[..], &frame[..2]].concat());
        assert_eq!(
            decoder.next_frame().unwrap_err().kind(),
            ErrorKind::Protocol,
            "refused by its length alone"
        );

        let mut decoder = Decoder::new();
        decoder.allow_long_frames();
        decoder.push(&[&bytes[..], &frame[..]].concat());
        assert_eq!(decoder.next_frame().unwrap().unwrap().body.len(), 597);

        decoder.push(&[0xff, 0xff]);
        assert!(decoder.next_frame().is_err());
    }

    #[test]
    fn the_first_strange_byte_is_enough() {
        for strange in [&b"H"[..], b"\xf5FMX", &[10, 0, 0, 1, 0, 80, 0, 0]] {
            let mut decoder = Decoder::new();
            decoder.push(strange);
            let error = decoder.next_frame().unwrap_err();
            assert!(error.message().contains("does not speak version 2"), "{error}");
        }
        let mut decoder = Decoder::new();
        decoder.push(&[&MAGIC[..], &[3]].concat());
        let error = decoder.next_frame().unwrap_err();
        assert!(error.message().contains("speaks version 3"), "{error}");
    }

    #[test]
    fn only_addresses_of_private_networks_are_private() {
        for text in [
            "10.1.2.3:1",
            "172.16.0.1:1",
            "192.168.1.1:1",
            "100.64.0.1:1",
            "100.127.255.1:1",
            "127.0.0.1:1",
            "[::1]:1",
            "[fd00::1]:1",
        ] {
            assert!(is_private(&text.parse().unwrap()), "{text}");
        }
        for text in [
            "8.8.8.8:1",
            "172.32.0.1:1",
            "100.128.0.1:1",
            "169.254.1.1:1",
            "[2001:db8::1]:1",
            "[fe80::1]:1",
            "10.1.2.3:0",
        ] {
            assert!(!is_private(&text.parse().unwrap()), "{text}");
        }
    }
}

//! The client's side of the rendezvous protocol, without a socket and without
//! a clock.
//!
//! The endpoint opens the connection, sends what [`Client::outgoing`] holds,
//! gives what it reads to [`Client::receive`], and takes the events. The join
//! itself needs no call: it follows from the server's first answer. When the
//! connection breaks, [`Client::reconnect`] starts over on a new one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use super::protocol::{
    self, ClientMessage, Decoder, Epoch, Hash, Join, MAX_PRIVATE, Membership, Nonce, RANK_ANY, ServerMessage,
    proof,
};
pub(crate) use super::protocol::{Missing, Reason};
use crate::engine::frame::AbortNotice;
use crate::error::{Error, ErrorKind, Result};
use crate::proof::check_secret;

/// The most that waits to be sent: more than one connect and one report for each
/// rank of the largest job. A server that makes us answer more, and does not read it,
/// is no good.
const MAX_OUTGOING: usize = 2 << 20;

/// What a rank says of itself, and how it proves it.
pub(crate) struct JoinRequest {
    pub(crate) name: String,
    /// What the ranks of one run have in common, where something is known.
    pub(crate) job_id: Option<String>,
    pub(crate) rank: u32,
    pub(crate) size: u32,
    /// Where ranks of the same private network reach this one. Addresses that
    /// are not private, and those after the fourth, are left out.
    pub(crate) private_endpoints: Vec<SocketAddr>,
    pub(crate) host_id: u64,
    pub(crate) fingerprint: u64,
    pub(crate) secret: Option<Vec<u8>>,
}

/// What the server told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// This rank is a member of the job. Comes again after a reconnect.
    Joined { epoch: Epoch, public: SocketAddr, ranks_on_host: u32 },
    /// `rank` wants a link to us; answer by [`Client::ready`].
    Offer { rank: u32 },
    /// Both sides are ready: `rank` starts now too.
    Go { rank: u32, candidates: Vec<SocketAddr>, ranks_on_host: u32 },
    /// `rank` will not come any more. A loss is told to everybody, a departure
    /// only to those that want a link to `rank`.
    Unreachable { rank: u32, reason: Reason },
    /// What the connect to `rank` is waiting for. Comes again when it changes.
    NotYet { rank: u32, missing: Missing },
    /// The run that this rank has joined is another than the server knew.
    Moved { epoch: Epoch },
    /// The server has lost the connection of `rank`; answer by
    /// [`Client::report_link`].
    Suspect { rank: u32 },
    /// The collectives failed on `rank`, which may hand on what it heard.
    Aborted { rank: u32, notice: AbortNotice },
}

/// The client of one rank of one job.
pub(crate) struct Client {
    join: Join,
    secret: Option<Vec<u8>>,
    phase: Phase,
    decoder: Decoder,
    outgoing: Vec<u8>,
    events: VecDeque<Event>,
    /// Since the first answered join.
    membership: Option<Membership>,
    /// The ranks that we asked for and that the server has not answered by GO
    /// or UNREACHABLE; and what the last NOT YET said of them.
    wanted: BTreeMap<u32, Option<Missing>>,
    /// The ranks that want us and have not had our READY.
    offers: BTreeSet<u32>,
    /// The ranks that the server asks about, and that it has not heard of yet.
    suspects: BTreeSet<u32>,
    /// The ranks whose link has broken; the server may have been away then.
    broken: BTreeSet<u32>,
    /// What the others were told, one for each context at most: again after a
    /// reconnect, since a restarted server does not know.
    aborts: Vec<AbortNotice>,
    /// Whether there was a GO: from then on links rely on the epoch.
    has_gone: bool,
}

enum Phase {
    /// The hello is sent.
    Greeting {
        nonce: Nonce,
    },
    /// The join is sent.
    Joining {
        nonce: Nonce,
        server_nonce: Nonce,
        mac: Option<Hash>,
    },
    Member,
    Left,
    Failed(Error),
}

impl Client {
    /// A client whose first bytes are ready to be sent.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Arg`] if rank or size are out of range,
    /// [`ErrorKind::Config`] if the secret is too short, [`ErrorKind::Io`] if
    /// the kernel gives no random bytes.
    pub(crate) fn new(request: JoinRequest) -> Result<Self> {
        let JoinRequest { name, job_id, rank, size, private_endpoints, host_id, fingerprint, secret } =
            request;
        if rank == RANK_ANY || rank >= size {
            return Err(Error::new(ErrorKind::Arg, format!("rank {rank} is not in a job of size {size}")));
        }
        secret.as_deref().map_or(Ok(()), check_secret)?;
        let join = Join {
            job: protocol::hash(&name),
            job_id: job_id.as_deref().map(protocol::hash),
            rank,
            size,
            host_id,
            fingerprint,
            private: told_endpoints(private_endpoints),
        };
        let mut client = Self {
            join,
            secret,
            phase: Phase::Left,
            decoder: Decoder::new(),
            outgoing: Vec::new(),
            events: VecDeque::new(),
            membership: None,
            wanted: BTreeMap::new(),
            offers: BTreeSet::new(),
            suspects: BTreeSet::new(),
            broken: BTreeSet::new(),
            aborts: Vec::new(),
            has_gone: false,
        };
        client.reconnect()?;
        Ok(client)
    }

    /// Starts over on a new connection: a member takes up its membership, and
    /// the pending connects are repeated. Events not yet taken stay.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if the kernel gives no random bytes.
    pub(crate) fn reconnect(&mut self) -> Result<()> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce)
            .map_err(|error| Error::new(ErrorKind::Io, format!("cannot get random bytes: {error}")))?;
        self.decoder = Decoder::new();
        // The server says again what still stands.
        self.offers.clear();
        self.suspects.clear();
        self.outgoing.clear();
        protocol::put_preamble(&mut self.outgoing, &nonce);
        ClientMessage::Hello { nonce }.encode(&mut self.outgoing);
        self.phase = Phase::Greeting { nonce };
        Ok(())
    }

    /// From the next connection on, ranks of the same private network reach this
    /// one here; which addresses count, [`JoinRequest`] says.
    pub(crate) fn move_to(&mut self, private_endpoints: Vec<SocketAddr>) {
        self.join.private = told_endpoints(private_endpoints);
    }

    /// Asks for a link to `rank`; asking twice is asking once. The answer is
    /// [`Event::Go`] or [`Event::Unreachable`], after any number of
    /// [`Event::NotYet`]; after it the same rank can be asked for again.
    pub(crate) fn connect(&mut self, rank: u32) {
        debug_assert!(rank < self.join.size && rank != self.join.rank);
        if self.wanted.contains_key(&rank) {
            return;
        }
        self.wanted.insert(rank, None);
        // Our own wish is our READY to the other's.
        self.offers.remove(&rank);
        if matches!(self.phase, Phase::Member) {
            ClientMessage::Connect { rank }.encode(&mut self.outgoing);
        }
    }

    /// Answers the offer of `rank`; without an offer it does nothing.
    pub(crate) fn ready(&mut self, rank: u32) {
        if self.offers.remove(&rank) && matches!(self.phase, Phase::Member) {
            ClientMessage::Ready { rank }.encode(&mut self.outgoing);
        }
    }

    /// Says whether the link to `rank` lives: in answer to [`Event::Suspect`],
    /// and when it has broken.
    pub(crate) fn report_link(&mut self, rank: u32, alive: bool) {
        self.suspects.remove(&rank);
        if !alive {
            self.broken.insert(rank);
        }
        if matches!(self.phase, Phase::Member) {
            ClientMessage::Link { rank, alive }.encode(&mut self.outgoing);
        }
    }

    /// The ranks whose links the server has asked about, and waits to hear of.
    pub(crate) fn suspects(&self) -> impl Iterator<Item = u32> {
        self.suspects.iter().copied()
    }

    /// Leaves the job. Send what is outgoing before the connection is closed:
    /// a connection that ends without it is a death.
    pub(crate) fn leave(&mut self) {
        if matches!(self.phase, Phase::Joining { .. } | Phase::Member) {
            ClientMessage::Leave.encode(&mut self.outgoing);
        }
        self.wanted.clear();
        self.offers.clear();
        self.phase = Phase::Left;
    }

    /// Tells all other members that the collectives have failed; when the server
    /// is away, as soon as it is back.
    pub(crate) fn abort(&mut self, notice: AbortNotice) {
        if matches!(self.phase, Phase::Joining { .. } | Phase::Member) {
            ClientMessage::Abort { notice }.encode(&mut self.outgoing);
        }
        self.aborts.push(notice);
    }

    /// Whether it has been told of a failure by [`abort`](Self::abort).
    pub(crate) fn has_aborted(&self) -> bool {
        !self.aborts.is_empty()
    }

    /// What is to be sent.
    pub(crate) fn outgoing(&self) -> &[u8] {
        &self.outgoing
    }

    /// Says that the first `written` bytes of [`outgoing`](Self::outgoing)
    /// were sent.
    pub(crate) fn advance(&mut self, written: usize) {
        self.outgoing.drain(..written);
    }

    /// Takes what the server sent.
    ///
    /// # Errors
    ///
    /// What the server refused, with its words: [`ErrorKind::RankTaken`],
    /// [`ErrorKind::Mismatch`] (size or configuration), [`ErrorKind::Auth`],
    /// [`ErrorKind::Connect`] (no room; or this rank was declared lost).
    /// [`ErrorKind::Auth`] if the server does not know our secret, or asks for
    /// one that we do not have. [`ErrorKind::Protocol`] if it speaks another
    /// protocol or sends garbage. After an error every call returns it again,
    /// until [`reconnect`](Self::reconnect).
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<()> {
        if let Phase::Failed(error) = &self.phase {
            return Err(error.clone());
        }
        self.decoder.push(bytes);
        self.decode().inspect_err(|error| self.phase = Phase::Failed(error.clone()))
    }

    /// The next event, in the order in which the server told them.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The identity of the run, once this rank has joined it.
    #[cfg(test)]
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.membership.map(|membership| membership.epoch)
    }

    /// Whether the server counts this rank as a member on this connection.
    pub(crate) fn is_member(&self) -> bool {
        matches!(self.phase, Phase::Member)
    }

    /// Whether the server has ever counted this rank as a member.
    pub(crate) fn has_been_member(&self) -> bool {
        self.membership.is_some()
    }

    /// What the pending connect to `rank` waits for, as far as is known: for
    /// the error when its deadline passes.
    pub(crate) fn missing(&self, rank: u32) -> Option<Missing> {
        self.wanted.get(&rank).copied().flatten()
    }

    fn decode(&mut self) -> Result<()> {
        while let Some(frame) = self.decoder.next_frame()? {
            if self.outgoing.len() > MAX_OUTGOING {
                let text = "the rendezvous server does not read what it makes this rank answer";
                return Err(Error::new(ErrorKind::Protocol, text));
            }
            let Some(message) = ServerMessage::decode(&frame)? else { continue };
            self.handle(message)?;
        }
        Ok(())
    }

    fn handle(&mut self, message: ServerMessage) -> Result<()> {
        match (&self.phase, message) {
            // What was under way when we left.
            (Phase::Left, _) => Ok(()),
            (_, ServerMessage::Refused { refusal, text }) => {
                let text = format!("the rendezvous server refused: {}", printable(&text));
                Err(Error::new(refusal.error_kind(), text))
            }
            (
                &Phase::Greeting { nonce },
                ServerMessage::Challenge { nonce: server_nonce, secret_known, secret_required, .. },
            ) => self.answer_challenge(nonce, server_nonce, secret_known, secret_required),
            (
                &Phase::Joining { nonce, server_nonce, mac: join_mac },
                ServerMessage::Joined { joined, mac },
            ) => {
                if let (Some(secret), Some(join_mac)) = (&self.secret, join_mac) {
                    let right = mac.is_some_and(|mac| {
                        proof::server_mac_is_right(secret, &nonce, &server_nonce, &join_mac, &joined, &mac)
                    });
                    if !right {
                        let text = "the rendezvous server does not know the job secret (FMI_SECRET)";
                        return Err(Error::new(ErrorKind::Auth, text));
                    }
                }
                self.enter(joined)
            }
            (Phase::Member, message) => self.handle_as_member(message),
            _ => Err(unexpected()),
        }
    }

    fn answer_challenge(
        &mut self,
        nonce: Nonce,
        server_nonce: Nonce,
        secret_known: bool,
        secret_required: bool,
    ) -> Result<()> {
        if self.secret.is_some() && !secret_known {
            let text = "the rendezvous server has no job secret, and this rank has one (FMI_SECRET)";
            return Err(Error::new(ErrorKind::Auth, text));
        }
        if self.secret.is_none() && secret_required {
            let text = "the rendezvous server requires a job secret, and this rank has none (FMI_SECRET)";
            return Err(Error::new(ErrorKind::Auth, text));
        }
        let mac = self.secret.as_ref().map(|secret| {
            proof::client_mac(secret, &nonce, &server_nonce, &self.join, self.membership.as_ref())
        });
        let join = self.join.clone();
        match self.membership {
            None => ClientMessage::Join { join, mac },
            Some(membership) => ClientMessage::Rejoin { join, membership, mac },
        }
        .encode(&mut self.outgoing);
        self.phase = Phase::Joining { nonce, server_nonce, mac };
        Ok(())
    }

    fn enter(&mut self, joined: protocol::Joined) -> Result<()> {
        if joined.rank != self.join.rank || self.membership.is_some_and(|known| known != joined.membership) {
            let text = "the rendezvous server answered a join with another rank or another epoch";
            return Err(Error::new(ErrorKind::Protocol, text));
        }
        self.decoder.allow_long_frames();
        self.membership = Some(joined.membership);
        self.phase = Phase::Member;
        for &rank in self.wanted.keys() {
            ClientMessage::Connect { rank }.encode(&mut self.outgoing);
        }
        for &rank in &self.broken {
            ClientMessage::Link { rank, alive: false }.encode(&mut self.outgoing);
        }
        for &notice in &self.aborts {
            ClientMessage::Abort { notice }.encode(&mut self.outgoing);
        }
        self.events.push_back(Event::Joined {
            epoch: joined.membership.epoch,
            public: joined.public,
            ranks_on_host: joined.ranks_on_host,
        });
        Ok(())
    }

    fn handle_as_member(&mut self, message: ServerMessage) -> Result<()> {
        let event = match message {
            ServerMessage::Offer { rank } => {
                self.check_peer(rank)?;
                // Two wishes that crossed: the server has ours by now, and
                // answers by GO.
                if self.wanted.contains_key(&rank) || !self.offers.insert(rank) {
                    return Ok(());
                }
                Event::Offer { rank }
            }
            ServerMessage::Go { rank, ranks_on_host, candidates } => {
                self.check_peer(rank)?;
                self.wanted.remove(&rank);
                self.offers.remove(&rank);
                self.has_gone = true;
                Event::Go { rank, candidates, ranks_on_host }
            }
            ServerMessage::Unreachable { rank, reason } => {
                self.check_peer(rank)?;
                self.wanted.remove(&rank);
                self.offers.remove(&rank);
                Event::Unreachable { rank, reason }
            }
            ServerMessage::NotYet { rank, missing } => {
                self.check_peer(rank)?;
                // It may have crossed our own giving up.
                let Some(known) = self.wanted.get_mut(&rank) else { return Ok(()) };
                if known.replace(missing) == Some(missing) {
                    return Ok(());
                }
                Event::NotYet { rank, missing }
            }
            ServerMessage::Moved { epoch } if !self.has_gone => {
                if let Some(membership) = &mut self.membership {
                    membership.epoch = epoch;
                }
                self.offers.clear();
                for &rank in self.wanted.keys() {
                    ClientMessage::Connect { rank }.encode(&mut self.outgoing);
                }
                Event::Moved { epoch }
            }
            ServerMessage::Suspect { rank } => {
                self.check_peer(rank)?;
                self.suspects.insert(rank);
                Event::Suspect { rank }
            }
            ServerMessage::Aborted { rank, notice } => {
                self.check_peer(rank)?;
                Event::Aborted { rank, notice }
            }
            ServerMessage::Challenge { .. }
            | ServerMessage::Joined { .. }
            | ServerMessage::Moved { .. }
            | ServerMessage::Refused { .. } => {
                return Err(unexpected());
            }
        };
        self.events.push_back(event);
        Ok(())
    }

    fn check_peer(&self, rank: u32) -> Result<()> {
        if rank < self.join.size && rank != self.join.rank {
            return Ok(());
        }
        let text = format!(
            "the rendezvous server spoke of rank {rank} to a rank of a job of size {}",
            self.join.size
        );
        Err(Error::new(ErrorKind::Protocol, text))
    }
}

fn unexpected() -> Error {
    Error::new(ErrorKind::Protocol, "the rendezvous server sent a message out of turn")
}

/// A stranger's words as they may be shown on a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Those that are told to the server.
fn told_endpoints(private: Vec<SocketAddr>) -> Vec<SocketAddr> {
    private.into_iter().filter(protocol::is_private).take(MAX_PRIVATE).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::protocol::{Joined, Refusal};
    use super::*;

    const SERVER_NONCE: Nonce = [7; 16];
    const SECRET: &[u8] = b"0123456789abcdef";

    fn request() -> JoinRequest {
        JoinRequest {
            name: "job".into(),
            job_id: None,
            rank: 1,
            size: 4,
            private_endpoints: vec!["127.0.0.1:5".parse().unwrap(), "8.8.8.8:5".parse().unwrap()],
            host_id: 3,
            fingerprint: 4,
            secret: None,
        }
    }

    /// What the client wants to send, as messages; empties its outgoing bytes.
    struct Wire(Decoder);

    impl Wire {
        fn new() -> Self {
            Self(Decoder::new())
        }

        fn take(&mut self, client: &mut Client) -> Vec<ClientMessage> {
            self.0.push(client.outgoing());
            client.advance(client.outgoing().len());
            let mut messages = Vec::new();
            while let Some(frame) = self.0.next_frame().unwrap() {
                messages.push(ClientMessage::decode(&frame).unwrap().unwrap());
            }
            messages
        }
    }

    fn give(client: &mut Client, message: &ServerMessage) -> Result<()> {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        client.receive(&bytes)
    }

    fn greet(client: &mut Client, known: bool, required: bool) -> Result<()> {
        let mut bytes = Vec::new();
        protocol::put_preamble(&mut bytes, &[2; 16]);
        client.receive(&bytes)?;
        let version = "test".into();
        give(
            client,
            &ServerMessage::Challenge {
                nonce: SERVER_NONCE,
                secret_known: known,
                secret_required: required,
                version,
            },
        )
    }

    fn joined() -> Joined {
        Joined {
            rank: 1,
            public: "1.2.3.4:5".parse().unwrap(),
            membership: Membership { epoch: [8; 16], token: [9; 16] },
            ranks_on_host: 2,
        }
    }

    /// A client that is a member, its `Joined` event taken.
    fn member() -> (Client, Wire) {
        let (mut client, mut wire) = (Client::new(request()).unwrap(), Wire::new());
        greet(&mut client, false, false).unwrap();
        give(&mut client, &ServerMessage::Joined { joined: joined(), mac: None }).unwrap();
        assert!(matches!(client.next_event(), Some(Event::Joined { ranks_on_host: 2, .. })));
        wire.take(&mut client);
        (client, wire)
    }

    #[test]
    fn joins_when_the_server_has_answered() {
        let (mut client, mut wire) = (Client::new(request()).unwrap(), Wire::new());
        assert!(matches!(wire.take(&mut client)[..], [ClientMessage::Hello { .. }]));
        client.connect(3);
        assert_eq!(client.outgoing(), b"", "nothing before the challenge");
        greet(&mut client, false, false).unwrap();
        let sent = wire.take(&mut client);
        let [ClientMessage::Join { join, mac: None }] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!(join.private, ["127.0.0.1:5".parse().unwrap()], "public addresses are left out");
        assert_eq!(client.epoch(), None);

        give(&mut client, &ServerMessage::Joined { joined: joined(), mac: None }).unwrap();
        assert_eq!(wire.take(&mut client), [ClientMessage::Connect { rank: 3 }]);
        assert_eq!(client.epoch(), Some([8; 16]));
    }

    #[test]
    fn rank_size_and_secret_are_checked() {
        let kind = |change: fn(&mut JoinRequest)| {
            let mut request = request();
            change(&mut request);
            Client::new(request).err().map(|error| error.kind())
        };
        assert_eq!(kind(|r| r.rank = 4), Some(ErrorKind::Arg));
        assert_eq!(kind(|r| r.size = 0), Some(ErrorKind::Arg));
        assert_eq!(kind(|r| r.secret = Some(vec![1; 15])), Some(ErrorKind::Config));
        assert_eq!(kind(|r| r.secret = Some(vec![1; 16])), None);
    }

    #[test]
    fn an_offer_is_answered_once() {
        let (mut client, mut wire) = member();
        client.ready(2);
        assert_eq!(client.outgoing(), b"", "nobody offered");
        give(&mut client, &ServerMessage::Offer { rank: 2 }).unwrap();
        give(&mut client, &ServerMessage::Offer { rank: 2 }).unwrap();
        assert_eq!(client.next_event(), Some(Event::Offer { rank: 2 }));
        assert_eq!(client.next_event(), None);
        client.ready(2);
        client.ready(2);
        assert_eq!(wire.take(&mut client), [ClientMessage::Ready { rank: 2 }]);
    }

    #[test]
    fn our_own_wish_answers_the_offer() {
        let (mut client, mut wire) = member();
        client.connect(2);
        client.connect(2);
        give(&mut client, &ServerMessage::Offer { rank: 2 }).unwrap();
        assert_eq!(client.next_event(), None);
        client.ready(2);
        assert_eq!(wire.take(&mut client), [ClientMessage::Connect { rank: 2 }]);
    }

    #[test]
    fn after_go_the_same_rank_can_be_asked_for_again() {
        let (mut client, mut wire) = member();
        client.connect(2);
        let candidates = vec!["10.0.0.1:1".parse().unwrap()];
        give(&mut client, &ServerMessage::NotYet { rank: 2, missing: Missing::NotJoined }).unwrap();
        assert_eq!(client.missing(2), Some(Missing::NotJoined));
        give(&mut client, &ServerMessage::NotYet { rank: 2, missing: Missing::NotReady }).unwrap();
        assert_eq!(client.missing(2), Some(Missing::NotReady));
        let go = ServerMessage::Go { rank: 2, ranks_on_host: 3, candidates: candidates.clone() };
        give(&mut client, &go).unwrap();
        assert_eq!(client.next_event(), Some(Event::NotYet { rank: 2, missing: Missing::NotJoined }));
        assert_eq!(client.next_event(), Some(Event::NotYet { rank: 2, missing: Missing::NotReady }));
        assert_eq!(client.next_event(), Some(Event::Go { rank: 2, candidates, ranks_on_host: 3 }));
        client.connect(2);
        let connect = ClientMessage::Connect { rank: 2 };
        assert_eq!(wire.take(&mut client), [connect.clone(), connect]);
    }

    #[test]
    fn a_broken_connection_is_taken_up_with_its_pending_connects() {
        let (mut client, mut wire) = member();
        client.connect(2);
        client.connect(3);
        give(&mut client, &ServerMessage::Unreachable { rank: 3, reason: Reason::Left }).unwrap();
        assert_eq!(client.next_event(), Some(Event::Unreachable { rank: 3, reason: Reason::Left }));
        wire.take(&mut client);

        client.reconnect().unwrap();
        assert!(!client.is_member());
        client.connect(0);
        let mut wire = Wire::new();
        greet(&mut client, false, false).unwrap();
        let sent = wire.take(&mut client);
        let [ClientMessage::Hello { .. }, ClientMessage::Rejoin { membership, .. }] = &sent[..] else {
            panic!("{sent:?}")
        };
        assert_eq!(*membership, joined().membership);
        give(&mut client, &ServerMessage::Joined { joined: joined(), mac: None }).unwrap();
        let connects = [ClientMessage::Connect { rank: 0 }, ClientMessage::Connect { rank: 2 }];
        assert_eq!(wire.take(&mut client), connects);

        client.reconnect().unwrap();
        greet(&mut client, false, false).unwrap();
        let mut other = joined();
        other.membership.epoch = [1; 16];
        let error = give(&mut client, &ServerMessage::Joined { joined: other, mac: None }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "another epoch is never accepted");
    }

    #[test]
    fn the_server_is_told_of_links_also_after_it_was_away() {
        let (mut client, mut wire) = member();
        give(&mut client, &ServerMessage::Suspect { rank: 2 }).unwrap();
        assert_eq!(client.next_event(), Some(Event::Suspect { rank: 2 }));
        assert_eq!(client.suspects().collect::<Vec<_>>(), [2]);
        client.report_link(2, true);
        assert_eq!(client.suspects().next(), None);
        assert_eq!(wire.take(&mut client), [ClientMessage::Link { rank: 2, alive: true }]);

        client.reconnect().unwrap();
        client.report_link(3, false);
        greet(&mut client, false, false).unwrap();
        client.advance(client.outgoing().len());
        give(&mut client, &ServerMessage::Joined { joined: joined(), mac: None }).unwrap();
        wire = Wire::new();
        let mut preamble = Vec::new();
        protocol::put_preamble(&mut preamble, &[2; 16]);
        wire.0.push(&preamble);
        assert_eq!(wire.take(&mut client), [ClientMessage::Link { rank: 3, alive: false }]);
    }

    #[test]
    fn a_move_to_another_epoch_is_accepted_before_the_first_go_only() {
        let (mut client, mut wire) = member();
        client.connect(2);
        give(&mut client, &ServerMessage::Offer { rank: 3 }).unwrap();
        wire.take(&mut client);
        give(&mut client, &ServerMessage::Moved { epoch: [5; 16] }).unwrap();
        assert_eq!(client.epoch(), Some([5; 16]));
        client.ready(3);
        assert_eq!(wire.take(&mut client), [ClientMessage::Connect { rank: 2 }], "asked anew, offered anew");
        give(&mut client, &ServerMessage::Go { rank: 2, ranks_on_host: 1, candidates: Vec::new() }).unwrap();
        assert!(give(&mut client, &ServerMessage::Moved { epoch: [6; 16] }).is_err());
        assert_eq!(client.epoch(), Some([5; 16]));
    }

    #[test]
    fn leaving_is_said_also_while_the_join_is_under_way() {
        let (mut client, mut wire) = (Client::new(request()).unwrap(), Wire::new());
        greet(&mut client, false, false).unwrap();
        client.leave();
        client.leave();
        let sent = wire.take(&mut client);
        assert!(matches!(
            sent[..],
            [ClientMessage::Hello { .. }, ClientMessage::Join { .. }, ClientMessage::Leave]
        ));
        give(&mut client, &ServerMessage::Joined { joined: joined(), mac: None }).unwrap();
        assert_eq!(client.next_event(), None);
    }

    #[test]
    fn refusals_are_typed_and_stay() {
        for (refusal, kind) in [
            (Refusal::RankTaken, ErrorKind::RankTaken),
            (Refusal::Mismatch, ErrorKind::Mismatch),
            (Refusal::Auth, ErrorKind::Auth),
            (Refusal::Protocol, ErrorKind::Protocol),
            (Refusal::Full, ErrorKind::Connect),
            (Refusal::Gone, ErrorKind::Connect),
            (Refusal::Unsupported, ErrorKind::Unsupported),
            (Refusal::Other(200), ErrorKind::Protocol),
        ] {
            let mut client = Client::new(request()).unwrap();
            greet(&mut client, false, false).unwrap();
            let text = "size 4 here,\x1b[2J 5 there".into();
            let error = give(&mut client, &ServerMessage::Refused { refusal, text }).unwrap_err();
            assert_eq!(error.kind(), kind);
            assert!(error.message().ends_with("size 4 here,\u{fffd}[2J 5 there"), "{error}");
            assert_eq!(client.receive(b""), Err(error));
        }
    }

    #[test]
    fn another_protocol_is_named_as_such() {
        let mut client = Client::new(request()).unwrap();
        let error = client.receive(&[127, 0, 0, 1, 0x13, 0x88, 0, 0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(error.message().contains("does not speak version 2"), "{error}");
    }

    #[test]
    fn server_and_client_must_agree_on_having_a_secret() {
        let mut client = Client::new(request()).unwrap();
        assert_eq!(greet(&mut client, true, true).unwrap_err().kind(), ErrorKind::Auth);
        let mut client = Client::new(JoinRequest { secret: Some(SECRET.into()), ..request() }).unwrap();
        assert_eq!(greet(&mut client, false, false).unwrap_err().kind(), ErrorKind::Auth);
    }

    #[test]
    fn a_server_that_does_not_prove_the_secret_is_refused() {
        let outcome = |server_secret: Option<&[u8]>| {
            let mut client = Client::new(JoinRequest { secret: Some(SECRET.into()), ..request() }).unwrap();
            let Phase::Greeting { nonce } = client.phase else { unreachable!() };
            greet(&mut client, true, true).unwrap();
            let sent = Wire::new().take(&mut client);
            let ClientMessage::Join { join, mac: Some(join_mac) } = &sent[1] else { panic!("{sent:?}") };
            assert!(proof::client_mac_is_right(SECRET, &nonce, &SERVER_NONCE, join, None, join_mac));
            let mac = server_secret
                .map(|secret| proof::server_mac(secret, &nonce, &SERVER_NONCE, join_mac, &joined()));
            give(&mut client, &ServerMessage::Joined { joined: joined(), mac }).map_err(|error| error.kind())
        };
        assert_eq!(outcome(Some(SECRET)), Ok(()));
        assert_eq!(outcome(Some(b"another secret!!")), Err(ErrorKind::Auth));
        assert_eq!(outcome(None), Err(ErrorKind::Auth));
    }

    #[test]
    fn messages_out_of_turn_and_strange_ranks_are_errors() {
        let mut client = Client::new(request()).unwrap();
        let mut bytes = Vec::new();
        protocol::put_preamble(&mut bytes, &[2; 16]);
        client.receive(&bytes).unwrap();
        assert!(give(&mut client, &ServerMessage::Joined { joined: joined(), mac: None }).is_err());
        for rank in [1, 4, u32::MAX] {
            let (mut client, _) = member();
            assert!(give(&mut client, &ServerMessage::Offer { rank }).is_err(), "rank {rank}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(garbage in proptest::collection::vec(any::<u8>(), 0..400), greeted: bool) {
            let mut client = if greeted { member().0 } else { Client::new(request()).unwrap() };
            if let Err(error) = client.receive(&garbage) {
                prop_assert_ne!(error.kind(), ErrorKind::Internal);
            }
        }
    }

    #[test]
    fn a_server_that_makes_us_answer_and_does_not_read_is_given_up() {
        let (mut client, _) = member();
        let error = (0..2 * MAX_OUTGOING).find_map(|_| {
            client.ready(2);
            give(&mut client, &ServerMessage::Offer { rank: 2 }).err()
        });
        assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::Protocol));
    }

    #[test]
    fn a_kind_from_the_future_is_ignored() {
        let (mut client, _) = member();
        client.receive(&[2, 0, 0xee, 1]).unwrap();
        assert_eq!(client.next_event(), None);
    }
}

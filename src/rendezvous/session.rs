//! One connection as the rendezvous server sees it: the handshake, and after
//! it the member's messages. Without a socket and without a clock.

use std::net::SocketAddr;

use super::protocol::{
    self, ClientMessage, Decoder, Hash, Join, MAX_PRIVATE, Membership, Nonce, Refusal, ServerMessage, proof,
};
use super::registry::{ConnectionId, Refused, Registry};

/// What the server asks of newcomers.
#[derive(Clone, Default)]
pub(crate) struct Admission {
    pub(crate) secret: Option<Vec<u8>>,
    /// Whether those without the secret are refused.
    pub(crate) required: bool,
}

/// Whether one more member of each sort can be had.
#[derive(Clone, Copy)]
pub(crate) struct Room {
    pub(crate) authenticated: bool,
    pub(crate) strangers: bool,
}

/// The random bytes that a handshake uses.
#[derive(Clone, Copy)]
pub(crate) struct Fresh {
    pub(crate) nonce: Nonce,
    pub(crate) membership: Membership,
}

pub(crate) struct Session {
    connection: ConnectionId,
    peer: SocketAddr,
    fresh: Fresh,
    decoder: Decoder,
    phase: Phase,
}

#[derive(Clone, Copy)]
enum Phase {
    Greeting,
    Challenged {
        nonce: Nonce,
    },
    Member {
        authenticated: bool,
    },
    /// It has left.
    Over,
}

impl Session {
    pub(crate) fn new(connection: ConnectionId, peer: SocketAddr, fresh: Fresh) -> Self {
        Self { connection, peer, fresh, decoder: Decoder::new(), phase: Phase::Greeting }
    }

    /// Whether it is a member; `Some(true)` if it has proved the secret.
    pub(crate) fn membership(&self) -> Option<bool> {
        match self.phase {
            Phase::Member { authenticated } => Some(authenticated),
            _ => None,
        }
    }

    /// Whether the client has left in order, so that nothing is to come.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Takes what the client sent. What it is sent in turn is appended to
    /// `out`; it goes before what the registry puts out for it.
    ///
    /// # Errors
    ///
    /// The refusal after which the connection is to be closed.
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        registry: &mut Registry,
        admission: &Admission,
        room: Room,
        out: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        self.decoder.push(bytes);
        loop {
            let message = match self.decoder.next_frame() {
                Ok(None) => return Ok(()),
                Ok(Some(frame)) => ClientMessage::decode(&frame),
                Err(error) => Err(error),
            };
            match message.map_err(|error| Refused::new(Refusal::Protocol, error.message()))? {
                Some(message) => self.handle(message, registry, admission, room, out)?,
                // A newer client keeps to what it has in common with us until
                // it is a member.
                None if self.membership().is_none() && !self.is_over() => return Err(out_of_turn()),
                None => {}
            }
        }
    }

    /// Appends the answer to a client that is refused. Who does not speak our
    /// protocol is told nothing: it would take our words for its own.
    pub(crate) fn refuse(&self, refused: Refused, out: &mut Vec<u8>) {
        if !self.decoder.is_ours() {
            return;
        }
        if matches!(self.phase, Phase::Greeting) {
            protocol::put_preamble(out, &self.fresh.nonce);
        }
        let Refused { refusal, text } = refused;
        ServerMessage::Refused { refusal, text }.encode(out);
    }

    fn handle(
        &mut self,
        message: ClientMessage,
        registry: &mut Registry,
        admission: &Admission,
        room: Room,
        out: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        match (self.phase, message) {
            (Phase::Greeting, ClientMessage::Hello { nonce }) => {
                protocol::put_preamble(out, &self.fresh.nonce);
                ServerMessage::Challenge {
                    nonce: self.fresh.nonce,
                    secret_known: admission.secret.is_some(),
                    secret_required: admission.required,
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                }
                .encode(out);
                self.phase = Phase::Challenged { nonce };
                Ok(())
            }
            (Phase::Challenged { nonce }, ClientMessage::Join { join, mac }) => {
                self.join(nonce, join, None, mac, registry, admission, room, out)
            }
            (Phase::Challenged { nonce }, ClientMessage::Rejoin { join, membership, mac }) => {
                self.join(nonce, join, Some(membership), mac, registry, admission, room, out)
            }
            (Phase::Member { .. }, ClientMessage::Connect { rank }) => {
                registry.connect(self.connection, rank)
            }
            (Phase::Member { .. }, ClientMessage::Ready { rank }) => registry.ready(self.connection, rank),
            (Phase::Member { .. }, ClientMessage::Link { rank, alive }) => {
                registry.link(self.connection, rank, alive)
            }
            (Phase::Member { .. }, ClientMessage::Abort { notice }) => {
                registry.abort(self.connection, notice)
            }
            (Phase::Member { .. }, ClientMessage::Leave) => {
                registry.leave(self.connection);
                self.phase = Phase::Over;
                Ok(())
            }
            _ => Err(out_of_turn()),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one message and of its answer")]
    fn join(
        &mut self,
        nonce: Nonce,
        join: Join,
        previous: Option<Membership>,
        mac: Option<Hash>,
        registry: &mut Registry,
        admission: &Admission,
        room: Room,
        out: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        if join.private.len() > MAX_PRIVATE || !join.private.iter().all(protocol::is_private) {
            return Err(Refused::new(Refusal::Protocol, "a private address of the join is not private"));
        }
        let proof = match (&admission.secret, mac) {
            (Some(secret), Some(mac)) => {
                let (server, previous) = (&self.fresh.nonce, previous.as_ref());
                if !proof::client_mac_is_right(secret, &nonce, server, &join, previous, &mac) {
                    return Err(Refused::new(Refusal::Auth, "the job secret is wrong (FMI_SECRET)"));
                }
                Some((secret, mac))
            }
            (None, Some(_)) => return Err(Refused::new(Refusal::Auth, "this server has no job secret")),
            (_, None) if admission.required => {
                return Err(Refused::new(Refusal::Auth, "this server requires the job secret (FMI_SECRET)"));
            }
            (_, None) => None,
        };
        let authenticated = proof.is_some();
        // Asked before it is a member: one that were put out again would count
        // as lost, and take its epoch along.
        if !(if authenticated { room.authenticated } else { room.strangers }) {
            return Err(Refused::new(Refusal::Full, "this server has no room for more ranks"));
        }
        let fresh = self.fresh.membership;
        let joined = registry.join(self.connection, join, previous, authenticated, self.peer, fresh)?;
        let mac =
            proof.map(|(secret, mac)| proof::server_mac(secret, &nonce, &self.fresh.nonce, &mac, &joined));
        ServerMessage::Joined { joined, mac }.encode(out);
        self.decoder.allow_long_frames();
        self.phase = Phase::Member { authenticated };
        Ok(())
    }
}

fn out_of_turn() -> Refused {
    Refused::new(Refusal::Protocol, "a message out of turn")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use proptest::prelude::*;

    use super::super::client::{Client, Event, JoinRequest, Missing, Reason};
    use super::super::registry::{End, Output};
    use super::*;
    use crate::error::ErrorKind;

    const ROOM: Room = Room { authenticated: true, strangers: true };

    /// A server and its clients, joined by queues instead of sockets.
    struct World {
        admission: Admission,
        registry: Registry,
        pairs: BTreeMap<ConnectionId, Pair>,
        next: ConnectionId,
    }

    struct Pair {
        client: Client,
        session: Session,
        to_client: Vec<u8>,
        broken: bool,
    }

    fn request(rank: u32, size: u32, secret: Option<&[u8]>) -> JoinRequest {
        JoinRequest {
            name: "job".into(),
            job_id: Some("id".into()),
            rank,
            size,
            private_endpoints: vec![format!("10.0.0.1:{}", 100 + rank).parse().unwrap()],
            host_id: u64::from(rank % 2),
            fingerprint: 0,
            secret: secret.map(Into::into),
        }
    }

    impl World {
        fn new(admission: Admission) -> Self {
            Self { admission, registry: Registry::default(), pairs: BTreeMap::new(), next: 0 }
        }

        fn open(&mut self, client: Client) -> ConnectionId {
            self.next += 1;
            let id = self.next;
            let byte = id as u8;
            let fresh =
                Fresh { nonce: [byte; 16], membership: Membership { epoch: [byte; 16], token: [byte; 16] } };
            let session = Session::new(id, format!("9.9.9.9:{id}").parse().unwrap(), fresh);
            self.pairs.insert(id, Pair { client, session, to_client: Vec::new(), broken: false });
            id
        }

        fn client(&mut self, id: ConnectionId) -> &mut Client {
            &mut self.pairs.get_mut(&id).unwrap().client
        }

        /// Moves up to `most` bytes from client to server.
        fn serve(&mut self, id: ConnectionId, most: usize) {
            let pair = self.pairs.get_mut(&id).unwrap();
            let bytes = pair.client.outgoing()[..most.min(pair.client.outgoing().len())].to_vec();
            pair.client.advance(bytes.len());
            if pair.broken {
                return;
            }
            let result =
                pair.session.receive(&bytes, &mut self.registry, &self.admission, ROOM, &mut pair.to_client);
            if let Err(refused) = result {
                pair.session.refuse(refused, &mut pair.to_client);
                pair.broken = true;
                self.registry.closed(id, End::Closed, Instant::now());
            }
            while let Some(output) = self.registry.next_output() {
                match output {
                    Output::Send(to, message) => {
                        message.encode(&mut self.pairs.get_mut(&to).unwrap().to_client)
                    }
                    Output::Close(old) => self.pairs.get_mut(&old).unwrap().broken = true,
                    Output::Log(_) => {}
                }
            }
        }

        /// Moves up to `most` bytes from server to client.
        fn deliver(&mut self, id: ConnectionId, most: usize) -> crate::Result<()> {
            let pair = self.pairs.get_mut(&id).unwrap();
            let bytes: Vec<u8> = pair.to_client.drain(..most.min(pair.to_client.len())).collect();
            pair.client.receive(&bytes)
        }

        /// Until nothing moves.
        fn settle(&mut self) -> crate::Result<()> {
            loop {
                let moving = |pair: &Pair| !pair.to_client.is_empty() || !pair.client.outgoing().is_empty();
                let ids: Vec<_> =
                    self.pairs.iter().filter(|(_, pair)| moving(pair)).map(|(id, _)| *id).collect();
                if ids.is_empty() {
                    return Ok(());
                }
                for id in ids {
                    self.serve(id, usize::MAX);
                    self.deliver(id, usize::MAX)?;
                }
            }
        }

        fn events(&mut self, id: ConnectionId) -> Vec<Event> {
            std::iter::from_fn(|| self.client(id).next_event()).collect()
        }
    }

    fn secret() -> Option<&'static [u8]> {
        Some(b"0123456789abcdef")
    }

    #[test]
    fn two_ranks_with_a_secret_find_each_other() {
        let mut world = World::new(Admission { secret: secret().map(Into::into), required: true });
        let zero = world.open(Client::new(request(0, 2, secret())).unwrap());
        world.client(zero).connect(1);
        world.settle().unwrap();
        assert!(matches!(
            world.events(zero)[..],
            [Event::Joined { ranks_on_host: 1, .. }, Event::NotYet { rank: 1, missing: Missing::NotJoined }]
        ));
        let one = world.open(Client::new(request(1, 2, secret())).unwrap());
        world.settle().unwrap();
        assert!(matches!(world.events(one)[..], [Event::Joined { .. }, Event::Offer { rank: 0 }]));
        world.client(one).ready(0);
        world.settle().unwrap();
        let candidates = vec!["10.0.0.1:100".parse().unwrap(), "9.9.9.9:1".parse().unwrap()];
        assert_eq!(world.events(one), [Event::Go { rank: 0, candidates, ranks_on_host: 1 }]);
        assert_eq!(world.client(zero).epoch(), world.client(one).epoch());
        assert!(world.client(one).is_member());
        assert_eq!(world.client(zero).missing(1), None);
    }

    #[test]
    fn leaving_and_dying_are_told_apart() {
        let mut world = World::new(Admission::default());
        let ids: Vec<_> =
            (0..3).map(|rank| world.open(Client::new(request(rank, 3, None)).unwrap())).collect();
        world.settle().unwrap();
        world.client(ids[0]).connect(1);
        world.client(ids[0]).connect(2);
        world.settle().unwrap();
        world.events(ids[0]);
        world.client(ids[1]).leave();
        world.settle().unwrap();
        assert!(world.pairs[&ids[1]].session.is_over());
        world.registry.closed(ids[1], End::Closed, Instant::now());
        world.registry.closed(ids[2], End::Closed, Instant::now());
        world.serve(ids[0], 0);
        world.settle().unwrap();
        assert_eq!(
            world.events(ids[0]),
            [
                Event::Unreachable { rank: 1, reason: Reason::Left },
                Event::Unreachable { rank: 2, reason: Reason::Lost }
            ]
        );
    }

    #[test]
    fn who_cannot_prove_the_secret_does_not_join() {
        let kind = |admission: Admission, secret: Option<&[u8]>| {
            let mut world = World::new(admission);
            world.open(Client::new(request(0, 2, secret)).unwrap());
            world.settle().err().map(|error| error.kind())
        };
        let known = |required| Admission { secret: secret().map(Into::into), required };
        assert_eq!(kind(known(true), Some(b"another secret!!")), Some(ErrorKind::Auth));
        assert_eq!(kind(known(false), Some(b"another secret!!")), Some(ErrorKind::Auth));
        assert_eq!(kind(known(true), None), Some(ErrorKind::Auth));
        assert_eq!(kind(Admission::default(), secret()), Some(ErrorKind::Auth));
        assert_eq!(kind(known(false), None), None);
        assert_eq!(kind(known(true), secret()), None);
    }

    #[test]
    fn a_client_that_skips_the_check_is_refused_by_the_server() {
        let admission = Admission { secret: secret().map(Into::into), required: true };
        let (mut registry, mut out) = (Registry::default(), Vec::new());
        let membership = Membership { epoch: [1; 16], token: [1; 16] };
        let fresh = Fresh { nonce: [1; 16], membership };
        let mut session = Session::new(1, "9.9.9.9:1".parse().unwrap(), fresh);
        let mut bytes = Vec::new();
        protocol::put_preamble(&mut bytes, &[2; 16]);
        ClientMessage::Hello { nonce: [2; 16] }.encode(&mut bytes);
        let join = Join {
            job: [0; 32],
            job_id: None,
            rank: 0,
            size: 2,
            host_id: 0,
            fingerprint: 0,
            private: Vec::new(),
        };
        ClientMessage::Join { join, mac: None }.encode(&mut bytes);
        let refused = session.receive(&bytes, &mut registry, &admission, ROOM, &mut out).unwrap_err();
        assert_eq!(refused.refusal, Refusal::Auth);
        assert_eq!(session.membership(), None);
    }

    #[test]
    fn nobody_can_point_a_job_at_a_stranger() {
        let (mut registry, mut out) = (Registry::default(), Vec::new());
        let membership = Membership { epoch: [1; 16], token: [1; 16] };
        let fresh = Fresh { nonce: [1; 16], membership };
        let mut session = Session::new(1, "9.9.9.9:1".parse().unwrap(), fresh);
        let mut bytes = Vec::new();
        protocol::put_preamble(&mut bytes, &[2; 16]);
        ClientMessage::Hello { nonce: [2; 16] }.encode(&mut bytes);
        let join = Join {
            job: [0; 32],
            job_id: None,
            rank: 0,
            size: 2,
            host_id: 0,
            fingerprint: 0,
            private: vec!["8.8.8.8:80".parse().unwrap()],
        };
        ClientMessage::Join { join, mac: None }.encode(&mut bytes);
        let refused =
            session.receive(&bytes, &mut registry, &Admission::default(), ROOM, &mut out).unwrap_err();
        assert_eq!(refused.refusal, Refusal::Protocol);
    }

    /// What a client that sends `bytes` first is told when it is refused.
    fn refusal_of(bytes: &[u8]) -> Vec<u8> {
        let membership = Membership { epoch: [1; 16], token: [1; 16] };
        let fresh = Fresh { nonce: [1; 16], membership };
        let mut session = Session::new(1, "9.9.9.9:1".parse().unwrap(), fresh);
        let mut out = Vec::new();
        let refused = session
            .receive(bytes, &mut Registry::default(), &Admission::default(), ROOM, &mut out)
            .err()
            .unwrap_or_else(|| Refused::new(Refusal::Protocol, "too slow"));
        session.refuse(refused, &mut out);
        out
    }

    #[test]
    fn a_refusal_can_be_read_however_early_it_comes() {
        let mut hello = Vec::new();
        protocol::put_preamble(&mut hello, &[2; 16]);
        let preamble = hello.len();
        ClientMessage::Hello { nonce: [2; 16] }.encode(&mut hello);
        let newer = [&protocol::MAGIC[..], &[protocol::MAJOR + 1, 0]].concat();
        let garbage = [&hello[..preamble], &[0xff; 20]].concat();
        let early = [&hello[..1], &hello[..preamble], &hello[..preamble + 5], &newer, &garbage];
        for bytes in early {
            let mut client = Client::new(request(0, 2, None)).unwrap();
            let error = client.receive(&refusal_of(bytes)).unwrap_err();
            assert!(error.message().contains("the rendezvous server refused"), "{error}");
        }
        for stranger in [&b""[..], b"pairing-name", b"\xf5FMX", b"\x16\x03\x01"] {
            assert_eq!(refusal_of(stranger), b"", "it would take our words for its own");
        }
    }

    proptest! {
        /// Whatever the order in which bytes move and ranks ask: when all have
        /// asked for all and answered all offers, each pair has had its GO.
        #[test]
        fn every_pair_that_wants_gets_go(
            size in 2u32..6,
            steps in proptest::collection::vec((any::<u32>(), any::<u32>(), 1usize..80, 0u8..5), 0..300),
        ) {
            let mut world = World::new(Admission::default());
            let ids: Vec<_> =
                (0..size).map(|rank| world.open(Client::new(request(rank, size, None)).unwrap())).collect();
            let mut gone = vec![std::collections::BTreeSet::new(); size as usize];
            let mut take = |world: &mut World, rank: u32| {
                for event in world.events(ids[rank as usize]) {
                    match event {
                        Event::Offer { rank: from } => world.client(ids[rank as usize]).ready(from),
                        Event::Go { rank: peer, .. } => {
                            gone[rank as usize].insert(peer);
                        }
                        Event::Joined { .. } | Event::NotYet { .. } => {}
                        other => panic!("{other:?}"),
                    }
                }
            };
            for (a, b, most, what) in steps {
                let (a, b) = (a % size, b % size);
                match what {
                    0 if a != b => world.client(ids[a as usize]).connect(b),
                    1 => take(&mut world, a),
                    2 | 3 => world.serve(ids[a as usize], most),
                    _ => world.deliver(ids[a as usize], most).unwrap(),
                }
            }
            for rank in 0..size {
                for peer in (0..size).filter(|peer| *peer != rank) {
                    world.client(ids[rank as usize]).connect(peer);
                }
            }
            for _ in 0..2 * size {
                world.settle().unwrap();
                (0..size).for_each(|rank| take(&mut world, rank));
            }
            for rank in 0..size {
                prop_assert_eq!(gone[rank as usize].len() as u32, size - 1);
                for peer in (0..size).filter(|peer| *peer != rank) {
                    prop_assert_eq!(world.client(ids[rank as usize]).missing(peer), None);
                }
            }
        }

        #[test]
        fn garbage_is_refused_and_never_panics(garbage in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut world = World::new(Admission::default());
            let id = world.open(Client::new(request(0, 2, None)).unwrap());
            world.settle().unwrap();
            let pair = world.pairs.get_mut(&id).unwrap();
            let _ = pair.session.receive(&garbage, &mut world.registry, &world.admission, ROOM, &mut Vec::new());
        }
    }
}

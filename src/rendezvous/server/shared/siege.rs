//! Whatever comes, in whatever pieces and whatever order: nothing panics, the
//! bounds hold, and nothing is kept of who is gone. `make soak` tries it longer.

use proptest::prelude::*;

use super::super::tests::request;
use super::*;
use crate::engine::frame::AbortNotice;
use crate::error::ErrorKind;
use crate::rendezvous::client::{Client, JoinRequest};

const SECRET: &[u8] = b"0123456789abcdef";

/// What happens to a server, in small numbers.
#[derive(Clone, Debug)]
enum Step {
    Connect {
        source: u8,
        kind: u8,
        rank: u32,
        size: u32,
    },
    /// So many bytes go from the client of a link to the server, or back.
    Talk {
        link: usize,
        most: usize,
    },
    Hear {
        link: usize,
        most: usize,
    },
    Garbage {
        link: usize,
        bytes: Vec<u8>,
    },
    Say {
        link: usize,
        what: u8,
        rank: u32,
    },
    Deadline {
        link: usize,
    },
    End {
        link: usize,
        unknown: bool,
    },
    Evict {
        count: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let link = 0usize..12;
    prop_oneof![
        4 => (0u8..4, 0u8..5, 0u32..4, 2u32..4)
            .prop_map(|(source, kind, rank, size)| Step::Connect { source, kind, rank, size }),
        12 => (link.clone(), 1usize..200).prop_map(|(link, most)| Step::Talk { link, most }),
        8 => (link.clone(), 1usize..200).prop_map(|(link, most)| Step::Hear { link, most }),
        1 => (link.clone(), proptest::collection::vec(any::<u8>(), 1..200))
            .prop_map(|(link, bytes)| Step::Garbage { link, bytes }),
        12 => (link.clone(), 0u8..12, 0u32..4).prop_map(|(link, what, rank)| Step::Say { link, what, rank }),
        2 => link.clone().prop_map(|link| Step::Deadline { link }),
        2 => (link, any::<bool>()).prop_map(|(link, unknown)| Step::End { link, unknown }),
        1 => (1usize..3).prop_map(|count| Step::Evict { count }),
    ]
}

/// The other end of a link.
struct Peer {
    id: ConnectionId,
    client: Option<(Client, u32, u32)>,
    name: &'static [u8],
    /// All that it was sent.
    heard: Vec<u8>,
}

struct Siege {
    shared: Shared,
    peers: Vec<Peer>,
}

/// Bytes for all sources.
const ALLOWANCE: usize = 16_000;
const SIEGE: Limits = Limits {
    handshake: Duration::from_secs(5),
    handshakes: 6,
    handshakes_per_source: 3,
    partner: Duration::from_secs(5),
    waiting: 4,
    waiting_per_source: 2,
    members: 8,
    strangers: 6,
    strangers_per_source: 3,
    unread: 600,
};

impl Siege {
    fn new() -> Self {
        let options = ServerOptions { limits: SIEGE, ..ServerOptions::default() };
        let mut shared = Shared::new(options.secret(SECRET));
        shared.registry.allowances = Allowances::new(ALLOWANCE / 2, ALLOWANCE);
        Self { shared, peers: Vec::new() }
    }

    fn take(&mut self, step: Step) {
        let shared = &mut self.shared;
        let count = self.peers.len().max(1);
        match step {
            Step::Connect { source, kind, rank, size } => {
                let address = match source {
                    3 => format!("[2001:db8::1]:{}", 1 + self.peers.len()),
                    _ => format!("9.9.9.{source}:{}", 1 + self.peers.len()),
                };
                let (id, _) = shared.admit(address.parse().unwrap()).unwrap();
                let secret = (kind == 1).then(|| SECRET.to_vec());
                let (name, host_id) = ("job".into(), u64::from(rank % 2));
                let request = JoinRequest { name, rank: rank % size, size, host_id, secret, ..request() };
                let client = (kind < 3).then(|| (Client::new(request).unwrap(), rank % size, size));
                let name: &[u8] = if kind == 3 { b"name" } else { b"names" };
                self.peers.push(Peer { id, client, name, heard: Vec::new() });
            }
            Step::Talk { link, most } => {
                let Some(peer) = self.peers.get_mut(link % count) else { return };
                match &mut peer.client {
                    Some((client, ..)) => {
                        let bytes = client.outgoing()[..most.min(client.outgoing().len())].to_vec();
                        client.advance(bytes.len());
                        shared.receive(peer.id, &bytes);
                    }
                    None => {
                        let (now, later) = peer.name.split_at(most.min(peer.name.len()));
                        peer.name = later;
                        shared.receive(peer.id, now);
                    }
                }
            }
            Step::Hear { link, most } => {
                let Some(peer) = self.peers.get_mut(link % count) else { return };
                let Shared { links, registry, .. } = shared;
                let Some(link) = links.get_mut(&peer.id) else { return };
                let bytes = link.outgoing[..most.min(link.outgoing.len())].to_vec();
                link.advance(bytes.len(), &mut registry.allowances);
                peer.heard.extend_from_slice(&bytes);
                if let Some((client, ..)) = &mut peer.client {
                    // It may have been refused.
                    let _ = client.receive(&bytes);
                }
            }
            Step::Garbage { link, bytes } => {
                let Some(peer) = self.peers.get(link % count) else { return };
                shared.receive(peer.id, &bytes);
            }
            Step::Say { link, what, rank } => {
                let Some(peer) = self.peers.get_mut(link % count) else { return };
                let Some((client, own, size)) = &mut peer.client else { return };
                match what {
                    0 => client.leave(),
                    1 => client.abort(AbortNotice {
                        context: rank.into(),
                        cause: ErrorKind::Timeout,
                        cause_rank: rank,
                        about: None,
                        code: 7,
                        operation: 21,
                    }),
                    2..=4 => client.ready(rank),
                    5 => client.report_link(rank, size.is_multiple_of(2)),
                    _ if rank != *own && rank < *size => client.connect(rank),
                    _ => {}
                }
            }
            Step::Deadline { link } => {
                let Some(peer) = self.peers.get(link % count) else { return };
                if let Some(deadline) = shared.links.get(&peer.id).and_then(|link| link.deadline) {
                    shared.expire(peer.id, Some(deadline));
                }
            }
            Step::End { link, unknown } => {
                let Some(peer) = self.peers.get(link % count) else { return };
                shared.forget(peer.id, if unknown { End::Unknown } else { End::Closed });
            }
            Step::Evict { count } => shared.evict(count),
        }
    }

    /// What holds at every moment.
    fn check(&self) {
        let Shared { links, sources, waiting, registry, .. } = &self.shared;
        let class = |class| links.values().filter(|link| link.class == class).count();
        let (strangers, proven) =
            (class(Class::Member { authenticated: false }), class(Class::Member { authenticated: true }));
        assert_eq!((self.shared.strangers, self.shared.members), (strangers, strangers + proven));
        let sum = |of: fn(&Source) -> usize| sources.values().map(of).sum::<usize>();
        assert_eq!(sum(|source| source.strangers), strangers);
        assert_eq!(sum(|source| source.handshakes.len()), self.shared.handshakes.len());
        assert_eq!(sum(|source| source.waiting.len()), self.shared.waits);
        assert!(sources.values().all(|source| !source.is_empty()));

        let open = |link: &&Link| link.state == LinkState::Open;
        let waits = |link: &&Link| matches!((link.class, &link.speech), (Class::Waiting, Speech::Name(_)));
        let waits = links.values().filter(open).filter(waits).count();
        assert_eq!(waiting.as_ref().unwrap().len(), waits);
        assert!(waits <= SIEGE.waiting && self.shared.handshakes.len() <= SIEGE.handshakes);
        assert!(strangers + proven <= SIEGE.members && strangers <= SIEGE.strangers);
        for source in sources.values() {
            assert!(source.handshakes.len() <= SIEGE.handshakes_per_source);
            assert!(source.strangers <= SIEGE.strangers_per_source);
        }
        for link in links.values() {
            assert!(link.outgoing.len() <= SIEGE.unread + 2 * MAX_FRAME);
            let member = matches!(link.class, Class::Member { .. });
            assert!(link.state != LinkState::Open || link.deadline.is_none() == member);
        }
        let unread: usize = links.values().map(|link| link.taken).sum();
        assert_eq!(registry.check() + unread, registry.allowances.in_all());
        assert!(registry.allowances.in_all() <= ALLOWANCE);
    }

    fn end(mut self) {
        for peer in &self.peers {
            self.shared.forget(peer.id, End::Closed);
        }
        self.shared.tick(Instant::now() + Duration::from_secs(1));
        self.shared.registry.expire(Instant::now() + Duration::from_secs(86400));
        assert!(self.shared.links.is_empty() && self.shared.sources.is_empty());
        assert!(self.shared.registry.is_empty());
        assert_eq!(self.shared.registry.allowances.in_all(), 0);
        for peer in self.peers.iter().filter(|peer| peer.client.is_none()) {
            // Endpoints, or the refusal of one whose garbage looked like ours.
            let heard = peer.heard.as_slice();
            assert!(matches!(heard.len(), 0..=16) || heard.starts_with(&MAGIC), "{heard:?}");
        }
    }
}

proptest! {
    #[test]
    fn a_siege_leaves_nothing_behind(steps in proptest::collection::vec(step(), 0..300)) {
        let mut siege = Siege::new();
        for step in steps {
            siege.take(step);
            siege.check();
        }
        siege.end();
    }
}

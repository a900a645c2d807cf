//! Who is given up, whatever is cut and dies in whatever order.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::liveness::SUSPICION;
use super::*;

/// Ranks that all are connected to the server and linked in pairs, until they
/// are cut off from it, die, and come back; and what they know.
struct Job {
    bench: Bench,
    now: Instant,
    connections: ConnectionId,
    /// The connection that is being made.
    newcomer: Option<ConnectionId>,
    ranks: Vec<Rank>,
    links: BTreeSet<(u32, u32)>,
}

struct Rank {
    membership: Membership,
    /// `None` = cut off.
    connection: Option<ConnectionId>,
    is_dead: bool,
    is_lost: bool,
    /// What the server has asked.
    suspects: Vec<u32>,
    /// Links that have broken.
    broken: BTreeSet<u32>,
}

impl Job {
    fn new(size: u32, links: impl Iterator<Item = (u32, u32)>) -> Self {
        let mut bench = Bench::default();
        let ranks = (0..size).map(|rank| Rank {
            membership: bench.join(u64::from(rank), rank, size).membership,
            connection: Some(rank.into()),
            is_dead: false,
            is_lost: false,
            suspects: Vec::new(),
            broken: BTreeSet::new(),
        });
        let ranks = ranks.collect();
        let links: BTreeSet<_> = links.filter(|(a, b)| a < b).collect();
        for &(a, b) in &links {
            bench.connect(a.into(), b);
            bench.connect(b.into(), a);
        }
        Self { bench, now: Instant::now(), connections: size.into(), newcomer: None, ranks, links }
    }

    fn is_linked(&self, a: u32, b: u32) -> bool {
        self.links.contains(&(a.min(b), a.max(b)))
    }

    /// The connection to the server ends; the rank may have died.
    fn cut(&mut self, rank: u32, dies: bool) {
        let this = &mut self.ranks[rank as usize];
        let connection = this.connection.take();
        if dies && !std::mem::replace(&mut this.is_dead, true) {
            for peer in
                (0..self.ranks.len() as u32).filter(|peer| self.is_linked(*peer, rank)).collect::<Vec<_>>()
            {
                self.links.remove(&(peer.min(rank), peer.max(rank)));
                self.ranks[peer as usize].broken.insert(rank);
                self.tell(peer, rank, false);
            }
        }
        if let Some(connection) = connection {
            self.bench.registry.closed(connection, End::Closed, self.now);
        }
        self.deliver();
    }

    fn come_back(&mut self, rank: u32) {
        let this = &mut self.ranks[rank as usize];
        if this.is_dead || this.connection.is_some() {
            return;
        }
        self.connections += 1;
        let (connection, size) = (self.connections, self.ranks.len() as u32);
        let membership = self.ranks[rank as usize].membership;
        // One that was declared lost is refused.
        if self.bench.rejoin(connection, join_of(rank, size), membership).is_ok() {
            self.ranks[rank as usize].connection = Some(connection);
            self.newcomer = Some(connection);
            self.deliver();
            self.newcomer = None;
            for broken in self.ranks[rank as usize].broken.clone() {
                self.tell(rank, broken, false);
            }
        }
        self.deliver();
    }

    /// The ranks answer what they were asked.
    fn answer(&mut self) {
        for rank in 0..self.ranks.len() as u32 {
            for suspect in std::mem::take(&mut self.ranks[rank as usize].suspects) {
                self.tell(rank, suspect, self.is_linked(rank, suspect));
            }
        }
        self.deliver();
    }

    fn tell(&mut self, rank: u32, about: u32, alive: bool) {
        let Rank { connection, is_dead, .. } = self.ranks[rank as usize];
        if let (Some(connection), false) = (connection, is_dead) {
            self.bench.link(connection, about, alive);
        }
    }

    fn pass_time(&mut self) {
        self.now += SUSPICION / 2;
        self.bench.registry.tick(self.now);
        self.deliver();
    }

    /// Takes what the server says, and sees whether it is right.
    fn deliver(&mut self) {
        for (connection, message) in self.bench.sent() {
            match message {
                ServerMessage::Suspect { rank } => {
                    let asked = self.ranks.iter_mut().find(|asked| asked.connection == Some(connection));
                    if let Some(asked) = asked {
                        asked.suspects.push(rank);
                    }
                }
                ServerMessage::Unreachable { rank, reason } => {
                    assert_eq!(reason, Reason::Lost);
                    self.ranks[rank as usize].is_lost = true;
                    // Who comes back hears what was decided without it.
                    if self.newcomer == Some(connection) {
                        continue;
                    }
                    let speaks_for_it = |peer: &u32| {
                        self.is_linked(*peer, rank) && self.ranks[*peer as usize].connection.is_some()
                    };
                    let witness = (0..self.ranks.len() as u32).find(speaks_for_it);
                    assert_eq!(witness, None, "rank {rank} was given up, but has a live link");
                }
                _ => {}
            }
        }
    }
}

proptest! {
    /// Whatever is cut and dies in whatever order, as long as ranks that are
    /// connected answer in time: nobody with a live link to one of them is
    /// given up, and in the end all that died are.
    #[test]
    fn the_dead_are_given_up_and_the_living_are_not(
        size in 2u32..6,
        links in proptest::collection::vec((0u32..6, 0u32..6), 0..12),
        steps in proptest::collection::vec((0u8..8, 0u32..6), 0..40),
    ) {
        let mut job = Job::new(size, links.into_iter().filter(|(a, b)| *a < size && *b < size));
        job.deliver();
        for (what, rank) in steps {
            let rank = rank % size;
            match what {
                0 => job.cut(rank, true),
                1..=3 => job.cut(rank, false),
                4..=5 => job.come_back(rank),
                6 => job.answer(),
                _ => {
                    job.answer();
                    job.pass_time();
                }
            }
        }
        (0..size).for_each(|rank| job.come_back(rank));
        for _ in 0..4 {
            job.answer();
            job.pass_time();
        }
        let is_heard = job.ranks.iter().filter(|rank| rank.connection.is_some()).count() > 0;
        for rank in job.ranks.iter().filter(|rank| rank.is_dead && is_heard) {
            prop_assert!(rank.is_lost, "a dead rank is not given up");
        }
    }
}

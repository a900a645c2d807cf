//! The registry alone: events go in, and the messages that come out are compared.

mod bounds;
mod joining;
mod links;
mod liveness;
mod schedules;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::*;
use crate::error::ErrorKind;
use crate::rendezvous::protocol::{Join, Joined, Membership};

/// A registry whose members are named by their connection.
#[derive(Default)]
struct Bench {
    registry: Registry,
    fresh: u8,
}

impl Bench {
    fn fresh(&mut self) -> Membership {
        self.fresh += 1;
        Membership { epoch: [self.fresh; 16], token: [self.fresh; 16] }
    }

    fn join_with(&mut self, connection: ConnectionId, join: Join) -> Result<Joined, Refused> {
        let fresh = self.fresh();
        self.registry.join(connection, join, None, false, public_of(connection), fresh)
    }

    fn join(&mut self, connection: ConnectionId, rank: u32, size: u32) -> Joined {
        self.join_with(connection, join_of(rank, size)).unwrap()
    }

    fn rejoin(
        &mut self,
        connection: ConnectionId,
        join: Join,
        membership: Membership,
    ) -> Result<Joined, Refused> {
        let fresh = self.fresh();
        self.registry.join(connection, join, Some(membership), false, public_of(connection), fresh)
    }

    fn close(&mut self, connection: ConnectionId) {
        self.registry.closed(connection, End::Closed, Instant::now());
    }

    /// A job of `size` whose ranks are connected each with each; rank r is
    /// behind connection 10 + r.
    fn meshed(size: u32) -> Self {
        let mut bench = Self::default();
        for rank in 0..size {
            bench.join(10 + u64::from(rank), rank, size);
            for peer in 0..rank {
                bench.connect(10 + u64::from(peer), rank);
                bench.connect(10 + u64::from(rank), peer);
            }
        }
        bench.sent();
        bench
    }

    fn link(&mut self, connection: ConnectionId, about: u32, alive: bool) {
        self.registry.link(connection, about, alive).unwrap();
    }

    fn connect(&mut self, connection: ConnectionId, to: u32) {
        self.registry.connect(connection, to).unwrap();
    }

    /// The messages since the last call, without the log.
    fn sent(&mut self) -> Vec<(ConnectionId, ServerMessage)> {
        std::iter::from_fn(|| self.registry.next_output())
            .filter_map(|output| match output {
                Output::Send(connection, message) => Some((connection, message)),
                Output::Close(_) | Output::Log(_) => None,
            })
            .collect()
    }
}

fn join_of(rank: u32, size: u32) -> Join {
    Join {
        job: [1; 32],
        job_id: None,
        rank,
        size,
        host_id: 0,
        fingerprint: 5,
        private: vec![format!("10.0.0.{rank}:1").parse().unwrap()],
    }
}

fn public_of(connection: ConnectionId) -> SocketAddr {
    format!("1.1.1.1:{}", 1000 + connection).parse().unwrap()
}

fn notice_of(rank: u32) -> AbortNotice {
    AbortNotice {
        context: 1,
        cause: ErrorKind::Timeout,
        cause_rank: rank,
        about: Some(0),
        code: 7,
        operation: 21,
    }
}

fn go(rank: u32, connection: ConnectionId) -> ServerMessage {
    let candidates = vec![format!("10.0.0.{rank}:1").parse().unwrap(), public_of(connection)];
    ServerMessage::Go { rank, ranks_on_host: 2, candidates }
}

fn not_yet(rank: u32, missing: Missing) -> ServerMessage {
    ServerMessage::NotYet { rank, missing }
}

fn unreachable(rank: u32, reason: Reason) -> ServerMessage {
    ServerMessage::Unreachable { rank, reason }
}

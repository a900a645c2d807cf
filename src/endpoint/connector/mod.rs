//! Making links over TCP: with the help of a rendezvous server, ranks learn each
//! other's addresses, and punch their way to each other.
//!
//! Everything is driven from inside FMI calls by [`Connector::service`]; nothing
//! here blocks.
//!
//! | file | what it does |
//! |---|---|
//! | `server.rs` | the connection to the server, in our own protocol |
//! | `tcpunch.rs` | the same with a server of protocol 1 |
//! | `punching.rs` | from two known addresses to a link |
//! | `listener.rs`, `sockets.rs` | the sockets of both |
//! | `resolver.rs` | the server's addresses |

mod listener;
mod punching;
mod resolver;
mod server;
mod sockets;
mod tcpunch;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::poller::Poller;
use crate::config::{DirectSettings, RendezvousProtocol};
use crate::descriptors::Tracked;
use crate::engine::frame::AbortNotice;
use crate::error::{Error, ErrorKind};
use crate::link::tcp::{TcpLink, set_congestion};
use crate::log::Logger;
use crate::rendezvous::client::{Client, Missing, Reason};
use punching::{PortKey, Punched, Punching};
use server::Server;
use tcpunch::Pairs;

const FIRST_BACKOFF: Duration = Duration::from_millis(5);
const LAST_BACKOFF: Duration = Duration::from_millis(200);

/// How long a round of punching takes at most, where nothing else is said; and
/// at least, however little of the deadline is left.
const PUNCH_TIMEOUT: Duration = Duration::from_secs(1);
const SHORTEST_ROUND: Duration = Duration::from_millis(50);

/// After how many rounds in vain a pair fails. A round may fail by chance where
/// both NATs answer by resets, or because a rank left its call in the middle.
const ROUNDS: u32 = 3;

/// What became of the connections that were wanted.
pub(super) enum Outcome {
    Linked {
        peer: u32,
        link: TcpLink,
    },
    /// No link could be made; a later request may try again.
    Failed {
        peer: u32,
        error: Error,
    },
    /// The rank will not come any more.
    Gone {
        peer: u32,
        reason: Reason,
    },
    /// How many ranks of the job run on this host.
    RanksHere(u32),
    /// The collectives failed on another rank.
    Aborted {
        rank: u32,
        notice: AbortNotice,
    },
}

/// Who this rank is.
#[derive(Clone)]
pub(super) struct Membership {
    pub(super) rank: u32,
    pub(super) size: u32,
    pub(super) name: String,
    pub(super) job_id: Option<String>,
    pub(super) fingerprint: u64,
}

/// Which protocol the server speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Unknown,
    /// Ours, version 2.
    Own,
    /// Version 1.
    TcPunch,
}

/// Makes links over TCP, with the help of a rendezvous server.
pub(super) struct Connector {
    settings: DirectSettings,
    membership: Membership,
    logger: Logger,
    dialect: Dialect,
    server: Server,
    /// The server's addresses, as they were found last.
    addresses: Vec<SocketAddr>,
    /// When the server was first tried in vain since it was last reached.
    unreachable_since: Option<Instant>,
    /// Whether a line about the present outage has been logged.
    outage_is_logged: bool,
    backoff: Duration,
    last_error: Option<std::io::Error>,
    /// There will be no links: the server refused us for good, or the kernel does.
    refused: Option<Error>,
    client: Option<Client>,
    /// A failure that a rank without a client is to tell the server.
    untold: Option<AbortNotice>,
    /// The connection before the present one, until that one has joined.
    retired: Option<Tracked<Socket>>,
    /// How often another port was taken.
    renewals: u32,
    /// The port of the connection to the server.
    port: Option<PortKey>,
    /// The pairs that a server of protocol 1 is asked for.
    pairs: Pairs,
    punching: Punching,
    /// Ranks that a link is wanted to.
    wanted: BTreeSet<u32>,
    ranks_here: u32,
    outcomes: VecDeque<Outcome>,
}

impl Connector {
    pub(super) fn new(settings: DirectSettings, membership: Membership, logger: Logger) -> Self {
        let dialect = match settings.protocol {
            RendezvousProtocol::Auto => Dialect::Unknown,
            RendezvousProtocol::TcPunch => Dialect::TcPunch,
            RendezvousProtocol::Own => Dialect::Own,
        };
        let mut connector = Self {
            dialect: Dialect::Unknown,
            server: Server::Idle,
            addresses: Vec::new(),
            unreachable_since: None,
            outage_is_logged: false,
            backoff: FIRST_BACKOFF,
            last_error: None,
            refused: settings.congestion.as_deref().and_then(|name| check_congestion(name).err()),
            client: None,
            untold: None,
            retired: None,
            renewals: 0,
            port: None,
            pairs: Pairs::default(),
            punching: Punching::new(membership.size, logger.clone()),
            wanted: BTreeSet::new(),
            ranks_here: 1,
            outcomes: VecDeque::new(),
            settings,
            membership,
            logger,
        };
        connector.speak(dialect);
        connector
    }

    /// Asks for a link to `peer`; asking twice is asking once.
    pub(super) fn want(&mut self, peer: u32) {
        if let Some(error) = &self.refused {
            self.outcomes.push_back(Outcome::Failed { peer, error: error.clone() });
            return;
        }
        if !self.wanted.insert(peer) {
            return;
        }
        self.ask_server(peer);
        self.approach_server();
    }

    /// Sets out for the server, where it has not been done.
    fn approach_server(&mut self) {
        let is_needed = self.dialect != Dialect::TcPunch || self.addresses.is_empty();
        if matches!(self.server, Server::Idle) && is_needed && self.refused.is_none() {
            self.unreachable_since = None;
            self.server = self.resolve();
        }
    }

    /// Has the server bring us together with `peer`, now or when it is reached.
    fn ask_server(&mut self, peer: u32) {
        match (&mut self.client, self.dialect) {
            (_, Dialect::TcPunch) => self.pairs.ask(peer),
            (Some(client), _) => client.connect(peer),
            (None, _) => {}
        }
    }

    /// Whether there is something to do even where no event has come.
    pub(super) fn is_at_work(&self) -> bool {
        let server_is_settled = matches!(self.server, Server::Idle | Server::Open { .. });
        !server_is_settled
            || !self.wanted.is_empty()
            || self.punching.is_at_work()
            || !self.outcomes.is_empty()
    }

    /// Whether there is something to do at once, of which no event will tell:
    /// before a call sleeps, it is done.
    pub(super) fn has_unfinished_business(&self) -> bool {
        let has_words = self.client.as_ref().is_some_and(|client| !client.outgoing().is_empty());
        matches!(self.server, Server::Resolving(_))
            || has_words && matches!(self.server, Server::Open { .. })
            || self.pairs.is_pressing() && !self.addresses.is_empty()
            || !self.outcomes.is_empty()
    }

    pub(super) fn next_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// When there is something to do even if no event comes.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        let timers = [self.server.next_timer(), self.pairs.next_timer(), self.punching.next_timer()];
        timers.into_iter().flatten().min()
    }

    /// Why there is no link to `peer` yet, and what kind of failure that is when
    /// the deadline passes.
    pub(super) fn explain(&self, peer: u32) -> (ErrorKind, String) {
        if self.punching.is_talking(peer) && !self.punching.has_stalled(peer) {
            let text =
                format!("rank {peer} has not completed the connection; it may be outside of FMI calls");
            return (ErrorKind::Timeout, text);
        }
        if let Some(error) = self.no_path(peer) {
            return (error.kind(), error.message().to_owned());
        }
        let missing = match self.dialect {
            Dialect::TcPunch => self.pairs.is_waiting_for_peer(peer).then(|| {
                format!("rank {peer} has not asked the rendezvous server for this rank (protocol 1)")
            }),
            _ => self.missing_at_server(peer),
        };
        match missing {
            Some(text) => (ErrorKind::Timeout, text),
            None => {
                let DirectSettings { host, port, .. } = &self.settings;
                let why = self.last_error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
                let text = format!("the rendezvous server at {host}:{port} has not answered{why}");
                (ErrorKind::Connect, text)
            }
        }
    }

    /// What our own server says that `peer` has not done yet.
    fn missing_at_server(&self, peer: u32) -> Option<String> {
        let client = self.client.as_ref().filter(|client| client.is_member())?;
        if !matches!(self.server, Server::Open { .. }) {
            return None;
        }
        Some(match client.missing(peer) {
            Some(Missing::NotJoined) => format!("rank {peer} has not joined the job"),
            Some(Missing::NotReady) => format!("rank {peer} has not entered an FMI call"),
            None => format!("rank {peer} has not been asked by the rendezvous server yet"),
        })
    }

    /// What says that all addresses of `peer` were tried in vain.
    fn no_path(&self, peer: u32) -> Option<Error> {
        let report = self.punching.report(peer)?;
        let text = format!(
            "no direct connection between rank {} and rank {peer}: their networks may not let one through \
             ({report})",
            self.membership.rank
        );
        Some(Error::new(ErrorKind::Connect, text))
    }

    /// Tells the other ranks, through the server, that the collectives failed.
    pub(super) fn abort(&mut self, poller: &Poller, notice: AbortNotice) {
        match &mut self.client {
            Some(client) => {
                client.abort(notice);
                self.write_to_server(poller);
            }
            // It joins in order to say so.
            None => {
                self.untold.get_or_insert(notice);
                self.approach_server();
            }
        }
    }

    /// Whether this rank has turned to the server.
    pub(super) fn has_client(&self) -> bool {
        self.client.is_some()
    }

    /// Whether a rank that joins only in order to say that the collectives failed
    /// is about to.
    pub(super) fn is_about_to_tell(&self) -> bool {
        let joins = |client: &Client| !client.has_been_member() && client.has_aborted();
        match &self.client {
            _ if self.refused.is_some() => false,
            Some(client) => joins(client),
            None => self.untold.is_some() && self.dialect != Dialect::TcPunch,
        }
    }

    /// Tells the server whether the link to `peer` lives.
    pub(super) fn report_link(&mut self, poller: &Poller, peer: u32, alive: bool) {
        if let Some(client) = &mut self.client {
            client.report_link(peer, alive);
            self.write_to_server(poller);
        }
    }

    /// The ranks whose links the server has asked about, and waits to hear of.
    pub(super) fn suspects(&self) -> Vec<u32> {
        self.client.iter().flat_map(Client::suspects).collect()
    }

    /// Whether a connection with `peer` stands that may become the link to it.
    pub(super) fn is_pairing_with(&self, peer: u32) -> bool {
        self.punching.is_talking(peer)
    }

    /// Leaves the job: tells the server, as far as it can be told at once.
    pub(super) fn leave(&mut self, poller: &Poller) {
        if let (Some(client), Server::Open { .. }) = (&mut self.client, &self.server) {
            client.leave();
            self.write_to_server(poller);
        }
    }

    /// Does what can be done now: `true` = something moved. `deadline`: of the
    /// call that does it.
    pub(super) fn service(&mut self, poller: &Poller, now: Instant, deadline: Option<Instant>) -> bool {
        let before = self.outcomes.len();
        let mut moved = self.service_server(poller, now, deadline);
        moved |= self.service_pairs(poller, now, deadline);
        moved |= self.punch(poller, now);
        moved || self.outcomes.len() > before
    }

    /// Moves the connections that are being made, and takes those that stand.
    fn punch(&mut self, poller: &Poller, now: Instant) -> bool {
        let moved = self.punching.service(poller, now);
        while let Some(result) = self.punching.next_result() {
            match result {
                Punched::Linked { peer, socket, same_host } => {
                    self.forget(poller, peer);
                    if same_host && self.dialect == Dialect::TcPunch {
                        // Nobody else tells.
                        self.ranks_here += 1;
                        self.outcomes.push_back(Outcome::RanksHere(self.ranks_here));
                    }
                    self.outcomes.push_back(
                        match TcpLink::new(socket, self.settings.congestion.as_deref()) {
                            Ok(link) => Outcome::Linked { peer, link },
                            Err(error) => {
                                let error = Error::io("setting the options of a link", &error);
                                Outcome::Failed { peer, error: error.with_channel("Direct") }
                            }
                        },
                    );
                }
                Punched::Refused { peer, error } => self.fail(poller, peer, error),
                Punched::Exhausted { peer } => self.next_round(poller, peer, now),
            }
        }
        self.punching.clean_up(poller, &self.wanted);
        moved
    }

    /// A round with `peer` has come to nothing.
    fn next_round(&mut self, poller: &Poller, peer: u32, now: Instant) {
        if !self.wanted.contains(&peer) {
            return;
        }
        let is_talking = self.punching.is_talking(peer);
        if self.punching.rounds(peer) < ROUNDS || is_talking {
            if let Some(port) = self.pairs.forget(poller, peer) {
                self.punching.close_port(poller, port);
            }
            if self.punching.has_stalled(peer) {
                self.renew_port(poller, now);
            }
            self.ask_server(peer);
        } else if let Some(error) = self.no_path(peer) {
            self.fail(poller, peer, error);
        }
    }

    /// How long a round that starts now may take.
    fn punch_timeout(&self, now: Instant, deadline: Option<Instant>) -> Duration {
        self.settings.punch_timeout.unwrap_or_else(|| {
            let third =
                deadline.map_or(PUNCH_TIMEOUT, |deadline| deadline.saturating_duration_since(now) / 3);
            third.clamp(SHORTEST_ROUND, PUNCH_TIMEOUT)
        })
    }

    fn forget(&mut self, poller: &Poller, peer: u32) {
        self.wanted.remove(&peer);
        self.punching.forget(poller, peer);
        if let Some(port) = self.pairs.forget(poller, peer) {
            self.punching.close_port(poller, port);
        }
    }

    fn fail(&mut self, poller: &Poller, peer: u32, error: Error) {
        if self.wanted.contains(&peer) {
            self.outcomes.push_back(Outcome::Failed { peer, error });
        }
        self.forget(poller, peer);
    }

    fn fail_all(&mut self, poller: &Poller, error: &Error) {
        for peer in self.wanted.clone() {
            self.fail(poller, peer, error.clone());
        }
    }
}

/// Whether the kernel lets this user have that congestion control: were it refused on
/// a link, the other side would have the link by then.
fn check_congestion(name: &str) -> Result<(), Error> {
    // Without a socket there is nothing to be said of the name.
    let Ok(socket) = Socket::new(Domain::IPV4, Type::STREAM, None).map(Tracked::new) else { return Ok(()) };
    set_congestion(&socket, name).map_err(|error| {
        let what = format!("the congestion control {name:?} (backends.Direct.congestion)");
        Error::io(&what, &error).with_channel("Direct")
    })
}

/// Between half of the time and the whole: ranks that failed together do not
/// come back together.
fn jittered(time: Duration) -> Duration {
    time / 2 + random(time / 2)
}

/// Some time up to this one.
fn random(time: Duration) -> Duration {
    let mut byte = [0u8; 1];
    let _ = getrandom::fill(&mut byte);
    time * u32::from(byte[0]) / 256
}

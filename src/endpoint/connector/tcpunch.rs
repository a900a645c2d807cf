//! Protocol 1 (TCPunch) as a client: a connection to the server for each pair.
//!
//! The client connects from a port that it keeps, and sends the pair's name. The
//! server answers with eight bytes (IPv4 address, port, two bytes of padding):
//! the client's own public endpoint. When a second client has sent the same name,
//! each gets the other's in the same form, and the server closes.
//!
//! Nobody tells a rank that another wants it, so both sides ask, and a receive
//! asks too. Nobody gives the runs of a job epochs: what stands for one in a link's
//! handshake tells only jobs and sizes apart, which the names of pairs may not. Nor
//! is there a secret, or news of lost ranks.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::punching::PortKey;
use super::server::ADDRESS_PATIENCE;
use super::sockets::{bound_socket, connected, recv_from, send_to, start_connecting};
use super::{Connector, Dialect, FIRST_BACKOFF, LAST_BACKOFF, Membership, jittered};
use crate::descriptors::Tracked;
use crate::endpoint::poller::{Interest, Poller, Token};
use crate::rendezvous::protocol::{Epoch, hash};

/// An endpoint on the wire.
const ENDPOINT_LEN: usize = 8;

/// The longest name of a pair.
const MAX_NAME: usize = 100;

/// Whether a server of protocol 1 may have answered so: with one endpoint, of
/// which a part may be under way.
pub(super) fn is_answer(bytes: &[u8]) -> bool {
    match <[u8; ENDPOINT_LEN]>::try_from(bytes) {
        Ok(bytes) => endpoint(bytes).is_some(),
        Err(_) => bytes.len() < ENDPOINT_LEN,
    }
}

fn endpoint([a, b, c, d, high, low, _, _]: [u8; ENDPOINT_LEN]) -> Option<SocketAddr> {
    let (ip, port) = (Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low]));
    (!ip.is_unspecified() && port != 0).then(|| SocketAddrV4::new(ip, port).into())
}

/// The name of the pair of this rank and `peer`: the same on both sides.
fn pair_name(membership: &Membership, peer: u32) -> String {
    let Membership { rank, name, job_id, .. } = membership;
    let (lower, higher) = (rank.min(&peer), rank.max(&peer));
    let job = job_id.as_deref().unwrap_or_default();
    let whole = format!("{name}{job}{lower}_{higher}");
    if whole.len() <= MAX_NAME && !whole.contains('\0') {
        return whole;
    }
    let digest: String =
        hash(&format!("{name}\0{job}"))[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("fmi-{digest}-{lower}_{higher}")
}

/// What stands for the epoch: ranks of other jobs, and of those of another size, may
/// come by the same names.
pub(super) fn epoch_of(membership: &Membership) -> Epoch {
    let Membership { size, name, job_id, .. } = membership;
    let job = job_id.as_deref().unwrap_or_default();
    hash(&format!("{name}\0{job}\0{size}"))[..16].try_into().expect("sixteen bytes")
}

/// The pairs that the server has been asked for, or is to be.
#[derive(Default)]
pub(super) struct Pairs(BTreeMap<u32, Pair>);

struct Pair {
    state: State,
    backoff: Duration,
    /// Tries in vain: each is at another of the server's addresses.
    failures: usize,
}

enum State {
    /// The next try.
    Waiting {
        until: Option<Instant>,
    },
    Connecting {
        socket: Tracked<Socket>,
        since: Instant,
    },
    Asking {
        socket: Tracked<Socket>,
        port: PortKey,
        /// What has been sent of the name.
        sent: usize,
        answer: [u8; 2 * ENDPOINT_LEN],
        received: usize,
    },
    /// Both know each other's endpoint.
    Punching {
        port: PortKey,
    },
}

impl Pairs {
    /// Asks the server for a way to `peer`; asking twice is asking once.
    pub(super) fn ask(&mut self, peer: u32) {
        let pair = || Pair { state: State::Waiting { until: None }, backoff: FIRST_BACKOFF, failures: 0 };
        self.0.entry(peer).or_insert_with(pair);
    }

    /// Ends the pair; its port is not needed any more.
    pub(super) fn forget(&mut self, poller: &Poller, peer: u32) -> Option<PortKey> {
        match self.0.remove(&peer)?.state {
            State::Waiting { .. } => None,
            State::Connecting { socket, .. } => {
                poller.remove(socket.as_raw_fd());
                None
            }
            State::Asking { socket, port, .. } => {
                poller.remove(socket.as_raw_fd());
                Some(port)
            }
            State::Punching { port } => Some(port),
        }
    }

    /// Whether the server has answered, and waits for `peer`.
    pub(super) fn is_waiting_for_peer(&self, peer: u32) -> bool {
        let state = self.0.get(&peer).map(|pair| &pair.state);
        matches!(state, Some(State::Asking { received: ENDPOINT_LEN.., .. }))
    }

    /// Whether one is to be started at once.
    pub(super) fn is_pressing(&self) -> bool {
        self.0.values().any(|pair| matches!(pair.state, State::Waiting { until: None }))
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        let timers = self.0.values().filter_map(|pair| match pair.state {
            State::Waiting { until } => until,
            State::Connecting { since, .. } => Some(since + ADDRESS_PATIENCE),
            _ => None,
        });
        timers.min()
    }
}

impl Connector {
    pub(super) fn service_pairs(&mut self, poller: &Poller, now: Instant, deadline: Option<Instant>) -> bool {
        if self.dialect != Dialect::TcPunch || self.addresses.is_empty() {
            return false;
        }
        let mut moved = false;
        let peers: Vec<u32> = self.pairs.0.keys().copied().collect();
        for peer in peers {
            match self.service_pair(poller, peer, now, deadline) {
                Ok(has_moved) => moved |= has_moved,
                Err(error) => {
                    self.pair_failed(poller, peer, error, now);
                    moved = true;
                }
            }
        }
        moved
    }

    fn service_pair(
        &mut self,
        poller: &Poller,
        peer: u32,
        now: Instant,
        deadline: Option<Instant>,
    ) -> io::Result<bool> {
        let Some(pair) = self.pairs.0.get_mut(&peer) else { return Ok(false) };
        match &mut pair.state {
            State::Waiting { until } if until.is_some_and(|until| now < until) => Ok(false),
            State::Waiting { .. } => {
                let address = self.addresses[pair.failures % self.addresses.len()];
                let socket = bound_socket(&address, 0)?;
                start_connecting(&socket, &address)?;
                poller.add(socket.as_raw_fd(), Token::Rendezvous, Interest::Write)?;
                pair.state = State::Connecting { socket, since: now };
                Ok(true)
            }
            State::Connecting { socket, since } => {
                if !connected(socket)? {
                    let is_late = now >= *since + ADDRESS_PATIENCE;
                    return if is_late { Err(io::ErrorKind::TimedOut.into()) } else { Ok(false) };
                }
                let local = socket.local_addr()?.as_socket().expect("a TCP socket has an IP address");
                let port = self.punching.open_port(local)?;
                let State::Connecting { socket, .. } =
                    std::mem::replace(&mut pair.state, State::Waiting { until: None })
                else {
                    return Ok(false);
                };
                pair.state =
                    State::Asking { socket, port, sent: 0, answer: [0; 2 * ENDPOINT_LEN], received: 0 };
                self.service_pair(poller, peer, now, deadline)
            }
            State::Asking { socket, port, sent, answer, received } => {
                let name = pair_name(&self.membership, peer);
                if *sent < name.len() {
                    *sent += send_to(socket, &name.as_bytes()[*sent..])?;
                    poller.modify(socket.as_raw_fd(), Token::Rendezvous, Interest::Read)?;
                }
                let port = *port;
                let before = *received;
                while *received < answer.len() {
                    match recv_from(socket, &mut answer[*received..]) {
                        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                        Ok(count) => *received += count,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    }
                }
                let (is_answered, is_complete) = (*received >= ENDPOINT_LEN, *received == answer.len());
                let moved = *received > before;
                if is_complete {
                    let other = answer[ENDPOINT_LEN..].try_into().expect("eight bytes");
                    let address =
                        endpoint(other).ok_or_else(|| io::Error::other("no endpoint in the answer"))?;
                    poller.remove(socket.as_raw_fd());
                    pair.state = State::Punching { port };
                    let patience = self.punch_timeout(now, deadline);
                    self.punching.start(peer, port, vec![address], now, patience);
                }
                if moved && is_answered {
                    self.note_reached();
                }
                Ok(moved)
            }
            State::Punching { .. } => Ok(false),
        }
    }

    fn pair_failed(&mut self, poller: &Poller, peer: u32, error: io::Error, now: Instant) {
        let Some(&Pair { backoff, failures, .. }) = self.pairs.0.get(&peer) else { return };
        if let Some(port) = self.pairs.forget(poller, peer) {
            self.punching.close_port(poller, port);
        }
        let state = State::Waiting { until: Some(now + jittered(backoff)) };
        let pair = Pair { state, backoff: (backoff * 2).min(LAST_BACKOFF), failures: failures + 1 };
        self.pairs.0.insert(peer, pair);
        self.note_unreachable(poller, error, now);
        if !self.wanted.contains(&peer) {
            self.pairs.0.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::endpoint::connector::tests::{connector, here};

    fn membership(rank: u32, name: &str) -> Membership {
        Membership { rank, size: 8, name: name.into(), job_id: None, fingerprint: 0 }
    }

    /// Of a server's addresses one refuses, and one leads nowhere.
    #[test]
    fn a_pair_tries_all_addresses_of_the_server() {
        let [silent, good] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let address = |listener: &TcpListener| listener.local_addr().unwrap();
        // Its queue has room for one, and is full: the kernel drops what comes.
        socket2::SockRef::from(&silent).listen(0).unwrap();
        let _first = std::net::TcpStream::connect(address(&silent)).unwrap();
        let (mut connector, poller) = (connector(0, 2, address(&good)), Poller::new().unwrap());
        connector.speak(Dialect::TcPunch);
        connector.addresses = vec![here(1), address(&silent), address(&good)];
        connector.wanted.insert(1);
        connector.pairs.ask(1);
        good.set_nonblocking(true).unwrap();
        let start = Instant::now();
        while good.accept().is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "it does not come");
            connector.service(&poller, Instant::now(), None);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn both_sides_name_the_pair_alike() {
        for name in ["job", "", &"x".repeat(300), "a\0b"] {
            let (one, other) = (pair_name(&membership(1, name), 5), pair_name(&membership(5, name), 1));
            assert_eq!(one, other);
            assert!(one.len() <= MAX_NAME && !one.contains('\0'), "{one}");
            assert_ne!(one, pair_name(&membership(1, name), 6));
        }
        assert_eq!(pair_name(&membership(3, "job"), 2), "job2_3");
    }

    #[test]
    fn answers_are_told_from_garbage() {
        assert!(is_answer(&[127, 0, 0, 1, 0x27, 0x10, 0, 0]));
        assert!(is_answer(&[127, 0]));
        for bytes in [&[0; 8][..], b"HTTP/1.1 400", &[1, 2, 3, 4, 0, 0, 0, 0], &[9; 51]] {
            assert!(!is_answer(bytes), "{bytes:?}");
        }
    }
}

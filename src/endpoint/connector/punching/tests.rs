//! Punching, with peers that are moved by hand.

use std::io::Write as _;
use std::net::TcpListener;

use super::*;
use crate::endpoint::connector::Connector;
use crate::endpoint::connector::tests::{connector, here};

const SIZE: u32 = 128;
const PATIENCE: Duration = Duration::from_secs(1);

fn identity(rank: u32) -> Identity {
    Identity { rank, size: SIZE, epoch: [7; 16], fingerprint: 9, secret: Vec::new() }
}

/// The connector of `rank`, which listens.
fn listening(rank: u32) -> (Connector, Poller, PortKey, SocketAddr) {
    let mut connector = connector(rank, SIZE, here(0));
    connector.punching.introduce(identity(rank));
    let local = bound_socket(&here(0), 0).unwrap().local_addr().unwrap().as_socket().unwrap();
    let local = here(local.port());
    let port = connector.punching.open_port(local).unwrap();
    (connector, Poller::new().unwrap(), port, local)
}

/// Connects to `address` and says, as `rank`, that it wants `to`.
fn greet(address: SocketAddr, rank: u32, to: u32) -> std::net::TcpStream {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let hello = Handshake::connecting(identity(rank), to, false).unwrap();
    stream.write_all(hello.outgoing()).unwrap();
    stream
}

/// Those that have said who they are do not make room for others: the peer may
/// have taken the connection for the link already.
#[test]
fn peers_that_come_all_at_once_find_room_each() {
    let (mut connector, poller, _, address) = listening(SIZE - 1);
    let peers: Vec<_> = (0..SIZE - 1).map(|rank| greet(address, rank, SIZE - 1)).collect();
    for _ in 0..10 {
        connector.punch(&poller, Instant::now());
    }
    let met = (0..SIZE - 1).filter(|peer| connector.punching.is_talking(*peer)).count();
    assert_eq!(met, peers.len());
}

#[test]
fn neither_strangers_nor_one_rank_are_many() {
    let (mut connector, poller, _, address) = listening(0);
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(std::net::TcpStream::connect(address).unwrap());
        crowd.push(greet(address, 1, 0));
        connector.punch(&poller, Instant::now());
    }
    connector.punch(&poller, Instant::now());
    let count = connector.punching.pairings.len();
    assert!(connector.punching.is_talking(1) && count <= MAX_STRANGERS + MAX_OF_ONE, "{count} are kept");
}

/// Whatever the server says, and however often.
#[test]
fn a_peer_has_a_few_addresses_and_the_newest_are_tried() {
    let (mut connector, poller, port, _) = listening(0);
    let mut now = Instant::now();
    for number in 1..=1000 {
        connector.punching.start(1, port, vec![here(number), here(number + 1)], now, PATIENCE);
        if number % 100 == 0 {
            connector.punching.service(&poller, now);
            now += 2 * PATIENCE;
            connector.punching.service(&poller, now);
        }
    }
    let candidates = &connector.punching.attempts[&1].candidates;
    assert!(candidates.len() <= MAX_CANDIDATES, "{} addresses", candidates.len());
    for newest in [here(1000), here(1001)] {
        assert!(candidates.iter().any(|candidate| candidate.address == newest));
    }
}

#[test]
fn addresses_that_no_peer_can_have_are_not_tried() {
    let (mut connector, _, port, local) = listening(0);
    let bad = ["0.0.0.0:5", "224.0.0.1:5", "255.255.255.255:5", "127.0.0.1:0", "[::]:5", "[ff02::1]:5"];
    let mut candidates: Vec<SocketAddr> = bad.iter().map(|text| text.parse().unwrap()).collect();
    candidates.extend([local, here(5)]);
    connector.punching.start(1, port, candidates, Instant::now(), PATIENCE);
    let tried: Vec<_> = connector.punching.attempts[&1].candidates.iter().map(|c| c.address).collect();
    assert_eq!(tried, [here(5)]);
}

/// A rank that only answered another's wish has nothing left of it once that has
/// come to nothing.
#[test]
fn nothing_is_kept_of_a_peer_that_is_not_wanted() {
    let (mut connector, poller, port, _) = listening(0);
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let now = Instant::now();
    connector.punching.start(1, port, vec![peer.local_addr().unwrap()], now, PATIENCE);
    for _ in 0..3 {
        connector.punch(&poller, now);
    }
    assert!(connector.punching.is_talking(1));
    connector.punch(&poller, now + 2 * PATIENCE);
    assert!(connector.punching.is_talking(1), "the peer may be outside of calls");
    drop(peer);
    connector.punch(&poller, now + 2 * PATIENCE);
    assert!(connector.punching.attempts.is_empty() && !connector.is_at_work());
}

/// On one host the higher rank leaves it to the lower one to connect, for a while.
#[test]
fn the_higher_rank_waits_for_its_neighbour() {
    let (mut connector, poller, port, _) = listening(1);
    let now = Instant::now();
    connector.punching.start(0, port, vec![here(5)], now, PATIENCE);
    connector.punching.service(&poller, now);
    let tries = |connector: &Connector| connector.punching.attempts[&0].candidates[0].tries;
    assert_eq!(tries(&connector), 0);
    connector.punching.service(&poller, now + COURTESY);
    assert!(tries(&connector) > 0);
}

/// Many addresses that refuse at once do not hold a call: all tries of one look
/// together take about as long as the quick ones of one address.
#[test]
fn a_look_is_short_however_many_addresses_refuse() {
    let (mut connector, poller, port, _) = listening(0);
    let start = Instant::now();
    for peer in 1..SIZE {
        let refusing = (1..=8).map(here).collect();
        connector.punching.start(peer, port, refusing, start, PATIENCE);
    }
    let mut looks: Vec<Duration> = Vec::new();
    while start.elapsed() < PATIENCE {
        let before = Instant::now();
        connector.punching.service(&poller, before);
        looks.push(before.elapsed());
    }
    let longest = looks.iter().max().unwrap();
    println!("{} looks, the longest {longest:?}", looks.len());
    assert!(*longest < Duration::from_millis(500), "{longest:?}");
}

//! Punching, with peers that are moved by hand.

use std::io::Write as _;

use super::*;
use crate::endpoint::connector::Connector;
use crate::endpoint::connector::tests::{connector, here};

const SIZE: u32 = 128;

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

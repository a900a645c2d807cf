//! The connection to servers that are not as they should be.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::*;
use crate::endpoint::connector::tests::{connector, here};
use crate::rendezvous::protocol::{Joined, Membership, Missing, ServerMessage, put_preamble};

const LIMIT: Duration = Duration::from_secs(20);

/// Serves the connector until `is_done`.
fn serve(connector: &mut Connector, poller: &mut Poller, is_done: impl Fn(&Connector) -> bool) {
    let start = Instant::now();
    while !is_done(connector) {
        assert!(start.elapsed() < LIMIT, "it does not get there");
        let now = Instant::now();
        let timer = connector.next_timer().map(|at| at.saturating_duration_since(now));
        let longest = if connector.has_unfinished_business() { Duration::ZERO } else { LIMIT };
        poller.wait(Some(timer.unwrap_or(LIMIT).min(longest))).unwrap();
        let before = Instant::now();
        connector.service(poller, before, None);
        assert!(before.elapsed() < LIMIT / 4, "one look took {:?}", before.elapsed());
    }
}

fn is_member(connector: &Connector) -> bool {
    connector.client.as_ref().is_some_and(Client::is_member)
}

/// A server that lets rank 0 join, and then talks without end, for a while.
fn flooding() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        put_preamble(&mut bytes, &[1; 16]);
        let challenge = ServerMessage::Challenge {
            nonce: [2; 16],
            secret_known: false,
            secret_required: false,
            version: "test".into(),
        };
        challenge.encode(&mut bytes);
        stream.write_all(&bytes).unwrap();
        let _ = stream.read(&mut [0u8; 512]).unwrap();
        let membership = Membership { epoch: [3; 16], token: [4; 16] };
        let joined = Joined { rank: 0, public: here(1), membership, ranks_on_host: 1 };
        bytes.clear();
        ServerMessage::Joined { joined, mac: None }.encode(&mut bytes);
        stream.write_all(&bytes).unwrap();
        bytes.clear();
        for _ in 0..4096 {
            ServerMessage::NotYet { rank: 1, missing: Missing::NotReady }.encode(&mut bytes);
        }
        let start = Instant::now();
        while start.elapsed() < LIMIT / 2 && stream.write_all(&bytes).is_ok() {}
    });
    address
}

/// A server that talks without end does not hold a call past its deadline.
#[test]
fn one_look_at_a_server_ends_however_much_it_says() {
    let (mut connector, mut poller) = (connector(0, 2, flooding()), Poller::new().unwrap());
    connector.want(1);
    serve(&mut connector, &mut poller, is_member);
    let start = Instant::now();
    serve(&mut connector, &mut poller, |_| start.elapsed() > Duration::from_millis(100));
}

/// The first of a server's addresses leads nowhere: nobody says so.
#[test]
fn an_address_that_does_not_answer_is_not_the_last() {
    let (silent, good) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (silent, good) = (Socket::from(silent), Socket::from(good));
    let address = |socket: &Socket| socket.local_addr().unwrap().as_socket().unwrap();
    // Its queue has room for one, and is full: the kernel drops further wishes.
    silent.listen(0).unwrap();
    let _first = std::net::TcpStream::connect(address(&silent)).unwrap();
    let (mut connector, mut poller) = (connector(0, 2, address(&good)), Poller::new().unwrap());
    connector.connect_server(&poller, vec![address(&silent), address(&good)], Instant::now());
    serve(&mut connector, &mut poller, |connector| matches!(connector.server, Server::Open { .. }));
}

/// The server still knows the connection before this one only.
#[test]
fn a_port_is_not_renewed_before_the_server_knows_it() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let (mut connector, mut poller) = (connector(0, 2, address), Poller::new().unwrap());
    connector.want(1);
    serve(&mut connector, &mut poller, |connector| matches!(connector.server, Server::Open { .. }));
    connector.renew_port(&poller, Instant::now());
    assert!(matches!(connector.server, Server::Open { .. }) && connector.retired.is_none());
}

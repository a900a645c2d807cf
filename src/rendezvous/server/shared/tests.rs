//! What the tasks share, without sockets.

use super::super::tests::request;
use super::*;
use crate::rendezvous::client::{Client, Event, JoinRequest, Reason};
use crate::rendezvous::protocol::ClientMessage;

/// A link of `shared`, whose client has sent `bytes`.
fn client_of(shared: &mut Shared, peer: &str, bytes: &[u8]) -> ConnectionId {
    let (id, _) = shared.admit(peer.parse().unwrap()).unwrap();
    shared.receive(id, bytes);
    id
}

/// Lets the link's deadline pass.
fn pass_deadline(shared: &mut Shared, id: ConnectionId) {
    let deadline = shared.links[&id].deadline;
    shared.expire(id, deadline);
}

/// A client of protocol 1 whose name has come to its end.
fn caller_of(shared: &mut Shared, peer: &str, name: &str) -> ConnectionId {
    let id = client_of(shared, peer, name.as_bytes());
    pass_deadline(shared, id);
    id
}

fn shared_with(limits: Limits) -> Shared {
    Shared::new(ServerOptions { limits, ..ServerOptions::default() })
}

#[test]
fn the_first_byte_tells_the_protocol() {
    let mut shared = shared_with(Limits::default());
    let hello = Client::new(request()).unwrap().outgoing().to_vec();
    for start in [&hello[..1], &hello[..5], b"\xf5"] {
        for _ in 0..2 {
            let id = client_of(&mut shared, "9.9.9.9:9", start);
            assert!(matches!(shared.links[&id].speech, Speech::Frames(_)));
            pass_deadline(&mut shared, id);
            assert!(shared.links[&id].outgoing.starts_with(&MAGIC), "never an endpoint");
        }
    }
    assert_eq!(shared.waiting.as_ref().unwrap().len(), 0);
    let six = client_of(&mut shared, "[2001:db8::1]:9", b"name");
    assert!(shared.links[&six].state == LinkState::Closing && shared.links[&six].outgoing.is_empty());
    let long = client_of(&mut shared, "9.9.9.9:9", &[b'n'; 141]);
    assert!(shared.links[&long].state == LinkState::Closing && shared.links[&long].outgoing.is_empty());
}

#[test]
fn without_protocol_1_a_name_is_closed_without_a_word() {
    let secret = || ServerOptions::default().secret(*b"0123456789abcdef");
    for options in [ServerOptions::default().tcpunch(false), secret().require_secret(true)] {
        let mut shared = Shared::new(options);
        let id = client_of(&mut shared, "9.9.9.9:9", b"name");
        assert!(shared.links[&id].state == LinkState::Closing);
        assert!(shared.links[&id].outgoing.is_empty(), "our words would be an endpoint to it");
    }
    assert!(Shared::new(secret()).waiting.is_some());
}

#[test]
fn callers_that_wait_push_out_the_oldest_of_their_kind() {
    let mut shared = shared_with(Limits { waiting: 4, waiting_per_source: 3, ..Limits::default() });
    let open = |shared: &Shared, id: ConnectionId| shared.links[&id].state == LinkState::Open;
    let honest = caller_of(&mut shared, "8.8.8.8:8", "honest");
    let first = caller_of(&mut shared, "9.9.9.9:1", "a");
    for name in ["b", "c", "d", "e"] {
        caller_of(&mut shared, "9.9.9.9:2", name);
    }
    assert!(open(&shared, honest) && !open(&shared, first));
    let other = caller_of(&mut shared, "7.7.7.7:1", "f");
    assert!(open(&shared, honest) && open(&shared, other), "the source that has most gives way");
    assert_eq!(shared.waits, 4);
    let again = caller_of(&mut shared, "9.9.9.9:1", "a");
    assert_eq!(shared.links[&again].outgoing.len(), 8, "its name is free");
    let partner = caller_of(&mut shared, "6.6.6.6:1", "honest");
    assert_eq!((shared.links[&honest].outgoing.len(), shared.links[&partner].outgoing.len()), (16, 16));
}

#[test]
fn the_source_with_most_handshakes_gives_way() {
    let mut shared = shared_with(Limits { handshakes: 5, handshakes_per_source: 3, ..Limits::default() });
    let honest = client_of(&mut shared, "8.8.8.8:8", b"\xf5FMI");
    let crowd = ["9.9.9.1:1", "9.9.9.2:1", "9.9.9.1:2", "9.9.9.2:2", "9.9.9.1:3", "9.9.9.2:3", "7.7.7.7:7"];
    let crowd = crowd.map(|peer| client_of(&mut shared, peer, b""));
    let open = |id: &ConnectionId| shared.links[id].state == LinkState::Open;
    assert!(open(&honest) && open(&crowd[6]), "who comes alone");
    assert_eq!(crowd.iter().filter(|id| open(id)).count(), 4);
}

#[test]
fn a_caller_waits_so_long_and_then_its_name_is_free() {
    let mut shared = shared_with(Limits::default());
    let first = caller_of(&mut shared, "9.9.9.9:1", "name");
    pass_deadline(&mut shared, first);
    assert!(shared.links[&first].state == LinkState::Closing);
    let second = caller_of(&mut shared, "9.9.9.9:2", "name");
    assert_eq!(shared.links[&second].outgoing.len(), 8);
    shared.forget(second, End::Closed);
    shared.forget(first, End::Closed);
    assert!(shared.waiting.unwrap().len() == 0 && shared.sources.is_empty() && shared.waits == 0);
}

#[test]
fn a_name_that_goes_on_is_looked_up_again() {
    let mut shared = shared_with(Limits::default());
    let slow = caller_of(&mut shared, "9.9.9.9:1", "job0");
    shared.receive(slow, b"_1");
    let other = caller_of(&mut shared, "9.9.9.9:2", "job0");
    assert_eq!(shared.links[&other].outgoing.len(), 8, "it is no name any more");
    pass_deadline(&mut shared, slow);
    let partner = caller_of(&mut shared, "9.9.9.9:3", "job0_1");
    assert_eq!((shared.links[&slow].outgoing.len(), shared.links[&partner].outgoing.len()), (16, 16));
}

#[test]
fn who_does_not_read_is_dropped() {
    let mut shared = Shared::new(ServerOptions {
        limits: Limits { unread: 512, ..Limits::default() },
        ..Default::default()
    });
    let mut clients: Vec<_> = (0..2)
        .map(|rank| {
            let (id, _) = shared.admit("9.9.9.9:9".parse().unwrap()).unwrap();
            (id, Client::new(JoinRequest { rank, size: 2, ..request() }).unwrap())
        })
        .collect();
    let exchange = |shared: &mut Shared, id: ConnectionId, client: &mut Client| {
        shared.receive(id, client.outgoing());
        client.advance(client.outgoing().len());
        client.receive(&std::mem::take(&mut shared.links.get_mut(&id).unwrap().outgoing)).unwrap();
        std::iter::from_fn(|| client.next_event()).collect::<Vec<_>>()
    };
    for (id, client) in &mut clients {
        exchange(&mut shared, *id, client);
        exchange(&mut shared, *id, client);
    }
    // The deaf one keeps asking, the other keeps answering.
    let deaf = clients[0].0;
    let mut wish = Vec::new();
    ClientMessage::Connect { rank: 1 }.encode(&mut wish);
    let (id, client) = &mut clients[1];
    for _ in 0..100 {
        shared.receive(deaf, &wish);
        exchange(&mut shared, *id, client);
        client.ready(0);
        exchange(&mut shared, *id, client);
    }
    assert!(shared.links[&deaf].state == LinkState::Dropped);
    assert!(shared.links[&deaf].outgoing.len() <= 512 + MAX_FRAME);
    shared.forget(deaf, End::Closed);
    assert_eq!(exchange(&mut shared, *id, client).last(), Some(&Event::Suspect { rank: 0 }));
    client.report_link(0, false);
    assert_eq!(exchange(&mut shared, *id, client), [Event::Unreachable { rank: 0, reason: Reason::Lost }]);
}

/// A member of `shared` whose peer has left, so that each of its wishes is
/// answered, and the wishes.
fn deaf_member(shared: &mut Shared, peer: &str) -> (ConnectionId, Vec<u8>) {
    let name = format!("job of {peer}");
    let mut member = |rank| {
        let request = JoinRequest { name: name.clone(), rank, size: 2, ..request() };
        let (id, _) = shared.admit(peer.parse().unwrap()).unwrap();
        let mut client = Client::new(request).unwrap();
        for _ in 0..2 {
            shared.receive(id, client.outgoing());
            client.advance(client.outgoing().len());
            client.receive(&std::mem::take(&mut shared.links.get_mut(&id).unwrap().outgoing)).unwrap();
        }
        assert!(client.is_member());
        id
    };
    let (deaf, peer) = (member(0), member(1));
    let mut leave = Vec::new();
    ClientMessage::Leave.encode(&mut leave);
    shared.receive(peer, &leave);
    shared.forget(peer, End::Closed);
    let mut wish = Vec::new();
    ClientMessage::Connect { rank: 1 }.encode(&mut wish);
    (deaf, wish.repeat(100))
}

#[test]
fn what_a_source_has_not_read_takes_from_its_allowance() {
    let mut shared = shared_with(Limits::default());
    shared.registry.allowances = Allowances::new(20_000, 1 << 20);
    let (first, wishes) = deaf_member(&mut shared, "9.9.9.9:1");
    let (second, _) = deaf_member(&mut shared, "9.9.9.9:2");
    let (neighbour, few) = deaf_member(&mut shared, "9.9.9.9:3");
    let (elsewhere, _) = deaf_member(&mut shared, "8.8.8.8:1");
    for _ in 0..20 {
        shared.receive(first, &wishes);
        shared.receive(second, &wishes);
        shared.receive(elsewhere, &wishes);
    }
    let state =
        |shared: &Shared, id| (shared.links[&id].state == LinkState::Open, shared.links[&id].outgoing.len());
    assert_eq!(state(&shared, elsewhere), (true, 20 * 100 * 8));
    let (open, unread) = state(&shared, second);
    assert!(!open && unread < 20_000, "{unread} bytes");
    shared.receive(neighbour, &few[..70]);
    assert_eq!(state(&shared, neighbour), (true, 80), "who keeps up is served");
    let Shared { links, registry, .. } = &mut shared;
    let link = links.get_mut(&elsewhere).unwrap();
    link.advance(15_000, &mut registry.allowances);
    assert_eq!((link.outgoing.len(), link.taken), (1000, 0));
    for id in [first, second, neighbour, elsewhere] {
        shared.forget(id, End::Closed);
    }
    assert_eq!(shared.registry.allowances.in_all(), 0);
    assert!(shared.registry.is_empty());
}

//! The endpoint's waiting, with a peer that is moved by hand.

use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::pin;

use zerocopy::IntoBytes;

use super::*;
use crate::engine::frame::{Header, Kind};

/// The endpoint of rank 0 of 2 over Memory, and rank 1's place.
fn endpoint(name: &str, wait: WaitMode) -> (Endpoint, MemoryPort) {
    let config = EndpointConfig {
        rank: 0,
        size: 2,
        name: name.into(),
        job_id: None,
        fingerprint: 0,
        transport: TransportConfig::Memory,
        wait,
        unexpected_limit: 1 << 20,
        logger: Logger::default(),
        interrupt: None,
        signals: Arc::new(Signals::new().unwrap()),
    };
    (Endpoint::new(config).unwrap(), MemoryPort::join(name, 1, 2).unwrap())
}

/// A peer that always has something to say does not hold a call past its
/// deadline, nor one look at its link for ever.
#[test]
fn a_peer_that_keeps_up_does_not_outlast_the_deadline() {
    let (endpoint, peer) = endpoint("keeps up", WaitMode::Auto);
    let entered = endpoint.enter().unwrap();
    entered.core().borrow_mut().engine.open_context(1, vec![0, 1]);
    let mut link = Link::Memory(peer.link(0));
    let mut buffer = [0u8; 1];
    let selector = Selector::PointToPoint { context: 1, tag: None };
    let _receiving = RecvFuture::start(entered.core(), Some(1), selector, &mut buffer);
    let header = Header::bare(Kind::Credit);
    let start = Instant::now();
    let endless = poll_fn(|_| {
        assert!(start.elapsed() < Duration::from_secs(10), "the deadline of 50 ms is not looked at");
        link.send(&[IoSlice::new(header.as_bytes()), IoSlice::new(&[])]).unwrap();
        Poll::<()>::Pending
    });
    let mut deadline = Deadline::after(Some(Duration::from_millis(50)));
    assert!(matches!(entered.drive(pin!(endless), &mut deadline), Err(Stop::Timeout)));

    let flood = header.as_bytes().repeat((1 << 20) / HEADER_LEN);
    let held = link.send(&[IoSlice::new(&flood), IoSlice::new(&[])]).unwrap();
    assert!(held > TURN + STAGING, "the pipe holds more than one turn");
    assert!(entered.core().borrow_mut().read(1));
    let room = link.send(&[IoSlice::new(&flood), IoSlice::new(&[])]).unwrap();
    assert!(room < TURN + 2 * STAGING, "one look took {room} bytes");
}

/// Whatever moved last may have been what the call waits for: it does not sleep
/// before it has looked.
#[test]
fn a_call_looks_at_its_request_after_every_move() {
    let (endpoint, peer) = endpoint("moves", WaitMode::Park);
    let entered = endpoint.enter().unwrap();
    entered.core().borrow_mut().engine.open_context(1, vec![0, 1]);
    let mut link = Link::Memory(peer.link(0));
    let mut buffer = [0u8; 1];
    let selector = Selector::PointToPoint { context: 1, tag: None };
    let _receiving = RecvFuture::start(entered.core(), Some(1), selector, &mut buffer);
    for moves in [1, MOVES_PER_LOOK - 1, MOVES_PER_LOOK, MOVES_PER_LOOK + 1, 2 * MOVES_PER_LOOK] {
        let mut left = moves;
        let moved_each_time = poll_fn(|_| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            let header = Header::bare(Kind::Credit);
            link.send(&[IoSlice::new(header.as_bytes()), IoSlice::new(&[])]).unwrap();
            Poll::Pending
        });
        let mut deadline = Deadline::after(Some(Duration::from_secs(2)));
        let start = Instant::now();
        entered.drive(pin!(moved_each_time), &mut deadline).unwrap();
        assert!(start.elapsed() < Duration::from_secs(1), "{moves} moves took {:?}", start.elapsed());
    }
}

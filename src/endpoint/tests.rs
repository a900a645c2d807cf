//! The endpoint's waiting, with a peer that is moved by hand.

use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::pin;

use zerocopy::IntoBytes;

use super::*;
use crate::engine::frame::{AbortNotice, Header, Kind, MessageId};

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

/// The notice of a failure leaves with the call that saw it, if the peer reads; if it
/// does not, the call does not wait for it.
#[test]
fn a_notice_gets_past_a_full_link_where_the_peer_reads() {
    for reads in [true, false] {
        let (endpoint, peer) = endpoint("notice", WaitMode::Auto);
        let entered = endpoint.enter().unwrap();
        entered.core().borrow_mut().engine.open_context(1, vec![0, 1]);
        let mut link = Link::Memory(peer.link(0));
        let large = vec![0u8; 1 << 20];
        let id = MessageId { context: 1, collective: false, sequence: 0, tag: 0 };
        let envelope = Envelope { id, operation: 0, algorithm: 0, signature: 0 };
        let _sending = SendFuture::start(entered.core(), 1, envelope, &large);
        let error = Error::new(ErrorKind::Timeout, "as it is meant to");
        let notice = AbortNotice {
            context: 1,
            cause: ErrorKind::Timeout,
            cause_rank: 0,
            about: None,
            code: 0,
            operation: 0,
        };
        entered.core().borrow_mut().engine.poison(1, error, &notice);
        let start = Instant::now();
        let came = std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(5));
                let mut stream = vec![0u8; 4 << 20];
                let mut came = 0;
                while reads && start.elapsed() < Duration::from_secs(1) {
                    let nothing = (stream.as_mut_ptr(), 0);
                    // SAFETY: parts of no length, and a slice apart from them.
                    let count = unsafe { link.recv(&[nothing; 2], &mut stream[came..]) };
                    came += count.unwrap_or(0);
                }
                came
            });
            entered.spread_notices();
            let took = start.elapsed();
            assert!(took < Duration::from_millis(900), "{took:?}");
            reader.join().unwrap()
        });
        assert_eq!(came, if reads { large.len() + 2 * HEADER_LEN } else { 0 });
        assert_eq!(entered.core().borrow_mut().engine.has_notice_for(1), !reads);
    }
}

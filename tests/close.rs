//! Closing: what was sent arrives, or close says what has not; nobody waits for
//! what will not come, and nothing that happens on the way out destroys anything.
//!
//! Departures as the others see them are in `departure.rs`.

mod support;

use std::time::{Duration, Instant};

use fmi::{Communicator, Error, ErrorKind, Operation};
use support::{
    Channel, Meeting, RankProcess, both_channels, config, job, job_with, milliseconds, server, wake, watched,
};

const LIMIT: Duration = Duration::from_secs(60);

/// More than anything here should take, and less than the deadlines given.
const SOON: Duration = Duration::from_secs(12);
const LONG: Option<Duration> = Some(Duration::from_secs(40));

/// The content of a message.
fn content(number: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|index| ((index + 1).wrapping_mul(number * 2 + 31) >> 3) as u8).collect()
}

fn receive(comm: &Communicator, from: u32, number: u64, length: usize) {
    let mut buffer = vec![0u8; length];
    comm.recv(&mut buffer, from).unwrap_or_else(|error| panic!("message {number}: {error}"));
    assert!(buffer == content(number, length), "message {number} is not what was sent");
}

fn says(error: &Error, kind: ErrorKind, peer: Option<u32>, text: &str) {
    assert_eq!((error.kind(), error.peer()), (kind, peer), "{error}");
    assert!(error.to_string().contains(text), "{error} does not say {text:?}");
}

/// Rank 1 takes the first message, and nothing more until rank 0 comes to `late`
/// again.
fn stay_away(comm: &Communicator, late: &Meeting) {
    receive(comm, 0, 0, 10);
    late.wait();
    late.wait();
}

/// Rank 0 sends the message that links the two, and `count` that rank 1 does not
/// read; it has to come to `late` once more.
fn send_while_away(comm: &Communicator, late: &Meeting, count: u64) {
    comm.send(&content(0, 10), 1).unwrap();
    late.wait();
    (1..=count).for_each(|number| comm.send(&content(number, 10), 1).unwrap());
}

/// Over each channel, rank 0 does `leaves` while rank 1 has not read `count` messages;
/// after it rank 1 does `comes_back`.
fn beside_a_reader_who_is_away(
    count: u64,
    leaves: impl Fn(Channel, &Communicator) + Send + Sync + 'static,
    comes_back: impl Fn(&Communicator) + Send + Sync + 'static,
) {
    watched(LIMIT, move || {
        both_channels(|channel| {
            let late = Meeting::default();
            job(channel, 2, |comm| {
                if comm.rank() == 1 {
                    stay_away(&comm, &late);
                    return comes_back(&comm);
                }
                send_while_away(&comm, &late, count);
                leaves(channel, &comm);
                late.wait();
            });
        });
    });
}

#[test]
fn close_names_who_has_not_read_and_what() {
    let leaves = |channel, comm: &Communicator| {
        let start = Instant::now();
        let error = comm.close(milliseconds(300)).unwrap_err();
        assert!(start.elapsed() < SOON);
        says(&error, ErrorKind::Timeout, Some(1), "messages for rank 1 are unread there");
        assert_eq!(error.operation(), Some(Operation::Close), "{error}");
        let name = if channel == Channel::Direct { "Direct" } else { "Memory" };
        assert_eq!(error.channel(), Some(name));
        assert!(error.waited() >= milliseconds(299), "{error}");
        assert_eq!(comm.close(LONG).unwrap_err().kind(), ErrorKind::Closed);
    };
    beside_a_reader_who_is_away(3, leaves, |comm| {
        // It can still be received.
        (1..4).for_each(|number| receive(comm, 0, number, 10));
        let error = comm.recv(&mut [0u8], 0).unwrap_err();
        says(&error, ErrorKind::PeerLeft, Some(0), "rank 0 has left");
    });
}

#[test]
fn close_says_that_bytes_are_still_here() {
    watched(LIMIT, || {
        both_channels(|channel| {
            let late = Meeting::default();
            let small = |config: &mut fmi::Config| config.set("unexpected_limit", "65536").unwrap();
            job_with(channel, 2, small, |comm| {
                if comm.rank() == 1 {
                    stay_away(&comm, &late);
                    return;
                }
                comm.send(&content(0, 10), 1).unwrap();
                late.wait();
                // Until the link takes no more: what is withdrawn half way stays
                // to be written from a copy.
                comm.set_timeout(milliseconds(300)).unwrap();
                while comm.send(&content(1, 900_000), 1).is_ok() {}
                let error = comm.close(milliseconds(300)).unwrap_err();
                assert_eq!((error.kind(), error.peer()), (ErrorKind::Timeout, Some(1)), "{error}");
                late.wait();
            });
        });
    });
}

/// A peer that is in a call with somebody else reads, and says so.
#[test]
fn a_peer_in_a_call_does_not_hold_up_a_close() {
    watched(LIMIT, || {
        both_channels(|channel| {
            let closed = Meeting::default();
            job(channel, 3, |comm| match comm.rank() {
                0 => {
                    (0..50).for_each(|number| comm.send(&content(number, 50_000), 1).unwrap());
                    let start = Instant::now();
                    comm.close(LONG).unwrap();
                    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
                    closed.wait();
                }
                1 => {
                    comm.recv(&mut [0u8], 2).unwrap();
                    (0..50).for_each(|number| receive(&comm, 0, number, 50_000));
                }
                _ => {
                    closed.wait();
                    comm.send(&[0u8], 1).unwrap();
                }
            });
        });
    });
}

/// Whoever leaves has chosen not to receive what it has not received.
#[test]
fn two_that_leave_with_messages_for_each_other_do_not_wait() {
    watched(LIMIT, || {
        both_channels(|channel| {
            for (count, length) in [(1, 0), (1, 1000), (1500, 8), (10, 100_000)] {
                let linked = Meeting::default();
                job(channel, 2, |comm| {
                    let other = 1 - comm.rank();
                    comm.sendrecv(&[0u8], other, &mut [0u8], other).unwrap();
                    comm.set_timeout(milliseconds(500)).unwrap();
                    // Where the credit is used up, a send may have to be given up.
                    for number in 0..count {
                        if comm.send(&content(number, length), other).is_err() {
                            break;
                        }
                    }
                    linked.wait();
                    let start = Instant::now();
                    comm.close(LONG).unwrap();
                    assert!(start.elapsed() < SOON, "{count} of {length}: {:?}", start.elapsed());
                });
            }
        });
    });
}

/// Nothing is lost where the peer is away for longer than a destroy lingers: its
/// host has everything. (A host takes at least 64 KiB that nobody reads.)
#[test]
fn a_destroy_does_not_wait_for_a_peer_that_computes() {
    watched(LIMIT, || {
        both_channels(|channel| {
            let gone = Meeting::default();
            job(channel, 2, |comm| {
                if comm.rank() == 0 {
                    comm.send(&content(0, 4000), 1).unwrap();
                    gone.wait();
                    (1..8).for_each(|number| comm.send(&content(number, 4000), 1).unwrap());
                    let start = Instant::now();
                    drop(comm);
                    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
                    gone.wait();
                    return;
                }
                receive(&comm, 0, 0, 4000);
                gone.wait();
                gone.wait();
                let _ = comm.send(&[0u8; 100], 0);
                (1..8).for_each(|number| receive(&comm, 0, number, 4000));
            });
        });
    });
}

#[test]
fn a_close_can_be_interrupted() {
    watched(LIMIT, || {
        both_channels(|channel| {
            for goes_on in [false, true] {
                let late = Meeting::default();
                let adjust = |config: &mut fmi::Config| {
                    if goes_on {
                        config.set_interrupt(|| false);
                    }
                };
                job_with(channel, 2, adjust, |comm| {
                    if comm.rank() == 1 {
                        stay_away(&comm, &late);
                        receive(&comm, 0, 1, 10);
                        return;
                    }
                    send_while_away(&comm, &late, 1);
                    let timeout = if goes_on { milliseconds(600) } else { LONG };
                    std::thread::scope(|scope| {
                        let closing = scope.spawn(|| comm.close(timeout).unwrap_err());
                        std::thread::sleep(Duration::from_millis(200));
                        wake(&comm);
                        let kind = if goes_on { ErrorKind::Timeout } else { ErrorKind::Interrupted };
                        assert_eq!(closing.join().unwrap().kind(), kind);
                    });
                    assert_eq!(comm.send(&[0u8], 1).unwrap_err().kind(), ErrorKind::Closed);
                    late.wait();
                });
            }
        });
    });
}

#[test]
fn an_abort_ends_a_close() {
    let leaves = |_, comm: &Communicator| {
        std::thread::scope(|scope| {
            let closing = scope.spawn(|| comm.close(LONG).unwrap_err());
            std::thread::sleep(Duration::from_millis(200));
            comm.abort(3).unwrap();
            let error = closing.join().unwrap();
            says(&error, ErrorKind::Aborted, None, "code 3");
        });
        assert_eq!(comm.abort(3).unwrap_err().kind(), ErrorKind::Closed);
    };
    beside_a_reader_who_is_away(1, leaves, |comm| {
        let error = comm.barrier().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Aborted | ErrorKind::PeerLeft), "{error}");
    });
}

/// A failed job is left at once: its readers may never come.
#[test]
fn nobody_waits_for_the_readers_of_a_failed_job() {
    let leaves = |_, comm: &Communicator| {
        comm.abort(1).unwrap();
        let start = Instant::now();
        comm.close(LONG).unwrap();
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    };
    beside_a_reader_who_is_away(1, leaves, |_| {});
}

#[test]
#[ignore = "the program of a rank in a process of its own"]
fn rank_program() {
    let comm = Communicator::from_env(&std::env::var("FMI_TEST_NAME").unwrap()).unwrap();
    match std::env::var("FMI_TEST_ROLE").unwrap().as_str() {
        "computes" => {
            receive(&comm, 0, 0, 10);
            println!("\nready");
            std::thread::sleep(LIMIT);
        }
        sends => {
            let (count, length) = sends.split_once('x').unwrap();
            let length = length.parse().unwrap();
            comm.send(&content(0, 10), 1).unwrap();
            for number in 1..=count.parse().unwrap() {
                comm.send(&content(number, length), 1).unwrap();
            }
        }
    }
}

#[test]
fn close_names_a_peer_that_was_killed_before_it_had_read() {
    watched(LIMIT, || {
        let server = server();
        let mut peer = RankProcess::start(&server, 1, 2, "killed", "computes");
        let comm = Communicator::create(0, 2, "killed", &config(Channel::Direct, Some(&server))).unwrap();
        (0..4).for_each(|number| comm.send(&content(number, 10), 1).unwrap());
        peer.await_ready();
        let start = Instant::now();
        let error = std::thread::scope(|scope| {
            let closing = scope.spawn(|| comm.close(LONG).unwrap_err());
            std::thread::sleep(Duration::from_millis(200));
            drop(peer);
            closing.join().unwrap()
        });
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        says(&error, ErrorKind::PeerLost, Some(1), "messages for rank 1 are unread there");
    });
}

/// The receiver takes a part, then writes to a process that has ended, where
/// everything is with the receiver's host, or waits for that. (200 KB are more than
/// a host takes that nobody reads, and no more than the sender's kernel keeps.)
#[test]
fn what_a_process_sent_before_it_ended_arrives() {
    watched(LIMIT, || {
        let server = server();
        for (count, length) in [
            (30u64, 1500),
            (1, 200_000),
            (1, 300_000),
            (1, 1 << 20),
            (40, 30_000),
            (5, 7 << 20),
            (1024, 2000),
        ] {
            let role = format!("{count}x{length}");
            let mut sender = RankProcess::start(&server, 0, 2, &role, &role);
            let comm = Communicator::create(1, 2, &role, &config(Channel::Direct, Some(&server))).unwrap();
            let part = count / 3;
            receive(&comm, 0, 0, 10);
            (1..=part).for_each(|number| receive(&comm, 0, number, length));
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(1500) && !sender.has_ended() {
                std::thread::sleep(Duration::from_millis(10));
            }
            assert!(sender.has_ended() || count * length as u64 > 50_000, "{role} are with this host");
            for _ in 0..3 {
                let _ = comm.send(&[1u8; 100], 0);
            }
            (part + 1..=count).for_each(|number| receive(&comm, 0, number, length));
            let error = comm.recv(&mut [0u8], 0).unwrap_err();
            says(&error, ErrorKind::PeerLeft, Some(0), "rank 0 has left");
        }
    });
}

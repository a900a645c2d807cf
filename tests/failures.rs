//! What each failure leaves behind: the table of failures, row by row. Every row is
//! broken on purpose; the error names operation, peer, channel, cause and time, and
//! what shall go on goes on.
//!
//! Parts of rows that stand elsewhere: arguments, lengths and ranks that do not call
//! the same, receives repeated at many sizes and a blocked call that is aborted in
//! `faults.rs`; ranks killed in each operation in `kill.rs`; departures in
//! `departure.rs` and `close.rs`.

mod support;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use fmi::{Communicator, Error, ErrorKind, Op, Operation, Result};
use support::{
    Channel, Meeting, RankProcess, both_channels, config, job, job_with, milliseconds, server, wake, watched,
};

const LIMIT: Duration = Duration::from_secs(60);

/// More than anything that fails at once should take, and less than the deadlines.
const SOON: Duration = Duration::from_secs(10);
const LONG: Option<Duration> = Some(Duration::from_secs(40));

/// What an error must name beside its kind.
#[track_caller]
fn names(error: &Error, operation: Operation, peer: Option<u32>, channel: Channel) {
    assert_eq!(error.operation(), Some(operation), "{error}");
    assert_eq!(error.peer(), peer, "{error}");
    assert_eq!(error.channel(), Some(format!("{channel:?}").as_str()), "{error}");
    assert!(error.waited().is_some(), "{error}");
}

#[track_caller]
fn fails_soon<T>(call: impl FnOnce() -> Result<T>) -> Error {
    let start = Instant::now();
    let error = call().err().expect("the call must fail");
    assert!(start.elapsed() < SOON, "{error}");
    error
}

/// Sends and receives go on with `other`, which calls the same.
#[track_caller]
fn talks_with(comm: &Communicator, other: u32) {
    let mut got = [u32::MAX];
    comm.set_timeout(LONG).unwrap();
    comm.sendrecv(&[comm.rank()], other, &mut got, other).unwrap();
    assert_eq!(got, [other]);
}

/// Every later collective fails with the first cause.
#[track_caller]
fn is_poisoned(comm: &Communicator, cause: ErrorKind) {
    let poisoned: [&dyn Fn() -> Result<()>; 3] =
        [&|| comm.barrier(), &|| comm.bcast(&mut [1u8], 0), &|| comm.allreduce(&[1], &mut [0], &Op::SUM)];
    for call in poisoned {
        let error = fails_soon(call);
        assert_eq!((error.kind(), error.cause()), (ErrorKind::Poisoned, cause), "{error}");
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 / 3) as u8).collect()
}

#[test]
fn an_argument_error_names_its_operation_and_sends_nothing() {
    watched(LIMIT, || {
        both_channels(|channel| {
            job(channel, 2, |comm| {
                let mut data = [0u8; 4];
                let wrong: [(Operation, Result<()>); 7] = [
                    (Operation::Send, comm.send(&data, 2)),
                    (Operation::Recv, comm.recv(&mut data, 2)),
                    (Operation::Sendrecv, comm.sendrecv(&[0u8], 1, &mut data, 7)),
                    (Operation::Bcast, comm.bcast(&mut data, 9)),
                    (Operation::Gather, comm.gather(&data, None, comm.rank())),
                    (Operation::Scatter, comm.scatter(Some(&[0u8; 3]), &mut data, comm.rank())),
                    (Operation::Allreduce, comm.allreduce(&[1.0f64], &mut [0.0], &Op::BXOR)),
                ];
                for (operation, outcome) in wrong {
                    let error = outcome.unwrap_err();
                    assert_eq!(
                        (error.kind(), error.operation()),
                        (ErrorKind::Arg, Some(operation)),
                        "{error}"
                    );
                    assert_eq!(error.cause(), ErrorKind::Arg, "{error}");
                }
                comm.barrier().unwrap();
                talks_with(&comm, 1 - comm.rank());
            });
        });
    });
}

#[test]
fn another_length_is_named_and_the_next_message_is_right() {
    watched(LIMIT, || {
        both_channels(|channel| {
            job(channel, 2, |comm| {
                if comm.rank() == 0 {
                    comm.send(&[1u8; 5], 1).unwrap();
                } else {
                    let error = fails_soon(|| comm.recv(&mut [0u8; 3], 0));
                    assert_eq!(error.kind(), ErrorKind::SizeMismatch, "{error}");
                    names(&error, Operation::Recv, Some(0), channel);
                }
                talks_with(&comm, 1 - comm.rank());
                comm.barrier().unwrap();
            });
        });
    });
}

/// The deadline of a receive passes half way in its message: the buffer is the
/// caller's again, for good, and the repeated call has all of the message.
#[test]
fn a_receive_that_is_late_half_way_gives_its_message_back() {
    const LENGTH: usize = 48 << 20;
    watched(LIMIT, || {
        both_channels(|channel| {
            // Whether a deadline falls into a message is a matter of luck: the more
            // often it is tried the surer.
            let was_half = AtomicBool::new(false);
            let is_over = AtomicBool::new(false);
            let turn = Barrier::new(2);
            job(channel, 2, |comm| {
                let message = content(LENGTH);
                comm.barrier().unwrap();
                for round in 0..40u64 {
                    turn.wait();
                    if is_over.load(Ordering::SeqCst) {
                        break;
                    }
                    turn.wait();
                    if comm.rank() == 0 {
                        comm.set_timeout(LONG).unwrap();
                        comm.send(&message, 1).unwrap();
                        comm.send(&[7u8], 1).unwrap();
                        continue;
                    }
                    let mut buffer = vec![0xaa_u8; LENGTH];
                    comm.set_timeout(milliseconds(1 + round % 20)).unwrap();
                    if let Err(error) = comm.recv(&mut buffer, 0) {
                        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                        names(&error, Operation::Recv, Some(0), channel);
                        assert!(error.waited() >= milliseconds(1 + round % 20), "{error}");
                        was_half.fetch_or(buffer[..1000] == message[..1000], Ordering::SeqCst);
                        buffer.fill(0x55);
                        let mut repeated = vec![0u8; LENGTH];
                        comm.set_timeout(LONG).unwrap();
                        comm.recv(&mut repeated, 0).unwrap();
                        assert!(repeated == message, "the repeated call has not all of the message");
                        assert!(buffer.iter().all(|byte| *byte == 0x55), "the buffer was touched again");
                    }
                    comm.set_timeout(LONG).unwrap();
                    let mut next = [0u8];
                    comm.recv(&mut next, 0).unwrap();
                    assert_eq!(next, [7]);
                    is_over.store(was_half.load(Ordering::SeqCst), Ordering::SeqCst);
                }
                comm.barrier().unwrap();
            });
            assert!(was_half.into_inner(), "no deadline fell into a message");
        });
    });
}

/// A send whose last bytes can be copied out when its deadline passes succeeds late;
/// one that has not begun, or cannot end so, fails and was never sent. (Over Memory
/// small messages with their headers fill a link before the credit is used up.)
#[test]
fn a_send_that_is_late_is_sent_whole_or_not_at_all() {
    watched(LIMIT, || {
        both_channels(|channel| {
            for length in [250_000, 1024] {
                let full = Meeting::default();
                let accepted = AtomicU32::new(0);
                job(channel, 2, |comm| {
                    if comm.rank() == 0 {
                        comm.barrier().unwrap();
                        // The peer does not read: until its host is full, and beyond.
                        comm.set_timeout(milliseconds(100)).unwrap();
                        let error = loop {
                            let mut message = content(length);
                            let number = accepted.load(Ordering::SeqCst);
                            message[..4].copy_from_slice(&number.to_le_bytes());
                            match comm.send(&message, 1) {
                                Ok(()) => accepted.store(number + 1, Ordering::SeqCst),
                                Err(error) => break error,
                            }
                        };
                        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                        names(&error, Operation::Send, Some(1), channel);
                        assert!(error.waited() >= milliseconds(99), "{error}");
                        full.wait();
                        comm.set_timeout(LONG).unwrap();
                        comm.send(&[0u8; 4], 1).unwrap();
                        comm.barrier().unwrap();
                        return;
                    }
                    comm.barrier().unwrap();
                    full.wait();
                    // The end is told by a message of another length.
                    let mut received = 0u32;
                    let mut buffer = vec![0u8; length];
                    while comm.recv(&mut buffer, 0).is_ok() {
                        assert_eq!(buffer[..4], received.to_le_bytes(), "a message is missing");
                        assert!(buffer[4..] == content(length)[4..], "a message is torn");
                        received += 1;
                    }
                    let error = comm.last_error().unwrap();
                    assert_eq!(error.kind(), ErrorKind::SizeMismatch, "{error}");
                    assert!(error.message().contains("4 bytes"), "{error}");
                    assert_eq!(received, accepted.load(Ordering::SeqCst), "accepted, and received");
                    assert!(received > 0);
                    comm.barrier().unwrap();
                });
            }
        });
    });
}

/// A message that is withdrawn before its data began takes no receive with it, though
/// the receive had met its head.
#[test]
fn a_withdrawn_send_leaves_the_receive_in_its_place() {
    watched(LIMIT, || {
        both_channels(|channel| {
            let small = |config: &mut fmi::Config| config.set("unexpected_limit", "65536").unwrap();
            let withdrawn = Meeting::default();
            job_with(channel, 2, small, |comm| {
                let mut message = content(30 << 20);
                comm.barrier().unwrap();
                if comm.rank() == 0 {
                    comm.set_timeout(milliseconds(150)).unwrap();
                    let error = fails_soon(|| comm.send(&message, 1));
                    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                    names(&error, Operation::Send, Some(1), channel);
                    withdrawn.wait();
                    comm.set_timeout(LONG).unwrap();
                    message.reverse();
                    comm.send(&message, 1).unwrap();
                } else {
                    withdrawn.wait();
                    comm.set_timeout(LONG).unwrap();
                    let mut buffer = vec![0u8; message.len()];
                    comm.recv(&mut buffer, 0).unwrap();
                    message.reverse();
                    assert!(buffer == message);
                }
                comm.barrier().unwrap();
            });
        });
    });
}

/// After data began a withdrawn message ends its receive, as cancelled.
#[test]
fn a_send_that_tears_cancels_its_receive() {
    const LENGTH: usize = 48 << 20;
    watched(LIMIT, || {
        both_channels(|channel| {
            let was_torn = AtomicBool::new(false);
            let is_over = AtomicBool::new(false);
            let turn = Barrier::new(2);
            job(channel, 2, |comm| {
                let message = content(LENGTH);
                comm.barrier().unwrap();
                for round in 0..60u64 {
                    turn.wait();
                    if is_over.load(Ordering::SeqCst) {
                        break;
                    }
                    turn.wait();
                    if comm.rank() == 0 {
                        comm.set_timeout(milliseconds(1 + round % 30)).unwrap();
                        if let Err(error) = comm.send(&message, 1) {
                            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                            names(&error, Operation::Send, Some(1), channel);
                        }
                        comm.set_timeout(LONG).unwrap();
                        comm.send(&[9u8], 1).unwrap();
                        continue;
                    }
                    comm.set_timeout(LONG).unwrap();
                    let mut buffer = vec![0u8; LENGTH];
                    let needs_marker = match comm.recv(&mut buffer, 0) {
                        Ok(()) => {
                            assert!(buffer == message);
                            true
                        }
                        // Withdrawn before: the receive met the next message.
                        Err(error) if error.kind() == ErrorKind::SizeMismatch => false,
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
                            names(&error, Operation::Recv, Some(0), channel);
                            was_torn.store(true, Ordering::SeqCst);
                            true
                        }
                    };
                    let mut marker = [0u8];
                    if needs_marker {
                        comm.recv(&mut marker, 0).unwrap();
                        assert_eq!(marker, [9]);
                    }
                    is_over.store(was_torn.load(Ordering::SeqCst), Ordering::SeqCst);
                }
                comm.barrier().unwrap();
                talks_with(&comm, 1 - comm.rank());
            });
            assert!(was_torn.into_inner(), "no deadline fell into a message");
        });
    });
}

#[test]
#[ignore = "the program of a rank in a process of its own"]
fn rank_program() {
    let comm = Communicator::from_env(&std::env::var("FMI_TEST_NAME").unwrap()).unwrap();
    comm.barrier().unwrap();
    println!("\nready");
    std::thread::sleep(LIMIT);
}

/// Sends and receives among the others go on; with the lost rank they fail, and so
/// does every collective, at once.
#[test]
fn a_lost_rank_ends_what_needs_it_and_nothing_else() {
    watched(LIMIT, || {
        let server = server();
        let victim = RankProcess::start(&server, 2, 3, "lost", "");
        let config = config(Channel::Direct, Some(&server));
        let met = Meeting::default();
        let survivor = |rank: u32, mut victim: Option<RankProcess>| {
            let comm = Communicator::create(rank, 3, "lost", &config).unwrap();
            comm.set_timeout(LONG).unwrap();
            comm.barrier().unwrap();
            if let Some(victim) = &mut victim {
                victim.await_ready();
            }
            drop(victim);
            met.wait();
            let error = fails_soon(|| comm.recv(&mut [0u8], 2));
            assert_eq!(error.kind(), ErrorKind::PeerLost, "{error}");
            names(&error, Operation::Recv, Some(2), Channel::Direct);
            let error = fails_soon(|| comm.send(&[0u8], 2));
            assert_eq!(error.kind(), ErrorKind::PeerLost, "{error}");
            names(&error, Operation::Send, Some(2), Channel::Direct);
            talks_with(&comm, 1 - rank);
            let error = fails_soon(|| comm.barrier());
            assert_eq!((error.kind(), error.peer()), (ErrorKind::PeerLost, Some(2)), "{error}");
            is_poisoned(&comm, ErrorKind::PeerLost);
            talks_with(&comm, 1 - rank);
        };
        std::thread::scope(|scope| {
            scope.spawn(|| survivor(0, None));
            survivor(1, Some(victim));
        });
    });
}

#[test]
fn a_rank_that_left_ends_what_needs_it_and_nothing_else() {
    watched(LIMIT, || {
        both_channels(|channel| {
            job(channel, 3, |comm| {
                comm.set_timeout(LONG).unwrap();
                comm.barrier().unwrap();
                if comm.rank() == 2 {
                    comm.send(&[8u8], 0).unwrap();
                    return comm.close(LONG).unwrap();
                }
                if comm.rank() == 0 {
                    let mut last = [0u8];
                    comm.recv(&mut last, 2).unwrap();
                    assert_eq!(last, [8]);
                }
                let error = fails_soon(|| comm.recv(&mut [0u8], 2));
                assert_eq!(error.kind(), ErrorKind::PeerLeft, "{error}");
                names(&error, Operation::Recv, Some(2), channel);
                talks_with(&comm, 1 - comm.rank());
                let error = fails_soon(|| comm.barrier());
                assert_eq!((error.cause(), error.peer()), (ErrorKind::PeerLeft, Some(2)), "{error}");
                // Where nothing of it had moved, the call counts as not called.
                for _ in 0..3 {
                    let error = fails_soon(|| comm.barrier());
                    assert_eq!(error.cause(), ErrorKind::PeerLeft, "{error}");
                }
                talks_with(&comm, 1 - comm.rank());
            });
        });
    });
}

/// A collective that fails after it has moved fails everywhere, with its first cause;
/// a rank that was outside of calls hears of it in its next one.
#[test]
fn a_collective_that_is_late_poisons_the_communicator_of_all() {
    watched(LIMIT, || {
        both_channels(|channel| {
            let late = Barrier::new(4);
            job(channel, 4, |comm| {
                comm.barrier().unwrap();
                if comm.rank() == 3 {
                    late.wait();
                    // All that it needs may have been sent to it, and be right.
                    let mut sum = [0];
                    let outcome = comm.allreduce(&[1], &mut sum, &Op::SUM);
                    assert!(outcome.is_err() || sum == [4], "a wrong sum: {sum:?}");
                    let error = fails_soon(|| outcome.and_then(|()| comm.barrier()));
                    assert_eq!(error.cause(), ErrorKind::Timeout, "{error}");
                    assert!(error.cause_rank().is_some_and(|rank| rank != 3), "{error}");
                } else {
                    comm.set_timeout(milliseconds(200)).unwrap();
                    let error = fails_soon(|| comm.allreduce(&[1], &mut [0], &Op::SUM));
                    assert_eq!(error.cause(), ErrorKind::Timeout, "{error}");
                    let is_first = error.kind() == ErrorKind::Timeout;
                    assert!(is_first || error.kind() == ErrorKind::Aborted, "{error}");
                    assert_eq!(error.operation(), Some(Operation::Allreduce), "{error}");
                    assert!(error.waited().is_some() && error.channel().is_some() && error.peer().is_some());
                    late.wait();
                }
                is_poisoned(&comm, ErrorKind::Timeout);
                talks_with(&comm, comm.rank() ^ 1);
            });
        });
    });
}

#[test]
fn a_function_that_fails_on_one_rank_poisons_the_communicator_of_all() {
    watched(LIMIT, || {
        both_channels(|channel| {
            let linked = Barrier::new(4);
            job(channel, 4, |comm| {
                comm.set_timeout(LONG).unwrap();
                comm.barrier().unwrap();
                // Who was still in it would hear of the failure there.
                linked.wait();
                let fails = comm.rank() == 0;
                let op = Op::user(move |_, _, _, _| if fails { Err(42) } else { Ok(()) }, true, true, None);
                let error = fails_soon(|| comm.allreduce(&[1], &mut [0], &op).and_then(|()| comm.barrier()));
                assert_eq!(error.cause(), ErrorKind::Callback, "{error}");
                if fails {
                    assert_eq!(error.kind(), ErrorKind::Callback, "{error}");
                    assert_eq!(error.operation(), Some(Operation::Allreduce), "{error}");
                } else {
                    assert_eq!((error.kind(), error.cause_rank()), (ErrorKind::Aborted, Some(0)), "{error}");
                }
                is_poisoned(&comm, ErrorKind::Callback);
                talks_with(&comm, comm.rank() ^ 1);
            });
        });
    });
}

#[test]
fn an_interrupted_collective_poisons_the_communicator_of_all() {
    watched(LIMIT, || {
        both_channels(|channel| {
            let late = Meeting::default();
            job(channel, 3, |comm| {
                comm.set_timeout(LONG).unwrap();
                comm.barrier().unwrap();
                match comm.rank() {
                    0 => std::thread::scope(|scope| {
                        let blocked = scope.spawn(|| comm.barrier().unwrap_err());
                        std::thread::sleep(Duration::from_millis(200));
                        wake(&comm);
                        let error = blocked.join().unwrap();
                        assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
                        names(&error, Operation::Barrier, None, channel);
                        late.wait();
                    }),
                    1 => {
                        let error = fails_soon(|| comm.barrier());
                        let known = (error.kind(), error.cause(), error.cause_rank());
                        assert_eq!(known, (ErrorKind::Aborted, ErrorKind::Interrupted, Some(0)), "{error}");
                    }
                    _ => {
                        late.wait();
                        let error = fails_soon(|| comm.barrier());
                        assert_eq!((error.cause(), error.cause_rank()), (ErrorKind::Interrupted, Some(0)));
                    }
                }
                is_poisoned(&comm, ErrorKind::Interrupted);
                if comm.rank() < 2 {
                    talks_with(&comm, 1 - comm.rank());
                }
            });
        });
    });
}

/// A rank that had finished its part has rightly succeeded, and hears in its next
/// collective of the failure of those that had not.
#[test]
fn a_rank_that_had_finished_has_succeeded() {
    watched(LIMIT, || {
        both_channels(|channel| {
            let failed = Barrier::new(3);
            job(channel, 3, |comm| {
                comm.barrier().unwrap();
                let mut all = [0u8; 3];
                match comm.rank() {
                    0 => {
                        comm.set_timeout(milliseconds(300)).unwrap();
                        let error = fails_soon(|| comm.gather(&[1u8], Some(&mut all), 0));
                        assert_eq!((error.kind(), error.peer()), (ErrorKind::Timeout, Some(2)), "{error}");
                        failed.wait();
                    }
                    1 => {
                        comm.gather(&[1u8], None, 0).unwrap();
                        failed.wait();
                        let error = fails_soon(|| comm.barrier());
                        assert_eq!((error.cause(), error.cause_rank()), (ErrorKind::Timeout, Some(0)));
                    }
                    _ => {
                        failed.wait();
                        let error = fails_soon(|| comm.gather(&[1u8], None, 0).and_then(|()| comm.barrier()));
                        assert_eq!((error.cause(), error.cause_rank()), (ErrorKind::Timeout, Some(0)));
                    }
                }
                is_poisoned(&comm, ErrorKind::Timeout);
            });
        });
    });
}

/// A collective of which nothing has moved when its deadline passes counts as not
/// called: the same call may be made again.
#[test]
fn a_call_of_which_nothing_moved_may_be_repeated() {
    watched(LIMIT, || {
        both_channels(|channel| {
            let late = Meeting::default();
            job(channel, 2, |comm| {
                comm.barrier().unwrap();
                let mut value = [comm.rank() + 7];
                if comm.rank() == 1 {
                    comm.set_timeout(milliseconds(100)).unwrap();
                    let error = fails_soon(|| comm.bcast(&mut value, 0));
                    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                    names(&error, Operation::Bcast, Some(0), channel);
                    comm.set_timeout(LONG).unwrap();
                    late.wait();
                } else {
                    late.wait();
                }
                comm.bcast(&mut value, 0).unwrap();
                assert_eq!(value, [7]);
                comm.barrier().unwrap();
            });
        });
    });
}

/// An abort needs no call of the rank that aborts, and only the first one counts.
#[test]
fn an_abort_while_idle_and_twice() {
    watched(LIMIT, || {
        both_channels(|channel| {
            job(channel, 3, |comm| {
                comm.set_timeout(LONG).unwrap();
                comm.barrier().unwrap();
                if comm.rank() == 0 {
                    std::thread::sleep(Duration::from_millis(100));
                    comm.abort(7).unwrap();
                    comm.abort(8).unwrap();
                } else {
                    let error = fails_soon(|| comm.barrier());
                    assert_eq!((error.kind(), error.cause_rank()), (ErrorKind::Aborted, Some(0)), "{error}");
                    assert!(error.message().contains("code 7"), "{error}");
                    assert!(error.waited().is_some() && error.operation() == Some(Operation::Barrier));
                }
                is_poisoned(&comm, ErrorKind::Aborted);
                if comm.rank() < 2 {
                    talks_with(&comm, 1 - comm.rank());
                }
            });
        });
    });
}

/// Over Memory nobody but the rank itself can tell those that it has no link to.
#[test]
fn an_abort_before_any_link_is_told() {
    watched(LIMIT, || {
        let gone = Barrier::new(3);
        job(Channel::Memory, 3, |comm| {
            comm.set_timeout(LONG).unwrap();
            if comm.rank() == 0 {
                comm.abort(7).unwrap();
                drop(comm);
                gone.wait();
                return;
            }
            gone.wait();
            let error = fails_soon(|| comm.barrier());
            assert_eq!((error.kind(), error.cause_rank()), (ErrorKind::Aborted, Some(0)), "{error}");
        });
    });
}

/// A blocked call is aborted once: the next abort finds it over, and the next call is
/// not disturbed.
#[test]
fn an_abort_of_a_blocked_call_twice() {
    watched(LIMIT, || {
        both_channels(|channel| {
            job(channel, 2, |comm| {
                comm.set_timeout(LONG).unwrap();
                comm.barrier().unwrap();
                if comm.rank() == 0 {
                    std::thread::scope(|scope| {
                        let blocked = scope.spawn(|| comm.recv(&mut [0u8], 1).unwrap_err());
                        std::thread::sleep(Duration::from_millis(200));
                        comm.abort(7).unwrap();
                        comm.abort(8).unwrap();
                        let error = blocked.join().unwrap();
                        assert_eq!(
                            (error.kind(), error.operation()),
                            (ErrorKind::Aborted, Some(Operation::Recv))
                        );
                        assert!(error.message().contains("code 7"), "{error}");
                    });
                } else {
                    let error = fails_soon(|| comm.barrier());
                    assert!(error.message().contains("code 7"), "{error}");
                }
                talks_with(&comm, 1 - comm.rank());
                is_poisoned(&comm, ErrorKind::Aborted);
            });
        });
    });
}

/// A congestion control that the kernel does not have is found before there is a
/// connection that the other side takes for a link; and each call says so.
#[test]
fn an_unknown_congestion_control_is_named_by_every_call() {
    watched(LIMIT, || {
        let adjust = |config: &mut fmi::Config| config.set("backends.Direct.congestion", "fmi-none").unwrap();
        job_with(Channel::Direct, 2, adjust, |comm| {
            comm.set_timeout(milliseconds(5000)).unwrap();
            for _ in 0..2 {
                let error = fails_soon(|| match comm.rank() {
                    0 => comm.send(&[1u8], 1),
                    _ => comm.recv(&mut [0u8], 0),
                });
                assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                assert!(error.to_string().contains("congestion"), "{error}");
            }
        });
    });
}

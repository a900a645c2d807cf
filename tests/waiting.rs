//! How a call waits: it costs little, and nothing that happens meanwhile is
//! missed.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fmi::{Communicator, ErrorKind};
use support::{Channel, both_channels, config, milliseconds, server, watched};

const LIMIT: Duration = Duration::from_secs(60);

/// Processor time that this thread has used.
fn used() -> Duration {
    // SAFETY: a timespec of zeros is a valid one; the call fills it.
    let time = unsafe {
        let mut time = std::mem::zeroed::<libc::timespec>();
        assert_eq!(libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time), 0);
        time
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A peer that has joined and then computes leaves the other one asleep, however
/// long it takes.
#[test]
fn waiting_for_a_peer_that_computes_costs_no_processor() {
    watched(LIMIT, || {
        let server = server();
        let config = config(Channel::Direct, Some(&server));
        let make = |rank| Communicator::create(rank, 2, "computes", &config).unwrap();
        let (waits, computes) = (make(0), make(1));
        computes.set_timeout(milliseconds(50)).unwrap();
        computes.recv(&mut [0u8], 0).unwrap_err();
        waits.set_timeout(milliseconds(6000)).unwrap();
        let before = used();
        let error = waits.recv(&mut [0u8], 1).unwrap_err();
        let cost = used() - before;
        println!("6 s of waiting cost {cost:?}");
        assert_eq!((error.kind(), error.peer()), (ErrorKind::Timeout, Some(1)), "{error}");
        assert!(cost < Duration::from_millis(1000), "{cost:?}");
    });
}

/// Two ranks that each wait for a rank they have a link to also make the link
/// that they want of each other, asleep or not.
#[test]
fn a_rank_asleep_has_asked_for_its_links() {
    watched(LIMIT, || {
        let server = server();
        let mut config = config(Channel::Direct, Some(&server));
        config.set("wait", "park").unwrap();
        let comms: Vec<_> =
            (0..4).map(|rank| Communicator::create(rank, 4, "asleep", &config).unwrap()).collect();
        let [zero, one, two, three] = &comms[..] else { unreachable!() };
        std::thread::scope(|scope| {
            for (from, to) in [(zero, one), (two, three)] {
                scope.spawn(|| from.send(&[1u8], to.rank()).unwrap());
                scope.spawn(|| to.recv(&mut [0u8], from.rank()).unwrap());
            }
        });
        std::thread::scope(|scope| {
            scope.spawn(|| {
                zero.set_timeout(milliseconds(1000)).unwrap();
                let error = zero.sendrecv(&[7u8], 2, &mut [0u8], 1).unwrap_err();
                assert_eq!((error.kind(), error.peer()), (ErrorKind::Timeout, Some(1)), "{error}");
            });
            two.set_timeout(milliseconds(1500)).unwrap();
            // More than rank 3 takes unasked.
            let large = vec![0u8; 8 << 20];
            let mut got = [0u8];
            let error = two.sendrecv(&large, 3, &mut got, 0).unwrap_err();
            assert_eq!((error.kind(), error.peer()), (ErrorKind::Timeout, Some(3)), "{error}");
            two.recv(&mut got, 0).unwrap();
            assert_eq!(got, [7]);
        });
    });
}

/// An abort that comes while another thread is inside a call that never waits is
/// told all the same, even if that thread makes no further call.
#[test]
fn an_abort_is_never_lost() {
    watched(LIMIT, || {
        for round in 0..30 {
            let config = config(Channel::Memory, None);
            let make = |rank| Communicator::create(rank, 2, "abort", &config).unwrap();
            let (aborts, hears) = (make(0), make(1));
            let stop = AtomicBool::new(false);
            let hearing = std::thread::spawn(move || {
                hears.set_timeout(milliseconds(5000)).unwrap();
                hears.barrier().unwrap_err()
            });
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        match aborts.send(&[1u8], 1) {
                            Ok(()) => {}
                            // The thread that aborts may be inside just now.
                            Err(error) if error.kind() == ErrorKind::Busy => {}
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::Aborted, "{error}");
                                break;
                            }
                        }
                    }
                });
                std::thread::sleep(Duration::from_millis(5));
                aborts.abort(7).unwrap();
                stop.store(true, Ordering::Relaxed);
            });
            drop(aborts);
            let error = hearing.join().unwrap();
            assert_eq!(
                (error.kind(), error.cause_rank()),
                (ErrorKind::Aborted, Some(0)),
                "round {round}: {error}"
            );
        }
    });
}

/// Nor one of a rank that has had nothing to do with anybody.
#[test]
fn an_abort_reaches_ranks_that_were_never_linked() {
    watched(LIMIT, || {
        both_channels(|channel| {
            let server = (channel == Channel::Direct).then(server);
            let config = config(channel, server.as_ref());
            let make = |rank| Communicator::create(rank, 3, "never linked", &config).unwrap();
            let (aborts, hears) = (make(0), [make(1), make(2)]);
            std::thread::scope(|scope| {
                // Over Direct a rank that has not joined yet may well be of the
                // next run, in which nobody aborts.
                let hearing = hears.map(|comm| scope.spawn(move || comm.barrier().unwrap_err()));
                std::thread::sleep(Duration::from_millis(100));
                aborts.abort(7).unwrap();
                drop(aborts);
                for error in hearing.map(|thread| thread.join().unwrap()) {
                    assert_eq!((error.kind(), error.cause_rank()), (ErrorKind::Aborted, Some(0)), "{error}");
                }
            });
        });
    });
}

/// A connection whose handshake was under way when its rank went to compute is
/// still good when that rank comes back.
#[test]
fn a_handshake_outlives_a_computation() {
    watched(LIMIT, || {
        let server = server();
        let config = config(Channel::Direct, Some(&server));
        std::thread::scope(|scope| {
            for pair in 0..60u64 {
                let config = &config;
                let name = format!("handshake-{pair}");
                let make = move |rank| Communicator::create(rank, 2, &name, config).unwrap();
                let (sends, receives) = (make(0), make(1));
                scope.spawn(move || {
                    sends.set_timeout(milliseconds(1 + pair % 2)).unwrap();
                    let start = Instant::now();
                    while let Err(error) = sends.send(&[pair], 1) {
                        assert!(start.elapsed() < Duration::from_secs(20), "pair {pair}: {error}");
                        std::thread::sleep(Duration::from_millis(pair % 5));
                    }
                    sends.close(milliseconds(15_000)).unwrap();
                });
                scope.spawn(move || {
                    let mut got = [0];
                    receives.set_timeout(milliseconds(1 + pair % 3)).unwrap();
                    for _ in 0..pair % 8 {
                        let _ = receives.recv(&mut got, 0);
                    }
                    if got == [0] {
                        std::thread::sleep(Duration::from_millis(5500));
                        receives.set_timeout(milliseconds(10_000)).unwrap();
                        receives.recv(&mut got, 0).unwrap_or_else(|error| panic!("pair {pair}: {error}"));
                    }
                    assert_eq!(got, [pair]);
                });
            }
        });
    });
}

/// The error names the rank that is missing, not one that has done its part.
#[test]
fn the_error_names_who_is_missing() {
    watched(LIMIT, || {
        support::both_channels(|channel| {
            support::job(channel, 3, |comm| {
                comm.barrier().unwrap();
                let large = vec![0u8; 8 << 20];
                match comm.rank() {
                    0 => {
                        std::thread::sleep(Duration::from_millis(100));
                        comm.set_timeout(milliseconds(300)).unwrap();
                        let error = comm.sendrecv(&large, 2, &mut [0u8], 1).unwrap_err();
                        assert_eq!((error.kind(), error.peer()), (ErrorKind::Timeout, Some(2)), "{error}");
                    }
                    1 => comm.send(&[1u8], 0).unwrap(),
                    _ => std::thread::sleep(Duration::from_millis(800)),
                }
            });
        });
    });
}

/// Reading never stops: a rank in a call takes what comes from ranks that it has
/// never had to do with, so that a ring in which each waits for another moves on.
#[test]
fn a_rank_that_waits_reads_from_strangers() {
    watched(LIMIT, || {
        support::both_channels(|channel| {
            support::job(channel, 3, |comm| {
                comm.set_timeout(milliseconds(20_000)).unwrap();
                // More than a pipe and a kernel hold.
                let mut large = vec![7u8; 40 << 20];
                match comm.rank() {
                    0 => {
                        comm.send(&large, 1).unwrap();
                        comm.send(&[1u8], 2).unwrap();
                    }
                    1 => {
                        comm.recv(&mut [0u8], 2).unwrap();
                        comm.recv(&mut large, 0).unwrap();
                    }
                    _ => {
                        comm.recv(&mut [0u8], 0).unwrap();
                        comm.send(&[1u8], 1).unwrap();
                    }
                }
            });
        });
    });
}

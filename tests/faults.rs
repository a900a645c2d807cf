//! What goes wrong ends in a typed error that names the culprit, at once or by
//! the deadline; what can go on goes on.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use fmi::{Communicator, Config, Error, ErrorKind, Op, Result};
use socket2::{Domain, Socket, Type};
use support::{
    Channel, both_channels, config, job, job_with, listening_ports, milliseconds, server, wake, watched,
};

const LIMIT: Duration = Duration::from_secs(60);
/// What a deadline may be overrun by where other tests take the processors.
const SLACK: Duration = Duration::from_secs(2);

/// A configuration for Direct with the server at `host` and `port`.
fn direct(host: &str, port: u16) -> Config {
    let mut config = Config::new();
    config.set("backends.Direct.host", host).unwrap();
    config.set("backends.Direct.port", &port.to_string()).unwrap();
    config
}

/// Runs `call`, which must fail within `limit`.
fn fails_within<T>(limit: Duration, call: impl FnOnce() -> Result<T>) -> Error {
    let start = Instant::now();
    let error = call().err().expect("the call must fail");
    assert!(start.elapsed() < limit + SLACK, "{error}: after {:?}", start.elapsed());
    error
}

fn says(error: &Error, kind: ErrorKind, text: &str) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(text), "{error} does not say {text:?}");
}

#[test]
fn arguments_out_of_range() {
    watched(LIMIT, || {
        let config = Config::new();
        for (rank, size) in [(1, 1), (5, 3), (0, 0), (0, 70_000)] {
            let error = Communicator::create(rank, size, "x", &config).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Arg);
        }
        job(Channel::Memory, 2, |comm| {
            let mut data = [0u8; 4];
            says(&comm.send(&data, 2).unwrap_err(), ErrorKind::Arg, "rank 2");
            says(&comm.recv(&mut data, 9).unwrap_err(), ErrorKind::Arg, "rank 9");
            says(&comm.bcast(&mut data, 2).unwrap_err(), ErrorKind::Arg, "rank 2");
            says(&comm.set_timeout(Some(Duration::ZERO)).unwrap_err(), ErrorKind::Arg, "zero");
            let mut short = [0u8; 3];
            says(
                &comm.allreduce(&data, &mut short, &Op::SUM).unwrap_err(),
                ErrorKind::Arg,
                "send has 4 bytes",
            );
            let floats = [1.0f64];
            let mut result = [0.0f64];
            says(&comm.allreduce(&floats, &mut result, &Op::BAND).unwrap_err(), ErrorKind::Arg, "double");
            let root = comm.rank();
            says(&comm.gather(&data, None, root).unwrap_err(), ErrorKind::Arg, "recv");
            says(
                &comm.gather(&data, Some(&mut short), root).unwrap_err(),
                ErrorKind::Arg,
                "recv has 3 bytes",
            );
            // Nothing was sent: all goes on.
            comm.barrier().unwrap();
        });
    });
}

#[test]
fn no_server() {
    watched(LIMIT, || {
        // Bound and not listening: refused, and nobody else's meanwhile.
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        bound.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let free = bound.local_addr().unwrap().as_socket().unwrap().port();
        let comm = Communicator::create(0, 2, "x", &direct("127.0.0.1", free)).unwrap();
        let error = fails_within(Duration::from_secs(4), || comm.barrier());
        says(&error, ErrorKind::Connect, &format!("127.0.0.1:{free}"));
        // Nothing has moved, so the same call may be tried again.
        comm.set_timeout(milliseconds(200)).unwrap();
        let error = fails_within(Duration::from_millis(200), || comm.barrier());
        says(&error, ErrorKind::Connect, "refused");
    });
}

#[test]
fn an_unknown_host() {
    watched(LIMIT, || {
        let comm = Communicator::create(0, 2, "x", &direct("no-such-host.invalid", 1)).unwrap();
        let error = fails_within(Duration::from_secs(10), || comm.barrier());
        says(&error, ErrorKind::Connect, "no-such-host.invalid");
    });
}

#[test]
fn a_server_that_says_nothing_or_garbage() {
    watched(LIMIT, || {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let comm = Communicator::create(0, 2, "x", &direct("127.0.0.1", port)).unwrap();
        comm.set_timeout(milliseconds(200)).unwrap();
        let error = fails_within(Duration::from_millis(200), || comm.recv(&mut [0u8; 1], 1));
        says(&error, ErrorKind::Connect, "has not answered");

        let chatter = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = chatter.local_addr().unwrap().port();
        let talker = std::thread::spawn(move || {
            let (mut stream, _) = chatter.accept().unwrap();
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\nwhat do you want?");
            let _ = stream.read(&mut [0; 1000]);
        });
        let comm = Communicator::create(0, 2, "x", &direct("127.0.0.1", port)).unwrap();
        let error = fails_within(Duration::from_secs(2), || comm.recv(&mut [0u8; 1], 1));
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        talker.join().unwrap();
    });
}

#[test]
fn a_server_that_goes_away() {
    watched(LIMIT, || {
        let server = server();
        let config = config(Channel::Direct, Some(&server));
        let make = |rank| Communicator::create(rank, 3, "gone", &config).unwrap();
        let comms = [make(0), make(1), make(2)];
        std::thread::scope(|scope| {
            scope.spawn(|| comms[0].send(&[1u8], 1).unwrap());
            comms[1].recv(&mut [0u8], 0).unwrap();
        });
        drop(server);
        // The link stands; another cannot be made.
        comms[0].send(&[1u8], 1).unwrap();
        comms[1].recv(&mut [0u8], 0).unwrap();
        comms[0].set_timeout(milliseconds(300)).unwrap();
        let error = fails_within(Duration::from_millis(300), || comms[0].send(&[1u8], 2));
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
        assert_eq!(error.peer(), Some(2));
    });
}

#[test]
fn a_rank_twice_and_a_size_that_differs() {
    watched(LIMIT, || {
        let server = server();
        let mut config = config(Channel::Direct, Some(&server));
        config.set("job_id", "one run").unwrap();
        let first = Communicator::create(0, 2, "twice", &config).unwrap();
        first.set_timeout(milliseconds(100)).unwrap();
        says(&first.recv(&mut [0u8], 1).unwrap_err(), ErrorKind::Timeout, "rank 1 has not joined");
        let second = Communicator::create(0, 2, "twice", &config).unwrap();
        let error = fails_within(Duration::from_secs(1), || second.recv(&mut [0u8], 1));
        assert_eq!(error.kind(), ErrorKind::RankTaken, "{error}");
        let larger = Communicator::create(1, 3, "twice", &config).unwrap();
        let error = fails_within(Duration::from_secs(1), || larger.recv(&mut [0u8], 0));
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        assert!(error.message().contains('2') && error.message().contains('3'), "{error}");
        // The job goes on without them.
        first.set_timeout(milliseconds(10_000)).unwrap();
        let partner = Communicator::create(1, 2, "twice", &config).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| first.barrier().unwrap());
            partner.barrier().unwrap();
        });
    });
}

#[test]
fn another_configuration() {
    watched(LIMIT, || {
        let server = server();
        let mut other = config(Channel::Direct, Some(&server));
        let first = Communicator::create(0, 2, "model", &other).unwrap();
        first.set_timeout(milliseconds(100)).unwrap();
        first.recv(&mut [0u8], 1).unwrap_err();
        other.set("model.Direct.bandwidth", "1234").unwrap();
        let second = Communicator::create(1, 2, "model", &other).unwrap();
        let error = fails_within(Duration::from_secs(1), || second.recv(&mut [0u8], 0));
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    });
}

#[test]
fn a_peer_that_never_comes_or_never_calls() {
    watched(LIMIT, || {
        both_channels(|channel| {
            let server = (channel == Channel::Direct).then(server);
            let config = config(channel, server.as_ref());
            let comm = Communicator::create(0, 2, "alone", &config).unwrap();
            comm.set_timeout(milliseconds(150)).unwrap();
            let mut data = [0i32];
            type Call<'a> = &'a dyn Fn(&mut [i32]) -> Result<()>;
            let calls: [Call<'_>; 5] = [
                &|data| comm.recv(data, 1),
                &|data| comm.sendrecv(&[1], 1, data, 1),
                &|data| comm.bcast(data, 1),
                &|data| comm.gather(&[1], Some(&mut [data[0]; 2]), 0),
                &|data| comm.scatter(None, data, 1),
            ];
            for call in calls {
                let error = fails_within(Duration::from_millis(150), || call(&mut data));
                says(&error, ErrorKind::Timeout, "rank 1 has not joined");
                assert_eq!(error.peer(), Some(1));
                assert!(error.waited() >= milliseconds(149), "{error}");
            }
            let silent = Communicator::create(1, 2, "alone", &config).unwrap();
            silent.set_timeout(milliseconds(50)).unwrap();
            // What sendrecv had sent may be there.
            let _ = silent.recv(&mut data, 0);
            let error = fails_within(Duration::from_millis(150), || comm.recv(&mut data, 1));
            assert_eq!((error.kind(), error.peer()), (ErrorKind::Timeout, Some(1)), "{error}");
        });
    });
}

#[test]
fn every_collective_meets_its_deadline() {
    watched(LIMIT, || {
        both_channels(|channel| {
            let calls: [fn(&Communicator) -> Result<()>; 4] = [
                |comm| comm.barrier(),
                |comm| comm.reduce(&[1], Some(&mut [0]), &Op::SUM, 0),
                |comm| comm.allreduce(&[1], &mut [0], &Op::SUM),
                |comm| comm.scan(&[1], &mut [0], &Op::SUM),
            ];
            for call in calls {
                job(channel, 3, |comm| {
                    comm.barrier().unwrap();
                    if comm.rank() == 1 {
                        std::thread::sleep(Duration::from_millis(600));
                        return;
                    }
                    comm.set_timeout(milliseconds(150)).unwrap();
                    // A rank whose part needs nothing of rank 1 has rightly succeeded.
                    if let Err(error) = call(&comm) {
                        assert_eq!(error.cause(), ErrorKind::Timeout, "{error}");
                        // The same call: one of which nothing had moved is still
                        // to be made, and another in its place were a mismatch.
                        call(&comm).unwrap_err();
                    }
                    // Who left now would be what the others' errors name.
                    std::thread::sleep(Duration::from_millis(450));
                });
            }
        });
    });
}

#[test]
fn lengths_that_differ_leave_the_stream_in_step() {
    watched(LIMIT, || {
        both_channels(|channel| {
            for (sent, room) in
                [(16, 8), (8, 16), (0, 4), (4, 0), (3 << 20, 8), (8, 3 << 20), (3 << 20, 70_000)]
            {
                job(channel, 2, |comm| {
                    if comm.rank() == 0 {
                        comm.send(&vec![1u8; sent], 1).unwrap();
                        comm.send(&[5u8, 6, 7, 8], 1).unwrap();
                        comm.barrier().unwrap();
                        return;
                    }
                    let error = comm.recv(&mut vec![0u8; room], 0).unwrap_err();
                    says(&error, ErrorKind::SizeMismatch, &format!("{sent} bytes for a buffer of {room}"));
                    assert_eq!(error.peer(), Some(0));
                    let mut next = [0u8; 4];
                    comm.recv(&mut next, 0).unwrap();
                    assert_eq!(next, [5, 6, 7, 8]);
                    comm.barrier().unwrap();
                });
            }
        });
    });
}

#[test]
fn ranks_that_do_not_call_the_same() {
    type Calls = (&'static str, fn(&Communicator) -> Result<()>, fn(&Communicator) -> Result<()>);
    let cases: [Calls; 6] = [
        ("operation", |c| c.barrier(), |c| c.allreduce(&[1], &mut [0], &Op::SUM)),
        (
            "length",
            |c| c.allreduce(&[1, 2], &mut [0; 2], &Op::SUM),
            |c| c.allreduce(&[1], &mut [0], &Op::SUM),
        ),
        (
            "datatype",
            |c| c.allreduce(&[1i32], &mut [0], &Op::SUM),
            |c| c.allreduce(&[1u32], &mut [0], &Op::SUM),
        ),
        ("op", |c| c.allreduce(&[1], &mut [0], &Op::SUM), |c| c.allreduce(&[1], &mut [0], &Op::MAX)),
        ("root", |c| c.bcast(&mut [1], 0), |c| c.bcast(&mut [1], 1)),
        ("gather length", |c| c.gather(&[1], Some(&mut [0, 0]), 0), |c| c.gather(&[1, 2], None, 0)),
    ];
    watched(LIMIT, move || {
        both_channels(|channel| {
            for (case, zero, one) in cases {
                job(channel, 2, |comm| {
                    comm.set_timeout(milliseconds(20_000)).unwrap();
                    let start = Instant::now();
                    let outcome = if comm.rank() == 0 { zero(&comm) } else { one(&comm) };
                    // Who only sends learns of it at the next collective.
                    let error = outcome.and_then(|()| comm.barrier()).expect_err(case);
                    assert_eq!(error.kind(), ErrorKind::Mismatch, "{case}: {error}");
                    assert!(start.elapsed() < Duration::from_secs(10), "{case}: {error}");
                    let error = comm.barrier().unwrap_err();
                    assert_eq!((error.kind(), error.cause()), (ErrorKind::Poisoned, ErrorKind::Mismatch));
                    // Sends and receives go on.
                    let other = 1 - comm.rank();
                    let mut got = [0u32];
                    comm.sendrecv(&[comm.rank()], other, &mut got, other).unwrap();
                    assert_eq!(got, [other]);
                });
            }
        });
    });
}

#[test]
fn a_reduction_function_that_fails() {
    watched(LIMIT, || {
        both_channels(|channel| {
            job(channel, 4, |comm| {
                let op = Op::user(|_, _, _, _| Err(42), true, true, None);
                let error = comm.allreduce(&[1], &mut [0], &op).unwrap_err();
                assert_eq!(error.cause(), ErrorKind::Callback, "{error}");
                let error = comm.barrier().unwrap_err();
                assert_eq!((error.kind(), error.cause()), (ErrorKind::Poisoned, ErrorKind::Callback));
            });
        });
    });
}

#[test]
fn a_reduction_function_that_panics() {
    watched(LIMIT, || {
        job(Channel::Memory, 2, |comm| {
            let op = Op::user(|_, _, _, _| panic!("as it is meant to"), true, true, None);
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                comm.allreduce(&[1], &mut [0], &op)
            }));
            if let Ok(outcome) = caught {
                assert_eq!(outcome.unwrap_err().cause(), ErrorKind::Internal);
            }
            assert_eq!(comm.barrier().unwrap_err().kind(), ErrorKind::Poisoned);
        });
    });
}

#[test]
fn a_receive_may_be_repeated_after_its_deadline() {
    watched(LIMIT, || {
        both_channels(|channel| {
            for length in [8, 64 << 10, 4 << 20, 20 << 20] {
                // The message is sent once a receive has met its deadline.
                let missed = std::sync::Barrier::new(2);
                job(channel, 2, |comm| {
                    let content: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
                    if comm.rank() == 0 {
                        missed.wait();
                        comm.send(&content, 1).unwrap();
                        comm.barrier().unwrap();
                        return;
                    }
                    let mut tries = 0;
                    let mut buffer = vec![0u8; length];
                    comm.set_timeout(milliseconds(1)).unwrap();
                    while let Err(error) = comm.recv(&mut buffer, 0) {
                        assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Connect), "{error}");
                        tries += 1;
                        if tries == 1 {
                            missed.wait();
                        }
                    }
                    assert!(tries > 0 && buffer == content, "{length} bytes after {tries} tries");
                    comm.set_timeout(milliseconds(20_000)).unwrap();
                    comm.barrier().unwrap();
                });
            }
        });
    });
}

#[test]
fn a_send_to_a_rank_that_does_not_read() {
    watched(LIMIT, || {
        both_channels(|channel| {
            let small = |config: &mut Config| config.set("unexpected_limit", "65536").unwrap();
            job_with(channel, 2, small, |comm| {
                comm.barrier().unwrap();
                let large = vec![3u8; 40 << 20];
                if comm.rank() == 0 {
                    comm.set_timeout(milliseconds(300)).unwrap();
                    let error = fails_within(Duration::from_millis(300), || comm.send(&large, 1));
                    assert_eq!((error.kind(), error.peer()), (ErrorKind::Timeout, Some(1)), "{error}");
                    comm.set_timeout(milliseconds(20_000)).unwrap();
                    comm.send(&large, 1).unwrap();
                } else {
                    std::thread::sleep(Duration::from_millis(800));
                    let mut buffer = vec![0u8; large.len()];
                    comm.recv(&mut buffer, 0).unwrap();
                    assert!(buffer == large);
                }
            });
        });
    });
}

#[test]
fn strangers_do_not_disturb_a_job() {
    watched(LIMIT, || {
        job(Channel::Direct, 3, |comm| {
            comm.set_timeout(milliseconds(20_000)).unwrap();
            if comm.rank() == 2 {
                // The others have joined by now, and listen.
                std::thread::sleep(Duration::from_millis(200));
                let mut connections = Vec::new();
                for port in listening_ports() {
                    for kind in 0..40 {
                        let address = SocketAddr::from(([127, 0, 0, 1], port));
                        let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1))
                        else {
                            continue;
                        };
                        let _ = match kind % 4 {
                            0 => stream.write_all(&[b'G'; 500]),
                            1 => stream.write_all(b"FMI link\x01\x00\x00\x00"),
                            2 => Ok(()),
                            _ => continue,
                        };
                        connections.push(stream);
                    }
                }
                let mut sum = [0];
                comm.allreduce(&[2], &mut sum, &Op::SUM).unwrap();
                assert_eq!(sum, [3]);
                drop(connections);
            } else {
                let mut sum = [0];
                comm.allreduce(&[comm.rank() as i32], &mut sum, &Op::SUM).unwrap();
                assert_eq!(sum, [3]);
            }
        });
    });
}

#[test]
fn a_second_thread_is_told_that_it_is_busy() {
    watched(LIMIT, || {
        job(Channel::Memory, 2, |comm| {
            if comm.rank() == 1 {
                std::thread::sleep(Duration::from_millis(300));
                comm.send(&[1u8], 0).unwrap();
                return;
            }
            std::thread::scope(|scope| {
                let receiver = scope.spawn(|| comm.recv(&mut [0u8], 1).unwrap());
                std::thread::sleep(Duration::from_millis(100));
                assert_eq!(comm.send(&[1u8], 1).unwrap_err().kind(), ErrorKind::Busy);
                assert_eq!((comm.rank(), comm.size()), (0, 2));
                assert_eq!(comm.last_error().unwrap().kind(), ErrorKind::Busy);
                receiver.join().unwrap();
            });
        });
    });
}

#[test]
fn abort_ends_a_blocked_call_and_the_others_collectives() {
    watched(LIMIT, || {
        both_channels(|channel| {
            job(channel, 3, |comm| {
                comm.barrier().unwrap();
                comm.set_timeout(milliseconds(20_000)).unwrap();
                if comm.rank() == 0 {
                    std::thread::scope(|scope| {
                        let blocked = scope.spawn(|| comm.recv(&mut [0u8], 1).unwrap_err());
                        std::thread::sleep(Duration::from_millis(100));
                        comm.abort(7).unwrap();
                        assert_eq!(blocked.join().unwrap().kind(), ErrorKind::Aborted);
                    });
                } else {
                    let error = fails_within(Duration::from_secs(5), || comm.barrier());
                    assert_eq!((error.kind(), error.cause_rank()), (ErrorKind::Aborted, Some(0)), "{error}");
                    assert!(error.message().contains("code 7"), "{error}");
                }
            });
        });
    });
}

#[test]
fn a_byte_in_the_pipe_interrupts() {
    watched(LIMIT, || {
        job(Channel::Memory, 1, |comm| {
            std::thread::scope(|scope| {
                let blocked = scope.spawn(|| comm.recv(&mut [0u8; 1], 0).unwrap_err());
                std::thread::sleep(Duration::from_millis(100));
                wake(&comm);
                assert_eq!(blocked.join().unwrap().kind(), ErrorKind::Interrupted);
            });
        });
        // With a function that says to go on, a byte does not end the call.
        let goes_on = |config: &mut Config| config.set_interrupt(|| false);
        job_with(Channel::Memory, 1, goes_on, |comm| {
            comm.set_timeout(milliseconds(300)).unwrap();
            std::thread::scope(|scope| {
                let blocked = scope.spawn(|| comm.recv(&mut [0u8; 1], 0).unwrap_err());
                std::thread::sleep(Duration::from_millis(100));
                wake(&comm);
                assert_eq!(blocked.join().unwrap().kind(), ErrorKind::Timeout);
            });
        });
    });
}

#[test]
fn after_close_nothing_more() {
    watched(LIMIT, || {
        both_channels(|channel| {
            job(channel, 2, |comm| {
                comm.barrier().unwrap();
                comm.close(milliseconds(5000)).unwrap();
                assert_eq!(comm.barrier().unwrap_err().kind(), ErrorKind::Closed);
                assert_eq!(comm.close(None).unwrap_err().kind(), ErrorKind::Closed);
            });
        });
    });
}

#[test]
fn what_was_sent_before_a_departure_arrives() {
    watched(LIMIT, || {
        both_channels(|channel| {
            for length in [1, 100_000, 1 << 20, 20 << 20] {
                for sends_back in [false, true] {
                    job(channel, 2, |comm| {
                        comm.barrier().unwrap();
                        if comm.rank() == 0 {
                            comm.send(&vec![9u8; length], 1).unwrap();
                            drop(comm);
                            return;
                        }
                        std::thread::sleep(Duration::from_millis(50));
                        if sends_back {
                            // Whether it goes through or not, it destroys nothing.
                            let _ = comm.send(&[1u8; 100], 0);
                        }
                        let mut buffer = vec![0u8; length];
                        comm.recv(&mut buffer, 0).unwrap();
                        assert!(buffer.iter().all(|byte| *byte == 9));
                        let error = comm.recv(&mut buffer, 0).unwrap_err();
                        assert_eq!((error.kind(), error.peer()), (ErrorKind::PeerLeft, Some(0)), "{error}");
                    });
                }
            }
        });
    });
}

#[test]
fn a_name_may_be_used_again_at_once() {
    watched(LIMIT, || {
        both_channels(|channel| {
            let server = (channel == Channel::Direct).then(server);
            let config = config(channel, server.as_ref());
            for size in [2, 2, 3, 2, 4, 4] {
                std::thread::scope(|scope| {
                    for rank in 0..size {
                        let config = &config;
                        scope.spawn(move || {
                            let comm = Communicator::create(rank, size, "again", config).unwrap();
                            let mut sum = [0];
                            comm.allreduce(&[1], &mut sum, &Op::SUM).unwrap();
                            assert_eq!(sum, [size as i32]);
                        });
                    }
                });
            }
        });
    });
}

#[test]
fn a_communicator_may_move_to_another_thread() {
    watched(LIMIT, || {
        job(Channel::Direct, 2, |comm| {
            comm.barrier().unwrap();
            std::thread::spawn(move || {
                comm.barrier().unwrap();
                drop(comm);
            })
            .join()
            .unwrap();
        });
    });
}

#[test]
fn many_ranks() {
    watched(LIMIT, || {
        for (channel, size) in [(Channel::Memory, 33), (Channel::Direct, 16)] {
            job(channel, size, |comm| {
                let mut sum = [0u32];
                comm.allreduce(&[comm.rank()], &mut sum, &Op::SUM).unwrap();
                assert_eq!(sum, [size * (size - 1) / 2]);
                comm.barrier().unwrap();
            });
        }
    });
}

/// Descriptors and threads of this process.
fn resources() -> (usize, usize) {
    let count = |path: &str| std::fs::read_dir(path).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

/// In a process of its own, because other tests open and close descriptors.
#[test]
#[ignore = "run by nothing_is_left_behind"]
fn cycles() {
    let server = server();
    let good = config(Channel::Direct, Some(&server));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let bad = direct("127.0.0.1", silent.local_addr().unwrap().port());
    let run = |count| {
        for _ in 0..count {
            let comm = Communicator::create(0, 2, "leak", &bad).unwrap();
            comm.set_timeout(milliseconds(1)).unwrap();
            comm.barrier().unwrap_err();
            std::thread::scope(|scope| {
                for rank in 0..2 {
                    let good = &good;
                    scope.spawn(move || {
                        let comm = Communicator::create(rank, 2, "cycle", good).unwrap();
                        comm.allreduce_in_place(&mut [1], &Op::SUM).unwrap();
                    });
                }
            });
        }
        // The server notices the last departures in its own time.
        std::thread::sleep(Duration::from_millis(300));
        resources()
    };
    let before = run(5);
    let after = run(100);
    assert!(after.0 <= before.0 + 2 && after.1 <= before.1, "{before:?} became {after:?}");
}

#[test]
fn nothing_is_left_behind() {
    watched(LIMIT, || {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cycles", "--ignored", "--quiet"])
            .status()
            .unwrap();
        assert!(status.success());
    });
}

/// The child of a fork is told that the communicator is not its own, and what it
/// does with it does not disturb the parent.
#[test]
fn a_forked_child_has_no_part_in_the_job() {
    watched(LIMIT, || {
        job(Channel::Direct, 2, |comm| {
            comm.barrier().unwrap();
            if comm.rank() == 0 {
                // SAFETY: the child calls nothing that another thread of the
                // parent may hold a lock of, and ends by `_exit`.
                match unsafe { libc::fork() } {
                    0 => {
                        let told = comm.barrier().is_err_and(|error| error.kind() == ErrorKind::Forked);
                        drop(comm);
                        // SAFETY: ends the child at once.
                        unsafe { libc::_exit(if told { 0 } else { 1 }) };
                    }
                    child => {
                        let mut status = 1;
                        // SAFETY: the child is ours, the status is an int.
                        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
                        assert_eq!(status, 0);
                    }
                }
            }
            let mut sum = [0];
            comm.allreduce(&[1], &mut sum, &Op::SUM).unwrap();
            assert_eq!(sum, [2]);
        });
    });
}

//! Channels of the user's own: what the library promises over them, and what it
//! leaves in a store. That every operation works stands in `conformance.rs`.

mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use fmi::{Channel, Communicator, Config, CustomChannel, Error, ErrorKind, Family, Op, Operation, Result};
use support::custom::{self, Custom, Objects, Shelf};
use support::{job_name, milliseconds, ranks, wake, watched};

const LIMIT: Duration = Duration::from_secs(60);

fn both_families() -> [Custom; 2] {
    [Custom::mailbox(), Custom::shelf()]
}

#[test]
fn a_message_of_another_length_is_refused_and_the_next_one_received() {
    watched(LIMIT, || {
        for custom in both_families() {
            custom::job(&custom, 2, |comm| {
                if comm.rank() == 0 {
                    for message in [&[1u8, 2, 3, 4][..], &[5, 6], &[]] {
                        comm.send(message, 1).unwrap();
                    }
                    comm.send(&[7u8; 1000], 1).unwrap();
                    return;
                }
                for wrong in [&mut [0u8; 2][..], &mut [0; 3], &mut [0; 1]] {
                    let error = comm.recv(wrong, 0).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::SizeMismatch, "{error}");
                    assert_eq!((error.peer(), error.channel()), (Some(0), Some("mine")), "{error}");
                }
                let mut right = [0u8; 1000];
                comm.recv(&mut right, 0).unwrap();
                assert_eq!(right, [7; 1000]);
            });
        }
    });
}

#[test]
fn ranks_that_do_not_call_the_same_are_told_so() {
    watched(LIMIT, || {
        type Call = fn(&Communicator) -> Result<()>;
        let pairs: [[Call; 2]; 3] = [
            [|comm| comm.bcast(&mut [0u8; 4], 0), |comm| comm.bcast(&mut [0u8; 5], 0)],
            [
                |comm| comm.allreduce(&[1], &mut [0], &Op::SUM),
                |comm| comm.allreduce(&[1], &mut [0], &Op::MAX),
            ],
            [|comm| comm.gather(&[1u8], None, 1), |comm| comm.scatter::<u8>(None, &mut [0], 0)],
        ];
        for custom in both_families() {
            for calls in pairs {
                let custom = match custom {
                    Custom::Mailbox(_) => Custom::mailbox(),
                    _ => Custom::shelf(),
                };
                custom::job(&custom, 2, |comm| {
                    comm.set_timeout(milliseconds(2000)).unwrap();
                    let outcome = calls[comm.rank() as usize](&comm);
                    // Who only sends has done its part.
                    let Err(error) = outcome else { return };
                    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
                    let error = comm.barrier().unwrap_err();
                    assert_eq!((error.kind(), error.cause()), (ErrorKind::Poisoned, ErrorKind::Mismatch));
                });
            }
        }
    });
}

#[test]
fn a_message_that_comes_before_a_collective_is_kept_for_its_receive() {
    watched(LIMIT, || {
        for custom in both_families() {
            custom::job(&custom, 3, |comm| {
                let mut sum = [0];
                if comm.rank() == 0 {
                    comm.send(&[11u8], 1).unwrap();
                    comm.send(&[12u8, 13], 1).unwrap();
                    comm.send(&[14u8], 2).unwrap();
                }
                comm.allreduce(&[comm.rank()], &mut sum, &Op::SUM).unwrap();
                comm.barrier().unwrap();
                assert_eq!(sum, [3]);
                match comm.rank() {
                    1 => {
                        let (mut one, mut two) = ([0u8], [0u8; 2]);
                        comm.recv(&mut one, 0).unwrap();
                        comm.recv(&mut two, 0).unwrap();
                        assert_eq!((one, two), ([11], [12, 13]));
                    }
                    2 => {
                        let mut one = [0u8];
                        comm.recv(&mut one, 0).unwrap();
                        assert_eq!(one, [14]);
                    }
                    _ => {}
                }
            });
        }
    });
}

/// A peer-to-peer channel that fails.
struct Failing(fn() -> Error);

impl CustomChannel for Failing {
    fn family(&self) -> Family {
        Family::PeerToPeer { full_duplex: true }
    }

    fn send_object(&self, _: &[u8], _: u32) -> Result<()> {
        Err(self.0())
    }

    fn recv_object(&self, _: &mut [u8], _: u32) -> Result<()> {
        Err(self.0())
    }
}

/// A communicator over Memory, to which `channel` is added as "mine" and pinned.
fn beside_memory(channel: impl CustomChannel + 'static, rank: u32, size: u32, job: &str) -> Communicator {
    let config = support::config(support::Channel::Memory, None);
    let comm = Communicator::create(rank, size, job, &config).unwrap();
    comm.register_channel("mine", &Channel::custom(channel, rank, size, job).unwrap()).unwrap();
    comm.set_channel(Some("mine")).unwrap();
    comm
}

#[test]
fn a_failed_function_is_the_error_of_its_operation_and_poisons_only_collectives() {
    watched(LIMIT, || {
        let failure = || Error::new(ErrorKind::Callback, "the pigeon was eaten");
        let comm = beside_memory(Failing(failure), 0, 1, &job_name());
        comm.send(&[1u8], 0).unwrap();
        comm.recv(&mut [0u8], 0).unwrap();

        let job = job_name();
        ranks(2, |rank| {
            let comm = beside_memory(Failing(failure), rank, 2, &job);
            let other = 1 - rank;
            let error = comm.send(&[1u8], other).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Callback, "{error}");
            assert_eq!(error.operation(), Some(Operation::Send));
            assert_eq!((error.peer(), error.channel()), (Some(other), Some("mine")), "{error}");
            assert!(error.message().contains("pigeon"), "{error}");

            let error = comm.barrier().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Callback, "{error}");
            // The communicator is poisoned, whatever channel carries the next one.
            for channel in ["mine", "Memory"] {
                comm.set_channel(Some(channel)).unwrap();
                let error = comm.barrier().unwrap_err();
                assert_eq!(
                    (error.kind(), error.cause()),
                    (ErrorKind::Poisoned, ErrorKind::Callback),
                    "{error}"
                );
            }
            let mut got = [0];
            comm.sendrecv(&[rank], other, &mut got, other).unwrap();
            assert_eq!(got, [other]);
        });
    });
}

#[test]
fn a_failure_over_a_built_in_channel_poisons_the_users_too() {
    watched(LIMIT, || {
        let (job, letters) = (job_name(), Arc::default());
        ranks(2, |rank| {
            let mailbox = custom::Mailbox { rank, letters: Arc::clone(&letters) };
            let comm = beside_memory(mailbox, rank, 2, &job);
            comm.barrier().unwrap();
            comm.set_channel(Some("Memory")).unwrap();
            let fails = Op::user(|_, _, _, _| Err(-10), true, true, None);
            let error = comm.allreduce(&[1], &mut [0], &fails).unwrap_err();
            comm.set_channel(Some("mine")).unwrap();
            assert_eq!(comm.barrier().unwrap_err().kind(), ErrorKind::Poisoned);
            if error.kind() == ErrorKind::Callback {
                assert_eq!(error.cause(), ErrorKind::Timeout, "a status is the cause");
            }
        });
    });
}

#[test]
fn a_failure_does_not_wait_for_a_server_that_nobody_has_turned_to() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = support::config_at(silent.local_addr().unwrap());
    config.set("backends.Memory.enabled", "true").unwrap();
    let comm = Communicator::create(0, 2, &job_name(), &config).unwrap();
    let failing = Failing(|| Error::new(ErrorKind::Callback, "on purpose"));
    comm.register_channel("mine", &Channel::custom(failing, 0, 2, "x").unwrap()).unwrap();
    comm.set_channel(Some("mine")).unwrap();
    assert_eq!(comm.barrier().unwrap_err().kind(), ErrorKind::Callback);
    silent.set_nonblocking(true).unwrap();
    assert!(silent.accept().is_err(), "it has turned to the server");
    comm.set_channel(Some("Direct")).unwrap();
    assert_eq!(comm.barrier().unwrap_err().kind(), ErrorKind::Poisoned);
}

/// Counts what becomes of it.
#[derive(Default)]
struct Counts {
    finalized: AtomicU32,
    dropped: AtomicU32,
}

struct Counted(Arc<Counts>);

impl CustomChannel for Counted {
    fn family(&self) -> Family {
        Family::PeerToPeer { full_duplex: true }
    }

    fn latency(&self, producers: u32, consumers: u32, bytes: usize) -> f64 {
        f64::from(producers * consumers) + bytes as f64
    }

    fn finalize(&self) {
        self.0.finalized.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn channels_are_added_replaced_pinned_and_finalized_once() {
    watched(LIMIT, || {
        let counts = [Arc::<Counts>::default(), Arc::default()];
        let seen = |index: usize| {
            let counts: &Counts = &counts[index];
            (counts.finalized.load(Ordering::Relaxed), counts.dropped.load(Ordering::Relaxed))
        };
        let channel =
            |index: usize| Channel::custom(Counted(Arc::clone(&counts[index])), 0, 1, "counts").unwrap();
        let comm = Communicator::create(0, 1, &job_name(), &support::config(support::Channel::Memory, None))
            .unwrap();
        assert_eq!(comm.set_channel(Some("mine")).unwrap_err().kind(), ErrorKind::Arg);
        comm.register_channel("mine", &channel(0)).unwrap();
        comm.set_channel(Some("mine")).unwrap();
        comm.barrier().unwrap();
        assert_eq!(seen(0), (0, 0));

        comm.register_channel("mine", &channel(1)).unwrap();
        assert_eq!(seen(0), (1, 1));
        comm.register_channel("Memory", &channel(0)).unwrap();
        comm.set_channel(Some("Memory")).unwrap();
        comm.barrier().unwrap();
        comm.close(milliseconds(100)).unwrap();
        drop(comm);
        assert_eq!((seen(0), seen(1)), ((2, 2), (1, 1)));

        let comm = Communicator::create(0, 1, &job_name(), &Config::new()).unwrap();
        let of_others = Channel::custom(Counted(Arc::clone(&counts[0])), 1, 2, "counts").unwrap();
        assert_eq!(comm.register_channel("mine", &of_others).unwrap_err().kind(), ErrorKind::Arg);
        assert_eq!(comm.register_channel("", &channel(0)).unwrap_err().kind(), ErrorKind::Arg);
    });
}

#[test]
fn what_is_not_in_this_build_can_be_priced_and_says_so_when_it_is_used() {
    let redis = Channel::built_in("Redis", "", r#"{"overhead": 2.5}"#, 0, 4, "absent").unwrap();
    assert_eq!(redis.latency(1, 1, 0), 2.5);
    assert_eq!(redis.operation_latency(Operation::Barrier, 0, false), 5.0);
    let comm = redis.communicator().unwrap();
    for error in [comm.barrier().unwrap_err(), redis.upload("name", b"data").unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("Redis"), "{error}");
    }
    let other = Communicator::create(0, 4, "absent", &Config::new()).unwrap();
    assert_eq!(other.register_channel("Redis", &redis).unwrap_err().kind(), ErrorKind::Unsupported);
    for (kind, params, expected) in [
        ("direct", "", ErrorKind::Arg),
        ("Direct", "[]", ErrorKind::Config),
        ("Direct", r#"{"port":0}"#, ErrorKind::Config),
    ] {
        assert_eq!(Channel::built_in(kind, params, "", 0, 1, "x").err().unwrap().kind(), expected);
    }
}

#[test]
fn built_in_channels_work_by_themselves_and_beside_each_other() {
    watched(LIMIT, || {
        let server = support::server();
        let params = format!(
            r#"{{"host": "{}", "port": "{}", "enabled": "false"}}"#,
            server.local_addr().ip(),
            server.local_addr().port()
        );
        let config = support::config_at(server.local_addr());
        let job = job_name();
        ranks(3, |rank| {
            let direct = Channel::built_in("Direct", &params, "", rank, 3, &format!("{job} alone")).unwrap();
            let comm = Communicator::create(rank, 3, &job, &config).unwrap();
            let second = Channel::built_in("Direct", &params, "", rank, 3, &format!("{job} second")).unwrap();
            comm.register_channel("second", &second).unwrap();
            for over in [&comm, direct.communicator().unwrap()] {
                let mut sum = [0];
                over.allreduce(&[rank], &mut sum, &Op::SUM).unwrap();
                assert_eq!(sum, [3]);
            }
            comm.set_channel(Some("second")).unwrap();
            let mut root = [rank + 5];
            comm.bcast(&mut root, 1).unwrap();
            assert_eq!(root, [6]);
        });
    });
}

/// Uses its own communicator, as soon as there is one.
struct Entangled(Arc<OnceLock<Communicator>>, Arc<Mutex<Vec<ErrorKind>>>);

impl CustomChannel for Entangled {
    fn family(&self) -> Family {
        Family::PeerToPeer { full_duplex: true }
    }

    fn send_object(&self, _: &[u8], _: u32) -> Result<()> {
        if let Some(comm) = self.0.get() {
            self.1.lock().unwrap().push(comm.send(&[0u8], 1).unwrap_err().kind());
        }
        Ok(())
    }
}

#[test]
fn a_channel_that_uses_the_communicator_that_it_belongs_to_is_told_so() {
    let (place, seen) = (Arc::new(OnceLock::new()), Arc::new(Mutex::new(Vec::new())));
    let entangled = Entangled(Arc::clone(&place), Arc::clone(&seen));
    let comm = beside_memory(entangled, 0, 2, &job_name());
    place.set(comm).ok().unwrap();
    place.get().unwrap().send(&[1u8], 1).unwrap();
    assert_eq!(*seen.lock().unwrap(), [ErrorKind::Busy; 2]);
    // The knot is the test's own: undo it.
    place
        .get()
        .unwrap()
        .register_channel("mine", &Channel::custom(Failing(|| unreachable!()), 0, 2, "x").unwrap())
        .unwrap();
}

fn shelf(objects: &Objects, rank: u32, size: u32, job: &str) -> Communicator {
    custom::communicator(&Custom::Shelf(Arc::clone(objects)), rank, size, job)
}

fn names(objects: &Objects) -> Vec<String> {
    objects.lock().unwrap().keys().cloned().collect()
}

#[test]
fn a_receive_from_a_store_ends_at_its_deadline_and_may_be_repeated() {
    watched(LIMIT, || {
        let (objects, job) = (Objects::default(), job_name());
        ranks(2, |rank| {
            let comm = shelf(&objects, rank, 2, &job);
            comm.barrier().unwrap();
            if rank == 0 {
                comm.set_timeout(milliseconds(50)).unwrap();
                let start = Instant::now();
                let error = comm.recv(&mut [0u8], 1).unwrap_err();
                assert!(start.elapsed() >= Duration::from_millis(50));
                assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                assert!(error.message().contains(&job), "it names the object: {error}");
                comm.set_timeout(milliseconds(30_000)).unwrap();
                comm.send(&[0u8], 1).unwrap();
                let mut late = [0u8];
                comm.recv(&mut late, 1).unwrap();
                assert_eq!(late, [9]);
            } else {
                comm.recv(&mut [0u8], 0).unwrap();
                comm.send(&[9u8], 0).unwrap();
            }
        });
    });
}

#[test]
fn a_call_that_waits_for_a_store_is_interrupted_and_aborted() {
    watched(LIMIT, || {
        let (objects, job) = (Objects::default(), job_name());
        ranks(2, |rank| {
            let comm = shelf(&objects, rank, 2, &job);
            comm.barrier().unwrap();
            if rank == 1 {
                return;
            }
            let wait = |end: &(dyn Fn() + Sync)| {
                std::thread::scope(|scope| {
                    let waiter = scope.spawn(|| comm.recv(&mut [0u8], 1).unwrap_err().kind());
                    std::thread::sleep(Duration::from_millis(50));
                    end();
                    waiter.join().unwrap()
                })
            };
            assert_eq!(wait(&|| wake(&comm)), ErrorKind::Interrupted);
            assert_eq!(wait(&|| comm.abort(3).unwrap()), ErrorKind::Aborted);
            let error = comm.barrier().unwrap_err();
            assert_eq!((error.kind(), error.cause()), (ErrorKind::Poisoned, ErrorKind::Aborted), "{error}");
        });
    });
}

#[test]
fn nothing_is_left_in_a_store_and_a_name_may_be_used_again_at_once() {
    watched(LIMIT, || {
        let (objects, job) = (Objects::default(), job_name());
        for size in [2, 5, 3, 1] {
            ranks(size, |rank| {
                let comm = shelf(&objects, rank, size, &job);
                let mut sum = [0];
                comm.allreduce(&[rank + size], &mut sum, &Op::SUM).unwrap();
                assert_eq!(sum, [size * (size - 1) / 2 + size * size]);
                comm.barrier().unwrap();
                comm.close(milliseconds(10_000)).unwrap();
            });
            assert_eq!(names(&objects), [""; 0]);
        }
    });
}

#[test]
fn a_close_waits_for_readers_and_names_who_has_not_read() {
    watched(LIMIT, || {
        let (objects, job) = (Objects::default(), job_name());
        ranks(2, |rank| {
            let comm = shelf(&objects, rank, 2, &job);
            comm.barrier().unwrap();
            if rank == 0 {
                comm.send(&[1u8], 1).unwrap();
                comm.send(&[2u8], 1).unwrap();
                let error = comm.close(milliseconds(100)).unwrap_err();
                assert_eq!((error.kind(), error.peer()), (ErrorKind::Timeout, Some(1)), "{error}");
            } else {
                std::thread::sleep(Duration::from_millis(300));
                // What was sent is there although the sender has gone.
                let mut got = [0u8; 2];
                for byte in &mut got {
                    comm.recv(std::slice::from_mut(byte), 0).unwrap();
                }
                assert_eq!(got, [1, 2]);
            }
        });
        assert_eq!(names(&objects), [""; 0]);
    });
}

#[test]
fn what_a_crashed_run_has_left_is_never_read() {
    watched(LIMIT, || {
        let (objects, job) = (Objects::default(), job_name());
        // It dies with messages under way and, before, while it joins: its
        // communicators are never closed.
        ranks(3, |rank| {
            let comm = shelf(&objects, rank, 3, &job);
            comm.barrier().unwrap();
            comm.send(&[0xdeadu32], (rank + 1) % 3).unwrap();
            if rank == 0 {
                comm.bcast(&mut [0xdeadu32], 0).unwrap();
            }
            std::mem::forget(comm);
        });
        for rank in [0, 1] {
            let comm = shelf(&objects, rank, 3, &job);
            comm.set_timeout(milliseconds(50)).unwrap();
            assert_eq!(comm.barrier().unwrap_err().kind(), ErrorKind::Timeout);
            std::mem::forget(comm);
        }
        let left = names(&objects).len();
        assert!(left >= 6, "{:?}", names(&objects));
        ranks(3, |rank| {
            let comm = shelf(&objects, rank, 3, &job);
            let mut got = [0u32];
            comm.sendrecv(&[rank], (rank + 1) % 3, &mut got, (rank + 2) % 3).unwrap();
            assert_eq!(got, [(rank + 2) % 3]);
            let mut root = [rank + 7];
            comm.bcast(&mut root, 0).unwrap();
            assert_eq!(root, [7]);
        });
        // A rank that starts alone is not taken into what is over.
        let comm = shelf(&objects, 2, 3, &job);
        comm.set_timeout(milliseconds(100)).unwrap();
        let error = comm.recv(&mut [0u32], 1).unwrap_err();
        assert_eq!((error.kind(), error.peer()), (ErrorKind::Timeout, Some(0)), "{error}");
        assert!(error.message().contains("rank 0 has not joined"), "{error}");
    });
}

/// A store in which something happens to objects.
struct Spoiling(Shelf, fn(&mut Vec<u8>));

impl CustomChannel for Spoiling {
    fn family(&self) -> Family {
        self.0.family()
    }

    fn upload_object(&self, name: &str, data: &[u8]) -> Result<()> {
        let mut data = data.to_vec();
        // Control objects, by which a job comes together, are short.
        if data.len() > 100 {
            self.1(&mut data);
        }
        self.0.upload_object(name, &data)
    }

    fn download_object(&self, name: &str, buffer: &mut [u8]) -> Result<bool> {
        self.0.download_object(name, buffer)
    }

    fn delete_object(&self, name: &str) -> Result<()> {
        self.0.delete_object(name)
    }

    fn list_objects(&self, visit: &mut dyn FnMut(&str)) -> Result<()> {
        self.0.list_objects(visit)
    }
}

#[test]
fn a_damaged_object_is_named_and_never_taken_for_a_message() {
    watched(LIMIT, || {
        let spoils: [fn(&mut Vec<u8>); 4] = [
            |object| *object.last_mut().unwrap() ^= 1,
            |object| object[20] ^= 1,
            |object| object.truncate(object.len() - 1),
            |object| object.truncate(10),
        ];
        for spoil in spoils {
            let (objects, job) = (Objects::default(), job_name());
            ranks(2, |rank| {
                let store = Spoiling(Shelf { objects: Arc::clone(&objects) }, spoil);
                let comm = beside_memory(store, rank, 2, &job);
                comm.set_timeout(milliseconds(if rank == 0 { 5000 } else { 300 })).unwrap();
                if rank == 0 {
                    comm.send(&[5u8; 100], 1).unwrap();
                    return;
                }
                let mut got = [0u8; 100];
                let error = comm.recv(&mut got, 0).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
                assert!(error.message().contains("damaged"), "{error}");
                assert_eq!(got, [0; 100]);
            });
        }
    });
}

#[test]
fn a_long_name_makes_no_long_objects_and_is_told_from_others() {
    watched(LIMIT, || {
        let objects = Objects::default();
        let jobs = ["ä".repeat(500) + "1", "ä".repeat(500) + "2"];
        ranks(4, |index| {
            let comm = shelf(&objects, index % 2, 2, &jobs[index as usize / 2]);
            let mut sum = [0];
            comm.allreduce(&[index], &mut sum, &Op::SUM).unwrap();
            assert_eq!(sum, [if index < 2 { 1 } else { 5 }]);
        });
    });
}

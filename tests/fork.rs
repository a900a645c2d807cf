//! Forks: a child keeps nothing of its parent's open, hangs in nothing that the
//! parent's threads were doing, disturbs nothing, and may start over.
//!
//! What looks at all descriptors of a process, or kills it, happens in a process
//! of its own: this test program again, running one of the ignored tests.

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fmi::{Communicator, Config, ErrorKind, Op};
use support::{Channel, config, listening_ports, server, watched};

/// Runs `body` in a child; whether it ended within twenty seconds and returned
/// `true`.
fn in_child(body: impl FnOnce() -> bool) -> bool {
    ends_well(fork(body))
}

fn fork(body: impl FnOnce() -> bool) -> i32 {
    // SAFETY: the child runs `body` and ends by `_exit`.
    match unsafe { libc::fork() } {
        0 => {
            let well = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(false);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(if well { 0 } else { 1 }) };
        }
        child => child,
    }
}

/// Waits for `child`: whether it ended in time with status 0.
fn ends_well(child: i32) -> bool {
    let start = Instant::now();
    let mut status = 1;
    // SAFETY: the child is ours, the status is an int.
    while unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == 0 {
        if start.elapsed() > Duration::from_secs(20) {
            // SAFETY: the child is ours, and has not been waited for.
            unsafe { libc::kill(child, libc::SIGKILL) };
            // SAFETY: as above.
            unsafe { libc::waitpid(child, &mut status, 0) };
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    status == 0
}

/// What this process has open: what each descriptor leads to.
fn descriptors() -> BTreeMap<i32, PathBuf> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let link = |path: PathBuf| {
        let number = path.file_name()?.to_str()?.parse().ok()?;
        Some((number, std::fs::read_link(path).ok()?))
    };
    // All but the one that lists them.
    entries.filter_map(link).filter(|(_, link)| !link.to_string_lossy().ends_with("/fd")).collect()
}

/// Runs an ignored test of this program in a process of its own.
fn program(test: &str, server: std::net::SocketAddr) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env("FMI_RENDEZVOUS", server.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The job `name` of two ranks, which are threads until both have met.
fn pair(name: &str, config: &Config) -> Vec<Communicator> {
    let create = |rank| {
        let comm = Communicator::create(rank, 2, name, config).unwrap();
        comm.set_timeout(Some(Duration::from_secs(20))).unwrap();
        comm.barrier().unwrap();
        comm
    };
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..2).map(|rank| scope.spawn(move || create(rank))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn works(ranks: &[Communicator]) -> bool {
    std::thread::scope(|scope| {
        let sum = |comm: &Communicator| {
            let mut sum = vec![0; 100_000];
            comm.allreduce(&vec![1; 100_000], &mut sum, &Op::SUM).is_ok() && sum == vec![2; 100_000]
        };
        let ranks: Vec<_> = ranks.iter().map(|comm| scope.spawn(move || sum(comm))).collect();
        ranks.into_iter().all(|rank| rank.join().unwrap())
    })
}

/// Ends a job in all its ranks at once: they wait for each other.
fn end(ranks: Vec<Communicator>) {
    std::thread::scope(|scope| ranks.into_iter().for_each(|rank| drop(scope.spawn(|| drop(rank)))));
}

/// Destroys the communicators, in a child, which ends without looking at them
/// again.
fn give_up(inherited: &Vec<Communicator>) {
    // SAFETY: the child's copy is not used after this, nor dropped.
    drop(unsafe { std::ptr::read(inherited) });
}

fn is_forked<T>(outcome: Result<T, fmi::Error>) -> bool {
    outcome.is_err_and(|error| error.kind() == ErrorKind::Forked)
}

/// Another thread of the parent is at any moment inside the Memory channel.
#[test]
fn a_child_takes_no_lock_of_its_parents_threads() {
    watched(Duration::from_secs(60), || {
        let config = config(Channel::Memory, None);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = Communicator::create(0, 200, "busy", &config).unwrap();
                }
            });
            let well = (0..150).all(|_| {
                let comm = Communicator::create(0, 2, "forked", &config).unwrap();
                in_child(|| {
                    let told = is_forked(comm.barrier());
                    drop(comm);
                    told && Communicator::create(0, 1, "own", &config).unwrap().barrier().is_ok()
                })
            });
            stop.store(true, Ordering::Relaxed);
            assert!(well, "a child hangs, or is not told");
        });
    });
}

#[test]
fn a_child_holds_nothing_of_its_parents_and_disturbs_nothing() {
    watched(Duration::from_secs(60), || {
        let server = server();
        assert!(program("parent", server.local_addr()).wait().unwrap().success());
    });
}

#[test]
#[ignore = "the program of another test"]
fn parent() {
    let before = descriptors();
    let mut comms = pair("direct", &Config::new());
    comms.extend(pair("memory", &config(Channel::Memory, None)));
    // One connection that does not say who it is.
    let stranger = TcpStream::connect(("127.0.0.1", listening_ports()[0])).unwrap();
    // Of each rank: an epoll and a pipe; a doorbell, or a connection to the
    // server, a listener and a link. And the stranger's, once a call has seen it.
    let expected = 2 * (3 + 3) + 2 * (3 + 1) + 1;
    let mut ours = BTreeMap::new();
    for _ in 0..1000 {
        assert!(works(&comms[..2]));
        ours = descriptors();
        ours.retain(|number, _| !before.contains_key(number) && *number != stranger.as_raw_fd());
        if ours.len() == expected {
            break;
        }
    }
    assert_eq!(ours.len(), expected, "{ours:?}");
    for &number in ours.keys() {
        // SAFETY: a plain system call.
        assert_eq!(unsafe { libc::fcntl(number, libc::F_GETFD) }, libc::FD_CLOEXEC, "{number}");
    }

    let well = in_child(|| {
        let mut inherited = descriptors();
        inherited.remove(&stranger.as_raw_fd());
        assert_eq!(inherited, before, "the child keeps descriptors");
        let reusing: Vec<_> = ours.iter().map(|_| File::open("/dev/null").unwrap()).collect();
        assert!(reusing.iter().all(|file| ours.contains_key(&file.as_raw_fd())));
        for comm in &comms {
            assert!(is_forked(comm.barrier()) && is_forked(comm.close(None)) && is_forked(comm.abort(1)));
            assert!(is_forked(comm.set_timeout(None)) && is_forked(comm.set_channel(None)));
        }
        give_up(&comms);
        assert!(reusing.iter().all(|file| file.metadata().is_ok()), "a descriptor of another's is closed");
        true
    });
    assert!(well);
    end(comms);
}

#[test]
fn a_parent_goes_on_after_its_child_has_given_up_what_it_inherited() {
    watched(Duration::from_secs(60), || {
        let server = server();
        for config in [config(Channel::Direct, Some(&server)), config(Channel::Memory, None)] {
            let comms = pair("goes on", &config);
            for _ in 0..10 {
                let child = fork(|| {
                    give_up(&comms);
                    true
                });
                assert!(works(&comms));
                assert!(ends_well(child));
                assert!(works(&comms));
            }
            end(comms);
        }
    });
}

#[test]
fn a_rank_that_dies_is_lost_while_its_child_lives() {
    watched(Duration::from_secs(60), || {
        let server = server();
        let mut config = config(Channel::Direct, Some(&server));
        config.set("backends.Direct.max_timeout", "20000").unwrap();
        let mut rank = program("rank_with_a_helper", server.local_addr());
        let comm = Communicator::create(0, 2, "helper", &config).unwrap();
        comm.barrier().unwrap();
        let lines = BufReader::new(rank.stdout.take().unwrap()).lines().map_while(Result::ok);
        let helper: i32 = lines.filter_map(|line| line.strip_prefix("helper ")?.parse().ok()).next().unwrap();
        rank.kill().unwrap();
        rank.wait().unwrap();
        let start = Instant::now();
        let outcome = comm.recv(&mut [0u8], 1);
        println!("lost after {:?}", start.elapsed());
        // SAFETY: a plain system call; the process is our child's child.
        let lived = unsafe { libc::kill(helper, libc::SIGKILL) } == 0;
        let error = outcome.unwrap_err();
        assert_eq!((error.kind(), error.peer()), (ErrorKind::PeerLost, Some(1)), "{error}");
        assert!(lived, "the helper was gone");
    });
}

#[test]
#[ignore = "the program of another test"]
fn rank_with_a_helper() {
    let comm = Communicator::create(1, 2, "helper", &Config::new()).unwrap();
    comm.barrier().unwrap();
    let helper = fork(|| {
        std::thread::sleep(Duration::from_secs(60));
        true
    });
    println!("\nhelper {helper}");
    std::thread::sleep(Duration::from_secs(60));
}

/// Parent, child and grandchild each make jobs of their own, over both channels,
/// while those of their elders are alive.
#[test]
fn children_start_over() {
    fn generation(number: u32, direct: &Config, memory: &Config) -> bool {
        let mut comms = pair(&format!("generation {number}"), direct);
        comms.extend(pair("memory", memory));
        // The parent's rank 0 of this name is awaited by a rank 1: not by ours.
        comms.extend(pair("awaited", memory));
        let _awaits = Communicator::create(0, 2, "awaited", memory).unwrap();
        let well = number == 2
            || in_child(|| {
                let told = comms.iter().all(|comm| is_forked(comm.barrier()));
                let well = generation(number + 1, direct, memory);
                give_up(&comms);
                told && well
            });
        let well = well && comms.chunks(2).all(works);
        end(comms);
        well
    }
    watched(Duration::from_secs(60), || {
        let server = server();
        let direct = config(Channel::Direct, Some(&server));
        assert!(generation(0, &direct, &config(Channel::Memory, None)));
    });
}

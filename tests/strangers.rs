//! Strangers: connections from outside of the job, at the ranks' ports and at
//! the server's, and ranks without the secret. The job goes on.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fmi::rendezvous::{Server, ServerOptions};
use fmi::{Communicator, ErrorKind, Op};
use support::{Channel, config, listening_ports, milliseconds, server, watched};

const LIMIT: Duration = Duration::from_secs(60);

/// More silent strangers than a rank keeps, before the peer comes: it finds its
/// way all the same.
#[test]
fn a_crowd_of_silent_strangers_keeps_nobody_out() {
    watched(LIMIT, || {
        let server = server();
        let config = config(Channel::Direct, Some(&server));
        let make = |rank| Communicator::create(rank, 2, "crowd", &config).unwrap();
        let before = listening_ports();
        let listens = make(1);
        // It joins, and listens from then on.
        listens.set_timeout(milliseconds(100)).unwrap();
        listens.recv(&mut [0u8], 0).unwrap_err();
        let port = *listening_ports().iter().find(|port| !before.contains(port)).expect("a listening port");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let crowd: Vec<_> = (0..200)
            .filter_map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(20)).ok())
            .collect();
        println!("{} strangers connected", crowd.len());
        let start = Instant::now();
        let connects = make(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // It computes, for longer than a peer that refuses is tried.
                std::thread::sleep(Duration::from_millis(4000));
                listens.set_timeout(milliseconds(20_000)).unwrap();
                listens.barrier().unwrap();
            });
            connects.set_timeout(milliseconds(20_000)).unwrap();
            connects.barrier().unwrap();
        });
        println!("linked after {:?}", start.elapsed());
        drop(crowd);
    });
}

/// Connections that say nothing, garbage or half a hello, and such as are reset.
fn pester(port: u16, count: usize) -> Vec<TcpStream> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut kept = Vec::new();
    for kind in 0..count {
        let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else { continue };
        let _ = match kind % 6 {
            0 => stream.write_all(&[b'G'; 500]),
            1 => stream.write_all(b"FMI link\x01\x00\x00\x00"),
            2 => stream.write_all(b"\xf5FMI"),
            3 => stream.write_all(&[0xff; 40_000]),
            4 => Ok(()),
            _ => {
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                continue;
            }
        };
        kept.push(stream);
    }
    kept
}

#[test]
fn strangers_at_the_server_do_not_disturb_a_job() {
    watched(LIMIT, || {
        let server = server();
        let config = config(Channel::Direct, Some(&server));
        let port = server.local_addr().port();
        let before = pester(port, 200);
        std::thread::scope(|scope| {
            let pestering = scope.spawn(|| pester(port, 200));
            for rank in 0..4 {
                let config = &config;
                scope.spawn(move || {
                    let comm = Communicator::create(rank, 4, "pestered", config).unwrap();
                    comm.set_timeout(milliseconds(20_000)).unwrap();
                    for round in 0..50 {
                        let mut sum = [0];
                        comm.allreduce(&[rank + round], &mut sum, &Op::SUM).unwrap();
                        assert_eq!(sum, [6 + 4 * round]);
                    }
                });
            }
            pestering.join().unwrap();
        });
        drop(before);
    });
}

/// Without the secret nobody joins; who has it does.
#[test]
fn a_rank_without_the_secret_is_told_so() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    watched(LIMIT, || {
        let options = ServerOptions::default().secret(SECRET).require_secret(true);
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), options).unwrap().spawn_thread().unwrap();
        let plain = config(Channel::Direct, Some(&server));
        for (variable, secret) in
            [("FMI_TEST_RIGHT", SECRET), ("FMI_TEST_WRONG", "another secret, as long as it has to be")]
        {
            // SAFETY: in this program only Rust's library, which locks it, looks
            // at the environment: host names are numbers.
            unsafe { std::env::set_var(variable, secret) };
        }
        let with = |variable: &str| {
            let mut config = plain.clone();
            config.set("secret_env", variable).unwrap();
            config
        };
        for config in [plain.clone(), with("FMI_TEST_WRONG")] {
            let comm = Communicator::create(0, 2, "secret", &config).unwrap();
            let start = Instant::now();
            let error = comm.barrier().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
            assert!(
                !error.to_string().contains(SECRET) && start.elapsed() < Duration::from_secs(5),
                "{error}"
            );
        }
        std::thread::scope(|scope| {
            for rank in 0..2 {
                let config = with("FMI_TEST_RIGHT");
                scope.spawn(move || {
                    Communicator::create(rank, 2, "secret", &config).unwrap().barrier().unwrap();
                });
            }
        });
        // A rank that has a secret does not trust a server that has none.
        let trusting = support::server();
        let mut config = support::config(Channel::Direct, Some(&trusting));
        config.set("secret_env", "FMI_TEST_RIGHT").unwrap();
        let error = Communicator::create(0, 2, "secret", &config).unwrap().barrier().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
    });
}

/// Runs [`quiet_rank`] in a process of its own against `rendezvous`, with
/// strangers at its port while it waits, then `rest` before it goes on.
fn waits_quietly(case: &str, rendezvous: SocketAddr, rest: impl FnOnce()) {
    let mut rank = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "quiet_rank", "--ignored", "--nocapture"])
        .env("FMI_RENDEZVOUS", rendezvous.to_string())
        .env("FMI_TEST_CASE", case)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(rank.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut lines = lines.inspect(|line| println!("{line}"));
    let port = lines.find_map(|line| line.strip_prefix("port ")?.parse().ok()).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let strangers: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
    let used = lines.find_map(|line| line.strip_prefix("used ")?.parse().ok()).unwrap();
    rest();
    assert!(rank.wait().unwrap().success());
    drop(strangers);
    // A hundred looks at most; endless ones take a fifth of the time, and more.
    assert!(Duration::from_micros(used) < Duration::from_millis(100), "{used} us of 1.5 s");
}

/// What this process has used of the processors.
fn processor_time() -> Duration {
    // SAFETY: the structure is filled by the call; zeros are a valid one.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

fn limit_descriptors(limit: libc::rlim_t) -> libc::rlim_t {
    // SAFETY: the structure is filled by the first call.
    unsafe {
        let mut limits: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limits);
        let before = std::mem::replace(&mut limits.rlim_cur, limit);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limits), 0);
        before
    }
}

#[test]
#[ignore = "the program of other tests"]
fn quiet_rank() {
    let is_starved = std::env::var("FMI_TEST_CASE").unwrap() == "starved";
    let comm = Communicator::create(1, 2, "quiet", &fmi::Config::new()).unwrap();
    // It gets to its server, and listens from then on.
    comm.set_timeout(milliseconds(300)).unwrap();
    comm.recv(&mut [0u8], 0).unwrap_err();
    let port = listening_ports()[0];
    let next = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
    let before = limit_descriptors(if is_starved { next as _ } else { 1000 });
    println!("\nport {port}");
    comm.set_timeout(milliseconds(1500)).unwrap();
    let used = processor_time();
    comm.recv(&mut [0u8], 0).unwrap_err();
    println!("used {}", (processor_time() - used).as_micros());
    limit_descriptors(before);
    if is_starved {
        comm.set_timeout(milliseconds(20_000)).unwrap();
        comm.barrier().unwrap();
    }
}

/// The connections stay at the door: the rank must not look at them without end,
/// and must let its peer in once it can.
#[test]
fn a_rank_that_is_out_of_descriptors_waits_quietly() {
    watched(LIMIT, || {
        let server = server();
        let config = config(Channel::Direct, Some(&server));
        waits_quietly("starved", server.local_addr(), || {
            let peer = Communicator::create(0, 2, "quiet", &config).unwrap();
            peer.set_timeout(milliseconds(20_000)).unwrap();
            peer.barrier().unwrap();
        });
    });
}

/// Who they are cannot be asked before the rank knows of what run it is.
#[test]
fn a_rank_that_has_not_joined_waits_quietly() {
    watched(LIMIT, || {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        waits_quietly("outside", silent.local_addr().unwrap(), || {});
    });
}

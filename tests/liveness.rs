//! What is a death, and what only looks like one: a peer that computes, a
//! rendezvous server that goes away or loses a connection, a cut cable.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fmi::{Communicator, Config, ErrorKind, LogLevel, Op};
use support::serve::Serve;
use support::{Channel, config, job, job_with, milliseconds, server, skip, watched};

const LIMIT: Duration = Duration::from_secs(120);

fn config_for(server: SocketAddr) -> Config {
    let mut config = Config::new();
    config.set("backends.Direct.host", &server.ip().to_string()).unwrap();
    config.set("backends.Direct.port", &server.port().to_string()).unwrap();
    config
}

/// A rank that computes does not read and does not answer the server. Its window
/// is full of what others send; it is never lost, nor are they to it.
#[test]
fn a_peer_that_computes_is_not_lost() {
    let time = Duration::from_secs(if std::env::var_os("FMI_SOAK").is_some() { 60 } else { 6 });
    watched(LIMIT, move || {
        job_with(
            Channel::Direct,
            3,
            |_| {},
            |comm| {
                const MANY: usize = 64 << 20;
                comm.set_timeout(milliseconds(100_000)).unwrap();
                comm.barrier().unwrap();
                match comm.rank() {
                    0 => comm.send(&vec![7u8; MANY], 1).unwrap(),
                    1 => {
                        std::thread::sleep(time);
                        let mut got = vec![0u8; MANY];
                        comm.recv(&mut got, 0).unwrap();
                        assert!(got.iter().all(|byte| *byte == 7));
                        comm.send(&[1u8], 2).unwrap();
                    }
                    _ => comm.recv(&mut [0u8], 1).unwrap(),
                }
                comm.barrier().unwrap();
            },
        );
    });
}

/// Passes connections on to a server, and cuts them when it is told.
struct Proxy {
    address: SocketAddr,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let open = Arc::new(Mutex::new(Vec::new()));
        let streams = Arc::clone(&open);
        // Ends with the process: nothing tells when the last one has come.
        std::thread::spawn(move || {
            for inside in listener.incoming().map_while(Result::ok) {
                let Ok(outside) = TcpStream::connect(server) else { continue };
                for (from, to) in [(&inside, &outside), (&outside, &inside)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || {
                        let mut bytes = [0; 4096];
                        while let Ok(count @ 1..) = from.read(&mut bytes) {
                            let _ = to.write_all(&bytes[..count]);
                        }
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                streams.lock().unwrap().extend([inside, outside]);
            }
        });
        Self { address, open }
    }

    fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// The server sees the connection of a rank end, which computes and cannot come
/// back. Another that waits for it has a live link, and says so: nobody takes it
/// for lost, also those without a link.
#[test]
fn a_live_link_wins_over_a_server_connection_that_was_cut() {
    watched(LIMIT, || {
        let server = server();
        let proxy = Proxy::start(server.local_addr());
        let (direct, through) = (config_for(server.local_addr()), config_for(proxy.address));
        let make = |rank, config| Communicator::create(rank, 3, "cut", config).unwrap();
        let (zero, one, two) = (make(0, &direct), make(1, &through), make(2, &direct));
        let cut = Duration::from_millis(1500);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                one.send(&[1u8], 0).unwrap();
                std::thread::sleep(cut);
                // And now it is back.
                one.send(&[2u8], 0).unwrap();
                one.send(&[3u8], 2).unwrap();
            });
            zero.recv(&mut [0u8], 1).unwrap();
            proxy.cut();
            let start = Instant::now();
            scope.spawn(|| {
                let mut got = [0u8];
                two.recv(&mut got, 1).unwrap();
                assert_eq!(got, [3]);
            });
            zero.recv(&mut [0u8], 1).unwrap();
            assert!(start.elapsed() > cut / 2, "rank 1 computes meanwhile");
        });
    });
}

/// Its last live link breaks after its server connection was cut: now it is lost,
/// also to those that have no link to it.
#[test]
fn a_rank_out_of_sight_is_lost_with_its_last_link() {
    watched(LIMIT, || {
        let server = server();
        let proxy = Proxy::start(server.local_addr());
        let program = |rank: u32, command: &mut Command| {
            if rank == 1 {
                command.env("FMI_RENDEZVOUS", proxy.address.to_string());
            }
        };
        let job = support::processes::Processes::start(3, server.local_addr(), "out_of_sight", program);
        for _ in 0..2 {
            job.next("linked");
        }
        proxy.cut();
        std::thread::sleep(Duration::from_millis(1500));
        let start = support::processes::now_us();
        job.signal(1, libc::SIGKILL);
        for _ in 0..2 {
            let (rank, words) = job.next("failed");
            let after = words[0].parse::<u128>().unwrap() - start;
            println!("rank {rank} knows after {after} us: {}", words[1..].join(" "));
            assert_eq!(words[1..3], [ErrorKind::PeerLost.name(), "1"]);
            assert!(after < 5_000_000, "after {after} us");
        }
        job.end();
    });
}

/// Rank 0 is linked with rank 1, which computes for ever; rank 2 has no link to
/// it.
#[test]
#[ignore = "the program of the ranks"]
fn out_of_sight() {
    let comm = Communicator::from_env("out of sight").unwrap();
    comm.set_timeout(milliseconds(20_000)).unwrap();
    match comm.rank() {
        0 => {
            comm.send(&[1u8], 1).unwrap();
            println!("\nlinked");
        }
        1 => {
            comm.recv(&mut [0u8], 0).unwrap();
            println!("\nlinked");
            std::thread::sleep(Duration::from_secs(60));
        }
        // Not before rank 1 computes.
        _ => std::thread::sleep(Duration::from_millis(500)),
    }
    let error = comm.recv(&mut [0u8], 1).unwrap_err();
    let peer = error.peer().map_or(-1, i64::from);
    println!("\nfailed {} {} {peer} {error}", support::processes::now_us(), error.kind().name());
}

/// A collective fails on rank 2 after rank 0 has done its part in it. Nobody else
/// is in a call when rank 0 begins the next one, and it has no link to rank 2: it
/// hears of the failure from the server, in rank 2's words.
#[test]
fn a_failure_reaches_ranks_without_a_link_through_the_server() {
    watched(LIMIT, || {
        job(Channel::Direct, 4, |comm| {
            comm.set_timeout(milliseconds(20_000)).unwrap();
            let fails = comm.rank() == 2;
            let op = Op::user(move |_, _, _, _| if fails { Err(42) } else { Ok(()) }, false, false, None);
            // A chain: 0 to 1 to 2 to 3.
            let outcome = comm.scan(&[1], &mut [0], &op);
            if comm.rank() > 0 {
                assert_eq!(outcome.is_ok(), comm.rank() == 1, "{outcome:?}");
                return std::thread::sleep(Duration::from_secs(3));
            }
            outcome.unwrap();
            let start = Instant::now();
            let error = comm.barrier().unwrap_err();
            println!("rank 0 knows after {:?}: {error}", start.elapsed());
            assert_eq!((error.cause(), error.cause_rank()), (ErrorKind::Callback, Some(2)), "{error}");
            assert!(start.elapsed() < Duration::from_millis(2500), "{error}");
        });
    });
}

/// Ranks that were connected go on without the server, and wait for it where they
/// need it, longer than a server that nobody has seen is waited for.
#[test]
fn a_server_that_is_killed_and_comes_back() {
    watched(LIMIT, || {
        let serve = Serve::start(&[]);
        let address = serve.address();
        let sync = std::sync::Barrier::new(5);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let run = |rank: u32| {
            let mut config = config_for(address);
            let lines = Arc::clone(&lines);
            config.set_log(LogLevel::Warn, move |_, line: &str| {
                lines.lock().unwrap().push((rank, line.to_owned()))
            });
            let comm = Communicator::create(rank, 4, "restart", &config).unwrap();
            let sums = |rounds| {
                for round in 0..rounds {
                    let mut sum = [0];
                    comm.allreduce(&[rank as i32 + round], &mut sum, &Op::SUM).unwrap();
                    assert_eq!(sum, [6 + 4 * round]);
                }
            };
            sums(10);
            sync.wait();
            sync.wait();
            sums(1000);
            sync.wait();
            // Recursive doubling has made no link between these two.
            match rank {
                0 => comm.send(&[1u8], 3).unwrap(),
                3 => comm.recv(&mut [0u8], 0).unwrap(),
                _ => {}
            }
            comm.barrier().unwrap();
        };
        std::thread::scope(|scope| {
            let ranks = (0..4).map(|rank| scope.spawn(move || run(rank))).collect::<Vec<_>>();
            sync.wait();
            drop(serve);
            sync.wait();
            sync.wait();
            std::thread::sleep(Duration::from_millis(4500));
            let _back = Serve::start(&["--listen", &address.to_string()]);
            ranks.into_iter().for_each(|rank| rank.join().unwrap());
        });
        let lines = lines.lock().unwrap();
        for rank in 0..4 {
            let said = lines.iter().filter(|(of, line)| *of == rank && line.contains("cannot be reached"));
            assert_eq!(said.count(), 1, "one line for the outage: {lines:?}");
        }
    });
}

/// A rank that joins for the first time meets a restarted server before those
/// that know the run: it is of their run all the same.
#[test]
fn a_newcomer_that_comes_before_those_that_come_back() {
    watched(LIMIT, || {
        let serve = Serve::start(&[]);
        let address = serve.address();
        let config = config_for(address);
        let make = |rank| Communicator::create(rank, 3, "newcomer", &config).unwrap();
        let (zero, one, two) = (make(0), make(1), make(2));
        std::thread::scope(|scope| {
            scope.spawn(|| zero.send(&[1u8], 1).unwrap());
            one.recv(&mut [0u8], 0).unwrap();
        });
        drop(serve);
        let _serve = Serve::start(&["--listen", &address.to_string()]);
        std::thread::scope(|scope| {
            scope.spawn(|| two.barrier().unwrap());
            std::thread::sleep(Duration::from_millis(500));
            scope.spawn(|| zero.barrier().unwrap());
            one.barrier().unwrap();
        });
    });
}

/// What the ranks of a job under `fmi run` say; the words after the rank's mark.
fn launched(options: &[&str], script: &str) -> String {
    let this = std::env::current_exe().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_fmi"))
        .args(["run", "-n", "2", "--keep-going"])
        .args(options)
        .args(["--", "sh", "-c", script])
        .env("PROGRAM", this)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
#[ignore = "the program of the ranks"]
fn waits_for_rank_1() {
    let comm = Communicator::from_env("launched").unwrap();
    comm.set_timeout(milliseconds(10_000)).unwrap();
    if comm.rank() == 1 {
        comm.send(&[1u8], 0).unwrap();
        std::thread::sleep(Duration::from_secs(1));
        return comm.send(&[2u8], 0).unwrap();
    }
    let start = Instant::now();
    let outcome = comm.recv(&mut [0u8], 1).and_then(|()| comm.recv(&mut [0u8], 1));
    let kind = outcome.as_ref().map_or_else(|error| error.kind().name(), |()| "FMI_OK");
    let text = outcome.err().map(|error| error.to_string()).unwrap_or_default();
    println!("\noutcome {kind} after {:?}: {text}", start.elapsed());
}

const RUN_PROGRAM: &str = "\"$PROGRAM\" --exact waits_for_rank_1 --ignored --nocapture";

/// Nobody but the launcher knows of a rank that dies before it joins.
#[test]
fn a_process_that_ends_before_it_joins_is_lost() {
    watched(LIMIT, || {
        let said = launched(&[], &format!("[ $FMI_RANK = 1 ] || exec {RUN_PROGRAM}"));
        assert!(said.contains("outcome FMI_ERR_PEER_LOST"), "{said}");
        assert!(said.contains("the process of rank 1 has ended"), "{said}");
    });
}

/// The process that was started is not always the rank itself.
#[test]
fn a_wrapper_that_ends_is_no_death() {
    watched(LIMIT, || {
        let script = format!("[ $FMI_RANK = 1 ] || exec {RUN_PROGRAM}; {RUN_PROGRAM} & sleep 0.4");
        let said = launched(&["--grace", "10s"], &script);
        assert!(said.contains("outcome FMI_OK"), "{said}");
    });
}

/// The cable is cut while ranks wait, on links with unacknowledged data and on
/// idle ones: in a network namespace, whose loopback interface drops everything.
#[test]
fn a_cut_cable_shows_within_seconds() {
    watched(LIMIT, || {
        let output = Command::new("unshare")
            .args(["--net", "sh", "-c"])
            .arg("ip link set lo up && nft add table ip cable && exec \"$0\" \"$@\"")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "cut_cable", "--ignored", "--nocapture"])
            .stdin(Stdio::null())
            .output();
        match output {
            Ok(output) if String::from_utf8_lossy(&output.stdout).contains("running 1 test") => {
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                print!("{said}");
                assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
            }
            other => skip("a cut cable", &format!("no network namespace with nft: {other:?}")),
        }
    });
}

#[test]
#[ignore = "run by a_cut_cable_shows_within_seconds"]
fn cut_cable() {
    let server = server();
    let config = config(Channel::Direct, Some(&server));
    let make = |rank| Communicator::create(rank, 4, "cable", &config).unwrap();
    let comms = [make(0), make(1), make(2), make(3)];
    let cut = std::sync::OnceLock::new();
    std::thread::scope(|scope| {
        for comm in &comms {
            let cut = &cut;
            scope.spawn(move || {
                let partner = comm.rank() ^ 1;
                let sends = comm.rank() < 2;
                // Two talk without end, the other two wait for each other.
                let error = loop {
                    let outcome = match (sends, comm.rank()) {
                        (true, _) => comm.sendrecv(&[1u8], partner, &mut [0u8], partner),
                        (false, 2) if cut.get().is_none() => comm.send(&[1u8], partner),
                        _ => comm.recv(&mut [0u8], partner),
                    };
                    if let Err(error) = outcome {
                        break error;
                    }
                    if !sends {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                };
                let after = cut.get().map(Instant::elapsed).unwrap_or_default();
                println!("rank {} knows after {after:?}: {error}", comm.rank());
                assert_eq!((error.kind(), error.peer()), (ErrorKind::PeerLost, Some(partner)), "{error}");
                assert!(after < Duration::from_secs(10), "{error}");
            });
        }
        std::thread::sleep(Duration::from_millis(500));
        let drop = "add chain ip cable input { type filter hook input priority 0; policy drop; }";
        let done = Command::new("nft").arg(drop).status();
        assert!(done.unwrap().success());
        cut.set(Instant::now()).unwrap();
    });
    // Their goodbyes would wait for a network that is gone.
    std::process::exit(0);
}

/// An option of a socket, by its number; `None` where it is no socket of that sort.
fn option(descriptor: i32, level: i32, name: i32) -> Option<i32> {
    let (mut value, mut length) = (0i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: the value has the length that is stated.
    let status = unsafe { libc::getsockopt(descriptor, level, name, (&raw mut value).cast(), &mut length) };
    (status == 0).then_some(value)
}

/// Idle connections are probed, so that a host that vanishes shows: links and
/// connections to the server, at both ends.
#[test]
fn every_connection_has_keepalive() {
    // In a process of its own: all its connections are looked at.
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "keepalive", "--ignored", "--quiet"])
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success());
}

#[test]
#[ignore = "run by every_connection_has_keepalive"]
fn keepalive() {
    let server = server();
    let config = config(Channel::Direct, Some(&server));
    let make = |rank| Communicator::create(rank, 2, "keepalive", &config).unwrap();
    let (zero, one) = (make(0), make(1));
    std::thread::scope(|scope| {
        scope.spawn(|| zero.barrier().unwrap());
        one.barrier().unwrap();
    });
    let tcp = |descriptor, name| option(descriptor, libc::IPPROTO_TCP, name);
    let mut connections = 0;
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let descriptor = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
        let listens = option(descriptor, libc::SOL_SOCKET, libc::SO_ACCEPTCONN);
        if listens != Some(0) || tcp(descriptor, libc::TCP_NODELAY).is_none() {
            continue;
        }
        connections += 1;
        assert_eq!(option(descriptor, libc::SOL_SOCKET, libc::SO_KEEPALIVE), Some(1));
        let times = [libc::TCP_KEEPIDLE, libc::TCP_KEEPINTVL, libc::TCP_KEEPCNT];
        assert_eq!(times.map(|name| tcp(descriptor, name)), [Some(1), Some(1), Some(3)]);
        assert_eq!(tcp(descriptor, libc::TCP_USER_TIMEOUT), Some(0), "it kills peers that compute");
    }
    assert!(connections >= 6, "a link and two connections to the server, both ends: {connections}");
}

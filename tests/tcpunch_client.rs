//! Our client at a rendezvous server of protocol 1, here a tiny one written from
//! the facts of that protocol.

mod support;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fmi::{Communicator, Config, ErrorKind, Op};
use support::{milliseconds, watched};

const LIMIT: Duration = Duration::from_secs(60);

/// A server of protocol 1 on a free port; it serves until the process ends.
struct TinyServer {
    address: SocketAddr,
    /// The names that clients have sent, as a C program takes them: up to the
    /// first zero byte.
    names: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl TinyServer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let names = Arc::new(Mutex::new(Vec::new()));
        let waiting = Arc::new(Mutex::new(HashMap::new()));
        let heard = Arc::clone(&names);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (waiting, heard) = (Arc::clone(&waiting), Arc::clone(&heard));
                std::thread::spawn(move || Self::serve(stream, &waiting, &heard));
            }
        });
        Self { address, names }
    }

    fn serve(
        mut stream: TcpStream,
        waiting: &Mutex<HashMap<Vec<u8>, TcpStream>>,
        heard: &Mutex<Vec<Vec<u8>>>,
    ) {
        let mut name = [0u8; 100];
        let Ok(count @ 1..) = stream.read(&mut name) else { return };
        let name = name[..count].split(|byte| *byte == 0).next().unwrap().to_vec();
        heard.lock().unwrap().push(name.clone());
        let Ok(own) = stream.peer_addr() else { return };
        if stream.write_all(&endpoint(own)).is_err() {
            return;
        }
        let mut waiting = waiting.lock().unwrap();
        let Some(mut first) = waiting.remove(&name) else {
            waiting.insert(name, stream);
            return;
        };
        let Ok(other) = first.peer_addr() else { return };
        let _ = first.write_all(&endpoint(own));
        let _ = stream.write_all(&endpoint(other));
    }

    fn config(&self, protocol: &str) -> Config {
        let mut config = Config::new();
        config.set("backends.Direct.host", "127.0.0.1").unwrap();
        config.set("backends.Direct.port", &self.address.port().to_string()).unwrap();
        config.set("backends.Direct.protocol", protocol).unwrap();
        config
    }
}

/// An endpoint on the wire.
fn endpoint(address: SocketAddr) -> [u8; 8] {
    let SocketAddr::V4(address) = address else { panic!("IPv4 only") };
    let [a, b, c, d] = address.ip().octets();
    let [high, low] = address.port().to_be_bytes();
    [a, b, c, d, high, low, 0xcc, 0xcc]
}

/// Runs `body` on every rank of a job of `size`.
fn job(config: &Config, size: u32, body: impl Fn(&Communicator) + Send + Sync) {
    std::thread::scope(|scope| {
        for rank in 0..size {
            let body = &body;
            scope.spawn(move || {
                let comm = Communicator::create(rank, size, "pairs", config).unwrap();
                comm.set_timeout(milliseconds(20_000)).unwrap();
                body(&comm);
            });
        }
    });
}

#[test]
fn a_job_runs_by_a_server_of_protocol_1() {
    watched(LIMIT, || {
        for protocol in ["auto", "1"] {
            let server = TinyServer::start();
            job(&server.config(protocol), 4, |comm| {
                let rank = comm.rank() as i32;
                for round in 0..20 {
                    let mut sum = [0];
                    comm.allreduce(&[rank + round], &mut sum, &Op::SUM).unwrap();
                    assert_eq!(sum, [6 + 4 * round]);
                }
                let mut all = vec![0; 4 * 50_000];
                comm.gather(&vec![rank; 50_000], Some(&mut all), 3).unwrap();
                if rank == 3 {
                    assert!(all.chunks(50_000).zip(0..).all(|(part, rank)| part.iter().all(|x| *x == rank)));
                }
                comm.barrier().unwrap();
            });
            let names = server.names.lock().unwrap();
            let probes = names.iter().filter(|name| name.starts_with(b"\xf5FMI")).count();
            assert_eq!(probes, if protocol == "auto" { 4 } else { 0 });
        }
    });
}

/// Two probes that a server of protocol 1 took for one name would be paired with
/// each other.
#[test]
fn no_two_probes_are_one_name() {
    watched(LIMIT, || {
        let server = TinyServer::start();
        let config = server.config("2");
        for rank in 0..4 {
            let comm = Communicator::create(rank % 2, 2, "probes", &config).unwrap();
            comm.set_timeout(milliseconds(2000)).unwrap();
            let error = comm.barrier().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        }
        let mut names = server.names.lock().unwrap().clone();
        let count = names.len();
        assert!(count >= 4 && names.iter().all(|name| name.len() >= 20), "{names:?}");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "two probes have one name");
    });
}

/// The second comes late, and out of step.
#[test]
fn a_rank_waits_for_its_pair() {
    watched(LIMIT, || {
        let server = TinyServer::start();
        job(&server.config("auto"), 2, |comm| {
            if comm.rank() == 0 {
                std::thread::sleep(Duration::from_millis(700));
                comm.send(&[1u64, 2, 3], 1).unwrap();
                return;
            }
            // The first call is over before the other rank has come.
            comm.set_timeout(milliseconds(300)).unwrap();
            let error = comm.recv(&mut [0u64; 3], 0).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
            assert!(error.to_string().contains("protocol 1"), "{error}");
            std::thread::sleep(Duration::from_millis(900));
            comm.set_timeout(milliseconds(20_000)).unwrap();
            let mut numbers = [0u64; 3];
            comm.recv(&mut numbers, 0).unwrap();
            assert_eq!(numbers, [1, 2, 3]);
        });
    });
}

/// The names of pairs do not tell sizes apart, nor all jobs from each other.
#[test]
fn ranks_of_different_jobs_are_no_pair() {
    watched(LIMIT, || {
        let server = TinyServer::start();
        let config = server.config("1");
        let with_id = |id: &str| {
            let mut config = config.clone();
            config.set("job_id", id).unwrap();
            config
        };
        for (one, other, size) in [
            (("job", config.clone()), ("job", config.clone()), 4),
            (("job1", config.clone()), ("job", with_id("1")), 2),
        ] {
            let create = |rank, (name, config): (&str, Config), size| {
                let comm = Communicator::create(rank, size, name, &config).unwrap();
                comm.set_timeout(milliseconds(1500)).unwrap();
                comm
            };
            std::thread::scope(|scope| {
                scope.spawn(|| create(0, one, 2).send(&[1u8], 1).unwrap_err());
                scope.spawn(|| create(1, other, size).recv(&mut [0u8], 0).unwrap_err());
            });
        }
    });
}

/// Protocol 1 has no place for a secret: a job that has one does not go on
/// without.
#[test]
fn a_secret_is_not_given_up() {
    watched(LIMIT, || {
        // SAFETY: in this program only Rust's library, which locks it, looks at
        // the environment: host names are numbers.
        unsafe { std::env::set_var("FMI_TEST_SECRET", "0123456789abcdef0123456789abcdef") };
        for protocol in ["auto", "1"] {
            let server = TinyServer::start();
            let mut config = server.config(protocol);
            config.set("secret_env", "FMI_TEST_SECRET").unwrap();
            let comm = Communicator::create(0, 2, "secret", &config).unwrap();
            let start = Instant::now();
            let error = comm.barrier().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
            assert!(start.elapsed() < Duration::from_secs(5));
        }
    });
}

/// A server that answers, and never has a second client; one that only closes.
#[test]
fn a_server_that_is_of_no_use_is_told_by_the_deadline() {
    watched(LIMIT, || {
        let closing = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = closing.local_addr().unwrap();
        std::thread::spawn(move || closing.incoming().for_each(drop));
        let server = TinyServer { address, names: Arc::default() };
        for protocol in ["auto", "1"] {
            let comm = Communicator::create(0, 2, "closing", &server.config(protocol)).unwrap();
            comm.set_timeout(milliseconds(600)).unwrap();
            let start = Instant::now();
            let error = comm.barrier().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
            assert!(start.elapsed() < Duration::from_secs(3));
        }
    });
}

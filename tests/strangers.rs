//! Strangers: connections from outside of the job, at the ranks' ports and at
//! the server's, and ranks without the secret. The job goes on.

mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
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

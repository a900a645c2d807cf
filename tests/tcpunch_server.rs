//! Protocol 1 at a real server, by a client written from what is known of it:
//! a name goes out, endpoints come in.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use fmi::{Communicator, Op};
use support::serve::{PATIENCE, Serve};
use support::{skip, watched};

const LIMIT: Duration = Duration::from_secs(120);
/// Long enough for an answer that must not come.
const A_WHILE: Duration = Duration::from_millis(300);

/// A client from 127.0.0.`host` that has sent `name`.
fn call_from(server: &Serve, host: u8, name: &str) -> TcpStream {
    let mut stream = server.connect_from(host);
    stream.write_all(name.as_bytes()).unwrap();
    stream
}

fn call(server: &Serve, name: &str) -> TcpStream {
    call_from(server, 1, name)
}

/// The next endpoint that a client is told.
fn endpoint(stream: &mut TcpStream) -> SocketAddrV4 {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes).expect("an endpoint in time");
    let [a, b, c, d, high, low, _, _] = bytes;
    SocketAddrV4::new([a, b, c, d].into(), u16::from_be_bytes([high, low]))
}

fn local(stream: &TcpStream) -> SocketAddrV4 {
    match stream.local_addr().unwrap() {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(address) => panic!("{address}"),
    }
}

/// Checks all that a pair is told, to the end.
fn expect_pair(one: &mut TcpStream, other: &mut TcpStream) {
    let (here, there) = (local(one), local(other));
    for (stream, own, partner) in [(one, here, there), (other, there, here)] {
        assert_eq!(endpoint(stream), own);
        assert_eq!(endpoint(stream), partner);
        expect_end(stream);
    }
}

/// The server ends the connection in order, without another byte.
fn expect_end(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the end in time");
    assert_eq!(rest, b"");
}

/// Nothing comes: it waits.
fn expect_silence(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(A_WHILE)).unwrap();
    let error = stream.read(&mut [0]).expect_err("nothing, and not the end");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
}

/// Runs `body` with a server that `options` start; it must live to the end.
fn with_server(options: &'static [&'static str], body: impl FnOnce(&Serve) + Send + 'static) {
    watched(LIMIT, move || {
        let server = Serve::start(options);
        body(&server);
        server.honest_pair();
        server.stop();
    });
}

#[test]
fn two_clients_of_a_name_are_told_each_others_endpoints() {
    with_server(&[], |server| {
        let mut first = call_from(server, 2, "fmi_pair0_1");
        assert_eq!(endpoint(&mut first), local(&first), "at once, before there is a partner");
        expect_silence(&mut first);
        let mut second = call_from(server, 3, "fmi_pair0_1");
        assert_eq!(endpoint(&mut second), local(&second));
        assert_eq!(endpoint(&mut second), local(&first));
        assert_eq!(endpoint(&mut first), local(&second));
        expect_end(&mut first);
        expect_end(&mut second);
    });
}

#[test]
fn the_longest_name_and_any_byte_in_it_are_good() {
    with_server(&[], |server| {
        for name in [vec![b'n'; 100], vec![b'x'], (0..100).collect(), vec![0xff; 7]] {
            let mut clients = [server.connect(), server.connect()];
            clients.iter_mut().for_each(|client| client.write_all(&name).unwrap());
            let [one, other] = &mut clients;
            expect_pair(one, other);
        }
    });
}

#[test]
fn a_name_in_two_segments_is_one_name() {
    with_server(&[], |server| {
        for pause in [Duration::ZERO, A_WHILE] {
            let mut split = call(server, "job0");
            std::thread::sleep(pause);
            split.write_all(b"_1").unwrap();
            // Long after the silence that ends a name.
            std::thread::sleep(A_WHILE);
            let mut shorter = call(server, "job0");
            assert_eq!(endpoint(&mut shorter), local(&shorter));
            expect_silence(&mut shorter);
            let mut whole = call(server, "job0_1");
            expect_pair(&mut split, &mut whole);
        }
    });
}

#[test]
fn who_has_gone_is_nobodys_partner() {
    with_server(&[], |server| {
        let leave: [fn(TcpStream); 3] = [
            drop,
            |stream| socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
            |stream| {
                stream.shutdown(Shutdown::Write).unwrap();
                expect_end(&mut { stream });
            },
        ];
        for (number, leave) in leave.into_iter().enumerate() {
            let name = format!("ghost{number}");
            let mut ghost = call(server, &name);
            endpoint(&mut ghost);
            leave(ghost);
            let mut first = call(server, &name);
            assert_eq!(endpoint(&mut first), local(&first));
            expect_silence(&mut first);
            let mut second = call(server, &name);
            assert_eq!(endpoint(&mut first), local(&second));
            assert_eq!(endpoint(&mut second), local(&second));
            assert_eq!(endpoint(&mut second), local(&first));
        }
    });
}

#[test]
fn the_third_of_a_name_is_a_new_first() {
    with_server(&[], |server| {
        let mut first = call(server, "name");
        endpoint(&mut first);
        let mut second = call(server, "name");
        endpoint(&mut second);
        let mut third = call(server, "name");
        assert_eq!(endpoint(&mut first), local(&second));
        assert_eq!(endpoint(&mut second), local(&first));
        assert_eq!(endpoint(&mut third), local(&third));
        expect_silence(&mut third);
        let mut fourth = call(server, "name");
        assert_eq!(endpoint(&mut third), local(&fourth));
        assert_eq!(endpoint(&mut fourth), local(&fourth));
        assert_eq!(endpoint(&mut fourth), local(&third));
    });
}

#[test]
fn two_hundred_pairs_at_once_are_all_right() {
    const PAIRS: usize = 200;
    with_server(&[], |server| {
        let mut clients: Vec<_> = (0..2 * PAIRS).map(|_| server.connect()).collect();
        // 7 and 400 have no common divisor: each client once, partners apart.
        for step in 0..2 * PAIRS {
            let number = step * 7 % (2 * PAIRS);
            clients[number].write_all(format!("job{}", number / 2).as_bytes()).unwrap();
        }
        for pair in clients.chunks_mut(2) {
            let [one, other] = pair else { unreachable!() };
            expect_pair(one, other);
        }
    });
}

#[test]
fn other_dialects_are_closed_without_an_endpoint() {
    with_server(&[], |server| {
        for sizes in [&[141][..], &[100, 41], &[1; 141], &[60_000]] {
            for _ in 0..2 {
                let mut stream = server.connect();
                // The later pieces may meet a closed connection.
                let sent = sizes.iter().try_for_each(|size| stream.write_all(&vec![b'r'; *size]));
                let mut told = Vec::new();
                match stream.read_to_end(&mut told) {
                    Ok(_) => {}
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{sent:?}"),
                }
                // Pieces that a busy machine sent far apart were a name first.
                let pieces = sizes.len() > 1;
                assert!(told.is_empty() || pieces && told.len() == 8, "{sizes:?} {told:?}");
            }
        }
    });
}

/// Our own ranks, told to speak protocol 1; the names are theirs to choose.
#[test]
fn a_job_of_ours_meets_by_names() {
    with_server(&[], |server| {
        let mut config = support::config_at(server.address());
        config.set("backends.Direct.protocol", "1").unwrap();
        std::thread::scope(|scope| {
            for rank in 0..4 {
                let config = &config;
                scope.spawn(move || {
                    let comm = Communicator::create(rank, 4, "by-name", config).unwrap();
                    comm.set_timeout(Some(PATIENCE)).unwrap();
                    let mut sum = [0];
                    comm.allreduce(&[rank], &mut sum, &Op::SUM).unwrap();
                    assert_eq!(sum, [6]);
                });
            }
        });
    });
}

/// Whether whole or in pieces: two clients that begin as ours do are no pair.
#[test]
fn our_own_first_words_are_never_a_name() {
    const PREAMBLE: &[u8] = b"\xf5FMI\r\nrv\x02\x01sixteen bytes...";
    with_server(&[], |server| {
        for length in 1..=PREAMBLE.len() {
            let mut probes: Vec<_> = (0..2).map(|_| server.connect()).collect();
            for probe in &mut probes {
                probe.write_all(&PREAMBLE[..1]).unwrap();
            }
            std::thread::sleep(Duration::from_millis(30));
            for probe in &mut probes {
                probe.write_all(&PREAMBLE[1..length]).unwrap();
            }
            expect_silence(&mut probes[0]);
            expect_silence(&mut probes[1]);
            for probe in &mut probes {
                probe.write_all(&PREAMBLE[length..]).unwrap();
                probe.write_all(b"\x11\x00\x01sixteen bytes...").unwrap();
                let mut answer = [0; PREAMBLE.len()];
                probe.read_exact(&mut answer).unwrap();
                assert_eq!(answer[..10], PREAMBLE[..10]);
            }
        }
    });
}

#[test]
fn it_can_be_turned_off() {
    with_server(&["--protocol", "2"], |server| {
        for _ in 0..2 {
            expect_end(&mut call(server, "name"));
        }
    });
    watched(LIMIT, || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fmi"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--require-secret", "--log", "error"]);
        let server = Serve::start_command(command.env("FMI_SECRET", "0123456789abcdef"));
        for _ in 0..2 {
            expect_end(&mut call(&server, "name"));
        }
        server.stop();
    });
}

#[test]
fn only_ipv4_clients_are_paired() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        skip("protocol 1 by IPv6", "this machine has no IPv6");
        return;
    }
    watched(LIMIT, || {
        let server = Serve::start(&["--listen", "[::]:0"]);
        let port = server.address().port();
        for _ in 0..2 {
            let mut six = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
            six.set_read_timeout(Some(PATIENCE)).unwrap();
            six.write_all(b"name").unwrap();
            expect_end(&mut six);
        }
        let mut mapped: Vec<_> = (0..2).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
        for stream in &mut mapped {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"name").unwrap();
        }
        let [one, other] = &mut mapped[..] else { unreachable!() };
        expect_pair(one, other);
        server.stop();
    });
}

//! A real server, and strangers who mean it no good. Whatever they do: an
//! honest pair is served meanwhile, the process lives, its memory stays flat,
//! and nothing of theirs is kept.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use socket2::SockRef;
use support::serve::{PATIENCE, Serve, raise_descriptor_limit};
use support::watched;

const LIMIT: Duration = Duration::from_secs(300);
/// What the server may grow by from the first attack to the last: its allocator
/// does not give everything back.
const FLAT: u64 = 16 << 20;
/// How often an attack is repeated.
const ROUNDS: usize = 3;
/// The server's time limit for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Preamble and hello as they stand on the wire.
fn hello() -> Vec<u8> {
    [&b"\xf5FMI\r\nrv\x02\x01sixteen bytes..."[..], b"\x11\x00\x01sixteen bytes..."].concat()
}

/// The join that may follow without waiting for the answer: the job's hash, no
/// id, rank and size, host, fingerprint, no private address, no proof.
fn join(job: u8, rank: u32, size: u32) -> Vec<u8> {
    let mut body = vec![2];
    body.extend_from_slice(&[job; 32]);
    body.push(0);
    body.extend_from_slice(&rank.to_le_bytes());
    body.extend_from_slice(&size.to_le_bytes());
    body.extend_from_slice(&[0; 16]);
    body.extend_from_slice(&[0, 0]);
    [&(body.len() as u16).to_le_bytes()[..], &body].concat()
}

/// The wish for a link to `rank`.
fn connect(rank: u32) -> Vec<u8> {
    [&b"\x05\x00\x04"[..], &rank.to_le_bytes()].concat()
}

/// All that a member says to become one.
fn first_words() -> Vec<u8> {
    [hello(), join(7, 0, 2)].concat()
}

/// Has the server close the connection by a reset.
fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Whether the other side has ended the connection, in any way, before `limit`.
fn ends(mut stream: &TcpStream, limit: Duration) -> bool {
    stream.set_read_timeout(Some(limit)).unwrap();
    let start = Instant::now();
    let mut buffer = [0; 4096];
    while start.elapsed() < limit {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
    false
}

/// Whether a member's connection stands: the server answers the last word of
/// what it has been sent by Joined, kind 0x82.
fn is_joined(mut stream: &TcpStream) -> bool {
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    while !seen.windows(2).any(|window| window == [0, 0x82]) {
        match stream.read(&mut buffer) {
            Ok(length) if length > 0 => seen.extend_from_slice(&buffer[..length]),
            _ => return false,
        }
    }
    true
}

/// Numbers that look random, the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// Attacks a server, again and again; what an attack returns is held while an
/// honest pair is served.
fn besiege(server: Serve, attack: impl Fn(&Serve) -> Vec<TcpStream> + Send + 'static) {
    watched(LIMIT, move || {
        raise_descriptor_limit();
        let mut server = server;
        server.honest_pair();
        let descriptors = server.descriptors();
        let mut first = 0;
        for round in 0..=ROUNDS {
            let held = attack(&server);
            let pair = server.honest_pair();
            server.assert_alive();
            let (memory, _) = server.memory();
            println!("round {round}: {} held, honest pair in {pair:?}, {} KiB", held.len(), memory / 1024);
            if round == 0 {
                first = memory;
            }
            assert!(memory < first + FLAT, "it grows: from {first} to {memory} bytes");
        }
        let start = Instant::now();
        while server.descriptors() > descriptors {
            assert!(start.elapsed() < PATIENCE, "it keeps {} descriptors", server.descriptors());
            std::thread::sleep(Duration::from_millis(10));
        }
        server.honest_pair();
        server.stop();
    });
}

#[test]
fn silent_connections() {
    besiege(Serve::start(&[]), |server| (0..1000).map(|_| server.connect()).collect());
}

/// Every beginning of what an honest client says: held, ended, and reset.
#[test]
fn half_sent_handshakes() {
    besiege(Serve::start(&[]), |server| {
        let words = first_words();
        let mut held = Vec::new();
        for length in 0..words.len() {
            for end in 0..3 {
                let mut stream = server.connect();
                stream.write_all(&words[..length]).unwrap();
                match end {
                    0 => held.push(stream),
                    1 => {
                        stream.shutdown(Shutdown::Write).unwrap();
                        held.push(stream);
                    }
                    _ => reset(stream),
                }
            }
        }
        held
    });
}

#[test]
fn garbage() {
    besiege(Serve::start(&[]), |server| {
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
        let beginnings = [Vec::new(), vec![0xf5], hello()[..10].to_vec(), hello(), first_words()];
        let mut held = Vec::new();
        for number in 0..500 {
            let mut stream = server.connect();
            let length = 1 + noise.next() as usize % 8000;
            let bytes = [&beginnings[number % beginnings.len()][..], &noise.bytes(length)].concat();
            // The server may have had enough before the last byte.
            let _ = stream.write_all(&bytes);
            held.push(stream);
        }
        held
    });
}

#[test]
fn storms_of_connects_and_resets() {
    besiege(Serve::start(&[]), |server| {
        let beginnings = [Vec::new(), b"name".to_vec(), hello(), first_words()];
        std::thread::scope(|scope| {
            for beginning in &beginnings {
                scope.spawn(move || {
                    for _ in 0..1000 {
                        // The storm may fill the queue of the kernel.
                        let Ok(mut stream) = server.try_connect_from(1) else { continue };
                        let _ = stream.write_all(beginning);
                        reset(stream);
                    }
                });
            }
            server.honest_pair();
        });
        Vec::new()
    });
}

/// Members that ask and ask for one that has left, and never read the answers.
#[test]
fn slow_readers() {
    const WISHES: usize = 4_000_000;
    besiege(Serve::start(&[]), |server| {
        let member = |rank| {
            let mut stream = server.connect();
            stream.write_all(&[hello(), join(9, rank, 4)].concat()).unwrap();
            stream
        };
        let deaf: Vec<_> = (1..3).map(member).collect();
        let mut left = member(0);
        assert!(is_joined(&left) && is_joined(&deaf[0]));
        left.write_all(b"\x01\x00\x06").unwrap();
        assert!(ends(&left, PATIENCE));
        let wishes = connect(0).repeat(1000);
        std::thread::scope(|scope| {
            for mut stream in &deaf {
                let wishes = &wishes;
                scope.spawn(move || {
                    let dropped = (0..WISHES / 1000).any(|_| stream.write_all(wishes).is_err());
                    assert!(dropped, "{WISHES} wishes whose answers nobody reads");
                });
            }
        });
        deaf
    });
}

/// A source that wishes for all that it can, as long as it is served.
#[test]
fn one_source_cannot_fill_the_memory() {
    const MEMBERS: u32 = 300;
    /// What a source without the secret may take, and twice what the server
    /// grows by otherwise.
    const MOST: u64 = (32 << 20) + 2 * FLAT;
    watched(LIMIT, || {
        raise_descriptor_limit();
        let mut server = Serve::start(&[]);
        server.honest_pair();
        let (before, _) = server.memory();
        let wishes =
            |from: u32| (0..4096).flat_map(|to| connect((from + 1 + to * 15) % 65536)).collect::<Vec<_>>();
        let mut refused = 0;
        let members: Vec<_> = (0..MEMBERS)
            .map(|rank| {
                let mut stream = server.connect_from(9);
                let words = [hello(), join(9, rank, 65536), wishes(rank)].concat();
                refused += usize::from(stream.write_all(&words).is_err());
                stream
            })
            .collect();
        let pair = server.honest_pair();
        server.wait_until_idle();
        let (after, most) = server.memory();
        let closed = members.iter().filter(|stream| ends(stream, Duration::from_millis(1))).count();
        println!(
            "honest pair in {pair:?}; {} MiB before, {} after, {} at most; {refused} + {closed} of {MEMBERS} refused",
            before >> 20,
            after >> 20,
            most >> 20
        );
        assert!(closed > 0, "all were served");
        assert!(most < before + MOST);
        server.assert_alive();
        drop(members);
        server.honest_pair();
        let mut again = server.connect_from(9);
        again.write_all(&first_words()).unwrap();
        assert!(is_joined(&again), "what was taken is given back");
        server.stop();
    });
}

#[test]
fn no_descriptors_left() {
    let mut command = Command::new("sh");
    let script = r#"ulimit -n 96 && exec "$0" serve --listen 127.0.0.1:0 --log off"#;
    besiege(Serve::start_command(command.args(["-c", script, env!("CARGO_BIN_EXE_fmi")])), |server| {
        let words = first_words();
        let mut held = Vec::new();
        for number in 0..300 {
            let mut stream = server.connect();
            let _ = match number % 3 {
                0 => Ok(()),
                1 => stream.write_all(&words[..number % words.len()]),
                _ => stream.write_all(format!("name{number}").as_bytes()),
            };
            held.push(stream);
        }
        held
    });
}

/// What idle connections have said before they fell silent.
#[derive(Clone, Copy, Debug)]
enum Idle {
    Nothing,
    Hello,
    /// A name of protocol 1: they wait for their partners.
    Name,
    /// All: they are ranks of a job.
    Member,
}

/// Opens `count` idle connections, and has `tries` honest pairs served in turn;
/// prints how long these took.
fn crowd(idle: Idle, count: usize, tries: usize) {
    raise_descriptor_limit();
    let server = Serve::start(&[]);
    server.honest_pair();
    let connections: Vec<_> = (0..count)
        .map(|number| {
            let mut stream = server.connect_from(2 + (number / 1000) as u8);
            let words = match idle {
                Idle::Nothing => Vec::new(),
                Idle::Hello => hello(),
                Idle::Name => format!("name {number}").into_bytes(),
                Idle::Member => [hello(), join(9, number as u32, count as u32)].concat(),
            };
            stream.write_all(&words).unwrap();
            stream
        })
        .collect();
    if let Idle::Member = idle {
        assert!(connections.iter().all(is_joined));
    }
    server.wait_until_idle();
    let held = server.descriptors();
    let mut times: Vec<_> = (0..tries).map(|_| server.honest_pair()).collect();
    times.sort_unstable();
    let (_, memory) = server.memory();
    println!(
        "{count:6} idle connections ({idle:?}), {held:5} descriptors at the server: an honest pair takes {:.1} ms \
         (median), {:.1} ms (p99 of {tries}); memory at most {:.1} MiB",
        times[tries / 2].as_secs_f64() * 1e3,
        times[(tries * 99).div_ceil(100) - 1].as_secs_f64() * 1e3,
        memory as f64 / f64::from(1 << 20),
    );
    assert!(memory <= 128 << 20);
    drop(connections);
    server.stop();
}

#[test]
fn a_thousand_idle_connections() {
    watched(LIMIT, || {
        [Idle::Nothing, Idle::Hello, Idle::Name, Idle::Member]
            .into_iter()
            .for_each(|idle| crowd(idle, 1000, 5));
    });
}

#[test]
#[ignore = "a benchmark: make bench-server"]
fn ten_thousand_idle_connections() {
    watched(LIMIT, || {
        [Idle::Nothing, Idle::Hello, Idle::Name, Idle::Member]
            .into_iter()
            .for_each(|idle| crowd(idle, 10_000, 50));
    });
}

/// Whoever has not joined is cut off in time; who has joined may be silent.
#[test]
fn a_handshake_has_a_time_limit() {
    watched(LIMIT, || {
        let server = Serve::start(&[]);
        let words = first_words();
        let mut member = server.connect();
        member.write_all(&words).unwrap();
        assert!(is_joined(&member));
        let start = Instant::now();
        let late: Vec<_> = [0, 1, 9, 12, hello().len(), hello().len() + 1, words.len() - 1]
            .into_iter()
            .map(|length| {
                let mut stream = server.connect();
                stream.write_all(&words[..length]).unwrap();
                stream
            })
            .collect();
        server.honest_pair();
        for stream in &late {
            assert!(ends(stream, HANDSHAKE + PATIENCE));
        }
        let took = start.elapsed();
        println!("cut off after {took:?}");
        assert!(took > HANDSHAKE / 2, "an honest client may be slow");
        assert!(!ends(&member, HANDSHAKE), "a member may be silent for longer");
        server.stop();
    });
}

/// The log goes into a pipe that nobody reads.
#[test]
fn a_log_that_is_not_read_stops_nothing() {
    watched(LIMIT, || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fmi"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--log", "debug"]).stderr(Stdio::piped());
        let server = Serve::start_command(&mut command);
        // Each is at least a line of 50 bytes: more than a pipe holds.
        for _ in 0..3000 {
            server.connect().write_all(&[b'g'; 200]).unwrap();
        }
        server.honest_pair();
        server.stop();
    });
}

//! The server on the loopback network.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream as Socket};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::SockRef;

use super::options::Limits;
use super::*;
use crate::rendezvous::client::{Client, Event, JoinRequest, Reason};

/// No test waits longer: a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(10);

fn serve(limits: Limits) -> ServerThread {
    serve_with(ServerOptions { limits, ..ServerOptions::default() })
}

fn serve_with(options: ServerOptions) -> ServerThread {
    Server::bind("127.0.0.1:0".parse().unwrap(), options).unwrap().spawn_thread().unwrap()
}

fn stranger(server: &ServerThread) -> Socket {
    let socket = Socket::connect(server.local_addr()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Of a job of one.
pub(super) fn request() -> JoinRequest {
    JoinRequest {
        name: "x".into(),
        job_id: None,
        rank: 0,
        size: 1,
        private_endpoints: Vec::new(),
        host_id: 0,
        fingerprint: 0,
        secret: None,
    }
}

/// A client on a blocking socket.
struct Rank {
    client: Client,
    socket: Socket,
}

impl Rank {
    fn start(server: &ServerThread, name: &str, rank: u32, size: u32, secret: Option<&[u8]>) -> Self {
        let secret = secret.map(Into::into);
        let request = JoinRequest { name: name.into(), rank, size, secret, host_id: 1, ..request() };
        Self { client: Client::new(request).unwrap(), socket: stranger(server) }
    }

    fn member(server: &ServerThread, name: &str, rank: u32, size: u32) -> Self {
        let mut member = Self::start(server, name, rank, size, None);
        assert!(matches!(member.event(), Ok(Event::Joined { .. })));
        member
    }

    fn flush(&mut self) {
        self.socket.write_all(self.client.outgoing()).unwrap();
        self.client.advance(self.client.outgoing().len());
    }

    /// The next event, sending what there is to send.
    fn event(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.client.next_event() {
                return Ok(event);
            }
            self.flush();
            let mut buffer = [0; 1024];
            let length = self.socket.read(&mut buffer).expect("an answer in time");
            assert_ne!(length, 0, "the server closed the connection");
            self.client.receive(&buffer[..length])?;
        }
    }

    fn event_but_not_yet(&mut self) -> Event {
        loop {
            match self.event().unwrap() {
                Event::NotYet { .. } => {}
                event => return event,
            }
        }
    }
}

/// Two ranks find each other; how long that took.
fn honest_pair(server: &ServerThread, name: &str) -> Duration {
    let start = Instant::now();
    let mut zero = Rank::member(server, name, 0, 2);
    zero.client.connect(1);
    zero.flush();
    let mut one = Rank::member(server, name, 1, 2);
    assert_eq!(one.event().unwrap(), Event::Offer { rank: 0 });
    one.client.ready(0);
    let Event::Go { rank: 0, candidates, ranks_on_host: 2 } = one.event().unwrap() else { panic!() };
    assert_eq!(candidates, [zero.socket.local_addr().unwrap()]);
    let Event::Go { rank: 1, candidates, ranks_on_host: 2 } = zero.event_but_not_yet() else { panic!() };
    assert_eq!(candidates, [one.socket.local_addr().unwrap()]);
    for rank in [&mut zero, &mut one] {
        rank.client.leave();
        rank.flush();
    }
    start.elapsed()
}

/// Waits until the other side has closed the connection.
fn ends(mut socket: Socket) -> bool {
    let mut rest = Vec::new();
    match socket.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn a_pair_finds_each_other() {
    let server = serve(Limits::default());
    honest_pair(&server, "job");
    honest_pair(&server, "job");
}

#[test]
fn a_pair_with_a_secret_finds_each_other_and_others_are_refused() {
    let secret = b"0123456789abcdef";
    let server = serve_with(ServerOptions::default().secret(*secret).require_secret(true));
    assert!(matches!(Rank::start(&server, "job", 0, 2, Some(secret)).event(), Ok(Event::Joined { .. })));
    for wrong in [Some(&b"0123456789abcdeX"[..]), None] {
        let error = Rank::start(&server, "job", 1, 2, wrong).event().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth);
    }
}

#[test]
fn a_secret_that_is_missing_or_short_is_refused_at_the_start() {
    let kind =
        |options| Server::bind("127.0.0.1:0".parse().unwrap(), options).err().map(|error| error.kind());
    assert_eq!(kind(ServerOptions::default().require_secret(true)), Some(ErrorKind::Config));
    assert_eq!(kind(ServerOptions::default().secret(*b"short")), Some(ErrorKind::Config));
}

#[test]
fn a_taken_address_is_an_error_that_names_it() {
    let server = serve(Limits::default());
    let error = Server::bind(server.local_addr(), ServerOptions::default()).err().unwrap();
    assert_eq!((error.kind(), error.os_errno()), (ErrorKind::Io, libc::EADDRINUSE));
    assert!(error.message().contains(&server.local_addr().to_string()), "{error}");
}

#[test]
fn a_port_is_taken_back_at_once() {
    let server = serve(Limits::default());
    let address = server.local_addr();
    let member = Rank::member(&server, "job", 0, 2);
    drop(server);
    assert!(ends(member.socket), "a server that stops says so");
    let server = Server::bind(address, ServerOptions::default()).unwrap().spawn_thread().unwrap();
    honest_pair(&server, "job");
}

#[test]
fn a_restarted_server_takes_its_members_back() {
    let server = serve(Limits::default());
    let address = server.local_addr();
    let mut zero = Rank::member(&server, "job", 0, 2);
    zero.client.connect(1);
    let epoch = zero.client.epoch();
    drop(server);
    let server = Server::bind(address, ServerOptions::default()).unwrap().spawn_thread().unwrap();
    zero.client.reconnect().unwrap();
    zero.socket = stranger(&server);
    assert!(matches!(zero.event_but_not_yet(), Event::Joined { .. }));
    assert!(matches!(zero.event().unwrap(), Event::NotYet { rank: 1, .. }));
    let mut one = Rank::member(&server, "job", 1, 2);
    assert_eq!(one.client.epoch(), epoch);
    assert_eq!(one.event().unwrap(), Event::Offer { rank: 0 });
}

#[test]
fn the_end_of_a_connection_is_a_loss_unless_it_was_announced() {
    let server = serve(Limits::default());
    let mut ranks: Vec<_> = (0..4).map(|rank| Rank::member(&server, "job", rank, 4)).collect();
    for peer in 1..4 {
        ranks[0].client.connect(peer);
    }
    ranks[0].flush();
    let reset = ranks.pop().unwrap();
    let closed = ranks.pop().unwrap();
    let mut left = ranks.pop().unwrap();
    left.client.leave();
    left.flush();
    let mut next = || ranks[0].event_but_not_yet();
    assert_eq!(next(), Event::Unreachable { rank: 1, reason: Reason::Left });
    drop(closed);
    assert_eq!(next(), Event::Unreachable { rank: 2, reason: Reason::Lost });
    SockRef::from(&reset.socket).set_linger(Some(Duration::ZERO)).unwrap();
    drop(reset);
    assert_eq!(next(), Event::Unreachable { rank: 3, reason: Reason::Lost });
    assert!(ends(left.socket), "a connection of a rank that left is closed");
}

#[test]
fn refusals_arrive_and_name_the_difference() {
    let server = serve(Limits::default());
    let _zero = Rank::member(&server, "job", 0, 2);
    let error = Rank::start(&server, "job", 2, 3, None).event().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.message().contains("is 3, rank 0 said 2"), "{error}");
}

#[test]
fn a_handshake_that_stalls_is_cut_off() {
    let limits = Limits { handshake: Duration::from_millis(200), ..Limits::default() };
    let server = serve(limits);
    let mut member = Rank::member(&server, "job", 0, 2);
    let idle = stranger(&server);
    let mut half = stranger(&server);
    half.write_all(&Client::new(request()).unwrap().outgoing()[..14]).unwrap();
    assert!(ends(idle) && ends(half));
    member.client.connect(1);
    assert!(matches!(member.event().unwrap(), Event::NotYet { .. }), "members may be silent for longer");
}

#[test]
fn garbage_ends_its_own_connection_only() {
    let server = serve(Limits::default());
    for garbage in [&[b'G'; 101][..], &[0; 141], &[0xf5; 5000], b"\xf5FMI\r\nrx"] {
        let mut socket = stranger(&server);
        socket.write_all(garbage).unwrap();
        assert!(ends(socket));
    }
    let mut after_hello = stranger(&server);
    after_hello.write_all(Client::new(request()).unwrap().outgoing()).unwrap();
    after_hello.write_all(&[0xff; 300]).unwrap();
    assert!(ends(after_hello));
    honest_pair(&server, "job");
}

#[test]
fn idle_connections_push_each_other_out_not_the_honest() {
    // No handshake times out while the test has patience.
    let handshake = PATIENCE * 2;
    let server = serve(Limits { handshakes_per_source: 50, handshake, ..Limits::default() });
    let idle: Vec<_> = (0..300).map(|_| stranger(&server)).collect();
    assert!(honest_pair(&server, "job") < Duration::from_secs(1));
    let mut pushed_out = 0;
    for socket in &idle[..250] {
        pushed_out += usize::from(ends(socket.try_clone().unwrap()));
    }
    assert_eq!(pushed_out, 250);
}

#[test]
fn a_storm_of_connects_and_resets_is_weathered() {
    let server = serve(Limits::default());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let hello = Client::new(request()).unwrap().outgoing().to_vec();
                // Bounded, so that it ends also where the others get no time.
                for _ in 0..2000 {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let Ok(mut socket) = Socket::connect(server.local_addr()) else { continue };
                    let _ = socket.write_all(&hello);
                    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
                }
            });
        }
        for number in 0..20 {
            honest_pair(&server, &format!("job {number}"));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn strangers_cannot_take_all_the_room() {
    let limits = Limits { strangers_per_source: 3, ..Limits::default() };
    let options = ServerOptions { limits, ..ServerOptions::default() };
    let secret = b"0123456789abcdef";
    let server = serve_with(options.secret(*secret));
    let strangers: Vec<_> = (0..3).map(|rank| Rank::member(&server, "open", rank, 9)).collect();
    let error = Rank::start(&server, "open", 3, 9, None).event().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    for rank in 0..9 {
        let mut rank = Rank::start(&server, "job", rank, 9, Some(secret));
        assert!(matches!(rank.event(), Ok(Event::Joined { .. })), "proven ranks count apart");
    }
    let mut zero = strangers.into_iter().next().unwrap();
    zero.client.connect(1);
    assert!(
        matches!(zero.event_but_not_yet(), Event::Unreachable { reason: Reason::Lost, .. }),
        "and the room is free again once they are gone"
    );
    Rank::member(&server, "open", 3, 9);
}

#[test]
fn strangers_leave_room_for_those_who_know_the_secret() {
    let limits = Limits { members: 8, ..Limits::default() };
    let secret = b"0123456789abcdef";
    let server = serve_with(ServerOptions { limits, ..ServerOptions::default() }.secret(*secret));
    let _strangers: Vec<_> = (0..6).map(|rank| Rank::member(&server, "open", rank, 9)).collect();
    let error = Rank::start(&server, "open", 6, 9, None).event().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    let mut zero = Rank::start(&server, "job", 0, 2, Some(secret));
    assert!(matches!(zero.event(), Ok(Event::Joined { .. })));
}

#[test]
fn running_out_of_descriptors_is_no_end() {
    // In a process of its own: the limit is the process's.
    let this = std::env::current_exe().unwrap();
    let status = std::process::Command::new(this)
        .args(["--exact", "rendezvous::server::tests::out_of_descriptors_inner", "--ignored", "--quiet"])
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
#[ignore = "run by running_out_of_descriptors_is_no_end"]
fn out_of_descriptors_inner() {
    let server = serve(Limits::default());
    honest_pair(&server, "warm up");
    let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
    // SAFETY: `limit` is valid.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    // All of these but a few are the server's too.
    let mut idle = Vec::new();
    while let Ok(socket) = Socket::connect(server.local_addr()) {
        idle.push(socket);
    }
    std::thread::sleep(Duration::from_millis(300));
    idle.truncate(idle.len() / 2);
    honest_pair(&server, "job");
}

#[test]
fn events_are_logged_one_line_each() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = lines.clone();
    let log = Arc::new(move |_: LogLevel, line: &str| sink.lock().unwrap().push(line.to_owned()));
    let server = serve_with(ServerOptions::default().log(LogLevel::Info, log));
    honest_pair(&server, "job");
    let start = Instant::now();
    while lines.lock().unwrap().len() < 5 && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(server);
    let lines = lines.lock().unwrap();
    let verbs: Vec<_> = lines.iter().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(verbs, ["joined", "joined", "go", "left", "left"], "{lines:?}");
    assert!(lines[0].contains("rank 0 of 2 from 127.0.0.1:"), "{lines:?}");
}

#[test]
fn a_half_closed_member_is_lost() {
    let server = serve(Limits::default());
    let mut zero = Rank::member(&server, "job", 0, 2);
    let one = Rank::member(&server, "job", 1, 2);
    one.socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(zero.event().unwrap(), Event::Unreachable { rank: 1, reason: Reason::Lost });
}

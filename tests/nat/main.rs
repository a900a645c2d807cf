//! Ranks behind NATs, in a lab of network namespaces. Where no lab can be built
//! the tests say so, and are counted as skipped.
//!
//! `make nat` (`FMI_NAT=full`) tries every pair of kinds and prints the figures;
//! `make test` a selection.

#[path = "../support/mod.rs"]
mod support;

mod distance;
mod lab;
mod ranks;

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind as IoErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fmi::ErrorKind;
use lab::{Host, Kind, Lab, SERVER, Site};
use ranks::{Failure, Job, Rank, now};
use socket2::{Domain, Socket, Type};
use support::{skip, watched};

/// A test hangs that takes longer: the whole matrix needs less.
const LIMIT: Duration = Duration::from_secs(240);

/// The deadline of calls that succeed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The deadline of calls between hosts that cannot connect.
const SHORT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a packet is under way within a region, and between two.
const NEAR: Duration = Duration::from_millis(1);
const FAR: Duration = Duration::from_millis(10);

/// How many pairs are tried at once: each spins on two processors.
const AT_ONCE: usize = 2;

/// Whether everything is to be tried, or a selection.
fn is_full() -> bool {
    std::env::var_os("FMI_NAT").is_some_and(|value| value == "full")
}

/// Runs `body` where a lab can be built.
fn in_lab(body: impl FnOnce() + Send + 'static) {
    match lab::available() {
        Ok(()) => watched(LIMIT, body),
        Err(why) => skip("nat lab", why),
    }
}

#[test]
#[ignore = "the program of the ranks"]
fn rank_program() {
    ranks::program();
}

/// Tries each pair (rank 0 behind the first kind, rank 1 behind the second), a
/// few at once, prints what became of them, and panics if one failed.
fn try_pairs(pairs: &[(Kind, Kind)], attempt: impl Fn(Kind, Kind) -> Result<String, String> + Sync) {
    let start = Instant::now();
    let waiting = Mutex::new(pairs.iter().copied().collect::<VecDeque<_>>());
    let failures = Mutex::new(0);
    let work = || {
        loop {
            let Some((a, b)) = waiting.lock().unwrap().pop_front() else { return };
            match attempt(a, b) {
                Ok(result) => println!("{a:?} and {b:?}: {result}"),
                Err(why) => {
                    *failures.lock().unwrap() += 1;
                    println!("{a:?} and {b:?}: FAILED: {why}");
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    println!("{} pairs in {:.1?}", pairs.len(), start.elapsed());
    let failures = failures.into_inner().unwrap();
    assert_eq!(failures, 0, "{failures} of {} pairs failed", pairs.len());
}

/// The ordered pairs of kinds for which `wanted` holds: a selection, all, or those
/// in `FMI_NAT`, such as `rst-rst,pr-none`.
fn pairs(selection: &[(Kind, Kind)], wanted: impl Fn(Kind, Kind) -> bool) -> Vec<(Kind, Kind)> {
    let all = Kind::ALL.iter().flat_map(|a| Kind::ALL.iter().map(|b| (*a, *b)));
    let Ok(asked) = std::env::var("FMI_NAT") else { return selection.to_vec() };
    if asked == "full" {
        return all.filter(|(a, b)| wanted(*a, *b)).collect();
    }
    let name = |(a, b)| format!("{a:?}-{b:?}").to_lowercase();
    let named = |asked: &str| all.clone().find(|pair| name(*pair) == asked).expect("a pair such as pr-none");
    asked.split(',').map(named).filter(|(a, b)| wanted(*a, *b)).collect()
}

/// Starts rank 0 and 1 of a job.
fn start_pair(job: &Job, a: &Host, b: &Host) -> [Rank; 2] {
    [job.start(0, a), job.start(1, b)]
}

fn median(times: &mut [Duration]) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

#[test]
fn pairs_that_can_connect_do() {
    use Kind::{Icmp, None, Open, Pr, Prnp, Rst, Sym};
    in_lab(|| {
        let selection = [
            (None, Pr),
            (Pr, Pr),
            (Rst, Icmp),
            (Icmp, Prnp),
            (Prnp, Rst),
            (Pr, Open),
            (Sym, None),
            (Open, Sym),
        ];
        let pairs = pairs(&selection, Kind::is_direct_with);
        let times = Mutex::new(Vec::new());
        try_pairs(&pairs, |a, b| {
            let lab = match (a, b) {
                // Such a router forgets with the RST what its host has sent, so
                // that two SYNs have to cross on their way: it must take some time.
                (Rst, Rst) if distance::available().is_ok() => Lab::distant(&[a, b], NEAR)?,
                _ => Lab::of_kinds(&[a, b]),
            };
            let job = Job::new("exchange", 2, TIMEOUT);
            let hosts = [lab.host(0, 0), lab.host(1, 0)];
            let mut pair = start_pair(&job, hosts[0], hosts[1]);
            for rank in &mut pair {
                rank.done()?;
            }
            for (rank, other) in pair.iter().zip([hosts[1], hosts[0]]) {
                match rank.paths()[..] {
                    [path] if path == other.public => {}
                    ref paths => return Err(format!("not direct, but by {paths:?}")),
                }
            }
            let after: Vec<_> = pair.iter().filter_map(Rank::linked_after).collect();
            if a.keeps_ports() && b.keeps_ports() {
                times.lock().unwrap().extend(&after);
            }
            Ok(format!("linked after {after:?}"))
        });
        let mut times = times.into_inner().unwrap();
        println!(
            "from GO to a link where ports are kept: median {:?}, worst {:?}, of {}",
            median(&mut times),
            times.last(),
            times.len()
        );
    });
}

#[test]
fn pairs_that_cannot_connect_say_why() {
    use Kind::{Egress, Open, Pr, Prnp, Sym};
    in_lab(|| {
        let selection = [(Sym, Sym), (Prnp, Sym), (Egress, Open), (Pr, Egress)];
        let pairs = pairs(&selection, |a, b| !a.is_direct_with(b));
        try_pairs(&pairs, |a, b| {
            let lab = Lab::of_kinds(&[a, b]);
            let job = Job::new("exchange", 2, SHORT_TIMEOUT);
            let (start, hosts) = (Instant::now(), [lab.host(0, 0), lab.host(1, 0)]);
            let mut pair = start_pair(&job, hosts[0], hosts[1]);
            let endings = [pair[0].ending()?, pair[1].ending()?];
            for rank in &mut pair {
                rank.end()?;
            }
            // The deadline, and what processes take to start and end.
            let after = start.elapsed();
            if after > SHORT_TIMEOUT + Duration::from_secs(2) {
                return Err(format!("only after {after:?}"));
            }
            let says_why = |failure: &Failure, other: &Host| {
                failure.is(ErrorKind::Connect) && failure.text.contains(&format!("{}:", other.public))
            };
            let [first, second] = match endings {
                [Some(first), Some(second)] => [first, second],
                // A new random port for every try: once in a while it is the one
                // that the other side tries, and lets in.
                [None, None] if [a, b].contains(&Kind::Sym) && ![a, b].contains(&Kind::Egress) => {
                    return Ok(format!("connected by chance, after {after:.1?}"));
                }
                _ => return Err("connected".to_owned()),
            };
            let say_why = [says_why(&first, hosts[1]), says_why(&second, hosts[0])];
            match say_why {
                [true, true] => Ok(format!("after {after:.1?}: {}", first.text)),
                _ => Err(format!("not what was tried, but: {}; {}", first.text, second.text)),
            }
        });
    });
}

/// Everything between the hosts takes as long as between distant data centres.
#[test]
fn hosts_that_are_far_apart_connect() {
    use Kind::{Icmp, Open, Pr, Prnp, Rst, Sym};
    in_lab(|| {
        if let Err(why) = distance::available() {
            return skip("nat lab", &why);
        }
        let selection = [(Rst, Rst), (Icmp, Icmp), (Prnp, Pr), (Open, Sym)];
        try_pairs(&pairs(&selection, Kind::is_direct_with), |a, b| {
            let lab = Lab::distant(&[a, b], FAR)?;
            let start = Instant::now();
            lab.host(0, 0).enter(|| TcpStream::connect(SERVER).unwrap());
            assert!(start.elapsed() >= 2 * FAR, "the server is only {:?} away", start.elapsed());
            let job = Job::new("exchange", 2, TIMEOUT);
            let mut pair = start_pair(&job, lab.host(0, 0), lab.host(1, 0));
            for rank in &mut pair {
                rank.done()?;
            }
            Ok(format!("linked after {:?}", pair.each_ref().map(Rank::linked_after)))
        });
    });
}

/// The router does not send back what its hosts send to its public address:
/// hosts of one network connect inside, also where each has a public address.
#[test]
fn hosts_of_one_network_connect_inside() {
    in_lab(|| {
        for site in [Site::new(Kind::Pr).hosts(2), Site::new(Kind::Open).hosts(2).own_addresses()] {
            let lab = Lab::new(std::slice::from_ref(&site));
            let job = Job::new("exchange", 2, TIMEOUT);
            let hosts = [lab.host(0, 0), lab.host(0, 1)];
            let mut pair = start_pair(&job, hosts[0], hosts[1]);
            for (rank, other) in pair.iter_mut().zip([hosts[1], hosts[0]]) {
                rank.done().unwrap();
                assert_eq!(rank.paths(), [other.address], "{site:?}");
            }
            println!("{site:?}: linked after {:?}", pair.each_ref().map(Rank::linked_after));
        }
    });
}

/// The peer's private address is that of somebody else here: of this host
/// itself, or of its neighbour.
#[test]
fn the_same_private_network_on_both_sides() {
    in_lab(|| {
        let home = Site::new(Kind::Pr).hosts(2).network(Ipv4Addr::new(192, 168, 1, 0));
        let lab = Lab::new(&[home.clone(), home]);
        for other in 0..2 {
            let job = Job::new("exchange", 2, TIMEOUT);
            for rank in &mut start_pair(&job, lab.host(0, 0), lab.host(1, other)) {
                rank.done().unwrap();
                assert!(rank.paths().iter().all(|path| !path.is_private()), "{:?}", rank.paths());
            }
        }
    });
}

/// Four ranks on each of two hosts, and one with a public address: every pair.
#[test]
fn eight_ranks_behind_one_nat_and_a_public_one() {
    in_lab(|| {
        let lab = Lab::new(&[Site::new(Kind::Pr).hosts(2)]);
        let job = Job::new("exchange", 9, TIMEOUT);
        let mut ranks: Vec<_> = (0..8).map(|rank| job.start(rank, lab.host(0, rank as usize % 2))).collect();
        ranks.push(job.start(8, lab.public()));
        for rank in &mut ranks {
            rank.done().unwrap();
        }
        for rank in &ranks[..8] {
            let inside = rank.paths().iter().filter(|path| path.is_private()).count();
            assert_eq!((inside, rank.paths().len()), (7, 8), "{:?}", rank.paths());
        }
    });
}

#[test]
fn a_peer_that_comes_late() {
    in_lab(|| {
        let delays: &[u64] = if is_full() { &[200, 1000, 5000] } else { &[200] };
        for delay in delays {
            for late in 0..2 {
                let lab = Lab::of_kinds(&[Kind::Pr, Kind::Rst]);
                let job = Job::new("exchange", 2, TIMEOUT);
                let mut first = job.start(1 - late, lab.host(1 - late as usize, 0));
                std::thread::sleep(Duration::from_millis(*delay));
                let mut second = job.start(late, lab.host(late as usize, 0));
                first.done().unwrap();
                second.done().unwrap();
                let after = [first.linked_after(), second.linked_after()];
                println!("rank {late} {delay} ms late: linked after {after:?}");
            }
        }
    });
}

/// One side is inside a call for 5 ms at a time only, also while it connects.
#[test]
fn a_peer_that_is_seldom_in_a_call() {
    in_lab(|| {
        let plans: &[&str] = if is_full() { &["visit 50", "visit 200"] } else { &["visit 50"] };
        for plan in plans {
            let lab = Lab::of_kinds(&[Kind::Pr, Kind::Pr]);
            let job = Job::new(plan, 2, TIMEOUT);
            let mut pair = start_pair(&job, lab.host(0, 0), lab.host(1, 0));
            pair.iter_mut().for_each(|rank| rank.done().unwrap());
            println!("{plan}: linked after {:?}", pair.each_ref().map(Rank::linked_after));
        }
    });
}

/// Connections of a stranger to whatever listens on `host`, silent ones and such
/// as send garbage; `known` are the ports that have their share.
fn pester(lab: &Lab, host: &Host, known: &mut Vec<u16>) -> Vec<TcpStream> {
    let mut ports = host.listening_ports();
    ports.retain(|port| !known.contains(port));
    known.extend(&ports);
    let connect = |port: u16, sends: bool| {
        let address = SocketAddrV4::new(host.public, port).into();
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok()?;
        if sends {
            let _ = stream.write_all(&[b'G'; 500]);
        }
        Some(stream)
    };
    let pairs = ports.iter().flat_map(|port| [(*port, true), (*port, false)].repeat(5));
    lab.public().enter(|| pairs.filter_map(|(port, sends)| connect(port, sends)).collect())
}

/// A stranger is at rank 1's port before the peer, and at rank 0's as soon as it
/// can be. Behind a symmetric NAT rank 0 has to come to that port itself.
#[test]
fn strangers_at_the_port_are_not_the_peer() {
    in_lab(|| {
        for kinds in [[Kind::Open, Kind::Open], [Kind::Sym, Kind::Open]] {
            let lab = Lab::of_kinds(&kinds);
            let job = Job::new("exchange", 2, TIMEOUT);
            let (a, b) = (lab.host(0, 0), lab.host(1, 0));
            let mut first = job.start(1, b);
            let mut strangers = Vec::new();
            let limit = Instant::now() + Duration::from_secs(5);
            while strangers.is_empty() {
                assert!(Instant::now() < limit, "nobody listens on {b:?}");
                std::thread::sleep(Duration::from_millis(5));
                strangers = pester(&lab, b, &mut Vec::new());
            }
            let before = strangers.len();
            let is_over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut known = Vec::new();
                    while !is_over.load(Ordering::Relaxed) {
                        strangers.extend(pester(&lab, a, &mut known));
                    }
                });
                let results = [job.start(0, a).done(), first.done()];
                is_over.store(true, Ordering::Relaxed);
                results.into_iter().for_each(Result::unwrap);
            });
            println!("{kinds:?}: {before} strangers before the peer, {} in all", strangers.len());
        }
    });
}

/// Far above what is promised (5 s), and far below the deadline of the calls.
const NOTICED: Duration = Duration::from_secs(15);

/// Three linked ranks, the third with a public address, of which the first two
/// lose each other by `cut` without a word; how the first `failing` failed, with the
/// time since then.
fn failures_after(cut: impl Fn(&Lab), plan: &'static str, failing: usize) -> Vec<Failure> {
    let lab = Lab::of_kinds(&[Kind::Pr, Kind::Pr]);
    let job = Job::new(plan, 3, Duration::from_secs(40));
    let mut ranks = [job.start(0, lab.host(0, 0)), job.start(1, lab.host(1, 0)), job.start(2, lab.public())];
    for rank in &mut ranks {
        rank.next("ready").unwrap();
    }
    std::thread::sleep(Duration::from_millis(500));
    let start = now();
    cut(&lab);
    let mut failures = Vec::new();
    for (number, rank) in ranks[..failing].iter_mut().enumerate() {
        let mut failure = rank.failed().unwrap();
        let after = failure.at - start;
        println!("rank {number} knows after {after:.2?}: {}", failure.text);
        assert_eq!(failure.kind, ErrorKind::PeerLost.name(), "{}", failure.text);
        assert!(after < NOTICED, "only after {after:?}");
        failure.at = after;
        failures.push(failure);
    }
    let times = || failures.iter().map(|failure| failure.at);
    let (first, last) = (times().min().unwrap(), times().max().unwrap());
    println!("the first knew after {first:.2?}, the last {:.2?} later", last - first);
    // The others are not concerned: what they wait for comes.
    ranks[failing..].iter_mut().for_each(|rank| rank.done().unwrap());
    failures
}

#[test]
fn a_silent_cut_in_a_loop_of_allreduce_is_noticed_and_told() {
    in_lab(|| {
        for failure in failures_after(|lab| lab.cut(0, 1), "allreduce", 3) {
            assert!(failure.peer.is_some_and(|peer| peer < 2), "{}", failure.text);
        }
    });
}

#[test]
fn a_silent_cut_of_an_idle_link_is_noticed() {
    in_lab(|| {
        let failures = failures_after(|lab| lab.cut(0, 1), "idle", 2);
        assert_eq!([failures[0].peer, failures[1].peer], [Some(1), Some(0)]);
    });
}

/// The host of rank 1 reaches nobody any more, the server neither.
#[test]
fn a_host_that_vanishes_is_noticed_by_all() {
    in_lab(|| {
        let failures = failures_after(|lab| lab.cut_off(1), "allreduce", 3);
        assert_eq!([failures[0].peer, failures[2].peer], [Some(1), Some(1)]);
    });
}

/// The public address of a host's `port`, as it shows where `mirror` listens.
fn seen(mirror: &TcpListener, host: &Host, port: u16) -> std::io::Result<SocketAddr> {
    let address = mirror.local_addr()?;
    let connect = || shared_socket(port).connect_timeout(&address.into(), Duration::from_millis(500));
    host.enter(connect)?;
    mirror.accept().map(|(_, from)| from)
}

/// A socket on a port that others of this host may share.
fn shared_socket(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into()).unwrap();
    socket
}

/// Some paths carry a connection's first bytes, and then no more: such a one is no
/// link, and the pair is made again.
#[test]
fn a_path_that_stalls_is_not_taken_for_a_link() {
    in_lab(|| {
        let lab = Lab::of_kinds(&[Kind::Pr, Kind::Pr]);
        lab.stall_after(0, 20_000);
        let job = Job::new("exchange", 2, SHORT_TIMEOUT);
        let failures =
            start_pair(&job, lab.host(0, 0), lab.host(1, 0)).map(|mut rank| rank.failed().unwrap());
        let says_why = |failure: &Failure| failure.is(ErrorKind::Connect) && failure.text.contains("stalled");
        assert!(failures.iter().all(says_why), "{}", failures.map(|failure| failure.text).join("; "));
        let job = Job::new("exchange", 2, TIMEOUT);
        let mut pair = start_pair(&job, lab.host(0, 0), lab.host(1, 0));
        // A connection has stood and stalled by then.
        std::thread::sleep(Duration::from_millis(800));
        lab.mend(0);
        pair.iter_mut().for_each(|rank| rank.done().unwrap());
        println!("mended: linked after {:?}", pair.each_ref().map(Rank::linked_after));
    });
}

/// Protocol 1 knows the public address alone: enough for all but neighbours.
#[test]
fn pairs_connect_in_protocol_1_too() {
    use Kind::{Icmp, None, Open, Pr, Prnp, Rst};
    in_lab(|| {
        try_pairs(&[(None, Pr), (Pr, Prnp), (Rst, Open), (Icmp, Pr)], |a, b| {
            let lab = Lab::of_kinds(&[a, b]);
            let job = Job::new("exchange", 2, TIMEOUT).with_protocol("1");
            let mut pair = start_pair(&job, lab.host(0, 0), lab.host(1, 0));
            for rank in &mut pair {
                rank.done()?;
            }
            Ok(format!("linked after {:?}", pair.each_ref().map(Rank::linked_after)))
        });
    });
}

/// The lab's own promise: which public port a host has, and who is let in.
#[test]
fn routers_do_what_their_kind_says() {
    in_lab(|| {
        let lab = Lab::of_kinds(&Kind::ALL);
        let public = |port| SocketAddrV4::new(lab::second_address(), port);
        let [mirror, another] = [SERVER.port(), SERVER.port() + 1]
            .map(|port| lab.public().enter(|| TcpListener::bind(public(port)).unwrap()));
        for (site, kind) in Kind::ALL.into_iter().enumerate() {
            let host = lab.host(site, 0);
            let listener = host.enter(|| shared_socket(0));
            listener.listen(8).unwrap();
            let port = listener.local_addr().unwrap().as_socket().unwrap().port();
            let address = seen(&mirror, host, port).unwrap();
            assert_eq!(address.ip(), host.public, "{kind:?}");
            assert_eq!(address.port() == port, kind.keeps_ports(), "{kind:?}: {port} is {address}");
            match seen(&another, host, port) {
                Err(error) => assert_eq!((kind, error.kind()), (Kind::Egress, IoErrorKind::TimedOut)),
                Ok(other) => assert_eq!(other != address, kind == Kind::Sym, "{kind:?}: {other}"),
            }
            let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(500));
            let unsolicited = lab.public().enter(connect).map(drop).map_err(|error| error.kind());
            let expected = match kind {
                Kind::None | Kind::Open => Ok(()),
                Kind::Rst | Kind::Icmp => Err(IoErrorKind::ConnectionRefused),
                _ => Err(IoErrorKind::TimedOut),
            };
            assert_eq!(unsolicited, expected, "{kind:?}");
        }
    });
}

#[test]
#[ignore = "the program that is killed in its lab"]
fn lab_program() {
    let lab = Lab::of_kinds(&[Kind::Pr]);
    println!("\nserver {}", lab.server());
    std::thread::sleep(Duration::from_secs(60));
}

/// A process that is killed takes those that it has started with it, and leaves
/// namespaces; the next one removes them.
#[test]
fn nothing_is_left_of_a_lab() {
    in_lab(|| {
        let mut owner = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "lab_program", "--ignored", "--nocapture"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
        let server = lines.find_map(|line| line.unwrap().strip_prefix("server ")?.parse().ok()).unwrap();
        let namespaces = lab::namespaces_of(owner.id());
        owner.kill().unwrap();
        owner.wait().unwrap();
        assert_eq!(namespaces.len(), 3, "{namespaces:?}");
        let limit = Instant::now() + Duration::from_secs(5);
        while std::fs::exists(format!("/proc/{server}")).unwrap() {
            if Instant::now() > limit {
                // SAFETY: a plain system call; the process is the server, which
                // nobody has waited for.
                unsafe { libc::kill(server, libc::SIGKILL) };
                panic!("the server is left, process {server}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        lab::sweep();
        assert!(lab::namespaces_of(owner.id()).is_empty());
    });
}

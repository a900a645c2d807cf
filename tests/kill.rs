//! Ranks that die or stop in the middle of an operation: real processes, each
//! this test program again, running [`rank_program`].
//!
//! FMI_SOAK=1 (`make soak`) tries every operation with every number of ranks and
//! several victims. `make bench-kill` measures how soon the survivors know.

mod support;

use std::time::Duration;

use fmi::{Communicator, Error, ErrorKind, Op};
use support::processes::{Processes, now_us};
use support::{server, watched};

/// The deadline of every call. A killed rank shows long before.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where ranks that have not joined are waited for.
const EARLY_TIMEOUT: Duration = Duration::from_millis(1500);

/// The operations that are tried. Ping-pong and sendrecv are between the victim
/// and each of the others: who has nothing to do with a lost rank goes on.
const OPERATIONS: [&str; 9] =
    ["ping-pong", "sendrecv", "bcast", "barrier", "gather", "scatter", "reduce", "allreduce", "scan"];

/// One call of the loop that the ranks run, with its result checked.
fn call(comm: &Communicator, operation: &str, victim: u32, round: i32) -> Result<(), Error> {
    let (rank, size) = (comm.rank() as i32, comm.size() as i32);
    let value = rank + round;
    let up_to = |rank: i32| (0..=rank).map(|rank| rank + round).sum::<i32>();
    // A leaf of a tree may run ahead for long without hearing of anybody.
    let mut waits_for_all = false;
    match operation {
        "ping-pong" | "sendrecv" => {
            let others: Vec<u32> = (0..comm.size()).filter(|other| *other != victim).collect();
            let partners = if comm.rank() == victim { others } else { vec![victim] };
            for partner in partners {
                let mut got = [0];
                if operation == "sendrecv" {
                    comm.sendrecv(&[value], partner, &mut got, partner)?;
                } else if comm.rank() == victim {
                    comm.recv(&mut got, partner)?;
                    comm.send(&[value], partner)?;
                } else {
                    comm.send(&[value], partner)?;
                    comm.recv(&mut got, partner)?;
                }
                assert_eq!(got, [partner as i32 + round], "a wrong value");
            }
        }
        "bcast" => {
            let mut got = [if rank == 0 { round } else { -1 }];
            comm.bcast(&mut got, 0)?;
            assert_eq!(got, [round], "a wrong value");
            waits_for_all = true;
        }
        "barrier" => comm.barrier()?,
        "gather" => {
            let mut all = vec![0; size as usize];
            comm.gather(&[value], Some(&mut all), 0)?;
            assert!(rank != 0 || all == (round..round + size).collect::<Vec<_>>(), "a wrong value");
            waits_for_all = true;
        }
        "scatter" => {
            let all: Vec<i32> = (round..round + size).collect();
            let mut got = [0];
            comm.scatter(Some(&all), &mut got, 0)?;
            assert_eq!(got, [value], "a wrong value");
            waits_for_all = true;
        }
        "reduce" => {
            let mut sum = [0];
            comm.reduce(&[value], Some(&mut sum), &Op::SUM, 0)?;
            assert!(rank != 0 || sum == [up_to(size - 1)], "a wrong sum");
            waits_for_all = true;
        }
        "allreduce" => {
            let mut sum = [0];
            comm.allreduce(&[value], &mut sum, &Op::SUM)?;
            assert_eq!(sum, [up_to(size - 1)], "a wrong sum");
        }
        "scan" => {
            let mut sum = [0];
            comm.scan(&[value], &mut sum, &Op::SUM)?;
            assert_eq!(sum, [up_to(rank)], "a wrong sum");
            waits_for_all = true;
        }
        other => panic!("no operation {other}"),
    }
    if waits_for_all {
        comm.barrier()?;
    }
    Ok(())
}

/// What a rank does: says that it is ready, runs the loop until it fails, and
/// says how.
#[test]
#[ignore = "the program of the ranks"]
fn rank_program() {
    let operation = std::env::var("FMI_TEST_OPERATION").unwrap();
    let victim = std::env::var("FMI_TEST_VICTIM").unwrap().parse().unwrap();
    let comm = Communicator::from_env("kill").unwrap();
    comm.set_timeout(Some(TIMEOUT)).unwrap();
    let run = |round| call(&comm, &operation, victim, round);
    (0..3).for_each(|round| run(round).unwrap());
    println!("\nready");
    for round in 3.. {
        if let Err(error) = run(round) {
            let at = now_us();
            let peer = error.peer().map_or(-1, i64::from);
            let waited = error.waited().unwrap_or_default().as_micros();
            println!("\nended {at} {} {} {peer} {waited} {error}", error.kind().name(), error.cause().name());
            return;
        }
    }
}

/// How a survivor has ended.
struct Ended {
    /// Microseconds of the common clock.
    at: u128,
    kind: String,
    cause: String,
    peer: i64,
    waited: Duration,
    text: String,
}

/// A job that runs `operation` in a loop, and the end of its survivors.
struct Job {
    processes: Processes,
    survivors: u32,
    victim: u32,
}

impl Job {
    fn start(operation: &str, size: u32, victim: u32, server: &fmi::rendezvous::ServerThread) -> Self {
        let processes = Processes::start(size, server.local_addr(), "rank_program", |_, command| {
            command.env("FMI_TEST_OPERATION", operation).env("FMI_TEST_VICTIM", victim.to_string());
        });
        for _ in 0..size {
            processes.next("ready");
        }
        Self { processes, survivors: size - 1, victim }
    }

    /// Sends the victim a signal; the time of that, and how the others end.
    fn strike(&self, signal: i32) -> (u128, Vec<Ended>) {
        std::thread::sleep(Duration::from_millis(30));
        let struck = now_us();
        self.processes.signal(self.victim, signal);
        let ended = |_| {
            let (rank, words) = self.processes.next("ended");
            assert_ne!(rank, self.victim);
            Ended {
                at: words[0].parse().unwrap(),
                kind: words[1].clone(),
                cause: words[2].clone(),
                peer: words[3].parse().unwrap(),
                waited: Duration::from_micros(words[4].parse().unwrap()),
                text: format!("rank {rank}: {}", words[1..].join(" ")),
            }
        };
        (struck, (0..self.survivors).map(ended).collect())
    }
}

/// Kills `victim` in the middle of `operation`: every survivor has an error that
/// names it. Returns when the last of them had.
fn kill(operation: &str, size: u32, victim: u32) -> Duration {
    let server = server();
    let job = Job::start(operation, size, victim, &server);
    let (struck, survivors) = job.strike(libc::SIGKILL);
    for Ended { kind, cause, peer, text, .. } in &survivors {
        let lost = ErrorKind::PeerLost.name();
        assert!(kind == lost || cause == lost, "{operation} of {size}, victim {victim}: {text}");
        assert_eq!(*peer, i64::from(victim), "{operation} of {size}, victim {victim}: {text}");
    }
    let last = survivors.iter().map(|ended| ended.at).max().unwrap();
    let after = Duration::from_micros(last.saturating_sub(struck) as u64);
    assert!(after < TIMEOUT / 2, "{operation} of {size}, victim {victim}: only after {after:?}");
    job.processes.end();
    after
}

fn killed_in(operation: &'static str) {
    watched(Duration::from_secs(300), move || {
        let all: Vec<(u32, u32)> = match std::env::var_os("FMI_SOAK") {
            None => vec![(2, 1), (3, 0), (4, 2), (8, 5)],
            Some(_) => {
                let all = |size| (0..size).map(move |victim| (size, victim));
                [2, 3, 4, 8].into_iter().flat_map(all).chain([(16, 0), (16, 7), (16, 15)]).collect()
            }
        };
        for (size, victim) in all {
            let after = kill(operation, size, victim);
            println!("{operation}, {size} ranks, rank {victim} killed: the last one knows after {after:?}");
        }
    });
}

#[test]
fn a_rank_is_killed_in_send_or_recv() {
    killed_in("ping-pong");
}

#[test]
fn a_rank_is_killed_in_sendrecv() {
    killed_in("sendrecv");
}

#[test]
fn a_rank_is_killed_in_bcast() {
    killed_in("bcast");
}

#[test]
fn a_rank_is_killed_in_barrier() {
    killed_in("barrier");
}

#[test]
fn a_rank_is_killed_in_gather() {
    killed_in("gather");
}

#[test]
fn a_rank_is_killed_in_scatter() {
    killed_in("scatter");
}

#[test]
fn a_rank_is_killed_in_reduce() {
    killed_in("reduce");
}

#[test]
fn a_rank_is_killed_in_allreduce() {
    killed_in("allreduce");
}

#[test]
fn a_rank_is_killed_in_scan() {
    killed_in("scan");
}

/// What a rank does that is killed before it runs for long: nothing is said.
#[test]
#[ignore = "the program of the ranks"]
fn early_program() {
    let comm = Communicator::from_env("early").unwrap();
    comm.set_timeout(Some(EARLY_TIMEOUT)).unwrap();
    let error = (0..).find_map(|round| call(&comm, "allreduce", 0, round).err()).unwrap();
    let (peer, waited) = (error.peer().map_or(-1, i64::from), error.waited().unwrap_or_default());
    println!("\nended {} {peer} {} {error}", error.kind().name(), waited.as_millis());
}

/// Killed while the job starts, at any moment: before it joins, in the middle of
/// its join, or of a handshake. Who had joined is missed at once. Who had not is
/// waited for to the deadline, when all end in one way or another; and so are those
/// that joined with a rank that was lost before others came: these are another run.
#[test]
fn a_rank_is_killed_while_the_job_starts() {
    watched(Duration::from_secs(300), || {
        let count = if std::env::var_os("FMI_SOAK").is_some() { 200 } else { 12 };
        for number in 0..count {
            let server = server();
            let job = Processes::start(4, server.local_addr(), "early_program", |_, _| {});
            // Start-up takes some 7 ms in all.
            std::thread::sleep(Duration::from_micros(number * 997 % 9_000));
            let struck = now_us();
            job.signal(2, libc::SIGKILL);
            let mut said = Vec::new();
            for _ in 0..3 {
                let (rank, words) = job.next("ended");
                said.push((rank, words));
            }
            for (rank, words) in &said {
                let (waited, text) = (words[2].parse::<u128>().unwrap(), words.join(" "));
                let names_victim = text.contains("FMI_ERR_PEER_LOST") && words[1] == "2";
                let is_late = waited + 100 > EARLY_TIMEOUT.as_millis();
                assert!(names_victim || is_late, "rank {rank}: {text}; of {said:#?}");
            }
            let said: Vec<_> = said.iter().map(|(_, words)| &words[0]).collect();
            let after = Duration::from_micros((now_us() - struck) as u64);
            println!("killed early: {said:?} after {after:?}");
            assert!(after < EARLY_TIMEOUT + Duration::from_secs(2), "{after:?}");
            job.end();
        }
    });
}

/// The deadline counts from when the first survivor waits: nobody errs before,
/// and all have erred soon after.
#[test]
fn a_stopped_rank_shows_at_the_deadline() {
    watched(Duration::from_secs(60), || {
        let server = server();
        let job = Job::start("allreduce", 4, 2, &server);
        let (struck, survivors) = job.strike(libc::SIGSTOP);
        for Ended { at, kind, cause, waited, text, .. } in &survivors {
            assert_eq!(*cause, ErrorKind::Timeout.name(), "{text}");
            assert!(kind != cause || *waited >= TIMEOUT, "before its own deadline: {text}");
            let after = Duration::from_micros((at - struck) as u64);
            println!("stopped: {after:?} later {text}");
            assert!(after + Duration::from_millis(50) > TIMEOUT, "before the deadline: {text}");
            assert!(after < TIMEOUT + Duration::from_secs(2), "long after the deadline: {text}");
        }
        job.processes.signal(2, libc::SIGKILL);
        job.processes.end();
    });
}

/// Not a test: prints the figures. FMI_RUNS=100 for the record.
#[test]
#[ignore = "a benchmark: make bench-kill"]
fn bench() {
    let runs: usize = std::env::var("FMI_RUNS").map_or(20, |runs| runs.parse().unwrap());
    println!("\nFrom SIGKILL of one rank of 4 to the last survivor's error, {runs} runs:");
    println!("{:<12}{:>12}{:>12}{:>12}", "operation", "median", "p99", "max");
    for operation in OPERATIONS {
        let mut times: Vec<Duration> = (0..runs).map(|run| kill(operation, 4, run as u32 % 4)).collect();
        times.sort();
        let at = |share: f64| times[((times.len() as f64 * share).ceil() as usize).max(1) - 1];
        let ms = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
        println!("{operation:<12}{:>12}{:>12}{:>12}", ms(at(0.5)), ms(at(0.99)), ms(at(1.0)));
    }
}

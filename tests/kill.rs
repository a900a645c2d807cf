//! Ranks that die or stop in the middle of a collective: real processes, under
//! `fmi run`. Each rank is this test program again, running [`rank_program`].

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fmi::{Communicator, Error, ErrorKind, Op};
use support::watched;

const RANKS: u32 = 4;
const VICTIM: u32 = 2;

/// The deadline of every call. A killed rank shows long before.
const TIMEOUT: Duration = Duration::from_secs(3);

/// One call of the loop that the ranks run, with its result checked.
fn call(comm: &Communicator, operation: &str, round: i32) -> Result<(), Error> {
    let rank = comm.rank() as i32;
    let all = |value: i32| (0..RANKS as i32).map(|rank| rank + value).sum::<i32>();
    match operation {
        "allreduce" => {
            let mut sum = [0];
            comm.allreduce(&[rank + round], &mut sum, &Op::SUM)?;
            assert_eq!(sum, [all(round)], "a wrong sum");
        }
        "reduce" => {
            let mut sum = [0];
            comm.reduce(&[rank + round], Some(&mut sum), &Op::SUM, 0)?;
            assert!(rank != 0 || sum == [all(round)], "a wrong sum");
            // A leaf of a reduce may run ahead for ever without hearing of anybody.
            comm.barrier()?;
        }
        "bcast" => {
            let mut value = [if rank == 0 { round } else { -1 }];
            comm.bcast(&mut value, 0)?;
            assert_eq!(value, [round], "a wrong value");
            comm.barrier()?;
        }
        "barrier" => comm.barrier()?,
        other => panic!("no operation {other}"),
    }
    Ok(())
}

fn now_us() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()
}

/// What a rank does: says its pid, runs the loop until it fails, and says how.
#[test]
#[ignore = "the program of the ranks"]
fn rank_program() {
    let operation = std::env::var("FMI_TEST_OPERATION").unwrap();
    let comm = Communicator::from_env("kill").unwrap();
    comm.set_timeout(Some(TIMEOUT)).unwrap();
    comm.barrier().unwrap();
    println!("\nready {}", std::process::id());
    for round in 0.. {
        if let Err(error) = call(&comm, &operation, round) {
            let peer = error.peer().map_or(-1, i64::from);
            println!("\nended {} {} {peer} {} {error}", error.kind().name(), error.cause().name(), now_us());
            return;
        }
    }
}

struct Job {
    launcher: Child,
    lines: Receiver<String>,
    ranks: Vec<(u32, i32)>,
}

impl Job {
    fn start(operation: &str) -> Self {
        let mut launcher = Command::new(env!("CARGO_BIN_EXE_fmi"))
            .args(["run", "-n", &RANKS.to_string(), "--keep-going", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "rank_program", "--ignored", "--nocapture"])
            .env("FMI_TEST_OPERATION", operation)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(launcher.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { launcher, lines, ranks: Vec::new() }
    }

    /// What follows `word` in the next line of a rank that has it.
    fn next(&self, word: &str) -> (u32, Vec<String>) {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(20)).expect("a rank says nothing");
            let Some((rank, text)) = line.strip_prefix('[').and_then(|line| line.split_once("] ")) else {
                continue;
            };
            assert!(!text.contains("a wrong"), "{line}");
            if let Some(rest) = text.strip_prefix(word) {
                return (rank.parse().unwrap(), rest.split_whitespace().map(str::to_owned).collect());
            }
        }
    }

    /// Waits until all ranks run, and returns the victim's pid.
    fn victim(&mut self) -> i32 {
        for _ in 0..RANKS {
            let (rank, words) = self.next("ready");
            self.ranks.push((rank, words[0].parse().unwrap()));
        }
        self.ranks.iter().find(|(rank, _)| *rank == VICTIM).unwrap().1
    }

    /// Waits for the launcher, which waits for its ranks: none is left.
    fn end(mut self) {
        let limit = Instant::now() + TIMEOUT + Duration::from_secs(5);
        while self.launcher.try_wait().unwrap().is_none() {
            assert!(Instant::now() < limit, "the launcher does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        for (_, pid) in &self.ranks {
            assert!(!std::fs::exists(format!("/proc/{pid}")).unwrap(), "process {pid} is left");
        }
    }

    /// Whether the process is one of the launcher's, and no other that got its
    /// number since.
    fn is_rank(&self, pid: i32) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line == format!("PPid:\t{}", self.launcher.id()))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // A failed test may leave ranks behind, stopped ones too.
        if matches!(self.launcher.try_wait(), Ok(None)) {
            for &(_, pid) in self.ranks.iter().filter(|(_, pid)| self.is_rank(*pid)) {
                signal(pid, libc::SIGKILL);
            }
            let _ = self.launcher.kill();
            let _ = self.launcher.wait();
        }
    }
}

fn signal(pid: i32, signal: i32) {
    // SAFETY: a plain system call; the pid is a child's of the launcher that we
    // started.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

fn killed(operation: &'static str) {
    watched(Duration::from_secs(60), move || {
        let mut job = Job::start(operation);
        let pid = job.victim();
        std::thread::sleep(Duration::from_millis(100));
        let start = now_us();
        signal(pid, libc::SIGKILL);
        for _ in 1..RANKS {
            let (rank, words) = job.next("ended");
            let said = words.join(" ");
            assert_ne!(rank, VICTIM);
            assert!(
                words[0] == ErrorKind::PeerLost.name() || words[1] == ErrorKind::PeerLost.name(),
                "{said}"
            );
            assert_eq!(words[2], VICTIM.to_string(), "{said}");
            let after = Duration::from_micros((words[3].parse::<u128>().unwrap() - start) as u64);
            println!("{operation}: rank {rank} knows after {after:?}");
            assert!(after < TIMEOUT + Duration::from_secs(2), "{said}");
        }
        job.end();
    });
}

#[test]
fn a_rank_is_killed_in_allreduce() {
    killed("allreduce");
}

#[test]
fn a_rank_is_killed_in_reduce() {
    killed("reduce");
}

#[test]
fn a_rank_is_killed_in_bcast() {
    killed("bcast");
}

#[test]
fn a_rank_is_killed_in_barrier() {
    killed("barrier");
}

#[test]
fn a_stopped_rank_shows_at_the_deadline() {
    watched(Duration::from_secs(60), || {
        let mut job = Job::start("allreduce");
        let pid = job.victim();
        let start = now_us();
        signal(pid, libc::SIGSTOP);
        for _ in 1..RANKS {
            let (_, words) = job.next("ended");
            let said = words.join(" ");
            assert_eq!(words[1], ErrorKind::Timeout.name(), "{said}");
            let after = words[3].parse::<u128>().unwrap() - start;
            assert!(after >= TIMEOUT.as_micros() - 1000, "before the deadline: {said}");
            assert!(after < (TIMEOUT + Duration::from_secs(2)).as_micros(), "{said}");
        }
        signal(pid, libc::SIGKILL);
        job.end();
    });
}

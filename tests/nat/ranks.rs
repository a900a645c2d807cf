//! Jobs whose ranks are processes on the hosts of a lab: this test program
//! again, running [`program`].

use std::io::{BufRead, BufReader, pipe};
use std::net::Ipv4Addr;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fmi::{Communicator, Error, ErrorKind, Op};

use crate::lab::{Host, SERVER};
use crate::support::{milliseconds, own_sockets, watched};

/// No rank runs longer, and none is silent for so long.
const PATIENCE: Duration = Duration::from_secs(50);

/// What is exchanged with every other rank, in elements of four bytes.
const COUNT: usize = 1 << 18;

static JOBS: AtomicU32 = AtomicU32::new(0);

/// The ranks of one run.
pub(crate) struct Job {
    id: String,
    size: u32,
    plan: &'static str,
    timeout: Duration,
    protocol: &'static str,
}

impl Job {
    /// A job whose ranks all do `plan` (see [`program`]).
    pub(crate) fn new(plan: &'static str, size: u32, timeout: Duration) -> Self {
        let id = format!("{}-{}", std::process::id(), JOBS.fetch_add(1, Ordering::Relaxed));
        Self { id, size, plan, timeout, protocol: "auto" }
    }

    /// The same, in this protocol of the rendezvous server.
    pub(crate) fn with_protocol(self, protocol: &'static str) -> Self {
        Self { protocol, ..self }
    }

    /// Starts a rank on `host`.
    pub(crate) fn start(&self, rank: u32, host: &Host) -> Rank {
        let (output, said) = pipe().unwrap();
        let mut command = host.command(std::env::current_exe().unwrap().to_str().unwrap());
        command
            .args(["--exact", "rank_program", "--ignored", "--nocapture"])
            .env("FMI_RANK", rank.to_string())
            .env("FMI_SIZE", self.size.to_string())
            .env("FMI_RENDEZVOUS", SERVER.to_string())
            .env("FMI_JOB_ID", &self.id)
            .env("FMI_TIMEOUT_MS", self.timeout.as_millis().to_string())
            .env("FMI_BACKENDS_DIRECT_PROTOCOL", self.protocol)
            .env("FMI_LOG", "info")
            .env("FMI_TEST_PLAN", self.plan)
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(said);
        let process = command.spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Rank { number: rank, process, lines, said: Vec::new() }
    }
}

/// A running rank; killed when it is dropped.
pub(crate) struct Rank {
    pub(crate) number: u32,
    process: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

/// How a rank ended that did not come to its end.
pub(crate) struct Failure {
    pub(crate) kind: String,
    pub(crate) cause: String,
    pub(crate) peer: Option<u32>,
    pub(crate) at: Duration,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn is(&self, kind: ErrorKind) -> bool {
        self.kind == kind.name() || self.cause == kind.name()
    }
}

impl Rank {
    /// What follows in the next line that begins with `word`.
    ///
    /// # Errors
    ///
    /// The rank has ended, or says nothing for long: all that it has said.
    pub(crate) fn next(&mut self, word: &str) -> Result<String, String> {
        self.next_of(&[word]).map(|(_, rest)| rest)
    }

    /// As [`Rank::next`], for the first of several words; which it was, and the rest.
    fn next_of<'a>(&mut self, words: &[&'a str]) -> Result<(&'a str, String), String> {
        let limit = Instant::now() + PATIENCE;
        loop {
            let left = limit.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                return Err(format!(
                    "rank {} does not say {words:?}, only:\n{}",
                    self.number,
                    self.transcript()
                ));
            };
            self.said.push(line);
            let line = self.said.last().expect("the line");
            let found =
                words.iter().find_map(|word| Some((*word, line.strip_prefix(word)?.trim().to_owned())));
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }

    /// Waits until the rank has done everything, and its process has ended.
    ///
    /// # Errors
    ///
    /// It failed, or hangs: all that it has said.
    pub(crate) fn done(&mut self) -> Result<(), String> {
        match self.ending()? {
            None => self.end(),
            Some(_) => Err(format!("rank {} failed:\n{}", self.number, self.transcript())),
        }
    }

    /// Waits until the rank has failed.
    ///
    /// # Errors
    ///
    /// It succeeded, or hangs: all that it has said.
    pub(crate) fn failed(&mut self) -> Result<Failure, String> {
        self.ending()?.ok_or_else(|| format!("rank {} succeeds:\n{}", self.number, self.transcript()))
    }

    /// Waits until the rank has failed, or done everything.
    ///
    /// # Errors
    ///
    /// It hangs, or panicked: all that it has said.
    pub(crate) fn ending(&mut self) -> Result<Option<Failure>, String> {
        let (word, line) = self.next_of(&["done", "ended"])?;
        if word == "done" {
            return Ok(None);
        }
        let words: Vec<&str> = line.splitn(5, ' ').collect();
        let [kind, cause, peer, at, text] = words[..] else { return Err(format!("what is {line:?}?")) };
        Ok(Some(Failure {
            kind: kind.to_owned(),
            cause: cause.to_owned(),
            peer: peer.parse().ok(),
            at: Duration::from_micros(at.parse().map_err(|_| format!("what is {line:?}?"))?),
            text: text.to_owned(),
        }))
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    ///
    /// It hangs: all that it has said.
    pub(crate) fn end(&mut self) -> Result<(), String> {
        let limit = Instant::now() + PATIENCE;
        while !matches!(self.process.try_wait(), Ok(Some(_))) {
            if Instant::now() > limit {
                return Err(format!("rank {} does not end:\n{}", self.number, self.transcript()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The addresses of the other ends of the rank's links.
    pub(crate) fn paths(&self) -> Vec<Ipv4Addr> {
        let paths = self.said.iter().filter_map(|line| line.strip_prefix("path "));
        paths.map(|address| address.parse().unwrap()).collect()
    }

    /// How long its first link took from the moment that both knew of each other,
    /// where its log says so.
    pub(crate) fn linked_after(&self) -> Option<Duration> {
        let mut lines = self.said.iter().filter(|line| line.contains("linked with rank "));
        let (_, time) = lines.next()?.split_once(" after ")?;
        let (number, unit) = time.split_once(' ')?;
        let number: f64 = number.parse().ok()?;
        (unit.trim_end() == "ms").then(|| Duration::from_secs_f64(number / 1000.0))
    }

    fn transcript(&self) -> String {
        self.said.iter().map(|line| format!("  [{}] {line}\n", self.number)).collect()
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The time as all processes of this machine see it.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// What a rank does; it says "done", or "ended" with kind, cause, peer, time and
/// text of the error. The plan is the first word of `FMI_TEST_PLAN`:
///
/// * `exchange`: a barrier, a checked MiB with every other rank, an allreduce.
/// * `visit MS`: as `exchange`, but the last rank is first seen in a call only
///   for 5 ms in every `MS`.
/// * `allreduce`: as `exchange`, then says "ready" and goes on until it fails.
/// * `idle`: as `exchange`, then says "ready" and rank 0 and 1 wait for each
///   other. When rank 0 has failed it tells rank 2, with which it goes on.
pub(crate) fn program() {
    watched(PATIENCE, || {
        let plan = std::env::var("FMI_TEST_PLAN").unwrap();
        let mut words = plan.split(' ');
        let comm = Communicator::from_env("nat").unwrap();
        let ending = match words.next().unwrap() {
            "exchange" => exchange(&comm),
            "visit" => visit(&comm, Duration::from_millis(words.next().unwrap().parse().unwrap())),
            "allreduce" => exchange(&comm).and_then(|()| allreduce_until_it_fails(&comm)),
            "idle" => exchange(&comm).and_then(|()| idle(&comm)),
            other => panic!("no plan {other}"),
        };
        match ending.and_then(|()| comm.close(None)) {
            Ok(()) => println!("\ndone"),
            Err(error) => ended(&error),
        }
    });
}

fn ended(error: &Error) {
    let peer = error.peer().or(error.cause_rank()).map_or(-1, i64::from);
    println!("\nended {} {} {peer} {} {error}", error.kind().name(), error.cause().name(), now().as_micros());
}

fn exchange(comm: &Communicator) -> Result<(), Error> {
    let (rank, size) = (comm.rank(), comm.size());
    comm.barrier()?;
    let element = |from: u32, to: u32, index: usize| (from * size + to) * 1_000_000 + index as u32;
    for distance in 1..size {
        let (right, left) = ((rank + distance) % size, (rank + size - distance) % size);
        let sent: Vec<u32> = (0..COUNT).map(|index| element(rank, right, index)).collect();
        let mut received = vec![0; COUNT];
        comm.sendrecv(&sent, right, &mut received, left)?;
        let is_right = received.iter().enumerate().all(|(index, found)| *found == element(left, rank, index));
        assert!(is_right, "wrong data from rank {left}");
    }
    // Nobody leaves before the allreduce: all links are there.
    for socket in own_sockets() {
        if socket.is_connected && socket.remote != SERVER {
            println!("\npath {}", socket.remote.ip());
        }
    }
    sum_of_ranks(comm)
}

fn sum_of_ranks(comm: &Communicator) -> Result<(), Error> {
    let mut sum = [0];
    comm.allreduce(&[comm.rank()], &mut sum, &Op::SUM)?;
    assert_eq!(sum, [(0..comm.size()).sum::<u32>()], "a wrong sum");
    Ok(())
}

fn visit(comm: &Communicator, pause: Duration) -> Result<(), Error> {
    let last = comm.size() - 1;
    if comm.rank() == 0 {
        comm.send(&[1u8], last)?;
    } else if comm.rank() == last {
        comm.set_timeout(milliseconds(5))?;
        while let Err(error) = comm.recv(&mut [0u8], 0) {
            // The time may not do to join.
            if !matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Connect) {
                return Err(error);
            }
            std::thread::sleep(pause);
        }
        comm.set_timeout(milliseconds(10_000))?;
    }
    exchange(comm)
}

fn allreduce_until_it_fails(comm: &Communicator) -> Result<(), Error> {
    println!("\nready");
    loop {
        sum_of_ranks(comm)?;
    }
}

fn idle(comm: &Communicator) -> Result<(), Error> {
    println!("\nready");
    match comm.rank() {
        0 => {
            let failure = comm.recv(&mut [0u8], 1).unwrap_err();
            comm.send(&[1u8], 2)?;
            Err(failure)
        }
        _ => comm.recv(&mut [0u8], 0),
    }
}

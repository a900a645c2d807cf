//! `fmi run`: all ranks of a job on this host, and a rendezvous server for
//! them.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use fmi::rendezvous::{Server, ServerOptions, ServerThread};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::output::{Sink, pump};
use crate::signals::{self, Blocked, Signal, Signals};
use crate::{descriptors, duration, say};

/// Run a program as the ranks of a job on this host
///
/// The ranks find each other through a rendezvous server inside this command;
/// fmi_comm_create_from_env() needs nothing else. Each line of output gets its
/// rank in front, unless there is only one rank. Rank 0 reads standard input.
/// SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on to all
/// ranks. The exit code is that of the first rank that failed (128 + the
/// signal that killed it), 124 after --timeout, 127 or 126 if the program is
/// not found or cannot be executed.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many ranks
    #[arg(short = 'n', long = "ranks", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    ranks: u32,
    /// How long the others may go on when one rank has failed, before they get
    /// SIGTERM, and after that again before SIGKILL
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration::parse)]
    grace: Duration,
    /// Let the others run to their end when one rank has failed
    #[arg(long)]
    keep_going: bool,
    /// End the job after this time
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

/// As timeout(1).
const EXIT_TIMEOUT: u8 = 124;

pub(crate) fn run(arguments: Arguments) -> ExitCode {
    match try_run(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(Failure { code, text }) => {
            say(format_args!("fmi run: {text}"));
            ExitCode::from(code)
        }
    }
}

/// Why the job did not start.
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    fn new(what: &str, error: impl std::fmt::Display) -> Self {
        Self { code: 1, text: format!("{what}: {error}") }
    }
}

fn try_run(arguments: &Arguments) -> Result<u8, Failure> {
    // First of all: threads inherit what is blocked.
    let blocked = Blocked::new().map_err(|error| Failure::new("cannot take signals", error))?;
    let before = Before { mask: blocked.before(), descriptors: descriptors::raise_limit() };
    let job = Job::new().map_err(|error| Failure::new("cannot start the rendezvous server", error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| Failure::new("cannot make a runtime", error))?;
    runtime.block_on(async {
        let signals = blocked.watch().map_err(|error| Failure::new("cannot wait for signals", error))?;
        let mut launcher = Launcher::new(arguments, &job)?;
        for rank in 0..arguments.ranks {
            launcher.start(rank, before)?;
        }
        let code = launcher.supervise(&signals).await;
        launcher.finish();
        Ok(code)
    })
}

/// What the ranks inherit as this command found it.
#[derive(Clone, Copy)]
struct Before {
    mask: libc::sigset_t,
    descriptors: Option<libc::rlimit>,
}

/// What the ranks of this job have in common.
struct Job {
    id: String,
    secret: String,
    server: ServerThread,
}

impl Job {
    fn new() -> fmi::Result<Self> {
        let (id, secret) = (random_hex::<16>()?, random_hex::<32>()?);
        let options = ServerOptions::default().secret(secret.as_bytes()).require_secret(true);
        let server = Server::bind((Ipv4Addr::LOCALHOST, 0).into(), options)?.spawn_thread()?;
        Ok(Self { id, secret, server })
    }
}

fn random_hex<const N: usize>() -> fmi::Result<String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| fmi::Error::new(fmi::ErrorKind::Io, format!("cannot get random bytes: {error}")))?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

struct Launcher<'a> {
    arguments: &'a Arguments,
    job: &'a Job,
    /// For standard output and standard error; none for a single rank, which
    /// has them for itself.
    sinks: Option<[Sink; 2]>,
    ranks: Vec<Rank>,
    /// Each ends with the rank whose output it moved.
    pumps: JoinSet<u32>,
    failed: Option<u8>,
    stage: Stage,
}

/// How far the end of the job has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// A rank has failed; SIGTERM at this time.
    Grace(Instant),
    /// SIGKILL at this time.
    Terminated(Instant),
    Killed,
}

struct Rank {
    number: u32,
    pid: i32,
    /// Whether it leads a process group of its own, with all that it starts.
    leads_group: bool,
    state: State,
    /// How many of its outputs are still read.
    outputs: u32,
    ended: watch::Sender<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    /// It has ended, but is not reaped: that keeps its number, and so the
    /// number of its group, from being given to somebody else.
    Ended(Status, Instant),
    Reaped,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Exited(u8),
    Killed(i32),
}

impl Status {
    /// The exit code that says the same, as in a shell.
    fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => 128 + signal as u8,
        }
    }
}

impl<'a> Launcher<'a> {
    fn new(arguments: &'a Arguments, job: &'a Job) -> Result<Self, Failure> {
        let sinks = if arguments.ranks == 1 {
            None
        } else {
            let sinks = Sink::new(io::stdout()).and_then(|out| Ok([out, Sink::new(io::stderr())?]));
            Some(sinks.map_err(|error| Failure::new("cannot take the output", error))?)
        };
        Ok(Self {
            arguments,
            job,
            sinks,
            ranks: Vec::new(),
            pumps: JoinSet::new(),
            failed: None,
            stage: Stage::Running,
        })
    }

    fn start(&mut self, number: u32, before: Before) -> Result<(), Failure> {
        let job = self.job;
        let (program, rest) = self.arguments.program.split_first().expect("clap requires a program");
        // A process group in the background may not read the terminal.
        // SAFETY: isatty takes any number.
        let leads_group = number != 0 || unsafe { libc::isatty(0) } == 0;
        let mut command = Command::new(program);
        command
            .args(rest)
            .env("FMI_RANK", number.to_string())
            .env("FMI_SIZE", self.arguments.ranks.to_string())
            .env("FMI_JOB_ID", &job.id)
            .env("FMI_RENDEZVOUS", job.server.local_addr().to_string())
            .env("FMI_SECRET", &job.secret);
        if number != 0 {
            command.stdin(Stdio::null());
        }
        if self.sinks.is_some() {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        if leads_group {
            command.process_group(0);
        }
        let launcher = std::process::id() as i32;
        // SAFETY: only async-signal-safe functions are called.
        unsafe {
            command.pre_exec(move || {
                libc::sigprocmask(libc::SIG_SETMASK, &before.mask, std::ptr::null_mut());
                if let Some(limit) = &before.descriptors {
                    descriptors::set_limit(limit);
                }
                // No rank outlives a launcher that is killed. It is tied to
                // the thread that starts it, which is the main one.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if libc::getppid() != launcher {
                    libc::raise(libc::SIGKILL);
                }
                Ok(())
            });
        }
        let mut child = command.spawn().map_err(|error| {
            let code = match error.kind() {
                io::ErrorKind::NotFound => 127,
                io::ErrorKind::PermissionDenied => 126,
                _ => match error.raw_os_error() {
                    Some(libc::ENOEXEC | libc::EISDIR | libc::ELOOP) => 126,
                    _ => 1,
                },
            };
            Failure { code, text: format!("cannot start {}: {error}", program.display()) }
        })?;
        let (ended, ending) = watch::channel(false);
        let mut rank =
            Rank { number, pid: child.id() as i32, leads_group, state: State::Running, outputs: 0, ended };
        let pipes = [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
        for (pipe, sink) in pipes.into_iter().flatten().zip(self.sinks.iter().flatten()) {
            let pump =
                pump(pipe, format!("[{number}] "), sink.sender(), ending.clone(), self.arguments.grace);
            self.pumps.spawn(async move {
                pump.await;
                number
            });
            rank.outputs += 1;
        }
        self.ranks.push(rank);
        Ok(())
    }

    /// Until all ranks are gone and all that they wrote is on its way; the
    /// exit code.
    async fn supervise(&mut self, signals: &Signals) -> u8 {
        let start = Instant::now();
        let mut timeout = self.arguments.timeout.map(|timeout| start + timeout);
        while self.ranks.iter().any(|rank| rank.state != State::Reaped) || !self.pumps.is_empty() {
            let now = Instant::now();
            let lingering = self.ranks.iter().filter_map(|rank| match rank.state {
                State::Ended(_, at) => Some(at + self.arguments.grace),
                _ => None,
            });
            let staged = match self.stage {
                Stage::Grace(at) | Stage::Terminated(at) => Some(at),
                Stage::Running | Stage::Killed => None,
            };
            // Something to sleep on when there is nothing to wake up for.
            let wake =
                lingering.chain(staged).chain(timeout).min().unwrap_or(now + Duration::from_secs(3600));
            tokio::select! {
                Ok(signal) = signals.next() => self.take_signal(signal),
                Some(Ok(rank)) = self.pumps.join_next() => self.ranks[rank as usize].outputs -= 1,
                () = tokio::time::sleep_until(wake) => {}
            }
            let now = Instant::now();
            if timeout.is_some_and(|timeout| timeout <= now) {
                timeout = None;
                self.time_out(now);
            }
            self.next_stage(now);
            self.clean_up(now);
        }
        self.failed.unwrap_or(0)
    }

    fn take_signal(&mut self, signal: Signal) {
        match signal.number {
            libc::SIGCHLD => self.look_for_ended(signal.pid),
            libc::SIGTSTP => {
                // The ranks are in other groups than the terminal's; they stop
                // and go on with us.
                self.signal_running(libc::SIGSTOP);
                // SAFETY: no pointers.
                unsafe { libc::raise(libc::SIGSTOP) };
                self.signal_running(libc::SIGCONT);
            }
            number => {
                for rank in self.ranks.iter().filter(|rank| rank.state == State::Running) {
                    // Who shares the terminal's group has it already.
                    if rank.leads_group || !signal.from_terminal {
                        rank.signal(number);
                    }
                }
            }
        }
    }

    /// Notes which ranks have ended, `first` before the others: one SIGCHLD
    /// may stand for several, and names the first.
    fn look_for_ended(&mut self, first: i32) {
        let now = Instant::now();
        let mut order: Vec<usize> = (0..self.ranks.len()).collect();
        order.sort_by_key(|index| self.ranks[*index].pid != first);
        for index in order {
            let rank = &mut self.ranks[index];
            if rank.state != State::Running {
                continue;
            }
            let Some(status) = rank.ended_with() else { continue };
            rank.state = State::Ended(status, now);
            rank.ended.send_replace(true);
            self.job.server.process_ended(&self.job.id, rank.number);
            if status == Status::Exited(0) {
                continue;
            }
            self.failed.get_or_insert(status.code());
            if self.stage == Stage::Running && !self.arguments.keep_going {
                self.stage = Stage::Grace(now + self.arguments.grace);
            }
        }
    }

    fn time_out(&mut self, now: Instant) {
        let limit = self.arguments.timeout.unwrap_or_default();
        self.failed.get_or_insert(EXIT_TIMEOUT);
        self.report(format!("the job has not ended within {limit:?}"));
        if matches!(self.stage, Stage::Running | Stage::Grace(_)) {
            self.stage = Stage::Grace(now);
        }
    }

    /// Goes on with ending the job, where it is time for that.
    fn next_stage(&mut self, now: Instant) {
        match self.stage {
            Stage::Grace(at) if at <= now => {
                self.signal_running(libc::SIGTERM);
                self.stage = Stage::Terminated(now + self.arguments.grace);
            }
            Stage::Terminated(at) if at <= now => {
                self.signal_running(libc::SIGKILL);
                self.stage = Stage::Killed;
            }
            _ => {}
        }
    }

    /// Reaps the ranks that have ended and said all, with what they left
    /// running in their groups.
    fn clean_up(&mut self, now: Instant) {
        for index in 0..self.ranks.len() {
            let rank = &mut self.ranks[index];
            let State::Ended(status, at) = rank.state else { continue };
            if rank.outputs > 0 && at + self.arguments.grace > now {
                continue;
            }
            rank.reap();
            let number = rank.number;
            match status {
                Status::Exited(0) => {}
                Status::Exited(code) => self.report(format!("rank {number} exited with code {code}")),
                Status::Killed(signal) => {
                    let name = signals::name(signal);
                    self.report(format!("rank {number} was killed by signal {signal} ({name})"));
                }
            }
        }
    }

    fn signal_running(&mut self, signal: i32) {
        let running: Vec<&Rank> = self.ranks.iter().filter(|rank| rank.state == State::Running).collect();
        running.iter().for_each(|rank| rank.signal(signal));
        if running.is_empty() || !matches!(signal, libc::SIGTERM | libc::SIGKILL) {
            return;
        }
        let numbers: Vec<String> = running.iter().map(|rank| rank.number.to_string()).collect();
        let (plural, name) = (if numbers.len() == 1 { "" } else { "s" }, signals::name(signal));
        self.report(format!("sending {name} to rank{plural} {}", numbers.join(", ")));
    }

    /// Says something on standard error, after what the ranks have said.
    fn report(&self, text: String) {
        let line = format!("fmi run: {text}\n");
        let unsaid = match &self.sinks {
            Some([_, stderr]) => stderr.sender().try_send(line.into_bytes()).err().map(|error| match error {
                mpsc::error::TrySendError::Full(line) | mpsc::error::TrySendError::Closed(line) => line,
            }),
            None => Some(line.into_bytes()),
        };
        if let Some(line) = unsaid {
            say(format_args!("{}", String::from_utf8_lossy(&line).trim_end()));
        }
    }

    /// Waits until all output is written.
    fn finish(&mut self) {
        for sink in self.sinks.take().into_iter().flatten() {
            sink.finish();
        }
    }
}

impl Drop for Launcher<'_> {
    /// Where the job did not start as a whole, what did start ends.
    fn drop(&mut self) {
        for rank in &mut self.ranks {
            if rank.state != State::Reaped {
                rank.signal(libc::SIGKILL);
                rank.reap();
            }
        }
    }
}

impl Rank {
    /// Sends a signal to the rank and, where it has a group, to all in it.
    fn signal(&self, signal: i32) {
        let whom = if self.leads_group { -self.pid } else { self.pid };
        // SAFETY: no pointers. The rank is not reaped, so the number is its.
        unsafe { libc::kill(whom, signal) };
    }

    /// How it has ended, if it has; it stays to be reaped.
    fn ended_with(&self) -> Option<Status> {
        // SAFETY: all zero is a valid siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: `info` is a valid place for the result.
        let result = unsafe { libc::waitid(libc::P_PID, self.pid as libc::id_t, &mut info, flags) };
        // SAFETY: waitid has filled the fields of a child, or left them zero.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        if result != 0 || pid == 0 {
            return None;
        }
        Some(match info.si_code {
            libc::CLD_EXITED => Status::Exited(status as u8),
            _ => Status::Killed(status),
        })
    }

    /// Ends what is left in its group, and takes it off the process table.
    fn reap(&mut self) {
        if self.leads_group {
            self.signal(libc::SIGKILL);
        }
        // SAFETY: a null status is allowed.
        while unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) } < 0
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
        self.state = State::Reaped;
    }
}

//! What the tests share: jobs whose ranks are threads, and a watchdog.

#![allow(dead_code, reason = "each test program uses its own part of it")]

pub(crate) mod custom;
pub(crate) mod processes;
pub(crate) mod serve;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::FromRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use fmi::rendezvous::{Server, ServerOptions, ServerThread};
use fmi::{Communicator, Config};

static JOBS: AtomicU32 = AtomicU32::new(0);

/// Which channel a job uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    Memory,
    Direct,
}

/// A time limit as communicators take it.
pub(crate) fn milliseconds(count: u64) -> Option<Duration> {
    Some(Duration::from_millis(count))
}

/// Writes a byte to the communicator's wake-up pipe.
pub(crate) fn wake(comm: &Communicator) {
    // SAFETY: the descriptor is the communicator's, which outlives this; it is
    // not closed here.
    let mut pipe = ManuallyDrop::new(unsafe { File::from_raw_fd(comm.wakeup_fd()) });
    pipe.write_all(b"!").unwrap();
}

/// A line of the kernel's table of TCP sockets.
pub(crate) struct TcpSocket {
    pub(crate) local: SocketAddrV4,
    pub(crate) remote: SocketAddrV4,
    pub(crate) listens: bool,
    pub(crate) is_connected: bool,
    inode: String,
}

/// The IPv4 sockets that a table such as `/proc/self/net/tcp` lists.
pub(crate) fn tcp_table(path: &str) -> Vec<TcpSocket> {
    let address = |text: &str| {
        let (ip, port) = text.split_once(':').unwrap();
        let ip = u32::from_str_radix(ip, 16).unwrap().to_ne_bytes();
        SocketAddrV4::new(ip.into(), u16::from_str_radix(port, 16).unwrap())
    };
    let table = std::fs::read_to_string(path).unwrap();
    let sockets = table.lines().skip(1).map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        TcpSocket {
            local: address(fields[1]),
            remote: address(fields[2]),
            listens: fields[3] == "0A",
            is_connected: fields[3] == "01",
            inode: fields[9].to_owned(),
        }
    });
    sockets.collect()
}

/// The TCP sockets of this process.
pub(crate) fn own_sockets() -> Vec<TcpSocket> {
    let inodes: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let mut sockets = tcp_table("/proc/self/net/tcp");
    sockets.retain(|socket| inodes.contains(&socket.inode));
    sockets
}

/// The ports on which this process listens.
pub(crate) fn listening_ports() -> Vec<u16> {
    own_sockets().iter().filter(|socket| socket.listens).map(|socket| socket.local.port()).collect()
}

/// Says that a test of `what` cannot run here. Not by eprintln!, which nobody sees of
/// a test that passes; scripts/count-tests.sh counts the lines.
pub(crate) fn skip(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "\nSKIPPED: {what}: {why}");
}

/// Runs `body` for each channel in turn.
pub(crate) fn both_channels(body: impl Fn(Channel)) {
    for channel in [Channel::Memory, Channel::Direct] {
        eprintln!("over {channel:?}");
        body(channel);
    }
}

/// Runs `body`; a hang is a failure, after `limit`.
pub(crate) fn watched(limit: Duration, body: impl FnOnce() + Send + 'static) {
    let (done, waits) = mpsc::channel();
    let runner = std::thread::spawn(move || {
        body();
        let _ = done.send(());
    });
    match waits.recv_timeout(limit) {
        Ok(()) => {}
        Err(RecvTimeoutError::Disconnected) => {
            if let Err(panic) = runner.join() {
                std::panic::resume_unwind(panic);
            }
        }
        Err(RecvTimeoutError::Timeout) => {
            eprintln!("the test hangs: {limit:?} have passed");
            std::process::abort();
        }
    }
}

/// Runs `body` on every rank of a job of `size`, each in a thread of its own;
/// panics if one of them does.
pub(crate) fn job(channel: Channel, size: u32, body: impl Fn(Communicator) + Send + Sync) {
    job_with(channel, size, |_| {}, body);
}

/// As [`job`], with `adjust` applied to the configuration.
pub(crate) fn job_with(
    channel: Channel,
    size: u32,
    adjust: impl Fn(&mut Config) + Sync,
    body: impl Fn(Communicator) + Send + Sync,
) {
    let name = job_name();
    let server = (channel == Channel::Direct).then(server);
    let config = config(channel, server.as_ref());
    ranks(size, |rank| {
        let mut config = config.clone();
        adjust(&mut config);
        body(Communicator::create(rank, size, &name, &config).unwrap());
    });
}

/// A name that no other job of the tests has.
pub(crate) fn job_name() -> String {
    format!("test-{}-{}", std::process::id(), JOBS.fetch_add(1, Ordering::Relaxed))
}

/// Runs `body` for every rank, each in a thread of its own; panics if one of them
/// does.
pub(crate) fn ranks(size: u32, body: impl Fn(u32) + Send + Sync) {
    std::thread::scope(|scope| {
        let body = &body;
        let ranks: Vec<_> = (0..size).map(|rank| scope.spawn(move || body(rank))).collect();
        for rank in ranks {
            if let Err(panic) = rank.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

/// A rendezvous server on a free port; it stops when it is dropped.
pub(crate) fn server() -> ServerThread {
    let any = "127.0.0.1:0".parse().unwrap();
    Server::bind(any, ServerOptions::default()).unwrap().spawn_thread().unwrap()
}

/// The configuration of a channel that is alone enabled.
pub(crate) fn config(channel: Channel, server: Option<&ServerThread>) -> Config {
    match channel {
        Channel::Memory => {
            let mut config = Config::new();
            config.set("backends.Memory.enabled", "true").unwrap();
            config
        }
        Channel::Direct => config_at(server.expect("Direct needs a server").local_addr()),
    }
}

/// The configuration of Direct with the rendezvous server at `address`.
pub(crate) fn config_at(address: SocketAddr) -> Config {
    let mut config = Config::new();
    config.set("backends.Direct.host", &address.ip().to_string()).unwrap();
    config.set("backends.Direct.port", &address.port().to_string()).unwrap();
    config
}

/// Where two ranks that are threads wait for each other outside of FMI calls, once or
/// more often.
#[derive(Default)]
pub(crate) struct Meeting {
    arrived: Mutex<u32>,
    bell: Condvar,
}

impl Meeting {
    pub(crate) fn wait(&self) {
        let mut arrived = self.arrived.lock().unwrap();
        *arrived += 1;
        let both = arrived.next_multiple_of(2);
        self.bell.notify_all();
        let waits = |arrived: &mut u32| *arrived < both;
        let waited = self.bell.wait_timeout_while(arrived, Duration::from_secs(45), waits).unwrap();
        assert!(!waited.1.timed_out(), "the other rank does not come");
    }
}

/// A rank in a process of its own, killed when this is dropped.
pub(crate) struct RankProcess(Child);

impl RankProcess {
    /// Runs the test `rank_program` of this test program as `rank` of `size`, with the
    /// job's name and a role in FMI_TEST_NAME and FMI_TEST_ROLE.
    pub(crate) fn start(server: &ServerThread, rank: u32, size: u32, name: &str, role: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "rank_program", "--ignored", "--nocapture"])
            .env("FMI_RANK", rank.to_string())
            .env("FMI_SIZE", size.to_string())
            .env("FMI_RENDEZVOUS", server.local_addr().to_string())
            .env("FMI_TEST_NAME", name)
            .env("FMI_TEST_ROLE", role)
            .stdout(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    /// Waits until it prints a line "ready".
    pub(crate) fn await_ready(&mut self) {
        let lines = BufReader::new(self.0.stdout.as_mut().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "ready"), "the rank has ended");
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for RankProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

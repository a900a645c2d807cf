//! What a process keeps of communicators that are gone: nothing, however they
//! went. The only test of its program, because others open and close
//! descriptors. The server is a process of its own, so that what it remembers
//! does not count.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::{Duration, Instant};

use fmi::{Communicator, Config, ErrorKind, Op};
use support::{Channel, config, listening_ports, milliseconds, watched};

/// Counts the bytes that are allocated.
struct Counting;

static ALLOCATED: AtomicIsize = AtomicIsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is handed to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promise is handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What this process holds.
#[derive(Clone, Copy, Debug)]
struct Holdings {
    descriptors: usize,
    threads: usize,
    allocated: isize,
    resident_kib: usize,
}

impl Holdings {
    fn now() -> Self {
        // What the C library's allocator keeps for later is held by nobody: a thread that
        // ran beside others has an arena of its own, which stays large.
        // SAFETY: it only gives free memory back.
        unsafe { libc::malloc_trim(0) };
        let count = |path: &str| std::fs::read_dir(path).unwrap().count();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        Self {
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            allocated: ALLOCATED.load(Ordering::Relaxed),
            resident_kib: line.split_whitespace().next().unwrap().parse().unwrap(),
        }
    }
}

/// `fmi serve`, until dropped.
struct ServerProcess {
    process: Child,
    port: String,
}

impl ServerProcess {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fmi"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--log", "off"]).stdout(Stdio::piped());
        // It ends with this program, also where the watchdog ends that.
        // SAFETY: a plain system call, which a child may make before it executes.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().unwrap().to_owned();
        Self { process, port }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn direct(host: &str, port: &str) -> Config {
    let mut config = Config::new();
    config.set("backends.Direct.host", host).unwrap();
    config.set("backends.Direct.port", port).unwrap();
    config
}

fn create(rank: u32, config: &Config) -> Communicator {
    let comm = Communicator::create(rank, 2, "leaks", config).unwrap();
    comm.set_timeout(milliseconds(10_000)).unwrap();
    comm
}

/// Rank 0 alone: nobody answers.
fn alone(config: &Config) {
    let comm = create(0, config);
    comm.set_timeout(milliseconds(3)).unwrap();
    comm.barrier().unwrap_err();
}

/// Two ranks that are threads.
fn together(config: &Config, rank: impl Fn(Communicator) + Sync) {
    std::thread::scope(|scope| {
        for number in 0..2 {
            let rank = &rank;
            scope.spawn(move || rank(create(number, config)));
        }
    });
}

fn succeeds(comm: Communicator) {
    let mut sum = vec![0; 50_000];
    comm.allreduce(&vec![1; 50_000], &mut sum, &Op::SUM).unwrap();
    assert!(sum.iter().all(|value| *value == 2));
    comm.close(milliseconds(10_000)).unwrap();
}

fn mismatches(comm: Communicator) {
    let outcome = match comm.rank() {
        0 => comm.barrier(),
        _ => comm.bcast(&mut [0u8; 10], 0),
    };
    let kind = outcome.unwrap_err().kind();
    assert!(matches!(kind, ErrorKind::Mismatch | ErrorKind::Poisoned | ErrorKind::PeerLeft), "{kind:?}");
}

fn aborts(comm: Communicator) {
    comm.barrier().unwrap();
    if comm.rank() == 0 {
        comm.abort(1).unwrap();
    }
    comm.barrier().unwrap_err();
}

/// Messages are left over at both: small ones, and one that nobody makes room
/// for.
fn leaves_messages_behind(comm: Communicator) {
    comm.barrier().unwrap();
    let other = 1 - comm.rank();
    for _ in 0..10 {
        comm.send(&[1u8; 1000], other).unwrap();
    }
    comm.set_timeout(milliseconds(3)).unwrap();
    let _ = comm.send(&vec![1u8; 8 << 20], other);
    let _ = comm.close(milliseconds(3));
}

fn gives_a_wrong_length(comm: Communicator) {
    match comm.rank() {
        0 => comm.send(&[1u8; 100_000], 1).unwrap(),
        _ => assert_eq!(comm.recv(&mut [0u8], 0).unwrap_err().kind(), ErrorKind::SizeMismatch),
    }
}

/// Connections from outside of the job, at both ranks, but not at the port that
/// nobody serves.
fn meets_strangers(comm: Communicator, unserved: u16) {
    comm.barrier().unwrap();
    // Both ranks' are this process's.
    let ports = if comm.rank() == 0 { listening_ports() } else { Vec::new() };
    let strangers: Vec<_> = ports
        .into_iter()
        .filter(|port| *port != unserved)
        .map(|port| {
            let mut stranger = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            stranger
        })
        .collect();
    comm.barrier().unwrap();
    // It sees them while it waits.
    comm.set_timeout(milliseconds(5)).unwrap();
    comm.recv(&mut [0u8], 1 - comm.rank()).unwrap_err();
    drop(strangers);
}

/// The other rank is a process that ends without a word.
fn loses_its_peer(config: &Config) {
    // SAFETY: the child makes a communicator of its own, and ends by `_exit`.
    let child = match unsafe { libc::fork() } {
        0 => {
            let comm = create(1, config);
            let well = comm.barrier().is_ok();
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(if well { 0 } else { 1 }) };
        }
        child => child,
    };
    let comm = create(0, config);
    comm.barrier().unwrap();
    assert_eq!(comm.recv(&mut [0u8], 1).unwrap_err().kind(), ErrorKind::PeerLost);
    // SAFETY: the child is ours, and is waited for once.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
}

#[test]
fn nothing_is_kept() {
    watched(Duration::from_secs(120), || {
        let server = ServerProcess::start();
        let good = direct("127.0.0.1", &server.port);
        let memory = config(Channel::Memory, None);
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
        let unserved = nobody.local_addr().unwrap().port();
        let silent = direct("127.0.0.1", &unserved.to_string());
        let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = direct("127.0.0.1", &refused.port().to_string());
        let unknown = direct("no-such-host.invalid", "1");
        let cycle = |number: u32| {
            let both = if number % 40 < 20 { &good } else { &memory };
            match number % 20 {
                0..3 => alone(both),
                3..6 => alone(&silent),
                6..9 => alone(&refused),
                9 | 10 => alone(&unknown),
                11 => together(&good, |comm| meets_strangers(comm, unserved)),
                12 | 13 => together(both, mismatches),
                14 | 15 => together(both, aborts),
                16 => together(both, leaves_messages_behind),
                17 => together(both, gives_a_wrong_length),
                18 => together(both, succeeds),
                _ => loses_its_peer(&good),
            }
        };
        let run = |cycles: std::ops::Range<u32>| {
            cycles.for_each(cycle);
            Holdings::now()
        };
        let start = Instant::now();
        let before = run(0..100);
        let after = run(100..1100);
        println!("{before:?} became {after:?} in {:?}", start.elapsed());
        assert!(after.descriptors <= before.descriptors + 2);
        // One that looks up the unknown host may be there or not.
        assert!(after.threads <= before.threads + 1);
        assert!(after.allocated <= before.allocated + 64 * 1024);
        assert!(after.resident_kib <= before.resident_kib + 16 * 1024);
    });
}

//! A real `fmi serve` process, and what is asked of it whatever strangers do.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use fmi::Communicator;
use socket2::{Domain, Socket, Type};

/// No test waits longer for an answer: a hang is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// After this a server that a test has left behind ends by itself.
const LIFETIME: u32 = 600;

static JOBS: AtomicU32 = AtomicU32::new(0);

/// `fmi serve` on a free port; it is killed when this is dropped.
pub(crate) struct Serve {
    child: Child,
    address: SocketAddr,
}

impl Serve {
    /// Starts it with `options`, at 127.0.0.1 unless they say where.
    pub(crate) fn start(options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fmi"));
        command.args(["serve", "--log", "error"]);
        if !options.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        Self::start_command(command.args(options))
    }

    /// Starts it by `command`, which ends in `fmi serve`.
    pub(crate) fn start_command(command: &mut Command) -> Self {
        // SAFETY: alarm is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                libc::alarm(LIFETIME);
                Ok(())
            });
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("fmi starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("fmi serve: listening on ").expect("an address");
        Self { child, address: address.parse().unwrap() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A connection from 127.0.0.`host`.
    pub(crate) fn connect_from(&self, host: u8) -> TcpStream {
        self.try_connect_from(host).expect("the server accepts")
    }

    pub(crate) fn try_connect_from(&self, host: u8) -> std::io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, host), 0).into())?;
        socket.connect_timeout(&self.address.into(), PATIENCE)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        self.connect_from(1)
    }

    /// A job of two ranks meets at the server, connects directly, and is done;
    /// how long that took.
    pub(crate) fn honest_pair(&self) -> Duration {
        let start = Instant::now();
        let name = format!("honest-{}-{}", std::process::id(), JOBS.fetch_add(1, Ordering::Relaxed));
        let config = super::config_at(self.address);
        std::thread::scope(|scope| {
            for rank in 0..2 {
                let (name, config) = (&name, &config);
                scope.spawn(move || {
                    let comm = Communicator::create(rank, 2, name, config).unwrap();
                    comm.set_timeout(Some(PATIENCE)).unwrap();
                    comm.barrier().unwrap();
                });
            }
        });
        start.elapsed()
    }

    pub(crate) fn assert_alive(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "the server has ended");
    }

    /// The memory that it has now, and the most that it had, in bytes.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let bytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
        };
        (bytes("VmRSS"), bytes("VmHWM"))
    }

    /// Waits until it has done what it was asked to.
    pub(crate) fn wait_until_idle(&self) {
        let used = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
            let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            // User and system time, in hundredths of a second.
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        };
        let start = Instant::now();
        let mut before = used();
        loop {
            std::thread::sleep(Duration::from_millis(300));
            let now = used();
            // A busy machine may have given it no more than that.
            if now <= before + 1 {
                return;
            }
            assert!(start.elapsed() < 5 * PATIENCE, "it does not come to rest");
            before = now;
        }
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Ends it in order.
    pub(crate) fn stop(mut self) {
        self.assert_alive();
        // SAFETY: no pointers; the child is not reaped.
        assert_eq!(unsafe { libc::kill(self.pid() as i32, libc::SIGTERM) }, 0);
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(start.elapsed() < PATIENCE, "it does not end"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success(), "{status}");
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets this process have as many descriptors as it may.
pub(crate) fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is valid.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
}

//! Jobs whose ranks are processes: this test program again, each running one of
//! its ignored tests.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// No rank is silent for longer while a test waits for a word of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The time by the clock that all processes share.
pub(crate) fn now_us() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()
}

/// A job; what is left of it is killed when it is dropped.
pub(crate) struct Processes {
    ranks: Vec<Child>,
    lines: Receiver<(u32, String)>,
}

impl Processes {
    /// Starts `size` ranks, each with the test `program` of this executable and
    /// what `adjust` adds to its command.
    pub(crate) fn start(
        size: u32,
        server: SocketAddr,
        program: &str,
        adjust: impl Fn(u32, &mut Command),
    ) -> Self {
        let (sender, lines) = mpsc::channel();
        let job_id = format!("{}-{}", std::process::id(), now_us());
        let start = |rank: u32| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command
                .args(["--exact", program, "--ignored", "--nocapture"])
                .env("FMI_RANK", rank.to_string())
                .env("FMI_SIZE", size.to_string())
                .env("FMI_JOB_ID", &job_id)
                .env("FMI_RENDEZVOUS", server.to_string())
                .stdin(Stdio::null())
                .stdout(Stdio::piped());
            adjust(rank, &mut command);
            // SAFETY: prctl is async-signal-safe. The ranks end with the thread
            // that tests.
            unsafe {
                command.pre_exec(|| {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    Ok(())
                });
            }
            let mut child = command.spawn().unwrap();
            pass_on(rank, child.stdout.take().unwrap(), sender.clone());
            child
        };
        Self { ranks: (0..size).map(start).collect(), lines }
    }

    /// What follows `word` in the next line that begins with it, and whose line
    /// that is.
    pub(crate) fn next(&self, word: &str) -> (u32, Vec<String>) {
        loop {
            let (rank, line) = self.lines.recv_timeout(PATIENCE).expect("the ranks say nothing");
            assert!(!line.contains("panicked") && !line.contains("a wrong"), "rank {rank}: {line}");
            if let Some(rest) = line.strip_prefix(word) {
                return (rank, rest.split_whitespace().map(str::to_owned).collect());
            }
        }
    }

    pub(crate) fn signal(&self, rank: u32, signal: i32) {
        // SAFETY: a plain system call; the child is not reaped before the end.
        assert_eq!(unsafe { libc::kill(self.ranks[rank as usize].id() as i32, signal) }, 0);
    }

    /// Waits until all have ended, each by itself or by a signal of this test.
    pub(crate) fn end(mut self) {
        let start = Instant::now();
        for child in &mut self.ranks {
            while child.try_wait().unwrap().is_none() {
                assert!(start.elapsed() < PATIENCE, "a rank does not end");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.ranks {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn pass_on(rank: u32, output: impl Read + Send + 'static, sender: mpsc::Sender<(u32, String)>) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = sender.send((rank, line));
        }
    });
}

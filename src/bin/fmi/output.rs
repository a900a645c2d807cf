//! The output of the ranks: each line with its rank in front, whole lines only.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::unix::pipe::Receiver;
use tokio::sync::{mpsc, watch};

/// What is read at once.
const CHUNK: usize = 64 * 1024;
/// A longer line is broken, so that it cannot fill the memory.
const MAX_LINE: usize = 1 << 20;
/// Chunks that may wait for a slow reader, before the ranks have to.
const WAITING: usize = 16;

/// Writes to one of the launcher's own outputs, on a thread of its own: a
/// reader that pauses must not stop the launcher.
pub(crate) struct Sink {
    sender: mpsc::Sender<Vec<u8>>,
    thread: JoinHandle<()>,
}

impl Sink {
    /// A sink for the output behind `fd`.
    pub(crate) fn new(fd: impl AsFd) -> io::Result<Self> {
        let mut file = File::from(fd.as_fd().try_clone_to_owned()?);
        let (sender, mut receiver) = mpsc::channel::<Vec<u8>>(WAITING);
        let thread = std::thread::Builder::new().name("fmi-output".into()).spawn(move || {
            while let Some(chunk) = receiver.blocking_recv() {
                // Nobody reads any more: the ranks are told by the end of the
                // channel, which closes their pipes.
                if write_all(&mut file, &chunk).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { sender, thread })
    }

    /// Where the chunks go.
    pub(crate) fn sender(&self) -> mpsc::Sender<Vec<u8>> {
        self.sender.clone()
    }

    /// Waits until everything is written; all other senders must be gone.
    pub(crate) fn finish(self) {
        drop(self.sender);
        let _ = self.thread.join();
    }
}

/// The output may be a non-blocking one that somebody else has made so.
fn write_all(file: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut poll = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
                // SAFETY: one valid entry.
                unsafe { libc::poll(&mut poll, 1, -1) };
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Moves what a rank writes into `pipe` to `sink`. Ends with the pipe, or when
/// the rank has `ended` and whoever else holds the pipe is silent for `grace`.
pub(crate) async fn pump(
    pipe: OwnedFd,
    prefix: String,
    sink: mpsc::Sender<Vec<u8>>,
    mut ended: watch::Receiver<bool>,
    grace: Duration,
) {
    let Ok(pipe) = Receiver::from_owned_fd(pipe) else { return };
    let mut lines = Lines { prefix: prefix.into_bytes(), partial: Vec::new() };
    let mut buffer = vec![0; CHUNK];
    loop {
        let silence = async {
            // An error says that nobody is left who could end it: the same.
            let _ = ended.wait_for(|ended| *ended).await;
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            biased;
            readable = pipe.readable() => if readable.is_err() { break },
            () = silence => break,
        }
        let length = match pipe.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(_) => break,
        };
        let chunk = lines.feed(&buffer[..length]);
        if !chunk.is_empty() && sink.send(chunk).await.is_err() {
            return;
        }
    }
    let rest = lines.finish();
    if !rest.is_empty() {
        let _ = sink.send(rest).await;
    }
}

/// Cuts a stream into lines.
struct Lines {
    prefix: Vec<u8>,
    partial: Vec<u8>,
}

impl Lines {
    /// The lines that `bytes` complete.
    fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.partial.len() >= MAX_LINE {
                self.emit(&mut out);
            }
        }
        out
    }

    /// The last line, if it was not complete.
    fn finish(mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.partial.is_empty() {
            self.emit(&mut out);
        }
        out
    }

    fn emit(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.prefix);
        out.append(&mut self.partial);
        if !out.ends_with(b"\n") {
            out.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Lines {
        Lines { prefix: b"[3] ".to_vec(), partial: Vec::new() }
    }

    #[test]
    fn lines_are_whole_wherever_they_are_cut() {
        let text = b"one\n\ntwo \xff\0\nthree";
        for cut in 0..=text.len() {
            let mut lines = lines();
            let mut out = lines.feed(&text[..cut]);
            out.extend(lines.feed(&text[cut..]));
            assert_eq!(out, b"[3] one\n[3] \n[3] two \xff\0\n");
            assert_eq!(lines.finish(), b"[3] three\n");
        }
        assert_eq!(lines().finish(), b"");
    }

    #[test]
    fn a_line_without_end_is_broken() {
        let mut lines = lines();
        let piece = vec![b'x'; CHUNK];
        let mut out = Vec::new();
        for _ in 0..MAX_LINE / CHUNK {
            assert!(out.is_empty());
            out = lines.feed(&piece);
        }
        assert_eq!(out.len(), MAX_LINE + 5);
        assert_eq!(lines.finish(), b"");
    }
}

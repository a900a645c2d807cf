//! The TCP link: one connected socket, never blocking, one system call for a
//! small message.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use socket2::{Socket, TcpKeepalive};

use super::Part;
use crate::descriptors::Tracked;

/// What is sent from one buffer: copying so little costs less than handing the
/// kernel a list of two.
const SMALL: usize = 256;

/// A host that acknowledges nothing for so long, although data was repeated at
/// least [`RETRANSMITS`] times, is gone: a cut is noticed within 5 s.
const SILENCE: Duration = Duration::from_secs(4);

/// Fewer may be chance. With the least timeout of the kernel (200 ms, doubled
/// each time) the third is sent after 1.4 s.
const RETRANSMITS: u8 = 3;

/// A connected socket.
pub(crate) struct TcpLink {
    socket: Tracked<Socket>,
}

impl TcpLink {
    /// Takes a connected socket and sets its options: no delay, keepalive that
    /// notices a dead host within 4 s, and the congestion control.
    ///
    /// `congestion`: a name, or `None` to choose by path: on the default bbr
    /// transfers of 1 MiB between processes of one host took twice the time of
    /// cubic and reno (measured), so those are asked for where the kernel lets
    /// us; a kernel that refuses keeps its own.
    pub(crate) fn new(socket: Tracked<Socket>, congestion: Option<&str>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        keep_alive(&socket)?;
        // A peer that has gone meanwhile has no address, but its last words are here.
        let same_host = is_same_host(&socket).unwrap_or(false);
        match congestion {
            Some(name) => set_congestion(&socket, name)?,
            None => {
                let name: &[u8] = if same_host { b"cubic" } else { b"reno" };
                let _ = socket.set_tcp_congestion(name);
            }
        }
        Ok(Self { socket })
    }

    pub(super) fn send(&self, [head, body]: &[IoSlice<'_>; 2]) -> io::Result<usize> {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        if head.len() + body.len() <= SMALL {
            let mut joined = [0u8; SMALL];
            joined[..head.len()].copy_from_slice(head);
            joined[head.len()..][..body.len()].copy_from_slice(body);
            let length = head.len() + body.len();
            // SAFETY: `length` bytes of the array are valid for reads.
            return check(unsafe {
                libc::send(self.socket.as_raw_fd(), joined.as_ptr().cast(), length, flags)
            });
        }
        let mut vectors = [head, body].map(|part| vector((part.as_ptr().cast_mut(), part.len())));
        let message = header(&mut vectors);
        // SAFETY: the header points to two buffers valid for reads; sendmsg
        // writes to neither.
        check(unsafe { libc::sendmsg(self.socket.as_raw_fd(), &message, flags) })
    }

    /// # Safety
    /// The parts are valid for writes of their lengths, and apart from
    /// `staging`.
    pub(super) unsafe fn recv(&self, parts: &[Part; 2], staging: &mut [u8]) -> io::Result<usize> {
        if parts[0].1 + parts[1].1 == 0 {
            // SAFETY: the slice is valid for writes of its length.
            return check(unsafe {
                libc::recv(
                    self.socket.as_raw_fd(),
                    staging.as_mut_ptr().cast(),
                    staging.len(),
                    libc::MSG_DONTWAIT,
                )
            });
        }
        let [first, second] = *parts;
        let vectors = [vector(first), vector(second), vector((staging.as_mut_ptr(), staging.len()))];
        // The socket does not block, and a read has no need of flags: readv
        // spares the kernel the message header of recvmsg.
        // SAFETY: the buffers are valid for writes: two by the caller's promise,
        // the third is a slice.
        check(unsafe { libc::readv(self.socket.as_raw_fd(), vectors.as_ptr(), vectors.len() as i32) })
    }

    pub(super) fn shut_down_sending(&self) {
        // SAFETY: a plain system call on a descriptor that we own. It fails only
        // where the connection is gone already.
        unsafe { libc::shutdown(self.socket.as_raw_fd(), libc::SHUT_WR) };
    }

    pub(super) fn unacknowledged(&self) -> usize {
        unacknowledged(&self.socket)
    }

    pub(super) fn silence(&self) -> Option<Duration> {
        // SAFETY: a tcp_info of zeros is a valid one.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes to `info`.
        let status = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &mut length,
            )
        };
        if status == 0 { silence_of(&info) } else { None }
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Asks for a congestion control by its name; "system" = the system's.
pub(crate) fn set_congestion(socket: &Socket, name: &str) -> io::Result<()> {
    if name == "system" { Ok(()) } else { socket.set_tcp_congestion(name.as_bytes()) }
}

/// Bytes of a connected socket that the other side's kernel has not acknowledged.
pub(crate) fn unacknowledged(socket: &Socket) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (the same number as TIOCOUTQ) writes one int.
    let status = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) };
    if status == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Has the kernel probe an idle connection: a dead host is noticed within 4 s.
/// (TCP_USER_TIMEOUT would be simpler, but kills peers that live and do not read.)
pub(crate) fn keep_alive(socket: &Socket) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(1))
        .with_interval(Duration::from_secs(1))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)
}

/// A peer that does not read has everything acknowledged that its window took;
/// what waits for a window is not in flight.
fn silence_of(info: &libc::tcp_info) -> Option<Duration> {
    let silence = Duration::from_millis(info.tcpi_last_ack_recv.into());
    let is_gone = info.tcpi_unacked > 0 && info.tcpi_retransmits >= RETRANSMITS && silence >= SILENCE;
    is_gone.then_some(silence)
}

/// Whether both ends of a connected socket are on this host.
pub(crate) fn is_same_host(socket: &Socket) -> io::Result<bool> {
    Ok(match (socket.local_addr()?.as_socket(), socket.peer_addr()?.as_socket()) {
        (Some(local), Some(peer)) => local.ip() == peer.ip() || peer.ip().to_canonical().is_loopback(),
        _ => false,
    })
}

fn vector((at, length): Part) -> libc::iovec {
    libc::iovec { iov_base: at.cast(), iov_len: length }
}

fn header(vectors: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: a msghdr of zeros is a valid one: no name, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len() as _;
    message
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn only_all_three_signs_together_are_a_death() {
        let silence = |unacked, retransmits, last_ack| {
            // SAFETY: a tcp_info of zeros is a valid one.
            let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
            (info.tcpi_unacked, info.tcpi_retransmits, info.tcpi_last_ack_recv) =
                (unacked, retransmits, last_ack);
            silence_of(&info)
        };
        assert_eq!(silence(1, 3, 4000), Some(Duration::from_secs(4)));
        assert_eq!(silence(0, 9, 60_000), None, "nothing is in flight: a window of zero");
        assert_eq!(silence(9, 2, 60_000), None, "a rank that has just begun to send after a long time");
        assert_eq!(silence(9, 9, 3999), None, "something comes back");
    }

    /// A reset leaves what this host has received, and so does making a link of it.
    #[test]
    fn the_last_words_of_a_peer_that_has_gone_are_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        peer.write_all(b"farewell").unwrap();
        let peer = Socket::from(peer);
        peer.set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        while accepted.peer_addr().is_ok() {
            std::thread::yield_now();
        }
        let link = TcpLink::new(Tracked::new(accepted.into()), None).unwrap();
        let mut buffer = [0u8; 20];
        let nothing = (buffer.as_mut_ptr(), 0);
        // SAFETY: parts of no length, and a slice.
        let count = unsafe { link.recv(&[nothing; 2], &mut buffer) }.unwrap();
        assert_eq!(&buffer[..count], b"farewell");
    }
}

//! Sockets for making connections: all of one local port, so that a NAT maps
//! them alike.

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;

use crate::descriptors::Tracked;
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

/// Of the kernel, which may cap it: peers come while this rank computes, and
/// strangers with them.
const BACKLOG: i32 = 4096;

/// A socket bound to `port` (0 = any free one) of every address of the family of
/// `like`. The listener, the connection to the server and those to peers share
/// a port; for that each of them needs both options before it is bound. (What a
/// listener accepts inherits that small pieces are sent at once.)
pub(super) fn bound_socket(like: &SocketAddr, port: u16) -> io::Result<Tracked<Socket>> {
    let domain = Domain::for_address(*like);
    let socket = Tracked::new(Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?);
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    let any: IpAddr = match like {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    socket.bind(&SocketAddr::new(any, port).into())?;
    Ok(socket)
}

/// A listening socket on the port of `local`.
pub(super) fn listen_on(local: &SocketAddr) -> io::Result<Tracked<Socket>> {
    let socket = bound_socket(local, local.port())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

pub(super) fn start_connecting(socket: &Socket, address: &SocketAddr) -> io::Result<()> {
    match socket.connect(&(*address).into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(()),
    }
}

/// Whether a connect that was started has succeeded. The state says so, not
/// SO_ERROR alone: an ICMP message that has not ended the try shows there too.
pub(super) fn connected(socket: &Socket) -> io::Result<bool> {
    match tcp_state(socket)? {
        TCP_SYN_SENT | TCP_SYN_RECV => Ok(false),
        TCP_CLOSE => Err(socket.take_error()?.unwrap_or_else(|| io::ErrorKind::NotConnected.into())),
        _ => Ok(true),
    }
}

const TCP_SYN_SENT: u8 = 2;
const TCP_SYN_RECV: u8 = 3;
const TCP_CLOSE: u8 = 7;

/// The connection's state, by the kernel's numbers.
fn tcp_state(socket: &Socket) -> io::Result<u8> {
    // The state is the first byte of the information, of which the kernel gives
    // as much as there is room for.
    let mut state = 0u8;
    let mut length: libc::socklen_t = 1;
    // SAFETY: `state` has room for the one byte that is stated.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &mut length,
        )
    };
    if status == 0 { Ok(state) } else { Err(io::Error::last_os_error()) }
}

/// Has a listener ignore those who ask for a connection from the `sources`:
/// they are connected to, and must find the connection that is under way. Were
/// the listener to answer, it would begin at another sequence number than our
/// own packets did, and a NAT between would take its answers for strays.
pub(super) fn ignore_connects_of(listener: &Socket, sources: &[SocketAddrV4]) -> io::Result<()> {
    const FLAGS: u32 = 13;
    const SYN_AND_ACK: u32 = 0x12;
    const SYN: u32 = 0x02;
    const SOURCE_PORT: u32 = 0;
    const SOURCE_ADDRESS: u32 = libc::SKF_NET_OFF as u32 + 12;
    const ACCEPT: u32 = u32::MAX;
    let instruction = |code: u32, jt: u8, jf: u8, k: u32| SockFilter::new(code as u16, jt, jf, k);
    let load_byte = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    let load_half = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    let load_word = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let and = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let end = libc::BPF_RET | libc::BPF_K;
    let mut program = vec![
        instruction(load_byte, 0, 0, FLAGS),
        instruction(and, 0, 0, SYN_AND_ACK),
        instruction(equal, 1, 0, SYN),
        instruction(end, 0, 0, ACCEPT),
    ];
    for source in sources {
        program.extend([
            instruction(load_word, 0, 0, SOURCE_ADDRESS),
            instruction(equal, 0, 3, source.ip().to_bits()),
            instruction(load_half, 0, 0, SOURCE_PORT),
            instruction(equal, 0, 1, source.port().into()),
            instruction(end, 0, 0, 0),
        ]);
    }
    program.push(instruction(end, 0, 0, ACCEPT));
    listener.attach_filter(&program)
}

/// The two ends of a connected socket.
pub(super) fn ends(socket: &Socket) -> io::Result<(SocketAddr, SocketAddr)> {
    let ip = |address: SockAddr| address.as_socket().ok_or_else(|| io::Error::other("not an IP address"));
    Ok((ip(socket.local_addr()?)?, ip(socket.peer_addr()?)?))
}

pub(super) fn send_to(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    socket.send_with_flags(bytes, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
}

pub(super) fn recv_from(socket: &Socket, bytes: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is initialised, and recv only writes to it what it
    // received.
    let bytes = unsafe { &mut *(std::ptr::from_mut(bytes) as *mut [std::mem::MaybeUninit<u8>]) };
    socket.recv_with_flags(bytes, libc::MSG_DONTWAIT)
}

/// Where hosts of the same private networks reach the port of `local`: first at
/// `local` itself, then at the host's other addresses of its family, without
/// those that only the host itself has.
pub(super) fn private_endpoints(local: SocketAddr) -> Vec<SocketAddr> {
    let mut endpoints = vec![local];
    if local.ip().is_loopback() {
        return endpoints;
    }
    for ip in interface_addresses() {
        let endpoint = SocketAddr::new(ip, local.port());
        if ip.is_ipv4() == local.is_ipv4() && !ip.is_loopback() && !endpoints.contains(&endpoint) {
            endpoints.push(endpoint);
        }
    }
    endpoints
}

/// The addresses of the interfaces that are up.
fn interface_addresses() -> Vec<IpAddr> {
    let mut list = std::ptr::null_mut();
    // SAFETY: `list` is a valid place for the result.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        return Vec::new();
    }
    let mut addresses = Vec::new();
    let mut next = list;
    // SAFETY: the list is getifaddrs', and freed only below.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        // Docker's bridge has the same address on every host.
        // SAFETY: the name of an entry is a C string.
        let is_bridge = unsafe { CStr::from_ptr(entry.ifa_name) }.to_bytes().starts_with(b"docker");
        if entry.ifa_addr.is_null() || entry.ifa_flags & libc::IFF_UP as u32 == 0 || is_bridge {
            continue;
        }
        // SAFETY: the address is one of the family that it states, and its
        // structure as long as that family's.
        addresses.extend(unsafe {
            match i32::from((*entry.ifa_addr).sa_family) {
                libc::AF_INET => {
                    let address = &*entry.ifa_addr.cast::<libc::sockaddr_in>();
                    Some(IpAddr::from(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr))))
                }
                libc::AF_INET6 => {
                    let address = &*entry.ifa_addr.cast::<libc::sockaddr_in6>();
                    Some(IpAddr::from(Ipv6Addr::from(address.sin6_addr.s6_addr)))
                }
                _ => None,
            }
        });
    }
    // SAFETY: the list is getifaddrs', and not used any more.
    unsafe { libc::freeifaddrs(list) };
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_has_addresses() {
        assert!(interface_addresses().contains(&IpAddr::from(Ipv4Addr::LOCALHOST)));
    }

    #[test]
    fn loopback_is_not_told_to_other_hosts() {
        let local: SocketAddr = "10.1.2.3:77".parse().unwrap();
        let endpoints = private_endpoints(local);
        assert_eq!(endpoints[0], local);
        assert!(endpoints.iter().all(|endpoint| endpoint.port() == 77 && !endpoint.ip().is_loopback()));
        let local: SocketAddr = "127.0.0.1:77".parse().unwrap();
        assert_eq!(private_endpoints(local), [local]);
    }

    #[test]
    fn a_listener_ignores_whom_it_is_told_to() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let connect = |listener: &Socket, from: &Socket| {
            from.connect_timeout(&listener.local_addr().unwrap(), std::time::Duration::from_millis(200))
        };
        let local = bound_socket(&any, 0).unwrap().local_addr().unwrap().as_socket().unwrap();
        let listener = listen_on(&SocketAddr::from((Ipv4Addr::LOCALHOST, local.port()))).unwrap();
        let sockets = [(); 3].map(|()| bound_socket(&any, 0).unwrap());
        let source = |socket: &Socket| {
            let port = socket.local_addr().unwrap().as_socket().unwrap().port();
            SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
        };
        let elsewhere = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 2), source(&sockets[2]).port());
        ignore_connects_of(&listener, &[source(&sockets[0]), source(&sockets[1]), elsewhere]).unwrap();
        let target = listener.try_clone().unwrap();
        for ignored in &sockets[..2] {
            assert_eq!(connect(&target, ignored).unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        connect(&target, &sockets[2]).unwrap();
        ignore_connects_of(&listener, &[]).unwrap();
        let port = source(&sockets[0]).port();
        drop(sockets);
        connect(&target, &bound_socket(&any, port).unwrap()).unwrap();
    }

    #[test]
    fn one_port_listens_and_connects() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let first = bound_socket(&any, 0).unwrap();
        let local = first.local_addr().unwrap().as_socket().unwrap();
        let _listener = listen_on(&local).unwrap();
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        start_connecting(&first, &other.local_addr().unwrap()).unwrap();
        let (_, from) = other.accept().unwrap();
        assert_eq!(from.port(), local.port());
    }
}

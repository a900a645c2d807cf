//! Sockets for making connections: all of one local port, so that a NAT maps
//! them alike.

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Of the kernel, which may cap it: peers come while this rank computes, and
/// strangers with them.
const BACKLOG: i32 = 4096;

/// A socket bound to `port` (0 = any free one) of every address of the family of
/// `like`. The listener, the connection to the server and those to peers share
/// a port; for that each of them needs both options before it is bound. (What a
/// listener accepts inherits that small pieces are sent at once.)
pub(super) fn bound_socket(like: &SocketAddr, port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(*like), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
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
pub(super) fn listen_on(local: &SocketAddr) -> io::Result<Socket> {
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

/// Whether a connect that was started has succeeded.
pub(super) fn connected(socket: &Socket) -> io::Result<bool> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    match socket.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
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

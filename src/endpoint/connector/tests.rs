//! What the connector's tests share.

use std::net::Ipv4Addr;

use super::*;

pub(super) fn here(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A connector that has done nothing yet, for a server at `server`.
pub(super) fn connector(rank: u32, size: u32, server: SocketAddr) -> Connector {
    let settings = DirectSettings {
        host: server.ip().to_string(),
        port: server.port(),
        max_timeout: None,
        punch_timeout: None,
        protocol: RendezvousProtocol::Auto,
        congestion: None,
        secret: None,
    };
    let membership = Membership { rank, size, name: "job".into(), job_id: None, fingerprint: 9 };
    Connector::new(settings, membership, Logger::default())
}

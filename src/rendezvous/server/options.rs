//! How a server is to behave, and the bounds of what it lets others take of it.

use std::sync::Arc;
use std::time::Duration;

use crate::log::{LogFunction, LogLevel, Logger};

/// Descriptors that are not for connections.
const SPARE_DESCRIPTORS: usize = 64;

/// How a rendezvous server is to behave.
#[derive(Clone)]
pub struct ServerOptions {
    pub(super) secret: Option<Vec<u8>>,
    pub(super) require_secret: bool,
    pub(super) tcpunch: bool,
    pub(super) logger: Logger,
    pub(super) limits: Limits,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            secret: None,
            require_secret: false,
            tcpunch: true,
            logger: Logger::default(),
            limits: Limits::default(),
        }
    }
}

impl ServerOptions {
    /// Ranks that prove this secret are served as its jobs; at least 16 bytes.
    pub fn secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.secret = Some(secret.into());
        self
    }

    /// Refuses ranks that do not prove the secret.
    pub fn require_secret(mut self, require: bool) -> Self {
        self.require_secret = require;
        self
    }

    /// Whether clients of TCPunch, protocol 1, are served too: by default they
    /// are. Nothing is authenticated there, so they never are where a secret
    /// is required.
    pub fn tcpunch(mut self, serve: bool) -> Self {
        self.tcpunch = serve;
        self
    }

    /// Gives log lines up to `level` to `log`: at [`LogLevel::Info`] one for
    /// each rank that joins, leaves, is lost or refused, and for each pair
    /// that is told to connect.
    pub fn log(mut self, level: LogLevel, log: Arc<LogFunction>) -> Self {
        self.logger.add_function(level, log);
        self
    }
}

/// What the server lets others take of it.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Until a connection has joined.
    pub(super) handshake: Duration,
    /// Connections that have not joined, in all and from one source.
    pub(super) handshakes: usize,
    pub(super) handshakes_per_source: usize,
    /// Until the partner of a client of protocol 1 has come.
    pub(super) partner: Duration,
    /// Clients of protocol 1 that wait for their partners, in all and from one
    /// source.
    pub(super) waiting: usize,
    pub(super) waiting_per_source: usize,
    /// Members, in all.
    pub(super) members: usize,
    /// Members that have not proved the secret, in all and from one source.
    /// Those that have are known to belong together, and may share the address
    /// of a NAT.
    pub(super) strangers: usize,
    pub(super) strangers_per_source: usize,
    /// Bytes that a member has not read.
    pub(super) unread: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            handshakes: 4096,
            handshakes_per_source: 1024,
            // As long as a function may live on the largest of the clouds.
            partner: Duration::from_secs(900),
            waiting: 4096,
            waiting_per_source: 1024,
            members: 1 << 16,
            strangers: 1 << 16,
            strangers_per_source: 4096,
            unread: 256 * 1024,
        }
    }
}

impl Limits {
    /// The same where the process may not have descriptors for as many connections.
    /// Strangers cannot take all the room of those who know the secret.
    pub(super) fn within_descriptors(mut self, has_secret: bool) -> Self {
        let descriptors = descriptor_limit().saturating_sub(SPARE_DESCRIPTORS).max(4);
        self.handshakes = self.handshakes.min(descriptors / 2);
        self.waiting = self.waiting.min(descriptors / 4);
        self.members = self.members.min(descriptors - self.handshakes - self.waiting);
        let reserved = if has_secret { self.members / 4 } else { 0 };
        self.strangers = self.strangers.min(self.members - reserved);
        self
    }
}

/// How many descriptors this process may have.
fn descriptor_limit() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return 1024;
    }
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

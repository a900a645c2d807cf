//! Configuration: `fmi.json`, the environment, and what the program sets.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::log::{LogFunction, LogLevel, Logger};

/// How a call waits for what has not come yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitMode {
    /// Spin where there are cores enough, then sleep.
    Auto,
    /// Spin for ever: for a machine of one's own.
    Spin,
    /// Poll, giving up the processor in between.
    Yield,
    /// Sleep at once.
    Park,
}

/// Everything that configures a communicator.
#[derive(Clone, Default)]
pub struct Config {}

/// A function that says whether a blocked call shall end: `true` = interrupt.
pub type InterruptFunction = dyn Fn() -> bool + Send + Sync;

/// The configuration with all sources merged and every value checked.
#[derive(Clone)]
pub(crate) struct Settings {
    /// The rank and size that the environment states, where it does.
    pub(crate) rank: Option<u32>,
    pub(crate) size: Option<u32>,
    /// The identity of the run, where the environment or the user states one.
    pub(crate) job_id: Option<String>,
    /// The Direct channel, where it is enabled.
    pub(crate) direct: Option<DirectSettings>,
    /// Whether the Memory channel is enabled.
    pub(crate) memory: bool,
    /// What `timeout` says for all channels, if it is set; `Duration::MAX` = never.
    pub(crate) timeout: Option<Duration>,
    pub(crate) wait: WaitMode,
    /// How many bytes of messages that nobody has asked for yet an endpoint keeps.
    pub(crate) unexpected_limit: u64,
    /// Function memory in MiB (prices only).
    pub(crate) faas_memory_mib: u32,
    pub(crate) logger: Logger,
    pub(crate) interrupt: Option<Arc<InterruptFunction>>,
    /// Fingerprint of what all ranks must agree on.
    pub(crate) fingerprint: u64,
}

/// The Direct channel's part.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DirectSettings {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) max_timeout: Option<Duration>,
    /// Congestion control to ask the kernel for; `None` = chosen by path, "system" = the system's.
    pub(crate) congestion: Option<String>,
    /// The job secret.
    pub(crate) secret: Option<Vec<u8>>,
}

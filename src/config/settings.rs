//! The configuration with all sources merged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::environment::Environment;
use super::schema::{self, CHANNELS, Default, Kind, ROWS, Row, Value};
use super::source::{Entry, Literal, config_error, wrong};
use super::{Config, InterruptFunction, WaitMode};
use crate::error::Result;
use crate::log::{LogLevel, Logger};
use crate::model::{DirectParameters, Parameters, RedisParameters, S3Parameters, ServerParameters, Waiting};

/// 256 MiB hold what 256 peers may send uninvited under their credit of 1 MiB.
const UNEXPECTED_LIMIT: u64 = 256 << 20;

/// The configuration with all sources merged and every value checked.
#[derive(Clone)]
pub(crate) struct Settings {
    /// The rank and size that the environment states, where it does: both or neither.
    pub(crate) rank: Option<u32>,
    pub(crate) size: Option<u32>,
    /// The identity of the run, where the environment or the user states one.
    pub(crate) job_id: Option<String>,
    /// The Direct channel, where it is enabled.
    pub(crate) direct: Option<DirectSettings>,
    /// The Memory channel, where it is enabled.
    pub(crate) memory: Option<MemorySettings>,
    /// Channels that are enabled, and not in this build.
    pub(crate) absent: Vec<&'static str>,
    /// What `timeout_ms` says for all channels, if it is set; `Duration::MAX` = never.
    pub(crate) timeout: Option<Duration>,
    pub(crate) wait: WaitMode,
    /// How many bytes of messages that nobody has asked for yet an endpoint keeps.
    pub(crate) unexpected_limit: u64,
    /// Function memory in MiB (prices only).
    #[allow(dead_code, reason = "for the choice of the channel, which is to come")]
    pub(crate) faas_memory_mib: u32,
    /// What latency and price are predicted by.
    #[allow(dead_code, reason = "for the choice of the channel, which is to come")]
    pub(crate) model: Parameters,
    pub(crate) logger: Logger,
    pub(crate) interrupt: Option<Arc<InterruptFunction>>,
    /// Fingerprint of what all ranks must agree on: the model, the enabled
    /// channels, the function memory. See [`fingerprint`].
    pub(crate) fingerprint: u64,
}

/// The Memory channel's part.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MemorySettings {
    pub(crate) max_timeout: Option<Duration>,
}

/// The Direct channel's part.
#[derive(Clone, PartialEq)]
pub(crate) struct DirectSettings {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) max_timeout: Option<Duration>,
    /// How long the ranks of a pair try to connect before they start over.
    pub(crate) punch_timeout: Option<Duration>,
    pub(crate) protocol: RendezvousProtocol,
    /// Congestion control to ask the kernel for; `None` = chosen by path, "system" = the system's.
    pub(crate) congestion: Option<String>,
    /// The job secret.
    pub(crate) secret: Option<Vec<u8>>,
}

/// Which protocol the rendezvous server is spoken to in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RendezvousProtocol {
    /// The one that it answers in.
    Auto,
    /// Version 1, TCPunch's.
    TcPunch,
    /// Version 2.
    Own,
}

impl fmt::Debug for DirectSettings {
    /// Everything but the secret itself.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectSettings")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("max_timeout", &self.max_timeout)
            .field("punch_timeout", &self.punch_timeout)
            .field("protocol", &self.protocol)
            .field("congestion", &self.congestion)
            .field("secret", &self.secret.as_ref().map(|_| "..."))
            .finish()
    }
}

impl Settings {
    pub(super) fn new(config: &Config, environment: Environment<'_>) -> Result<Self> {
        let effective = Effective::new(config, environment)?;
        let (rank, size) = environment.rank_and_size()?.unzip();
        let secret = secret(config, &effective, environment)?;
        let logger = logger(config, &effective);
        for line in config.oddities() {
            logger.log(LogLevel::Warn, format_args!("{line}"));
        }
        Ok(Self {
            rank,
            size,
            job_id: effective.text("job_id"),
            direct: effective.is_enabled("Direct").then(|| DirectSettings {
                host: effective.text("backends.Direct.host").unwrap_or_default(),
                port: effective.integer("backends.Direct.port").unwrap_or_default(),
                max_timeout: effective.milliseconds("backends.Direct.max_timeout"),
                punch_timeout: effective.milliseconds("backends.Direct.punch_timeout"),
                protocol: match effective.text("backends.Direct.protocol").as_deref() {
                    Some("1") => RendezvousProtocol::TcPunch,
                    Some("2") => RendezvousProtocol::Own,
                    _ => RendezvousProtocol::Auto,
                },
                congestion: effective.text("backends.Direct.congestion"),
                secret,
            }),
            memory: effective.is_enabled("Memory").then(|| MemorySettings {
                max_timeout: effective.milliseconds("backends.Memory.max_timeout"),
            }),
            absent: ["Redis", "S3"].into_iter().filter(|channel| effective.is_enabled(channel)).collect(),
            timeout: effective.milliseconds("timeout_ms"),
            wait: effective
                .text("wait")
                .and_then(|name| WaitMode::from_name(&name))
                .unwrap_or(WaitMode::Auto),
            unexpected_limit: effective.integer("unexpected_limit").unwrap_or(UNEXPECTED_LIMIT),
            faas_memory_mib: effective.integer("faas_memory_mib").unwrap_or_default(),
            model: parameters(&effective),
            logger,
            interrupt: config.interrupt.clone(),
            fingerprint: fingerprint(config, &effective),
        })
    }
}

/// Every key of the schema that has a value, with that value, in the schema's order.
pub(super) struct Effective(Vec<(String, Checked)>);

/// A value, as it was written and as it was understood.
pub(super) struct Checked {
    pub(super) text: String,
    value: Value,
}

impl Effective {
    pub(super) fn new(config: &Config, environment: Environment<'_>) -> Result<Self> {
        let mut values = Vec::new();
        let channels = config.channels();
        for row in ROWS {
            let keys = if row.is_for_every_channel() {
                channels.iter().map(|channel| row.key(channel)).collect()
            } else {
                vec![row.pattern.to_owned()]
            };
            for key in keys {
                if let Some(value) = value(config, environment, row, &key)? {
                    values.push((key, value));
                }
            }
        }
        Ok(Self(values))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Checked)> {
        self.0.iter().map(|(key, checked)| (key.as_str(), checked))
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.iter().find(|(own, _)| *own == key).map(|(_, checked)| &checked.value)
    }

    fn text(&self, key: &str) -> Option<String> {
        match self.get(key) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    fn integer<T: TryFrom<u64>>(&self, key: &str) -> Option<T> {
        match self.get(key) {
            Some(Value::Integer(number)) => T::try_from(*number).ok(),
            _ => None,
        }
    }

    fn milliseconds(&self, key: &str) -> Option<Duration> {
        match self.get(key) {
            Some(Value::Integer(number)) => Some(Duration::from_millis(*number)),
            Some(Value::Never) => Some(Duration::MAX),
            _ => None,
        }
    }

    /// A number that has a default, as all numbers have.
    fn number(&self, key: &str) -> f64 {
        match self.get(key) {
            Some(Value::Number(number)) => *number,
            other => unreachable!("{key}: {other:?}"),
        }
    }

    fn is_true(&self, key: &str) -> bool {
        self.get(key) == Some(&Value::Bool(true))
    }

    fn is_enabled(&self, channel: &str) -> bool {
        self.is_true(&format!("backends.{channel}.enabled"))
    }
}

impl Config {
    /// The channels that FMI knows and those that the configuration names, sorted.
    fn channels(&self) -> BTreeSet<&str> {
        let named = self.file.channels.iter().chain(&self.set.channels).map(String::as_str);
        CHANNELS.into_iter().chain(named).collect()
    }

    /// Whether a channel is enabled that does not say so itself.
    fn is_enabled_unasked(&self, channel: &str) -> bool {
        if self.file.has_backends || self.set.has_backends {
            self.file.channels.contains(channel) || self.set.channels.contains(channel)
        } else {
            channel == "Direct"
        }
    }

    /// The values whose keys FMI does not know, sorted by key: those of custom
    /// channels, and oddities.
    pub(super) fn others(&self) -> BTreeMap<&str, &Entry> {
        let entries = self.file.entries.iter().chain(&self.set.entries);
        entries
            .filter(|(key, _)| schema::find(key).is_none())
            .map(|(key, entry)| (key.as_str(), entry))
            .collect()
    }

    /// What is allowed and probably a mistake.
    fn oddities(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (key, entry) in self.others() {
            let is_known = match schema::split(key) {
                Some((_, channel, _)) => CHANNELS.contains(&channel) || key.starts_with("model.FaaS."),
                None => true,
            };
            if is_known {
                lines.push(format!("{}: {}: unknown key, ignored", entry.origin, key.escape_debug()));
            }
        }
        for (key, entry) in self.file.entries.iter().chain(&self.set.entries) {
            if schema::find(key).is_some_and(|row| matches!(row.kind, Kind::Switch))
                && !matches!(entry.literal.text(), "true" | "false")
            {
                let found = &entry.literal;
                lines.push(format!(
                    "{}: {key}: neither true nor false, but {found}: taken for false",
                    entry.origin
                ));
            }
        }
        for channel in self.channels() {
            let similar = CHANNELS.iter().find(|known| known.eq_ignore_ascii_case(channel));
            if let Some(known) = similar.filter(|known| **known != channel) {
                lines.push(format!("backends.{channel}: taken for a custom channel, not for {known}"));
            }
        }
        lines
    }
}

/// The value of one key: set > environment > file > default.
fn value(config: &Config, environment: Environment<'_>, row: &Row, key: &str) -> Result<Option<Checked>> {
    let variable = row.variable(key);
    let (literal, origin) = if let Some(entry) = config.set.entries.get(key) {
        (entry.literal.clone(), entry.origin.to_string())
    } else if let Some(text) = from_environment(environment, &variable, key)? {
        (Literal::Text(text), format!("environment variable {variable}"))
    } else if let Some(entry) = config.file.entries.get(key) {
        (entry.literal.clone(), entry.origin.to_string())
    } else if let Some(text) = default(config, environment, row, key) {
        (Literal::Text(text), "the default".to_owned())
    } else {
        return Ok(None);
    };
    match row.kind.check(&literal) {
        Some(value) => Ok(Some(Checked { text: literal.text().to_owned(), value })),
        None => Err(wrong(&origin, key, row.kind.expected(), literal)),
    }
}

fn from_environment(environment: Environment<'_>, variable: &str, key: &str) -> Result<Option<String>> {
    Ok(match key {
        "backends.Direct.host" => environment.rendezvous()?.map(|(host, _)| host),
        "backends.Direct.port" => environment.rendezvous()?.map(|(_, port)| port.to_string()),
        _ => environment.text(variable)?,
    })
}

fn default(config: &Config, environment: Environment<'_>, row: &Row, key: &str) -> Option<String> {
    match (&row.default, schema::split(key)) {
        (Default::Value(text), _) => Some((*text).to_owned()),
        (_, Some(("backends", channel, "enabled"))) => Some(config.is_enabled_unasked(channel).to_string()),
        _ if key == "unexpected_limit" => {
            // A quarter, for the rest of the function's memory is the function's.
            let limit = environment.memory_limit().map_or(UNEXPECTED_LIMIT, |limit| limit / 4);
            Some(limit.min(UNEXPECTED_LIMIT).to_string())
        }
        _ => None,
    }
}

/// The parameters of the model.
fn parameters(effective: &Effective) -> Parameters {
    let server = |channel: &str, price| ServerParameters {
        price: effective.number(price),
        requests_per_hour: effective.number(&format!("model.{channel}.requests_per_hour")),
        is_included: effective.is_true(&format!("model.{channel}.include_infrastructure_costs")),
    };
    Parameters {
        gib_second_price: effective.number("model.FaaS.gib_second_price"),
        direct: DirectParameters {
            bandwidth: effective.number("model.Direct.bandwidth"),
            overhead: effective.number("model.Direct.overhead"),
            transfer_price: effective.number("model.Direct.transfer_price"),
            server: server("Direct", "model.Direct.vm_price"),
        },
        redis: RedisParameters {
            bandwidth_single: effective.number("model.Redis.bandwidth_single"),
            bandwidth_multiple: effective.number("model.Redis.bandwidth_multiple"),
            overhead: effective.number("model.Redis.overhead"),
            transfer_price: effective.number("model.Redis.transfer_price"),
            server: server("Redis", "model.Redis.instance_price"),
        },
        s3: S3Parameters {
            bandwidth: effective.number("model.S3.bandwidth"),
            overhead: effective.number("model.S3.overhead"),
            transfer_price: effective.number("model.S3.transfer_price"),
            download_price: effective.number("model.S3.download_price"),
            upload_price: effective.number("model.S3.upload_price"),
            waiting: Waiting::POLLING,
        },
    }
}

/// The job secret. Where the configuration names its variable, it must be there:
/// to go on without would be to go on unprotected.
fn secret(config: &Config, effective: &Effective, environment: Environment<'_>) -> Result<Option<Vec<u8>>> {
    let Some(name) = effective.text("secret_env") else { return Ok(None) };
    let secret = environment.secret(&name)?;
    let is_named = config.set.entries.contains_key("secret_env")
        || config.file.entries.contains_key("secret_env")
        || environment.text("FMI_SECRET_ENV")?.is_some();
    if secret.is_none() && is_named {
        return Err(config_error(format!(
            "environment variable {}: not set, but secret_env says that it holds the job secret",
            name.escape_debug()
        )));
    }
    Ok(secret)
}

fn logger(config: &Config, effective: &Effective) -> Logger {
    let mut logger = Logger::default();
    if let Some((level, function)) = &config.log {
        logger.add_function(*level, Arc::clone(function));
    }
    if let Some(level) = effective.text("log").and_then(|name| LogLevel::from_name(&name)) {
        logger.add_stderr(level);
    }
    logger
}

/// The first 64 bits of a SHA-256 over what all ranks must agree on, so that
/// all choose the same channel and algorithm: every parameter of the model
/// with its effective value, the names of the enabled channels, the function
/// memory. It does not depend on how a number is written, on whether a default
/// is spelt out, on the machine, or on anything that may rightly differ between
/// ranks (hosts, ports, timeouts, secrets).
fn fingerprint(config: &Config, effective: &Effective) -> u64 {
    let mut parts = BTreeMap::new();
    for (key, checked) in effective.iter() {
        let counts = match schema::split(key) {
            Some(("model", ..)) => true,
            Some(("backends", _, "enabled")) => checked.value == Value::Bool(true),
            _ => key == "faas_memory_mib",
        };
        if counts {
            parts.insert(key, canonical(&checked.text));
        }
    }
    for (key, entry) in config.others() {
        // Unknown parameters of known channels are ignored, here too.
        if let Some(("model", channel, _)) = schema::split(key)
            && !CHANNELS.contains(&channel)
            && channel != "FaaS"
        {
            parts.insert(key, canonical(entry.literal.text()));
        }
    }
    let mut hash = Sha256::new();
    hash.update(b"fmi configuration 1\0");
    for (key, value) in parts {
        // Neither holds a NUL byte, so that no two sets of parts look alike.
        hash.update(format!("{key}\0{value}\0"));
    }
    let digest = hash.finalize();
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// One spelling for each number.
fn canonical(text: &str) -> String {
    match text.parse::<f64>() {
        // Adding 0 makes 0 of -0.
        Ok(number) => format!("{:016x}", (number + 0.0).to_bits()),
        Err(_) => text.to_owned(),
    }
}

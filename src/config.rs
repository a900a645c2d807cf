//! Configuration: `fmi.json`, the environment, and what the program sets.
//!
//! `schema` holds one row per key, `source` turns JSON text and single keys into
//! layers of values, `environment` asks the surroundings, and `settings` merges
//! all of them into what the rest of the crate reads.

mod environment;
mod schema;
mod settings;
mod source;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use environment::Environment;
use settings::Effective;
pub(crate) use settings::{DirectSettings, RendezvousProtocol, Settings};
use source::{Layer, MAX_JSON_BYTES, config_error};

use crate::error::Result;
use crate::log::{LogFunction, LogLevel};

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

impl WaitMode {
    /// The mode with this name (`auto`, `spin`, `yield`, `park`).
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "auto" => Self::Auto,
            "spin" => Self::Spin,
            "yield" => Self::Yield,
            "park" => Self::Park,
            _ => return None,
        })
    }
}

/// A function that says whether a blocked call shall end: `true` = interrupt.
pub(crate) type InterruptFunction = dyn Fn() -> bool + Send + Sync;

/// Everything that configures a communicator.
///
/// Of several sources for one key the first of these counts, in whatever order
/// the calls come: [`set`](Self::set), the environment, [`load`](Self::load) and
/// [`parse`](Self::parse) (a later one over an earlier one, key by key), the
/// default. The environment is read when a communicator is made. Keys, types,
/// defaults and variables: `docs/configuration.md`.
#[derive(Clone, Default)]
pub struct Config {
    file: Layer,
    set: Layer,
    log: Option<(LogLevel, Arc<LogFunction>)>,
    interrupt: Option<Arc<InterruptFunction>>,
}

impl Config {
    /// A configuration that holds nothing: environment and defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// What C programs and the original name by one text: "" is the environment
    /// and the defaults alone, text that starts with `{` is the JSON itself,
    /// anything else the path of a file.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load) and [`parse`](Self::parse).
    pub fn from_path_or_json(text: &str) -> Result<Self> {
        let mut config = Self::new();
        if text.trim_start().starts_with('{') {
            config.parse(text)?;
        } else if !text.is_empty() {
            config.load(text)?;
        }
        Ok(config)
    }

    /// Takes over what a JSON file says.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the file is missing,
    /// cannot be read, is no JSON or longer than 1 MiB, or when a value is of the
    /// wrong type or out of range; the message names the file, the key, what was
    /// expected and what was found. The configuration is then what it was before.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_JSON_BYTES as u64 + 1).read_to_end(&mut bytes))
            .map_err(|error| {
                config_error(format!("{name}: cannot read the configuration: {error}"))
                    .with_errno(error.raw_os_error().unwrap_or(0))
            })?;
        if bytes.len() > MAX_JSON_BYTES {
            return Err(config_error(format!("{name}: longer than {MAX_JSON_BYTES} bytes")));
        }
        let text = str::from_utf8(&bytes).map_err(|error| {
            config_error(format!(
                "{name}: expected UTF-8 text, found other bytes at offset {}",
                error.valid_up_to()
            ))
        })?;
        self.file.merge(Layer::from_json(text, &name)?);
        Ok(())
    }

    /// Takes over what JSON text says.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load); the message calls the source "the JSON text".
    pub fn parse(&mut self, json: &str) -> Result<()> {
        self.file.merge(Layer::from_json(json, "the JSON text")?);
        Ok(())
    }

    /// Sets one key by its dotted name, such as `backends.Direct.host`. It counts
    /// over every other source. A key of a channel stands for its section: it
    /// enables the channel, unless `enabled` says otherwise.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when `key` is the name of a
    /// section, or `value` is of the wrong type or out of range. A key that FMI
    /// does not know is kept, and a warning in the log.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        self.set.set(key, value)
    }

    /// Sets the memory of one function in MiB, which prices the time that ranks
    /// wait: the key `faas_memory_mib`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when it is 0.
    pub fn set_faas_memory_mib(&mut self, mib: u32) -> Result<()> {
        self.set("faas_memory_mib", &mib.to_string())
    }

    /// Sets the function that is asked, on the calling thread, whether a blocked
    /// call shall end (`true`), after a byte came through
    /// [`wakeup_fd`](crate::Communicator::wakeup_fd). Without one the byte itself
    /// ends the call.
    pub fn set_interrupt(&mut self, check: impl Fn() -> bool + Send + Sync + 'static) {
        self.interrupt = Some(Arc::new(check));
    }

    /// Sets the function that gets the log lines up to `level`, on the calling
    /// thread. It replaces an earlier one; standard error is the key `log`.
    pub fn set_log(&mut self, level: LogLevel, log: impl Fn(LogLevel, &str) + Send + Sync + 'static) {
        self.log = Some((level, Arc::new(log)));
    }

    /// Visits every key that has a value with its effective value, defaults and
    /// environment included: first those that FMI knows, in the order of
    /// `docs/configuration.md`, then all others, sorted. Values that are no
    /// scalars are JSON text. No secret is among them. The first error that
    /// `visit` returns ends the visit, and is returned.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when an environment
    /// variable holds a wrong value; and what `visit` returns.
    pub fn each(&self, visit: impl FnMut(&str, &str) -> Result<()>) -> Result<()> {
        self.each_with(Environment::of_process(), visit)
    }

    /// Visits every key that is spelt out, in what was loaded or by
    /// [`set`](Self::set), with its value as it stands there, sorted: without
    /// environment and defaults. The first error that `visit` returns ends the visit,
    /// and is returned.
    ///
    /// # Errors
    ///
    /// What `visit` returns.
    pub fn each_given(&self, mut visit: impl FnMut(&str, &str) -> Result<()>) -> Result<()> {
        let mut given = self.file.entries.clone();
        given.extend(self.set.entries.clone());
        given.iter().try_for_each(|(key, entry)| visit(key, entry.literal.text()))
    }

    fn each_with(
        &self,
        environment: Environment<'_>,
        mut visit: impl FnMut(&str, &str) -> Result<()>,
    ) -> Result<()> {
        for (key, checked) in Effective::new(self, environment)?.iter() {
            visit(key, &checked.text)?;
        }
        for (key, entry) in self.others() {
            visit(key, entry.literal.text())?;
        }
        Ok(())
    }

    /// Merges all sources. Warnings of unknown keys go to the log.
    pub(crate) fn settings(&self) -> Result<Settings> {
        Settings::new(self, Environment::of_process())
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("file", &self.file).field("set", &self.set).finish_non_exhaustive()
    }
}

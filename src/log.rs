//! Log lines: to the user's callback, or to standard error where `FMI_LOG`
//! asks for it; else nowhere.

use std::fmt;
use std::sync::Arc;

/// How much is logged. The numbers are those of the C API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum LogLevel {
    /// Nothing.
    Off = 0,
    /// What made a call fail.
    Error = 1,
    /// What is odd, such as an unknown configuration key.
    Warn = 2,
    /// One line per event: joined, linked, left.
    Info = 3,
    /// Everything of interest to somebody who looks for a fault.
    Debug = 4,
}

impl LogLevel {
    /// The level with this name (`off`, `error`, `warn`, `info`, `debug`).
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "off" => Self::Off,
            "error" => Self::Error,
            "warn" => Self::Warn,
            "info" => Self::Info,
            "debug" => Self::Debug,
            _ => return None,
        })
    }

    /// The level with this number.
    pub fn from_code(code: i32) -> Option<Self> {
        [Self::Off, Self::Error, Self::Warn, Self::Info, Self::Debug].into_iter().find(|l| *l as i32 == code)
    }

    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// The user's log function.
pub type LogFunction = dyn Fn(LogLevel, &str) + Send + Sync;

/// Where log lines go, and which.
#[derive(Clone, Default)]
pub(crate) struct Logger {
    sinks: Vec<(LogLevel, Sink)>,
}

#[derive(Clone)]
enum Sink {
    Function(Arc<LogFunction>),
    Stderr,
}

impl Logger {
    /// Adds the user's function, for lines up to `level`.
    pub(crate) fn add_function(&mut self, level: LogLevel, function: Arc<LogFunction>) {
        self.sinks.push((level, Sink::Function(function)));
    }

    /// Adds standard error, for lines up to `level`.
    pub(crate) fn add_stderr(&mut self, level: LogLevel) {
        self.sinks.push((level, Sink::Stderr));
    }

    /// Logs one line.
    pub(crate) fn log(&self, level: LogLevel, text: fmt::Arguments<'_>) {
        if !self.sinks.iter().any(|(limit, _)| level <= *limit) {
            return;
        }
        let text = text.to_string();
        for (limit, sink) in &self.sinks {
            if level > *limit {
                continue;
            }
            match sink {
                Sink::Function(function) => function(level, &text),
                Sink::Stderr => eprintln!("fmi {}: {text}", level.name()),
            }
        }
    }
}

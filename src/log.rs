//! Log lines: to the user's callback, or to standard error where `FMI_LOG`
//! asks for it; else nowhere.

use std::fmt::{self, Write as _};
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
pub(crate) type LogFunction = dyn Fn(LogLevel, &str) + Send + Sync;

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
        let mut line = None;
        for (limit, sink) in &self.sinks {
            // Off is a limit, and no level of a line.
            if level == LogLevel::Off || level > *limit {
                continue;
            }
            let line = line.get_or_insert_with(|| one_line(text));
            match sink {
                Sink::Function(function) => function(level, line),
                Sink::Stderr => write_to_stderr(&format!("fmi {}: {line}\n", level.name())),
            }
        }
    }
}

/// Writes a line at once, so that the lines of processes that share standard
/// error stay whole. By the bare call, because std's takes a lock, which a thread
/// of the parent may have held when it forked us; and without a signal where
/// nobody reads any more.
fn write_to_stderr(line: &str) {
    // SAFETY: the sets are initialised before they are read, the text is valid
    // for reads of its length, and only this thread's mask is touched.
    unsafe {
        let [mut pipe, mut before, mut pending] = std::mem::zeroed::<[libc::sigset_t; 3]>();
        libc::sigemptyset(&mut pipe);
        libc::sigaddset(&mut pipe, libc::SIGPIPE);
        libc::sigpending(&mut pending);
        libc::pthread_sigmask(libc::SIG_BLOCK, &pipe, &mut before);
        let written = libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len());
        let is_broken = written < 0 && *libc::__errno_location() == libc::EPIPE;
        if is_broken && libc::sigismember(&pending, libc::SIGPIPE) == 0 {
            let no_time = std::mem::zeroed();
            libc::sigtimedwait(&pipe, std::ptr::null_mut(), &no_time);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
    }
}

/// The text with its control characters escaped: it may hold what a file or a
/// peer says, and shall neither forge a second line nor move a terminal's cursor.
fn one_line(text: fmt::Arguments<'_>) -> String {
    let text = text.to_string();
    if !text.contains(char::is_control) {
        return text;
    }
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            let _ = write!(line, "{}", c.escape_debug());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn levels_have_names_and_numbers() {
        for (code, name) in ["off", "error", "warn", "info", "debug"].into_iter().enumerate() {
            let level = LogLevel::from_name(name).unwrap();
            assert_eq!(level.name(), name);
            assert_eq!(LogLevel::from_code(code as i32), Some(level));
        }
        assert_eq!(LogLevel::from_name("Warn"), None);
        assert_eq!(LogLevel::from_code(-1), None);
        assert_eq!(LogLevel::from_code(5), None);
    }

    #[test]
    fn a_sink_gets_the_lines_up_to_its_level() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let mut logger = Logger::default();
        for (name, limit) in [("off", LogLevel::Off), ("warn", LogLevel::Warn), ("debug", LogLevel::Debug)] {
            let lines = Arc::clone(&lines);
            logger.add_function(
                limit,
                Arc::new(move |level, text: &str| lines.lock().unwrap().push((name, level, text.to_owned()))),
            );
        }
        logger.log(LogLevel::Warn, format_args!("a{}", 1));
        logger.log(LogLevel::Info, format_args!("b"));
        logger.log(LogLevel::Off, format_args!("c"));
        assert_eq!(
            *lines.lock().unwrap(),
            [
                ("warn", LogLevel::Warn, "a1".to_owned()),
                ("debug", LogLevel::Warn, "a1".to_owned()),
                ("debug", LogLevel::Info, "b".to_owned()),
            ]
        );
    }

    #[test]
    fn a_line_stays_one_line() {
        assert_eq!(one_line(format_args!("a\nfmi error: \x1b[2J\u{e9}")), "a\\nfmi error: \\u{1b}[2J\u{e9}");
    }
}

//! `fmi serve`: the rendezvous server.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fmi::rendezvous::{Server, ServerOptions};
use fmi::{Error, LogLevel, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::{descriptors, say};

/// Run a rendezvous server, through which the ranks of jobs find each other
///
/// The environment variable FMI_SECRET holds the secret of its jobs, if they
/// have one: at least 16 bytes. Ends in order on SIGINT and SIGTERM.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where to listen; port 0 is any free port
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:10000")]
    listen: SocketAddr,
    /// Refuse ranks that do not prove the secret
    #[arg(long)]
    require_secret: bool,
    /// What to speak: version 2 is FMI's own, auto is TCPunch's, version 1, too
    #[arg(long, value_enum, default_value = "auto")]
    protocol: Protocol,
    /// What to log on standard error: off, error, warn, info or debug
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = level)]
    log: LogLevel,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Protocol {
    /// Both; version 1 never where the secret is required
    Auto,
    /// FMI's own alone
    #[value(name = "2")]
    Two,
}

fn level(text: &str) -> Result<LogLevel, String> {
    LogLevel::from_name(text).ok_or_else(|| "none of off, error, warn, info and debug".to_owned())
}

pub(crate) fn serve(arguments: Arguments) -> ExitCode {
    match try_serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("fmi serve: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether standard error takes a line at once. Whoever holds the other end of
/// a pipe and does not read it shall not stop the server. A pipe that is ready
/// has room for a page, more than any two lines.
fn takes_a_line() -> bool {
    let mut stderr = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one valid entry, and no waiting.
    unsafe { libc::poll(&mut stderr, 1, 0) == 1 }
}

fn try_serve(arguments: Arguments) -> Result<()> {
    descriptors::raise_limit();
    let lost = AtomicU64::new(0);
    let log = move |level: LogLevel, text: &str| {
        if !takes_a_line() {
            lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        match lost.swap(0, Ordering::Relaxed) {
            0 => {}
            count => say(format_args!("fmi serve: warn: {count} lines were lost: nobody read them")),
        }
        say(format_args!("fmi serve: {}: {text}", level.name()));
    };
    let mut options = ServerOptions::default()
        .require_secret(arguments.require_secret)
        .tcpunch(arguments.protocol == Protocol::Auto)
        .log(arguments.log, Arc::new(log));
    if let Some(secret) = std::env::var_os("FMI_SECRET") {
        options = options.secret(secret.into_encoded_bytes());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io("cannot make a runtime", &error))?;
    runtime.block_on(async {
        let signals = |kind| signal(kind).map_err(|error| Error::io("cannot wait for signals", &error));
        let (mut interrupt, mut terminate) =
            (signals(SignalKind::interrupt())?, signals(SignalKind::terminate())?);
        let server = Server::bind(arguments.listen, options)?;
        // Whoever asked for port 0 reads it here, perhaps from a pipe.
        let mut stdout = std::io::stdout();
        let _ = writeln!(stdout, "fmi serve: listening on {}", server.local_addr());
        let _ = stdout.flush();
        let stopped = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        server.run(stopped).await
    })
}

//! The `fmi` command: one file per subcommand.

mod descriptors;
mod duration;
mod output;
mod run;
mod serve;
mod signals;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// FaaS Message Interface: MPI-style message passing for serverless functions
#[derive(Parser)]
#[command(name = "fmi", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Arguments),
    Serve(serve::Arguments),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(arguments) => run::run(arguments),
        Command::Serve(arguments) => serve::serve(arguments),
    }
}

/// Says something to the user. Unlike `eprintln!` it goes on when nobody can
/// hear it.
fn say(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

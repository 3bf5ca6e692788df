//! `jepsen`: runs, checks and reports.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use watchword_jepsen::cli::check::{self, CheckArgs};
use watchword_jepsen::cli::export::{self, ExportArgs};

/// Fault injection on real Watchword processes, and the proof of what they did.
#[derive(Debug, Parser)]
#[command(name = "jepsen", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(CheckArgs),
    ExportEdn(ExportArgs),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Check(args) => check::run(&args),
        Command::ExportEdn(args) => export::run(&args),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("jepsen: {error:#}");
            ExitCode::from(2)
        }
    }
}

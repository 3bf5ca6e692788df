//! `jepsen`: runs, checks and reports.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use watchword_jepsen::cli::check::{self, CheckArgs};
use watchword_jepsen::cli::export::{self, ExportArgs};
use watchword_jepsen::cli::list::{self, ListArgs};
use watchword_jepsen::cli::run::{self, PerformArgs, ProveArgs, ReplayArgs, RunArgs, SoakArgs};
use watchword_jepsen::cli::sum::{self, SumArgs};

/// Fault injection on real Watchword processes, and the proof of what they did.
#[derive(Debug, Parser)]
#[command(name = "jepsen", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(RunArgs),
    Soak(SoakArgs),
    Replay(ReplayArgs),
    Prove(ProveArgs),
    List(ListArgs),
    Check(CheckArgs),
    Sum(SumArgs),
    ExportEdn(ExportArgs),
    #[command(hide = true)]
    Perform(PerformArgs),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Soak(args) => run::soak(&args),
        Command::Replay(args) => run::replay(&args),
        Command::Prove(args) => run::prove(&args),
        Command::List(args) => list::run(&args),
        Command::Perform(args) => run::perform(&args),
        Command::Check(args) => check::run(&args),
        Command::Sum(args) => sum::run(&args),
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

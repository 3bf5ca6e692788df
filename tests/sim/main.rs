//! Whole nodes of Watchword under simulated time and network.
//!
//! One process simulates one seed: hosts, network, clocks and disks are simulated, what runs on them is the
//! product, from the RADIUS exchange to the replicated log. Faults are drawn from the seed. After every tick
//! each file in [`invariant`] has its say. In reading order:
//!
//! * [`scenario`]: what a seed stands for
//! * [`world`]: one run, from the making of the cluster to its healing
//! * [`host`], [`net`]: a host and the node on it
//! * [`nas`], [`operator`], [`engineer`]: clients, administrators, and who replaces nodes
//! * [`fault`]: who breaks things; [`link`]: the links between hosts
//! * [`history`]: what the outside has seen; [`observe`]: what can be seen of the nodes
//! * [`invariant`]: what must hold
//! * [`entropy`]: time and randomness for all code of the process
//! * [`seeds`]: many seeds, each in a process of its own

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod engineer;
mod entropy;
mod fault;
mod history;
mod host;
mod invariant;
mod link;
mod nas;
mod net;
mod observe;
mod operator;
mod scenario;
mod seeds;
mod world;

/// Simulates clusters of Watchword, breaks them, and checks what must never happen.
#[derive(Parser)]
#[command(
    name = "sim",
    after_help = "Examples:
  sim seed 7                     one seed
  sim seed 7 --log info          the same, with the nodes' logs
  sim run --from 1 --count 40    forty seeds
  sim twice 7                    the same seed twice: is the trace the same?"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one seed
    Seed {
        /// The seed
        seed: u64,
        #[command(flatten)]
        length: Length,
        /// What of the nodes' logs is shown, as `warn` or `watchword_cluster=debug`
        #[arg(long, default_value = "off")]
        log: String,
        /// Writes down everything that happens
        #[arg(long, value_name = "FILE")]
        trace: Option<PathBuf>,
    },
    /// Runs many seeds, each in a process of its own
    Run {
        /// The first seed
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// How many
        #[arg(long, default_value_t = 40)]
        count: u64,
        /// One more, that nobody knows beforehand
        #[arg(long)]
        random: bool,
        /// Ends with the first seed that fails
        #[arg(long)]
        fail_fast: bool,
        /// Processes at once [default: one for each core]
        #[arg(long)]
        jobs: Option<usize>,
        #[command(flatten)]
        length: Length,
    },
    /// Runs one seed twice and compares the traces
    Twice {
        /// The seed
        seed: u64,
        #[command(flatten)]
        length: Length,
    },
}

#[derive(clap::Args, Clone, Copy)]
struct Length {
    /// Ticks of two milliseconds with faults; the healing comes on top. No more than 20,000: a user who is locked
    /// must stay so for all of the run
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    ticks: u64,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Seed { seed, length, log, trace } => {
            seeds::one(seed, length.ticks, &log, trace.as_deref())
        }
        Command::Run { from, count, random, fail_fast, jobs, length } => {
            seeds::many(&seeds::Wanted {
                from,
                count,
                random,
                fail_fast,
                jobs,
                ticks: length.ticks,
            })
        }
        Command::Twice { seed, length } => seeds::twice(seed, length.ticks),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

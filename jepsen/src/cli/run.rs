//! `jepsen run`, `soak`, `replay` and `prove`: what makes runs.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;

use crate::checker::Validity;
use crate::lab;
use crate::report::{Results, Sums};
use crate::rng::Rng;
use crate::run::{self, Options};
use crate::runner::{Circumstances, Job};
use crate::suite::Suite;
use crate::workload;

/// What every command that makes runs takes.
#[derive(Debug, Args)]
struct Common {
    /// The program under test.
    #[arg(long, value_name = "PATH", default_value = "target/release/watchword")]
    watchword: PathBuf,
    /// Where runs are stored.
    #[arg(long, value_name = "DIR", default_value = "store")]
    store: PathBuf,
    /// How many runs go on at once.
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
}

impl Common {
    fn circumstances(&self) -> Circumstances<'_> {
        Circumstances { watchword: &self.watchword, store: &self.store, at_once: self.jobs }
    }
}

/// Makes the runs of a suite.
///
/// Exits with 0 when all are valid, 1 when one is invalid, 3 when one cannot be told.
#[derive(Debug, Args)]
#[command(after_help = "Example: jepsen run smoke --jobs 2 --watchword target/release/watchword")]
pub struct RunArgs {
    /// A shipped suite (see `jepsen list`), or the path of one.
    suite: String,
    /// What everything random follows from; drawn and printed when absent.
    #[arg(long)]
    seed: Option<u64>,
    /// Only the run of this name.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// The seed of the one run that `--only` names, as its report shows it.
    #[arg(long, value_name = "SEED", requires = "only", conflicts_with = "seed")]
    exactly: Option<u64>,
    #[command(flatten)]
    common: Common,
}

/// Makes one run after another that the seed draws, until they are enough or one is invalid.
#[derive(Debug, Args)]
#[command(after_help = "Example: jepsen soak --runs 200 --jobs 2")]
pub struct SoakArgs {
    /// How many.
    #[arg(long, default_value_t = 10)]
    runs: usize,
    /// What everything random follows from; drawn and printed when absent.
    #[arg(long)]
    seed: Option<u64>,
    /// The suite that is drawn from.
    #[arg(long, default_value = "soak")]
    suite: String,
    /// Go on when a run is invalid.
    #[arg(long)]
    keep_going: bool,
    #[command(flatten)]
    common: Common,
}

/// Makes a stored run once more, with the same options and the same seed.
#[derive(Debug, Args)]
#[command(after_help = "Example: jepsen replay store/smoke/20260214T101500-7")]
pub struct ReplayArgs {
    /// The directory of the run.
    dir: PathBuf,
    /// Another program under test.
    #[arg(long, value_name = "PATH")]
    watchword: Option<PathBuf>,
    /// Where runs are stored.
    #[arg(long, value_name = "DIR", default_value = "store")]
    store: PathBuf,
}

/// Shows on this machine that what is guaranteed holds while things break.
#[derive(Debug, Args)]
#[command(after_help = "Example: jepsen prove --watchword /usr/bin/watchword")]
pub struct ProveArgs {
    #[command(flatten)]
    common: Common,
}

/// Carries out one stored run, inside the laboratory.
#[derive(Debug, Args)]
pub struct PerformArgs {
    /// The directory of the run.
    dir: PathBuf,
}

/// `jepsen run`.
///
/// # Errors
/// When there is no such suite, or a run cannot be begun.
pub fn run(args: &RunArgs) -> Result<u8> {
    let suite = Suite::find(&args.suite)?;
    if let Some(only) = &args.only {
        let names: Vec<&str> = suite.runs.iter().map(|run| run.name.as_str()).collect();
        let known = names.contains(&only.as_str());
        ensure!(known, "suite {} has no run {only:?}; it has {}", args.suite, names.join(", "));
    }
    let circumstances = args.common.circumstances();
    let jobs = match (args.exactly, &args.only) {
        (Some(seed), Some(only)) => {
            let chosen = suite.runs.iter().filter(|run| run.name == *only);
            chosen.map(|run| circumstances.job(&args.suite, run, seed)).collect::<Result<_>>()?
        }
        _ => {
            let seed = announced(args.seed);
            circumstances.jobs(&args.suite, &suite, seed, args.only.as_deref())?
        }
    };
    Ok(exit_status(&circumstances.make(jobs)?))
}

/// `jepsen soak`.
///
/// # Errors
/// As [`run`].
pub fn soak(args: &SoakArgs) -> Result<u8> {
    let suite = Suite::find(&args.suite)?;
    let circumstances = args.common.circumstances();
    let mut seeds = Rng::new(announced(args.seed)).fork("soak");
    let mut made = Vec::new();
    while made.len() < args.runs {
        let count = args.common.jobs.max(1).min(args.runs - made.len());
        let drawn =
            (made.len()..made.len() + count).zip(suite.runs.iter().cycle().skip(made.len()));
        let jobs =
            drawn.map(|(_, run)| circumstances.job(&args.suite, run, seeds.next_u64() >> 32));
        made.extend(circumstances.make(jobs.collect::<Result<_>>()?)?);
        if !args.keep_going && exit_status(&made) == Validity::Invalid.exit_status() {
            break;
        }
    }
    let mut sums = Sums::default();
    made.iter().for_each(|(_, results)| sums.add(results));
    print!("\n{sums}");
    Ok(exit_status(&made))
}

/// `jepsen replay`.
///
/// # Errors
/// When there is no such run.
pub fn replay(args: &ReplayArgs) -> Result<u8> {
    let mut options = Options::read(&args.dir)?;
    if let Some(watchword) = &args.watchword {
        options.watchword = std::fs::canonicalize(watchword)?;
    }
    let watchword = options.watchword.clone();
    let circumstances = Circumstances { watchword: &watchword, store: &args.store, at_once: 1 };
    let job = circumstances.again(options);
    Ok(exit_status(&circumstances.make(vec![job])?))
}

/// `jepsen prove`.
///
/// # Errors
/// As [`run`].
pub fn prove(args: &ProveArgs) -> Result<u8> {
    let suite = Suite::find("smoke")?;
    let circumstances = args.common.circumstances();
    let jobs = circumstances.jobs("smoke", &suite, announced(None), None)?;
    let made = circumstances.make(jobs)?;
    println!();
    for name in workload::NAMES {
        let Some(workload) = workload::by_name(name, &Rng::new(0)) else { continue };
        let prefix = format!("{name}/");
        let holds = guarantee(&made, |checker| checker.ends_with(&prefix));
        println!("{:8} {}", word(holds), workload.about());
    }
    let healed = word(guarantee(&made, |checker| checker == "healed"));
    println!("{healed:8} the cluster is whole again by itself when nothing is broken any more");
    Ok(exit_status(&made))
}

/// Whether a guarantee holds, by the findings that are about it. It is not shown by a run of which something
/// else cannot be told: its faults may not have acted.
fn guarantee(made: &[(Job, Results)], is_about: impl Fn(&str) -> bool) -> Validity {
    let of_run = |results: &Results| {
        let own = results.findings.iter().filter(|finding| is_about(&finding.checker));
        let worst = own.map(|finding| finding.validity).max()?;
        Some(if worst == Validity::Valid { results.verdict.min(Validity::Unknown) } else { worst })
    };
    made.iter().filter_map(|(_, results)| of_run(results)).max().unwrap_or(Validity::Unknown)
}

/// What an operator reads of a guarantee.
const fn word(validity: Validity) -> &'static str {
    match validity {
        Validity::Valid => "pass",
        Validity::Invalid => "FAIL",
        Validity::Unknown => "unknown",
    }
}

/// What a run's own process does.
///
/// # Errors
/// When it is not inside a laboratory, or cannot store its verdict.
pub fn perform(args: &PerformArgs) -> Result<u8> {
    lab::enter()?;
    let validity = run::perform(&args.dir, &|line| println!("{line}"))?;
    Ok(validity.exit_status())
}

fn exit_status(made: &[(Job, Results)]) -> u8 {
    let worst = made.iter().map(|(_, results)| results.verdict).max();
    worst.unwrap_or(Validity::Unknown).exit_status()
}

/// The seed, printed, so that whoever looks at a failure can have it again.
fn announced(seed: Option<u64>) -> u64 {
    let drawn = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8) >> 32;
    let seed = seed.unwrap_or_else(drawn);
    println!("seed {seed}");
    seed
}

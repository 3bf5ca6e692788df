//! Many seeds, each in a process of its own: what one leaves behind in a process must not
//! change the next.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, anyhow, bail, ensure};

use crate::scenario::Scenario;
use crate::world;

/// Runs one seed in this process.
///
/// # Errors
/// What went wrong, with the command that shows it again.
pub(crate) fn one(seed: u64, ticks: u64, log: &str, trace: Option<&Path>) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(log).context("--log")?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let scenario = Scenario::new(seed, ticks);
    println!("{scenario}");
    // A new thread: the first one has drawn the keys of its hash maps before `main`.
    let ran = thread::scope(|scope| scope.spawn(|| world::run(&scenario, trace)).join());
    let ran = ran.unwrap_or_else(|_| Err(anyhow!("the simulation panicked")));
    let report = ran.with_context(|| {
        let again = format!("cargo run -p watchword-sim -- seed {seed} --ticks {ticks}");
        format!("seed {seed} failed; to see it again: {again}")
    })?;
    println!("seed {seed}: {report}");
    Ok(())
}

fn spawn(seed: u64, ticks: u64) -> io::Result<Output> {
    let program = std::env::current_exe()?;
    let (seed, ticks) = (seed.to_string(), ticks.to_string());
    let mut command = Command::new(program);
    command.args(["seed", &seed, "--ticks", &ticks]).stdin(Stdio::null()).output()
}

/// The line of a run that says what it came to.
fn outcome(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().last().unwrap_or_default().to_owned()
}

/// Which seeds are run, and how.
pub(crate) struct Wanted {
    pub(crate) from: u64,
    pub(crate) count: u64,
    /// One more, that nobody knows beforehand.
    pub(crate) random: bool,
    /// Whether the first that fails is the last.
    pub(crate) fail_fast: bool,
    /// Processes at once; as many as there are cores if nothing is said.
    pub(crate) jobs: Option<usize>,
    pub(crate) ticks: u64,
}

/// Runs many seeds, each in a process of its own.
///
/// # Errors
/// When a seed fails.
pub(crate) fn many(wanted: &Wanted) -> anyhow::Result<()> {
    let mut seeds: Vec<_> = (wanted.from..wanted.from.saturating_add(wanted.count)).collect();
    if wanted.random {
        let seed = u64::from(u32::from_le_bytes(watchword::random::bytes()?));
        println!("the random seed is {seed}");
        seeds.push(seed);
    }
    let jobs =
        wanted.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let (begun, next) = (Instant::now(), AtomicU64::new(0));
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let turn = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).ok();
                    let Some(&seed) = turn.and_then(|turn| seeds.get(turn)) else { return };
                    let said = match spawn(seed, wanted.ticks) {
                        Ok(output) if output.status.success() => {
                            println!("{}", outcome(&output));
                            continue;
                        }
                        Ok(output) => {
                            let scenario = String::from_utf8_lossy(&output.stdout).into_owned();
                            format!("{scenario}{}", String::from_utf8_lossy(&output.stderr))
                        }
                        Err(error) => error.to_string(),
                    };
                    drop(writeln!(io::stderr(), "{said}"));
                    failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(seed);
                    if wanted.fail_fast {
                        next.store(u64::MAX / 2, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let (all, seconds) = (seeds.len(), begun.elapsed().as_secs());
    if failed.is_empty() || !wanted.fail_fast {
        println!("{} of {all} seeds passed in {seconds} s", all - failed.len());
    }
    ensure!(failed.is_empty(), "these seeds failed: {failed:?}");
    Ok(())
}

/// Runs a seed twice.
///
/// # Errors
/// When it fails, or the two runs are not the same.
pub(crate) fn twice(seed: u64, ticks: u64) -> anyhow::Result<()> {
    let [first, second] = [spawn(seed, ticks)?, spawn(seed, ticks)?];
    for output in [&first, &second] {
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    let [first, second] = [outcome(&first), outcome(&second)];
    ensure!(first == second, "the same seed gave two runs:\n  {first}\n  {second}");
    println!("{first}\nthe same twice");
    Ok(())
}

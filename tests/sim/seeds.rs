//! Many seeds, each in a process of its own: what one leaves behind in a process must not
//! change the next.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio, exit};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};

use crate::scenario::{Fault, Scenario};
use crate::world;

/// How long a seed may take, by a real clock: some seconds do.
const PATIENCE: Duration = Duration::from_secs(300);
/// How the line begins that tells what can be added up.
const COUNTS: &str = "counts ";
/// Of so many seeds each fault must have acted in some.
const SEEDS_OF_ALL_FAULTS: u64 = 40;

/// Runs one seed in this process.
///
/// # Errors
/// What went wrong, with the command that shows it again.
pub(crate) fn one(seed: u64, ticks: u64, log: &str, trace: Option<&Path>) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(log).context("--log")?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let scenario = Scenario::new(seed, ticks);
    println!("{scenario}");
    let (_running, ended) = mpsc::channel::<()>();
    thread::spawn(move || {
        // A tick that never ends is a defect, too.
        if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            eprintln!("sim: seed {seed} does not end; to see it again: {}", again(seed, ticks));
            exit(1);
        }
    });
    // A new thread: the first one has drawn the keys of its hash maps before `main`.
    let ran = thread::scope(|scope| scope.spawn(|| world::run(&scenario, trace)).join());
    let ran = ran.unwrap_or_else(|_| Err(anyhow!("the simulation panicked")));
    let report = ran
        .with_context(|| format!("seed {seed} failed; to see it again: {}", again(seed, ticks)))?;
    let counts: Vec<_> = report.counts().map(|(name, count)| format!("{name}={count}")).collect();
    println!("{COUNTS}{}", counts.join(" "));
    println!("seed {seed}: {report}");
    Ok(())
}

/// The command that shows a seed again, in the directory of the project.
fn again(seed: u64, ticks: u64) -> String {
    format!("target/debug/sim seed {seed} --ticks {ticks}")
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
    let sums = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let turn = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).ok();
                    let Some(&seed) = turn.and_then(|turn| seeds.get(turn)) else { return };
                    let said = match spawn(seed, wanted.ticks) {
                        Ok(output) if output.status.success() => {
                            println!("{}", outcome(&output));
                            add(&mut lock(&sums), &output);
                            continue;
                        }
                        Ok(output) => {
                            let scenario = String::from_utf8_lossy(&output.stdout).into_owned();
                            format!("{scenario}{}", String::from_utf8_lossy(&output.stderr))
                        }
                        Err(error) => error.to_string(),
                    };
                    drop(writeln!(io::stderr(), "{said}"));
                    lock(&failed).push(seed);
                    if wanted.fail_fast {
                        next.store(u64::MAX / 2, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let failed = std::mem::take(&mut *lock(&failed));
    let sums = std::mem::take(&mut *lock(&sums));
    let (all, seconds) = (seeds.len(), begun.elapsed().as_secs());
    if failed.is_empty() || !wanted.fail_fast {
        let text: Vec<_> = sums.iter().map(|(name, sum)| format!("{name} {sum}")).collect();
        println!("in all: {}", text.join(", "));
        println!("{} of {all} seeds passed in {seconds} s", all - failed.len());
    }
    ensure!(failed.is_empty(), "these seeds failed: {failed:?}");
    let is_missing = |fault: &&Fault| !sums.contains_key(&format!("{fault:?}"));
    let missing: Vec<_> = Fault::ALL.iter().filter(is_missing).collect();
    ensure!(
        missing.is_empty() || wanted.count < SEEDS_OF_ALL_FAULTS,
        "these faults never acted: {missing:?}"
    );
    Ok(())
}

/// Adds what a run has counted.
fn add(sums: &mut BTreeMap<String, u64>, output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    let counts = text.lines().find_map(|line| line.strip_prefix(COUNTS)).unwrap_or_default();
    for (name, count) in counts.split(' ').filter_map(|count| count.split_once('=')) {
        *sums.entry(name.to_owned()).or_default() += count.parse::<u64>().unwrap_or(0);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a seed twice.
///
/// # Errors
/// When it fails, or the two runs are not the same.
pub(crate) fn twice(seed: u64, ticks: u64) -> anyhow::Result<()> {
    // At once: nothing that another process does may matter.
    let [first, second] = thread::scope(|scope| {
        [(); 2].map(|()| scope.spawn(|| spawn(seed, ticks))).map(|run| run.join())
    })
    .map(|run| run.unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))));
    let [first, second] = [first?, second?];
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

//! Runs one after the other, or some at once: each a process of its own in a laboratory of its own.
//!
//! A run is begun by writing its options into its directory and ended by reading its verdict there.
//! One that leaves no verdict, for whatever reason, is *unknown*.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::checker::{Finding, Validity};
use crate::report::{self, RESULTS, Results};
use crate::rng::Rng;
use crate::run::{self, Options};
use crate::suite::{Run, Suite};
use crate::wait;

/// The command by which this program carries out one run.
pub const PERFORM: &str = "perform";
/// What the harness itself said, in a run's directory.
const SAID: &str = "harness.log";
/// Beside the time that a run is made for: setting up, healing, reading and checking.
const PATIENCE: Duration = Duration::from_secs(600);

/// A run that is to be made, with its directory.
pub struct Job {
    /// Its options.
    pub options: Options,
    /// Where it is stored.
    pub dir: PathBuf,
}

/// What all runs of a call have in common.
pub struct Circumstances<'a> {
    /// The program under test.
    pub watchword: &'a Path,
    /// Where runs are stored.
    pub store: &'a Path,
    /// How many go on at once.
    pub at_once: usize,
}

impl Circumstances<'_> {
    /// The jobs of a suite for a seed, only those called `only` if that is given.
    ///
    /// # Errors
    /// When there is no such run, or the program under test is not there.
    pub fn jobs(
        &self,
        suite_name: &str,
        suite: &Suite,
        seed: u64,
        only: Option<&str>,
    ) -> Result<Vec<Job>> {
        let chosen = |run: &&Run| only.is_none_or(|only| run.name == only);
        let runs: Vec<&Run> = suite.runs.iter().filter(chosen).collect();
        ensure!(!runs.is_empty(), "suite {suite_name} has no run called {only:?}");
        let seed_of = |run: &Run| Rng::new(seed).fork(&run.name).next_u64() >> 32;
        runs.into_iter().map(|run| self.job(suite_name, run, seed_of(run))).collect()
    }

    /// One run with a seed of its own.
    ///
    /// # Errors
    /// When the program under test is not there.
    pub fn job(&self, suite_name: &str, run: &Run, seed: u64) -> Result<Job> {
        let (workloads, nemeses) = run.drawn(seed);
        let watchword = fs::canonicalize(self.watchword)
            .with_context(|| format!("the program under test: {}", self.watchword.display()))?;
        let suite =
            Path::new(suite_name).file_stem().map_or("suite".into(), |s| s.to_string_lossy());
        let mut options = Options {
            suite: suite.into_owned(),
            name: run.name.clone(),
            seed,
            begun: now(),
            watchword,
            nodes: run.nodes,
            seconds: run.seconds,
            workloads,
            nemeses,
            pace: run.pace,
            heal_seconds: run.heal_seconds,
            plan: Default::default(),
        };
        options.plan = run::plan(&options)?;
        Ok(self.stored(options))
    }

    /// A stored run once more: the same options, another time.
    pub fn again(&self, options: Options) -> Job {
        self.stored(Options { begun: now(), ..options })
    }

    fn stored(&self, options: Options) -> Job {
        let name = format!("{}-{}", options.begun, options.seed);
        Job { dir: self.store.join(&options.suite).join(name), options }
    }

    /// Makes all runs, tells how they go, and returns the worst verdict.
    ///
    /// # Errors
    /// When a run cannot even be begun.
    pub fn make(&self, jobs: Vec<Job>) -> Result<Vec<(Job, Results)>> {
        let (waiting, done) = (Mutex::new(VecDeque::from(jobs)), Mutex::new(Vec::new()));
        let display = Display::new();
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.at_once.max(1))
                .map(|_| {
                    scope.spawn(|| -> Result<()> {
                        loop {
                            let Some(job) = lock(&waiting).pop_front() else { return Ok(()) };
                            let results = make(&job, &display)?;
                            display.ended(&job, &results);
                            lock(&done).push((job, results));
                        }
                    })
                })
                .collect();
            workers.into_iter().try_for_each(|worker| {
                worker.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a worker panicked")))
            })
        })?;
        Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Makes one run.
fn make(job: &Job, display: &Display) -> Result<Results> {
    job.options.write(&job.dir)?;
    let dir = fs::canonicalize(&job.dir)?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg(PERFORM)
        .arg(&dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(dir.join(SAID))?)
        .spawn()
        .context("starting the run")?;
    let lines = child.stdout.take();
    let limit = Duration::from_secs(job.options.seconds + job.options.heal_seconds) + PATIENCE;
    let ended = thread::scope(|scope| {
        if let Some(lines) = lines {
            scope.spawn(|| {
                for line in BufReader::new(lines).lines().map_while(Result::ok) {
                    display.says(job, &line);
                }
            });
        }
        end(&mut child, limit)
    })?;
    match fs::read(dir.join(RESULTS)) {
        Ok(text) if ended => Ok(serde_json::from_slice(&text)?),
        _ => {
            let said = fs::read_to_string(dir.join(SAID)).unwrap_or_default();
            let why = if ended { "it left no verdict" } else { "it did not end" };
            let summary = format!("{why}; it said: {}", said.trim());
            let findings = [Finding::harness("run", Validity::Unknown, summary)];
            report::write(&dir, &run::summary(&job.options), &[], &findings)?;
            Ok(serde_json::from_slice(&fs::read(dir.join(RESULTS))?)?)
        }
    }
}

/// Whether it ended by itself. With the process goes everything inside its namespaces.
fn end(child: &mut Child, limit: Duration) -> io::Result<bool> {
    let ended = wait::for_exit(child, limit)?;
    if !ended {
        child.kill()?;
    }
    child.wait()?;
    Ok(ended)
}

/// What is seen of runs that go on: on a terminal one line that changes, elsewhere only their ends.
struct Display {
    lines: Mutex<BTreeMap<String, String>>,
    is_terminal: bool,
}

impl Display {
    fn new() -> Self {
        Self { lines: Mutex::default(), is_terminal: io::stderr().is_terminal() }
    }

    fn says(&self, job: &Job, line: &str) {
        let mut lines = lock(&self.lines);
        lines.insert(label(job), line.to_owned());
        if self.is_terminal {
            let all: Vec<String> =
                lines.iter().map(|(name, line)| format!("{name}: {line}")).collect();
            eprint!("\r\x1b[K{}", all.join("   "));
            // A progress line that is lost is no loss.
            let _flushed = io::stderr().flush();
        }
    }

    fn ended(&self, job: &Job, results: &Results) {
        lock(&self.lines).remove(&label(job));
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
        let word = results.verdict.word();
        println!("{word:8} {:28} {}", label(job), job.dir.display());
        let bad = results.findings.iter().filter(|one| one.validity != Validity::Valid);
        for finding in bad {
            println!(
                "         {:8} {}: {}",
                finding.validity.word(),
                finding.checker,
                finding.summary
            );
            for anomaly in finding.anomalies.iter().take(3) {
                println!("                  - {anomaly}");
            }
        }
    }
}

fn label(job: &Job) -> String {
    format!("{}/{} {}", job.options.suite, job.options.name, job.options.seed)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time now, as `20260131T235959` in UTC.
#[expect(clippy::disallowed_methods, reason = "people look for runs by the time of day")]
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    as_text(since.as_secs())
}

fn as_text(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March have their leap day last, which makes months regular.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_calendars_have_them() {
        assert_eq!(as_text(0), "19700101T000000");
        assert_eq!(as_text(951_782_399), "20000228T235959");
        assert_eq!(as_text(951_782_400), "20000229T000000");
        assert_eq!(as_text(1_767_225_599), "20251231T235959");
    }
}

//! One run: a laboratory, a cluster in it, clients, a nemesis, and the verdict on what happened.
//!
//! ```text
//!   set up ─ safety phase ─────────────── heal ─ liveness phase ─ end ─ final reads ─ check
//!             clients ask, faults overlap         clients ask      all quiet
//! ```
//!
//! What the cluster does is never an error here: it goes into the history, and checkers judge it. An
//! error means that the harness, or the machine, could not do its part; the run then proves nothing,
//! and says so.

mod liveness;
mod options;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;

pub use options::Options;

use crate::checker::{self, Check, Checker, Excuse, Finding, Plan, Validity};
use crate::db::Db;
use crate::generator::Phase;
use crate::history::{self, Event, HISTORY, Kind, NEMESIS, Recorder};
use crate::lab::Lab;
use crate::nemesis::schedule::{Faults, Pace, Report};
use crate::nemesis::{Action, Field, Outcome, Schedule};
use crate::report::{self, RunSummary};
use crate::rng::Rng;
use crate::workload::{self, COLUMNS, Stage, Workload};

/// The fault that ends a run whose workloads want it, when the clients have stopped; and its name then.
const ENDING: (&str, &str) = ("power-all", "power-ending");
/// Files and logs of the nodes in a run's directory.
const NODES: &str = "nodes";
/// Parts of what nodes, and the libraries in them, say whose disks fail.
const DISK_ERRORS: [&str; 8] = [
    "Input/output error",
    "No space left",
    "StorageError",
    "the store failed",
    "could not be closed",
    "did not close",
    "cannot be written down",
    "is not renewed",
];
/// The faults that make disks fail. One that is only slow fails at nothing, and who loses power says nothing.
const DISK_FAILURES: [&str; 3] = ["disk-full", "disk-sync-error", "disk-write-error"];
/// Parts of what nodes, and their databases, say of stores that were damaged.
const DAMAGE_ERRORS: [&str; 3] = ["damaged", "corruption", "corrupted"];
/// The faults that damage them.
const DAMAGES: [&str; 2] = ["damage-flip", "damage-truncate"];
/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(1);

/// The checks of a run with these workloads and nemeses.
///
/// # Errors
/// When there is no workload, or no nemesis, of a name.
pub fn plan(options: &Options) -> Result<Plan> {
    let mut checks = Vec::new();
    for workload in cast(options)? {
        checks.extend(workload.checks(options.nodes));
    }
    let mut required: Vec<String> = options.nemeses.clone();
    if has_ending(options) {
        required.push(ENDING.1.to_owned());
    }
    let bound_ms = Some(options.heal_seconds * 1_000);
    let paths = vec![PathBuf::from(NODES)];
    if options.nemeses.iter().any(|name| DAMAGES.contains(&name.as_str())) {
        checks.push(Check::new("", Checker::Refusal));
    }
    let excuses =
        vec![Excuse::new(&DISK_FAILURES, &DISK_ERRORS), Excuse::new(&DAMAGES, &DAMAGE_ERRORS)];
    checks.push(Check::new("", Checker::Digest));
    checks.push(Check::new("", Checker::Availability { bound_ms }));
    checks.push(Check::new("", Checker::Logs { paths, excuses }));
    if !required.is_empty() {
        checks.push(Check::new("", Checker::Coverage { required: required.into_iter().collect() }));
    }
    Ok(Plan { checks })
}

/// Carries out the run that is stored in `dir`, inside the laboratory's namespaces, and stores its
/// verdict there. `progress` is told a line now and then.
///
/// # Errors
/// When not even the verdict *unknown* can be stored.
pub fn perform(dir: &Path, progress: &(dyn Fn(&str) + Sync)) -> Result<Validity> {
    let options = Options::read(dir)?;
    let history = dir.join(HISTORY);
    let mut own = Vec::new();
    let events = match act(&options, dir, &history, progress, &mut own) {
        Ok(events) => events,
        Err(error) => {
            let summary = format!("the run broke: {error:#}");
            own.push(Finding::harness("run", Validity::Unknown, summary));
            if history.exists() { history::read(&history)? } else { Vec::new() }
        }
    };
    progress("checking");
    // Also what a run that broke has seen by then: a defect may be why it broke.
    let mut findings = checker::check_all(&events, &options.plan.clone().within(dir));
    findings.extend(own);
    report::write(dir, &summary(&options), &events, &findings)?;
    Ok(checker::verdict(&findings))
}

/// The run itself: its history. What only whoever was there can say goes to `own`, even if it breaks.
fn act(
    options: &Options,
    dir: &Path,
    history: &Path,
    progress: &(dyn Fn(&str) + Sync),
    own: &mut Vec<Finding>,
) -> Result<Vec<Event>> {
    progress("making the laboratory");
    let work = WorkDir::make()?;
    let rng = Rng::new(options.seed);
    let lab = Arc::new(Lab::build(options.nodes, options.seed, &work.0)?);
    let db = Db::new(Arc::clone(&lab), &options.watchword, &dir.join(NODES))?;
    let recorder = Recorder::create(history)?;
    let done = go_through(options, &lab, &db, &recorder, &rng, progress, own);
    own.push(liveness::undisturbed(&db));
    done?;
    Ok(recorder.finish()?)
}

/// All phases of the run.
fn go_through(
    options: &Options,
    lab: &Lab,
    db: &Db,
    recorder: &Recorder,
    rng: &Rng,
    progress: &(dyn Fn(&str) + Sync),
    own: &mut Vec<Finding>,
) -> Result<()> {
    progress("making the cluster");
    db.setup().context("the cluster cannot be set up")?;
    let workloads = cast(options)?;
    let users: String = workloads.iter().map(|workload| workload.users()).collect();
    progress("adding users");
    db.import(&format!("{COLUMNS}{users}"))?;
    let phase = Phase::new();
    let stage = Stage { db, recorder, phase: &phase, rng: rng.fork("clients") };
    let field = Field::new(lab, db);
    let broken = Mutex::new(None);
    // What fails here is in the history by then, and whether it matters is seen when all is made right.
    let report = |name: &str, action: Action, outcome: &Result<Outcome>| {
        recorder.record(nemesis_event(name, action, outcome));
    };
    let (broke, healed) = thread::scope(|scope| {
        for workload in &workloads {
            for number in 0..workload.clients() {
                let (stage, broken) = (&stage, &broken);
                scope.spawn(move || {
                    if let Err(error) = workload.client(stage, number) {
                        let error = error.context(format!("{} client {number}", workload.name()));
                        broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        stage.phase.end();
                    }
                });
            }
        }
        scope.spawn(|| tell_progress(&stage, options, progress));
        let broke = break_things(options, &field, &report, rng);
        // From here on everything is made right; how long that takes counts, too.
        let begun = liveness::begin_healing(&stage);
        let undone = broke.and_then(|faults| faults.undo());
        let patience = Duration::from_secs(options.heal_seconds);
        let healed = liveness::heal(&stage, &field, begun, patience);
        phase.end();
        (undone, healed)
    });
    own.push(healed);
    broke?;
    if let Some(error) = broken.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    if has_ending(options) {
        progress("cutting the power of all nodes");
        end(&field, recorder, rng)?;
        let patience = Duration::from_secs(options.heal_seconds);
        own.push(liveness::come_back(&stage, &field, patience));
    }
    progress("reading everything once more");
    own.push(liveness::compare(&stage, Duration::from_secs(options.heal_seconds))?);
    if own.iter().all(|finding| finding.validity == Validity::Valid) {
        for workload in &workloads {
            let read = workload.final_reads(&stage);
            read.with_context(|| format!("the final reads of {}", workload.name()))?;
        }
    }
    Ok(())
}

/// The workloads of a run.
fn cast(options: &Options) -> Result<Vec<Box<dyn Workload>>> {
    let rng = Rng::new(options.seed);
    let find = |name: &String| {
        workload::by_name(name, &rng).with_context(|| format!("there is no workload {name:?}"))
    };
    options.workloads.iter().map(find).collect()
}

fn has_ending(options: &Options) -> bool {
    options.workloads.iter().any(|name| name == "durability")
}

/// The safety phase: the nemesis follows its schedule, and writes down what it does. Hands out what is left to
/// be undone.
fn break_things<'a>(
    options: &Options,
    field: &'a Field<'a>,
    report: Report<'a>,
    rng: &Rng,
) -> Result<Faults<'a>> {
    let names: Vec<&str> = options.nemeses.iter().map(String::as_str).collect();
    let (min, max) = options.pace;
    let pace = Pace { min: Duration::from_secs_f64(min), max: Duration::from_secs_f64(max) };
    let length = Duration::from_secs(options.seconds);
    let schedule = Schedule::new(&names, length, pace, &rng.fork("schedule"));
    schedule.run(field, &rng.fork("nemesis"), report)
}

/// The last fault, when nobody asks any more.
fn end(field: &Field<'_>, recorder: &Recorder, rng: &Rng) -> Result<()> {
    let mut nemesis = crate::nemesis::by_name(ENDING.0).context("the last fault is unknown")?;
    for action in [Action::Start, Action::Stop] {
        let outcome = match action {
            Action::Start => nemesis.start(field, &mut rng.fork("ending")),
            Action::Stop => nemesis.stop(field),
        };
        recorder.record(nemesis_event(ENDING.1, action, &outcome));
    }
    Ok(())
}

fn nemesis_event(name: &str, action: Action, outcome: &Result<Outcome>) -> Event {
    let stage = match action {
        Action::Start => "start",
        Action::Stop => "stop",
    };
    let mut event = Event::new(NEMESIS, Kind::Info, name);
    event.value = json!({ "stage": stage });
    match outcome {
        Ok(Outcome::Acted { evidence } | Outcome::Done { evidence }) => {
            event.evidence = evidence.clone()
        }
        Ok(Outcome::Skipped { why }) => event.error = Some(format!("skipped: {why}")),
        Ok(Outcome::Indeterminate { why }) => event.error = Some(format!("indeterminate: {why}")),
        Err(error) => event.error = Some(format!("failed: {error:#}")),
    }
    event
}

fn tell_progress(stage: &Stage<'_>, options: &Options, progress: &(dyn Fn(&str) + Sync)) {
    let mut before = 0;
    let mut seconds = 0;
    while stage.phase.wait(PROGRESS) {
        seconds += 1;
        let events = stage.recorder.len();
        let rate = (events - before) / 2;
        before = events;
        let of = options.seconds;
        progress(&format!("{seconds}/{of} s, {} operations, {rate}/s", events / 2));
    }
}

/// What a reader must know of the run.
pub fn summary(options: &Options) -> RunSummary {
    let version = Command::new(&options.watchword).arg("--version").output();
    let version = version.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned());
    RunSummary {
        suite: options.suite.clone(),
        name: options.name.clone(),
        seed: options.seed,
        reproduce: options.reproduce(),
        begun: options.begun.clone(),
        version: version.unwrap_or_else(|error| error.to_string()),
    }
}

/// A directory with a short name, because the name of a Unix socket below it must be short; gone
/// with the run.
struct WorkDir(PathBuf);

impl WorkDir {
    fn make() -> Result<Self> {
        for number in 0..1_000 {
            let path = std::env::temp_dir().join(format!("watchword-jepsen-{number}"));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(anyhow!(error).context(path.display().to_string())),
            }
        }
        bail!(
            "there are a thousand runs at once, or what they have left: {}/watchword-jepsen-*",
            std::env::temp_dir().display()
        )
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // What stays is an empty tree in the directory for temporary files.
        let _removed = fs::remove_dir_all(&self.0);
    }
}

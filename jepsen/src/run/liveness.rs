//! What must be true again when nothing is broken any more.
//!
//! A cluster that loses nothing, but never serves again, is no use. So when the faults are over a clock runs,
//! while everything is made right, until every node is ready, all vote, and each serves a fresh write. Then
//! all must come to hold the same.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;

use crate::checker::{Finding, Validity};
use crate::db::{Db, Digest};
use crate::history::{Event, Kind, NEMESIS};
use crate::nemesis::{Field, System, schedule};
use crate::wait;
use crate::workload::Stage;

/// How long clients go on asking a cluster that is right again.
const CALM: Duration = Duration::from_secs(5);
/// How often a node that ends at once is started again, and after which pause.
const RESTARTS_MAX: usize = 3;
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Nothing is broken any more from now on: it is being undone.
pub(super) fn begin_healing(stage: &Stage<'_>) -> Instant {
    stage.recorder.record(Event::new(NEMESIS, Kind::Info, crate::fault::HEAL));
    Instant::now()
}

/// Makes everything right that is not yet, and waits until the cluster is, with the clients going on.
pub(super) fn heal(
    stage: &Stage<'_>,
    field: &Field<'_>,
    begun: Instant,
    patience: Duration,
) -> Finding {
    let finding = recovered("healed", stage, make_right(field), begun, patience);
    stage.phase.wait(CALM);
    finding
}

/// The same after all nodes died.
pub(super) fn come_back(stage: &Stage<'_>, field: &Field<'_>, patience: Duration) -> Finding {
    // Nobody asks by now, so that there is no first answer to wait for, and no `heal` to count from.
    let begun = Instant::now();
    recovered("came back", stage, make_right(field), begun, patience)
}

/// Makes everything right; a node that does not start is tried a few times more, as a service manager
/// does.
fn make_right(field: &Field<'_>) -> Result<()> {
    let mut made_right = schedule::heal(field);
    for _ in 0..RESTARTS_MAX {
        if made_right.is_err() {
            wait::pause(RESTART_PAUSE);
            made_right = schedule::heal(field);
        }
    }
    made_right
}

fn recovered(
    name: &str,
    stage: &Stage<'_>,
    made_right: Result<()>,
    begun: Instant,
    patience: Duration,
) -> Finding {
    // One time for all of it.
    let left = || patience.saturating_sub(begun.elapsed());
    let right = made_right.and_then(|()| wait::until(left(), || is_right(stage)));
    let right = right.and_then(|()| fresh_writes(name, stage, &left));
    let seconds = begun.elapsed().as_secs_f64();
    match right {
        Ok(()) => {
            let summary = format!(
                "all {} nodes were ready, voted and served a fresh write {seconds:.1} s after",
                stage.db.size()
            );
            Finding::harness(name, Validity::Valid, summary)
                .figure("seconds", (seconds * 10.0).round() / 10.0)
        }
        Err(error) => Finding::harness(name, Validity::Invalid, format!("{error:#}")),
    }
}

/// Whether all nodes vote and are ready.
fn is_right(stage: &Stage<'_>) -> Result<()> {
    let db = stage.db;
    (0..db.size()).try_for_each(|host| db.ready(host))?;
    let voters = db.members()?.len();
    if voters != db.size() {
        bail!("{voters} of {} nodes vote", db.size());
    }
    Ok(())
}

/// Adds a user by each node.
fn fresh_writes(name: &str, stage: &Stage<'_>, left: &dyn Fn() -> Duration) -> Result<()> {
    for host in 0..stage.db.size() {
        let node = stage.db.name(host);
        let user = format!("fresh-{}-{node}", name.replace(' ', "-"));
        let written = stage.db.admin(host)?.run_for(&["user", "add", &user], "", left())?;
        if let Some(error) = written.error() {
            bail!("{node} serves no write: {error}");
        }
    }
    Ok(())
}

/// Whether nodes ended, or refused to start or to stop, only when somebody made them.
pub(super) fn undisturbed(db: &Db) -> Finding {
    let surprises = db.surprises();
    let validity = if surprises.is_empty() { Validity::Valid } else { Validity::Invalid };
    let summary = match validity {
        Validity::Valid => "no node ended by itself, all stores opened, and all stopped".to_owned(),
        _ => surprises.join("; "),
    };
    Finding::harness("nodes", validity, summary)
}

/// Waits until all nodes hold the same at the same index, and have said so themselves, and writes down what
/// each holds.
///
/// # Errors
/// When the harness fails.
pub(super) fn compare(stage: &Stage<'_>, patience: Duration) -> Result<Finding> {
    let mut digests: Vec<Option<Digest>> = Vec::new();
    let equal = wait::until(patience, || {
        let read: Vec<Result<Digest>> =
            (0..stage.db.size()).map(|host| stage.db.digest(host)).collect();
        let result = all_equal(&read);
        digests = read.into_iter().map(Result::ok).collect();
        result
    });
    let process = stage.recorder.new_process();
    for (host, digest) in digests.iter().enumerate() {
        let Some(digest) = digest else { continue };
        let node = Some(stage.db.name(host).to_owned());
        let event = Event {
            node,
            via: Some("cli".to_owned()),
            ..Event::new(process, Kind::Invoke, "digest")
        };
        let begun = stage.recorder.record(event);
        let value = json!({ "index": digest.index, "digest": digest.hash });
        stage.recorder.record(Event { value, ..begun.completed(Kind::Ok) });
    }
    let differs = digests.iter().flatten().find_map(|digest| digest.differs_at);
    Ok(match (equal, differs) {
        (_, Some(index)) => {
            let summary = format!("the cluster itself saw states differ at entry {index}");
            Finding::harness("equal", Validity::Invalid, summary)
        }
        (Err(error), None) => Finding::harness("equal", Validity::Invalid, format!("{error:#}")),
        (Ok(index), None) => {
            let summary = format!("all nodes hold the same at entry {index}");
            Finding::harness("equal", Validity::Valid, summary)
        }
    })
}

/// The index at which all hold the same.
fn all_equal(read: &[Result<Digest>]) -> Result<u64> {
    let mut digests = Vec::new();
    for digest in read {
        digests.push(digest.as_ref().map_err(|error| anyhow!("{error:#}"))?);
    }
    let first = digests.first().context("there is no node")?;
    let newest = digests.iter().map(|digest| digest.index).max().unwrap_or(0);
    for (host, digest) in digests.iter().enumerate() {
        if digest.index != first.index || digest.hash != first.hash {
            bail!(
                "n{} holds {} at entry {}, n1 {} at {}",
                host + 1,
                digest.hash,
                digest.index,
                first.hash,
                first.index
            );
        }
    }
    // The product's own comparison is of everything that a node holds. Nobody writes by now, so that the
    // last entry is one.
    if let Some(host) = digests.iter().position(|digest| digest.equal_at < Some(newest)) {
        bail!("n{} has not seen that all are equal at entry {newest}", host + 1);
    }
    Ok(first.index)
}

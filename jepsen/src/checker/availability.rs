//! How the service was while it was hurt: figures, and one bound.
//!
//! Faults cost time, and that is no anomaly. After everything is healed it is: then the next
//! operation must succeed within a bound, and every node must answer.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Anomaly, Finding};
use crate::fault::{self, Window};
use crate::history::Event;
use crate::operation::Operation;

const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;
/// Logins after which it is no chance that a node has answered none.
const LOGINS_PER_NODE: usize = 20;

/// Measures gaps and latencies; if there is a bound, the first `ok` after each `heal` must come
/// within so many milliseconds.
pub fn check(events: &[Event], operations: &[Operation<'_>], bound_ms: Option<u64>) -> Finding {
    let hurts = |window: &Window| window.has_acted() && window.until > window.from;
    let windows: Vec<Window> = fault::windows(events).into_iter().filter(hurts).collect();
    let mut successes: Vec<&Operation<'_>> =
        operations.iter().filter(|operation| operation.is_ok()).collect();
    successes.sort_unstable_by_key(|operation| operation.ended());
    let ends = successes.iter().filter_map(|operation| operation.completion);
    let times: Vec<u64> = ends.map(|event| event.time).collect();
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for operation in operations.iter().filter(|operation| operation.is_ok()) {
        let begun = operation.invocation.time;
        let hurt = windows.iter().any(|window| (window.from..=window.until).contains(&begun));
        let latencies = if hurt { &mut inside } else { &mut outside };
        latencies.extend(operation.latency());
    }
    let (from, until) =
        (events.first().map_or(0, |event| event.time), events.last().map_or(0, |event| event.time));
    let gaps: Vec<Value> = windows.iter().map(|window| gap_within(window, &times)).collect();
    let longest = longest_gap(&times, times.first().copied().unwrap_or(from), until);
    let (mut anomalies, heals) = late_recoveries(events, &successes, bound_ms);
    if bound_ms.is_some() {
        anomalies.extend(silent_nodes(events, operations));
    }
    let summary = format!(
        "{} operations succeeded, {} of them under a fault; the longest gap was {} ms",
        times.len(),
        inside.len(),
        milliseconds(longest)
    );
    let finding = if bound_ms.is_some() && heals == 0 {
        Finding::unknown("availability", format!("{summary}; nothing was healed"), Vec::new())
    } else {
        Finding::conclude("availability", times.len(), summary, anomalies)
    };
    finding
        .figure("succeeded", times.len())
        .figure("attempted", operations.len())
        .figure("longest_gap_ms", milliseconds(longest))
        .figure("gaps_under_fault", gaps)
        .figure("latency_under_fault", percentiles(inside))
        .figure("latency_otherwise", percentiles(outside))
}

/// Nodes that have answered no login since the last heal, though many were asked: clients go elsewhere, and
/// miss nothing.
fn silent_nodes(events: &[Event], operations: &[Operation<'_>]) -> Vec<Anomaly> {
    let Some(heal) = fault::heals(events).last() else { return Vec::new() };
    let logins = || operations.iter().filter(|one| one.via() == "radius");
    let nodes: BTreeSet<&str> = logins().map(Operation::node).collect();
    let since: Vec<_> = logins().filter(|one| one.is_ok() && one.called() > heal.index).collect();
    if since.len() < nodes.len() * LOGINS_PER_NODE {
        return Vec::new();
    }
    let answering: BTreeSet<&str> = since.iter().map(|one| one.node()).collect();
    let silent = nodes.difference(&answering);
    let anomaly = |node: &&str| {
        let what = format!("{node} has answered none of {} logins after the heal", since.len());
        Anomaly { key: None, what, events: vec![heal.index] }
    };
    silent.map(anomaly).collect()
}

/// What exceeds the bound, and how many heals there were.
fn late_recoveries(
    events: &[Event],
    successes: &[&Operation<'_>],
    bound_ms: Option<u64>,
) -> (Vec<Anomaly>, usize) {
    let mut anomalies = Vec::new();
    let mut heals = 0;
    for heal in fault::heals(events) {
        heals += 1;
        let Some(bound_ms) = bound_ms else { continue };
        // Begun when all was right: what was under way then may have been answered before.
        let next = successes.iter().find(|one| one.called() > heal.index);
        let next = next.and_then(|one| one.completion);
        let waited = next.map(|event| event.time.saturating_sub(heal.time));
        let bound = bound_ms.saturating_mul(NANOSECONDS_PER_MILLISECOND);
        let what = match waited {
            Some(waited) if waited <= bound => continue,
            Some(waited) => format!(
                "the first success came {} ms after the heal, allowed are {bound_ms}",
                milliseconds(waited)
            ),
            None => "nothing succeeded after the heal".to_owned(),
        };
        let shown = std::iter::once(heal.index).chain(next.map(|event| event.index)).collect();
        anomalies.push(Anomaly { key: None, what, events: shown });
    }
    (anomalies, heals)
}

fn gap_within(window: &Window, times: &[u64]) -> Value {
    let first = times.partition_point(|time| *time < window.from);
    let end = times.partition_point(|time| *time <= window.until);
    let gap = longest_gap(&times[first..end], window.from, window.until);
    json!({
        "fault": window.fault,
        "from_ms": milliseconds(window.from),
        "lasted_ms": milliseconds(window.until - window.from),
        "gap_ms": milliseconds(gap),
    })
}

/// The longest time between two of `times`, or one of them and an end.
fn longest_gap(times: &[u64], from: u64, until: u64) -> u64 {
    let mut last = from;
    let mut longest = 0;
    for time in times.iter().copied().chain([until]) {
        longest = longest.max(time.saturating_sub(last));
        last = time;
    }
    longest
}

/// The median and the 99th percentile, in milliseconds.
fn percentiles(mut latencies: Vec<u64>) -> Value {
    latencies.sort_unstable();
    let at = |percent: usize| {
        let rank = (latencies.len() * percent).div_ceil(100).saturating_sub(1);
        latencies.get(rank).map(|latency| milliseconds(*latency))
    };
    json!({ "count": latencies.len(), "p50_ms": at(50), "p99_ms": at(99) })
}

/// Milliseconds with two digits.
fn milliseconds(nanoseconds: u64) -> f64 {
    (nanoseconds as f64 / 10_000.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Validity;
    use crate::history::{Kind, NEMESIS};
    use crate::sample::Sample;

    /// Moves everything from event `first` on by so many milliseconds.
    fn delay(sample: &mut Sample, first: usize, ms: u64) {
        for event in &mut sample.events[first..] {
            event.time += ms * NANOSECONDS_PER_MILLISECOND;
        }
    }

    #[test]
    fn a_node_that_answers_no_login_after_the_heal_is_found() {
        let mut sample = Sample::new();
        let mut logins = |count: usize, silent: usize, heal: bool| {
            if heal {
                sample.nemesis("heal", "", 0);
            }
            for number in 0..count {
                let host = if number % 3 == silent { 0 } else { number % 3 };
                sample.done_at(["n1", "n2", "n3"][host], "login", "", 0);
            }
            for event in &mut sample.events {
                event.via = Some("radius".to_owned());
            }
            finding(&sample, Some(30_000)).anomalies
        };
        assert!(logins(3, 9, false).is_empty());
        assert!(logins(30, 2, true).is_empty(), "too few to tell");
        let anomalies = logins(90, 2, true);
        assert_eq!(anomalies[0].what, "n3 has answered none of 90 logins after the heal");
    }

    fn finding(sample: &Sample, bound_ms: Option<u64>) -> Finding {
        check(&sample.events, &sample.operations(), bound_ms)
    }

    #[test]
    fn gaps_are_told_overall_and_for_each_fault() {
        let mut sample = Sample::new();
        sample.done("read", "u1", 0);
        sample.nemesis("pause", "start", 1);
        let first = sample.events.len();
        sample.done("read", "u1", 0);
        delay(&mut sample, first, 250);
        sample.nemesis("pause", "stop", 1);
        sample.events.last_mut().expect("an event").time += 250 * NANOSECONDS_PER_MILLISECOND;
        let finding = finding(&sample, None);
        assert_eq!(finding.validity, Validity::Valid);
        assert_eq!(finding.figures["longest_gap_ms"], 250.0);
        assert_eq!(finding.figures["gaps_under_fault"][0]["gap_ms"], 250.0);
        assert_eq!(finding.figures["latency_under_fault"]["count"], 1);
        assert_eq!(finding.figures["latency_otherwise"]["count"], 1);
    }

    #[test]
    fn a_recovery_that_takes_too_long_or_never_comes_is_found() {
        let mut sample = Sample::new();
        sample.done("read", "u1", 0);
        assert_eq!(finding(&sample, Some(100)).validity, Validity::Unknown);
        sample.nemesis("heal", "", 0);
        let healed = sample.events.len();
        assert_eq!(finding(&sample, Some(100)).validity, Validity::Invalid);
        sample.done("read", "u1", 0);
        assert_eq!(finding(&sample, Some(100)).validity, Validity::Valid);
        delay(&mut sample, healed, 101);
        let late = finding(&sample, Some(100));
        assert_eq!(late.validity, Validity::Invalid);
        assert!(late.anomalies[0].what.contains("allowed are 100"), "{late:?}");
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let latencies = (1..=200).map(|ms| ms * NANOSECONDS_PER_MILLISECOND).collect();
        let told = percentiles(latencies);
        assert_eq!(told, json!({"count": 200, "p50_ms": 100.0, "p99_ms": 198.0}));
        assert_eq!(percentiles(Vec::new())["p50_ms"], Value::Null);
    }

    #[test]
    fn the_nemesis_itself_is_no_success() {
        let mut sample = Sample::new();
        sample.nemesis("heal", "", 0);
        let mut event = crate::history::Event::new(NEMESIS, Kind::Ok, "check");
        event.index = 1;
        event.time = 1_000;
        sample.events.push(event);
        assert_eq!(finding(&sample, Some(100)).validity, Validity::Invalid);
    }
}

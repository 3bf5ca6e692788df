//! Timelines: what was done to one key, side by side where it overlapped.
//!
//! Every event of the key is a row, so that the order can be read however close in time they are.
//! Operations that overlap stand in different columns; what never became known is open at its end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::{escape, seconds};
use crate::checker::Finding;
use crate::history::Kind;
use crate::operation::Operation;

/// How many keys are shown, and how much of each.
const KEYS_MAX: usize = 12;
const OPERATIONS_MAX: usize = 60;
/// How many operations are shown before and after one that is part of an anomaly.
const CONTEXT: usize = 12;

/// Timelines of the keys that anomalies name; of the busiest key when there is none, as an example.
pub(super) fn timelines(operations: &[Operation<'_>], findings: &[Finding]) -> String {
    let mut keys: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for anomaly in findings.iter().flat_map(|finding| &finding.anomalies) {
        if keys.len() < KEYS_MAX && !anomaly.events.is_empty() {
            let key = anomaly.key.as_deref().unwrap_or_default();
            keys.entry(key).or_default().extend(&anomaly.events);
        }
    }
    let mut html = String::new();
    if keys.is_empty() {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for operation in operations {
            *counts.entry(operation.key()).or_default() += 1;
        }
        let busiest = counts.iter().max_by_key(|(_, count)| **count).map(|(key, _)| *key);
        keys.extend(busiest.map(|key| (key, BTreeSet::new())));
        html.push_str("<p>No anomaly has a key. As an example, the busiest key:</p>\n");
    }
    for (key, guilty) in &keys {
        let of_key: Vec<Operation<'_>> =
            operations.iter().filter(|one| one.key() == *key).copied().collect();
        timeline(&mut html, key, &of_key, guilty);
    }
    html
}

fn timeline(html: &mut String, key: &str, operations: &[Operation<'_>], guilty: &BTreeSet<u64>) {
    let shown = excerpt(operations, guilty);
    let rows: Vec<u64> =
        shown.iter().flat_map(Operation::events).collect::<BTreeSet<u64>>().into_iter().collect();
    let row = |event: u64| 1 + rows.partition_point(|other| *other < event);
    let title = if key.is_empty() { "(no key)" } else { key };
    let _ = writeln!(html, "<section class=\"key\"><h3>{}</h3>", escape(title));
    if shown.len() < operations.len() {
        let _ =
            writeln!(html, "<p>{} of {} operations are shown.</p>", shown.len(), operations.len());
    }
    html.push_str("<div class=\"timeline\">\n");
    let mut columns: Vec<u64> = Vec::new();
    for operation in &shown {
        let free = columns.iter().position(|end| *end < operation.called());
        let column = free.unwrap_or(columns.len());
        let end = operation.ended();
        match columns.get_mut(column) {
            Some(last) => *last = end,
            None => columns.push(end),
        }
        let (first, last) = (row(operation.called()), row(end).min(rows.len()));
        let _ = writeln!(
            html,
            "<div class=\"time\" style=\"grid-row:{first};grid-column:1\">{:.6} s</div>",
            seconds(operation.invocation.time)
        );
        let accused = operation.events().iter().any(|event| guilty.contains(event));
        let _ = writeln!(
            html,
            "<div class=\"operation {}{}\" style=\"grid-row:{first}/{};grid-column:{}\">{}</div>",
            outcome(operation),
            if accused { " guilty" } else { "" },
            last + 1,
            column + 2,
            text(operation)
        );
    }
    html.push_str("</div></section>\n");
}

/// Everything, or what is near to the anomalies.
fn excerpt<'a>(operations: &[Operation<'a>], guilty: &BTreeSet<u64>) -> Vec<Operation<'a>> {
    if operations.len() <= OPERATIONS_MAX {
        return operations.to_vec();
    }
    let accused =
        |operation: &Operation<'_>| operation.events().iter().any(|at| guilty.contains(at));
    let mut near = BTreeSet::new();
    for at in (0..operations.len()).filter(|at| accused(&operations[*at])) {
        near.extend(at.saturating_sub(CONTEXT)..=at + CONTEXT);
    }
    if near.is_empty() {
        near.extend(0..OPERATIONS_MAX);
    }
    near.iter().filter_map(|at| operations.get(*at)).take(OPERATIONS_MAX).copied().collect()
}

fn outcome(operation: &Operation<'_>) -> &'static str {
    match operation.kind() {
        Kind::Ok => "ok",
        Kind::Fail => "fail",
        Kind::Info | Kind::Invoke => "info",
    }
}

fn text(operation: &Operation<'_>) -> String {
    let value = match operation.value() {
        value if value.is_null() => String::new(),
        value => format!(" {value}"),
    };
    let latency = match operation.latency() {
        Some(latency) => format!("{:.2} ms", latency as f64 / 1e6),
        None => "never ended".to_owned(),
    };
    let outcome = match operation.kind() {
        Kind::Ok => "ok",
        Kind::Fail => "failed",
        Kind::Info | Kind::Invoke => "unknown",
    };
    let error = operation.completion.and_then(|event| event.error.as_deref());
    let details: Vec<&str> = [outcome, operation.node(), &latency, error.unwrap_or_default()]
        .into_iter()
        .filter(|detail| !detail.is_empty())
        .collect();
    let events: Vec<String> = operation.events().iter().map(u64::to_string).collect();
    format!(
        "<b>{}</b>{}<br><small>{} · events {}</small>",
        escape(operation.f()),
        escape(&value),
        escape(&details.join(" · ")),
        events.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::{Anomaly, Finding};
    use crate::sample::Sample;

    fn invalid(key: &str, events: Vec<u64>) -> Finding {
        let anomaly = Anomaly { key: Some(key.to_owned()), what: "wrong".to_owned(), events };
        Finding::conclude("test", 1, String::new(), vec![anomaly])
    }

    #[test]
    fn overlapping_operations_stand_side_by_side_and_the_guilty_are_marked() {
        let mut sample = Sample::new();
        let first = sample.invoke("write", "u1", 1);
        sample.done("read", "u1", 0);
        sample.ok(first, 1);
        sample.done("read", "u1", 0);
        let html = timelines(&sample.operations(), &[invalid("u1", vec![4, 5])]);
        assert!(html.contains("<div class=\"operation ok\" style=\"grid-row:1/5;grid-column:2\">"));
        assert!(html.contains("<div class=\"operation ok\" style=\"grid-row:2/4;grid-column:3\">"));
        assert!(html.contains("operation ok guilty\" style=\"grid-row:5/7;grid-column:2\">"));
    }

    #[test]
    fn of_a_long_key_what_is_near_the_anomaly_is_shown() {
        let mut sample = Sample::new();
        for _ in 0..500 {
            sample.done("read", "u1", 0);
        }
        let html = timelines(&sample.operations(), &[invalid("u1", vec![600])]);
        assert!(html.contains("25 of 500 operations are shown"), "{html}");
        assert!(html.contains("guilty"));
    }

    #[test]
    fn without_anomalies_the_busiest_key_is_the_example() {
        let mut sample = Sample::new();
        sample.done("read", "u1", 0);
        sample.done("read", "u2", 0);
        sample.done("read", "u2", 0);
        let html = timelines(&sample.operations(), &[]);
        assert!(html.contains("<h3>u2</h3>") && !html.contains("<h3>u1</h3>"));
    }
}

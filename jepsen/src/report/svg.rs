//! The two plots that every run has: latency of each operation, and operations per second.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;

use super::frame::{Frame, Tick, linear_ticks, y};
use super::seconds;
use crate::fault::Window;
use crate::history::Kind;
use crate::operation::Operation;

/// The latencies that the axis spans, in milliseconds: 0.1 ms to 100 s.
const DECADES: (i32, i32) = (-1, 5);

/// One mark per operation: when it began, and how long it took, on a logarithmic axis.
pub(super) fn latency(operations: &[Operation<'_>], windows: &[Window]) -> String {
    let (lowest, highest) = DECADES;
    let ticks: Vec<Tick> =
        (lowest..=highest).map(|decade| (share(10_f64.powi(decade)), duration(decade))).collect();
    let known: Vec<(&Operation<'_>, u64)> =
        operations.iter().filter_map(|one| one.latency().map(|latency| (one, latency))).collect();
    let slowest = known.iter().map(|(_, latency)| *latency).max().unwrap_or(0);
    let description = format!(
        "Each of {} operations by the second in which it began and the time that it took, the slowest {:.1} \
         ms. Shaded: faults.",
        known.len(),
        slowest as f64 / 1e6
    );
    let length = length(operations, windows);
    let mut frame = Frame::new("latency", "Latency of operations", &description, length, &ticks);
    frame.faults(windows);
    frame.legend(mark);
    // Marks that fall on one another are drawn once: a long run stays a small file.
    let mut drawn = HashSet::new();
    for (operation, latency) in known {
        let x = frame.x(seconds(operation.invocation.time));
        let y = y(share(latency as f64 / 1e6));
        let class = class(operation.kind());
        if drawn.insert(((2.0 * x) as i64, (2.0 * y) as i64, class)) {
            frame.push(format_args!("{}\n", mark(x, y, class)));
        }
    }
    frame.finish()
}

/// Completions per second, one line per outcome.
pub(super) fn rate(operations: &[Operation<'_>], windows: &[Window]) -> String {
    let mut rates: BTreeMap<&str, BTreeMap<u64, u64>> = BTreeMap::new();
    for operation in operations {
        if let Some(completion) = operation.completion {
            let second = completion.time / 1_000_000_000;
            *rates.entry(class(operation.kind())).or_default().entry(second).or_default() += 1;
        }
    }
    let largest = rates.values().flat_map(BTreeMap::values).copied().max().unwrap_or(0).max(1);
    let description = format!(
        "Operations that ended in each second, by outcome, {largest} per second at most. Shaded: \
         faults."
    );
    let length = length(operations, windows);
    let ticks = linear_ticks(largest as f64);
    let mut frame = Frame::new("rate", "Operations per second", &description, length, &ticks);
    frame.faults(windows);
    frame.legend(stroke);
    for (class, rates) in &rates {
        let mut points = String::new();
        for second in 0..=length as u64 {
            let rate = rates.get(&second).copied().unwrap_or(0);
            let x = frame.x(second as f64 + 0.5);
            let _ = write!(points, "{x:.1},{:.1} ", y(rate as f64 / largest as f64));
        }
        frame.push(format_args!(
            "<polyline class=\"line {class}\" points=\"{}\"/>\n",
            points.trim()
        ));
    }
    frame.finish()
}

/// A circle, a triangle or a square, so that the outcome can be told without colours.
fn mark(x: f64, y: f64, class: &str) -> String {
    match class {
        "ok" => format!("<circle class=\"ok\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"1.6\"/>"),
        "info" => format!("<path class=\"info\" d=\"M{x:.1} {:.1}l3 5h-6z\"/>", y - 3.0),
        _ => format!(
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"4\" height=\"4\"/>",
            x - 2.0,
            y - 2.0
        ),
    }
}

/// A short line for the legend.
fn stroke(x: f64, y: f64, class: &str) -> String {
    format!("<path class=\"line {class}\" d=\"M{:.1} {y:.1}h20\"/>", x - 10.0)
}

fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Ok => "ok",
        Kind::Fail => "fail",
        Kind::Info | Kind::Invoke => "info",
    }
}

/// Where a latency in milliseconds stands.
fn share(milliseconds: f64) -> f64 {
    let (lowest, highest) = DECADES;
    (milliseconds.max(1e-9).log10() - f64::from(lowest)) / f64::from(highest - lowest)
}

/// A power of ten of milliseconds.
fn duration(decade: i32) -> String {
    match decade {
        3.. => format!("{:.0} s", 10_f64.powi(decade - 3)),
        0..3 => format!("{:.0} ms", 10_f64.powi(decade)),
        _ => format!("{} ms", 10_f64.powi(decade)),
    }
}

fn length(operations: &[Operation<'_>], windows: &[Window]) -> f64 {
    let ends = operations.iter().map(|one| one.completion.unwrap_or(one.invocation).time);
    seconds(ends.chain(windows.iter().map(|window| window.until)).max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault;
    use crate::sample::Sample;

    #[test]
    fn outcomes_differ_in_shape_and_faults_are_named() {
        let mut sample = Sample::new();
        sample.nemesis("partition", "start", 0);
        sample.done("read", "u1", 0);
        let failed = sample.invoke("read", "u1", 0);
        sample.fail(failed);
        let unknown = sample.invoke("write", "u1", 1);
        sample.info(unknown);
        sample.nemesis("partition", "stop", 3);
        sample.nemesis("heal", "", 0);
        let windows = fault::windows(&sample.events);
        let picture = latency(&sample.operations(), &windows);
        for part in
            ["<circle class=\"ok\"", "<path class=\"info\"", "<rect class=\"fail\"", ">partition<"]
        {
            assert!(picture.contains(part), "{part}");
        }
        assert!(picture.contains("class=\"heal\""));
        let picture = rate(&sample.operations(), &windows);
        assert_eq!(picture.matches("<polyline").count(), 3);
    }

    #[test]
    fn marks_on_one_another_are_drawn_once() {
        let mut sample = Sample::new();
        for _ in 0..5_000 {
            sample.done("read", "u1", 0);
        }
        let picture = latency(&sample.operations(), &[]);
        assert!(picture.matches("<circle").count() < 2_000);
    }

    #[test]
    fn an_empty_history_gives_empty_plots() {
        assert!(latency(&[], &[]).ends_with("</svg>\n"));
        assert!(!rate(&[], &[]).contains("NaN"));
    }
}

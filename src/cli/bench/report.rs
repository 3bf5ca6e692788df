//! What a bench prints, and whether the server passed.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::generator::{Outcome, rate};
use super::users::{Moving, Users};
use super::{BenchError, Format};

/// One run as printed. JSON names are an interface: scripts read them.
#[derive(Debug, Serialize)]
struct Row {
    in_flight: u32,
    /// How long was measured.
    seconds: f64,
    /// Logins that were measured; the counts below add up to it.
    logins: u64,
    accepts: u64,
    rejects: u64,
    challenges: u64,
    /// Logins without a reply to any copy of their request.
    timeouts: u64,
    /// Copies of requests.
    retransmissions: u64,
    wrong_replies: u64,
    /// Correct replies that nobody waited for any more.
    extra_replies: u64,
    /// Times that the server's host said that nobody listens.
    unreachable: u64,
    /// Verified replies per second.
    per_second: f64,
    latency_us: Latency,
    /// The longest time in which no login was accepted.
    longest_gap_ms: f64,
    /// Logins before the measurement.
    warm_up_logins: u64,
    /// How many more users the run would have needed.
    users_short: Option<u64>,
}

/// Microseconds; null when nothing was measured.
#[derive(Debug, Serialize)]
struct Latency {
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
    #[serde(rename = "p99.9")]
    p999: Option<f64>,
    max: Option<f64>,
}

impl Row {
    fn new(outcome: &Outcome) -> Self {
        let Outcome { in_flight, tally, measured, longest_gap, users_short } = outcome;
        let counts = tally.measured;
        let quantile = |permille| tally.latency.quantile(permille).map(microseconds);
        Self {
            in_flight: *in_flight,
            seconds: (measured.as_secs_f64() * 1_000.0).round() / 1_000.0,
            logins: counts.logins(),
            accepts: counts.accepts,
            rejects: counts.rejects,
            challenges: counts.challenges,
            timeouts: counts.unknown,
            retransmissions: counts.retransmissions,
            wrong_replies: tally.wrong,
            extra_replies: tally.extra,
            unreachable: tally.unreachable,
            per_second: (rate(tally.replies_in_window, *measured) * 10.0).round() / 10.0,
            latency_us: Latency {
                p50: quantile(500),
                p90: quantile(900),
                p99: quantile(990),
                p999: quantile(999),
                max: tally.latency.max().map(microseconds),
            },
            longest_gap_ms: microseconds(*longest_gap) / 1_000.0,
            warm_up_logins: tally.warm_up.logins(),
            users_short: *users_short,
        }
    }
}

fn microseconds(latency: Duration) -> f64 {
    (latency.as_nanos() as f64 / 100.0).round() / 10.0
}

/// Prints all runs to standard output.
pub(super) fn print(outcomes: &[Outcome], format: Format) -> Result<(), BenchError> {
    let rows: Vec<Row> = outcomes.iter().map(Row::new).collect();
    let text = match format {
        Format::Table => table(&rows),
        Format::Json => {
            let runs = serde_json::json!({ "runs": rows });
            format!("{runs:#}")
        }
    };
    writeln!(io::stdout().lock(), "{text}").map_err(BenchError::Output)
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "IN FLIGHT",
        "LOGINS",
        "ACCEPTED",
        "REJECTED",
        "CHALLENGED",
        "TIMEOUTS",
        "RESENT",
        "WRONG",
        "PER SECOND",
        "P50",
        "P90",
        "P99",
        "P99.9",
        "MAX",
        "LONGEST GAP",
    ]);
    for row in rows {
        let latency = &row.latency_us;
        let latencies = [latency.p50, latency.p90, latency.p99, latency.p999, latency.max];
        let counts = [
            u64::from(row.in_flight),
            row.logins,
            row.accepts,
            row.rejects,
            row.challenges,
            row.timeouts,
            row.retransmissions,
            row.wrong_replies,
        ];
        let cells = counts.iter().map(u64::to_string);
        let cells = cells.chain([format!("{:.0}", row.per_second)]);
        let times = latencies.into_iter().chain([Some(row.longest_gap_ms * 1_000.0)]);
        table.add_row(cells.chain(times.map(milliseconds)));
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

fn milliseconds(microseconds: Option<f64>) -> String {
    microseconds.map_or_else(|| "-".to_owned(), |us| format!("{:.3} ms", us / 1_000.0))
}

/// Says on standard error what the figures do not.
pub(super) fn print_notes(outcomes: &[Outcome]) {
    for Outcome { in_flight, tally, measured, users_short, .. } in outcomes {
        if let Some(more) = users_short {
            eprintln!(
                "{in_flight} in flight: every user had logged in during this time step after {:.1} s; \
                 about {more} more users are needed",
                measured.as_secs_f64()
            );
        }
        if tally.unreachable > 0 && tally.measured.replies() > 0 {
            eprintln!("{in_flight} in flight: at times, nobody listened on the server's port");
        }
    }
}

/// Fails when the server did what it must not do.
///
/// # Errors
/// One line with the first reason.
pub(super) fn verdict(
    outcomes: &[Outcome],
    users: &Users,
    counters: &Path,
) -> Result<(), BenchError> {
    let sum = |part: fn(&Outcome) -> u64| outcomes.iter().map(part).sum::<u64>();
    let fail = |text| Err(BenchError::Verdict(text));
    let logins = sum(|run| run.tally.warm_up.logins() + run.tally.measured.logins());
    let wrong = sum(|run| run.tally.wrong);
    if wrong > 0 {
        let reason = outcomes.iter().find_map(|run| run.tally.first_wrong).unwrap_or("unknown");
        return fail(format!("{wrong} wrong replies; the first: {reason}"));
    }
    let rejects = sum(|run| run.tally.warm_up.rejects + run.tally.measured.rejects);
    if rejects > 0 {
        let first = outcomes.iter().find_map(|run| run.tally.first_reject);
        let user = first.and_then(|login| users.all.get(login.user as usize));
        let (name, factor) = (user.map_or("", |user| &user.name), first.map(|l| l.moving_factor));
        let what = match users.moving {
            Moving::Counter => "counter",
            Moving::Step { .. } => "time step",
        };
        return fail(format!(
            "{rejects} of {logins} valid passcodes were rejected; the first: user {name:?}, \
             {what} {} (if the server was set up anew, delete {})",
            factor.unwrap_or_default(),
            counters.display()
        ));
    }
    let replies = sum(|run| run.tally.warm_up.replies() + run.tally.measured.replies());
    if replies == 0 && logins > 0 {
        let unreachable = sum(|run| run.tally.unreachable) > 0;
        let hint =
            if unreachable { "nobody listens there" } else { "is the secret the same there?" };
        return fail(format!("the server did not answer: {hint}"));
    }
    let accepts = sum(|run| run.tally.warm_up.accepts + run.tally.measured.accepts);
    if accepts == 0 && replies > 0 {
        return fail(format!(
            "none of {replies} valid passcodes was accepted, all were challenged"
        ));
    }
    Ok(())
}

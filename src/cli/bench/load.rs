//! `watchword bench radius`: one run after the other, what they used, what they found.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::generator::{Bench, Extent, Outcome};
use super::interrupt::Interrupt;
use super::lane::Plan;
use super::pool::Pool;
use super::users::{Moving, Users};
use super::{BenchError, RadiusArgs, counters, report};
use crate::clock;
use crate::radius::secret::Secret;

/// After a time step begins, so that a server whose clock is a little behind is in it too.
const STEP_MARGIN_MS: u64 = 100;

/// Measures, keeps the counters, prints, judges.
pub(super) fn run(args: &RadiusArgs) -> Result<(), BenchError> {
    let plan = plan(args)?;
    let users = Users::load(&args.users_file)?;
    let in_flight = args.in_flight.iter().copied().max().unwrap_or(1);
    if users.all.len() < in_flight as usize {
        return Err(BenchError::TooFewUsers { in_flight, users: users.all.len() });
    }
    let counters_path = counters::path_of(&args.users_file);
    let pool = Mutex::new(Pool::new(counters::load(&counters_path, &users)?));
    let interrupt = Interrupt::on_signals()?;
    let bench = Bench {
        servers: &args.servers,
        plan: &plan,
        users: &users,
        pool: &pool,
        interrupt: &interrupt,
        warm_up: args.warm_up,
        extent: match args.requests {
            Some(logins) => Extent::Logins(logins),
            None => Extent::Time(Duration::from_secs(args.seconds)),
        },
    };
    let outcomes = run_all(&bench, args);
    // Before anything else can fail: what was used stays used.
    let next = pool.lock().unwrap_or_else(PoisonError::into_inner);
    counters::save(&counters_path, &users, next.next())?;
    drop(next);
    let outcomes = outcomes?;
    report::print(&outcomes, args.format)?;
    report::print_notes(&outcomes);
    report::verdict(&outcomes, &users, &counters_path)
}

fn plan(args: &RadiusArgs) -> Result<Plan, BenchError> {
    let path = &args.secret_file;
    let text = std::fs::read(path)
        .map_err(|source| BenchError::Read { path: path.clone(), source })
        .map(zeroize::Zeroizing::new)?;
    let end = text.iter().rposition(|&octet| !matches!(octet, b'\r' | b'\n'));
    let octets = text.get(..end.map_or(0, |last| last + 1)).unwrap_or_default();
    Ok(Plan {
        secret: Secret::new(octets).map_err(|_| BenchError::Secret { path: path.clone() })?,
        rule: args.reply_message_authenticator.into(),
        is_signed: args.message_authenticator,
        prefix: args.password.as_ref().map(|password| format!("{password},")).unwrap_or_default(),
        timeout: args.timeout,
        retries: args.retries,
    })
}

fn run_all(bench: &Bench<'_>, args: &RadiusArgs) -> Result<Vec<Outcome>, BenchError> {
    let mut outcomes = Vec::new();
    for &in_flight in &args.in_flight {
        wait_for_step(bench, in_flight, args.align_step);
        if bench.interrupt.is_raised() {
            break;
        }
        let outcome = bench.run(in_flight)?;
        let is_silent = outcome.tally.warm_up.replies() + outcome.tally.measured.replies() == 0;
        outcomes.push(outcome);
        if is_silent {
            break;
        }
    }
    Ok(outcomes)
}

/// Waits for the next time step when too few users have the current one left, or when told to.
fn wait_for_step(bench: &Bench<'_>, in_flight: u32, align: bool) {
    let Moving::Step { period_seconds } = bench.users.moving else { return };
    let now = clock::now();
    let available = {
        let pool = bench.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.available(bench.users.step(now))
    };
    if !align && available >= in_flight as usize {
        return;
    }
    let period_ms = u64::from(period_seconds.max(1)) * 1_000;
    let wait_ms = period_ms - now.0 % period_ms + STEP_MARGIN_MS;
    eprintln!("waiting {} s for the next time step", wait_ms.div_ceil(1_000));
    bench.interrupt.wait(Duration::from_millis(wait_ms));
}

//! One run: so many logins in flight, for so long, over as many sockets as that takes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::BenchError;
use super::interrupt::Interrupt;
use super::lane::{Authenticators, Lane, Plan, WIDTH_MAX};
use super::pool::{Login, Pool};
use super::silence::Silence;
use super::tally::Tally;
use super::users::{Moving, Users};

/// Progress is shown for runs that take longer.
const QUIET: Duration = Duration::from_secs(2);
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// How much to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Time(Duration),
    Logins(u64),
}

/// What stays the same from run to run.
pub(super) struct Bench<'a> {
    pub servers: &'a [SocketAddr],
    pub plan: &'a Plan,
    pub users: &'a Users,
    pub pool: &'a Mutex<Pool>,
    pub interrupt: &'a Interrupt,
    pub warm_up: Duration,
    pub extent: Extent,
}

/// What the lanes of one run share.
pub(super) struct Run<'a> {
    pub plan: &'a Plan,
    pub users: &'a Users,
    pub pool: &'a Mutex<Pool>,
    pub interrupt: &'a Interrupt,
    /// Logins that start before are not measured.
    pub warm_until: Instant,
    until: Option<Instant>,
    is_halted: AtomicBool,
    replies: AtomicU64,
    silence: Silence,
}

/// What one run found.
pub(super) struct Outcome {
    pub in_flight: u32,
    pub tally: Tally,
    /// How long was measured.
    pub measured: Duration,
    /// The longest time without an accept.
    pub longest_gap: Duration,
    /// About how many more users the run would have needed, when they ran out.
    pub users_short: Option<u64>,
}

impl Run<'_> {
    /// Whether no more logins are to start.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now >= until) || self.is_halted.load(Ordering::Relaxed)
    }

    /// Makes every lane stop starting logins.
    pub(super) fn halt(&self) {
        self.is_halted.store(true, Ordering::Relaxed);
    }

    /// A login has ended.
    pub(super) fn give_back(&self, login: Login) {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).give_back(login);
    }

    /// A login was accepted.
    pub(super) fn accepted(&self, now: Instant) {
        self.silence.ends(now);
    }

    /// For the progress line.
    pub(super) fn count_reply(&self) {
        self.replies.fetch_add(1, Ordering::Relaxed);
    }
}

impl Bench<'_> {
    /// Keeps `in_flight` logins going until enough was measured.
    ///
    /// # Errors
    /// When a socket, a thread or a request cannot be made. Bad replies are part of the outcome.
    pub(super) fn run(&self, in_flight: u32) -> Result<Outcome, BenchError> {
        let (budget, time) = match self.extent {
            Extent::Time(time) => (None, Some(time)),
            Extent::Logins(logins) => (Some(logins), None),
        };
        let now = crate::clock::now();
        let available = {
            let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
            pool.allow(budget);
            pool.available(self.users.step(now))
        };
        // As few sockets as one's width allows, and at least one per server.
        let servers = u32::try_from(self.servers.len()).unwrap_or(u32::MAX).min(in_flight);
        let lanes = in_flight.div_ceil(WIDTH_MAX).max(servers).max(1);
        // The system's generator takes a tenth of a second to start, which is none of the server's.
        let authenticators: Vec<_> =
            (0..lanes).map(|_| Authenticators::new()).collect::<Result<_, _>>()?;
        let started = Instant::now();
        let warm_until = started + self.warm_up;
        let run = Run {
            plan: self.plan,
            users: self.users,
            pool: self.pool,
            interrupt: self.interrupt,
            warm_until,
            until: time.map(|time| warm_until + time),
            is_halted: AtomicBool::new(false),
            replies: AtomicU64::new(0),
            silence: Silence::since(warm_until),
        };
        let tally = self.work(&run, in_flight, authenticators)?;
        let end = if time.is_some() { tally.stopped } else { tally.last_reply };
        let measured = end.unwrap_or(warm_until).saturating_duration_since(warm_until);
        if let Some(stopped) = tally.stopped {
            run.silence.ends(stopped);
        }
        let longest_gap = run.silence.longest();
        let users_short = tally.users_used_up.then(|| self.users_short(&tally, started, available));
        Ok(Outcome { in_flight, tally, measured, longest_gap, users_short })
    }

    fn work(
        &self,
        run: &Run<'_>,
        in_flight: u32,
        authenticators: Vec<Authenticators>,
    ) -> Result<Tally, BenchError> {
        let lanes = self.lanes(run, in_flight, authenticators)?;
        thread::scope(|scope| {
            let (sender, ended) = mpsc::channel::<()>();
            let mut handles = Vec::new();
            for lane in lanes {
                let sender = sender.clone();
                let work = move || {
                    let result = lane.work();
                    if result.is_err() {
                        run.halt();
                    }
                    drop(sender);
                    result
                };
                let builder = thread::Builder::new().name("bench-lane".to_owned());
                // Lanes that have started already are to end before the error is reported.
                let spawned = builder.spawn_scoped(scope, work).inspect_err(|_| run.halt());
                handles.push(spawned.map_err(BenchError::Thread)?);
            }
            drop(sender);
            show_progress(run, in_flight, &ended);
            let mut total = Tally::new();
            for handle in handles {
                total.merge(&handle.join().map_err(|_| BenchError::ThreadDied)??);
            }
            Ok(total)
        })
    }

    /// One lane per source of authenticators, equally wide.
    fn lanes<'r>(
        &self,
        run: &'r Run<'r>,
        in_flight: u32,
        authenticators: Vec<Authenticators>,
    ) -> Result<Vec<Lane<'r>>, BenchError> {
        let count = u32::try_from(authenticators.len()).unwrap_or(u32::MAX).max(1);
        let servers = self.servers.iter().cycle();
        (0..count)
            .zip(authenticators)
            .zip(servers)
            .map(|((index, authenticators), &server)| {
                let width = in_flight / count + u32::from(index < in_flight % count);
                Lane::new(run, server, width, authenticators)
            })
            .collect()
    }

    /// About how many more users the whole run would have needed, at the rate that was reached.
    fn users_short(&self, tally: &Tally, started: Instant, available: usize) -> u64 {
        let replies = tally.warm_up.replies() + tally.measured.replies();
        let elapsed = tally.stopped.map_or(Duration::ZERO, |end| end.duration_since(started));
        let rate = rate(replies, elapsed);
        let per_step = match self.users.moving {
            Moving::Counter => 0.0,
            Moving::Step { period_seconds } => f64::from(period_seconds) * rate,
        };
        let planned = match self.extent {
            Extent::Time(time) => (self.warm_up + time).as_secs_f64() * rate,
            Extent::Logins(logins) => self.warm_up.as_secs_f64() * rate + logins as f64,
        };
        // Whoever has used one time step may log in again in the next.
        (planned.min(per_step) - available as f64).max(1.0).ceil() as u64
    }
}

/// Waits for the lanes to end.
fn show_progress(run: &Run<'_>, in_flight: u32, ended: &Receiver<()>) {
    let started = Instant::now();
    let mut bar = None;
    let mut before = (started, 0);
    while ended.recv_timeout(PROGRESS_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let now = Instant::now();
        if now.duration_since(started) < QUIET {
            continue;
        }
        // Hidden unless standard error is a terminal.
        let bar = bar.get_or_insert_with(progress_bar);
        let replies = run.replies.load(Ordering::Relaxed);
        let rate = rate(replies - before.1, now.duration_since(before.0));
        bar.set_message(format!("{in_flight} in flight: {replies} replies, {rate:.0} per second"));
        bar.tick();
        before = (now, replies);
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
    ProgressBar::new_spinner()
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

/// Events per second; zero when no time has passed.
pub(super) fn rate(events: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { events as f64 / time.as_secs_f64() }
}

#[cfg(test)]
mod tests;

//! Time and randomness, for all code of the process: both follow from the seed.
//!
//! The program defines `getrandom` and `clock_gettime` itself, so that the product, its libraries and the
//! standard library run unchanged: hash maps, election timeouts and wall clocks are what the
//! simulation says. Only the thread that simulates is told so; any other gets the real ones.
//! What asks the kernel without the C library (the cryptographic library) stays random: it makes keys and
//! nonces of TLS and seals, which no decision of the simulation depends on.

#![allow(unsafe_code)]
#![expect(unreachable_pub, reason = "the linker reaches them")]

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tokio::runtime::{Handle, Id};

/// The wall clock at the beginning, and how much later it is at most, so that a time step of a passcode may
/// end at any moment of a run: 2027-01-15.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);
const PHASE_MS_MAX: u64 = 30_000;
/// The steady clock at the beginning. Subtractions from early readings must not fall below zero.
const UPTIME: Duration = Duration::from_secs(1_000_000);

thread_local! {
    static RANDOM: Cell<Option<u64>> = const { Cell::new(None) };
    static PHASE: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// The hosts by their runtimes, and by how many milliseconds each one's clock is ahead.
    static HOSTS: RefCell<Vec<(Id, usize)>> = const { RefCell::new(Vec::new()) };
    static SKEWS: RefCell<Vec<i64>> = const { RefCell::new(Vec::new()) };
}

/// From here on this thread has simulated time and the random numbers of `seed`.
pub(crate) fn simulate(seed: u64) {
    RANDOM.set(Some(seed));
    let phase = fastrand::Rng::with_seed(seed ^ 0x7068_6173_6500).u64(0..PHASE_MS_MAX);
    PHASE.set(Duration::from_millis(phase));
}

/// Sets the time since the beginning.
pub(crate) fn set_now(now: Duration) {
    NOW.set(now);
}

/// The true wall clock, in milliseconds since 1970.
pub(crate) fn true_time_ms() -> u64 {
    u64::try_from((EPOCH + PHASE.get() + NOW.get()).as_millis()).unwrap_or(u64::MAX)
}

/// Says that the runtime that calls is `host`'s.
pub(crate) fn enter_host(host: usize) {
    let id = Handle::current().id();
    HOSTS.with_borrow_mut(|hosts| {
        hosts.retain(|(_, other)| *other != host);
        hosts.push((id, host));
    });
}

/// Puts the clock of `host` ahead by `ms` more than it is.
pub(crate) fn add_skew(host: usize, ms: i64) {
    SKEWS.with_borrow_mut(|skews| {
        if skews.len() <= host {
            skews.resize(host + 1, 0);
        }
        if let Some(skew) = skews.get_mut(host) {
            *skew += ms;
        }
    });
}

/// How many clocks are wrong.
pub(crate) fn wrong_clocks() -> usize {
    SKEWS.with_borrow(|skews| skews.iter().filter(|skew| **skew != 0).count())
}

/// By how much the clock of the calling host is ahead.
fn skew_ms() -> i64 {
    let Ok(runtime) = Handle::try_current() else { return 0 };
    let id = runtime.id();
    HOSTS.with_borrow(|hosts| {
        let host = hosts.iter().find(|(one, _)| *one == id).map(|(_, host)| *host);
        SKEWS.with_borrow(|skews| host.and_then(|host| skews.get(host).copied())).unwrap_or(0)
    })
}

fn wall_clock() -> Duration {
    let now = EPOCH + PHASE.get() + NOW.get();
    let skew = skew_ms();
    let by = Duration::from_millis(skew.unsigned_abs());
    if skew < 0 { now.saturating_sub(by) } else { now + by }
}

/// Stands in for the C library's `getrandom(2)`.
///
/// # Safety
/// As there: `buffer` is valid for writes of `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(
    buffer: *mut libc::c_void,
    length: usize,
    flags: libc::c_uint,
) -> isize {
    let Some(mut state) = RANDOM.get() else {
        // SAFETY: the caller's promise, passed on.
        let got = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return isize::try_from(got).unwrap_or(-1);
    };
    // SAFETY: the caller promises that these bytes may be written.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for chunk in bytes.chunks_mut(8) {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        chunk.iter_mut().zip(mixed.to_le_bytes()).for_each(|(to, from)| *to = from);
    }
    RANDOM.set(Some(state));
    isize::try_from(length).unwrap_or(-1)
}

/// Stands in for the C library's `clock_gettime(2)`.
///
/// # Safety
/// As there: `time` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    let simulated = match clock {
        _ if RANDOM.get().is_none() => None,
        libc::CLOCK_REALTIME => Some(wall_clock()),
        libc::CLOCK_MONOTONIC => Some(UPTIME + NOW.get()),
        _ => None,
    };
    let Some(simulated) = simulated else {
        // SAFETY: the caller's promise, passed on.
        let done = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
        return libc::c_int::try_from(done).unwrap_or(-1);
    };
    let seconds = libc::time_t::try_from(simulated.as_secs()).unwrap_or(libc::time_t::MAX);
    let nanoseconds = libc::c_long::from(i32::try_from(simulated.subsec_nanos()).unwrap_or(0));
    // SAFETY: the caller promises that it may be written.
    unsafe { *time = libc::timespec { tv_sec: seconds, tv_nsec: nanoseconds } };
    0
}

//! What the state costs per login: 100,000 users, each logging in with a HOTP passcode in an order of
//! no pattern. Once with the state changed in place, as a replica does it, and once with a copy taken
//! after each batch, so that the next change copies what it touches.
//!
//!   cargo bench -p watchword-core
//!
//! Prints nanoseconds per login by size of the batch: examined (look-ups by name and by id, as a node
//! does before it proposes) and applied.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use watchword_core::attempt::{Asker, Verdict};
use watchword_core::command::{Conclude, Finding, FirstProof, NewDevice, NewOath, NewUser, Proof};
use watchword_core::factor::Algorithm;
use watchword_core::id::{DeviceId, RequestId, UserId};
use watchword_core::name::UserName;
use watchword_core::sealed::Sealed;
use watchword_core::time::Timestamp;
use watchword_core::user::Profile;
use watchword_core::{Applied, Command, Entry, State};

const USERS: u64 = 100_000;
const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// Sixteen bytes without a pattern (splitmix64).
fn scattered(n: u64) -> [u8; 16] {
    let mix = |n: u64| {
        let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    };
    let high = mix(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (u128::from(high) << 64 | u128::from(mix(high))).to_be_bytes()
}

fn name(n: u64) -> String {
    format!("user{n:06}")
}

fn state() -> State {
    let mut state = State::default();
    for n in 0..USERS {
        let device = NewDevice {
            id: DeviceId(scattered(n + USERS)),
            label: "token".into(),
            key: Sealed::new(&[7; 49]),
            algorithm: Algorithm::Sha1,
            digits: 6,
            oath: NewOath::Hotp { counter: 0 },
        };
        let command = Command::AddUser(Box::new(NewUser {
            id: UserId(scattered(n)),
            name: UserName::canonical(&name(n)).expect("a name"),
            profile: Profile::default(),
            password: None,
            enabled: true,
            devices: vec![device],
        }));
        assert_eq!(state.apply(n, &Entry { time: NOW, command }), Applied::Done);
    }
    state
}

/// The login number `n`: who, and the entry that decides it.
fn login(n: u64) -> (UserName, Entry) {
    let round = n / USERS;
    // A step without a common divisor visits each user once per round.
    let user = n.wrapping_mul(7_919) % USERS;
    let passcode =
        Proof::Passcode { device: DeviceId(scattered(user + USERS)), moving_factor: round };
    let command = Command::Conclude(Conclude {
        request: RequestId(scattered(n + 2 * USERS)),
        asker: Asker::Console,
        client_revision: 0,
        username: name(user).into(),
        user: Some(UserId(scattered(user))),
        remote: "192.0.2.1".into(),
        challenge: None,
        finding: Finding::Proven { first: FirstProof::Client, second: passcode },
        reply: None,
    });
    (UserName::canonical(&name(user)).expect("a name"), Entry { time: NOW, command })
}

fn examine(state: &State, name: &UserName, entry: &Entry) {
    let Command::Conclude(conclude) = &entry.command else { return };
    black_box(state.attempts().decision(conclude.request, NOW).is_some());
    let (_, user) = state.user_by_name(name).expect("known");
    for (_, device) in state.devices_of(user) {
        black_box(device.key.as_bytes().first());
    }
}

/// Nanoseconds per login to examine and to apply, in batches of `batch`.
fn measure(
    state: &mut State,
    logins: &mut impl Iterator<Item = u64>,
    batch: usize,
    is_copied: bool,
) -> [u128; 2] {
    let mut copy = State::default();
    let (mut examined, mut applied, mut count) = (Duration::ZERO, Duration::ZERO, 0u32);
    while count < 200_000 {
        let batch: Vec<_> = logins.by_ref().take(batch).map(login).collect();
        let began = Instant::now();
        for (name, entry) in &batch {
            examine(state, name, entry);
        }
        examined += began.elapsed();
        let began = Instant::now();
        for (_, entry) in &batch {
            let applied = state.apply(u64::from(count), entry);
            let Applied::Concluded(decision) = applied else { panic!("not decided") };
            assert!(matches!(decision.verdict, Verdict::Accepted(_)), "refused");
            count += 1;
        }
        if is_copied {
            copy.clone_from(state);
        }
        applied += began.elapsed();
    }
    [examined, applied].map(|time| time.as_nanos() / u128::from(count))
}

fn main() {
    let mut state = state();
    let mut logins = 0..;
    println!("{:>6} {:>12} {:>12} {:>12}", "BATCH", "EXAMINED ns", "APPLIED ns", "COPIED ns");
    for batch in [1, 4, 16, 64] {
        let [examined, applied] = measure(&mut state, &mut logins, batch, false);
        let [_, copied] = measure(&mut state, &mut logins, batch, true);
        println!("{batch:>6} {examined:>12} {applied:>12} {copied:>12}");
    }
}

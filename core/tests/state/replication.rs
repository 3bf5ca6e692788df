//! What makes the state replicable: total, deterministic, and whole in a snapshot.

use std::sync::Arc;

use crate::common::*;
use proptest::prelude::*;
use watchword_core::attempt::{Asker, Reason};
use watchword_core::client::{FirstFactor, RadiusHabits};
use watchword_core::command::{Finding, FirstProof, Proof, UserChange};
use watchword_core::data_key::Secret;
use watchword_core::name::UserName;
use watchword_core::sealed::Sealed;
use watchword_core::settings::Value;
use watchword_core::time::Timestamp;
use watchword_core::{Applied, Command, Entry, State, codec, limits};

/// A small world, so that commands meet the things that others made.
fn small() -> impl Strategy<Value = u8> {
    0..4u8
}

fn device() -> impl Strategy<Value = watchword_core::command::NewDevice> {
    (small(), any::<bool>())
        .prop_map(|(n, hotp)| if hotp { hotp_device(n) } else { totp_device(n) })
}

fn finding() -> impl Strategy<Value = Finding> {
    let first = prop_oneof![
        Just(FirstProof::Client),
        (0..40u64).prop_map(|revision| FirstProof::Password { revision }),
    ];
    let second = prop_oneof![
        (small(), 0..20u64)
            .prop_map(|(n, moving_factor)| Proof::Passcode { device: device_id(n), moving_factor }),
        (small(), START / 30_000 - 3..START / 30_000 + 10).prop_map(|(n, moving_factor)| {
            Proof::Passcode { device: device_id(n), moving_factor }
        }),
        (0..40u64).prop_map(|revision| Proof::Bypass { revision }),
        Just(Proof::UnknownUser),
    ];
    prop_oneof![
        3 => (first, second).prop_map(|(first, second)| Finding::Proven { first, second }),
        1 => prop_oneof![
            Just(Reason::PasscodeWrong),
            Just(Reason::PasswordWrong),
            Just(Reason::UserUnknown),
        ]
        .prop_map(Finding::Failed),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let name = |n: u8| ["alice", "bob", "carol", "dave"][usize::from(n)];
    let text: Arc<str> = "test".into();
    let by = text.clone();
    prop_oneof![
        3 => (small(), small(), prop::collection::vec(device(), 0..3))
            .prop_map(move |(id, n, devices)| new_user(id, name(n), devices)),
        1 => (small(), small(), any::<Option<bool>>()).prop_map(move |(user, n, enabled)| {
            let name = UserName::canonical(name(n)).expect("a name");
            let change = UserChange { name: Some(name), enabled, ..UserChange::default() };
            Command::ChangeUser { user: user_id(user), change }
        }),
        1 => small().prop_map(|user| Command::DeleteUser { user: user_id(user) }),
        1 => (small(), any::<Option<u32>>()).prop_map(move |(user, ms)| Command::BlockUser {
            user: user_id(user),
            reason: text.clone(),
            by: text.clone(),
            for_ms: ms.map(u64::from),
        }),
        1 => small().prop_map(|user| Command::UnblockUser { user: user_id(user) }),
        1 => (small(), 0..100_000u64).prop_map(move |(user, for_ms)| Command::GrantBypass {
            user: user_id(user),
            reason: by.clone(),
            by: by.clone(),
            for_ms,
        }),
        2 => (small(), device())
            .prop_map(|(user, device)| Command::AddDevice { user: user_id(user), device }),
        1 => small().prop_map(|device| Command::RevokeDevice { device: device_id(device) }),
        1 => (small(), any::<u64>())
            .prop_map(|(device, first)| Command::ResyncDevice { device: device_id(device), first }),
        1 => (small(), small()).prop_map(|(id, n)| {
            let address = format!("10.0.{n}.0/24");
            Command::AddClient(put_client(id, "vpn", &address, policy(FirstFactor::None, false)))
        }),
        1 => (small(), small()).prop_map(|(id, n)| {
            let address = format!("10.0.{n}.0/24");
            Command::EditClient(put_client(id, "wifi", &address, policy(FirstFactor::local(), true)))
        }),
        1 => small().prop_map(|client| Command::RemoveClient { client: client_id(client) }),
        1 => (small(), any::<bool>()).prop_map(|(client, signs)| Command::LearnClient {
            client: client_id(client),
            habits: RadiusHabits { signs, is_no_proxy: true },
        }),
        1 => (0..2_000u64).prop_map(|failures| Command::ChangeSettings {
            by: "test".into(),
            if_revision: None,
            changes: vec![("lockout.passcode_failures".into(), Some(Value::Integer(failures)))],
        }),
        1 => (0..3u32).prop_map(|level| Command::EnableFeature { level }),
        1 => (small(), any::<bool>()).prop_map(|(user, some)| Command::ChangeUser {
            user: user_id(user),
            change: UserChange {
                password: Some(some.then(|| Sealed::new(b"hash"))),
                ..UserChange::default()
            },
        }),
        1 => small().prop_map(|n| {
            let Command::Found(mut founding) = found() else { unreachable!("a founding") };
            founding.authority.key = sealed_under(n);
            Command::Found(founding)
        }),
        1 => (small(), 0..3u64).prop_map(|(n, generation)| use_key(n, generation, &[1])),
        1 => (small(), small(), small()).prop_map(|(kind, n, key)| {
            let (secret, old) = match kind {
                0 => (Secret::UserPassword(user_id(n)), Sealed::new(b"sealed hash")),
                1 => (Secret::DeviceKey(device_id(n)), Sealed::new(&[n; 49])),
                2 => (Secret::ClientSecret(client_id(n)), Sealed::new(b"sealed secret")),
                _ => (Secret::AuthorityKey, sealed_under(n)),
            };
            Command::Reseal { items: vec![resealed(secret, old.as_bytes(), key)] }
        }),
        1 => (0..3u64).prop_map(|generation| Command::RetireKeys { generation }),
        12 => (0..30u64, small(), any::<bool>(), 0..40u64, finding(), any::<Option<u8>>()).prop_map(
            |(request, user, by_client, revision, finding, answers)| {
                let mut command = conclude(request, finding);
                command.user = (user != 3).then(|| user_id(user));
                if by_client {
                    command.asker = Asker::Client(client_id(user));
                    command.client_revision = revision;
                }
                command.challenge = answers.map(|n| challenge(n % 4, START + u64::from(n) * 1_000));
                Command::Conclude(command)
            },
        ),
    ]
}

fn log() -> impl Strategy<Value = Vec<Entry>> {
    // Times jump back as well as ahead: a new leader's clock may be behind the old one's.
    let entry = (command(), START - 5_000..START + 200_000)
        .prop_map(|(command, time)| Entry { time: Timestamp(time), command });
    prop::collection::vec(entry, 0..120)
}

fn apply_all(state: &mut State, first: u64, entries: &[Entry]) -> Vec<Applied> {
    (first..).zip(entries).map(|(index, entry)| state.apply(index, entry)).collect()
}

proptest! {
    #[test]
    fn replicas_fed_the_same_entries_are_equal(log in log()) {
        let (mut one, mut other) = (State::default(), State::default());
        let bytes: Vec<Vec<u8>> =
            log.iter().map(|entry| codec::encode(entry).expect("encodes")).collect();
        let decoded: Vec<Entry> = bytes
            .iter()
            .map(|bytes| codec::decode::<_, { limits::ENTRY_BYTES_MAX }>(bytes).expect("decodes"))
            .collect();
        prop_assert_eq!(&decoded, &log);
        prop_assert_eq!(apply_all(&mut one, 1, &log), apply_all(&mut other, 1, &decoded));
        prop_assert_eq!(one.encode().expect("encodes"), other.encode().expect("encodes"));
    }

    #[test]
    fn a_snapshot_and_the_rest_of_the_log_make_the_whole(log in log(), cut in 0..120usize) {
        let cut = cut.min(log.len());
        let (before, after) = log.split_at(cut);
        let mut whole = State::default();
        apply_all(&mut whole, 1, before);
        let mut restored = State::decode(&whole.encode().expect("encodes")).expect("decodes");
        let first = cut as u64 + 1;
        prop_assert_eq!(
            apply_all(&mut whole, first, after),
            apply_all(&mut restored, first, after)
        );
        prop_assert_eq!(whole.digest().expect("digest"), restored.digest().expect("digest"));
    }

    #[test]
    fn a_version_that_a_reader_took_never_changes(log in log(), cut in 0..120usize) {
        let cut = cut.min(log.len());
        let (before, after) = log.split_at(cut);
        let mut state = State::default();
        apply_all(&mut state, 1, before);
        let (taken, bytes) = (state.clone(), state.encode().expect("encodes"));
        apply_all(&mut state, cut as u64 + 1, after);
        prop_assert_eq!(taken.encode().expect("encodes"), bytes);
    }

    #[test]
    fn a_refused_command_changes_nothing_but_the_time(log in log()) {
        let mut state = State::default();
        for (index, entry) in (1..).zip(&log) {
            // Let time pass by itself first, so that only the command can make a difference.
            let tick = Command::EnableFeature { level: 0 };
            state.apply(index, &Entry { time: entry.time, command: tick });
            let before = state.encode().expect("encodes");
            let applied = state.apply(index, entry);
            if matches!(applied, Applied::Refused(_) | Applied::Stale) {
                prop_assert_eq!(state.encode().expect("encodes"), before, "{:?}", entry);
            }
        }
    }

    #[test]
    fn decoding_a_state_never_panics(bytes in any::<Vec<u8>>()) {
        let _ = State::decode(&bytes);
        let _ = State::decode(&[&[1], bytes.as_slice()].concat());
    }
}

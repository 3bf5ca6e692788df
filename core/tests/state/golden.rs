//! Old bytes still mean what they meant.
//!
//! Every shape of entry that was ever released lies in `tests/golden` as hexadecimal text. A test
//! that fails here says that a released encoding was changed: append a new variant instead. To add
//! the file of a new shape, run the tests once with `WATCHWORD_WRITE_GOLDEN=1`; files that exist are
//! never rewritten.

use std::path::PathBuf;

use watchword_core::attempt::{Acceptance, Asker, Reason, Verdict};
use watchword_core::client::{FirstFactor, RadiusHabits};
use watchword_core::command::{Decision, Finding, FirstProof, NodeChange, Proof, UserChange};
use watchword_core::data_key::Secret;
use watchword_core::limits::ENTRY_BYTES_MAX;
use watchword_core::name::UserName;
use watchword_core::sealed::Sealed;
use watchword_core::settings::Value;
use watchword_core::time::Timestamp;
use watchword_core::{Applied, Command, Entry, Refusal, State, codec};

use crate::common::*;

/// One sample of every command, named.
fn commands() -> Vec<(&'static str, Command)> {
    let by_password = Finding::Proven {
        first: FirstProof::Password { revision: 3 },
        second: Proof::Passcode { device: device_id(2), moving_factor: START / 30_000 },
    };
    let by_directory = Finding::Proven {
        first: FirstProof::Directory { directory: directory_id(5), revision: 3 },
        second: Proof::UnknownUser,
    };
    let mut answer = conclude(2, Finding::Failed(Reason::PasscodeWrong));
    answer.asker = Asker::Client(client_id(7));
    answer.client_revision = 4;
    answer.challenge = Some(challenge(9, START + 60_000));
    let learn_server = Command::LearnServer { directory: directory_id(6), revision: 14, server: 1 };
    let mut saying = conclude(4, by_directory);
    saying.reply = Some(b"sealed"[..].into());
    let put = || put_client(7, "vpn", "2001:db8::/32", policy(FirstFactor::local(), false));
    let change = NodeChange { address: Some("b:7401".into()), priority: Some(200) };
    let edit_node = Command::EditNode { node: 1, change };
    vec![
        ("add_user", new_user(1, "alice", vec![hotp_device(1), totp_device(2)])),
        (
            "change_user",
            Command::ChangeUser {
                user: user_id(1),
                change: UserChange {
                    name: Some(UserName::canonical("Alice B").expect("a name")),
                    full_name: Some("Alice B.".into()),
                    mail: Some("alice@example.org".into()),
                    groups: Some(["staff".into(), "vpn".into()].into()),
                    enabled: Some(true),
                    password: Some(Some(Sealed::new(b"sealed"))),
                },
            },
        ),
        (
            "block_user",
            Command::BlockUser {
                user: user_id(1),
                reason: "lost".into(),
                by: "local uid 0".into(),
                for_ms: Some(86_400_000),
            },
        ),
        ("unblock_user", Command::UnblockUser { user: user_id(1) }),
        (
            "grant_bypass",
            Command::GrantBypass {
                user: user_id(1),
                reason: "forgot".into(),
                by: "local uid 0".into(),
                for_ms: 300_000,
            },
        ),
        ("add_device", Command::AddDevice { user: user_id(1), device: hotp_device(3) }),
        ("resync_device", Command::ResyncDevice { device: device_id(3), first: 77 }),
        ("revoke_device", Command::RevokeDevice { device: device_id(3) }),
        ("add_client", Command::AddClient(put())),
        ("edit_client", Command::EditClient(put())),
        (
            "learn_client",
            Command::LearnClient {
                client: client_id(7),
                habits: RadiusHabits { signs: true, is_no_proxy: false },
            },
        ),
        (
            "change_settings",
            Command::ChangeSettings {
                by: "local uid 0".into(),
                if_revision: Some(0),
                changes: vec![
                    ("lockout.minutes".into(), Some(Value::Integer(30))),
                    ("oath.issuer".into(), Some(Value::Text("Example".into()))),
                    ("totp.window_steps".into(), None),
                ],
            },
        ),
        ("add_directory", Command::AddDirectory(put_directory(5, "corp"))),
        ("edit_directory", Command::EditDirectory(put_directory(5, "corp"))),
        ("add_target", Command::AddDirectory(put_target(6, "nps"))),
        ("learn_server", learn_server),
        ("remove_directory", Command::RemoveDirectory { directory: directory_id(5) }),
        ("enable_feature", Command::EnableFeature { level: 1 }),
        ("conclude_passcode", Command::Conclude(conclude(1, by_password))),
        ("conclude_directory", Command::Conclude(conclude(3, by_directory))),
        ("conclude_answer", Command::Conclude(answer)),
        ("conclude_saying", Command::Conclude(saying)),
        ("hold_reply", Command::HoldReply(held_reply(7, b"sealed"))),
        ("remove_client", Command::RemoveClient { client: client_id(8) }),
        ("delete_user", Command::DeleteUser { user: user_id(2) }),
        ("found", found()),
        ("create_token", create_token(1, 2)),
        ("admit_node", admit(1, 2, "node2.example.org:7400")),
        ("revoke_token", Command::RevokeToken { token: token_id(9) }),
        ("remove_node", Command::RemoveNode { node: 2 }),
        ("edit_node", edit_node),
        ("recover", Command::Recover { node: 1 }),
        ("checkpoint", Command::Checkpoint),
        ("use_key", use_key(1, 1, &[1])),
        (
            "reseal",
            Command::Reseal {
                items: vec![
                    resealed(Secret::DeviceKey(device_id(1)), &[1; 49], 1),
                    resealed(Secret::UserPassword(user_id(1)), b"sealed", 1),
                    resealed(Secret::ClientSecret(client_id(7)), b"other", 1),
                    resealed(Secret::AuthorityKey, b"sealed", 1),
                    resealed(Secret::DirectorySecret(directory_id(5)), b"sealed", 1),
                ],
            },
        ),
        ("retire_keys", Command::RetireKeys { generation: 1 }),
    ]
}

/// Makes the compiler ask for a sample of every new command.
fn is_sampled(command: &Command) -> bool {
    match command {
        Command::AddUser(_)
        | Command::ChangeUser { .. }
        | Command::DeleteUser { .. }
        | Command::BlockUser { .. }
        | Command::UnblockUser { .. }
        | Command::GrantBypass { .. }
        | Command::AddDevice { .. }
        | Command::RevokeDevice { .. }
        | Command::ResyncDevice { .. }
        | Command::AddClient(_)
        | Command::EditClient(_)
        | Command::RemoveClient { .. }
        | Command::LearnClient { .. }
        | Command::AddDirectory(_)
        | Command::EditDirectory(_)
        | Command::RemoveDirectory { .. }
        | Command::LearnServer { .. }
        | Command::ChangeSettings { .. }
        | Command::EnableFeature { .. }
        | Command::Conclude(_)
        | Command::HoldReply(_)
        | Command::Found(_)
        | Command::CreateToken { .. }
        | Command::RevokeToken { .. }
        | Command::AdmitNode(_)
        | Command::RemoveNode { .. }
        | Command::EditNode { .. }
        | Command::Recover { .. }
        | Command::Checkpoint
        | Command::UseKey { .. }
        | Command::Reseal { .. }
        | Command::RetireKeys { .. } => true,
    }
}

fn results() -> Vec<(&'static str, Applied)> {
    let decision = |verdict| Decision { verdict, attempt: 300, repeated: false, has_reply: false };
    let accepted = Verdict::Accepted(Acceptance::Passcode(device_id(2)));
    vec![
        ("nothing", Applied::Nothing),
        ("done", Applied::Done),
        ("stale", Applied::Stale),
        ("admitted", Applied::Admitted(7)),
        ("refused", Applied::Refused(Refusal::UserExists("alice".into()))),
        ("accepted", Applied::Concluded(decision(accepted))),
        ("rejected", Applied::Concluded(decision(Verdict::Refused(Reason::PasscodeUsed)))),
    ]
}

/// The bytes of the golden file `name`, which are `bytes` if it is to be written now.
fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "golden", name].iter().collect();
    if !path.exists() && std::env::var_os("WATCHWORD_WRITE_GOLDEN").is_some() {
        let lines: Vec<String> = bytes
            .chunks(48)
            .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect())
            .collect();
        std::fs::write(&path, lines.join("\n") + "\n").expect("writes");
    }
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("ASCII");
            u8::from_str_radix(pair, 16).expect("hexadecimal")
        })
        .collect()
}

#[test]
fn every_released_entry_still_decodes_and_encodes_to_the_same_bytes() {
    for (name, command) in commands() {
        assert!(is_sampled(&command));
        let entry = Entry { time: Timestamp(START), command };
        let bytes = codec::encode(&entry).expect("encodes");
        let old = golden(&format!("entry_{name}_v1.hex"), &bytes);
        let decoded: Entry = codec::decode::<_, ENTRY_BYTES_MAX>(&old).expect("decodes");
        assert_eq!(decoded, entry, "{name}");
        assert_eq!(bytes, old, "{name}");
    }
}

#[test]
fn every_released_result_still_decodes() {
    for (name, applied) in results() {
        let bytes = codec::encode(&applied).expect("encodes");
        let old = golden(&format!("applied_{name}_v1.hex"), &bytes);
        let decoded: Applied = codec::decode::<_, ENTRY_BYTES_MAX>(&old).expect("decodes");
        assert_eq!(decoded, applied, "{name}");
    }
}

#[test]
fn the_released_snapshot_still_decodes_to_the_same_state() {
    let mut replica = Replica::default();
    for (_, command) in commands() {
        replica.apply(command);
    }
    let bytes = replica.state.encode().expect("encodes");
    let old = golden("snapshot_v1.hex", &bytes);
    let decoded = State::decode(&old).expect("decodes");
    assert_eq!(decoded.encode().expect("encodes"), old);
    assert_eq!(bytes, old, "the same log still leads to the same state");
}

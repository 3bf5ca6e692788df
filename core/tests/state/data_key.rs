//! The data key is replaced: what can enter when, and what must be left before a key is given up.

use watchword_core::client::FirstFactor;
use watchword_core::command::{Finding, FirstProof, NewDevice, Proof, UserChange};
use watchword_core::data_key::Secret;
use watchword_core::limits::{RESEALED_MAX, SEALED_BYTES_MAX};
use watchword_core::sealed::{KeyId, Sealed};
use watchword_core::{Applied, Command, Refusal, State};

use crate::change::refuses;
use crate::common::*;

/// A device whose key is sealed under `n`.
fn device_under(device: u8, n: u8) -> NewDevice {
    NewDevice { key: sealed_under(n), ..hotp_device(device) }
}

fn user_under(user: u8, name: &str, n: u8) -> Command {
    let Command::AddUser(mut new) = new_user(user, name, vec![device_under(user, n)]) else {
        panic!("a user")
    };
    new.password = Some(sealed_under(n));
    Command::AddUser(new)
}

fn client_under(client: u8, n: u8, add: bool) -> Command {
    let name = format!("client{client}");
    let mut put = put_client(
        client,
        &name,
        &format!("10.0.{client}.0/24"),
        policy(FirstFactor::local(), true),
    );
    let watchword_core::command::ClientFields::Radius(radius) = &mut put.fields;
    radius.secret = sealed_under(n);
    if add { Command::AddClient(put) } else { Command::EditClient(put) }
}

/// Two nodes whose data key is number 1, with alice (user and device 1) and client 7.
fn cluster() -> Replica {
    let mut replica = Replica::default();
    let Command::Found(mut founding) = found() else { panic!("a founding") };
    founding.authority.key = sealed_under(1);
    let commands = [
        Command::Found(founding),
        create_token(1, 5),
        admit(1, 2, "b:7400"),
        user_under(1, "alice", 1),
        client_under(7, 1, true),
    ];
    for command in commands {
        assert!(!matches!(replica.apply(command.clone()), Applied::Refused(_)), "{command:?}");
    }
    replica
}

/// The same in the middle of going over to key 2.
fn rotating() -> Replica {
    let mut replica = cluster();
    assert_eq!(replica.apply(use_key(2, 1, &[1, 2])), Applied::Done);
    replica
}

fn reseal(secrets: &[Secret], old: u8, new: u8) -> Command {
    let old = sealed_under(old);
    let item = |&secret| resealed(secret, old.as_bytes(), new);
    Command::Reseal { items: secrets.iter().map(item).collect() }
}

fn all() -> [Secret; 4] {
    [
        Secret::UserPassword(user_id(1)),
        Secret::DeviceKey(device_id(1)),
        Secret::ClientSecret(client_id(7)),
        Secret::AuthorityKey,
    ]
}

fn keys_in(state: &State) -> Vec<Option<KeyId>> {
    state.secrets().map(|(_, sealed)| sealed.key()).collect()
}

#[test]
fn the_first_seal_tells_the_first_key_and_arbitrary_bytes_tell_none() {
    let replica = cluster();
    let keys = replica.state.data_keys();
    assert_eq!((keys.current, keys.generation, keys.is_settled), (Some(KeyId([1; 4])), 0, true));
    let mut arbitrary = Replica::default();
    arbitrary.apply(found());
    assert_eq!(arbitrary.state.data_keys().current, None);
    assert_eq!(arbitrary.apply(new_user(1, "alice", vec![])), Applied::Done, "nothing is checked");
}

#[test]
fn a_key_that_not_every_node_holds_is_not_used() {
    let mut replica = cluster();
    refuses(&mut replica, use_key(2, 1, &[1]), Refusal::NodesChanged(2));
    replica.apply(admit(1, 3, "c:7400"));
    refuses(&mut replica, use_key(2, 1, &[1, 2]), Refusal::NodesChanged(3));
    replica.apply(Command::RemoveNode { node: 2 });
    refuses(&mut replica, use_key(2, 1, &[1, 2, 3]), Refusal::NodesChanged(2));
    assert_eq!(replica.apply(use_key(2, 1, &[3, 1])), Applied::Done);
}

#[test]
fn one_key_is_replaced_after_the_other() {
    let mut replica = cluster();
    refuses(&mut replica, use_key(1, 1, &[1, 2]), Refusal::DataKeyReplaced);
    refuses(&mut replica, use_key(2, 2, &[1, 2]), Refusal::DataKeyReplaced);
    refuses(&mut replica, use_key(2, 0, &[1, 2]), Refusal::DataKeyReplaced);
    let mut replica = rotating();
    refuses(&mut replica, use_key(3, 2, &[1, 2]), Refusal::RotationUnfinished);
    replica.apply(reseal(&all(), 1, 2));
    assert_eq!(replica.apply(Command::RetireKeys { generation: 1 }), Applied::Done);
    // Whoever has handed out a key for the place that is taken comes too late.
    refuses(&mut replica, use_key(3, 1, &[1, 2]), Refusal::DataKeyReplaced);
    assert_eq!(replica.apply(use_key(3, 2, &[1, 2])), Applied::Done);
}

#[test]
fn nothing_enters_that_is_sealed_under_another_key() {
    let change = |n| Command::ChangeUser {
        user: user_id(1),
        change: UserChange { password: Some(Some(sealed_under(n))), ..UserChange::default() },
    };
    let commands: [fn(u8) -> Command; 4] = [
        |n| user_under(3, "carol", n),
        |n| Command::AddDevice { user: user_id(1), device: device_under(4, n) },
        |n| client_under(8, n, true),
        |n| client_under(7, n, false),
    ];
    for command in commands {
        // The last one is an edit; what it holds already is under key 1.
        let mut replica = cluster();
        refuses(&mut replica, command(9), Refusal::DataKeyReplaced);
        let mut replica = rotating();
        replica.apply(reseal(&all(), 1, 2));
        refuses(&mut replica, command(1), Refusal::DataKeyReplaced);
        assert_eq!(replica.apply(command(2)), Applied::Done);
    }
    let mut replica = rotating();
    refuses(&mut replica, change(1), Refusal::DataKeyReplaced);
    refuses(&mut replica, reseal(&all(), 1, 1), Refusal::DataKeyReplaced);
    assert_eq!(replica.apply(change(2)), Applied::Done);
    let plain = Command::ChangeUser { user: user_id(1), change: UserChange::default() };
    assert_eq!(replica.apply(plain), Applied::Done, "what carries no secret is not affected");
}

#[test]
fn an_edit_that_keeps_the_secret_goes_on_during_the_replacement() {
    let mut replica = rotating();
    assert_eq!(replica.apply(client_under(7, 1, false)), Applied::Done);
    replica.apply(reseal(&all(), 1, 2));
    // It was made on a state before the reseal and would bring the old seal back.
    refuses(&mut replica, client_under(7, 1, false), Refusal::DataKeyReplaced);
}

#[test]
fn a_secret_that_was_changed_meanwhile_stays_as_it_is() {
    let mut replica = rotating();
    let newer = Sealed::new(&[&KeyId([2; 4]).header()[..], b"newer"].concat());
    replica.apply(Command::ChangeUser {
        user: user_id(1),
        change: UserChange { password: Some(Some(newer.clone())), ..UserChange::default() },
    });
    replica.apply(Command::RevokeDevice { device: device_id(1) });
    assert_eq!(replica.apply(reseal(&all(), 1, 2)), Applied::Done);
    let state = &replica.state;
    assert_eq!(state.secret(Secret::UserPassword(user_id(1))), Some(&newer));
    assert_eq!(state.secret(Secret::DeviceKey(device_id(1))), None);
    assert!(keys_in(state).iter().all(|key| *key == Some(KeyId([2; 4]))));
}

#[test]
fn a_login_under_way_is_not_disturbed_and_no_table_of_clients_is_rebuilt() {
    let mut replica = rotating();
    let revision = |state: &State| {
        let password = state.user(user_id(1)).and_then(|user| user.password.clone());
        let client = state.client(client_id(7)).expect("there").revision;
        (password.expect("a password").revision, client, state.clients_revision())
    };
    let before = revision(&replica.state);
    replica.apply(reseal(&all(), 1, 2));
    assert_eq!(revision(&replica.state), before);
    let mut login = conclude(
        1,
        Finding::Proven {
            first: FirstProof::Password { revision: before.0 },
            second: Proof::Passcode { device: device_id(1), moving_factor: 0 },
        },
    );
    login.asker = watchword_core::attempt::Asker::Client(client_id(7));
    login.client_revision = before.1;
    let verdict = replica.verdict(login);
    assert!(matches!(verdict, watchword_core::attempt::Verdict::Accepted(_)), "{verdict:?}");
}

#[test]
fn a_key_is_given_up_when_nothing_is_sealed_under_it() {
    let mut replica = rotating();
    let retire = Command::RetireKeys { generation: 1 };
    for (left, secret) in (1..).zip(all()).collect::<Vec<_>>().into_iter().rev() {
        refuses(&mut replica, retire.clone(), Refusal::SealedOtherwise(left));
        assert!(!replica.state.data_keys().is_settled);
        replica.apply(reseal(&[secret], 1, 2));
    }
    refuses(&mut replica, Command::RetireKeys { generation: 0 }, Refusal::DataKeyReplaced);
    assert_eq!(replica.apply(retire.clone()), Applied::Done);
    assert!(replica.state.data_keys().is_settled);
    assert_eq!(replica.apply(retire), Applied::Done, "asked twice, it is still so");
}

#[test]
fn a_reseal_is_bounded() {
    let mut replica = rotating();
    let one = resealed(Secret::AuthorityKey, b"", 2);
    let many = Command::Reseal { items: vec![one.clone(); RESEALED_MAX + 1] };
    assert!(matches!(replica.apply(many), Applied::Refused(Refusal::TooMany { .. })));
    let mut long = one;
    long.new = Sealed::new(&[&KeyId([2; 4]).header()[..], &[0; SEALED_BYTES_MAX]].concat());
    refuses(&mut replica, Command::Reseal { items: vec![long] }, Refusal::KeyMalformed);
}

#[test]
fn a_restored_state_goes_on_with_the_replacement() {
    let replica = rotating();
    let Command::Found(mut founding) = found() else { panic!("a founding") };
    founding.authority.key = sealed_under(2);
    let now = watchword_core::time::Timestamp(replica.now);
    let state = State::decode(&replica.state.encode().expect("encodes")).expect("decodes");
    let restored = state.restored(now, &founding);
    assert_eq!(restored.data_keys(), replica.state.data_keys());
    let mut restored = Replica { state: restored, log: replica.log, now: replica.now };
    refuses(&mut restored, Command::RetireKeys { generation: 1 }, Refusal::SealedOtherwise(3));
    restored.apply(reseal(&all(), 1, 2));
    assert_eq!(restored.apply(Command::RetireKeys { generation: 1 }), Applied::Done);
}

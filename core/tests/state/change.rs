//! What administrators change: each refusal, and what each change does.

use watchword_core::client::{FirstFactor, RadiusHabits, Source};
use watchword_core::command::{NewDevice, UserChange};
use watchword_core::directory::{Bind, DirectoryKind, Ldap, RadiusTarget, Search, Trust};
use watchword_core::factor::Algorithm;
use watchword_core::name::UserName;
use watchword_core::sealed::Sealed;
use watchword_core::settings::{SettingError, Value};
use watchword_core::{Applied, Command, Refusal};

use crate::common::*;

pub(crate) fn refuses(replica: &mut Replica, command: Command, refusal: Refusal) {
    let before = replica.state.digest().expect("digest");
    assert_eq!(replica.apply(command), Applied::Refused(refusal));
    assert_eq!(replica.state.digest().expect("digest"), before, "nothing changed");
}

#[test]
fn a_name_belongs_to_one_user_in_any_spelling() {
    let mut replica = Replica::with_alice();
    let again = new_user(2, "CORP\\Alice", vec![]);
    refuses(&mut replica, again, Refusal::UserExists("alice".into()));
    let same_id = new_user(1, "bob", vec![]);
    refuses(&mut replica, same_id, Refusal::IdTaken);
    let same_device = new_user(2, "bob", vec![hotp_device(1)]);
    refuses(&mut replica, same_device, Refusal::IdTaken);
    let twice = new_user(2, "bob", vec![hotp_device(5), hotp_device(5)]);
    refuses(&mut replica, twice, Refusal::IdTaken);
}

#[test]
fn a_renamed_user_keeps_everything_and_frees_the_old_name() {
    let mut replica = Replica::with_alice();
    let name = |text| UserName::canonical(text).expect("a name");
    let rename = |text| Command::ChangeUser {
        user: user_id(1),
        change: UserChange { name: Some(name(text)), ..UserChange::default() },
    };
    assert_eq!(replica.apply(rename("alicia")), Applied::Done);
    assert_eq!(replica.state.user_id(&name("alice")), None);
    let (id, user) = replica.state.user_by_name(&name("alicia")).expect("renamed");
    assert_eq!((id, user.devices.len()), (user_id(1), 2));
    assert_eq!(replica.apply(new_user(2, "alice", vec![])), Applied::Done);
    refuses(&mut replica, rename("alice"), Refusal::UserExists("alice".into()));
}

#[test]
fn a_deleted_user_leaves_nothing_behind() {
    let mut replica = Replica::with_alice();
    assert_eq!(replica.apply(Command::DeleteUser { user: user_id(1) }), Applied::Done);
    assert_eq!((replica.state.user_count(), replica.state.device_count()), (0, 0));
    refuses(&mut replica, Command::DeleteUser { user: user_id(1) }, Refusal::UserUnknown);
    assert_eq!(replica.apply(new_user(1, "alice", vec![hotp_device(1)])), Applied::Done);
}

#[test]
fn texts_and_numbers_are_bounded() {
    let mut replica = Replica::with_alice();
    let add = |device| Command::AddDevice { user: user_id(1), device };
    let bad = [
        NewDevice { digits: 5, ..hotp_device(9) },
        NewDevice { digits: 9, ..hotp_device(9) },
        NewDevice { algorithm: Algorithm::Sha512, digits: 0, ..totp_device(9) },
        NewDevice {
            oath: watchword_core::command::NewOath::Totp { period_seconds: 0 },
            ..totp_device(9)
        },
    ];
    for device in bad {
        refuses(&mut replica, add(device), Refusal::DeviceMalformed);
    }
    for n in 3..=16 {
        assert_eq!(replica.apply(add(hotp_device(n))), Applied::Done);
    }
    let applied = replica.apply(add(hotp_device(17)));
    assert!(matches!(applied, Applied::Refused(Refusal::TooMany { max: 16, .. })), "{applied:?}");
    for reason in ["", "  ", "a\nb", &"x".repeat(257)] {
        let block = Command::BlockUser {
            user: user_id(1),
            reason: reason.into(),
            by: "test".into(),
            for_ms: None,
        };
        assert!(matches!(replica.apply(block), Applied::Refused(Refusal::TextMalformed(_))));
    }
}

#[test]
fn groups_are_sorted_and_single() {
    let mut replica = Replica::with_alice();
    let groups = ["vpn".into(), "staff".into(), "vpn".into()].into();
    let change = UserChange { groups: Some(groups), ..UserChange::default() };
    let command = Command::ChangeUser { user: user_id(1), change };
    assert_eq!(replica.apply(command), Applied::Done);
    let user = replica.state.user(user_id(1)).expect("alice");
    assert_eq!(*user.profile.groups, ["staff".into(), "vpn".into()]);
}

#[test]
fn two_clients_cannot_share_a_name_or_a_range() {
    let mut replica = Replica::default();
    let put = |n, name, address| put_client(n, name, address, policy(FirstFactor::local(), true));
    let add = |n, name, address| Command::AddClient(put(n, name, address));
    assert_eq!(replica.apply(add(1, "vpn", "10.0.0.1/8")), Applied::Done);
    refuses(&mut replica, add(2, "vpn", "10.1.0.0/16"), Refusal::ClientExists("vpn".into()));
    let taken = Refusal::AddressTaken { address: "10.0.0.0/8".into(), client: "vpn".into() };
    refuses(&mut replica, add(2, "wifi", "10.9.9.9/8"), taken);
    assert_eq!(replica.apply(add(2, "wifi", "10.1.0.0/16")), Applied::Done);
    refuses(&mut replica, add(1, "x", "10.2.0.0/16"), Refusal::IdTaken);
    let edit = Command::EditClient(put(3, "x", "10.2.0.0/16"));
    refuses(&mut replica, edit, Refusal::ClientUnknown);
}

#[test]
fn a_directory_stays_while_a_client_asks_it() {
    let mut replica = Replica::default();
    let sources = FirstFactor::Sources([Source::Local, Source::Directory(directory_id(5))].into());
    let put = put_client(1, "vpn", "10.0.0.0/8", policy(sources, true));
    refuses(&mut replica, Command::AddClient(put.clone()), Refusal::DirectoryUnknown);
    let add = |n, name| Command::AddDirectory(put_directory(n, name));
    assert_eq!(replica.apply(add(5, "corp")), Applied::Done);
    refuses(&mut replica, add(6, "corp"), Refusal::DirectoryExists("corp".into()));
    refuses(&mut replica, add(6, "local"), Refusal::DirectoryNameReserved);
    refuses(&mut replica, add(6, "a,b"), Refusal::DirectoryNameReserved);
    refuses(&mut replica, add(5, "other"), Refusal::IdTaken);
    let edit = Command::EditDirectory(put_directory(6, "other"));
    refuses(&mut replica, edit, Refusal::DirectoryUnknown);

    assert_eq!(replica.apply(Command::AddClient(put)), Applied::Done);
    let remove = || Command::RemoveDirectory { directory: directory_id(5) };
    refuses(&mut replica, remove(), Refusal::DirectoryInUse("vpn".into()));
    assert_eq!(replica.apply(Command::RemoveClient { client: client_id(1) }), Applied::Done);
    assert_eq!(replica.apply(remove()), Applied::Done);
    refuses(&mut replica, remove(), Refusal::DirectoryUnknown);
}

#[test]
fn a_directory_that_could_not_be_asked_is_refused() {
    let broken: [fn(&mut Ldap); 7] = [
        |ldap| ldap.servers = [].into(),
        |ldap| ldap.timeout_ms = 99,
        |ldap| ldap.timeout_ms = 30_001,
        |ldap| ldap.trust = Trust::Authorities([].into()),
        |ldap| ldap.trust = Trust::Authorities([vec![0; 4_096].into()].into()),
        // The same for everybody: whoever knows one password would be anybody.
        |ldap| ldap.bind = Bind::Template("cn=reader,dc=example,dc=org".into()),
        |ldap| {
            let (base, filter) = ("".into(), "(uid=*)".into());
            ldap.bind = Bind::Search(Search { base, filter, account: None });
        },
    ];
    for breaks in broken {
        let mut put = put_directory(5, "corp");
        let DirectoryKind::Ldap(ldap) = &mut put.kind else { panic!("asked by LDAP") };
        breaks(ldap);
        let add = Command::AddDirectory(put);
        refuses(&mut Replica::default(), add, Refusal::DirectoryMalformed);
    }
}

#[test]
fn a_target_that_could_not_be_asked_is_refused() {
    let broken: [fn(&mut RadiusTarget); 4] = [
        |target| target.servers = [].into(),
        |target| target.timeout_ms = 99,
        |target| target.timeout_ms = 30_001,
        |target| target.secret = Sealed::new(&[1; 1_025]),
    ];
    for breaks in broken {
        let mut put = put_target(5, "nps");
        let DirectoryKind::Radius(target) = &mut put.kind else { panic!("asked by RADIUS") };
        breaks(target);
        let add = Command::AddDirectory(put);
        refuses(&mut Replica::default(), add, Refusal::DirectoryMalformed);
    }
}

#[test]
fn what_a_server_has_shown_lasts_as_long_as_its_address_and_secret() {
    let mut replica = Replica::default();
    let mut put = put_target(5, "nps");
    assert_eq!(replica.apply(Command::AddDirectory(put.clone())), Applied::Done);
    let signs = |replica: &Replica| {
        let directory = replica.state.directory(directory_id(5)).expect("there");
        let DirectoryKind::Radius(target) = &directory.kind else { panic!("asked by RADIUS") };
        (directory.revision, target.servers.iter().map(|server| server.signs).collect::<Vec<_>>())
    };
    let learn =
        |revision, server| Command::LearnServer { directory: directory_id(5), revision, server };
    let (revision, _) = signs(&replica);
    for (revision, server) in [(revision + 1, 0), (revision, 1), (revision, 7)] {
        assert_eq!(replica.apply(learn(revision, server)), Applied::Done);
    }
    assert_eq!(signs(&replica), (revision, vec![false, true]), "one of them, in its revision");
    let DirectoryKind::Radius(target) = &mut put.kind else { panic!("asked by RADIUS") };
    let mut servers = target.servers.to_vec();
    servers.reverse();
    target.servers = servers.into();
    assert_eq!(replica.apply(Command::EditDirectory(put.clone())), Applied::Done);
    assert_eq!(signs(&replica).1, [true, false], "wherever it stands");
    let DirectoryKind::Radius(target) = &mut put.kind else { panic!("asked by RADIUS") };
    target.secret = Sealed::new(b"another");
    assert_eq!(replica.apply(Command::EditDirectory(put)), Applied::Done);
    assert_eq!(signs(&replica).1, [false, false]);
    refuses(
        &mut replica,
        Command::LearnServer { directory: directory_id(9), revision, server: 0 },
        Refusal::DirectoryUnknown,
    );
}

#[test]
fn a_clients_habits_last_as_long_as_its_secret() {
    let mut replica = Replica::default();
    let mut put = put_client(1, "vpn", "10.0.0.0/8", policy(FirstFactor::local(), true));
    assert_eq!(replica.apply(Command::AddClient(put.clone())), Applied::Done);
    let habits = RadiusHabits { signs: true, is_no_proxy: false };
    let learn = Command::LearnClient { client: client_id(1), habits };
    assert_eq!(replica.apply(learn), Applied::Done);
    let habits_now = |replica: &Replica| {
        let client = replica.state.client(client_id(1)).expect("client");
        client.radius().expect("RADIUS").habits
    };
    put.name = "gateway".into();
    assert_eq!(replica.apply(Command::EditClient(put.clone())), Applied::Done);
    assert_eq!(habits_now(&replica), habits);
    let watchword_core::command::ClientFields::Radius(radius) = &mut put.fields;
    radius.secret = Sealed::new(b"another");
    assert_eq!(replica.apply(Command::EditClient(put)), Applied::Done);
    assert_eq!(habits_now(&replica), RadiusHabits::default());
}

#[test]
fn settings_change_all_or_none_and_only_at_the_expected_revision() {
    let mut replica = Replica::default();
    let change = |if_revision, changes: &[(&str, u64)]| Command::ChangeSettings {
        by: "test".into(),
        if_revision,
        changes: changes
            .iter()
            .map(|&(key, value)| (key.into(), Some(Value::Integer(value))))
            .collect(),
    };
    let bad = change(None, &[("lockout.minutes", 30), ("hotp.look_ahead", 0)]);
    let error = SettingError::OutOfRange { key: "hotp.look_ahead".into(), min: 1, max: 100 };
    refuses(&mut replica, bad, Refusal::Setting(error));
    let unknown = change(None, &[("lockout.hours", 1)]);
    refuses(&mut replica, unknown, Refusal::Setting(SettingError::Unknown("lockout.hours".into())));
    assert_eq!(replica.apply(change(Some(0), &[("lockout.minutes", 30)])), Applied::Done);
    assert_eq!(replica.state.settings().lockout_minutes(), 30);
    let revision = replica.state.settings().revision();
    let late = change(Some(0), &[("lockout.minutes", 40)]);
    refuses(&mut replica, late, Refusal::RevisionPassed(revision));
}

#[test]
fn a_feature_level_rises_and_never_falls() {
    let mut replica = Replica::default();
    assert_eq!(replica.state.feature_level(), 1);
    // Whether this release understands the level does not matter to the state.
    for (level, then) in [(9, 9), (2, 9)] {
        assert_eq!(replica.apply(Command::EnableFeature { level }), Applied::Done);
        assert_eq!(replica.state.feature_level(), then);
    }
}

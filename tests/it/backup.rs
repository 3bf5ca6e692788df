//! Backups: what a new cluster that is made from one accepts, and what it never accepts again.

use std::fs;
use std::path::Path;

use watchword::radius::packet::Code;

use crate::harness::{Directory, Nas, Node, Question, SECRET, code_of, oathtool};
use crate::radius_login::KEY;

const PASSPHRASE: &str = "correct horse battery";

/// A node of its own with alice (HOTP) and bob (TOTP and a password).
pub(crate) fn node_to_back_up() -> Node {
    let directory = Directory::for_peers();
    directory.cli(&["init"]).done();
    let node = directory.serve();
    node.add_client("vpn", "127.0.0.1", &["--first-factor", "none"]);
    node.add_client("wifi", "127.0.0.2", &[]);
    let key = KEY.0;
    node.import(&format!(
        "username,password,hotp_key,totp_key\nalice,,{key},\nbob,swordfish,,{key}\n"
    ));
    node
}

/// Takes a backup of `node`; gives its path.
pub(crate) fn backup(node: &Node) -> String {
    let passphrase = node.directory().write_file("backup.passphrase", PASSPHRASE);
    let file = node.directory().path("backup");
    let (file, passphrase) = (file.to_str().expect("UTF-8"), passphrase.to_str().expect("UTF-8"));
    let said = node.cli(&["backup", file, "--passphrase-file", passphrase]).done();
    assert!(said.contains("2 users, 2 devices, 2 clients"), "{said}");
    file.to_owned()
}

pub(crate) fn passphrase(directory: &Directory) -> String {
    let file = directory.write_file("backup.passphrase", PASSPHRASE);
    file.to_str().expect("UTF-8").to_owned()
}

#[test]
fn what_the_backup_does_not_know_of_is_not_accepted_again() {
    let node = node_to_back_up();
    let mut nas = Nas::new(&node);
    assert_eq!(nas.login("alice", &KEY.passcode(0)), Code::AccessAccept);
    node.cli(&["user", "bypass", "bob", "--reason", "new phone"]).done();
    let file = backup(&node);
    assert_eq!(nas.login("alice", &KEY.passcode(1)), Code::AccessAccept);
    let mut wifi = Nas::at("127.0.0.2", node.radius, SECRET);
    assert_eq!(wifi.login("bob", "swordfish"), Code::AccessAccept, "by the bypass");
    let totp = oathtool(&["--totp", "-b", KEY.0]);
    assert_eq!(nas.login("bob", &totp), Code::AccessAccept);
    let asked = wifi.ask(&Question::login("bob", "swordfish"));
    assert_eq!(asked.code, Code::AccessChallenge);

    let new = Directory::for_peers();
    let said = new.cli(&["restore", &file, "--passphrase-file", &passphrase(&new)]).done();
    assert!(said.contains("2 users, 2 devices") && said.contains("TOTP passcodes"), "{said}");
    let again = new.cli(&["restore", &file, "--passphrase-file", &passphrase(&new)]).refused();
    assert!(again.contains("already"), "{again}");
    let new = new.serve();
    let mut nas = Nas::new(&new);
    for used in 0..10 {
        assert_eq!(nas.login("alice", &KEY.passcode(used)), Code::AccessReject, "{used}");
    }
    assert_eq!(nas.login("alice", &KEY.passcode(12)), Code::AccessAccept, "the device goes on");
    assert_eq!(nas.login("bob", &totp), Code::AccessReject);
    assert_eq!(new.last_reason(), "passcode used already");
    let mut wifi = Nas::at("127.0.0.2", new.radius, SECRET);
    let challenge = wifi.ask(&Question::login("bob", "swordfish"));
    assert_eq!(challenge.code, Code::AccessChallenge, "the bypass is gone, the password works");
    let next = oathtool(&["--totp", "-b", "-N", "now + 30 seconds", KEY.0]);
    let answer = Question::login("bob", &next).answering(&asked);
    assert_eq!(code_of(&mut wifi, &answer), Code::AccessReject, "a challenge of before");
    assert_eq!(new.last_reason(), "unknown challenge");
    // Others join the new cluster, and its members are no members of the old one.
    let second = Directory::for_peers().join(&new, &new.token(&[]));
    new.wait_for_voters(2);
    assert_eq!(Nas::new(&second).login("alice", &KEY.passcode(13)), Code::AccessAccept);
    node.wait_for_voters(1);
}

#[test]
fn a_damaged_or_foreign_backup_is_refused_by_the_name_of_the_part() {
    let node = node_to_back_up();
    let file = backup(&node);
    let directory = Directory::for_peers();
    let passphrase = passphrase(&directory);
    let verify = |file: &str| directory.plain(&["verify", file, "--passphrase-file", &passphrase]);
    assert!(verify(&file).done().starts_with("whole: 2 users"));
    let whole = fs::read(&file).expect("a backup");
    for secret in [SECRET.as_bytes(), KEY.0.as_bytes(), b"swordfish"] {
        assert!(!whole.windows(secret.len()).any(|part| part == secret));
    }
    let end = whole.len() - 1;
    let cases: [(&str, Vec<u8>, &str); 4] = [
        ("flipped", flip(&whole, end), "piece 1 of the state is damaged"),
        ("header", flip(&whole, 40), "the header is damaged"),
        ("short", whole[..end].to_vec(), "piece 1 of the state is cut off"),
        ("foreign", b"PK\x03\x04".to_vec(), "this is no backup of Watchword"),
    ];
    for (name, bytes, reason) in cases {
        let path = directory.path(name);
        fs::write(&path, bytes).expect("written");
        let path = path.to_str().expect("UTF-8");
        let refused = verify(path).refused();
        assert!(refused.contains(reason), "{refused}");
        let refused = directory.cli(&["restore", path, "--passphrase-file", &passphrase]);
        assert!(refused.refused().contains(reason));
        assert!(!Path::new(&directory.path("data/raft")).exists(), "nothing is half made");
    }
    let other = directory.write_file("other.passphrase", "wrong horse battery");
    let other = other.to_str().expect("UTF-8");
    let refused = directory.plain(&["verify", &file, "--passphrase-file", other]).refused();
    assert!(refused.contains("does not open with this passphrase"), "{refused}");
    // An existing file is never written over.
    let passphrase = node.directory().path("backup.passphrase");
    let passphrase = passphrase.to_str().expect("UTF-8");
    let refused = node.cli(&["backup", &file, "--passphrase-file", passphrase]).refused();
    assert!(refused.contains("exists already"), "{refused}");
}

fn flip(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}

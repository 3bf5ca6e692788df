//! What was acknowledged is kept, whatever ends the node; what is damaged is not served.

use std::fs;
use std::path::{Path, PathBuf};

use watchword::radius::packet::Code;

use crate::harness::{Directory, Nas, Node, Question, code_of};
use crate::radius_login::{KEY, node_for_passcodes};

#[test]
fn what_was_acknowledged_before_a_crash_is_there_after_it() {
    let mut node = node_for_passcodes();
    for round in 0..4_u64 {
        let name = format!("user{round}");
        let minutes = (20 + round).to_string();
        node.cli(&["user", "add", &name]).done();
        node.cli(&["device", "add", &name, "totp"]).done();
        node.cli(&["settings", "set", "lockout.minutes", &minutes]).done();
        let mut nas = Nas::new(&node);
        let login = Question::login("alice", &KEY.passcode(round));
        let sent = nas.sealed(&login);
        nas.send(&sent.bytes);
        let accepted = nas.receive(&sent);
        assert_eq!(accepted.code, Code::AccessAccept);
        // Nothing comes between the acknowledgement and the end.
        node = node.kill().serve();
        assert_eq!(node.cli(&["settings", "get", "lockout.minutes"]).done(), minutes);
        assert_eq!(node.user(&name)["devices"].as_array().map(Vec::len), Some(1));
        assert_eq!(node.user("alice")["devices"][0]["next_counter"], round + 1);
        // The same request gets the answer that it got; the same passcode in another one is used.
        let mut nas = Nas::new(&node);
        nas.send(&sent.bytes);
        assert_eq!(nas.receive(&sent), accepted);
        assert_eq!(code_of(&mut nas, &login), Code::AccessReject);
        assert_eq!(node.last_reason(), "passcode used already");
        let attempts = usize::try_from(2 * (round + 1)).expect("few");
        assert_eq!(node.attempts().len(), attempts);
    }
}

#[test]
fn a_crash_under_load_never_lets_a_passcode_in_twice() {
    let node = node_for_passcodes();
    node.cli(&["settings", "set", "lockout.passcode_failures", "0"]).done();
    let mut nas = Nas::new(&node);
    let passcodes = KEY.passcodes(0, 10);
    let sent: Vec<_> = (0..200)
        .map(|number| nas.sealed(&Question::login("alice", &passcodes[number % 10])))
        .collect();
    sent.iter().for_each(|sent| nas.send(&sent.bytes));
    node.wait_for_sample("watchword_radius_replies_total{code=\"reject\"}", 1);
    let node = node.kill().serve();
    // Every passcode again: those that were accepted before the crash, heard of or not, are not
    // accepted again.
    let mut nas = Nas::new(&node);
    for passcode in &passcodes {
        nas.login("alice", passcode);
    }
    let accepted = node.attempts().into_iter().filter(|(_, accepted, _)| *accepted).count();
    assert!((1..=10).contains(&accepted), "{accepted} accepted of ten passcodes");
    assert_eq!(node.user("alice")["devices"][0]["next_counter"], 10);
}

#[test]
fn a_node_that_is_told_to_stop_says_so_and_ends_cleanly() {
    for signal in ["TERM", "INT"] {
        let node = node_for_passcodes();
        let (radius, metrics) = (node.radius, node.metrics);
        node.process().signal(signal);
        let (directory, log) = node.stop();
        assert!(log.contains("\"message\":\"stopped\""), "{log}");
        // Its ports are free again.
        drop(std::net::UdpSocket::bind(radius).expect("the RADIUS port is free"));
        drop(std::net::TcpListener::bind(metrics).expect("the metrics port is free"));
        let node = directory.serve();
        assert_eq!(Nas::new(&node).login("alice", &KEY.passcode(0)), Code::AccessAccept);
    }
}

#[test]
fn requests_under_way_are_answered_before_the_end() {
    let node = Node::start();
    node.add_client("vpn", "127.0.0.1", &[]);
    node.import(&format!("username,password,hotp_key\njo,correct horse,{}\n", KEY.0));
    let mut nas = Nas::new(&node);
    let sent: Vec<_> =
        (0..8).map(|_| nas.sealed(&Question::login("jo", "correct horse"))).collect();
    sent.iter().for_each(|sent| nas.send(&sent.bytes));
    nas.wait_for_turn();
    drop(node.stop());
    for answer in nas.receive_all(&sent) {
        assert_eq!(answer.code, Code::AccessChallenge);
    }
}

/// A stopped node that holds something.
fn stopped() -> Directory {
    let node = node_for_passcodes();
    node.import("username\nbob-of-the-damaged-record\n");
    assert_eq!(Nas::new(&node).login("alice", &KEY.passcode(0)), Code::AccessAccept);
    node.stop().0
}

fn database(directory: &Directory) -> PathBuf {
    directory.path("data/raft/sled/db")
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).expect("the file is there");
    bytes[at] ^= 0x40;
    fs::write(file, bytes).expect("the file is written");
}

#[test]
fn a_record_that_was_altered_is_named_and_the_node_does_not_start() {
    let directory = stopped();
    let name = b"bob-of-the-damaged-record";
    let bytes = fs::read(database(&directory)).expect("the file is there");
    let places: Vec<usize> = bytes
        .windows(name.len())
        .enumerate()
        .filter_map(|(place, window)| (window == name).then_some(place))
        .collect();
    assert!(!places.is_empty(), "the name stands in the log");
    for place in places {
        flip(&database(&directory), place);
    }
    let said = directory.cli(&["serve"]).refused();
    assert!(said.contains("rebuild it from the other members"), "{said}");
    assert!(said.contains("damaged: ") || said.contains("rolled back: "), "{said}");
    let said = directory.cli(&["log", "dump"]).refused();
    assert!(said.contains("rebuild it from the other members"), "{said}");
}

#[test]
fn a_part_that_is_missing_is_named_and_the_node_does_not_start() {
    for part in ["data/raft/sidecar", "data/raft/sled/db", "data/keyring.json", "data/raft"] {
        let directory = stopped();
        let path = directory.path(part);
        if path.is_dir() {
            fs::remove_dir_all(path).expect("the directory goes");
        } else {
            fs::remove_file(path).expect("the file goes");
        }
        directory.cli(&["serve"]).refused();
    }
}

#[test]
fn wherever_a_bit_flips_nothing_is_lost_in_silence() {
    let directory = stopped();
    let intact = directory.cli(&["log", "dump", "--format", "json"]).done();
    let file = database(&directory);
    let original = fs::read(&file).expect("the file is there");
    let used: Vec<usize> =
        (0..original.len()).filter(|&place| original[place] != 0).step_by(29).collect();
    assert!(used.len() > 20, "{}", used.len());
    let mut refused = 0;
    for place in used {
        flip(&file, place);
        let dump = directory.cli(&["log", "dump", "--format", "json"]);
        if dump.status == Some(0) {
            assert_eq!(dump.stdout, intact, "a flip at {place} goes unnoticed");
        } else {
            dump.refused();
            refused += 1;
        }
        fs::write(&file, &original).expect("the file is written");
    }
    assert!(refused > 0, "no flip was ever noticed");
    assert_eq!(directory.cli(&["log", "dump", "--format", "json"]).done(), intact);
}

#[test]
fn a_store_that_was_put_back_to_an_earlier_day_is_not_served() {
    let node = node_for_passcodes();
    let (directory, _) = node.stop();
    let (sled, copy) = (directory.path("data/raft/sled"), directory.path("copy"));
    copy_directory(&sled, &copy);
    let node = directory.serve();
    assert_eq!(Nas::new(&node).login("alice", &KEY.passcode(0)), Code::AccessAccept);
    let (directory, _) = node.stop();
    fs::remove_dir_all(&sled).expect("the directory goes");
    copy_directory(&copy, &sled);
    let said = directory.cli(&["serve"]).refused();
    assert!(said.contains("rolled back"), "{said}");
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a directory");
    for entry in fs::read_dir(from).expect("the directory is there") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("the file is copied");
        }
    }
}

//! What ends by itself. The node runs with its clock set ahead, by libfaketime.

use std::process::Command;

use watchword::radius::packet::Code;

use crate::backup;
use crate::harness::{Directory, Nas, Node, Question, code_of, get, oathtool, run};
use crate::radius_login::{KEY, node_for_passcodes};

const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// Runs the node with its clock ahead by `offset`, such as `+2h`.
fn later(directory: Directory, offset: &str) -> Node {
    directory.serve_by(|command| set_clock(command, offset))
}

fn set_clock<'c>(command: &'c mut Command, offset: &str) -> &'c mut Command {
    command
        .env("LD_PRELOAD", FAKETIME)
        .env("FAKETIME", offset)
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}

#[test]
fn a_challenge_that_has_expired_is_refused() {
    let node = Node::start();
    node.add_client("vpn", "127.0.0.1", &[]);
    node.import(&format!("username,password,hotp_key\njo,correct horse,{}\n", KEY.0));
    let challenge = Nas::new(&node).ask(&Question::login("jo", "correct horse"));
    let answer = Question::login("jo", &KEY.passcode(0)).answering(&challenge);
    let node = later(node.kill(), "+121s");
    let mut nas = Nas::new(&node);
    assert_eq!(code_of(&mut nas, &answer), Code::AccessReject);
    assert_eq!(node.last_reason(), "challenge expired");
    let typed = format!("correct horse,{}", KEY.passcode(0));
    assert_eq!(nas.login("jo", &typed), Code::AccessAccept);
}

#[test]
fn a_lock_ends_after_its_minutes() {
    let node = node_for_passcodes();
    node.cli(&["settings", "set", "lockout.passcode_failures", "1"]).done();
    assert_eq!(Nas::new(&node).login("alice", &KEY.wrong_passcode(0)), Code::AccessReject);
    let node = later(node.kill(), "+14m");
    assert_eq!(Nas::new(&node).login("alice", &KEY.passcode(0)), Code::AccessReject);
    let node = later(node.kill(), "+16m");
    assert_eq!(node.user("alice")["state"], "enabled");
    assert_eq!(Nas::new(&node).login("alice", &KEY.passcode(0)), Code::AccessAccept);
}

#[test]
fn a_block_and_a_bypass_end_when_they_should() {
    let node = node_for_passcodes();
    node.import(&format!("username,hotp_key\nbob,{}\n", KEY.0));
    node.cli(&["user", "block", "alice", "--reason", "x", "--seconds", "60"]).done();
    node.cli(&["user", "bypass", "bob", "--reason", "x", "--seconds", "60"]).done();
    let node = later(node.kill(), "+61s");
    assert_eq!(node.user("alice")["state"], "enabled");
    assert!(node.user("bob")["bypass_until"].is_null());
    let mut nas = Nas::new(&node);
    assert_eq!(nas.login("alice", &KEY.passcode(0)), Code::AccessAccept);
    assert_eq!(nas.login("bob", &KEY.wrong_passcode(0)), Code::AccessReject);
}

#[test]
fn a_node_whose_clock_is_off_by_minutes_decides_nothing_and_says_why() {
    for offset in ["+5m", "-5m"] {
        let [first, second, third] = Node::three();
        first.add_client("vpn", "127.0.0.1", &["--first-factor", "none"]);
        first.import(&format!("username,totp_key\njo,{}\n", KEY.0));
        let off = first.kill().start_by(|command| set_clock(command, offset));
        off.wait_for_status("it knows", |status| {
            let reason = status["not_ready"].as_str().unwrap_or_default();
            reason.contains("clock is 300 s") && status["leader"] != 1
        });
        let (status, text) = get(off.metrics, "/health/ready");
        assert!(status == 503 && text.contains("clock"), "{text}");
        let passcode = oathtool(&["--totp", "-b", KEY.0]);
        let mut nas = Nas::new(&off);
        let asked = nas.sealed(&Question::login("jo", &passcode));
        nas.send(&asked.bytes);
        let status = nas.sealed(&Question::status());
        nas.send(&status.bytes);
        off.wait_for_sample("watchword_radius_dropped_total{cause=\"undecided\"}", 1);
        off.wait_for_sample("watchword_radius_dropped_total{cause=\"not_ready\"}", 1);
        nas.assert_silence("the clock is wrong");
        for node in [&second, &third] {
            node.wait_for_status("it is ready", |status| status["ready"] == true);
        }
        assert_eq!(Nas::new(&second).login("jo", &passcode), Code::AccessAccept);
        // An administrator sees it at every node.
        let members = third.cli(&["members", "--format", "json"]).json();
        let offset_ms = members[0]["clock_offset_ms"].as_i64().expect("it is known");
        assert!((290_000..310_000).contains(&offset_ms.abs()), "{members}");
    }
}

#[test]
fn a_machine_whose_clock_is_behind_the_backup_restores_nothing() {
    let node = backup::node_to_back_up();
    let file = backup::backup(&node);
    let directory = Directory::for_peers();
    let passphrase = backup::passphrase(&directory);
    let mut restore = directory.command(&["restore", &file, "--passphrase-file", &passphrase]);
    let refused = run(set_clock(&mut restore, "-1h"), "").refused();
    assert!(refused.contains("set the clock right"), "{refused}");
    assert!(!directory.path("data/raft").exists(), "nothing is half made");
    run(set_clock(&mut restore, "+0"), "").done();
}

#[test]
fn the_passcode_of_another_time_is_refused() {
    let node = Node::start();
    node.add_client("vpn", "127.0.0.1", &["--first-factor", "none"]);
    node.import(&format!("username,totp_key\njo,{}\n", KEY.0));
    let now = oathtool(&["--totp", "-b", KEY.0]);
    let node = later(node.kill(), "+1h");
    let mut nas = Nas::new(&node);
    assert_eq!(nas.login("jo", &now), Code::AccessReject);
    let there = format!("@{}", watchword::clock::now().seconds() + 3_600);
    let passcode = oathtool(&["--totp", "-b", "-N", &there, KEY.0]);
    assert_eq!(nas.login("jo", &passcode), Code::AccessAccept);
    // A clock that was put right again brings no used passcode back, and nothing runs backwards.
    let node = later(node.kill(), "+0");
    let mut nas = Nas::new(&node);
    assert_eq!(nas.login("jo", &passcode), Code::AccessReject);
    let times = node.cli(&["attempts", "--format", "json"]).json();
    let times = times.as_array().expect("a list").iter().map(|attempt| attempt["time"].as_str());
    assert!(times.is_sorted());
}

#[test]
fn a_request_that_comes_again_after_its_minute_is_taken_for_a_replay() {
    let node = node_for_passcodes();
    let mut nas = Nas::new(&node);
    let sent = nas.sealed(&Question::login("alice", &KEY.passcode(0)));
    nas.send(&sent.bytes);
    assert_eq!(nas.receive(&sent).code, Code::AccessAccept);
    let node = later(node.kill(), "+61s");
    let nas = Nas::new(&node);
    nas.send(&sent.bytes);
    assert_eq!(nas.receive(&sent).code, Code::AccessReject);
    assert_eq!(node.last_reason(), "request replayed");
}

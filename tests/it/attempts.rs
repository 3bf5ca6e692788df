//! `attempts` and `test`: what was decided, and trying it out.

use serde_json::Value;
use watchword::radius::attribute::AttributeType;
use watchword::radius::packet::Code;

use crate::harness::{Nas, Node, Outcome, Question, code_of};
use crate::radius_login::{KEY, node_for_passcodes};

#[test]
fn an_attempt_is_recorded_with_who_where_and_why() {
    let node = node_for_passcodes();
    let mut nas = Nas::new(&node);
    let station = AttributeType::CALLING_STATION_ID;
    let login = Question::login("CORP\\Alice", &KEY.passcode(0)).with(station, b"198.51.100.7");
    assert_eq!(code_of(&mut nas, &login), Code::AccessAccept);
    // A client that does not tell where its user is, is itself all that is known.
    assert_eq!(nas.login("alice", &KEY.wrong_passcode(1)), Code::AccessReject);
    let attempts = node.cli(&["attempts", "--format", "json"]).json();
    let device = node.user("alice")["devices"][0]["id"].clone();
    let device = device.as_str().expect("text");
    for (number, username, remote, accepted, reason) in [
        (0, "CORP\\Alice", "198.51.100.7", true, format!("passcode of {device}")),
        (1, "alice", "127.0.0.1", false, "wrong passcode".to_owned()),
    ] {
        let attempt = &attempts[number];
        assert_eq!(attempt["number"], number);
        assert_eq!(attempt["username"], username);
        assert_eq!(attempt["remote"], remote);
        assert_eq!(attempt["client"], "vpn");
        assert_eq!(attempt["accepted"], accepted);
        assert_eq!(attempt["reason"], reason);
        assert!(attempt["time"].as_str().is_some_and(|time| time.ends_with('Z')));
    }
    let table = node.cli(&["attempts"]).done();
    assert!(table.contains("198.51.100.7") && table.contains("refused"), "{table}");
}

#[test]
fn the_record_can_be_narrowed_to_a_user_and_to_the_latest() {
    let node = node_for_passcodes();
    node.import("username\nbob\n");
    let mut nas = Nas::new(&node);
    for user in ["alice", "bob", "alice", "nobody"] {
        nas.login(user, "000000");
    }
    let numbers = |arguments: &[&str]| {
        let listing = [&["attempts", "--format", "json"], arguments].concat();
        let attempts = node.cli(&listing).json();
        let attempts = attempts.as_array().expect("a list").iter();
        attempts.map(|attempt| attempt["number"].as_u64().expect("a number")).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&[]), [0, 1, 2, 3]);
    assert_eq!(numbers(&["--limit", "2"]), [2, 3]);
    assert_eq!(numbers(&["--user", "ALICE"]), [0, 2]);
    assert_eq!(numbers(&["--user", "alice", "--limit", "1"]), [2]);
    node.cli(&["attempts", "--user", "nobody"]).refused();
}

#[test]
fn following_prints_each_attempt_as_it_happens() {
    let node = node_for_passcodes();
    let mut nas = Nas::new(&node);
    nas.login("alice", &KEY.passcode(0));
    let everyone = node.spawn(&["attempts", "--follow", "--format", "json"]);
    let text = node.spawn(&["attempts", "--follow", "--user", "alice"]);
    let number = |line: &str, wanted: u64| {
        let attempt: Value = serde_json::from_str(line).ok()?;
        (attempt["number"] == wanted).then_some(attempt)
    };
    // What was there when it began comes first; then it waits.
    everyone.wait_for_output("the first attempt", |line| number(line, 0));
    text.wait_for_output("the first attempt", |line| line.contains("accepted").then_some(()));
    nas.login("nobody", "000000");
    let unknown = everyone.wait_for_output("the second attempt", |line| number(line, 1));
    assert_eq!(unknown["reason"], "unknown user");
    nas.login("alice", &KEY.wrong_passcode(1));
    everyone.wait_for_output("the third attempt", |line| number(line, 2));
    text.wait_for_output("alice's second attempt", |line| {
        line.contains("refused: wrong passcode").then_some(())
    });
    assert_eq!(everyone.output().lines().count(), 3);
    assert_eq!(text.output().lines().count(), 2, "of alice only");
    // When the node stops, whoever follows it is told so and ends.
    let mut everyone = everyone;
    drop(node.stop());
    let ended = Outcome::of("attempts --follow", &mut everyone);
    ended.refused();
}

fn test_node() -> Node {
    let node = Node::start();
    node.add_client("vpn", "127.0.0.1", &["--first-factor", "none"]);
    node.import(&format!("username,password,hotp_key\njo,correct horse,{}\n", KEY.0));
    node
}

#[test]
fn the_test_command_goes_through_a_login_step_by_step() {
    let node = test_node();
    let answers = format!("correct horse\n{}\n", KEY.passcode(0));
    let said = node.cli_with(&["test", "jo"], &answers).done();
    for step in [
        "user jo is known",
        "first factor: the password, read alone, is right",
        "the passcode is asked for by a challenge",
        "the request answers a challenge",
        "second factor: the passcode is right",
    ] {
        assert!(said.contains(step), "{step}\n{said}");
    }
    assert_eq!(said.lines().last(), Some("ACCEPT: attempt 0"));
    // It was a real login.
    let said = node.cli_with(&["test", "jo"], &answers);
    assert_eq!(said.refused(), "watchword: REJECT: passcode used already (attempt 1)");
    let typed = format!("correct horse,{}\n", KEY.passcode(1));
    node.cli_with(&["test", "jo"], &typed).done();
    let attempts = node.cli(&["attempts", "--format", "json"]).json();
    assert_eq!(attempts[0]["client"], "console");
}

#[test]
fn the_test_command_applies_the_policy_of_a_client_and_says_why_it_refuses() {
    let node = test_node();
    let passcode = format!("{}\n", KEY.passcode(0));
    node.cli_with(&["test", "jo", "--client", "vpn"], &passcode).done();
    for (arguments, input, reason) in [
        (&["test", "jo"][..], "wrong\n", "REJECT: wrong password"),
        (&["test", "nobody"], "x\n", "REJECT: unknown user"),
        (&["test", "jo", "--client", "none"], "x\n", "there is no client \"none\""),
        (&["test", "jo"], "", "standard input ended before the login did"),
        (&["test", "jo"], "correct horse\n", "standard input ended before the login did"),
    ] {
        let said = node.cli_with(arguments, input).refused();
        assert!(said.contains(reason), "{said}");
    }
}

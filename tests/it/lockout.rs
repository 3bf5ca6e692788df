//! What keeps somebody out: lock-out, block, disabling; and what lets somebody in once.

use watchword::radius::packet::Code;

use crate::harness::{Nas, Node, Question};
use crate::radius_login::{KEY, node_for_passcodes};

fn count(node: &Node, reason: &str) -> usize {
    node.attempts().iter().filter(|(_, _, one)| one == reason).count()
}

#[test]
fn parallel_guesses_of_a_passcode_get_no_more_tries_than_the_limit() {
    let node = node_for_passcodes();
    node.cli(&["settings", "set", "lockout.passcode_failures", "5"]).done();
    let mut nas = Nas::new(&node);
    let right = KEY.passcodes(0, 100);
    let guesses: Vec<_> = (100_000..)
        .map(|number: u32| number.to_string())
        .filter(|guess| !right.contains(guess))
        .map(|guess| Question::login("alice", &guess))
        .take(60)
        .collect();
    let answers = nas.ask_all(&guesses);
    assert!(answers.iter().all(|answer| answer.code == Code::AccessReject));
    assert_eq!(count(&node, "wrong passcode"), 5);
    assert_eq!(count(&node, "locked after failed passcodes"), 55);
    assert_eq!(node.user("alice")["state"], "locked");
    // Locked means locked: a right guess would tell the guesser as much as an accept.
    assert_eq!(nas.login("alice", &KEY.passcode(0)), Code::AccessReject);
    assert_eq!(node.last_reason(), "locked after failed passcodes");
    node.cli(&["user", "unblock", "alice"]).done();
    assert_eq!(node.user("alice")["state"], "enabled");
    assert_eq!(nas.login("alice", &KEY.passcode(0)), Code::AccessAccept);
}

#[test]
fn parallel_guesses_of_a_password_get_no_more_tries_than_the_limit() {
    let node = Node::start();
    node.add_client("vpn", "127.0.0.1", &[]);
    node.import(&format!("username,password,hotp_key\njo,correct horse,{}\n", KEY.0));
    node.cli(&["settings", "set", "lockout.password_failures", "3"]).done();
    let mut nas = Nas::new(&node);
    let spellings = ["jo", "JO", "CORP\\jo", "jo@corp.example"];
    // One guess far behind the limit is right. It gets no challenge, which would tell that it is.
    let guesses: Vec<_> = (0..40)
        .map(|number| match number {
            30 => Question::login("jo", "correct horse"),
            _ => Question::login(spellings[number % 4], &format!("guess {number}")),
        })
        .collect();
    let answers = nas.ask_all(&guesses);
    assert!(answers.iter().all(|answer| answer.code == Code::AccessReject));
    assert_eq!(count(&node, "wrong password"), 3);
    assert_eq!(count(&node, "locked after failed passwords"), 37);
    let typed = format!("correct horse,{}", KEY.passcode(0));
    assert_eq!(nas.login("jo", &typed), Code::AccessReject);
    node.cli(&["user", "unblock", "jo"]).done();
    assert_eq!(nas.login("jo", &typed), Code::AccessAccept);
}

#[test]
fn an_accepted_login_forgets_the_failures_before_it_and_a_used_passcode_is_no_failure() {
    let node = node_for_passcodes();
    node.cli(&["settings", "set", "lockout.passcode_failures", "2"]).done();
    let mut nas = Nas::new(&node);
    for counter in 0..3 {
        assert_eq!(nas.login("alice", &KEY.wrong_passcode(counter)), Code::AccessReject);
        assert_eq!(node.user("alice")["passcode_failures"], 1);
        assert_eq!(nas.login("alice", &KEY.passcode(counter)), Code::AccessAccept);
        assert_eq!(node.user("alice")["passcode_failures"], 0);
        // A client that asks twice must not lock its user out.
        assert_eq!(nas.login("alice", &KEY.passcode(counter)), Code::AccessReject);
        assert_eq!(node.user("alice")["passcode_failures"], 0);
    }
}

#[test]
fn a_limit_of_zero_never_locks() {
    let node = node_for_passcodes();
    node.cli(&["settings", "set", "lockout.passcode_failures", "0"]).done();
    let mut nas = Nas::new(&node);
    let guesses = vec![Question::login("alice", &KEY.wrong_passcode(0)); 30];
    nas.ask_all(&guesses);
    assert_eq!(count(&node, "wrong passcode"), 30);
    assert_eq!(nas.login("alice", &KEY.passcode(0)), Code::AccessAccept);
}

#[test]
fn a_lock_survives_a_crash() {
    let node = node_for_passcodes();
    node.cli(&["settings", "set", "lockout.passcode_failures", "1"]).done();
    assert_eq!(Nas::new(&node).login("alice", &KEY.wrong_passcode(0)), Code::AccessReject);
    let node = node.kill().serve();
    assert_eq!(node.user("alice")["state"], "locked");
    assert_eq!(Nas::new(&node).login("alice", &KEY.passcode(0)), Code::AccessReject);
}

#[test]
fn a_blocked_user_is_refused_until_unblocked_and_the_reason_is_shown() {
    let node = node_for_passcodes();
    let mut nas = Nas::new(&node);
    let block = ["user", "block", "alice", "--reason", "phone lost", "--seconds", "3600"];
    let said = node.cli(&block).done();
    assert!(said.starts_with("alice blocked until ") && said.contains("phone lost"), "{said}");
    let user = node.user("alice");
    assert_eq!(user["state"], "blocked");
    let detail = user["state_detail"].as_str().expect("text");
    assert!(detail.contains("by local uid ") && detail.ends_with(": phone lost"), "{detail}");
    assert_eq!(nas.login("alice", &KEY.passcode(0)), Code::AccessReject);
    assert_eq!(node.last_reason(), "user blocked");
    node.cli(&["user", "unblock", "alice"]).done();
    assert_eq!(nas.login("alice", &KEY.passcode(0)), Code::AccessAccept);
    node.cli(&["user", "block", "alice"]).misused();
    node.cli(&["user", "block", "alice", "--reason", ""]).refused();
    assert_eq!(node.user("alice")["state"], "enabled");
}

#[test]
fn a_disabled_user_is_refused_until_enabled() {
    let node = node_for_passcodes();
    let mut nas = Nas::new(&node);
    assert_eq!(node.cli(&["user", "disable", "alice"]).done(), "alice disabled");
    assert_eq!(node.user("alice")["state"], "disabled");
    assert_eq!(nas.login("alice", &KEY.passcode(0)), Code::AccessReject);
    assert_eq!(node.last_reason(), "user disabled");
    assert_eq!(node.cli(&["user", "enable", "alice"]).done(), "alice enabled");
    assert_eq!(nas.login("alice", &KEY.passcode(0)), Code::AccessAccept);
}

#[test]
fn a_bypass_lets_in_once_however_many_ask() {
    let node = node_for_passcodes();
    let mut nas = Nas::new(&node);
    let said = node.cli(&["user", "bypass", "alice", "--reason", "token at home"]).done();
    assert!(said.starts_with("alice may log in once without passcode until "), "{said}");
    assert!(node.user("alice")["bypass_until"].is_string());
    let tries = vec![Question::login("alice", &KEY.wrong_passcode(0)); 10];
    let answers = nas.ask_all(&tries);
    let accepted = answers.iter().filter(|answer| answer.code == Code::AccessAccept).count();
    assert_eq!(accepted, 1);
    assert_eq!(count(&node, "one-time bypass"), 1);
    assert!(node.user("alice")["bypass_until"].is_null());
    assert_eq!(nas.login("alice", &KEY.passcode(0)), Code::AccessAccept);
}

#[test]
fn a_bypass_stands_in_for_the_passcode_and_not_for_the_password() {
    let node = Node::start();
    node.add_client("vpn", "127.0.0.1", &[]);
    node.import(&format!("username,password,hotp_key\njo,correct horse,{}\n", KEY.0));
    node.cli(&["user", "bypass", "jo", "--reason", "token at home"]).done();
    let mut nas = Nas::new(&node);
    assert_eq!(nas.login("jo", "correct house"), Code::AccessReject);
    assert_eq!(nas.login("jo", "correct horse"), Code::AccessAccept);
    assert_eq!(nas.login("jo", "correct horse"), Code::AccessChallenge);
    let blocked = ["user", "bypass", "jo", "--reason", "x", "--seconds", "5"];
    node.cli(&blocked).refused();
}

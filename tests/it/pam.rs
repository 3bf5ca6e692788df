//! A Linux host: pam_radius, driven by pamtester. pam_radius 2.0.0 signs nothing.

use crate::harness::{Node, Outcome, SECRET, pamtester};
use crate::radius_login::KEY;

fn node() -> Node {
    let node = Node::start();
    node.add_client("host", "127.0.0.1", &[]);
    node.import(&format!("username,password,hotp_key\njo,correct horse,{}\n", KEY.0));
    node
}

fn log_in(node: &Node, answers: &[&str]) -> Outcome {
    let input: String = answers.iter().map(|answer| format!("{answer}\n")).collect();
    pamtester(&node.directory().path(""), node.radius, SECRET, "jo", &input)
}

#[test]
fn pam_asks_for_password_and_passcode_and_lets_in() {
    let node = node();
    let said = log_in(&node, &["correct horse", &KEY.passcode(0)]);
    assert_eq!(said.status, Some(0), "{said}");
    // What the challenge says is what the user sees.
    assert!(said.stderr.contains("Enter your passcode: "), "{said}");
    assert!(said.stdout.contains("successfully authenticated"), "{said}");
    assert_eq!(node.sample("watchword_radius_replies_total{code=\"challenge\"}"), 1);
}

#[test]
fn pam_refuses_a_wrong_passcode_and_a_used_one() {
    let node = node();
    let said = log_in(&node, &["correct horse", &KEY.wrong_passcode(0)]);
    assert_eq!(said.status, Some(1), "{said}");
    assert!(said.stderr.contains("Authentication failure"), "{said}");
    assert_eq!(log_in(&node, &["correct horse", &KEY.passcode(0)]).status, Some(0));
    assert_eq!(log_in(&node, &["correct horse", &KEY.passcode(0)]).status, Some(1));
    assert_eq!(node.last_reason(), "passcode used already");
}

#[test]
fn pam_refuses_a_wrong_password_without_asking_for_a_passcode() {
    let node = node();
    let said = log_in(&node, &["correct house"]);
    assert_eq!(said.status, Some(1), "{said}");
    assert!(!said.stderr.contains("Enter your passcode"), "{said}");
}

#[test]
fn pam_takes_password_and_passcode_in_one_line() {
    let node = node();
    let typed = format!("correct horse,{}", KEY.passcode(0));
    assert_eq!(log_in(&node, &[&typed]).status, Some(0));
}

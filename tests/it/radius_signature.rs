//! Which requests must be signed: `require-message-authenticator` and `limit-proxy-state`.

use std::time::Instant;

use serde_json::Value;
use watchword::radius::attribute::AttributeType;
use watchword::radius::packet::Code;

use crate::harness::{DEADLINE, Nas, Node, Question};
use crate::radius_login::KEY;

const PROXY_STATE: AttributeType = AttributeType::PROXY_STATE;

/// A node with alice and a client with this policy.
fn node(policy: &[&str]) -> Node {
    let node = Node::start();
    node.add_client("vpn", "127.0.0.1", &[&["--first-factor", "none"], policy].concat());
    node.import(&format!("username,hotp_key\nalice,{}\n", KEY.0));
    node
}

fn login(counter: u64) -> Question {
    Question::login("alice", &KEY.passcode(counter))
}

/// How `client list` shows the client.
fn is_seen_signing(node: &Node) -> bool {
    client(node)["seen_signing"].as_bool().expect("yes or no")
}

fn client(node: &Node) -> Value {
    node.cli(&["client", "list", "--format", "json"]).json()[0].take()
}

/// Asks until the client was seen with this habit: nobody waits for an answer until that is recorded.
#[track_caller]
fn wait_until_seen(node: &Node, habit: &str) {
    let begun = Instant::now();
    while client(node)[habit] != true {
        assert!(begun.elapsed() < DEADLINE, "{habit} is never seen");
    }
}

#[track_caller]
fn assert_accepted(nas: &mut Nas, question: &Question) {
    assert_eq!(nas.ask(question).code, Code::AccessAccept);
}

#[track_caller]
fn assert_dropped(node: &Node, nas: &mut Nas, question: &Question, cause: &str) {
    let sent = nas.sealed(question).bytes;
    nas.assert_dropped(node, &sent, cause);
}

#[test]
fn yes_drops_what_is_not_signed() {
    let node = node(&["--require-message-authenticator", "yes"]);
    let mut nas = Nas::new(&node);
    assert_dropped(&node, &mut nas, &login(0).unsigned(), "no_message_authenticator");
    assert_accepted(&mut nas, &login(0));
}

#[test]
fn no_takes_both_for_ever() {
    let node = node(&["--require-message-authenticator", "no"]);
    let mut nas = Nas::new(&node);
    assert_accepted(&mut nas, &login(0));
    assert_accepted(&mut nas, &login(1).unsigned());
}

#[test]
fn auto_demands_a_signature_once_an_accepted_login_was_signed() {
    let node = node(&[]);
    let mut nas = Nas::new(&node);
    assert_accepted(&mut nas, &login(0).unsigned());
    // Anybody can send a signature that is refused for its passcode: that teaches nothing.
    let refused = nas.ask(&Question::login("alice", &KEY.wrong_passcode(1)));
    assert_eq!(refused.code, Code::AccessReject);
    assert!(!is_seen_signing(&node));
    assert_accepted(&mut nas, &login(1).unsigned());
    assert_accepted(&mut nas, &login(2));
    wait_until_seen(&node, "seen_signing");
    assert_dropped(&node, &mut nas, &login(3).unsigned(), "no_message_authenticator");
    // It is part of what is replicated, so a crash forgets nothing.
    let node = node.kill().serve();
    let mut nas = Nas::new(&node);
    assert_dropped(&node, &mut nas, &login(3).unsigned(), "no_message_authenticator");
    assert_accepted(&mut nas, &login(3));
    // With a new secret it may be new equipment.
    let secret = node.directory().write_file("new.secret", crate::harness::SECRET);
    let secret = secret.to_str().expect("UTF-8");
    node.cli(&["client", "edit", "vpn", "--secret-file", secret]).done();
    assert!(!is_seen_signing(&node));
    assert_accepted(&mut nas, &login(4).unsigned());
}

#[test]
fn a_signature_is_demanded_of_status_server_and_of_eap_whatever_the_client_may() {
    let node = node(&["--require-message-authenticator", "no"]);
    let mut nas = Nas::new(&node);
    let eap = login(0).unsigned().with(AttributeType::EAP_MESSAGE, b"\x02\x01\x00\x05\x01");
    assert_dropped(&node, &mut nas, &eap, "no_message_authenticator");
    // A Status-Server without signature: the header alone.
    let mut bytes = nas.sealed(&Question::status()).bytes;
    bytes.truncate(20);
    bytes[2..4].copy_from_slice(&20_u16.to_be_bytes());
    nas.assert_dropped(&node, &bytes, "no_message_authenticator");
}

#[test]
fn a_signature_twice_is_none() {
    let node = node(&["--require-message-authenticator", "no"]);
    let mut nas = Nas::new(&node);
    let mut bytes = nas.sealed(&login(0)).bytes;
    let signature = bytes[20..38].to_vec();
    bytes.extend(signature);
    let length = u16::try_from(bytes.len()).expect("short");
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    nas.assert_dropped(&node, &bytes, "bad_message_authenticator");
}

#[test]
fn limit_proxy_state_yes_drops_proxy_state_without_signature() {
    let node = node(&["--limit-proxy-state", "yes"]);
    let mut nas = Nas::new(&node);
    let unsigned = login(0).unsigned().with(PROXY_STATE, b"hop");
    assert_dropped(&node, &mut nas, &unsigned, "proxy_state_unsigned");
    assert_accepted(&mut nas, &login(0).unsigned());
    assert_accepted(&mut nas, &login(1).with(PROXY_STATE, b"hop"));
}

#[test]
fn limit_proxy_state_no_takes_it_for_ever() {
    let node = node(&["--limit-proxy-state", "no"]);
    let mut nas = Nas::new(&node);
    assert_accepted(&mut nas, &login(0).unsigned());
    assert_accepted(&mut nas, &login(1).unsigned().with(PROXY_STATE, b"hop"));
}

#[test]
fn limit_proxy_state_auto_begins_with_the_first_accepted_login_without_proxy_state() {
    let node = node(&[]);
    let mut nas = Nas::new(&node);
    let by_proxy = |counter| login(counter).unsigned().with(PROXY_STATE, b"hop");
    // A proxy that signs nothing goes on working, as long as it is all there is.
    assert_accepted(&mut nas, &by_proxy(0));
    assert_accepted(&mut nas, &by_proxy(1));
    assert_accepted(&mut nas, &login(2).unsigned());
    wait_until_seen(&node, "seen_without_proxy");
    assert_dropped(&node, &mut nas, &by_proxy(3), "proxy_state_unsigned");
    assert_accepted(&mut nas, &login(3).unsigned());
}

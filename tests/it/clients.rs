//! `client`: who may ask.

use serde_json::{Value, json};
use watchword::radius::packet::Code;

use crate::harness::{Nas, Node, Question, SECRET, code_of};
use crate::radius_login::{KEY, node_for_passcodes};

fn clients(node: &Node) -> Vec<Value> {
    let listing = node.cli(&["client", "list", "--format", "json"]).json();
    listing.as_array().expect("a list").clone()
}

#[test]
fn a_client_is_added_listed_changed_and_removed() {
    let node = Node::start();
    node.add_client("vpn", "192.0.2.9/28", &["--address", "2001:db8::1"]);
    let listed = clients(&node);
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["addresses"], json!(["192.0.2.0/28", "2001:db8::1/128"]));
    assert_eq!(listed[0]["kind"], "radius");
    assert_eq!(listed[0]["first_factor"], "local");
    assert_eq!(listed[0]["require_user_match"], true);
    assert_eq!(listed[0]["passcode_input"], "auto");
    assert_eq!(listed[0]["require_message_authenticator"], "auto");
    assert_eq!(listed[0]["limit_proxy_state"], "auto");

    let edit = ["client", "edit", "vpn", "--rename", "gateway", "--address", "192.0.2.1"];
    let policy = [
        "--first-factor",
        "none",
        "--require-user-match",
        "no",
        "--passcode-input",
        "separator",
        "--require-message-authenticator",
        "yes",
        "--limit-proxy-state",
        "no",
    ];
    node.cli(&[&edit[..], &policy].concat()).done();
    let edited = &clients(&node)[0];
    assert_eq!((&edited["id"], &edited["name"]), (&listed[0]["id"], &json!("gateway")));
    assert_eq!(edited["addresses"], json!(["192.0.2.1/32"]));
    assert_eq!(edited["first_factor"], "none");
    assert_eq!(edited["require_user_match"], false);
    assert_eq!(edited["passcode_input"], "separator");
    assert_eq!(edited["require_message_authenticator"], "yes");
    assert_eq!(edited["limit_proxy_state"], "no");
    let table = node.cli(&["client", "list"]).done();
    assert!(table.contains("gateway") && !table.contains(SECRET), "{table}");

    assert_eq!(node.cli(&["client", "remove", "gateway"]).done(), "client gateway removed");
    assert!(clients(&node).is_empty());
    node.cli(&["client", "remove", "gateway"]).refused();
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let node = node_for_passcodes();
    let before = clients(&node);
    let good = node.directory().write_file("good.secret", SECRET);
    let short = node.directory().write_file("short.secret", "short");
    let empty = node.directory().write_file("empty.secret", "");
    let exposed = node.directory().path("exposed.secret");
    std::fs::write(&exposed, SECRET).expect("a file is written");
    let missing = node.directory().path("missing.secret");
    for (name, address, secret, reason) in [
        ("vpn", "127.0.0.2", &good, "client \"vpn\" exists already"),
        ("other", "127.0.0.1", &good, "127.0.0.1/32"),
        ("other", "127.0.0.1/33", &good, "\"127.0.0.1/33\" is no address or range"),
        ("other", "vpn.example.org", &good, "\"vpn.example.org\" is no address or range"),
        ("", "127.0.0.2", &good, ""),
        ("other", "127.0.0.2", &short, "a shared secret has 8 to 128 bytes"),
        ("other", "127.0.0.2", &empty, "a shared secret has 8 to 128 bytes"),
        ("other", "127.0.0.2", &exposed, "chmod 600"),
        ("other", "127.0.0.2", &missing, "missing.secret"),
    ] {
        let secret = secret.to_str().expect("UTF-8");
        let add = ["client", "add", "radius", name, "--address", address, "--secret-file", secret];
        let said = node.cli(&add).refused();
        assert!(said.contains(reason), "{said}");
        assert!(!said.contains(SECRET), "{said}");
    }
    let good = good.to_str().expect("UTF-8");
    node.cli(&["client", "add", "radius", "other", "--secret-file", good]).misused();
    node.cli(&["client", "edit", "vpn", "--passcode-input", "telepathy"]).misused();
    node.cli(&["client", "edit", "nobody", "--rename", "x"]).refused();
    assert_eq!(clients(&node), before);
}

#[test]
fn a_change_counts_from_the_next_packet_on() {
    let node = node_for_passcodes();
    let mut nas = Nas::new(&node);
    assert_eq!(nas.login("alice", &KEY.passcode(0)), Code::AccessAccept);
    let secret = node.directory().write_file("new.secret", "brand-new-secret");
    let secret = secret.to_str().expect("UTF-8");
    node.cli(&["client", "edit", "vpn", "--secret-file", secret]).done();
    let old = nas.sealed(&Question::status()).bytes;
    nas.assert_dropped(&node, &old, "bad_message_authenticator");
    let mut nas = Nas::at("127.0.0.1", node.radius, "brand-new-secret");
    assert_eq!(nas.login("alice", &KEY.passcode(1)), Code::AccessAccept);
    node.cli(&["client", "edit", "vpn", "--address", "127.0.0.7"]).done();
    let status = nas.sealed(&Question::status()).bytes;
    nas.assert_dropped(&node, &status, "unknown_client");
    let mut moved = Nas::at("127.0.0.7", node.radius, "brand-new-secret");
    assert_eq!(code_of(&mut moved, &Question::status()), Code::AccessAccept);
    node.cli(&["client", "remove", "vpn"]).done();
    let status = moved.sealed(&Question::status()).bytes;
    moved.assert_dropped(&node, &status, "unknown_client");
}

//! `device`: what a user holds.

use serde_json::{Value, json};
use watchword::radius::packet::Code;

use crate::harness::{HotpKey, Nas, Node, oathtool};
use crate::radius_login::{KEY, node_for_passcodes};

fn devices(node: &Node, user: &str) -> Vec<Value> {
    let listing = node.cli(&["device", "list", user, "--format", "json"]).json();
    listing.as_array().expect("a list").clone()
}

fn device_id(node: &Node, user: &str) -> String {
    devices(node, user)[0]["id"].as_str().expect("text").to_owned()
}

#[test]
fn an_enrolment_prints_the_key_as_uri_and_qr_code_once() {
    let node = node_for_passcodes();
    node.cli(&["settings", "set", "oath.issuer", "Example & Co"]).done();
    let said = node.cli(&["device", "add", "alice", "totp", "--label", "phone"]).done();
    let uri = said.lines().find(|line| line.starts_with("otpauth://")).expect("a URI");
    let issuer = "Example%20%26%20Co";
    let rest = uri.strip_prefix(&format!("otpauth://totp/{issuer}:alice?secret="));
    let (key, rest) = rest.and_then(|rest| rest.split_once('&')).expect("a key in the URI");
    assert_eq!(rest, format!("issuer={issuer}&algorithm=SHA1&digits=6&period=30"));
    assert_eq!(key.len(), 32, "160 bits");
    let blocks = said.lines().filter(|line| line.contains('█') && line.contains('▀')).count();
    assert!(blocks > 10, "a QR code\n{said}");
    // The key works, and nobody can look it up again.
    let passcode = oathtool(&["--totp", "-b", key]);
    assert_eq!(Nas::new(&node).login("alice", &passcode), Code::AccessAccept);
    let shown = node.cli(&["user", "show", "alice", "--format", "json"]).done();
    assert!(!shown.contains(key));
    assert_eq!(devices(&node, "alice").len(), 2);
}

#[test]
fn a_device_of_each_make_is_enrolled_with_a_key_that_is_brought_along() {
    let node = node_for_passcodes();
    let key = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJR";
    let spelling = "gezd gnbv-gy3t qojq GEZDGNBVGY3TQOJR====";
    let add = ["device", "add", "alice", "hotp", "--format", "json", "--key", spelling];
    let made = ["--digits", "8", "--counter", "40", "--algorithm", "sha1", "--label", "blue"];
    let enrolled = node.cli(&[&add[..], &made].concat()).json();
    assert_eq!(enrolled["key"], key);
    assert_eq!(enrolled["device"], devices(&node, "alice")[1]);
    assert_eq!(enrolled["device"]["next_counter"], 40);
    let passcode = oathtool(&["--hotp", "-b", "-d", "8", "-c", "40", key]);
    let mut nas = Nas::new(&node);
    assert_eq!(nas.login("alice", &passcode), Code::AccessAccept);
    assert_eq!(devices(&node, "alice")[1]["next_counter"], 41);
    // The other one has not moved.
    assert_eq!(devices(&node, "alice")[0]["next_counter"], 0);

    for (bad, reason) in [
        (&["hotp", "--key", "GEZDGNBV"][..], "a key has 16 to 128 bytes"),
        (&["hotp", "--key", "not base 32!"], "the key is not base32"),
        // The same passcode would open once for each device.
        (&["totp", "--key", key], "the user has a device with this key"),
        (&["hotp", "--digits", "9"], "a passcode has 6, 7 or 8 digits"),
        (&["totp", "--period", "45"], "a time step has 30 or 60 seconds"),
    ] {
        let said = node.cli(&[&["device", "add", "alice"], bad].concat()).refused();
        assert_eq!(said, format!("watchword: {reason}"));
    }
    node.cli(&["device", "add", "nobody", "totp"]).refused();
    assert_eq!(devices(&node, "alice").len(), 2);
}

#[test]
fn a_revoked_device_opens_nothing() {
    let node = node_for_passcodes();
    let id = device_id(&node, "alice");
    assert_eq!(node.cli(&["device", "revoke", &id]).done(), format!("device {id} revoked"));
    assert_eq!(Nas::new(&node).login("alice", &KEY.passcode(0)), Code::AccessReject);
    assert_eq!(node.last_reason(), "user has no device");
    for unknown in [&id[..], "0", "../users/alice"] {
        node.cli(&["device", "revoke", unknown]).refused();
    }
}

#[test]
fn a_token_that_ran_ahead_is_brought_back_by_two_passcodes() {
    let node = node_for_passcodes();
    let mut nas = Nas::new(&node);
    let id = device_id(&node, "alice");
    assert_eq!(nas.login("alice", &KEY.passcode(500)), Code::AccessReject);
    let resync = |first: u64, second: u64| {
        let (first, second) = (KEY.passcode(first), KEY.passcode(second));
        node.cli(&["device", "resync", &id, &first, &second])
    };
    resync(500, 502).refused();
    resync(5_000, 5_001).refused();
    resync(500, 501).done();
    assert_eq!(devices(&node, "alice")[0]["next_counter"], 502);
    // Both are used up, and so is all before them.
    for counter in [499, 500, 501] {
        assert_eq!(nas.login("alice", &KEY.passcode(counter)), Code::AccessReject, "{counter}");
    }
    resync(499, 500).refused();
    assert_eq!(nas.login("alice", &KEY.passcode(502)), Code::AccessAccept);
    node.cli(&["device", "resync", &id, "12345", "123456"]).refused();
}

#[test]
fn a_clock_that_runs_ahead_is_found_and_followed() {
    let node = Node::start();
    node.add_client("vpn", "127.0.0.1", &["--first-factor", "none"]);
    node.import(&format!("username,totp_key\njo,{}\n", KEY.0));
    let id = device_id(&node, "jo");
    // A token whose clock is an hour ahead.
    let there = watchword::clock::now().seconds() + 3_600;
    let passcode =
        |seconds| oathtool(&["--totp", "-b", "-N", &format!("@{}", there + seconds), KEY.0]);
    let passcodes: Vec<String> = [0, 30, 60].into_iter().map(passcode).collect();
    let mut nas = Nas::new(&node);
    assert_eq!(nas.login("jo", &passcodes[0]), Code::AccessReject);
    let resync = ["device", "resync", &id, &passcodes[0], &passcodes[1]];
    node.cli(&resync).done();
    let drift = devices(&node, "jo")[0]["drift_steps"].as_i64().expect("a number");
    assert!((119..=121).contains(&drift), "{drift}");
    assert_eq!(nas.login("jo", &passcodes[1]), Code::AccessReject, "used up");
    assert_eq!(nas.login("jo", &passcodes[2]), Code::AccessAccept);
}

#[test]
fn a_user_holds_a_bounded_number_of_devices_and_any_of_them_opens() {
    let node = node_for_passcodes();
    let other = HotpKey("JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP");
    node.cli(&["device", "add", "alice", "hotp", "--key", other.0]).done();
    let mut nas = Nas::new(&node);
    assert_eq!(nas.login("alice", &other.passcode(0)), Code::AccessAccept);
    assert_eq!(nas.login("alice", &KEY.passcode(0)), Code::AccessAccept);
    for _ in 2..16 {
        node.cli(&["device", "add", "alice", "totp"]).done();
    }
    node.cli(&["device", "add", "alice", "totp"]).refused();
    assert_eq!(devices(&node, "alice").len(), 16);
    assert_eq!(node.user("alice")["devices"], json!(devices(&node, "alice")));
}

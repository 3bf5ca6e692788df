//! `user`: who logs in.

use serde_json::json;
use watchword::radius::packet::Code;

use crate::harness::{Nas, Node};
use crate::radius_login::{KEY, node_for_passcodes};

#[test]
fn a_user_is_added_shown_changed_and_deleted() {
    let node = Node::start();
    let add = ["user", "add", "Jo", "--full-name", "Jo Doe", "--mail", "jo@example.org"];
    let groups = ["--group", "vpn", "--group", "staff", "--password", "--format", "json"];
    let added = node.cli_with(&[&add[..], &groups].concat(), "correct horse\n").json();
    assert_eq!(added, node.user("CORP\\JO"));
    assert_eq!(added["username"], "jo");
    assert_eq!(added["full_name"], "Jo Doe");
    assert_eq!(added["mail"], "jo@example.org");
    assert_eq!(added["groups"], json!(["staff", "vpn"]));
    assert_eq!((&added["state"], &added["has_password"]), (&json!("enabled"), &json!(true)));

    node.cli(&["user", "edit", "jo", "--rename", "joan", "--group", "admins"]).done();
    node.cli(&["user", "show", "jo"]).refused();
    let edited = node.user("joan");
    assert_eq!(edited["id"], added["id"]);
    assert_eq!((&edited["full_name"], &edited["groups"]), (&json!("Jo Doe"), &json!(["admins"])));

    assert_eq!(node.cli(&["user", "delete", "joan"]).done(), "joan deleted");
    let gone = node.cli(&["user", "show", "joan"]).refused();
    assert_eq!(gone, "watchword: there is no user \"joan\"");
}

#[test]
fn two_spellings_of_a_name_cannot_be_two_users() {
    let node = node_for_passcodes();
    for spelling in ["alice", "ALICE", "CORP\\alice", "alice@example.org", "ａｌｉｃｅ"] {
        let said = node.cli(&["user", "add", spelling]).refused();
        assert_eq!(said, "watchword: user \"alice\" exists already", "{spelling}");
    }
    node.cli(&["user", "add", "bob"]).done();
    node.cli(&["user", "edit", "bob", "--rename", "Alice"]).refused();
    for nobody in ["", "  ", "a\u{200b}b", &"x".repeat(254)] {
        node.cli(&["user", "add", nobody]).refused();
    }
    assert_eq!(node.cli(&["status", "--format", "json"]).json()["users"], 2);
}

#[test]
fn a_deleted_user_is_gone_with_all_devices_and_a_namesake_starts_afresh() {
    let node = node_for_passcodes();
    let mut nas = Nas::new(&node);
    node.cli(&["user", "delete", "alice"]).done();
    assert_eq!(node.cli(&["status", "--format", "json"]).json()["devices"], 0);
    assert_eq!(nas.login("alice", &KEY.passcode(0)), Code::AccessReject);
    assert_eq!(node.last_reason(), "unknown user");
    node.cli(&["user", "add", "alice"]).done();
    assert_eq!(nas.login("alice", &KEY.passcode(0)), Code::AccessReject);
    assert_eq!(node.last_reason(), "user has no device");
}

#[test]
fn a_renamed_user_logs_in_by_the_new_name_with_the_old_device() {
    let node = node_for_passcodes();
    let mut nas = Nas::new(&node);
    node.cli(&["user", "edit", "alice", "--rename", "alicia"]).done();
    assert_eq!(nas.login("alice", &KEY.passcode(0)), Code::AccessReject);
    assert_eq!(nas.login("alicia", &KEY.passcode(0)), Code::AccessAccept);
}

#[test]
fn a_new_password_counts_from_the_next_login_on() {
    let node = Node::start();
    node.add_client("vpn", "127.0.0.1", &[]);
    node.import(&format!("username,password,hotp_key\njo,correct horse,{}\n", KEY.0));
    node.cli_with(&["user", "edit", "jo", "--password"], "battery staple\n").done();
    let mut nas = Nas::new(&node);
    assert_eq!(nas.login("jo", "correct horse"), Code::AccessReject);
    assert_eq!(nas.login("jo", "battery staple"), Code::AccessChallenge);
    for bad in ["\n", &format!("{}\n", "x".repeat(129))] {
        let said = node.cli_with(&["user", "edit", "jo", "--password"], bad).refused();
        assert_eq!(said, "watchword: a password has 1 to 128 bytes");
    }
    assert_eq!(nas.login("jo", "battery staple"), Code::AccessChallenge);
}

#[test]
fn a_listing_goes_by_name_over_all_its_pages() {
    let node = Node::start();
    let names: Vec<String> = (0..2_500).map(|number| format!("user{number:04}")).collect();
    node.import(&format!("username\n{}\n", names.join("\n")));
    let listed = |arguments: &[&str]| {
        let listing = [&["user", "list", "--format", "json"], arguments].concat();
        let users = node.cli(&listing).json();
        let users = users.as_array().expect("a list").iter();
        users.map(|user| user["username"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed(&[]), names);
    assert_eq!(listed(&["--limit", "3"]), names[..3]);
    assert_eq!(listed(&["--limit", "1200", "--after", "user0999"]), names[1_000..2_200]);
    assert_eq!(listed(&["--after", "user2499"]), names[..0]);
    assert_eq!(listed(&["--limit", "0"]), names[..0]);
    let table = node.cli(&["user", "list", "--limit", "1"]).done();
    assert!(table.contains("USER") && table.contains("user0000"), "{table}");
}

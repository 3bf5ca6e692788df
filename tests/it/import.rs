//! `user import`: many users at once.

use std::collections::BTreeSet;

use crate::harness::{Node, Outcome, Process};
use crate::radius_login::KEY;

#[test]
fn good_rows_are_added_and_bad_ones_named_by_their_line() {
    let node = Node::start();
    let key = KEY.0;
    let csv = format!(
        "username,full_name,groups,totp_key,hotp_key,digits,disabled,password_hash\n\
         ann,\"Ann, the first\",vpn; staff,{key},,8,,\n\
         ,Nobody,,,,,,\n\
         bob,Bob,,,,,maybe,\n\
         cleo,Cleo,,{key},{key},,,\n\
         dan,Dan,,short,,,,\n\
         ANN,Ann again,,,,,,\n\
         eve,\"Eve\nof two lines\",,,,,,\n\
         fay,Fay,,,{key},9,,\n\
         gus,Gus,,,{key},,yes,\n\
         hal,Hal\n\
         ivy,Ivy,,,,,,$2b$12$abcdefghijklmnopqrstuv\n\
         joy,Joy,,,,,,\n"
    );
    let said = node.cli_with(&["user", "import", "-"], &csv);
    assert_eq!(said.status, Some(1), "{said}");
    // Ann stands there twice, and the name of two lines cannot be stored.
    assert_eq!(said.stdout, "3 added, 1 there already, 8 bad", "{said}");
    let lines: Vec<_> = said.stderr.lines().collect();
    for (line, reason) in [
        (3, "the user name is empty"),
        (4, "disabled must be yes or no, not \"maybe\""),
        (5, "give totp_key or hotp_key, not both"),
        (6, "the key is not base32"),
        (8, ""),
        (10, "a passcode has 6, 7 or 8 digits"),
        (12, "2 fields where the header has 8"),
        (13, "the password hash is not an argon2id hash"),
    ] {
        let line = format!("line {line}: {reason}");
        assert!(lines.iter().any(|said| said.starts_with(&line)), "{line}\n{said}");
    }
    assert_eq!(lines.last(), Some(&"watchword: 8 rows were refused"));
    assert_eq!(lines.len(), 9, "{said}");
    let ann = node.user("ann");
    assert_eq!(ann["full_name"], "Ann, the first");
    assert_eq!(ann["groups"], serde_json::json!(["staff", "vpn"]));
    assert_eq!(
        (&ann["devices"][0]["kind"], &ann["devices"][0]["digits"]),
        (&serde_json::json!("totp"), &serde_json::json!(8))
    );
    assert_eq!(node.user("gus")["state"], "disabled");
}

#[test]
fn an_import_that_is_run_again_changes_nothing() {
    let node = Node::start();
    let csv = format!("username,password,hotp_key\njo,correct horse,{}\nmo,,\n", KEY.0);
    node.import(&csv);
    let before = node.cli(&["user", "list", "--format", "json"]).json();
    let said = node.cli_with(&["user", "import", "-"], &csv).done();
    assert_eq!(said, "0 added, 2 there already, 0 bad");
    assert_eq!(node.cli(&["user", "list", "--format", "json"]).json(), before);
}

#[test]
fn a_dry_run_checks_every_row_and_changes_nothing() {
    let node = Node::start();
    let said = node.cli_with(&["user", "import", "--dry-run", "-"], "username\njo\nmo\n").done();
    assert_eq!(said, "2 would be sent, 0 there already, 0 bad");
    let bad = "username,disabled\njo,maybe\nmo,no\n";
    let said = node.cli_with(&["user", "import", "--dry-run", "-"], bad);
    assert_eq!(said.status, Some(1));
    assert!(said.stderr.starts_with("line 2: "), "{said}");
    assert_eq!(node.cli(&["status", "--format", "json"]).json()["users"], 0);
}

#[test]
fn a_file_that_is_none_of_ours_adds_nobody() {
    let node = Node::start();
    for (text, reason) in [
        ("", "the first line must name the columns, username among them"),
        ("full_name\nJo\n", "the first line must name the columns, username among them"),
        ("username,shoe_size\njo,44\n", "unknown column \"shoe_size\""),
        ("username,mail,mail\njo,a,b\n", "column \"mail\" appears twice"),
    ] {
        let said = node.cli_with(&["user", "import", "-"], text).refused();
        assert!(said.contains(reason), "{said}");
    }
    node.cli(&["user", "import", "no-such-file.csv"]).refused();
    assert_eq!(node.cli(&["status", "--format", "json"]).json()["users"], 0);
}

#[test]
fn more_bad_rows_than_anybody_reads_are_counted() {
    let node = Node::start();
    let csv = format!("username\n{}good\n", "\"\"\n".repeat(150));
    let said = node.cli_with(&["user", "import", "-"], &csv);
    assert_eq!(said.stdout, "1 added, 0 there already, 150 bad");
    assert_eq!(said.stderr.lines().count(), 102, "{said}");
}

fn name(number: usize) -> String {
    format!("user{number:05}")
}

fn users_then_resume(node: &Node, file: &str, rows: usize) {
    let there = node.cli(&["status", "--format", "json"]).json()["users"].as_u64();
    let there = usize::try_from(there.expect("a number")).expect("fits");
    let said = node.cli(&["user", "import", file]).done();
    assert_eq!(said, format!("{} added, {there} there already, 0 bad", rows - there));
}

#[test]
fn an_import_that_is_killed_at_either_end_is_resumed_and_all_are_there_once() {
    const ROWS: usize = 20_000;
    let node = Node::start();
    let mut csv = "username,full_name,hotp_key\n".to_owned();
    (0..ROWS).for_each(|number| csv += &format!("{},N {number},{}\n", name(number), KEY.0));
    let file = node.directory().write_file("users.csv", &csv);
    let file = file.to_str().expect("UTF-8");

    // First the command dies, while it waits for the rest of a batch.
    let mut command = node.spawn(&["user", "import", "-"]);
    let begun: usize = csv.split_inclusive('\n').take(3_500).map(str::len).sum();
    command.write(&csv[..begun]);
    node.wait_for_sample("watchword_users", 3_000);
    command.kill();

    // Then the node dies, with a batch on its way.
    let mut command = node.spawn(&["user", "import", file]);
    node.wait_for_sample("watchword_users", 3_001);
    let directory = node.kill();
    failed_import(&mut command);
    let node = directory.serve();
    let there = node.sample("watchword_users");
    assert!(there > 3_000, "what was there before is there: {there}");

    users_then_resume(&node, file, ROWS);
    let users = node.cli(&["user", "list", "--format", "json"]).json();
    let users = users.as_array().expect("a list");
    let names: BTreeSet<_> = users.iter().map(|user| user["username"].as_str()).collect();
    assert_eq!((users.len(), names.len()), (ROWS, ROWS));
    let complete = |user: &serde_json::Value| user["devices"].as_array().map(Vec::len) == Some(1);
    assert!(users.iter().all(complete), "each user has come with the device of the row");
    users_then_resume(&node, file, ROWS);
}

fn failed_import(command: &mut Process) {
    let failed = Outcome::of("user import", command);
    failed.refused();
}

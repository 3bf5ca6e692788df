//! `settings`: what is the same on every node.

use serde_json::Value;

use crate::harness::Node;

fn get(node: &Node, key: &str) -> String {
    node.cli(&["settings", "get", key]).done()
}

fn show(node: &Node) -> Value {
    node.cli(&["settings", "show", "--format", "json"]).json()
}

fn history(node: &Node) -> Vec<Value> {
    let history = node.cli(&["settings", "history", "--format", "json"]).json();
    history.as_array().expect("a list").clone()
}

#[test]
fn every_setting_is_shown_with_value_range_and_meaning() {
    let node = Node::start();
    let shown = show(&node);
    assert_eq!(shown["revision"], 0);
    let rows = shown["settings"].as_array().expect("a list");
    assert!(rows.len() >= 14, "{rows:?}");
    let table = node.cli(&["settings", "show"]).done();
    for row in rows {
        let key = row["key"].as_str().expect("text");
        assert_eq!(row["is_default"], true, "{key}");
        assert!(row["doc"].as_str().is_some_and(|doc| doc.ends_with('.')), "{key}");
        assert!(row["range"].as_str().is_some_and(|range| !range.is_empty()), "{key}");
        assert_eq!(row["value"], get(&node, key), "{key}");
        assert!(table.contains(key), "{key}");
    }
}

#[test]
fn a_setting_is_set_within_its_range_and_put_back() {
    let node = Node::start();
    let said = node.cli(&["settings", "set", "lockout.minutes", "30"]).done();
    assert!(said.starts_with("lockout.minutes = 30 (revision "), "{said}");
    assert_eq!(get(&node, "lockout.minutes"), "30");
    let before = show(&node);
    for (key, value, reason) in [
        ("lockout.minutes", "0", "lockout.minutes must be between 1 and 10080"),
        ("lockout.minutes", "10081", "lockout.minutes must be between 1 and 10080"),
        ("lockout.minutes", "many", "lockout.minutes takes a whole number"),
        ("lockout.minutes", "1.5", "lockout.minutes takes a whole number"),
        ("lockout.minutes", "", "lockout.minutes takes a whole number"),
        ("oath.issuer", "", "oath.issuer takes a text of 1 to 256 bytes"),
        ("oath.issuer", "two\nlines", "oath.issuer takes a text of 1 to 256 bytes"),
        ("no.such", "1", "there is no setting \"no.such\""),
    ] {
        let said = node.cli(&["settings", "set", key, value]).refused();
        assert!(said.contains(reason), "{said}");
    }
    node.cli(&["settings", "get", "no.such"]).refused();
    node.cli(&["settings", "set", "lockout.minutes"]).misused();
    node.cli(&["settings", "set", "lockout.minutes", "5", "--default"]).misused();
    node.cli(&["settings", "set", "lockout.minutes", "5", "--if-revision", "1"]).refused();
    assert_eq!(show(&node), before);
    node.cli(&["settings", "set", "lockout.minutes", "--default"]).done();
    assert_eq!(get(&node, "lockout.minutes"), "15");
    let rows = show(&node);
    let rows = rows["settings"].as_array().expect("a list");
    assert!(rows.iter().all(|row| row["is_default"] == true));
}

#[test]
fn a_file_is_planned_and_then_applied_whole_or_not_at_all() {
    let node = Node::start();
    node.cli(&["settings", "set", "block.days", "7"]).done();
    let file = node.directory().write_file(
        "settings.toml",
        "\"lockout.minutes\" = 30\n\"oath.issuer\" = \"Example\"\n\"totp.window_steps\" = 1\n",
    );
    let file = file.to_str().expect("UTF-8");
    let revision = show(&node)["revision"].clone();
    let plan = node.cli(&["settings", "plan", file]).done();
    let expected = format!(
        "block.days: 7 -> (default)\nlockout.minutes: 15 -> 30\n\
         oath.issuer: Watchword -> Example\nrevision {revision}"
    );
    assert_eq!(plan, expected);
    assert_eq!(show(&node)["revision"], revision, "a plan changes nothing");

    node.cli(&["settings", "apply", file, "--if-revision", "1"]).refused();
    assert_eq!(show(&node)["revision"], revision);
    node.cli(&["settings", "apply", file]).done();
    assert_eq!(get(&node, "lockout.minutes"), "30");
    assert_eq!(get(&node, "oath.issuer"), "Example");
    assert_eq!(get(&node, "block.days"), "90");
    let again = node.cli(&["settings", "apply", file]).done();
    assert!(again.starts_with("nothing to change"), "{again}");

    let before = show(&node);
    for text in [
        "\"lockout.minutes\" = 40\n\"block.days\" = 0\n",
        "\"lockout.minutes\" = 40\n\"no.such\" = 1\n",
        "\"lockout.minutes\" = 40\n\"block.days\" = true\n",
        "\"lockout.minutes\" = 40\n\"lockout.minutes\" = 41\n",
        "lockout.minutes = 40\n",
        "not TOML",
    ] {
        node.directory().write_file("settings.toml", text);
        node.cli(&["settings", "apply", file]).refused();
    }
    node.cli(&["settings", "apply", "no-such-file.toml"]).refused();
    assert_eq!(show(&node), before);
}

#[test]
fn the_history_tells_who_changed_what_and_leads_back() {
    let node = Node::start();
    for minutes in ["20", "30", "40"] {
        node.cli(&["settings", "set", "lockout.minutes", minutes]).done();
    }
    node.cli(&["settings", "set", "block.days", "7"]).done();
    let made = history(&node);
    let changes: Vec<_> = made.iter().map(|change| change["changes"][0].clone()).collect();
    assert_eq!(
        changes,
        [
            "lockout.minutes: (default) -> 20",
            "lockout.minutes: 20 -> 30",
            "lockout.minutes: 30 -> 40",
            "block.days: (default) -> 7"
        ]
    );
    assert!(made[0]["by"].as_str().is_some_and(|by| by.starts_with("local uid ")));
    let revision = made[1]["revision"].to_string();
    node.cli(&["settings", "rollback", &revision]).done();
    assert_eq!(get(&node, "lockout.minutes"), "30");
    assert_eq!(get(&node, "block.days"), "90");
    // Going back is a change like any other, and can be taken back too.
    assert_eq!(history(&node).len(), 5);
    node.cli(&["settings", "rollback", &made[3]["revision"].to_string()]).done();
    assert_eq!(get(&node, "lockout.minutes"), "40");
    assert_eq!(get(&node, "block.days"), "7");
    node.cli(&["settings", "rollback", "0"]).done();
    assert_eq!(get(&node, "lockout.minutes"), "15");
    let said = node.cli(&["settings", "rollback", "999999"]).refused();
    assert_eq!(said, "watchword: there is no settings revision \"999999\"");
    let table = node.cli(&["settings", "history"]).done();
    assert!(table.contains("lockout.minutes: 20 -> 30"), "{table}");
}

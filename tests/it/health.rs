//! `/metrics`, `/health/live` and `/health/ready`: for machines that watch.

use std::collections::BTreeMap;

use watchword::radius::packet::Code;

use crate::harness::{Nas, get};
use crate::radius_login::{KEY, node_for_passcodes};

#[test]
fn a_node_that_can_commit_is_live_and_ready() {
    let node = node_for_passcodes();
    assert_eq!(get(node.metrics, "/health/live"), (200, "live\n".to_owned()));
    assert_eq!(get(node.metrics, "/health/ready"), (200, "ready\n".to_owned()));
    assert_eq!(get(node.metrics, "/no-such-page").0, 404);
    // Administration is not to be had on this port.
    assert_eq!(get(node.metrics, "/v1/status").0, 404);
}

#[test]
fn the_metrics_are_in_the_format_of_prometheus_and_count_what_happens() {
    let node = node_for_passcodes();
    let mut nas = Nas::new(&node);
    assert_eq!(nas.login("alice", &KEY.passcode(0)), Code::AccessAccept);
    assert_eq!(nas.login("alice", &KEY.passcode(0)), Code::AccessReject);
    let (status, text) = get(node.metrics, "/metrics");
    assert_eq!(status, 200);
    let mut kinds = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').expect("a name and a kind");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kinds.insert(name, kind), None, "{name} is declared once");
        } else if !line.starts_with("# HELP ") {
            assert_sample(line, &kinds);
        }
    }
    for (name, value) in [
        ("watchword_radius_requests_total", 2),
        ("watchword_radius_replies_total{code=\"accept\"}", 1),
        ("watchword_radius_replies_total{code=\"reject\"}", 1),
        ("watchword_radius_reply_seconds_count", 2),
        ("watchword_radius_in_flight", 0),
        ("watchword_attempts_total{verdict=\"accepted\",reason=\"passcode\"}", 1),
        ("watchword_attempts_total{verdict=\"refused\",reason=\"passcode used already\"}", 1),
        ("watchword_ready", 1),
        ("watchword_is_leader", 1),
        ("watchword_failure_tolerance", 0),
        ("watchword_users", 1),
        ("watchword_devices", 1),
        ("watchword_clients", 1),
    ] {
        assert!(node.samples().contains_key(name), "{name} is missing\n{text}");
        assert_eq!(node.sample(name), value, "{name}");
    }
}

/// One sample: `name{label="value",…} number`, of a declared family.
fn assert_sample(line: &str, kinds: &BTreeMap<&str, &str>) {
    let (series, value) = line.rsplit_once(' ').expect("a series and a value");
    assert!(value.parse::<f64>().is_ok(), "{line}");
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').expect("labels end")),
        None => (series, ""),
    };
    let is_name = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    assert!(is_name(name), "{line}");
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (label, value) = label.split_once('=').expect("a label and a value");
        assert!(is_name(label) && value.len() >= 2, "{line}");
        assert!(value.starts_with('"') && value.ends_with('"'), "{line}");
    }
    let family = ["_bucket", "_sum", "_count"]
        .into_iter()
        .find_map(|part| name.strip_suffix(part).filter(|family| kinds.contains_key(family)))
        .unwrap_or(name);
    assert!(kinds.contains_key(family), "{name} is not declared");
    assert!(name.starts_with("watchword_"), "{name}");
}

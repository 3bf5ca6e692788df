//! Jepsen's own format, so that others' checkers can read our histories.
//!
//! One map a line: `{:index 0, :time 12, :process 3, :type :invoke, :f :write, :value ["u1" 41]}`.
//! Values with a key are pairs, which `jepsen.independent/tuple` makes of them. No value is `nil`: Knossos takes `nil` read
//! from a register as *not known*, which is always legal, and so would call a broken run valid;
//! absent is 0 there. Lists that are appended to become Elle's transactions of one step.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};

use serde_json::Value;

use crate::history::{Event, Kind, Process};

/// Writes `events` to `writer`.
///
/// # Errors
/// When it cannot be written.
pub fn export(events: &[Event], mut writer: impl Write) -> io::Result<()> {
    let lists: HashSet<Option<&str>> = events
        .iter()
        .filter(|event| event.f == "append")
        .map(|event| event.key.as_deref())
        .collect();
    // Whoever was cut off in the middle of an operation does not know how it ended.
    let mut open: BTreeMap<Process, &Event> = BTreeMap::new();
    for event in events.iter().filter(|event| !matches!(event.process, Process::Nemesis(_))) {
        match event.kind {
            Kind::Invoke => open.insert(event.process, event),
            Kind::Ok | Kind::Fail | Kind::Info => open.remove(&event.process),
        };
    }
    let last = events.last().map_or((0, 0), |event| (event.index + 1, event.time));
    let cut_off = (last.0..).zip(open.values()).map(|(index, event)| Event {
        index,
        time: last.1,
        ..event.completed(Kind::Info)
    });
    let cut_off: Vec<Event> = cut_off.collect();
    for event in events.iter().chain(&cut_off) {
        let is_list = lists.contains(&event.key.as_deref());
        let (f, value) = match event.f.as_str() {
            f @ ("append" | "read") if is_list => ("txn", micro_operation(event, f)),
            f => (f, plain(event, f)),
        };
        let process = match event.process {
            Process::Client(number) => number.to_string(),
            Process::Nemesis(_) => ":nemesis".to_owned(),
        };
        let kind = match event.kind {
            Kind::Invoke => "invoke",
            Kind::Ok => "ok",
            Kind::Fail => "fail",
            Kind::Info => "info",
        };
        writeln!(
            writer,
            "{{:index {}, :time {}, :process {process}, :type :{kind}, :f {}, :value {value}}}",
            event.index,
            event.time,
            name(f),
        )?;
    }
    writer.flush()
}

/// A transaction of one step. What a read has not seen yet is an empty list.
fn micro_operation(event: &Event, f: &str) -> String {
    let key = Value::String(event.key.clone().unwrap_or_default());
    let (f, value) = match (f, &event.value) {
        ("append", value) => (":append", edn(value)),
        (_, Value::Null) => (":r", "[]".to_owned()),
        (_, value) => (":r", edn(value)),
    };
    format!("[[{f} {} {value}]]", edn(&key))
}

fn plain(event: &Event, f: &str) -> String {
    let absent = event.value.is_null() && ["read", "write", "cas"].contains(&f);
    let value = if absent { "0".to_owned() } else { edn(&event.value) };
    match &event.key {
        Some(key) => format!("[{} {value}]", edn(&Value::String(key.clone()))),
        None => value,
    }
}

fn edn(value: &Value) -> String {
    match value {
        Value::Null => ":unknown".to_owned(),
        // EDN knows JSON's escapes in strings, and its numbers.
        Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(edn).collect::<Vec<_>>().join(" "))
        }
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| format!("{} {}", name(key), edn(value));
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
    }
}

/// A keyword, or a string where the name cannot be one.
fn name(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if name.starts_with(|first: char| first.is_ascii_alphabetic()) && name.bytes().all(plain) {
        format!(":{name}")
    } else {
        Value::String(name.to_owned()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use serde_json::json;

    use super::*;
    use crate::rng::Rng;
    use crate::sample::{Defect, Sample, register};

    fn lines(sample: &Sample) -> Vec<String> {
        let mut text = Vec::new();
        export(&sample.events, &mut text).expect("written");
        String::from_utf8(text).expect("text").lines().map(str::to_owned).collect()
    }

    #[test]
    fn registers_lists_and_faults_are_written_as_jepsen_does() {
        let mut sample = Sample::new();
        let read = sample.invoke("read", "u1", Value::Null);
        sample.ok(read, 0);
        let append = sample.invoke("append", "log", 7);
        sample.info(append);
        let read = sample.invoke("read", "log", Value::Null);
        sample.ok(read, json!([7]));
        sample.done("guess", "u\"2", json!({"verdict": "reject", "evaluated": null}));
        sample.nemesis("kill", "start", 1);
        let lines = lines(&sample);
        let tail = |at: usize| lines[at].split_once(":type ").expect("a type").1;
        assert_eq!(
            lines[0],
            r#"{:index 0, :time 0, :process 0, :type :invoke, :f :read, :value ["u1" 0]}"#
        );
        assert_eq!(tail(2), r#":invoke, :f :txn, :value [[:append "log" 7]]}"#);
        assert_eq!(tail(4), r#":invoke, :f :txn, :value [[:r "log" []]]}"#);
        assert_eq!(tail(5), r#":ok, :f :txn, :value [[:r "log" [7]]]}"#);
        let guess = r#":ok, :f :guess, :value ["u\"2" {:evaluated :unknown, :verdict "reject"}]}"#;
        assert_eq!(tail(7), guess);
        assert_eq!(tail(8), r#":info, :f :kill, :value {:stage "start"}}"#);
    }

    #[test]
    fn in_random_histories_operations_pair_up_processes_end_with_info_and_nothing_is_nil() {
        for seed in 0..200 {
            let mut sample = Sample::new();
            register(&mut sample, &mut Rng::new(seed), "u1", 50, true, Defect::None);
            let (mut open, mut ended) = (HashMap::new(), HashSet::new());
            for line in lines(&sample) {
                assert!(!line.contains("nil"), "{line}");
                let field = |name: &str| {
                    let rest = line.split_once(name).expect("the field").1;
                    rest.split([',', '}']).next().expect("a value").to_owned()
                };
                let (process, kind, f) = (field(":process "), field(":type "), field(":f "));
                assert!(!ended.contains(&process), "used again: {line}");
                match kind.as_str() {
                    ":invoke" => assert_eq!(open.insert(process, f), None, "{line}"),
                    other => {
                        assert_eq!(open.remove(&process), Some(f), "{line}");
                        if other == ":info" {
                            ended.insert(process);
                        }
                    }
                }
            }
            assert!(open.is_empty());
        }
    }
}

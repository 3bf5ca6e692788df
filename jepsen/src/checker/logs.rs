//! The logs of the nodes: a panic is an anomaly, and so is an error that no fault explains, whatever the
//! clients noticed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Anomaly, Excuse, Finding};
use crate::history::{Event, Process};

/// Parts of lines that no sound node writes, in lower case: how Rust and its allocator give up, and what the
/// product says when its nodes differ. That a store does not open is not for the logs to judge: only the run
/// knows whether it was damaged.
const ALARMS: [&str; 6] = [
    "panicked at",
    "overflowed its stack",
    "fatal runtime error",
    "memory allocation of",
    "the states of these nodes and this one differ",
    "state is not what the others hold",
];

/// An error, as the product writes it.
const ERROR: &str = "\"level\":\"ERROR\"";

/// Parts of errors that every fault may cause: nobody could decide, or this node is no member any more.
const EXPECTED: [&str; 3] =
    ["login not decided", "administration failed", "empty its data directory"];

/// How much of a line is shown.
const SHOWN_MAX: usize = 300;

/// Scans the files in `paths`, and all files called `*.log` below the directories there. Errors may be excused
/// where the log lies in a directory that is called after a node which the fault has hit; alarms never are.
pub fn check(events: &[Event], paths: &[PathBuf], excuses: &[Excuse]) -> Finding {
    let excuses = excuses.iter().map(|excuse| (hit(events, &excuse.faults), &*excuse.parts));
    let mut scan = Scan {
        excuses: excuses.collect(),
        files: 0,
        lines: 0,
        alarms: Vec::new(),
        unreadable: Vec::new(),
    };
    for path in paths {
        scan.visit(path);
    }
    let summary = format!("{} lines in {} files", scan.lines, scan.files);
    let finding = if scan.alarms.is_empty() && !scan.unreadable.is_empty() {
        Finding::unknown("logs", summary, scan.unreadable)
    } else {
        scan.alarms.extend(scan.unreadable);
        Finding::conclude("logs", scan.lines, summary, scan.alarms)
    };
    finding.figure("files", scan.files).figure("lines", scan.lines)
}

/// The nodes that one of `faults` has hit, as the nemesis says.
fn hit<'a>(events: &'a [Event], faults: &[String]) -> BTreeSet<&'a str> {
    let of_nemesis = |event: &&Event| matches!(event.process, Process::Nemesis(_));
    let hits = events.iter().filter(of_nemesis).filter(|event| faults.contains(&event.f));
    let named = hits.flat_map(|event| {
        let one = event.evidence.get("host").and_then(Value::as_str);
        let many = event.evidence.get("hosts").and_then(Value::as_array).into_iter().flatten();
        one.into_iter().chain(many.filter_map(Value::as_str))
    });
    named.collect()
}

struct Scan<'a> {
    /// Nodes, and parts of what they may say.
    excuses: Vec<(BTreeSet<&'a str>, &'a [String])>,
    files: usize,
    lines: usize,
    alarms: Vec<Anomaly>,
    unreadable: Vec<Anomaly>,
}

impl Scan<'_> {
    fn visit(&mut self, path: &Path) {
        let result = if path.is_dir() { self.directory(path) } else { self.file(path) };
        if let Err(error) = result {
            let what = format!("{}: {error}", path.display());
            self.unreadable.push(Anomaly { key: None, what, events: Vec::new() });
        }
    }

    fn directory(&mut self, path: &Path) -> io::Result<()> {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<_>>()?;
        entries.sort_unstable();
        for entry in entries {
            if entry.is_dir() || entry.extension().is_some_and(|extension| extension == "log") {
                self.visit(&entry);
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> io::Result<()> {
        self.files += 1;
        let is_of = |nodes: &BTreeSet<&str>| {
            path.iter().any(|part| part.to_str().is_some_and(|part| nodes.contains(part)))
        };
        let excused: Vec<&str> = (self.excuses.iter().filter(|(nodes, _)| is_of(nodes)))
            .flat_map(|(_, parts)| parts.iter().map(String::as_str))
            .collect();
        // A node that is killed may end within a character.
        for (number, line) in BufReader::new(File::open(path)?).split(b'\n').enumerate() {
            let line = String::from_utf8_lossy(&line?).into_owned();
            self.lines += 1;
            let folded = line.to_lowercase();
            let is_explained = || EXPECTED.iter().chain(&excused).any(|part| line.contains(part));
            let is_alarm = ALARMS.iter().any(|alarm| folded.contains(alarm));
            if is_alarm || (line.contains(ERROR) && !is_explained()) {
                let shown: String = line.chars().take(SHOWN_MAX).collect();
                let what = format!("{}:{}: {shown}", path.display(), number + 1);
                self.alarms.push(Anomaly { key: None, what, events: Vec::new() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checker::Validity;
    use crate::history::{Kind, NEMESIS};

    /// The finding on a directory with one log.
    fn finding(name: &str, text: &str, excused: &[&str]) -> Finding {
        let dir = std::env::temp_dir().join(format!("jepsen-{name}-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("n1")).expect("a directory");
        std::fs::write(dir.join("n1/start.log"), text).expect("written");
        std::fs::write(dir.join("n1/store"), "panicked at").expect("written");
        let hit = |host: &str| Event {
            evidence: json!({ "host": host }),
            ..Event::new(NEMESIS, Kind::Info, "disk-full")
        };
        let excuses = [Excuse::new(&["disk-full"], excused)];
        let finding = check(&[hit("n1")], std::slice::from_ref(&dir), &excuses);
        let other = check(&[hit("n2")], std::slice::from_ref(&dir), &excuses);
        assert!(other.validity >= finding.validity, "what hits another node excuses nothing");
        std::fs::remove_dir_all(&dir).expect("removed");
        finding
    }

    #[test]
    fn a_panic_is_found_with_its_line_and_so_is_an_error_unless_it_was_expected() {
        let text = "started\nthread 'main' panicked at src/a.rs:1:2:\n";
        let found = finding("panic", text, &[]);
        assert_eq!(found.validity, Validity::Invalid);
        assert!(found.anomalies[0].what.contains("n1/start.log:2: thread 'main'"), "{found:?}");
        assert_eq!(finding("alarm", text, &["src/a.rs"]).validity, Validity::Invalid);
        assert_eq!(finding("quiet", "started\nstopped\n", &[]).validity, Validity::Valid);
        let error = |message: &str| format!("{{\"level\":\"ERROR\",\"message\":\"{message}\"}}\n");
        assert_eq!(finding("error", &error("it is wrong"), &[]).validity, Validity::Invalid);
        assert_eq!(
            finding("excused", &error("it is wrong"), &["is wrong"]).validity,
            Validity::Valid
        );
        assert_eq!(finding("fault", &error("login not decided"), &[]).validity, Validity::Valid);
    }

    #[test]
    fn a_log_that_cannot_be_read_leaves_it_open() {
        let found = check(&[], &[PathBuf::from("/nonexistent/log")], &[]);
        assert_eq!(found.validity, Validity::Unknown);
    }
}

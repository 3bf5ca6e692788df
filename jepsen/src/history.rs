//! What happened in a run: one event per line, in Jepsen's shape.
//!
//! Each operation is an invocation and, later, a completion of the same process. `ok` took effect,
//! `fail` did not, `info` may have, now or later. After `info` the process is never used again:
//! whoever goes on takes a new number. Times come from the runner's monotonic clock, because the
//! clients live there and the nodes' clocks are among what is broken.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Who acts: a client by its number, or the nemesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Process {
    /// A client that has one operation open at a time.
    Client(u64),
    /// Whoever breaks things.
    Nemesis(NemesisName),
}

/// How the nemesis is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NemesisName {
    /// The only one.
    Nemesis,
}

/// The history in the directory of a run.
pub const HISTORY: &str = "history.jsonl";

/// The nemesis as a process.
pub const NEMESIS: Process = Process::Nemesis(NemesisName::Nemesis);

/// What an event says of its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It begins.
    Invoke,
    /// It took effect.
    Ok,
    /// It certainly did not take effect.
    Fail,
    /// It may have taken effect, or may yet. What the nemesis does is `info`, too.
    Info,
}

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Position in the history, from 0.
    #[serde(rename = "i")]
    pub index: u64,
    /// Nanoseconds since the run began.
    #[serde(rename = "t")]
    pub time: u64,
    /// Who.
    #[serde(rename = "p")]
    pub process: Process,
    /// What is said of it.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The operation: `read`, `write`, `consume`, `partition`.
    pub f: String,
    /// What it is on: a user, a setting. Histories are checked key by key.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Argument and, in completions, result. Absent is [`Value::Null`].
    #[serde(rename = "v", default, skip_serializing_if = "Value::is_null")]
    pub value: Value,
    /// The node that was asked, as `n1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// By which interface: `radius`, `cli`, `metrics`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Why it failed, or is not known.
    #[serde(rename = "err", default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What shows that a fault acted: counters, states, exit codes.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub evidence: Value,
}

impl Event {
    /// An event of `process`; the recorder gives it index and time.
    pub fn new(process: Process, kind: Kind, f: &str) -> Self {
        Self {
            index: 0,
            time: 0,
            process,
            kind,
            f: f.to_owned(),
            key: None,
            value: Value::Null,
            node: None,
            via: None,
            error: None,
            evidence: Value::Null,
        }
    }

    /// The completion of this invocation, with the same process, operation, key, value and node.
    #[must_use]
    pub fn completed(&self, kind: Kind) -> Self {
        Self { kind, ..self.clone() }
    }
}

/// Writes a history while it happens. Threads share it.
pub struct Recorder {
    begun: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    file: BufWriter<File>,
    events: Vec<Event>,
    next_process: u64,
    /// The first failure to write; reported at the end, because a history with a hole proves nothing.
    failed: Option<io::Error>,
}

impl Recorder {
    /// A recorder that writes to a new file at `path`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = BufWriter::new(File::create_new(path)?);
        let inner = Inner { file, events: Vec::new(), next_process: 0, failed: None };
        Ok(Self { begun: Instant::now(), inner: Mutex::new(inner) })
    }

    /// A process that nobody has used.
    pub fn new_process(&self) -> Process {
        let mut inner = self.inner();
        let process = Process::Client(inner.next_process);
        inner.next_process += 1;
        process
    }

    /// Adds `event` with the next index and the time now, and gives it back.
    pub fn record(&self, mut event: Event) -> Event {
        let mut inner = self.inner();
        // Under the lock, so that times are in the order of indexes.
        event.time = self.elapsed();
        event.index = inner.events.len() as u64;
        let written = serde_json::to_writer(&mut inner.file, &event)
            .map_err(io::Error::from)
            .and_then(|()| inner.file.write_all(b"\n"));
        if let Err(error) = written {
            inner.failed.get_or_insert(error);
        }
        inner.events.push(event.clone());
        event
    }

    /// How many events there are by now.
    pub fn len(&self) -> usize {
        self.inner().events.len()
    }

    /// Whether there is none yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nanoseconds since the run began.
    pub fn elapsed(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Ends the recording.
    ///
    /// # Errors
    /// When a line could not be written, now or before.
    pub fn finish(self) -> io::Result<Vec<Event>> {
        let mut inner = self.inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        inner.file.flush()?;
        inner.failed.map_or(Ok(inner.events), Err)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a history back.
///
/// # Errors
/// When the file cannot be read, or a line is no event, with its number.
pub fn read(path: &Path) -> io::Result<Vec<Event>> {
    BufReader::new(File::open(path)?)
        .lines()
        .enumerate()
        .map(|(number, line)| {
            serde_json::from_str(&line?).map_err(|error| {
                let text = format!("{}: line {}: {error}", path.display(), number + 1);
                io::Error::new(io::ErrorKind::InvalidData, text)
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_written_in_jepsens_shape_and_read_back() {
        let dir = std::env::temp_dir().join(format!("jepsen-history-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join("history.jsonl");
        let recorder = Recorder::create(&path).expect("made");
        let process = recorder.new_process();
        let mut invoke = Event::new(process, Kind::Invoke, "write");
        invoke.key = Some("u17".to_owned());
        invoke.value = json!(41);
        let invoke = recorder.record(invoke);
        recorder.record(invoke.completed(Kind::Ok));
        recorder.record(Event::new(NEMESIS, Kind::Info, "heal"));
        let events = recorder.finish().expect("written");
        let text = std::fs::read_to_string(&path).expect("text");
        let first = text.lines().next().expect("a line");
        assert!(first.starts_with(r#"{"i":0,"t":"#), "{first}");
        assert!(
            first.ends_with(r#""p":0,"type":"invoke","f":"write","k":"u17","v":41}"#),
            "{first}"
        );
        assert!(text.contains(r#""p":"nemesis""#));
        assert_eq!(read(&path).expect("read"), events);
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}

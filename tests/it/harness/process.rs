//! A child process whose output can be waited for, and which never outlives its test.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before the test gives up on it. No test takes nearly as long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A running child. Dropped: killed.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines,
    stderr: Lines,
}

/// The lines of one stream, as far as they have come.
#[derive(Clone)]
struct Lines {
    read: Arc<(Mutex<Text>, Condvar)>,
}

#[derive(Default)]
struct Text {
    lines: Vec<String>,
    ended: bool,
}

impl Process {
    /// Starts `command` with all of its streams in the test's hands.
    pub(crate) fn spawn(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let stdout = Lines::read(child.stdout.take().expect("piped"));
        let stderr = Lines::read(child.stderr.take().expect("piped"));
        Self { name: name.to_owned(), stdin: child.stdin.take(), child, stdout, stderr }
    }

    /// Writes to standard input. A child that has stopped reading is no failure of the writer.
    pub(crate) fn write(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        _ = stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush());
    }

    /// Ends standard input.
    pub(crate) fn end_input(&mut self) {
        self.stdin = None;
    }

    /// Waits for a line of standard output in which `find` finds something.
    pub(crate) fn wait_for_output<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        self.wait_in(&self.stdout, what, find)
    }

    /// Waits for a line of standard error in which `find` finds something.
    pub(crate) fn wait_for_error<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        self.wait_in(&self.stderr, what, find)
    }

    fn wait_in<T>(&self, lines: &Lines, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let found = lines.wait(|text| text.lines.iter().find_map(|line| find(line)));
        found.unwrap_or_else(|| panic!("{} never says {what}; it said:\n{self}", self.name))
    }

    /// All of standard output so far.
    pub(crate) fn output(&self) -> String {
        self.stdout.text()
    }

    /// All of standard error so far.
    pub(crate) fn errors(&self) -> String {
        self.stderr.text()
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().expect("sh runs");
        assert!(sent.success(), "{} cannot be signalled", self.name);
    }

    /// Lets no file of the process grow beyond 64 KiB from now on: every write behind that fails.
    pub(crate) fn limit_files(&self) {
        let id = self.child.id().to_string();
        let limited = Command::new("prlimit").args(["--pid", &id, "--fsize=65536"]).status();
        assert!(limited.expect("prlimit runs").success(), "{} cannot be limited", self.name);
    }

    /// Kills without warning, as a power cut or the kernel would.
    pub(crate) fn kill(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }

    /// Waits for the end and for all output before it.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        for lines in [&self.stdout, &self.stderr] {
            let ended = lines.wait(|text| text.ended.then_some(()));
            assert!(ended.is_some(), "{} does not end; it said:\n{self}", self.name);
        }
        // A child that has closed both streams is about to end.
        self.child.wait().expect("the child is ours")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("{} said:\n{self}", self.name);
        }
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (stream, lines) in [("output", &self.stdout), ("errors", &self.stderr)] {
            writeln!(f, "--- {stream}\n{}", lines.text())?;
        }
        Ok(())
    }
}

impl Lines {
    /// Reads `stream` to its end in a thread, so that the child never waits for the test.
    fn read(stream: impl Read + Send + 'static) -> Self {
        let lines = Self { read: Arc::default() };
        let read = lines.read.clone();
        thread::spawn(move || {
            let (text, changed) = &*read;
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                text.lock().expect("no reader panics").lines.push(line);
                changed.notify_all();
            }
            text.lock().expect("no reader panics").ended = true;
            changed.notify_all();
        });
        lines
    }

    /// Waits until `find` finds something, the stream ends or the time is up.
    fn wait<T>(&self, find: impl Fn(&Text) -> Option<T>) -> Option<T> {
        let (text, changed) = &*self.read;
        let begun = Instant::now();
        let mut text = text.lock().expect("no reader panics");
        loop {
            if let Some(found) = find(&text) {
                return Some(found);
            }
            let left = DEADLINE.checked_sub(begun.elapsed()).filter(|_| !text.ended)?;
            text = changed.wait_timeout(text, left).expect("no reader panics").0;
        }
    }

    fn text(&self) -> String {
        self.read.0.lock().expect("no reader panics").lines.join("\n")
    }
}

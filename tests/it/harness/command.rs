//! Commands that run to their end, and what they leave behind.

use std::process::Command;

use serde_json::Value;

use super::Process;

/// How a command ended.
pub(crate) struct Outcome {
    command: String,
    /// Its exit status; `None` when a signal ended it.
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program under test.
pub(crate) fn watchword() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchword"));
    command.env_remove("WATCHWORD_CONFIG");
    command
}

/// Runs `command` to its end with `input`.
pub(crate) fn run(command: &mut Command, input: &str) -> Outcome {
    let name = format!("{command:?}");
    let mut process = Process::spawn(&name, command);
    process.write(input);
    process.end_input();
    Outcome::of(&name, &mut process)
}

impl Outcome {
    /// Waits for the end of `process`.
    pub(crate) fn of(name: &str, process: &mut Process) -> Self {
        let status = process.wait().code();
        let (stdout, stderr) = (process.output(), process.errors());
        Self { command: name.to_owned(), status, stdout, stderr }
    }

    /// It did what it was told; yields standard output.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!(self.status, Some(0), "{self}");
        self.stdout
    }

    /// It did what it was told and answered in JSON.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let text = self.done();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// It refused or failed, with one line on standard error; yields that line.
    #[track_caller]
    pub(crate) fn refused(self) -> String {
        assert_eq!(self.status, Some(1), "{self}");
        assert_eq!(self.stderr.lines().count(), 1, "one line says why: {self}");
        self.stderr
    }

    /// It was used wrongly; yields standard error.
    #[track_caller]
    pub(crate) fn misused(self) -> String {
        assert_eq!(self.status, Some(2), "{self}");
        self.stderr
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { command, status, stdout, stderr } = self;
        writeln!(f, "{command} ended with {status:?}\n--- output\n{stdout}\n--- errors\n{stderr}")
    }
}

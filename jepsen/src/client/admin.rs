//! The command line of the product: each call is one process, as a script would start it.
//!
//! The outcome table is here and nowhere else. A command that could not reach its node, or that the
//! state machine refused, certainly changed nothing: `fail`. One that was not answered in time, or
//! was answered by "unknown", may have: `info`. That holds for every other failure of a change, too,
//! because a change is followed by a read of what it made, and the message does not tell which of
//! the two failed. A read that failed is `fail`: it changes nothing.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::history::Kind;
use crate::wait;

/// How long a command is waited for before its outcome is unknown.
const PATIENCE: Duration = Duration::from_secs(8);

/// Starts of messages that say that nothing was proposed.
const UNDONE: [&str; 3] = [
    "watchword: cannot reach the node",
    "watchword: too many proposals are in flight",
    "watchword: there is no ",
];

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
    /// Its exit status; none when it was not waited for any longer, or died of a signal.
    pub status: Option<i32>,
}

impl Answer {
    /// What a change came to.
    pub fn change(&self) -> Kind {
        match self.status {
            Some(0) => Kind::Ok,
            // Usage is checked before anything is sent.
            Some(2) => Kind::Fail,
            Some(_) if UNDONE.iter().any(|start| self.stderr.starts_with(start)) => Kind::Fail,
            Some(_) | None => Kind::Info,
        }
    }

    /// What a read came to.
    pub fn read(&self) -> Kind {
        if self.status == Some(0) { Kind::Ok } else { Kind::Fail }
    }

    /// Why it is not `ok`.
    pub fn error(&self) -> Option<String> {
        match self.status {
            Some(0) => None,
            Some(_) => Some(self.stderr.trim().to_owned()),
            None => Some("no answer in time".to_owned()),
        }
    }

    /// What it printed, as JSON.
    ///
    /// # Errors
    /// When it failed, or printed something else.
    pub fn json(&self) -> Result<Value> {
        if let Some(error) = self.error() {
            bail!("{error}");
        }
        serde_json::from_str(&self.stdout).with_context(|| format!("no JSON: {}", self.stdout))
    }
}

/// The command line for one node.
#[derive(Clone, Debug)]
pub struct Admin {
    program: PathBuf,
    config: PathBuf,
}

impl Admin {
    /// Commands of `program` for the node whose file is `config`.
    pub fn new(program: &Path, config: &Path) -> Self {
        Self { program: program.to_owned(), config: config.to_owned() }
    }

    /// Runs a command to its end, or until its time is up.
    ///
    /// # Errors
    /// When it cannot even be started: that is the harness's trouble, no outcome.
    pub fn run(&self, arguments: &[&str]) -> Result<Answer> {
        self.run_for(arguments, "", PATIENCE)
    }

    /// The same, and what it prints is JSON.
    ///
    /// # Errors
    /// When it fails.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let answer = self.run(&[arguments, &["--format", "json"]].concat())?;
        answer.json().with_context(|| arguments.join(" "))
    }

    /// Runs a command with standard input and a time of its own.
    ///
    /// # Errors
    /// As [`Admin::run`].
    pub fn run_for(&self, arguments: &[&str], input: &str, patience: Duration) -> Result<Answer> {
        // Files, not pipes: nobody has to empty them for the command to go on.
        let (mut stdin, mut stdout, mut stderr) = (scratch()?, scratch()?, scratch()?);
        stdin.write_all(input.as_bytes())?;
        stdin.seek(SeekFrom::Start(0))?;
        let mut child = Command::new(&self.program)
            .args(arguments)
            .arg("--config")
            .arg(&self.config)
            .env_remove("WATCHWORD_CONFIG")
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::from(stdout.try_clone()?))
            .stderr(Stdio::from(stderr.try_clone()?))
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let status = wait(&mut child, patience)?;
        Ok(Answer { stdout: content(&mut stdout)?, stderr: content(&mut stderr)?, status })
    }
}

/// The exit status, or none when the command had to be killed.
fn wait(child: &mut Child, patience: Duration) -> Result<Option<i32>> {
    if !wait::for_exit(child, patience)? {
        child.kill()?;
    }
    // A signal, ours among them, leaves no status.
    Ok(child.wait()?.code())
}

/// A file without a name.
fn scratch() -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    const O_TMPFILE: i32 = 0o20_200_000;
    File::options()
        .read(true)
        .write(true)
        .custom_flags(O_TMPFILE)
        .mode(0o600)
        .open(std::env::temp_dir())
        .context("no scratch file")
}

fn content(file: &mut File) -> Result<String> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: Option<i32>, stderr: &str) -> Answer {
        Answer { stdout: String::new(), stderr: stderr.to_owned(), status }
    }

    #[test]
    fn only_what_provably_did_not_happen_is_a_failed_change() {
        let change = |status, stderr| answer(status, stderr).change();
        assert_eq!(change(Some(0), ""), Kind::Ok);
        assert_eq!(change(Some(2), "error: unexpected argument"), Kind::Fail);
        assert_eq!(change(Some(1), "watchword: cannot reach the node at /x (is it"), Kind::Fail);
        assert_eq!(change(Some(1), "watchword: there is no user \"jo\""), Kind::Fail);
        assert_eq!(
            change(Some(1), "watchword: the outcome of the proposal is unknown"),
            Kind::Info
        );
        // The change may have been made, and the read after it failed.
        let unclear = "watchword: the leader of the cluster cannot be reached";
        assert_eq!(change(Some(1), unclear), Kind::Info);
        assert_eq!(change(None, ""), Kind::Info);
    }

    #[test]
    fn a_read_that_failed_is_failed() {
        assert_eq!(answer(None, "").read(), Kind::Fail);
        assert_eq!(answer(Some(1), "watchword: a quorum of the").read(), Kind::Fail);
    }

    #[test]
    fn a_command_that_hangs_is_ended_and_its_outcome_unknown() {
        let admin = Admin::new(Path::new("/bin/sh"), Path::new("ignored"));
        let hanging =
            admin.run_for(&["-c", "echo begun; exec sleep 1000"], "", Duration::from_millis(200));
        let hanging = hanging.expect("started");
        assert_eq!((hanging.status, &*hanging.stdout), (None, "begun\n"));
        let reading = admin.run_for(&["-c", "cat >&2; exit 1"], "input", PATIENCE);
        assert_eq!(reading.expect("started"), answer(Some(1), "input"));
    }
}

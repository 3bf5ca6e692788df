//! System calls of a running process that fail, wait or kill, by strace's fault injection.
//!
//! The traced process is slower in all it does; that is part of the fault.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// How long strace may take to attach to all threads, or to let them go.
const ATTACHING: Duration = Duration::from_secs(10);

/// What happens to system calls, for all threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injection {
    /// Syncing a file fails with EIO, as on a broken disk.
    SyncFails,
    /// Writing to a file fails with ENOSPC, as on a full disk.
    WriteFindsNoRoom,
    /// Syncing a file takes so much longer.
    SyncIsSlow(Duration),
    /// The process is killed when a thread writes to a file for the `nth` time from now, from 1.
    WriteKills {
        /// Which write.
        nth: u32,
    },
}

impl Injection {
    /// The system calls, and what strace is told to do with them.
    fn rule(self) -> (&'static str, String) {
        // All that a store may sync with: a store that changes its mind must not escape.
        let syncs = "fdatasync,fsync,sync_file_range";
        // Those at a position, which stores use and sockets and logs do not.
        let writes = "pwrite64,pwritev,pwritev2";
        match self {
            Self::SyncFails => (syncs, "error=EIO".to_owned()),
            Self::WriteFindsNoRoom => (writes, "error=ENOSPC".to_owned()),
            Self::SyncIsSlow(delay) => (syncs, format!("delay_enter={}", delay.as_micros())),
            Self::WriteKills { nth } => (writes, format!("signal=KILL:when={nth}")),
        }
    }
}

/// An injection at work. It ends when this is dropped.
#[derive(Debug)]
pub struct Trace {
    strace: Child,
    output: PathBuf,
}

impl Trace {
    /// Begins to inject into all threads of the process `pid`; what was injected is written to
    /// `output`.
    ///
    /// # Errors
    /// When strace cannot attach.
    pub fn start(pid: u32, injection: Injection, output: &Path) -> Result<Self> {
        let (calls, action) = injection.rule();
        File::create(output).with_context(|| format!("making {}", output.display()))?;
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-p", &pid.to_string(), "-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:{action}")])
            .arg("-o")
            .arg(output)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting strace")?;
        let mut trace = Self { strace, output: output.to_owned() };
        let tracer = trace.strace.id();
        let mut ended = false;
        let attached = wait::holds(ATTACHING, || {
            ended = !matches!(trace.strace.try_wait(), Ok(None));
            ended || is_traced(pid, tracer)
        });
        // One that was killed by its first write is gone as fast as its tracer.
        if (ended || !attached) && trace.injected()? == 0 {
            bail!("strace did not attach to process {pid}");
        }
        Ok(trace)
    }

    /// How many calls were injected into so far.
    ///
    /// # Errors
    /// When the output cannot be read.
    pub fn injected(&self) -> Result<u64> {
        let text =
            fs::read(&self.output).with_context(|| format!("reading {}", self.output.display()))?;
        Ok(count(&String::from_utf8_lossy(&text)))
    }

    /// Lets the process go on as it was, and tells how many calls were injected into.
    ///
    /// # Errors
    /// When strace does not let go.
    pub fn stop(mut self) -> Result<u64> {
        self.detach()?;
        self.injected()
    }

    fn detach(&mut self) -> Result<()> {
        if self.strace.try_wait().context("strace")?.is_none() {
            // strace detaches from what it traces before it ends by this signal.
            kill_process(Pid::from_child(&self.strace), Signal::INT).context("ending strace")?;
            if !wait::holds(ATTACHING, || !matches!(self.strace.try_wait(), Ok(None))) {
                // It waits for a thread that does not stop, such as one that forks; the kernel lets
                // all of them go when the tracer is gone.
                self.strace.kill().context("killing strace")?;
                self.strace.wait().context("waiting for strace")?;
            }
        }
        Ok(())
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // Nobody is left who could be told.
        let _ = self.detach();
    }
}

/// Whether all threads of `pid` are traced by `tracer`.
fn is_traced(pid: u32, tracer: u32) -> bool {
    let line = format!("TracerPid:\t{tracer}\n");
    let traced = |thread: fs::DirEntry| {
        fs::read_to_string(thread.path().join("status")).is_ok_and(|status| status.contains(&line))
    };
    fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.flatten().all(traced))
}

/// Counts injected calls in what strace wrote.
fn count(output: &str) -> u64 {
    let marks = ["(INJECTED)", "(DELAYED)"];
    // Each thread of a killed process has a line of its own; one is the process.
    let killed = output.contains("+++ killed by SIGKILL +++") && !output.contains("(INJECTED)");
    let lines = output.lines().filter(|line| marks.iter().any(|mark| line.contains(mark)));
    lines.count() as u64 + u64::from(killed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn injected_calls_are_counted_and_others_are_not() {
        let output = "\
12 fdatasync(7) = -1 EIO (Input/output error) (INJECTED)
13 fdatasync(8 <unfinished ...>
12 fdatasync(7) = 0
13 <... fdatasync resumed>) = -1 EIO (Input/output error) (INJECTED)
13 fdatasync(8) = 0 (DELAYED)
";
        assert_eq!(count(output), 3);
        assert_eq!(count("12 pwrite64(3, \"\", 1, 0) = ?\n12 +++ killed by SIGKILL +++\n"), 1);
        assert_eq!(count("12 write(3, \"\", 1) = 1\n12 +++ exited with 0 +++\n"), 0);
    }
}

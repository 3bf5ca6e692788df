//! A program that runs on a host: started, paused, ended, reaped; always by its own process id.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// How long the kernel may take to stop or continue all threads of a process.
const STOPPING: Duration = Duration::from_secs(10);

/// A running program. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `command`; what it prints is added to the file `log`.
    ///
    /// # Errors
    /// When the program or the file cannot be opened.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening {}", log.display()))?;
        let err = out.try_clone().context("sharing the log")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        Ok(Self { child })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs; a paused one does.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(self.ended()?.is_none())
    }

    /// How it has ended; none while it runs.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("asking for the exit status")
    }

    /// Waits until it has ended, at most for `limit`; none if it still runs.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        // Until it is reaped, its id is its own.
        if self.is_alive()? {
            wait::for_exit(&self.child, limit).context("watching the process")?;
        }
        self.ended()
    }

    /// Kills it, and waits until it is gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill().context("killing")?;
        let status = self.child.wait().context("reaping")?;
        forget_shared_memory(self.child.id());
        Ok(status)
    }

    /// Asks it to end (SIGTERM), and waits for that, at most for `limit`; none if it still runs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn terminate(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        if self.is_alive()? {
            kill_process(Pid::from_child(&self.child), Signal::TERM).context("SIGTERM")?;
        }
        self.wait(limit)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody is left who could be told.
        let _ = self.kill();
    }
}

/// Removes what libfaketime keeps for a process that had no time to do so: it would refuse to start
/// in the next process of the same id.
fn forget_shared_memory(pid: u32) {
    for name in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
        // Not there, unless the process went by a host's clock.
        let _ = fs::remove_file(Path::new("/dev/shm").join(name));
    }
}

/// Pauses a process (SIGSTOP) and returns when all its threads stand still.
///
/// # Errors
/// When there is no such process, or it does not stop.
pub fn pause(pid: u32) -> Result<()> {
    kill_process(id(pid)?, Signal::STOP).with_context(|| format!("SIGSTOP to {pid}"))?;
    let stopped = || states(pid).is_some_and(|states| states.iter().all(|state| *state == 'T'));
    ensure!(wait::holds(STOPPING, stopped), "process {pid} did not stop: {:?}", states(pid));
    Ok(())
}

/// Stops a process (SIGSTOP) such that none of its threads gets back to its own code, and lets
/// system calls that are under way go on: what is about to happen to a process hits them, and
/// nobody hears of it.
///
/// # Errors
/// When it does not stop.
pub fn halt(pid: u32) -> Result<()> {
    match kill_process(id(pid)?, Signal::STOP) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => return Err(error).with_context(|| format!("SIGSTOP to {pid}")),
    }
    // A thread that sleeps uninterruptibly in the kernel stops on its way out of it, and one whose calls are
    // traced stops for the tracer. Who has just ended does nothing either.
    let halted =
        || states(pid).is_none_or(|states| states.iter().all(|state| "TDtZ".contains(*state)));
    ensure!(wait::holds(STOPPING, halted), "process {pid} did not stop: {:?}", states(pid));
    Ok(())
}

/// Lets a paused process go on, and returns when it does.
///
/// # Errors
/// When there is no such process, or it does not go on.
pub fn resume(pid: u32) -> Result<()> {
    kill_process(id(pid)?, Signal::CONT).with_context(|| format!("SIGCONT to {pid}"))?;
    let goes_on = || states(pid).is_some_and(|states| !states.contains(&'T'));
    ensure!(wait::holds(STOPPING, goes_on), "process {pid} did not go on: {:?}", states(pid));
    Ok(())
}

/// The state of each thread of a process as `/proc` says it: `R`, `S`, `D`, `T`, `Z`. None when
/// there is no such process.
pub fn states(pid: u32) -> Option<Vec<char>> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    // A thread may end between the two reads.
    let state = |thread: fs::DirEntry| {
        let stat = fs::read_to_string(thread.path().join("stat")).ok()?;
        // The name, in parentheses, may hold anything; the state is the first word behind it.
        stat.rsplit_once(") ")?.1.chars().next()
    };
    Some(threads.flatten().filter_map(state).collect())
}

fn id(pid: u32) -> Result<Pid> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.context("not a process id")
}

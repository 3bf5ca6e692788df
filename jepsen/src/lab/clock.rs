//! Each host's wall clock, set wrong by libfaketime while the programs run.
//!
//! Only the wall clock: libfaketime fakes the monotonic clock by default, and a Rust program that
//! waits for a real instant on a faked clock waits for ever. The machine's own clock is never
//! touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

/// The library in its variant for programs with threads, if it is installed.
pub(super) fn library() -> Option<PathBuf> {
    let library = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.ok()?.path().join("faketime/libfaketimeMT.so.1");
        path.exists().then_some(path)
    };
    // One directory below /usr/lib for each architecture.
    fs::read_dir("/usr/lib").ok()?.find_map(library)
}

/// The wall clock of one host.
#[derive(Clone, Debug)]
pub struct Clock {
    file: PathBuf,
    library: PathBuf,
}

impl Clock {
    /// A clock that is right, kept in `file`.
    pub(super) fn new(file: PathBuf) -> Result<Self> {
        let library = library().context("libfaketimeMT.so.1 is missing")?;
        let clock = Self { file, library };
        clock.set(0.0)?;
        Ok(clock)
    }

    /// What a dynamically linked program must have in its environment to go by this clock.
    pub fn environment(&self) -> [(&'static str, &Path); 4] {
        [
            ("LD_PRELOAD", &self.library),
            ("FAKETIME_TIMESTAMP_FILE", &self.file),
            ("FAKETIME_NO_CACHE", Path::new("1")),
            ("FAKETIME_DONT_FAKE_MONOTONIC", Path::new("1")),
        ]
    }

    /// Sets the clock `seconds` ahead of the true time, or behind it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&self, seconds: f64) -> Result<()> {
        // Replaced as a whole: a program may read it at any moment.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{seconds:+.6}\n"))
            .and_then(|()| fs::rename(&new, &self.file))
            .with_context(|| format!("setting the clock {}", self.file.display()))
    }

    /// Sets the clock `seconds` off and right again, in turn, each for `period`.
    pub fn strobe(&self, seconds: f64, period: Duration) -> Strobe {
        let (stop, stopped) = channel();
        let flips = Arc::new(AtomicU64::new(0));
        let (clock, count) = (self.clone(), Arc::clone(&flips));
        let thread = thread::spawn(move || {
            let mut off = false;
            let result = loop {
                off = !off;
                if let Err(error) = clock.set(if off { seconds } else { 0.0 }) {
                    break Err(error);
                }
                count.fetch_add(1, Ordering::Relaxed);
                if stopped.recv_timeout(period) != Err(RecvTimeoutError::Timeout) {
                    break Ok(());
                }
            };
            result.and(clock.set(0.0))
        });
        Strobe { stop, thread, flips }
    }
}

/// A clock that is being set off and right again.
#[derive(Debug)]
pub struct Strobe {
    stop: Sender<()>,
    thread: JoinHandle<Result<()>>,
    flips: Arc<AtomicU64>,
}

impl Strobe {
    /// How often the clock was set so far.
    pub fn flips(&self) -> u64 {
        self.flips.load(Ordering::Relaxed)
    }

    /// Leaves the clock right, and tells how often it was set.
    ///
    /// # Errors
    /// When it could not be set.
    pub fn stop(self) -> Result<u64> {
        // The thread has ended by itself when nobody receives; its result says why.
        drop(self.stop);
        match self.thread.join() {
            Ok(result) => result?,
            Err(_) => anyhow::bail!("the thread that set the clock panicked"),
        }
        Ok(self.flips.load(Ordering::Relaxed))
    }
}

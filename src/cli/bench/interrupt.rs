//! Ctrl-C and SIGTERM: the run ends early, and what was used is still written down.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::BenchError;

/// Whether somebody wants the run to end. Cheap to clone and to ask.
#[derive(Clone, Default)]
pub(super) struct Interrupt(Arc<Inner>);

#[derive(Default)]
struct Inner {
    is_raised: AtomicBool,
    mutex: Mutex<()>,
    changed: Condvar,
}

impl Interrupt {
    /// An interrupt that the signals raise.
    ///
    /// # Errors
    /// When the thread that waits for them cannot be started.
    pub(super) fn on_signals() -> Result<Self, BenchError> {
        let interrupt = Self::default();
        let raised = interrupt.clone();
        // A thread of its own, since the generator's threads are blocked in their sockets; it ends
        // with the process.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(BenchError::Thread)?;
        let wait = move || runtime.block_on(wait_for_signal(&raised));
        std::thread::Builder::new()
            .name("bench-signals".to_owned())
            .spawn(wait)
            .map_err(BenchError::Thread)?;
        Ok(interrupt)
    }

    /// Ends whatever asks for it.
    pub(super) fn raise(&self) {
        let _guard = self.0.mutex.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.is_raised.store(true, Ordering::Relaxed);
        self.0.changed.notify_all();
    }

    /// Whether it was raised.
    pub(super) fn is_raised(&self) -> bool {
        self.0.is_raised.load(Ordering::Relaxed)
    }

    /// Waits for `time`, or until it is raised.
    pub(super) fn wait(&self, time: Duration) {
        let guard = self.0.mutex.lock().unwrap_or_else(PoisonError::into_inner);
        // What it yields is the lock, which nobody needs.
        drop(self.0.changed.wait_timeout_while(guard, time, |()| !self.is_raised()));
    }
}

async fn wait_for_signal(interrupt: &Interrupt) {
    // Without a handler the signal ends the process, as it would have without us.
    let (Ok(mut int), Ok(mut term)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
    interrupt.raise();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raised_interrupt_ends_every_wait() {
        let interrupt = Interrupt::default();
        let other = interrupt.clone();
        let waiter = std::thread::spawn(move || other.wait(Duration::from_secs(3_600)));
        interrupt.raise();
        waiter.join().expect("ended");
        assert!(interrupt.is_raised());
    }
}

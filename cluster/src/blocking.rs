//! Work that keeps a core busy, away from the threads that serve.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures::future::Either;
use openraft::type_config::TypeConfigExt;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::contain::message;
use crate::runtime::TypeConfig;

/// What work takes on a runtime of one thread, by that runtime's clock.
const ALONE: Duration = Duration::from_millis(5);

/// Runs `work` on a blocking thread, begun when this returns.
///
/// A runtime of one thread runs it at once, and tells of it later: a simulation's outcome must not depend
/// on when a real thread gets its turn, and others must get theirs before the work is done.
///
/// # Errors
/// When `work` panics, or the runtime ends.
pub fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = io::Result<T>> + Send {
    let alone = Handle::try_current()
        .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::CurrentThread);
    if alone {
        let done = catch_unwind(AssertUnwindSafe(work));
        let done = done.map_err(|payload| io::Error::other(message(payload.as_ref())));
        Either::Left(async move {
            TypeConfig::sleep(ALONE).await;
            done
        })
    } else {
        Either::Right(TypeConfig::spawn_blocking(work))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check() {
        assert_eq!(off_thread(|| 7).await.expect("done"), 7);
        assert!(off_thread(|| panic!("no")).await.is_err());
    }

    #[tokio::test]
    async fn one_thread_does_it_at_once() {
        check().await;
        let here = std::thread::current().id();
        assert_eq!(off_thread(|| std::thread::current().id()).await.expect("done"), here);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn several_threads_are_spared() {
        check().await;
        let here = std::thread::current().id();
        assert_ne!(off_thread(|| std::thread::current().id()).await.expect("done"), here);
    }
}

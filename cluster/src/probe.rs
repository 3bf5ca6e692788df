//! Places at which a test may look at, or break, the writing of a group. Nothing in the product.

pub(crate) use imp::Probe;

/// What has just been done to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// The sidecar was lowered for a truncation.
    Lowered,
    /// The records were handed to the database.
    Written,
    /// The database wrote its buffers to the file.
    Flushed,
    /// The file was synced to the device.
    Synced,
    /// The sidecar was written and synced.
    Marked,
}

#[cfg(not(test))]
mod imp {
    /// Does nothing.
    pub(crate) struct Probe;

    impl Probe {
        pub(crate) fn none() -> Self {
            Self
        }

        pub(crate) fn after(&self, _: super::Step) -> std::io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
mod imp {
    use std::io;
    use std::sync::Arc;

    type Look = dyn Fn(super::Step) -> io::Result<()> + Send + Sync;

    /// Calls what the test has set.
    #[derive(Clone)]
    pub(crate) struct Probe(Option<Arc<Look>>);

    impl Probe {
        pub(crate) fn none() -> Self {
            Self(None)
        }

        pub(crate) fn new(
            look: impl Fn(super::Step) -> io::Result<()> + Send + Sync + 'static,
        ) -> Self {
            Self(Some(Arc::new(look)))
        }

        pub(crate) fn after(&self, step: super::Step) -> io::Result<()> {
            self.0.as_ref().map_or(Ok(()), |look| look(step))
        }
    }
}

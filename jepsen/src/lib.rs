//! Fault injection on real Watchword processes, and the proof of what they did.
//!
//! A run makes five hosts in private namespaces, starts a cluster on them, puts a workload on it
//! while a nemesis breaks things, and records every invocation and completion. Checkers then read
//! nothing but that history. In reading order:
//!
//! * [`history`]: what is recorded.
//! * [`rng`]: everything random follows from the run's seed.
//! * [`lab`]: hosts, and everything of them that can be broken.
//! * [`nemesis`]: who breaks it, when, and the proof.
//! * [`checker`]: from a history to a verdict.

pub mod checker;
pub mod history;
pub mod lab;
pub mod nemesis;
pub mod rng;

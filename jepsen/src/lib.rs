//! Fault injection on real Watchword processes, and the proof of what they did.
//!
//! A run makes five hosts in private namespaces, starts a cluster on them, puts a workload on it
//! while a nemesis breaks things, and records every invocation and completion. Checkers then read
//! nothing but that history. In reading order:
//!
//! * [`history`]: what is recorded.
//! * [`rng`]: everything random follows from the run's seed.
//! * [`wait`]: waiting for what somebody else does.
//! * [`lab`]: hosts, and everything of them that can be broken.
//! * [`nemesis`]: who breaks it, when, and the proof.
//! * [`client`]: what the users of the product speak to it.
//! * [`db`]: the cluster under test.
//! * [`generator`], [`workload`]: what the clients do.
//! * [`operation`]: invocations joined with their completions.
//! * [`fault`]: what the nemesis did, as windows of time.
//! * [`checker`]: from a history to a verdict.
//! * [`edn`]: the history in Jepsen's format, for others' checkers.
//! * [`report`]: the verdict with its evidence, for people.
//! * [`run`]: one run, from its options to its verdict.
//! * [`suite`], [`runner`]: many of them, each in a process of its own.
//! * [`cli`]: the commands.

pub mod checker;
pub mod cli;
pub mod client;
pub mod db;
pub mod edn;
pub mod fault;
pub mod generator;
pub mod history;
pub mod lab;
pub mod nemesis;
pub mod operation;
pub mod report;
pub mod rng;
pub mod run;
pub mod runner;
#[cfg(test)]
mod sample;
pub mod suite;
pub mod wait;
pub mod workload;

//! What Watchword's users speak to it: RADIUS, the command line, and plain HTTP for health.
//!
//! Each client says of every operation whether it took effect, did not, or may have; the rule is
//! always the same: what provably did not happen is `fail`, what nobody can know is `info`. A client
//! never asks again on its own where that could turn one operation into two.

pub mod admin;
pub mod metrics;
pub mod oath;
pub mod radius;

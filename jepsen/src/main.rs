//! `jepsen`: runs, checks and reports.

fn main() {}

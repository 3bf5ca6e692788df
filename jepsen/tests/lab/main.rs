//! The laboratory and every nemesis, on this machine's kernel.
//!
//! Runs itself again inside namespaces of its own, so that nothing it breaks is anybody's. Where a
//! tool is missing it says so and skips. An argument selects tests by a part of their names.

mod faults;
mod hosts;
mod toy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use watchword_jepsen::lab::{self, Lab};

/// A test: what it shows, and how.
type Test = (&'static str, fn(&Path));

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(toy::NODE) {
        return toy::run();
    }
    let missing = lab::missing();
    if !missing.is_empty() {
        println!("skipped: missing {}", missing.join("; "));
        return ExitCode::SUCCESS;
    }
    lab::enter().expect("a laboratory");
    if std::env::args().nth(1).as_deref() == Some(hosts::HOLD) {
        return hosts::hold();
    }
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let chosen = |(name, _): &&Test| wanted.as_ref().is_none_or(|part| name.contains(part));
    for (name, test) in hosts::TESTS.iter().chain(faults::TESTS).filter(chosen) {
        println!("test {name} ...");
        let dir = scratch(name);
        test(&dir);
        std::fs::remove_dir_all(&dir).expect("removed");
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

/// An empty directory for one test.
fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("jepsen-lab-{name}"));
    // What a test that failed has left.
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a directory");
    dir
}

/// A laboratory of `hosts` hosts in `dir`.
fn build(hosts: usize, dir: &Path) -> Lab {
    Lab::build(hosts, 7, dir).expect("a laboratory")
}

//! What a source says about itself, and what it may not hold.

use std::collections::BTreeSet;

use crate::files::{files, sources};

#[test]
fn every_module_says_what_it_is() {
    for file in sources(&["src", "core/src", "cluster/src", "proto/src", "tests"]) {
        assert!(file.text.starts_with("//! "), "{} does not begin with //!", file.name());
    }
}

#[test]
fn the_database_is_named_in_one_file() {
    for file in sources(&["src", "core", "cluster", "proto"]) {
        let name = file.name();
        let may = name == "cluster/src/storage/database.rs" || name.contains("/tests/");
        let names = file.code().contains("sled::") || file.code().contains("use sled");
        assert!(may || !names, "{name} names sled");
    }
}

/// Readers of the operating system's clocks and its random numbers, and why they may.
const CLOCK_READERS: &[(&str, &str)] = &[
    ("src/clock.rs", "this is the one place"),
    ("src/random.rs", "this is the one place"),
    ("src/cli/bench/", "a load generator measures; nothing is decided by it"),
];

#[test]
fn clocks_and_random_numbers_are_read_in_one_place_each() {
    let mut unused: BTreeSet<&str> = CLOCK_READERS.iter().map(|(place, _)| *place).collect();
    for file in sources(&["src", "core/src", "cluster/src", "proto/src"]) {
        // The runtime's own clock is another matter: simulations and tests stop it.
        let code = file.code().replace("tokio::time::Instant", "");
        let reads =
            ["SystemTime::now", "Instant::now", "SystemRandom", "getrandom", "rand::random"];
        let Some(read) = reads.into_iter().find(|read| code.contains(read)) else { continue };
        let place = CLOCK_READERS.iter().find(|(place, _)| file.name().starts_with(place));
        let (place, _) = place.unwrap_or_else(|| panic!("{} names {read}", file.name()));
        unused.remove(place);
    }
    assert!(unused.is_empty(), "no longer needed: {unused:?}");
}

#[test]
fn core_names_nothing_of_the_outside_world_and_nothing_that_differs_between_nodes() {
    let outside = ["fs", "net", "io", "env", "time", "thread", "process"];
    for file in sources(&["core/src"]) {
        let code = file.code();
        for module in outside {
            let path = file.name();
            assert!(!code.contains(&format!("std::{module}::")), "{path} names std::{module}");
        }
        // Nothing whose order or rounding may differ between two nodes, and nothing that waits.
        for word in ["HashMap", "HashSet", "f32", "f64", "async "] {
            assert!(!code.contains(word), "{} holds {word}", file.name());
        }
    }
}

#[test]
fn nothing_is_left_for_later() {
    let marks = ["TO\u{44}O", "FIX\u{4d}E", "todo\u{21}(", "unimplemented\u{21}(", "#[ignor\u{65}"];
    for file in files(&["src", "core", "cluster", "proto", "tests", "fuzz", "jepsen", "."]) {
        for mark in marks {
            assert!(!file.text.contains(mark), "{} holds {mark}", file.name());
        }
    }
}

//! What is built in: one provider of cryptography, one registry, licences that we may use, exact
//! versions, and a `core` that is pure.

use std::collections::BTreeSet;
use std::fs;

use crate::files::root;

mod graph;
mod licence;

use graph::{Built, built, everything_built, packages};

/// What makes the graph unacceptable: a second implementation of TLS or of its cryptography.
fn cryptography_faults(graph: &BTreeSet<Built>) -> Vec<String> {
    let mut faults = Vec::new();
    for Built { name, version, features } in graph {
        let banned = ["ring", "openssl", "openssl-sys", "native-tls", "boring", "boring-sys"];
        if banned.contains(&name.as_str()) {
            faults.push(format!("{name} is in the graph"));
        }
        if name == "rustls" {
            if !version.starts_with("0.23.") {
                faults.push(format!("rustls is {version}"));
            }
            if features.contains("ring") || !features.contains("aws_lc_rs") {
                faults.push(format!("rustls has the features {features:?}"));
            }
        }
    }
    faults
}

#[test]
fn cryptography_has_one_provider() {
    let graph = everything_built();
    assert!(graph.iter().any(|built| built.name == "rustls"), "the check looks at nothing");
    assert_eq!(cryptography_faults(&graph), Vec::<String>::new());
}

#[test]
fn a_second_provider_of_cryptography_is_noticed() {
    let built = |name: &str, version: &str, features: &[&str]| Built {
        name: name.to_owned(),
        version: version.to_owned(),
        features: features.iter().map(|&feature| feature.to_owned()).collect(),
    };
    for (bad, faults) in [
        (built("ring", "0.17.14", &[]), 1),
        (built("native-tls", "0.2.14", &[]), 1),
        (built("rustls", "0.22.4", &["aws_lc_rs"]), 1),
        (built("rustls", "0.23.46", &["aws_lc_rs", "ring"]), 1),
        (built("rustls", "0.23.46", &["std"]), 1),
        (built("rustls", "0.23.46", &["std", "aws_lc_rs"]), 0),
    ] {
        assert_eq!(cryptography_faults(&BTreeSet::from([bad.clone()])).len(), faults, "{bad:?}");
    }
}

#[test]
fn everything_comes_from_crates_io() {
    let crates_io = "registry+https://github.com/rust-lang/crates.io-index";
    for ((name, version), (_, source)) in packages() {
        match source {
            Some(source) => assert_eq!(source, crates_io, "{name} {version}"),
            None => assert!(name.starts_with("watchword"), "{name} {version} lies somewhere here"),
        }
    }
}

#[test]
fn versions_are_exact_and_named_once() {
    let manifest = |path: &str| -> toml::Table {
        let text = fs::read_to_string(root().join(path)).expect("a manifest");
        text.parse().expect("TOML")
    };
    let workspace = manifest("Cargo.toml");
    let pinned = workspace.get("workspace").and_then(|table| table.get("dependencies"));
    for (name, pin) in pinned.and_then(toml::Value::as_table).expect("a table") {
        let version = pin.as_str().or_else(|| pin.get("version")?.as_str());
        let is_ours = pin.get("path").is_some();
        let is_exact = version.is_some_and(|version| version.starts_with('='));
        assert!(is_ours != is_exact, "{name} = {pin}");
    }
    for path in ["Cargo.toml", "core/Cargo.toml", "cluster/Cargo.toml", "proto/Cargo.toml"] {
        let member = manifest(path);
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let wanted = member.get(kind).and_then(toml::Value::as_table);
            for (name, dependency) in wanted.into_iter().flatten() {
                let from_workspace = dependency.get("workspace").and_then(toml::Value::as_bool);
                assert_eq!(from_workspace, Some(true), "{path}: {name}");
            }
        }
    }
}

/// A crate against which there is an advisory, and why we live with it.
struct Exception {
    advisory: &'static str,
    name: &'static str,
    reason: &'static str,
}

const EXCEPTIONS: &[Exception] = &[
    Exception {
        advisory: "RUSTSEC-2024-0384",
        name: "instant",
        reason: "unmaintained; reads the clock for sled's locks, on Linux by the standard library",
    },
    Exception {
        advisory: "RUSTSEC-2025-0057",
        name: "fxhash",
        reason: "unmaintained; hashes page numbers within sled, never what comes from outside",
    },
    Exception {
        advisory: "RUSTSEC-2025-0141",
        name: "bincode",
        reason: "unmaintained and complete; behind core::codec, bounded there, fuzzed",
    },
];

#[test]
fn exceptions_are_still_needed_and_have_reasons() {
    let graph = everything_built();
    for Exception { advisory, name, reason } in EXCEPTIONS {
        assert!(advisory.starts_with("RUSTSEC-") && reason.len() > 20, "{advisory}");
        assert!(graph.iter().any(|built| built.name == *name), "{name} is gone: forget {advisory}");
    }
}

/// All that `core` may be built on: data structures, serialisation, hashes, text.
const CORE_MAY_USE: &[&str] = &[
    "arrayvec",
    "bincode",
    "block-buffer",
    "cfg-if",
    "cmov",
    "const-oid",
    "cpufeatures",
    "crypto-common",
    "ctutils",
    "digest",
    "hmac",
    "hybrid-array",
    "ipnet",
    "proc-macro2",
    "quote",
    "serde",
    "serde_core",
    "serde_derive",
    "sha1",
    "sha2",
    "smol_str",
    "subtle",
    "syn",
    "thiserror",
    "thiserror-impl",
    "tinyvec",
    "tinyvec_macros",
    "typenum",
    "unicode-ident",
    "unicode-normalization",
    "unty",
    "watchword-core",
];

#[test]
fn core_is_built_on_nothing_impure() {
    let graph = built(&["--package", "watchword-core", "--edges", "normal"]);
    let names: BTreeSet<&str> = graph.iter().map(|built| built.name.as_str()).collect();
    let allowed: BTreeSet<&str> = CORE_MAY_USE.iter().copied().collect();
    let more: Vec<_> = names.difference(&allowed).collect();
    assert!(more.is_empty(), "core is built on {more:?}: are they free of clock, I/O and chance?");
    assert!(names.len() > 10, "the check looks at nothing");
}

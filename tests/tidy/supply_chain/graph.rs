//! The dependency graph, as cargo tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::files::root;

/// A crate that is compiled for Linux.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Built {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) features: BTreeSet<String>,
}

/// What is really compiled, with the features that are really on: `cargo metadata` also lists
/// optional dependencies that nobody has switched on.
pub(super) fn built(arguments: &[&str]) -> BTreeSet<Built> {
    let tree = ["tree", "--prefix", "none", "--format", "{p}|{f}", "--no-dedupe"];
    let platform = ["--target", "x86_64-unknown-linux-gnu"];
    let text = cargo(&[&tree[..], &platform, arguments].concat());
    let lines = text.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (package, features) = line.split_once('|').expect("as it was asked for");
            let mut words = package.split(' ');
            let mut word = || words.next().expect("a name and a version").to_owned();
            let (name, version) = (word(), word().trim_start_matches('v').to_owned());
            let features = features.split(',').filter(|feature| !feature.is_empty());
            Built { name, version, features: features.map(str::to_owned).collect() }
        })
        .collect()
}

pub(super) fn everything_built() -> BTreeSet<Built> {
    built(&["--workspace", "--edges", "normal,build,dev"])
}

fn cargo(arguments: &[&str]) -> String {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).args(["--locked", "--offline"]).current_dir(root());
    let output = command.output().expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

/// Licence and source of each crate that is compiled for Linux, by name and version.
pub(super) fn packages() -> BTreeMap<(String, String), (String, Option<String>)> {
    let format = ["metadata", "--format-version", "1"];
    let platform = ["--filter-platform", "x86_64-unknown-linux-gnu"];
    let text = cargo(&[&format[..], &platform].concat());
    let metadata: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let of = |package: &serde_json::Value, field: &str| {
        package.get(field).and_then(serde_json::Value::as_str).map(str::to_owned)
    };
    let listed = metadata.get("packages").and_then(serde_json::Value::as_array);
    let listed = listed.expect("a list").iter();
    let known: BTreeMap<_, _> = listed
        .map(|package| {
            let name = of(package, "name").expect("a name");
            let version = of(package, "version").expect("a version");
            let licence = of(package, "license").unwrap_or_default();
            ((name, version), (licence, of(package, "source")))
        })
        .collect();
    let graph = everything_built().into_iter().map(|built| (built.name, built.version));
    graph
        .map(|key| {
            let about = known.get(&key).unwrap_or_else(|| panic!("{key:?} is unknown"));
            (key.clone(), about.clone())
        })
        .collect()
}

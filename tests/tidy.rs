//! Rules that neither the compiler nor clippy keeps: who may import whom, what a file must say about
//! itself, and what may be in the dependency graph. Fast: starts no node.
//!
//! Each rule is data or a small pure function, and has a control: an example that breaks it.

#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

// Modules and layers

/// The modules of `src/` from the bottom to the top. A module may import its own layer and those
/// below, with the exceptions that [`may_import`] names.
const LAYERS: &[(u8, &[&str])] = &[
    (
        2,
        &[
            "clock",
            "config",
            "error_chain",
            "identity",
            "keys",
            "logging",
            "metrics",
            "pki",
            "random",
            "throttle",
        ],
    ),
    (3, &["directory", "delivery"]),
    (4, &["auth", "admin"]),
    (5, &["radius", "ldap", "https", "admission"]),
    (6, &["cli", "join", "node", "main", "lib"]),
];

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(_, modules)| modules.contains(&module)).map(|(layer, _)| *layer)
}

fn may_import(from: &str, to: &str) -> bool {
    match (layer(from), layer(to)) {
        _ if from == to => true,
        // A front knows neither another front nor what lies behind `auth` and `admin`.
        (Some(5), Some(to)) => matches!(to, 2 | 4),
        (Some(from), Some(to)) => to <= from,
        // A module that has no layer yet: give it one.
        _ => false,
    }
}

/// Who may name the replica, and why.
const CLUSTER_USERS: &[(&str, &str)] = &[
    ("auth", "proposes decisions"),
    ("admin", "proposes what administrators change"),
    ("node", "opens and closes it"),
    ("join", "makes an empty one"),
    ("cli/log_dump.rs", "reads the store of a stopped node"),
];

/// The modules whose names follow `crate::` in `code`, groups in braces included.
fn imported(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, rest) in code.match_indices("crate::").map(|(at, mark)| code.split_at(at + mark.len()))
    {
        match rest.strip_prefix('{') {
            None => found.extend(first_word(rest)),
            Some(group) => {
                let mut depth = 1_usize;
                let mut begins = true;
                for (at, letter) in group.char_indices() {
                    match letter {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 1 => begins = true,
                        _ if begins && depth == 1 && !letter.is_whitespace() => {
                            found.extend(group.get(at..).and_then(first_word));
                            begins = false;
                        }
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
        }
    }
    found
}

fn first_word(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    // A macro or an item of the crate's root begins with a capital or is none of our modules.
    text.get(..end).filter(|word| word.starts_with(char::is_lowercase)).map(str::to_owned)
}

#[test]
fn imports_go_down_the_layers() {
    for file in sources(&["src"]) {
        let module = file.module();
        for target in imported(&file.code()) {
            let path = file.name();
            assert!(may_import(&module, &target), "{path} imports crate::{target}");
        }
        // A way round the check above.
        assert!(!file.code().contains("super::super::"), "{}: name it from crate::", file.name());
    }
}

#[test]
fn an_import_in_the_wrong_direction_is_noticed() {
    let code = "use crate::{clock, radius::packet::{Code, Packet}};\nuse crate::admin::Admin;\n";
    let expected = ["admin", "clock", "radius"].map(str::to_owned);
    assert_eq!(imported(code), BTreeSet::from(expected));
    for (from, to) in
        [("auth", "radius"), ("radius", "https"), ("https", "directory"), ("clock", "node")]
    {
        assert!(!may_import(from, to), "{from} -> {to}");
    }
    assert!(!may_import("radius", "unheard_of") && !may_import("unheard_of", "clock"));
    assert!(
        may_import("radius", "auth") && may_import("admin", "auth") && may_import("cli", "https")
    );
}

#[test]
fn the_replica_is_named_only_by_those_who_need_it() {
    let mut unused: BTreeSet<&str> = CLUSTER_USERS.iter().map(|(user, _)| *user).collect();
    for file in sources(&["src"]).iter().filter(|file| file.code().contains("watchword_cluster")) {
        let within = |user: &&str| *user == file.module() || file.name() == format!("src/{user}");
        let user = CLUSTER_USERS.iter().map(|(user, _)| *user).find(within);
        let user = user.unwrap_or_else(|| panic!("{} names the replica", file.name()));
        unused.remove(user);
    }
    assert!(unused.is_empty(), "no longer needed: {unused:?}");
}

#[test]
fn only_auth_and_admin_propose() {
    for file in sources(&["src"]) {
        let proposes = file.code().contains(".propose(") || file.code().contains(".propose_many(");
        let may = matches!(&*file.module(), "auth" | "admin");
        assert!(!proposes || may, "{} proposes", file.name());
    }
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

// What a file holds

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
fn nothing_is_left_for_later() {
    let marks = ["TO\u{44}O", "FIX\u{4d}E", "todo\u{21}(", "unimplemented\u{21}(", "#[ignor\u{65}"];
    for file in files(&["src", "core", "cluster", "proto", "tests", "fuzz", "jepsen", "."]) {
        for mark in marks {
            assert!(!file.text.contains(mark), "{} holds {mark}", file.name());
        }
    }
}

#[test]
fn every_document_has_one_title() {
    let documents = files(&["src", "core", "cluster", "proto", "tests", "jepsen", "."]);
    for file in documents.iter().filter(|file| file.name().ends_with(".md")) {
        let mut is_code = false;
        let titles = file.text.lines().filter(|line| {
            is_code ^= line.trim_start().starts_with("```");
            !is_code && line.starts_with("# ")
        });
        assert_eq!(titles.count(), 1, "titles of {}", file.name());
    }
}

// What is built in

/// What the program may be made of, by the names of <https://spdx.org/licenses>.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "MPL-2.0",
    "OpenSSL",
];

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

/// A crate that is compiled for Linux.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Built {
    name: String,
    version: String,
    features: BTreeSet<String>,
}

/// What is really compiled, with the features that are really on: `cargo metadata` also lists
/// optional dependencies that nobody has switched on.
fn built(arguments: &[&str]) -> BTreeSet<Built> {
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

fn everything_built() -> BTreeSet<Built> {
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
fn supply_chain_has_one_provider_of_cryptography() {
    let graph = everything_built();
    assert!(graph.iter().any(|built| built.name == "rustls"), "the check looks at nothing");
    assert_eq!(cryptography_faults(&graph), Vec::<String>::new());
}

#[test]
fn supply_chain_check_notices_a_second_provider() {
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

/// Licence and source of each crate that is compiled for Linux, by name and version.
fn packages() -> BTreeMap<(String, String), (String, Option<String>)> {
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

#[test]
fn supply_chain_comes_from_crates_io() {
    let crates_io = "registry+https://github.com/rust-lang/crates.io-index";
    for ((name, version), (_, source)) in packages() {
        match source {
            Some(source) => assert_eq!(source, crates_io, "{name} {version}"),
            None => assert!(name.starts_with("watchword"), "{name} {version} lies somewhere here"),
        }
    }
}

#[test]
fn supply_chain_licences_are_acceptable() {
    for ((name, version), (licence, _)) in packages() {
        assert_eq!(is_acceptable(&licence), Some(true), "{name} {version}: {licence:?}");
    }
}

/// Whether an SPDX expression leaves a way to use the work under [`LICENCES`] alone; `None` when it
/// is malformed. A slash stands for OR in old manifests. An exception only ever permits more.
fn is_acceptable(expression: &str) -> Option<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let acceptable = either(&mut words)?;
    words.next().is_none().then_some(acceptable)
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn either(words: &mut Words<'_>) -> Option<bool> {
    let mut acceptable = both(words)?;
    while words.next_if_eq(&"OR").is_some() {
        acceptable |= both(words)?;
    }
    Some(acceptable)
}

fn both(words: &mut Words<'_>) -> Option<bool> {
    let mut acceptable = one(words)?;
    while words.next_if_eq(&"AND").is_some() {
        acceptable &= one(words)?;
    }
    Some(acceptable)
}

fn one(words: &mut Words<'_>) -> Option<bool> {
    let acceptable = match words.next()? {
        "(" => {
            let acceptable = either(words)?;
            words.next_if_eq(&")").map(|_| acceptable)?
        }
        ")" | "AND" | "OR" | "WITH" => return None,
        licence => LICENCES.contains(&licence),
    };
    if words.next_if_eq(&"WITH").is_some() {
        words.next()?;
    }
    Some(acceptable)
}

#[test]
fn supply_chain_check_understands_licences() {
    for (expression, expected) in [
        ("MIT", Some(true)),
        ("GPL-3.0", Some(false)),
        ("GPL-3.0 OR MIT", Some(true)),
        ("MIT AND GPL-3.0", Some(false)),
        ("Unlicense/MIT", Some(true)),
        ("(MIT OR GPL-3.0) AND (ISC OR AGPL-3.0)", Some(true)),
        ("MIT OR GPL-3.0 AND AGPL-3.0", Some(true)),
        ("(MIT OR GPL-3.0) AND AGPL-3.0", Some(false)),
        ("Apache-2.0 WITH LLVM-exception", Some(true)),
        ("", None),
        ("MIT AND", None),
        ("(MIT", None),
        ("MIT ISC", None),
    ] {
        assert_eq!(is_acceptable(expression), expected, "{expression:?}");
    }
}

#[test]
fn supply_chain_versions_are_exact_and_named_once() {
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

#[test]
fn supply_chain_exceptions_are_still_needed_and_have_reasons() {
    let graph = everything_built();
    for Exception { advisory, name, reason } in EXCEPTIONS {
        assert!(advisory.starts_with("RUSTSEC-") && reason.len() > 20, "{advisory}");
        assert!(graph.iter().any(|built| built.name == *name), "{name} is gone: forget {advisory}");
    }
}

#[test]
fn supply_chain_of_core_is_pure() {
    let graph = built(&["--package", "watchword-core", "--edges", "normal"]);
    let names: BTreeSet<&str> = graph.iter().map(|built| built.name.as_str()).collect();
    let allowed: BTreeSet<&str> = CORE_MAY_USE.iter().copied().collect();
    let more: Vec<_> = names.difference(&allowed).collect();
    assert!(more.is_empty(), "core is built on {more:?}: are they free of clock, I/O and chance?");
    assert!(names.len() > 10, "the check looks at nothing");
}

// Files

/// A file of the repository.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// Its path from the repository's root.
    fn name(&self) -> String {
        let name = self.path.strip_prefix(root()).unwrap_or(&self.path);
        name.display().to_string()
    }

    /// The module of `src/` that it belongs to.
    fn module(&self) -> String {
        let name = self.name();
        let name = name.strip_prefix("src/").unwrap_or(&name);
        let first = name.split('/').next().unwrap_or(name);
        first.strip_suffix(".rs").unwrap_or(first).to_owned()
    }

    /// The text without whole lines of comment.
    fn code(&self) -> String {
        let lines = self.text.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(directories: &[&str]) -> Vec<Source> {
    let mut found = files(directories);
    found.retain(|file| file.path.extension().is_some_and(|extension| extension == "rs"));
    assert!(!found.is_empty(), "the check looks at nothing");
    found
}

/// The texts in `directories`, and below all of them but `.`; what is absent is passed over.
fn files(directories: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for directory in directories {
        let is_root = *directory == ".";
        let path = if is_root { root().to_owned() } else { root().join(directory) };
        collect(&path, !is_root, &mut found);
    }
    found
}

fn collect(directory: &Path, descends: bool, found: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            let is_built = path.ends_with("target");
            if descends && !is_built {
                collect(&path, descends, found);
            }
        } else if let Ok(text) = fs::read_to_string(&path) {
            found.push(Source { path, text });
        }
    }
}

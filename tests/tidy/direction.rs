//! Who may import whom, and who may name the replica or propose to it.

use std::collections::BTreeSet;

use crate::files::sources;

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
            "possession",
            "radius",
            "random",
            "throttle",
        ],
    ),
    (3, &["backup", "directory", "delivery"]),
    (4, &["auth", "admin"]),
    (5, &["radius_front", "ldap", "https", "admission"]),
    (6, &["cli", "custody", "join", "node", "stage", "main", "lib"]),
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
    ("custody", "follows the data key in force"),
    ("join", "makes an empty one"),
    ("stage", "asks whether there is one"),
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
    for (from, to) in [
        ("auth", "radius_front"),
        ("radius_front", "https"),
        ("https", "directory"),
        ("clock", "node"),
    ] {
        assert!(!may_import(from, to), "{from} -> {to}");
    }
    assert!(!may_import("radius_front", "unheard_of") && !may_import("unheard_of", "clock"));
    assert!(
        may_import("radius_front", "auth")
            && may_import("admin", "auth")
            && may_import("cli", "https")
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
        let proposes = file.code().contains(".propose");
        let may = matches!(&*file.module(), "auth" | "admin");
        assert!(!proposes || may, "{} proposes", file.name());
    }
}

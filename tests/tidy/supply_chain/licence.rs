//! Under which licences the parts may be used.

use super::graph::packages;

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

#[test]
fn licences_are_acceptable() {
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
fn expressions_are_understood() {
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

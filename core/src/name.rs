//! Canonical user names.
//!
//! `user`, `DOMAIN\user`, `user@domain`, any case and any Unicode spelling of them, with or without
//! accents, are one user with one set of failure counters. Every name is made canonical before it is
//! looked up or counted; otherwise an attacker gets a fresh budget of guesses for each spelling.
//! Accents go because directories ignore them: `jo` and `jó` have one password there.

use std::fmt;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use unicode_normalization::UnicodeNormalization;

use crate::limits::USER_NAME_BYTES_MAX;

/// A user name in its one canonical form: NFKC, case folded, without domain and accents.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UserName(SmolStr);

/// Why a text cannot be a user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is left of it.
    #[error("the user name is empty")]
    Empty,
    /// More than [`USER_NAME_BYTES_MAX`] bytes.
    #[error("the user name is longer than {USER_NAME_BYTES_MAX} bytes")]
    TooLong,
    /// It holds a control or invisible formatting character.
    #[error("the user name holds a control or invisible character")]
    Invisible,
}

impl UserName {
    /// Makes `presented` canonical.
    ///
    /// # Errors
    /// Fails when nothing visible is left, or the text is too long.
    pub fn canonical(presented: &str) -> Result<Self, NameError> {
        if presented.len() > USER_NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        let mut name = presented.to_owned();
        // Folding can yield characters that normalise further (and the reverse), so go on until
        // nothing changes. Three rounds suffice for every assigned character; the bound is a guard.
        for _ in 0..8 {
            let next = fold(&name);
            if next == name {
                break;
            }
            name = next;
        }
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > USER_NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        if name.chars().any(is_invisible) {
            return Err(NameError::Invisible);
        }
        Ok(Self(name.into()))
    }

    /// Whether the client may vouch for this name although no user has it. A directory may take
    /// letters beyond these for others, by rules of its own, so that the name may be somebody's there.
    pub fn may_pass_unknown(&self) -> bool {
        self.0.is_ascii()
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The canonical text, to be kept.
    pub fn text(&self) -> SmolStr {
        self.0.clone()
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

fn fold(text: &str) -> String {
    if text.is_ascii() {
        // What the general case below yields, without its tables: nearly every name is such.
        return without_domain(text.trim()).to_ascii_lowercase();
    }
    let text: String = text.nfkc().collect();
    let bare = without_domain(text.trim());
    // Upper, then lower, character by character: close to Unicode's full case folding (the German
    // sharp s becomes "ss", both small sigmas become one) and independent of locale and context.
    let folded = bare.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    without_accents(folded.nfkd()).nfkc().collect()
}

/// Decomposed text without the accents of Latin letters. Marks of other scripts are letters of their
/// own to those who write them.
fn without_accents(text: impl Iterator<Item = char>) -> impl Iterator<Item = char> {
    text.scan(false, |after_latin, c| {
        if *after_latin && matches!(c, '\u{300}'..='\u{36f}') {
            return Some(None);
        }
        // These have a stroke through them, which Unicode does not take apart.
        let bare = match c {
            'ø' => 'o',
            'ł' => 'l',
            'đ' => 'd',
            'ħ' => 'h',
            'ŧ' => 't',
            'ı' => 'i',
            other => other,
        };
        *after_latin = bare.is_ascii_alphabetic();
        Some(Some(bare))
    })
    .flatten()
}

/// `DOMAIN\user` and `user@domain` without the domain. A name that is nothing but a domain stays
/// whole, so that it cannot collapse into somebody else's.
fn without_domain(name: &str) -> &str {
    let name = match name.rsplit_once('\\') {
        Some((_, user)) if !user.is_empty() => user,
        _ => name,
    };
    match name.split_once('@') {
        Some((user, _)) if !user.trim().is_empty() => user.trim(),
        _ => name.trim(),
    }
}

fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffd}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> Result<String, NameError> {
        UserName::canonical(text).map(|name| name.as_str().to_owned())
    }

    #[test]
    fn every_spelling_of_a_user_is_one_name() {
        for spelling in [
            "alice",
            "ALICE",
            " Alice ",
            "CORP\\alice",
            "alice@corp.example",
            "ａｌｉｃｅ",
            "corp\\ALICE@x",
        ] {
            assert_eq!(canonical(spelling).as_deref(), Ok("alice"), "{spelling}");
        }
        for (one, other) in [
            ("Straße", "STRASSE"),
            ("ΟΔΟΣ", "οδος"),
            ("e\u{301}va", "\u{c9}VA"),
            ("jó", "JO"),
            ("Øre", "ore"),
            ("Łukasz", "lukasz"),
        ] {
            assert_eq!(canonical(one), canonical(other));
        }
        assert_ne!(canonical("йод"), canonical("иод"), "marks of other scripts tell letters apart");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        assert_eq!(canonical(""), Err(NameError::Empty));
        assert_eq!(canonical("  "), Err(NameError::Empty));
        assert_eq!(canonical("a\u{200b}lice"), Err(NameError::Invisible));
        assert_eq!(canonical("a\0"), Err(NameError::Invisible));
        assert_eq!(canonical(&"x".repeat(254)), Err(NameError::TooLong));
    }

    proptest! {
        #[test]
        fn canonical_is_idempotent_and_never_panics(text in any::<String>()) {
            if let Ok(name) = UserName::canonical(&text) {
                prop_assert_eq!(UserName::canonical(name.as_str()), Ok(name.clone()));
            }
        }

        #[test]
        fn ascii_names_fold_as_all_others(text in "[ -~]{0,40}") {
            // One character beyond ASCII, of which nothing is left, takes the general way.
            prop_assert_eq!(fold(&text), fold(&format!("{text}\u{2003}")));
        }

        #[test]
        fn case_never_makes_another_user(text in "[a-zA-Zà-ÿÀ-Þ0-9._-]{1,40}") {
            prop_assert_eq!(canonical(&text), canonical(&text.to_uppercase()));
            prop_assert_eq!(canonical(&text), canonical(&text.to_lowercase()));
        }
    }
}

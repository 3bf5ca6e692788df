//! The table of replicated settings.
//!
//! One row per setting drives validation, the command line, the console, the API and the documents.
//! A setting that is absent from the replicated values has its default.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::{CHALLENGE_MS_MAX, SETTING_HISTORY_MAX, TEXT_BYTES_MAX};
use crate::lockout::Limits;
use crate::map::OrdMap;
use crate::time::Timestamp;

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// Dotted name.
    pub key: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// What it does, one sentence.
    pub doc: &'static str,
}

/// The type, range and default of a setting.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number.
    Integer {
        /// Lowest value.
        min: u64,
        /// Highest value.
        max: u64,
        /// Value when not set.
        default: u64,
    },
    /// A text of at most [`TEXT_BYTES_MAX`] bytes without control characters.
    Text {
        /// Value when not set.
        default: &'static str,
    },
}

/// The value of a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// For [`Kind::Integer`].
    Integer(u64),
    /// For [`Kind::Text`].
    Text(Arc<str>),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(value) => write!(f, "{value}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

macro_rules! integer_settings {
    ($($accessor:ident, $key:literal, $min:expr, $default:expr, $max:expr, $doc:literal;)*) => {
        /// Every integer setting.
        const INTEGERS: &[Setting] = &[$(Setting {
            key: $key,
            kind: Kind::Integer { min: $min, max: $max, default: $default },
            doc: $doc,
        }),*];

        impl Settings {
            $(
                #[doc = $doc]
                pub fn $accessor(&self) -> u64 {
                    self.integer($key, $default)
                }
            )*
        }
    };
}

integer_settings! {
    password_failures, "lockout.password_failures", 0, 10, 100,
        "Wrong passwords that lock a user; 0 never locks.";
    passcode_failures, "lockout.passcode_failures", 0, 10, 100,
        "Wrong passcodes that lock a user; 0 never locks.";
    password_remembered_seconds, "password.remembered_seconds", 0, 300, 3_600,
        "Seconds for which a node recognises a right password without comparing it anew; 0 always compares.";
    lockout_minutes, "lockout.minutes", 1, 15, 10_080,
        "Minutes until a locked user is unlocked.";
    lockout_reset_minutes, "lockout.reset_minutes", 1, 15, 10_080,
        "Minutes without failure after which failures are forgotten.";
    totp_window_steps, "totp.window_steps", 0, 1, 10,
        "Time steps before and after the current one whose passcode is accepted.";
    totp_drift_steps_max, "totp.drift_steps_max", 0, 10, 100,
        "Time steps by which a token's clock may drift and still be followed.";
    totp_resync_steps, "totp.resync_steps", 10, 2_880, 100_000,
        "Time steps before and after the current one that a resynchronisation searches.";
    hotp_look_ahead, "hotp.look_ahead", 1, 10, 100,
        "Counters, from the next one on, whose passcode is accepted.";
    hotp_resync_counters, "hotp.resync_counters", 10, 1_000, 100_000,
        "Counters, from the next one on, that a resynchronisation searches.";
    challenge_seconds, "challenge.seconds", 10, 120, CHALLENGE_MS_MAX / 1000,
        "Seconds within which a challenge must be answered.";
    bypass_seconds, "bypass.seconds", 10, 300, 86_400,
        "Seconds that a one-time bypass lasts when nothing else is asked for.";
    block_days, "block.days", 1, 90, 3_650,
        "Days that a block lasts when nothing else is asked for.";
    clock_error_seconds_max, "clock.error_seconds_max", 1, 10, 3_600,
        "Seconds by which a node's clock may differ from the voters' median; beyond, it decides nothing.";
    attempts_kept, "attempts.kept", 1_024, 131_072, 1_048_576,
        "Attempts that are kept in the record.";
}

/// Every text setting.
const TEXTS: &[Setting] = &[Setting {
    key: "oath.issuer",
    kind: Kind::Text { default: "Watchword" },
    doc: "The organisation's name that an authenticator app shows next to the passcode.",
}];

/// Every setting, by name.
pub fn table() -> impl Iterator<Item = &'static Setting> {
    INTEGERS.iter().chain(TEXTS)
}

/// Why a setting cannot have a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SettingError {
    /// No such setting.
    #[error("there is no setting {0:?}")]
    Unknown(Arc<str>),
    /// The number is out of range.
    #[error("{key} must be between {min} and {max}")]
    OutOfRange {
        /// The setting.
        key: Arc<str>,
        /// Lowest value.
        min: u64,
        /// Highest value.
        max: u64,
    },
    /// A text where a number belongs.
    #[error("{0} takes a whole number")]
    NotAnInteger(Arc<str>),
    /// A number where a text belongs, or a text that is too long or holds control characters.
    #[error("{0} takes a text of 1 to {TEXT_BYTES_MAX} bytes without control characters")]
    NotAText(Arc<str>),
}

impl Setting {
    /// The row named `key`.
    ///
    /// # Errors
    /// [`SettingError::Unknown`].
    pub fn find(key: &str) -> Result<&'static Self, SettingError> {
        table().find(|row| row.key == key).ok_or_else(|| SettingError::Unknown(key.into()))
    }

    /// The value when nothing is set.
    pub fn default_value(&self) -> Value {
        match self.kind {
            Kind::Integer { default, .. } => Value::Integer(default),
            Kind::Text { default } => Value::Text(default.into()),
        }
    }

    /// Reads a value as people write it.
    ///
    /// # Errors
    /// Names the limit that `text` breaks.
    pub fn parse(&self, text: &str) -> Result<Value, SettingError> {
        let value = match self.kind {
            Kind::Integer { .. } => Value::Integer(
                text.trim().parse().map_err(|_| SettingError::NotAnInteger(self.key.into()))?,
            ),
            Kind::Text { .. } => Value::Text(text.into()),
        };
        self.check(&value).map(|()| value)
    }

    /// Checks the type and the range.
    ///
    /// # Errors
    /// Names the limit that `value` breaks.
    pub fn check(&self, value: &Value) -> Result<(), SettingError> {
        let key = self.key.into();
        match (&self.kind, value) {
            (&Kind::Integer { min, max, .. }, &Value::Integer(number)) => {
                if (min..=max).contains(&number) {
                    Ok(())
                } else {
                    Err(SettingError::OutOfRange { key, min, max })
                }
            }
            (Kind::Text { .. }, Value::Text(text)) => {
                let fits = !text.is_empty() && text.len() <= TEXT_BYTES_MAX;
                if fits && !text.chars().any(char::is_control) {
                    Ok(())
                } else {
                    Err(SettingError::NotAText(key))
                }
            }
            (Kind::Integer { .. }, Value::Text(_)) => Err(SettingError::NotAnInteger(key)),
            (Kind::Text { .. }, Value::Integer(_)) => Err(SettingError::NotAText(key)),
        }
    }
}

/// The replicated values and how they came to be.
#[derive(Clone, Default)]
pub struct Settings {
    values: OrdMap<Arc<str>, Value>,
    history: Arc<Vec<SettingsChange>>,
}

/// One change of one or more settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsChange {
    /// Log index: the revision of the settings from here on.
    pub revision: u64,
    /// When.
    pub time: Timestamp,
    /// Who.
    pub by: Arc<str>,
    /// What: key, value before, value after; `None` is the default.
    pub changes: Vec<(Arc<str>, Option<Value>, Option<Value>)>,
}

impl Settings {
    /// Log index of the last change; zero when nothing was ever changed.
    pub fn revision(&self) -> u64 {
        self.history.last().map_or(0, |change| change.revision)
    }

    /// The value of `row`, set or default.
    pub fn value(&self, row: &Setting) -> Value {
        self.explicit(row.key).cloned().unwrap_or_else(|| row.default_value())
    }

    /// The value of `key` if it was set.
    pub fn explicit(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// The latest changes, oldest first.
    pub fn history(&self) -> &[SettingsChange] {
        &self.history
    }

    /// The organisation's name that an authenticator app shows next to the passcode.
    pub fn oath_issuer(&self) -> Arc<str> {
        match self.explicit("oath.issuer") {
            Some(Value::Text(text)) => text.clone(),
            _ => "Watchword".into(),
        }
    }

    /// The limits on failed passwords.
    pub fn password_limits(&self) -> Limits {
        self.limits(self.password_failures())
    }

    /// The limits on failed passcodes.
    pub fn passcode_limits(&self) -> Limits {
        self.limits(self.passcode_failures())
    }

    fn limits(&self, failures: u64) -> Limits {
        Limits {
            failures,
            lock_ms: self.lockout_minutes() * 60_000,
            reset_ms: self.lockout_reset_minutes() * 60_000,
        }
    }

    fn integer(&self, key: &str, default: u64) -> u64 {
        match self.explicit(key) {
            Some(&Value::Integer(value)) => value,
            _ => default,
        }
    }

    /// Makes a change that has been checked; `None` goes back to the default.
    pub(crate) fn change(
        &mut self,
        revision: u64,
        time: Timestamp,
        by: Arc<str>,
        changes: &[(Arc<str>, Option<Value>)],
    ) {
        let mut made = Vec::with_capacity(changes.len());
        for (key, value) in changes {
            let before = match value {
                Some(value) => self.values.insert(key.clone(), value.clone()),
                None => self.values.remove(key),
            };
            made.push((key.clone(), before, value.clone()));
        }
        let history = Arc::make_mut(&mut self.history);
        history.push(SettingsChange { revision, time, by, changes: made });
        if history.len() > SETTING_HISTORY_MAX {
            history.remove(0);
        }
    }

    /// The changes that lead from now back to how things were at `revision`.
    ///
    /// Returns `None` when the history does not reach back that far.
    pub fn changes_back_to(&self, revision: u64) -> Option<Vec<(Arc<str>, Option<Value>)>> {
        let complete = self.history.len() < SETTING_HISTORY_MAX;
        let known = self.history.iter().any(|change| change.revision == revision);
        let is_origin = revision == 0 && complete;
        if !known && !is_origin {
            return None;
        }
        let mut target = std::collections::BTreeMap::new();
        for change in self.history.iter().rev().take_while(|change| change.revision > revision) {
            for (key, before, _) in &change.changes {
                target.insert(key.clone(), before.clone());
            }
        }
        target.retain(|key, value| self.values.get(key) != value.as_ref());
        Some(target.into_iter().collect())
    }

    pub(crate) fn to_parts(&self) -> SettingsParts {
        SettingsParts {
            values: self.values.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            history: self.history.to_vec(),
        }
    }

    pub(crate) fn from_parts(parts: SettingsParts) -> Self {
        Self { values: parts.values.into_iter().collect(), history: parts.history.into() }
    }
}

/// [`Settings`] as stored in a snapshot.
#[derive(Serialize, Deserialize)]
pub(crate) struct SettingsParts {
    values: Vec<(Arc<str>, Value)>,
    history: Vec<SettingsChange>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_within_its_range_and_every_key_is_unique() {
        let mut keys: Vec<_> = table().map(|row| row.key).collect();
        for row in table() {
            assert_eq!(row.check(&row.default_value()), Ok(()), "{}", row.key);
            assert_eq!(Settings::default().value(row), row.default_value());
        }
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), table().count());
    }

    #[test]
    fn bad_values_are_refused_with_the_limit_they_break() {
        let row = Setting::find("lockout.minutes").expect("exists");
        assert_eq!(
            row.parse("0").expect_err("too low").to_string(),
            "lockout.minutes must be between 1 and 10080"
        );
        assert!(row.parse("many").is_err());
        assert!(Setting::find("lockout").is_err());
        assert!(Setting::find("oath.issuer").expect("exists").parse("a\nb").is_err());
    }

    #[test]
    fn history_leads_back_to_any_earlier_revision() {
        let mut settings = Settings::default();
        let key: Arc<str> = "lockout.minutes".into();
        for (revision, minutes) in [(5, 20), (9, 30), (12, 40)] {
            let change = [(key.clone(), Some(Value::Integer(minutes)))];
            settings.change(revision, Timestamp(revision), "test".into(), &change);
        }
        assert_eq!(settings.revision(), 12);
        let back = |revision| settings.changes_back_to(revision);
        assert_eq!(back(9), Some(vec![(key.clone(), Some(Value::Integer(30)))]));
        assert_eq!(back(0), Some(vec![(key.clone(), None)]));
        assert_eq!(back(12), Some(vec![]));
        assert_eq!(back(7), None);
    }
}

//! The users of a bench: who they are, and which passcode is theirs.
//!
//! Read with the reader of `watchword user import`, so that one file serves both. Which passcode of
//! a user comes next is not kept here: see [`super::pool`].

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use watchword_core::factor::{Algorithm, Generator, totp};
use watchword_core::time::Timestamp;
use zeroize::Zeroizing;

use super::BenchError;
use crate::admin::{self, DeviceKind, ImportRow};

/// What a passcode of these users stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moving {
    /// The next counter (HOTP).
    Counter,
    /// The current time step (TOTP).
    Step {
        /// Its length.
        period_seconds: u32,
    },
}

/// Somebody with one OATH device.
pub(super) struct User {
    /// Name as it is sent.
    pub name: Box<str>,
    /// The device's key. Kept instead of a prepared [`Generator`]: that is ten times as big, and
    /// making one takes two of the passcode's four hashes.
    pub key: Zeroizing<Vec<u8>>,
    algorithm: Algorithm,
    digits: u8,
    /// The counter that the file names; zero for TOTP.
    pub first: u64,
}

impl User {
    /// The passcode for `moving_factor`.
    pub(super) fn passcode(&self, moving_factor: u64) -> String {
        Generator::new(&self.key, self.algorithm, self.digits).passcode(moving_factor)
    }
}

/// Everybody in one file.
pub(super) struct Users {
    /// In the file's order.
    pub all: Vec<User>,
    /// One kind of device per file, so that the one that was used longest ago is always the one to
    /// take next.
    pub moving: Moving,
}

impl Users {
    /// Reads `path`. Disabled users are left out.
    pub(super) fn load(path: &Path) -> Result<Self, BenchError> {
        let read = |source| BenchError::Read { path: path.to_owned(), source };
        let line = |line, reason| BenchError::Line { path: path.to_owned(), line, reason };
        let file = BufReader::new(File::open(path).map_err(read)?);
        let rows = admin::read_rows(file).map_err(|error| line(1, error.to_string()))?;
        let mut all = Vec::new();
        let mut kind = None;
        for (number, row) in rows {
            let row = row.map_err(|error| line(number, error.to_string()))?;
            if row.user.disabled {
                continue;
            }
            let (user, moving) = parse(row).map_err(|reason| line(number, reason))?;
            if *kind.get_or_insert(moving) != moving {
                let reason = "another kind of device than above; one kind per file".to_owned();
                return Err(line(number, reason));
            }
            all.push(user);
        }
        let moving = kind.ok_or_else(|| BenchError::NoUsers { path: path.to_owned() })?;
        Ok(Self { all, moving })
    }

    /// The time step of `now`; `None` for counters.
    pub(super) fn step(&self, now: Timestamp) -> Option<u64> {
        match self.moving {
            Moving::Counter => None,
            Moving::Step { period_seconds } => Some(totp::step(now, period_seconds)),
        }
    }
}

fn parse(row: ImportRow) -> Result<(User, Moving), String> {
    let absent = || format!("user {:?} has no key", row.user.username);
    let device = row.device.as_ref().ok_or_else(absent)?;
    let key = admin::parse_key(device.key.as_deref().ok_or_else(absent)?);
    let moving = match device.kind {
        DeviceKind::Hotp => Moving::Counter,
        DeviceKind::Totp => Moving::Step { period_seconds: device.period_seconds },
    };
    let user = User {
        name: row.user.username.as_str().into(),
        key: key.map_err(|error| error.to_string())?,
        algorithm: device.algorithm,
        digits: device.digits,
        first: match moving {
            Moving::Counter => device.counter,
            Moving::Step { .. } => 0,
        },
    };
    Ok((user, moving))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn load(text: &str) -> Result<Users, String> {
        let mut file = tempfile::NamedTempFile::new().expect("temporary file");
        file.write_all(text.as_bytes()).expect("written");
        let name = file.path().display().to_string();
        Users::load(file.path()).map_err(|error| error.to_string().replace(&name, "users"))
    }

    #[test]
    fn passcodes_are_those_of_rfc_4226() {
        let users = load("username,hotp_key,counter\njo,GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ,7\n");
        let users = users.expect("users");
        assert_eq!((users.moving, users.all[0].first), (Moving::Counter, 7));
        assert_eq!(users.all[0].passcode(7), "162583");
        assert_eq!(users.step(Timestamp(60_000)), None);
    }

    #[test]
    fn what_cannot_be_used_is_named_by_line() {
        let key = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
        let header = "username,hotp_key,totp_key,disabled";
        for (rows, expected) in [
            (format!("jo,{key},,\nal,,,"), "users, line 3: user \"al\" has no key"),
            (
                format!("jo,{key},,\nal,,{key},"),
                "users, line 3: another kind of device than above; one kind per file",
            ),
            ("jo,?,,".to_owned(), "users, line 2: the key is not base32"),
            (format!("jo,{key},,yes"), "users holds no users"),
        ] {
            let error = load(&format!("{header}\n{rows}\n")).err();
            assert_eq!(error.as_deref(), Some(expected));
        }
        let error = load("name\n").err().expect("unusable");
        assert!(error.starts_with("users, line 1: unknown column"), "{error}");
    }
}

//! A backup file as somebody brings it: any bytes but those that were written are refused, and the
//! part that is named is the first that differs.
//!
//! The bytes are taken as they are and once more with checksums that fit them, because random ones
//! never do.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use watchword::backup::{Backup, BackupError, Part, read_by};
use watchword::keys::PassphraseKey;

/// What was written, and its passphrase.
const WHOLE: &[u8] = include_bytes!("../corpus/backup_file/whole");
const PASSPHRASE: &[u8] = b"correct horse";

/// Its key. Deriving it takes longer than a thousand cases.
static KEY: OnceLock<PassphraseKey> = OnceLock::new();

fn read(bytes: &[u8]) -> Result<Backup, BackupError> {
    let derive = |salt: &[u8]| PassphraseKey::derive(PASSPHRASE, salt).expect("a key");
    read_by(bytes, |salt| Ok(KEY.get_or_init(|| derive(salt))))
}

fuzz_target!(init: drop(read(WHOLE).expect("it opens")), |bytes: &[u8]| {
    match read(bytes) {
        Ok(_) => assert_eq!(bytes, WHOLE),
        Err(error) => assert_eq!(named(&error), first_that_differs(bytes), "{error}"),
    }
    if let Some(fitting) = fitting(bytes) {
        assert_eq!(read(&fitting).is_ok(), fitting == WHOLE);
    }
});

/// The part that an error names; `None` for what follows the last one.
fn named(error: &BackupError) -> Option<Part> {
    match error {
        BackupError::Foreign | BackupError::Newer(_) => Some(Part::Header),
        BackupError::CutOff(part) | BackupError::Damaged(part) | BackupError::Changed(part) => {
            Some(*part)
        }
        // It is the first part under the key.
        BackupError::Passphrase => Some(Part::DataKeys),
        BackupError::Trailing => None,
        other => panic!("{other}"),
    }
}

/// The part of [`WHOLE`] that holds the first byte in which `bytes` differ.
fn first_that_differs(bytes: &[u8]) -> Option<Part> {
    let equal = WHOLE.iter().zip(bytes).take_while(|(one, other)| one == other).count();
    let lines: usize = WHOLE.split_inclusive(|&byte| byte == b'\n').take(3).map(<[u8]>::len).sum();
    let mut end = lines;
    let mut parts = [Part::Header, Part::DataKeys].into_iter().chain((1..).map(Part::State));
    while equal >= end {
        end += 8 + length_at(WHOLE, end)?;
        parts.next();
    }
    parts.next()
}

/// The length of the sealed part that begins there.
fn length_at(bytes: &[u8], at: usize) -> Option<usize> {
    let length = bytes.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(length)).ok()
}

/// The same with checksums that fit, as far as it has the shape of a backup.
fn fitting(bytes: &[u8]) -> Option<Vec<u8>> {
    let lines: Vec<_> = bytes.splitn(4, |&byte| byte == b'\n').collect();
    let [format, header, _, rest] = lines[..] else { return None };
    let mut fitting = [format, b"\n", header, b"\n"].concat();
    let digest = Sha256::digest(&fitting);
    fitting.extend(digest.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()));
    fitting.push(b'\n');
    let mut at = fitting.len();
    fitting.extend_from_slice(rest);
    while let Some(length) = length_at(&fitting, at) {
        let Some(sealed) = fitting.get(at + 8..at + 8 + length) else { break };
        let sum = crc32fast::hash(sealed).to_be_bytes();
        fitting[at + 4..at + 8].copy_from_slice(&sum);
        at += 8 + length;
    }
    Some(fitting)
}

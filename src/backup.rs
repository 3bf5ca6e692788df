//! The backup file: one state with its data keys, encrypted under a passphrase.
//!
//! ```text
//! watchword backup 1
//! {"cluster": …}                 the header: one line of JSON, in the clear
//! <SHA-256 of both, hex>
//! length, CRC-32, sealed bytes   the data keys
//! length, CRC-32, sealed bytes   the state, in pieces; the last one is marked as such
//! ```
//!
//! Each part is sealed for its place in this very file, so none can be exchanged, moved or left out.
//! The checksums tell damage from a wrong passphrase, and which part it is.

use std::borrow::Borrow;
use std::fmt;

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use watchword_core::State;
use watchword_core::snapshot::SnapshotError;
use zeroize::Zeroizing;

use crate::keys::{KeyError, Owner, PassphraseKey};
use crate::random::{self, RandomError};

const MAGIC: &str = "watchword backup ";
const FORMAT: u32 = 1;
const PIECE_BYTES: usize = 256 * 1024;
/// Longest sealed part that is believed, in bytes.
const PART_BYTES_MAX: usize = 2 * PIECE_BYTES;
/// Shortest passphrase, in bytes.
const PASSPHRASE_BYTES_MIN: usize = 8;

/// What a backup says of itself in the clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Id of the cluster that it is of.
    pub cluster: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// The release that made it.
    pub release: String,
    /// Index of the last entry in the state.
    pub index: u64,
    /// Salt of the passphrase, base64.
    salt: String,
}

/// A backup, opened.
pub struct Backup {
    /// What it says of itself.
    pub header: Header,
    /// The cluster's data keys.
    pub data_keys: Zeroizing<Vec<u8>>,
    /// The state.
    pub state: State,
}

impl fmt::Debug for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backup").field("header", &self.header).finish_non_exhaustive()
    }
}

/// A part of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The lines in the clear.
    Header,
    /// The data keys.
    DataKeys,
    /// A piece of the state, counted from one.
    State(u64),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("the header"),
            Self::DataKeys => f.write_str("the data key"),
            Self::State(piece) => write!(f, "piece {piece} of the state"),
        }
    }
}

/// Why a backup cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It is something else.
    #[error("this is no backup of Watchword")]
    Foreign,
    /// It is from a newer release.
    #[error("the backup has format {0}; this release reads format {FORMAT}")]
    Newer(u32),
    /// Bytes were lost.
    #[error("{0} is cut off")]
    CutOff(Part),
    /// Bytes have changed by accident.
    #[error("{0} is damaged")]
    Damaged(Part),
    /// Somebody has changed it, or parts of two backups were mixed.
    #[error("{0} was changed, or is of another backup")]
    Changed(Part),
    /// The passphrase is another one.
    #[error("the backup does not open with this passphrase")]
    Passphrase,
    /// The passphrase is no protection.
    #[error("the passphrase needs {PASSPHRASE_BYTES_MIN} characters at least")]
    PassphraseShort,
    /// There is more than there should be.
    #[error("something follows the end of the backup")]
    Trailing,
    /// The state cannot be read or written.
    #[error("the state cannot be read: {0}")]
    State(#[from] SnapshotError),
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The random number generator failed.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The state cannot be encoded.
    #[error("the state cannot be encoded: {0}")]
    Encode(#[from] watchword_core::codec::EncodeError),
    /// The header cannot be encoded.
    #[error("the header cannot be encoded")]
    Header(#[from] serde_json::Error),
}

/// What a new backup is to say of itself.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Id of the cluster.
    pub cluster: String,
    /// When it is made, RFC 3339.
    pub created: String,
    /// Index of the last entry in the state.
    pub index: u64,
}

/// A backup as bytes. Takes argon2's time.
///
/// # Errors
/// When the passphrase is too short, or the state cannot be encoded.
pub fn write(
    origin: Origin,
    passphrase: &[u8],
    data_keys: &[u8],
    state: &State,
) -> Result<Vec<u8>, BackupError> {
    if passphrase.len() < PASSPHRASE_BYTES_MIN {
        return Err(BackupError::PassphraseShort);
    }
    let salt = random::bytes::<16>()?;
    let Origin { cluster, created, index } = origin;
    let release = env!("CARGO_PKG_VERSION").to_owned();
    let header = Header { cluster, created, release, index, salt: BASE64.encode(&salt) };
    let mut bytes = format!("{MAGIC}{FORMAT}\n{}\n", serde_json::to_string(&header)?).into_bytes();
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(format!("{}\n", HEXLOWER.encode(&digest)).as_bytes());
    let key = PassphraseKey::derive(passphrase, &salt)?;
    let mut push = |part, is_last, clear: &[u8]| {
        let sealed = key.seal(place(&digest, part, is_last), clear)?;
        let sealed = sealed.as_bytes();
        let length = u32::try_from(sealed.len()).map_err(|_| KeyError::Seal)?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&crc32fast::hash(sealed).to_be_bytes());
        bytes.extend_from_slice(sealed);
        Ok::<_, BackupError>(())
    };
    push(Part::DataKeys, false, data_keys)?;
    let state = state.encode()?;
    let pieces: Vec<_> = state.chunks(PIECE_BYTES).collect();
    for (number, piece) in (1..).zip(&pieces) {
        push(Part::State(number), number == pieces.len() as u64, piece)?;
    }
    Ok(bytes)
}

/// Opens a backup and checks all of it. Takes argon2's time.
///
/// # Errors
/// Names the part that is damaged, cut off or changed.
pub fn read(bytes: &[u8], passphrase: &[u8]) -> Result<Backup, BackupError> {
    read_by(bytes, |salt| PassphraseKey::derive(passphrase, salt))
}

/// The same for whoever has derived the key of a salt before, and would not do so each time.
///
/// # Errors
/// As [`read`], and whatever `derive` gives.
pub fn read_by<K: Borrow<PassphraseKey>>(
    bytes: &[u8],
    derive: impl FnOnce(&[u8]) -> Result<K, KeyError>,
) -> Result<Backup, BackupError> {
    let (header, digest, mut rest) = read_header(bytes)?;
    let salt = BASE64.decode(header.salt.as_bytes());
    let salt = salt.map_err(|_| BackupError::Damaged(Part::Header))?;
    let key = derive(&salt)?;
    let key = key.borrow();
    let sealed = take_part(&mut rest, Part::DataKeys)?;
    let data_keys = key
        .open(place(&digest, Part::DataKeys, false), sealed)
        .map_err(|_| BackupError::Passphrase)?;
    let mut state = Vec::new();
    for number in 1.. {
        let part = Part::State(number);
        let sealed = take_part(&mut rest, part)?;
        let is_last = rest.is_empty();
        match key.open(place(&digest, part, is_last), sealed) {
            Ok(piece) => state.extend_from_slice(&piece),
            // Whole by itself: then it is the end that is not where it was.
            Err(_) if key.open(place(&digest, part, !is_last), sealed).is_ok() => {
                return Err(if is_last {
                    BackupError::CutOff(Part::State(number + 1))
                } else {
                    BackupError::Trailing
                });
            }
            Err(_) => return Err(BackupError::Changed(part)),
        }
        if is_last {
            break;
        }
    }
    Ok(Backup { header, data_keys, state: State::decode(&state)? })
}

/// The header and what follows it, with the digest that ties all parts to it.
fn read_header(bytes: &[u8]) -> Result<(Header, [u8; 32], &[u8]), BackupError> {
    let text = bytes.strip_prefix(MAGIC.as_bytes()).ok_or(BackupError::Foreign)?;
    let mut lines = text.splitn(4, |&byte| byte == b'\n');
    let mut line = || lines.next().ok_or(BackupError::CutOff(Part::Header));
    let (format, header, digest, rest) = (line()?, line()?, line()?, line()?);
    let damaged = || BackupError::Damaged(Part::Header);
    let format = std::str::from_utf8(format).ok().and_then(|format| format.parse().ok());
    match format.ok_or_else(damaged)? {
        FORMAT => {}
        newer => return Err(BackupError::Newer(newer)),
    }
    let told: [u8; 32] =
        HEXLOWER.decode(digest).ok().and_then(|told| told.try_into().ok()).ok_or_else(damaged)?;
    let covered = bytes.len() - rest.len() - digest.len() - 1;
    let digest: [u8; 32] = Sha256::digest(bytes.get(..covered).unwrap_or_default()).into();
    if digest != told {
        return Err(damaged());
    }
    Ok((serde_json::from_slice(header).map_err(|_| damaged())?, digest, rest))
}

/// Splits the next sealed part off, undamaged.
fn take_part<'b>(rest: &mut &'b [u8], part: Part) -> Result<&'b [u8], BackupError> {
    let cut_off = || BackupError::CutOff(part);
    let (length, after) = rest.split_first_chunk::<4>().ok_or_else(cut_off)?;
    let (crc, after) = after.split_first_chunk::<4>().ok_or_else(cut_off)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > PART_BYTES_MAX {
        return Err(BackupError::Damaged(part));
    }
    let (sealed, after) = after.split_at_checked(length).ok_or_else(cut_off)?;
    if crc32fast::hash(sealed) != u32::from_be_bytes(*crc) {
        return Err(BackupError::Damaged(part));
    }
    *rest = after;
    Ok(sealed)
}

/// What a part is sealed for: its place in the file with this header.
fn place(header: &[u8], part: Part, is_last: bool) -> Owner {
    let (kind, number) = match part {
        Part::Header => (0, 0),
        Part::DataKeys => (1, 0),
        Part::State(number) => (2, number),
    };
    let mut hash = Sha256::new();
    hash.update(header);
    hash.update([kind, u8::from(is_last)]);
    hash.update(number.to_be_bytes());
    let mut id = [0; 16];
    id.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
    Owner::BackupPart(id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSPHRASE: &[u8] = b"correct horse";

    fn origin() -> Origin {
        Origin { cluster: "c".into(), created: "2026-01-01T00:00:00Z".into(), index: 7 }
    }

    fn backup() -> Vec<u8> {
        write(origin(), PASSPHRASE, &[7; 32], &State::default()).expect("writes")
    }

    fn why(bytes: &[u8], passphrase: &[u8]) -> String {
        read(bytes, passphrase).expect_err("refused").to_string()
    }

    #[test]
    fn what_was_written_is_read_again() {
        let opened = read(&backup(), PASSPHRASE).expect("opens");
        assert_eq!((&**opened.data_keys, opened.header.index), (&[7_u8; 32][..], 7));
        let digest = |state: &State| state.digest().expect("encodes");
        assert_eq!(digest(&opened.state), digest(&State::default()));
        assert!(write(origin(), b"short", &[7; 32], &State::default()).is_err());
    }

    #[test]
    fn a_wrong_passphrase_and_a_foreign_file_are_told_apart_from_damage() {
        assert_eq!(why(&backup(), b"wrong horse"), BackupError::Passphrase.to_string());
        assert_eq!(why(b"PK\x03\x04", PASSPHRASE), BackupError::Foreign.to_string());
        let newer = [&b"watchword backup 9\n"[..], b"{}\n\n"].concat();
        assert!(why(&newer, PASSPHRASE).contains("format 9"));
    }

    #[test]
    fn the_damaged_part_is_named() {
        let whole = backup();
        let lines = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
        let body = lines.take(3).last().expect("three lines") + 1;
        let flipped = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            why(&bytes, PASSPHRASE)
        };
        assert_eq!(flipped(30), "the header is damaged");
        assert_eq!(flipped(body + 20), "the data key is damaged");
        assert_eq!(flipped(whole.len() - 1), "piece 1 of the state is damaged");
        assert_eq!(why(&whole[..body + 20], PASSPHRASE), "the data key is cut off");
        assert_eq!(why(&whole[..whole.len() - 1], PASSPHRASE), "piece 1 of the state is cut off");
        let longer = [&whole[..], &[0]].concat();
        assert_eq!(why(&longer, PASSPHRASE), BackupError::Trailing.to_string());
    }

    #[test]
    fn a_backup_that_was_changed_anywhere_does_not_open() {
        let whole = backup();
        let (header, ..) = read_header(&whole).expect("a header");
        let salt = BASE64.decode(header.salt.as_bytes()).expect("base64");
        // Once, so that not every case takes argon2's time.
        let key = PassphraseKey::derive(PASSPHRASE, &salt).expect("a key");
        proptest!(|(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            replaced in 0..200_usize,
        )| {
            prop_assert!(read_by(&bytes, |_| Ok(&key)).is_err());
            let at = at.index(whole.len() + 1);
            let behind = (at + replaced).min(whole.len());
            let changed = [&whole[..at], &bytes, &whole[behind..]].concat();
            prop_assert_eq!(read_by(&changed, |_| Ok(&key)).is_ok(), changed == whole);
        });
    }

    #[test]
    fn parts_of_two_backups_do_not_mix() {
        let (one, other) = (backup(), backup());
        let body = |bytes: &[u8]| {
            let (.., rest) = read_header(bytes).expect("a header");
            bytes.len() - rest.len()
        };
        let mixed = [&one[..body(&one)], &other[body(&other)..]].concat();
        assert_eq!(why(&mixed, PASSPHRASE), BackupError::Passphrase.to_string());
    }
}

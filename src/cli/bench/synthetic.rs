//! `watchword bench users`: users whose keys anybody can compute.
//!
//! The key of user *i* is HMAC-SHA-256(seed, kind, i), cut to the 20 bytes of an HMAC-SHA-1 key. So
//! two files made with the same seed hold the same users whatever their format, and a server
//! compared with Watchword is asked for the very same passcodes. These keys protect nothing.

use std::io::{self, BufWriter, Write};

use data_encoding::BASE32_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{BenchError, Kind, UsersArgs, UsersFormat};

/// RFC 4226 section 4 recommends 160 bits.
const KEY_BYTES: usize = 20;

/// Writes the users to standard output.
pub(super) fn run(args: &UsersArgs) -> Result<(), BenchError> {
    if args.format == UsersFormat::Freeradius && args.kind == Kind::Hotp {
        return Err(BenchError::FreeradiusHotp);
    }
    match write_users(args, BufWriter::new(io::stdout().lock())) {
        // `watchword bench users … | head` is a fine thing to do.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(BenchError::Output),
    }
}

/// A prefix that needs no quoting in any of the formats.
pub(super) fn parse_prefix(text: &str) -> Result<String, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let starts_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if is_plain && starts_well && text.len() <= 32 {
        Ok(text.to_owned())
    } else {
        Err("a prefix is a letter and up to 31 more letters and digits, all lower case".to_owned())
    }
}

fn write_users(args: &UsersArgs, mut out: impl Write) -> io::Result<()> {
    let UsersArgs { prefix, kind, .. } = args;
    match (args.format, kind) {
        (UsersFormat::Csv, Kind::Hotp) => writeln!(out, "username,hotp_key,counter")?,
        (UsersFormat::Csv, Kind::Totp) => writeln!(out, "username,totp_key")?,
        (UsersFormat::Freeradius, _) => {
            writeln!(out, "# keys for benches: anybody can compute them")?;
        }
        (UsersFormat::Oathtool, _) => {}
    }
    for index in 1..=args.count {
        let key = BASE32_NOPAD.encode(&key(args.seed, *kind, index));
        match (args.format, kind) {
            (UsersFormat::Csv, Kind::Hotp) => writeln!(out, "{prefix}{index:07},{key},0")?,
            (UsersFormat::Csv, Kind::Totp) => writeln!(out, "{prefix}{index:07},{key}")?,
            (UsersFormat::Freeradius, _) => {
                writeln!(out, "{prefix}{index:07} TOTP-Secret := \"{key}\"")?;
            }
            (UsersFormat::Oathtool, Kind::Hotp) => {
                writeln!(out, "oathtool --hotp --counter 0 --base32 {key} # {prefix}{index:07}")?;
            }
            (UsersFormat::Oathtool, Kind::Totp) => {
                writeln!(out, "oathtool --totp --base32 {key} # {prefix}{index:07}")?;
            }
        }
    }
    out.flush()
}

fn key(seed: u64, kind: Kind, index: u32) -> [u8; KEY_BYTES] {
    // The kind counts, so that one seed gives no user two devices with one key.
    let kind: &[u8] = match kind {
        Kind::Hotp => b"hotp",
        Kind::Totp => b"totp",
    };
    // An HMAC key may have any length, so the error that the type allows cannot happen.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&seed.to_be_bytes()) else {
        return [0; KEY_BYTES];
    };
    mac.update(b"watchword bench ");
    mac.update(kind);
    mac.update(&index.to_be_bytes());
    let digest = mac.finalize().into_bytes();
    digest.first_chunk().copied().unwrap_or([0; KEY_BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(kind: Kind, format: UsersFormat, seed: u64) -> String {
        let args = UsersArgs { count: 3, kind, prefix: "bench".to_owned(), seed, format };
        let mut out = Vec::new();
        write_users(&args, &mut out).expect("memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn the_import_understands_them() {
        for kind in [Kind::Hotp, Kind::Totp] {
            let text = written(kind, UsersFormat::Csv, 1);
            let rows = crate::admin::read_rows(text.as_bytes()).expect("header");
            let rows: Vec<_> = rows.map(|(_, row)| row.expect("a user")).collect();
            assert_eq!(rows.len(), 3);
            assert_eq!(rows[2].user.username, "bench0000003");
            let key_text = rows[2].device.as_ref().and_then(|device| device.key.clone());
            let expected = BASE32_NOPAD.encode(&key(1, kind, 3));
            assert_eq!(key_text.as_deref(), Some(expected.as_str()));
        }
    }

    #[test]
    fn every_format_holds_the_same_keys() {
        let key = BASE32_NOPAD.encode(&key(1, Kind::Totp, 2));
        for format in [UsersFormat::Csv, UsersFormat::Freeradius, UsersFormat::Oathtool] {
            assert!(written(Kind::Totp, format, 1).contains(&key));
            assert!(!written(Kind::Totp, format, 2).contains(&key));
        }
        assert!(!written(Kind::Hotp, UsersFormat::Csv, 1).contains(&key));
    }

    #[test]
    fn a_prefix_needs_no_quoting() {
        assert!(parse_prefix("bench2").is_ok());
        for prefix in ["", "2b", "Bench", "a b", "a,b", "a\"", "ä"] {
            assert!(parse_prefix(prefix).is_err(), "{prefix}");
        }
    }
}

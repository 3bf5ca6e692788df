//! Which passcodes were used, kept beside the users file from one run to the next.
//!
//! Without it a second run would offer used passcodes, and a server that rightly refuses them would
//! look broken. The file names each key by its hash, so that counters of other users, or of users
//! made anew under the same names, are not mistaken for these.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::BenchError;
use super::users::{User, Users};

/// Where the counters of `users_file` are kept.
pub(super) fn path_of(users_file: &Path) -> PathBuf {
    let mut path = users_file.as_os_str().to_owned();
    path.push(".counters");
    path.into()
}

/// The first unused counter or time step of each of `users`, as far as `path` or their own file
/// tells.
pub(super) fn load(path: &Path, users: &Users) -> Result<Vec<u64>, BenchError> {
    let known = match File::open(path) {
        Ok(file) => read(path, file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => HashMap::new(),
        Err(source) => return Err(BenchError::Read { path: path.to_owned(), source }),
    };
    let next = |user: &User| known.get(&key_id(user)).copied().unwrap_or(0).max(user.first);
    Ok(users.all.iter().map(next).collect())
}

/// Writes what [`load`] reads. The old file stays whole until the new one is complete.
pub(super) fn save(path: &Path, users: &Users, next: &[u64]) -> Result<(), BenchError> {
    let write = || {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let mut out = BufWriter::new(File::create(&part)?);
        writeln!(out, "key_id,next")?;
        for (user, next) in users.all.iter().zip(next) {
            if *next > user.first {
                writeln!(out, "{},{next}", key_id(user))?;
            }
        }
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(part, path)
    };
    write().map_err(|source| BenchError::Write { path: path.to_owned(), source })
}

fn read(path: &Path, file: File) -> Result<HashMap<String, u64>, BenchError> {
    let bad = |line, reason: String| BenchError::Line { path: path.to_owned(), line, reason };
    let mut known = HashMap::new();
    for (number, record) in (2..).zip(csv::Reader::from_reader(BufReader::new(file)).records()) {
        let record = record.map_err(|error| bad(number, error.to_string()))?;
        let next = record.get(1).and_then(|next| next.parse().ok());
        let (Some(id), Some(next)) = (record.get(0), next) else {
            return Err(bad(number, "not a key and a number".to_owned()));
        };
        known.insert(id.to_owned(), next);
    }
    Ok(known)
}

/// Names a user's key without telling it.
fn key_id(user: &User) -> String {
    let digest = Sha256::new().chain_update(&user.name[..]).chain_update(&user.key[..]).finalize();
    HEXLOWER.encode(digest.get(..12).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(directory: &Path, names: &[&str]) -> Users {
        let path = directory.join("users.csv");
        let rows = names.iter().map(|name| format!("{name},GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ,3\n"));
        let text = format!("username,hotp_key,counter\n{}", rows.collect::<String>());
        std::fs::write(&path, text).expect("written");
        Users::load(&path).expect("users")
    }

    #[test]
    fn counters_come_back_for_the_same_users() {
        let directory = tempfile::tempdir().expect("directory");
        let path = path_of(&directory.path().join("users.csv"));
        assert!(path.ends_with("users.csv.counters"));
        let two = users(directory.path(), &["jo", "al"]);
        assert_eq!(load(&path, &two).expect("absent"), [3, 3]);
        save(&path, &two, &[9, 3]).expect("saved");
        assert_eq!(load(&path, &two).expect("there"), [9, 3]);
        let others = users(directory.path(), &["bo", "jo"]);
        assert_eq!(load(&path, &others).expect("there"), [3, 9]);
    }

    #[test]
    fn a_damaged_file_is_named_by_line() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("counters");
        std::fs::write(&path, "key_id,next\nab,1\nab,x\n").expect("written");
        let error = load(&path, &users(directory.path(), &["jo"])).expect_err("damaged");
        assert!(error.to_string().ends_with("line 3: not a key and a number"), "{error}");
    }
}

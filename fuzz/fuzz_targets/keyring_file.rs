//! A keyring file as a disk may give it back: any bytes open to the keys that were written, or are
//! refused as damaged. And data keys as they come from another node: any bytes.

#![no_main]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use watchword::config::KeySource;
use watchword::keys::{DataKey, KeyError, Keyring};

/// What was written, and the key that wraps it.
const WHOLE: &[u8] = include_bytes!("../corpus/keyring_file/by_key");
const WRAPPING: &[u8] = &[b'7'; 64];

/// A directory of this process, and what wraps the keyring in it.
static PLACE: LazyLock<(PathBuf, KeySource)> = LazyLock::new(|| {
    let process = std::process::id().to_string();
    let target = concat!(env!("CARGO_MANIFEST_DIR"), "/target/keyring_file");
    let dir = PathBuf::from(target).join(process);
    fs::create_dir_all(&dir).expect("a directory");
    let key = dir.join("key");
    for (file, text) in [(&key, WRAPPING), (&dir.join("keyring.json"), WHOLE)] {
        fs::write(file, text).expect("writes");
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("chmod");
    }
    (dir, KeySource::File(key))
});

static WRITTEN: LazyLock<Keyring> =
    LazyLock::new(|| Keyring::load(&PLACE.0, &PLACE.1).expect("it opens"));

fuzz_target!(init: { LazyLock::force(&WRITTEN); }, |bytes: &[u8]| {
    fs::write(PLACE.0.join("keyring.json"), bytes).expect("writes");
    match Keyring::load(&PLACE.0, &PLACE.1) {
        Ok(keys) => assert_eq!(keys.ids(), WRITTEN.ids()),
        Err(KeyError::KeyringMalformed(_) | KeyError::WrongKey(_)) => {}
        Err(KeyError::WrappedOtherwise { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    if let Ok(key) = DataKey::decode(bytes) {
        assert_eq!(key.encode()[..], *bytes);
    }
    let _ = WRITTEN.holds(bytes);
});

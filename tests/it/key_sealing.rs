//! The data key of a node under a key that is not in a file: a credential from systemd, or a key
//! within a PKCS#11 token, which SoftHSM2 plays.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use data_encoding::{BASE64, HEXLOWER, HEXUPPER};
use tempfile::TempDir;
use watchword::config::{Config, KeySource};
use watchword::keys::Keyring;
use watchword::radius::packet::Code;

use crate::harness::{Directory, Nas, Node, Outcome, run};
use crate::radius_login::KEY;

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "837465";
/// Tells a test that it was run again by itself, and where SoftHSM2 has its settings.
const RUN_AGAIN: &str = "WATCHWORD_TEST_TOKEN";

/// A node's directory, and the variable that its commands need.
struct Sealed {
    directory: Directory,
    variable: (&'static str, PathBuf),
}

impl Sealed {
    /// A node that has this in the place of its key file.
    fn new(key: &str, variable: (&'static str, &Path)) -> Self {
        let directory = Directory::new();
        let config = fs::read_to_string(directory.config()).expect("its file");
        let changed = config.replace("[key]\nkey_file = \"data.key\"\n", key);
        assert_ne!(changed, config);
        directory.write_file("watchword.toml", &changed);
        Self { directory, variable: (variable.0, variable.1.to_owned()) }
    }

    /// Replaces a part of the node's file.
    fn edit(&self, old: &str, new: &str) {
        let config = fs::read_to_string(self.directory.config()).expect("its file");
        assert!(config.contains(old), "{old} is not in {config}");
        self.directory.write_file("watchword.toml", &config.replace(old, new));
    }

    fn cli(&self, arguments: &[&str]) -> Outcome {
        let (name, value) = &self.variable;
        run(self.directory.command(arguments).env(name, value), "")
    }

    fn serve(self) -> (Node, (&'static str, PathBuf)) {
        let Self { directory, variable } = self;
        let node = directory.serve_by(|command| command.env(variable.0, &variable.1));
        (node, variable)
    }

    /// Every command that needs the key says why it cannot have it, and leaves the data as it is.
    fn refused_by(&self, commands: &[&str], reason: &str) {
        let before = contents(&self.directory.path("data"));
        for command in commands {
            let said = self.cli(&[command]).refused();
            assert!(said.contains(reason), "{command}: {said}");
        }
        let said = self.cli(&["check"]);
        assert_eq!(said.status, Some(1), "{said}");
        let line = said.stdout.lines().find(|line| line.starts_with("FAILED  key: "));
        assert!(line.is_some_and(|line| line.contains(reason)), "{reason}: {said}");
        assert_eq!(contents(&self.directory.path("data")), before, "{reason}");
    }
}

/// All files below `dir`; none when it is not there.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else if let Ok(bytes) = fs::read(&path) {
            found.insert(path, bytes);
        }
    }
    found
}

/// Makes the node, logs in, crashes it, and logs in again.
fn serve_through_a_crash(sealed: Sealed) -> Directory {
    let made = sealed.cli(&["init"]);
    assert!(made.stderr.is_empty(), "nothing to warn of: {made}");
    made.done();
    let (node, variable) = sealed.serve();
    node.add_client("vpn", "127.0.0.1", &["--first-factor", "none"]);
    node.import(&format!("username,hotp_key\nalice,{}\n", KEY.0));
    assert_eq!(Nas::new(&node).login("alice", &KEY.passcode(0)), Code::AccessAccept);
    let (node, _) = Sealed { directory: node.kill(), variable }.serve();
    let mut nas = Nas::new(&node);
    assert_eq!(nas.login("alice", &KEY.passcode(0)), Code::AccessReject);
    assert_eq!(nas.login("alice", &KEY.passcode(1)), Code::AccessAccept);
    node.stop().0
}

/// The key is in none of the node's files, however somebody might have written it down.
fn assert_nowhere(directory: &Directory, key: &[u8]) {
    let spellings = [
        key.to_vec(),
        HEXLOWER.encode(key).into_bytes(),
        HEXUPPER.encode(key).into_bytes(),
        BASE64.encode(key).into_bytes(),
    ];
    let files = contents(&directory.path("data"));
    assert!(files.len() >= 4, "{:?}", files.keys());
    let is_in = |text: &[u8], part: &[u8]| text.windows(part.len()).any(|window| window == part);
    for (path, text) in &files {
        for spelling in &spellings {
            assert!(!is_in(text, spelling), "the key is in {}", path.display());
        }
    }
    // The search finds what is there.
    assert!(files.values().any(|text| is_in(text, b"alice")), "the search is blind");
}

// systemd

const DIGITS: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";

/// A directory such as systemd makes for a unit.
fn credentials(text: &str) -> TempDir {
    let dir = tempfile::Builder::new().prefix("watchword-it-").tempdir().expect("a directory");
    fs::write(dir.path().join("data-key"), text).expect("a file");
    let mode = Permissions::from_mode(0o440);
    fs::set_permissions(dir.path().join("data-key"), mode).expect("chmod");
    dir
}

fn sealed_by_credential(credentials: &Path) -> Sealed {
    let key = "[key]\nsystemd_credential = \"data-key\"\n";
    Sealed::new(key, ("CREDENTIALS_DIRECTORY", credentials))
}

#[test]
fn a_credential_from_systemd_opens_the_node_and_its_log() {
    let credentials = credentials(&format!("{DIGITS}\n"));
    let directory = serve_through_a_crash(sealed_by_credential(credentials.path()));
    // A key file with the same digits is the same key.
    let file = directory.write_file("data.key", DIGITS);
    let keys = Keyring::load(&directory.path("data"), &KeySource::File(file)).expect("opens");
    assert_nowhere(&directory, keys.current().as_bytes());
    let wrapping = HEXLOWER.decode(DIGITS.to_lowercase().as_bytes()).expect("digits");
    assert_nowhere(&directory, &wrapping);
}

#[test]
fn a_missing_or_wrong_credential_is_refused_and_changes_nothing() {
    let [good, short, other] = [DIGITS, "0011", &"7".repeat(64)].map(credentials);
    let mut sealed = sealed_by_credential(good.path());
    let without = |sealed: &Sealed, command: &str| {
        run(sealed.directory.command(&[command]).env_remove("CREDENTIALS_DIRECTORY"), "").refused()
    };
    let said = without(&sealed, "init");
    assert!(said.contains("systemd_credential: CREDENTIALS_DIRECTORY is not set"), "{said}");
    assert!(said.contains("LoadCredentialEncrypted=data-key:"), "{said}");
    let absent = "the unit needs LoadCredentialEncrypted=other-name:";
    let malformed = "data-key does not hold 64 hexadecimal digits";
    sealed.edit("data-key", "other-name");
    sealed.refused_by(&["init"], absent);
    sealed.edit("other-name", "data-key");
    sealed.variable.1 = short.path().to_owned();
    sealed.refused_by(&["init"], malformed);
    assert!(contents(&sealed.directory.path("data")).is_empty());

    sealed.variable.1 = good.path().to_owned();
    sealed.cli(&["init"]).done();
    let before = contents(&sealed.directory.path("data"));
    assert!(without(&sealed, "serve").contains("CREDENTIALS_DIRECTORY is not set"));
    sealed.edit("data-key", "other-name");
    sealed.refused_by(&["serve"], absent);
    sealed.edit("other-name", "data-key");
    sealed.variable.1 = short.path().to_owned();
    sealed.refused_by(&["serve"], malformed);
    sealed.variable.1 = other.path().to_owned();
    sealed.refused_by(&["serve"], "does not open with the configured key");
    assert_eq!(contents(&sealed.directory.path("data")), before);
    sealed.variable.1 = good.path().to_owned();
    let said = sealed.cli(&["check"]).done();
    assert!(said.contains("credential data-key opens the data key"), "{said}");
}

// PKCS#11

/// A SoftHSM2 of the test's own, with one token.
struct SoftHsm {
    dir: TempDir,
}

impl SoftHsm {
    /// One with an AES key in its token.
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("watchword-it-").tempdir().expect("a directory");
        let tokens = dir.path().join("tokens");
        fs::create_dir(&tokens).expect("a directory");
        let settings = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
        fs::write(dir.path().join("softhsm2.conf"), settings).expect("a file");
        let token = Self { dir };
        let mut make = Command::new("softhsm2-util");
        make.args(["--init-token", "--free", "--label", "mfa", "--so-pin", "5678", "--pin", PIN]);
        run(make.env("SOFTHSM2_CONF", token.conf()), "").done();
        token.make_key("wrapping", &[]);
        token
    }

    fn conf(&self) -> PathBuf {
        self.dir.path().join("softhsm2.conf")
    }

    fn tool(&self, arguments: &[&str]) {
        let mut tool = Command::new("pkcs11-tool");
        tool.args(["--module", MODULE, "--token-label", "mfa", "--login", "--pin", PIN]);
        run(tool.args(arguments).env("SOFTHSM2_CONF", self.conf()), "").done();
    }

    fn make_key(&self, label: &str, more: &[&str]) {
        let make = ["--keygen", "--key-type", "AES:32", "--label", label];
        self.tool(&[&make[..], more].concat());
    }

    fn delete_key(&self, label: &str) {
        self.tool(&["--delete-object", "--type", "secrkey", "--label", label]);
    }
}

/// A node whose data key the token wraps that SoftHSM2 finds by `conf`.
fn sealed_by_token(conf: &Path) -> Sealed {
    let key = format!(
        "[key.pkcs11]\nmodule = \"{MODULE}\"\ntoken = \"mfa\"\nkey = \"wrapping\"\n\
         pin_file = \"pin\"\n"
    );
    let sealed = Sealed::new(&key, ("SOFTHSM2_CONF", conf));
    sealed.directory.write_file("pin", &format!("{PIN}\n"));
    sealed
}

/// A test that uses a token within its own process needs an environment that names the token. So
/// the test `name` runs itself again, in a process of its own; there, and only there, this yields
/// what [`sealed_by_token`] does.
fn sealed_for_own_process(name: &str) -> Option<Sealed> {
    if let Some(conf) = env::var_os(RUN_AGAIN) {
        return Some(sealed_by_token(Path::new(&conf)));
    }
    let token = SoftHsm::new();
    let mut again = Command::new(env::current_exe().expect("this program"));
    again.args(["--exact", &format!("key_sealing::{name}")]);
    again.env(RUN_AGAIN, token.conf()).env("SOFTHSM2_CONF", token.conf());
    let said = run(&mut again, "").done();
    assert!(said.contains("1 passed"), "{said}");
    None
}

fn source(directory: &Directory) -> KeySource {
    let config = Config::read(&directory.config()).expect("it is right");
    config.key_source().expect("one way")
}

#[test]
fn a_key_within_a_token_opens_the_node_and_its_log() {
    let name = "a_key_within_a_token_opens_the_node_and_its_log";
    let Some(sealed) = sealed_for_own_process(name) else { return };
    let directory = serve_through_a_crash(sealed);
    let data = directory.path("data");
    let keys = Keyring::load(&data, &source(&directory)).expect("opens");
    assert_nowhere(&directory, keys.current().as_bytes());
}

#[test]
fn a_data_key_moves_from_a_file_into_a_token_and_back() {
    let name = "a_data_key_moves_from_a_file_into_a_token_and_back";
    let Some(sealed) = sealed_for_own_process(name) else { return };
    let token = source(&sealed.directory);
    let file = KeySource::File(sealed.directory.path("data.key"));
    let dir = sealed.directory.path("data");
    fs::create_dir(&dir).expect("a directory");
    let keys = Keyring::create(&dir, &file).expect("creates");
    for (new, old) in [(&token, &file), (&file, &token), (&token, &file)] {
        keys.rewrap(new).expect("wraps");
        let again = Keyring::load(&dir, new).expect("opens");
        assert_eq!(again.current().as_bytes(), keys.current().as_bytes());
        let error = Keyring::load(&dir, old).expect_err("the old way is over").to_string();
        assert!(error.contains("the data key is wrapped by "), "{error}");
    }
    // The token's bytes differ each time, as the initialisation vector does.
    let keyring = || fs::read(dir.join("keyring.json")).expect("it is there");
    let before = keyring();
    keys.rewrap(&token).expect("wraps");
    assert_ne!(keyring(), before);
}

/// What is wrong with the node's file, and what is then said of it.
const FAULTS: &[(&str, &str, &str)] = &[
    (
        MODULE,
        "/nonexistent/module.so",
        "cannot use PKCS#11 module /nonexistent/module.so: /nonexistent/module.so: cannot open",
    ),
    ("token = \"mfa\"", "token = \"other\"", "libsofthsm2.so knows no token other"),
    ("\"pin\"", "\"bad-pin\"", "token mfa refuses the PIN in "),
    ("\"pin\"", "\"exposed-pin\"", "no PIN for PKCS#11 token mfa: "),
    ("\"pin\"", "\"absent-pin\"", "no PIN for PKCS#11 token mfa: cannot access "),
    ("\"pin\"", "\"empty-pin\"", "does not hold the PIN"),
    (
        "\"wrapping\"",
        "\"absent\"",
        "token mfa holds no AES key absent; make it: pkcs11-tool --module \
         /usr/lib/softhsm/libsofthsm2.so --token-label 'mfa' --login --keygen --key-type AES:32 \
         --label 'absent'",
    ),
    ("\"wrapping\"", "\"twins\"", "token mfa holds several AES keys twins"),
    ("\"wrapping\"", "\"loose\"", "key loose may leave PKCS#11 token mfa"),
    ("\"wrapping\"", "\"rsa\"", "token mfa holds no AES key rsa"),
];

fn every_fault_is_refused(sealed: &mut Sealed, command: &str, token: &SoftHsm) {
    for (right, wrong, said) in FAULTS {
        sealed.edit(right, wrong);
        sealed.refused_by(&[command], said);
        sealed.edit(wrong, right);
    }
    let conf = fs::read_to_string(token.conf()).expect("its settings");
    let other = token.dir.path().join("without-gcm.conf");
    let weaker = format!("{conf}slots.mechanisms = CKM_AES_KEY_GEN,CKM_AES_CBC\n");
    fs::write(&other, weaker).expect("a file");
    sealed.variable.1 = other;
    sealed.refused_by(&[command], "PKCS#11 token mfa cannot do AES-GCM");
    sealed.variable.1 = token.conf();
}

#[test]
fn what_is_amiss_with_a_token_is_named_and_changes_nothing() {
    let token = SoftHsm::new();
    token.make_key("twins", &[]);
    token.make_key("twins", &[]);
    token.make_key("loose", &["--extractable"]);
    token.tool(&["--keypairgen", "--key-type", "RSA:2048", "--label", "rsa"]);
    let mut sealed = sealed_by_token(&token.conf());
    for (name, text) in [("bad-pin", "999999"), ("exposed-pin", PIN), ("empty-pin", "\n")] {
        sealed.directory.write_file(name, text);
    }
    let exposed = sealed.directory.path("exposed-pin");
    fs::set_permissions(exposed, Permissions::from_mode(0o640)).expect("chmod");
    every_fault_is_refused(&mut sealed, "init", &token);
    assert!(contents(&sealed.directory.path("data")).is_empty());
    let said = sealed.cli(&["check"]).done();
    assert!(said.contains("key wrapping of token mfa can be used"), "{said}");

    sealed.cli(&["init"]).done();
    every_fault_is_refused(&mut sealed, "serve", &token);
    let said = sealed.cli(&["check"]).done();
    assert!(said.contains("key wrapping of token mfa opens the data key"), "{said}");
    let said = sealed.cli(&["init"]).refused();
    assert!(!said.contains(PIN), "{said}");
}

#[test]
fn another_key_of_the_same_name_and_a_damaged_keyring_do_not_open() {
    let token = SoftHsm::new();
    let sealed = sealed_by_token(&token.conf());
    sealed.cli(&["init"]).done();
    let keyring = sealed.directory.path("data/keyring.json");
    let intact = fs::read_to_string(&keyring).expect("it is there");
    let (_, wrapped) = intact.split_once("wrapped_data_keys\": \"").expect("a field");
    let (wrapped, _) = wrapped.split_once('"').expect("it ends");
    let damage = |at: usize| {
        let mut bytes = BASE64.decode(wrapped.as_bytes()).expect("base64");
        bytes[at] ^= 1;
        let damaged = intact.replace(wrapped, &BASE64.encode(&bytes));
        sealed.directory.write_file("data/keyring.json", &damaged);
        sealed.refused_by(&["serve"], "key wrapping of PKCS#11 token mfa does not open");
    };
    // Initialisation vector, ciphertext, tag.
    [0, 20, 59].into_iter().for_each(damage);
    sealed.directory.write_file("data/keyring.json", &intact);
    token.delete_key("wrapping");
    sealed.refused_by(&["serve"], "token mfa holds no AES key wrapping; make it: pkcs11-tool");
    token.make_key("wrapping", &[]);
    sealed.refused_by(&["serve"], "key wrapping of PKCS#11 token mfa does not open the data key");
}

//! The node's own file, `watchword.toml`: what may differ between two nodes.
//!
//! Everything else is a replicated setting. Unknown keys are refused, so that a misspelt one cannot
//! be ignored in silence. Secrets are named by file, never written here.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where this node keeps its log, snapshots, keyring and admin socket. Only the user that runs
    /// Watchword may have access.
    pub data_dir: PathBuf,
    /// What wraps the cluster's data key: exactly one of the ways in [`KeyConfig`].
    #[serde(default)]
    pub key: KeyConfig,
    /// The port for the cluster's other nodes.
    #[serde(default)]
    pub peers: PeersConfig,
    /// The RADIUS front.
    #[serde(default)]
    pub radius: RadiusConfig,
    /// Metrics and health.
    #[serde(default)]
    pub metrics: MetricsConfig,
    /// The log on standard error.
    #[serde(default)]
    pub log: LogConfig,
    /// Timing of the consensus.
    #[serde(default)]
    pub raft: RaftConfig,
}

/// `[key]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// A file of 64 hexadecimal digits, readable by its owner alone. `init` makes it when missing.
    pub key_file: Option<PathBuf>,
    /// A file with a passphrase, readable by its owner alone.
    pub passphrase_file: Option<PathBuf>,
    /// The name of a credential that systemd hands to the unit (`LoadCredentialEncrypted=`): 64
    /// hexadecimal digits.
    pub systemd_credential: Option<String>,
    /// A key within a PKCS#11 token.
    pub pkcs11: Option<Pkcs11Config>,
}

impl KeyConfig {
    /// Takes relative paths from the directory of the node's file.
    fn resolve(&mut self, file: &Path) {
        let base = file.parent().unwrap_or(Path::new(""));
        let Self { key_file, passphrase_file, systemd_credential: _, pkcs11 } = self;
        let mut files: Vec<_> = key_file.iter_mut().chain(passphrase_file).collect();
        if let Some(Pkcs11Config { module, token: _, key: _, pin_file }) = pkcs11 {
            files.extend([module, pin_file]);
        }
        for file in files {
            *file = base.join(&*file);
        }
    }

    /// The one way that is named; `None` when there is none or more than one.
    fn source(&self) -> Option<KeySource> {
        let Self { key_file, passphrase_file, systemd_credential, pkcs11 } = self.clone();
        let ways = [
            key_file.map(KeySource::File),
            passphrase_file.map(KeySource::Passphrase),
            systemd_credential.map(KeySource::SystemdCredential),
            pkcs11.map(KeySource::Pkcs11),
        ];
        let mut named = ways.into_iter().flatten();
        let only = named.next()?;
        named.next().is_none().then_some(only)
    }
}

/// `[key.pkcs11]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11Config {
    /// The library that speaks to the token.
    pub module: PathBuf,
    /// The label of the token.
    pub token: String,
    /// The label of an AES key in it that cannot be taken out.
    pub key: String,
    /// A file with the PIN of the token's user, readable by its owner alone.
    pub pin_file: PathBuf,
}

/// `[peers]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PeersConfig {
    /// Where this node listens for other nodes.
    pub listen: SocketAddr,
    /// Where other nodes reach this one: host and port. Needed when `listen` names no single host.
    pub advertise: Option<String>,
}

impl Default for PeersConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([0, 0, 0, 0], 7400)), advertise: None }
    }
}

impl PeersConfig {
    /// Where other nodes reach this one. A node that listens everywhere and names no host is known
    /// by the name of its host.
    pub fn advertised(&self) -> String {
        match &self.advertise {
            Some(address) => address.clone(),
            None if self.listen.ip().is_unspecified() => {
                let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
                let host = host.as_deref().map_or("localhost", str::trim);
                format!("{host}:{}", self.listen.port())
            }
            None => self.listen.to_string(),
        }
    }
}

/// `[radius]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RadiusConfig {
    /// Addresses to answer on.
    pub listen: Vec<SocketAddr>,
    /// Requests that may be under way at once; above that the newest are dropped.
    pub in_flight_max: usize,
    /// How long a reply is kept to be sent again for a copy of its request (RFC 5080 section 2.2.2).
    #[serde(with = "humantime_serde")]
    pub duplicate_window: Duration,
}

impl Default for RadiusConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 1812))],
            in_flight_max: 4_096,
            duplicate_window: Duration::from_secs(30),
        }
    }
}

/// `[metrics]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// Address of `/metrics`, `/health/live` and `/health/ready`.
    pub listen: SocketAddr,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 7480)) }
    }
}

/// `[log]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `text` or `json`.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`, or filters per module (`info,watchword::radius=debug`).
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// `[raft]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaftConfig {
    /// The timing, unless it is given below. All nodes of a cluster need the same.
    pub profile: Profile,
    /// How often the leader calls.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Option<Duration>,
    /// Shortest silence of the leader after which a node stands for election.
    #[serde(with = "humantime_serde")]
    pub election_min: Option<Duration>,
    /// Longest such silence.
    #[serde(with = "humantime_serde")]
    pub election_max: Option<Duration>,
    /// How long a node that joins must have kept up before it votes.
    #[serde(with = "humantime_serde")]
    pub promote_after: Duration,
    /// Entries after which a node takes a snapshot and forgets old ones.
    pub snapshot_after: Option<u64>,
    /// How often the nodes compare what they hold, if anything has changed.
    #[serde(with = "humantime_serde")]
    pub compare_every: Duration,
}

impl Default for RaftConfig {
    fn default() -> Self {
        Self {
            profile: Profile::Lan,
            heartbeat: None,
            election_min: None,
            election_max: None,
            promote_after: Duration::from_secs(2),
            snapshot_after: None,
            compare_every: Duration::from_secs(60),
        }
    }
}

/// How far the nodes are from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// A few milliseconds at most.
    Lan,
    /// Sites that are tens of milliseconds apart. A leader that is lost is missed for longer.
    Wan,
}

impl RaftConfig {
    /// Heartbeat, and shortest and longest election timeout.
    pub fn timing(&self) -> [Duration; 3] {
        let [heartbeat, min, max] = match self.profile {
            Profile::Lan => [100, 300, 600],
            Profile::Wan => [300, 1_200, 2_400],
        }
        .map(Duration::from_millis);
        [
            self.heartbeat.unwrap_or(heartbeat),
            self.election_min.unwrap_or(min),
            self.election_max.unwrap_or(max),
        ]
    }
}

/// What wraps the data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file that holds a key.
    File(PathBuf),
    /// A file that holds a passphrase.
    Passphrase(PathBuf),
    /// A credential of this name, from systemd, that holds a key.
    SystemdCredential(String),
    /// A key that stays within a PKCS#11 token.
    Pkcs11(Pkcs11Config),
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Passphrase(path) => path.display().fmt(f),
            Self::SystemdCredential(name) => write!(f, "credential {name}"),
            Self::Pkcs11(Pkcs11Config { token, key, .. }) => {
                write!(f, "key {key} of token {token}")
            }
        }
    }
}

/// Why a file is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML, or holds something that it should not.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line, column and reason, in one line.
        reason: String,
    },
    /// No way of wrapping the data key, or more than one.
    #[error(
        "{0}: [key] needs exactly one of key_file, passphrase_file, systemd_credential and pkcs11"
    )]
    KeySource(PathBuf),
    /// A number makes no sense.
    #[error("{path}: {reason}")]
    OutOfRange {
        /// The file.
        path: PathBuf,
        /// Which and why.
        reason: &'static str,
    },
}

/// Reads `text`, which is what `path` holds.
fn read_toml<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let line = error
            .span()
            .and_then(|span| text.get(..span.start))
            .map_or(1, |before| before.matches('\n').count() + 1);
        let reason = format!("line {line}: {}", error.message().replace('\n', ", "));
        ConfigError::Malformed { path: path.to_owned(), reason }
    })
}

impl Config {
    /// Reads and checks `path`. Relative paths in it are taken from its own directory.
    ///
    /// # Errors
    /// Names the file, and the line and key where it is wrong.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config = Self::parse(path, &text)?;
        config.data_dir = path.parent().unwrap_or(Path::new("")).join(&config.data_dir);
        config.key.resolve(path);
        Ok(config)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = read_toml(path, text)?;
        let Some(source) = config.key.source() else {
            return Err(ConfigError::KeySource(path.to_owned()));
        };
        let out_of_range = |reason| ConfigError::OutOfRange { path: path.to_owned(), reason };
        if let KeySource::SystemdCredential(name) = source
            && (name.contains('/') || matches!(&*name, "" | "." | ".."))
        {
            return Err(out_of_range(
                "[key] systemd_credential is the name of a credential, not a path",
            ));
        }
        let [heartbeat, election_min, election_max] = config.raft.timing();
        if heartbeat.is_zero() || heartbeat * 2 > election_min || election_min >= election_max {
            return Err(out_of_range(
                "[raft] needs 0 < heartbeat, 2 heartbeats within election_min, and \
                 election_min < election_max",
            ));
        }
        let entries = config.raft.snapshot_after;
        if entries.is_some_and(|entries| !(100..=100_000_000).contains(&entries)) {
            return Err(out_of_range("[raft] snapshot_after must be between 100 and 100000000"));
        }
        if !(1..=86_400).contains(&config.raft.compare_every.as_secs()) {
            return Err(out_of_range("[raft] compare_every must be between 1s and 1day"));
        }
        if config.radius.in_flight_max == 0 || config.radius.in_flight_max > 1_000_000 {
            return Err(out_of_range("[radius] in_flight_max must be between 1 and 1000000"));
        }
        Ok(config)
    }

    /// What `[key]` in `path` names, whatever else it holds.
    ///
    /// # Errors
    /// Names the file, and what is wrong with it.
    pub fn read_key_source(path: &Path) -> Result<KeySource, ConfigError> {
        #[derive(Deserialize)]
        struct KeyOnly {
            #[serde(default)]
            key: KeyConfig,
        }
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config: KeyOnly = read_toml(path, &text)?;
        config.key.resolve(path);
        config.key.source().ok_or_else(|| ConfigError::KeySource(path.to_owned()))
    }

    /// What wraps the data key.
    pub fn key_source(&self) -> Option<KeySource> {
        self.key.source()
    }

    /// The socket through which the command line speaks to the node.
    pub fn admin_socket(&self) -> PathBuf {
        self.data_dir.join("admin.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("watchword.toml"), text)
    }

    #[test]
    fn the_shortest_file_gets_the_defaults() {
        let config = parse("data_dir = 'd'\n[key]\nkey_file = 'k'\n").expect("parses");
        assert_eq!(config.radius.listen, ["0.0.0.0:1812".parse().expect("address")]);
        assert_eq!(config.metrics.listen.port(), 7480);
        assert_eq!(config.key_source(), Some(KeySource::File("k".into())));
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_line() {
        let error = parse("data_dir = 'd'\n[key]\nkey_fil = 'k'\n").expect_err("refused");
        let text = error.to_string();
        assert!(text.contains("line 3") && text.contains("key_fil"), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }

    #[test]
    fn the_data_key_is_wrapped_in_exactly_one_way() {
        let pkcs11 = Pkcs11Config {
            module: "m".into(),
            token: "t".to_owned(),
            key: "k".to_owned(),
            pin_file: "p".into(),
        };
        let ways = [
            ("key_file = 'f'", KeySource::File("f".into())),
            ("passphrase_file = 'f'", KeySource::Passphrase("f".into())),
            ("systemd_credential = 'c'", KeySource::SystemdCredential("c".to_owned())),
            (
                "pkcs11 = { module = 'm', token = 't', key = 'k', pin_file = 'p' }",
                KeySource::Pkcs11(pkcs11),
            ),
        ];
        let with = |key: &str| parse(&format!("data_dir = 'd'\n[key]\n{key}\n"));
        assert!(matches!(with(""), Err(ConfigError::KeySource(_))));
        assert!(matches!(parse("data_dir = 'd'\n"), Err(ConfigError::KeySource(_))));
        for (number, (way, source)) in ways.iter().enumerate() {
            let config = with(way).expect("one way");
            assert_eq!(config.key_source().as_ref(), Some(source));
            for (other, _) in ways.iter().skip(number + 1) {
                let error = with(&format!("{way}\n{other}"));
                assert!(matches!(error, Err(ConfigError::KeySource(_))), "{way} {other}");
            }
        }
    }

    #[test]
    fn a_credential_is_named_not_pointed_at() {
        for name in ["", ".", "..", "a/b", "/etc/key"] {
            let text = format!("data_dir = 'd'\n[key]\nsystemd_credential = '{name}'\n");
            assert!(matches!(parse(&text), Err(ConfigError::OutOfRange { .. })), "{name}");
        }
    }

    #[test]
    fn relative_paths_are_taken_from_the_directory_of_the_file() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("watchword.toml");
        let text = "data_dir = 'd'\n[key.pkcs11]\nmodule = 'm.so'\ntoken = 't'\nkey = 'k'\n\
                    pin_file = '/etc/pin'\n";
        std::fs::write(&path, text).expect("writes");
        let config = Config::read(&path).expect("parses");
        assert_eq!(config.data_dir, dir.path().join("d"));
        let pkcs11 = config.key.pkcs11.expect("it is there");
        assert_eq!(pkcs11.module, dir.path().join("m.so"));
        assert_eq!(pkcs11.pin_file, Path::new("/etc/pin"));
    }

    #[test]
    fn what_raft_cannot_work_with_is_refused() {
        for raft in [
            "heartbeat = '200ms'",
            "snapshot_after = 99",
            "snapshot_after = 100000001",
            "compare_every = '999ms'",
            "compare_every = '25h'",
        ] {
            let text = format!("data_dir = 'd'\n[key]\nkey_file = 'k'\n[raft]\n{raft}\n");
            assert!(matches!(parse(&text), Err(ConfigError::OutOfRange { .. })), "{raft}");
        }
    }
}

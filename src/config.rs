//! The node's own file, `watchword.toml`: what may differ between two nodes.
//!
//! Everything else is a replicated setting. Unknown keys are refused, so that a misspelt one cannot
//! be ignored in silence. Secrets are named by file, never written here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where this node keeps its log, snapshots, keyring and admin socket. Only the user that runs
    /// Watchword may have access.
    pub data_dir: PathBuf,
    /// What wraps the cluster's data key: exactly one of `key_file` and `passphrase_file`.
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
}

impl Default for RaftConfig {
    fn default() -> Self {
        Self {
            profile: Profile::Lan,
            heartbeat: None,
            election_min: None,
            election_max: None,
            promote_after: Duration::from_secs(2),
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
    /// Both or neither way of wrapping the data key.
    #[error("{0}: [key] needs exactly one of key_file and passphrase_file")]
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

impl Config {
    /// Reads and checks `path`. Relative paths in it are taken from its own directory.
    ///
    /// # Errors
    /// Names the file, and the line and key where it is wrong.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config = Self::parse(path, &text)?;
        let base = path.parent().unwrap_or(Path::new(""));
        let KeyConfig { key_file, passphrase_file } = &mut config.key;
        let files = [Some(&mut config.data_dir), key_file.as_mut(), passphrase_file.as_mut()];
        for file in files.into_iter().flatten() {
            *file = base.join(&*file);
        }
        Ok(config)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .and_then(|span| text.get(..span.start))
                .map_or(1, |before| before.matches('\n').count() + 1);
            let reason = format!("line {line}: {}", error.message().replace('\n', ", "));
            ConfigError::Malformed { path: path.to_owned(), reason }
        })?;
        let KeyConfig { key_file, passphrase_file } = &config.key;
        if key_file.is_some() == passphrase_file.is_some() {
            return Err(ConfigError::KeySource(path.to_owned()));
        }
        let out_of_range = |reason| ConfigError::OutOfRange { path: path.to_owned(), reason };
        let [heartbeat, election_min, election_max] = config.raft.timing();
        if heartbeat.is_zero() || heartbeat * 2 > election_min || election_min >= election_max {
            return Err(out_of_range(
                "[raft] needs 0 < heartbeat, 2 heartbeats within election_min, and \
                 election_min < election_max",
            ));
        }
        if config.radius.in_flight_max == 0 || config.radius.in_flight_max > 1_000_000 {
            return Err(out_of_range("[radius] in_flight_max must be between 1 and 1000000"));
        }
        Ok(config)
    }

    /// What wraps the data key.
    pub fn key_source(&self) -> Option<KeySource> {
        let KeyConfig { key_file, passphrase_file } = &self.key;
        match (key_file, passphrase_file) {
            (Some(file), _) => Some(KeySource::File(file.clone())),
            (None, Some(file)) => Some(KeySource::Passphrase(file.clone())),
            (None, None) => None,
        }
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
        for key in ["", "[key]\nkey_file = 'k'\npassphrase_file = 'p'\n"] {
            let error = parse(&format!("data_dir = 'd'\n{key}"));
            assert!(matches!(error, Err(ConfigError::KeySource(_))), "{key}");
        }
    }

    #[test]
    fn impossible_timing_is_refused() {
        let text = "data_dir = 'd'\n[key]\nkey_file = 'k'\n[raft]\nheartbeat = '200ms'\n";
        assert!(matches!(parse(text), Err(ConfigError::OutOfRange { .. })));
    }
}

//! `watchword bench`: a load generator that checks every reply, and the users to run it with.
//!
//! It exists so that figures about Watchword, and about what Watchword is compared with, can be
//! reproduced by anybody from the shipped binary. It speaks RADIUS to any server, knows nothing
//! about the cluster, and must never report a throughput that rests on a reply it did not verify.

mod counters;
mod generator;
mod interrupt;
mod lane;
mod latency;
mod load;
mod pool;
mod report;
#[cfg(test)]
mod responder;
mod silence;
mod synthetic;
mod tally;
mod users;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Subcommand, ValueEnum};

use crate::radius::request::MessageAuthenticatorRule;

/// Measure a RADIUS server, and check every reply
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  watchword bench users --count 100000 --kind hotp > bench.csv
  watchword bench radius --server 127.0.0.1:1812 --secret-file secret --users-file bench.csv")]
pub struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Log users in over RADIUS as fast as the server answers
    ///
    /// Keeps a fixed number of logins in flight. Every login is another user's, with a passcode
    /// that was never used before, and every reply is verified. Exit status 1 means that a reply
    /// was wrong, or that a valid passcode was not accepted.
    Radius(RadiusArgs),
    /// Write users for benches to standard output
    ///
    /// The keys follow from the seed, for anybody to compute: never import them where a login opens
    /// something.
    Users(UsersArgs),
}

/// Arguments of `bench radius`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  watchword bench users --count 100000 --kind hotp > bench.csv
  watchword user import bench.csv
  watchword bench radius --server 127.0.0.1:1812 --secret-file secret --users-file bench.csv
  watchword bench radius --server 127.0.0.1:1812 --secret-file secret --users-file bench.csv \\
      --in-flight 1,32,256 --seconds 5 --format json

Which counters and time steps were used is kept beside the users, in USERS_FILE.counters, so
that the next run goes on from there. Delete that file when the server is set up anew.")]
struct RadiusArgs {
    /// Where the server listens; repeat it to spread the logins over several nodes
    #[arg(long = "server", value_name = "ADDRESS:PORT", required = true)]
    servers: Vec<SocketAddr>,
    /// File that holds the shared secret; a line end at its end is not part of it
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
    /// Users and keys, as for `watchword user import`; one kind of device per file
    #[arg(long, value_name = "FILE")]
    users_file: PathBuf,
    /// Logins under way at once; a list makes one run each
    #[arg(long, value_name = "N[,N…]", value_delimiter = ',', default_value = "256",
          value_parser = clap::value_parser!(u32).range(1..=16_384))]
    in_flight: Vec<u32>,
    /// How long to measure, after the warm-up
    #[arg(long, value_name = "N", default_value_t = 10, conflicts_with = "requests",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// How many logins to measure, instead of how long
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// Time before the measurement; its logins are checked and not measured
    #[arg(long, value_name = "TIME", default_value = "1s",
          value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// How long to wait for a reply before the same octets are sent again
    #[arg(long, value_name = "TIME", default_value = "1s",
          value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// How often to send a request again before its outcome counts as unknown
    #[arg(long, value_name = "N", default_value_t = 2)]
    retries: u32,
    /// Password of every user: what is sent is PASSWORD,PASSCODE
    #[arg(long, value_name = "TEXT")]
    password: Option<String>,
    /// Whether requests carry a Message-Authenticator
    #[arg(long, value_name = "yes|no", default_value = "yes", action = ArgAction::Set,
          value_parser = clap::builder::BoolishValueParser::new(), hide_possible_values = true)]
    message_authenticator: bool,
    /// Whether a reply without Message-Authenticator is wrong; one that is there is always checked
    #[arg(long, value_name = "RULE", default_value = "required")]
    reply_message_authenticator: ReplyRule,
    /// Begin each run at the start of a TOTP time step
    ///
    /// For servers that accept the current step only: a run that is shorter than a step then meets
    /// no passcode that went stale on its way.
    #[arg(long)]
    align_step: bool,
    /// How to print the result
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

/// Arguments of `bench users`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  watchword bench users --count 100000 --kind hotp > bench.csv
  watchword bench users --count 100000 --kind totp --format freeradius > authorize
  watchword bench users --count 3 --kind totp --format oathtool | sh")]
struct UsersArgs {
    /// How many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    count: u32,
    /// What each of them holds
    #[arg(long)]
    kind: Kind,
    /// What their names begin with
    #[arg(long, default_value = "bench", value_parser = synthetic::parse_prefix)]
    prefix: String,
    /// What their keys derive from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// `csv` for `watchword user import`, `freeradius` for mods-config/files/authorize, `oathtool`
    /// for commands that print the passcodes
    #[arg(long, value_name = "FORMAT", default_value = "csv")]
    format: UsersFormat,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// What a reply must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ReplyRule {
    Required,
    Optional,
}

impl From<ReplyRule> for MessageAuthenticatorRule {
    fn from(rule: ReplyRule) -> Self {
        match rule {
            ReplyRule::Required => Self::Required,
            ReplyRule::Optional => Self::Optional,
        }
    }
}

/// Which OATH device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Hotp,
    Totp,
}

/// Who is to read the users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum UsersFormat {
    Csv,
    Freeradius,
    Oathtool,
}

/// Why there is no figure, or none to rely on. Exit status 1 in each case.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The counters cannot be kept.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The result or the users cannot be printed.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// The secret file holds nothing.
    #[error("{path} holds no shared secret")]
    Secret {
        /// The file.
        path: PathBuf,
    },
    /// A line of the users file or of its counters is unusable.
    #[error("{path}, line {line}: {reason}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// There is nobody to log in.
    #[error("{path} holds no users")]
    NoUsers {
        /// The file.
        path: PathBuf,
    },
    /// Each login in flight needs its own user.
    #[error("{in_flight} logins in flight need as many users, and there are {users}")]
    TooFewUsers {
        /// What was asked for.
        in_flight: u32,
        /// What there is.
        users: usize,
    },
    /// A request cannot be built: a name or password is too long.
    #[error("the request of user {username:?} cannot be built: {reason}")]
    Build {
        /// The user.
        username: String,
        /// What is wrong.
        reason: String,
    },
    /// A socket failed in a way that is not the server's silence.
    #[error("cannot exchange datagrams with {server}")]
    Socket {
        /// The server.
        server: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Interrupts cannot be watched, or a thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// A thread of the generator died: its counts are lost.
    #[error("a thread of the load generator died")]
    ThreadDied,
    /// The random number generator failed.
    #[error(transparent)]
    Random(#[from] crate::random::RandomError),
    /// `rlm_totp` knows no counters.
    #[error("freeradius has no module for hotp; use --kind totp")]
    FreeradiusHotp,
    /// Everything was measured, and the server did something wrong.
    #[error("{0}")]
    Verdict(String),
}

/// Runs `watchword bench …`. The result goes to standard output.
///
/// # Errors
/// When nothing could be measured, or the server answered wrongly: exit status 1.
pub fn run(args: BenchArgs) -> Result<(), BenchError> {
    match args.command {
        BenchCommand::Radius(args) => load::run(&args),
        BenchCommand::Users(args) => synthetic::run(&args),
    }
}

//! The command line: a contract that scripts rely on.
//!
//! Exit status 0: done. 1: refused or failed, with the reason in one line on standard error. 2: wrong
//! usage. One file per group of commands.

mod attempts;
mod backup;
pub mod bench;
mod check;
mod clients;
mod demo;
mod devices;
mod directories;
mod import;
mod input;
mod log_dump;
mod members;
mod output;
mod rekey;
mod rescue;
mod serve;
mod settings;
mod socket;
mod status;
mod test_login;
mod users;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::error_chain::chain;

/// Exit status of a command that was refused or failed.
const FAILED: u8 = 1;

/// Multi-factor authentication that runs as a cluster.
#[derive(Parser)]
#[command(name = "watchword", version, propagate_version = true, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a throw-away cluster with demo users and print how to log in
    Demo(demo::DemoArgs),
    /// Make the first node of a new cluster
    Init(serve::InitArgs),
    /// Run a node
    Serve(serve::ServeArgs),
    /// Validate the node's file and try each thing it names
    Check(check::CheckArgs),
    /// Show how the node and the cluster are
    Status(status::StatusArgs),
    /// Join a cluster, and run the node
    Join(members::JoinArgs),
    /// List the nodes of the cluster
    Members(members::MembersArgs),
    /// Tokens that let nodes join
    #[command(subcommand)]
    Token(members::TokenCommand),
    /// Hand leadership to another node
    Transfer(members::TransferArgs),
    /// Take this node out of service, or put it back
    Drain(members::DrainArgs),
    /// Remove a node from the cluster, for ever
    Remove(members::RemoveArgs),
    /// Remove a node and let another take its place
    Replace(members::ReplaceArgs),
    /// Go on with this node alone when a majority is lost for good
    Recover(rescue::RecoverArgs),
    /// Replace the data key of the cluster, or what wraps it on this node
    Rekey(rekey::RekeyArgs),
    /// Write everything into one encrypted file
    Backup(backup::BackupArgs),
    /// Check a backup
    Verify(backup::VerifyArgs),
    /// Make the first node of a new cluster from a backup
    Restore(backup::RestoreArgs),
    /// Users: who logs in
    #[command(subcommand)]
    User(users::UserCommand),
    /// Devices: what a user holds
    #[command(subcommand)]
    Device(devices::DeviceCommand),
    /// Clients: who may ask
    #[command(subcommand)]
    Client(clients::ClientCommand),
    /// Directories: who knows the users' passwords
    #[command(subcommand)]
    Directory(directories::DirectoryCommand),
    /// Replicated settings
    #[command(subcommand)]
    Settings(settings::SettingsCommand),
    /// The replicated record of attempts
    Attempts(attempts::AttemptsArgs),
    /// Try one login, step by step
    Test(test_login::TestArgs),
    /// The log and the snapshot
    #[command(subcommand)]
    Log(log_dump::LogCommand),
    /// Load generators that check every reply
    Bench(bench::BenchArgs),
}

/// Which node to speak to.
#[derive(Args, Clone, Debug)]
struct NodeArgs {
    /// The node's file
    #[arg(
        long,
        value_name = "FILE",
        env = "WATCHWORD_CONFIG",
        default_value = "/etc/watchword/watchword.toml",
        global = true
    )]
    config: PathBuf,
}

/// Why a command was not carried out: one line for the user.
#[derive(Debug)]
struct Failure(String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(chain(&error))
    }
}

impl Failure {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

type Done = Result<(), Failure>;

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(reason)) => {
            eprintln!("watchword: {}", reason.replace('\n', " "));
            ExitCode::from(FAILED)
        }
    }
}

fn run(command: Command) -> Done {
    // One provider for all of TLS, named before anything can ask for it.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return Err(Failure::new("a second cryptography provider is installed"));
    }
    match command {
        Command::Demo(args) => demo::run(args),
        Command::Init(args) => serve::init(&args),
        Command::Serve(args) => serve::serve(&args),
        Command::Check(args) => check::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Join(args) => members::join(&args),
        Command::Members(args) => members::members(&args),
        Command::Token(command) => members::token(command),
        Command::Transfer(args) => members::transfer(&args),
        Command::Drain(args) => members::drain(&args),
        Command::Remove(args) => members::remove(&args),
        Command::Replace(args) => members::replace(&args),
        Command::Recover(args) => rescue::recover(&args),
        Command::Rekey(args) => rekey::run(&args),
        Command::Backup(args) => backup::backup(&args),
        Command::Verify(args) => backup::verify(&args),
        Command::Restore(args) => backup::restore(&args),
        Command::User(command) => users::run(command),
        Command::Device(command) => devices::run(command),
        Command::Client(command) => clients::run(command),
        Command::Directory(command) => directories::run(command),
        Command::Settings(command) => settings::run(command),
        Command::Attempts(args) => attempts::run(&args),
        Command::Test(args) => test_login::run(&args),
        Command::Log(command) => log_dump::run(command),
        Command::Bench(args) => Ok(bench::run(args)?),
    }
}

/// A runtime for commands that talk to a node.
fn small_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// A runtime for a node.
fn node_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

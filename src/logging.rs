//! The log on standard error: lines for people, or JSON.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::{LogConfig, LogFormat};

/// Starts logging. Once per process; a second call changes nothing.
///
/// # Errors
/// When the level is not a filter.
pub fn start(config: &LogConfig) -> Result<(), ParseError> {
    // The consensus library tells its inner life at "info", and warns at every heartbeat of a peer
    // that is away, of which we have told once; that is debugging for us. What its handle and its
    // heartbeats complain of while this node stops, it returns to its callers besides.
    let quiet = "openraft=error,openraft::raft=off,openraft::core::heartbeat=off";
    let filter = EnvFilter::try_new(format!("{quiet},{}", config.level))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let started = match config.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(error, "logging runs already");
    }
    Ok(())
}

//! `status`.

use clap::Args;

use super::output::{FormatArgs, properties};
use super::socket::Connection;
use super::{Done, NodeArgs};
use crate::admin::StatusView;

#[derive(Args)]
#[command(after_help = "Example:\n  watchword status --format json")]
pub(super) struct StatusArgs {
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

pub(super) fn run(args: &StatusArgs) -> Done {
    let status: StatusView = Connection::open(&args.node)?.get("/v1/status")?;
    args.format.print(&status, |status| {
        let leader = status.leader.map_or("none".to_owned(), |leader| leader.to_string());
        let voters: Vec<String> = status.voters.iter().map(u64::to_string).collect();
        properties([
            ("node", format!("{} ({})", status.node, status.role)),
            (
                "ready",
                status
                    .not_ready
                    .as_ref()
                    .map_or("yes".to_owned(), |reason| format!("no: {reason}")),
            ),
            ("fault", status.fault.clone().unwrap_or_else(|| "none".to_owned())),
            (
                "clock",
                status.clock_error_ms.map_or_else(
                    || "not compared yet".to_owned(),
                    |error| format!("{error:+} ms from the median"),
                ),
            ),
            (
                "states",
                match (status.states_differ_at, status.states_equal_at) {
                    (Some(index), _) => format!("DIFFER between nodes since entry {index}"),
                    (None, Some(index)) => format!("equal on all nodes at entry {index}"),
                    (None, None) => "not compared yet".to_owned(),
                },
            ),
            ("leader", format!("{leader}, term {}", status.term)),
            ("voters", voters.join(", ")),
            ("failure tolerance", status.failure_tolerance.to_string()),
            (
                "log",
                format!(
                    "last {}, applied {}, snapshot {}",
                    status.last_log, status.applied, status.snapshot
                ),
            ),
            ("time", status.time.clone()),
            (
                "content",
                format!(
                    "{} users, {} devices, {} clients, {} attempts",
                    status.users, status.devices, status.clients, status.attempts
                ),
            ),
            ("data key", data_key(status)),
            ("feature level", status.feature_level.to_string()),
            ("settings revision", status.settings_revision.to_string()),
            ("version", status.version.clone()),
        ])
    })
}

fn data_key(status: &StatusView) -> String {
    let key = status.data_key.as_deref().unwrap_or("none yet");
    match (status.rekey_unfinished, status.data_keys_held) {
        (true, _) => format!("{key}; a replacement is UNFINISHED, run: watchword rekey --rotate"),
        (false, 0..=1) => key.to_owned(),
        // For a moment after a replacement, or for good after one that did not come about.
        (false, held) => format!("{key}; the keyring of this node holds {held}"),
    }
}

//! `log dump`: the log and the snapshot in readable form. Secrets stay sealed.

use clap::{Args, Subcommand};
use serde_json::json;
use watchword_cluster::{Content, Dump, Members, dump};

use super::output::{Format, FormatArgs, print_line};
use super::{Done, Failure, NodeArgs};
use crate::admin::rfc3339;
use crate::config::Config;

#[derive(Subcommand)]
pub(super) enum LogCommand {
    /// Print the snapshot's summary and every entry; the node must be stopped
    Dump(DumpArgs),
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  watchword log dump --format json --config /etc/watchword/watchword.toml"
)]
pub(super) struct DumpArgs {
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

pub(super) fn run(command: LogCommand) -> Done {
    let LogCommand::Dump(args) = command;
    let config = Config::read(&args.node.config)?;
    let dump = dump(&config.data_dir)?;
    match args.format.format {
        Format::Table => print_text(&dump),
        Format::Json => print_json(&dump),
    }
}

fn print_text(dump: &Dump) -> Done {
    let number = |value: Option<u64>| value.map_or("none".to_owned(), |value| value.to_string());
    print_line(&format!(
        "vote term {}, committed {}, purged {}",
        number(dump.vote_term),
        number(dump.committed),
        number(dump.purged)
    ))?;
    if let Some(snapshot) = &dump.snapshot {
        print_line(&format!(
            "snapshot {} (term {}): {} users, {} devices, {} attempts, members {}, digest {}",
            snapshot.index,
            snapshot.term,
            snapshot.state.user_count(),
            snapshot.state.device_count(),
            snapshot.state.attempts().next(),
            describe(&snapshot.members),
            digest(&snapshot.state)?
        ))?;
    }
    for entry in &dump.entries {
        let content = match &entry.content {
            Content::Nothing => "begin of term".to_owned(),
            Content::Members(members) => format!("members {}", describe(members)),
            Content::Command(entry) => format!("{} {:?}", rfc3339(entry.time), entry.command),
        };
        let (index, term, leader) = (entry.index, entry.term, entry.leader);
        print_line(&format!("{index} (term {term}, node {leader}) {content}"))?;
    }
    Ok(())
}

/// One JSON object per line: the snapshot first, then each entry.
fn print_json(dump: &Dump) -> Done {
    if let Some(snapshot) = &dump.snapshot {
        let line = json!({
            "snapshot": snapshot.index,
            "term": snapshot.term,
            "users": snapshot.state.user_count(),
            "devices": snapshot.state.device_count(),
            "attempts": snapshot.state.attempts().next(),
            "voters": snapshot.members.voters,
            "digest": digest(&snapshot.state)?,
        });
        print_line(&line.to_string())?;
    }
    for entry in &dump.entries {
        let content = match &entry.content {
            Content::Nothing => json!(null),
            Content::Members(members) => json!({"members": members.voters}),
            Content::Command(entry) => serde_json::to_value(entry)?,
        };
        let line = json!({
            "index": entry.index, "term": entry.term, "leader": entry.leader, "entry": content,
        });
        print_line(&line.to_string())?;
    }
    Ok(())
}

fn digest(state: &watchword_core::State) -> Result<String, Failure> {
    Ok(data_encoding::HEXLOWER.encode(&state.digest()?))
}

fn describe(members: &Members) -> String {
    format!("{:?}", members.voters)
}

//! `settings …`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::output::{FormatArgs, print_line, table};
use super::socket::Connection;
use super::{Done, Failure, NodeArgs};
use crate::admin::{SettingView, SettingsChangeView, SettingsEdit, SettingsView};

#[derive(Subcommand)]
pub(super) enum SettingsCommand {
    /// Show every setting with its range and meaning
    #[command(after_help = "Example:\n  watchword settings show --format json")]
    Show(ShowArgs),
    /// Print one value
    Get(GetArgs),
    /// Change one setting
    Set(SetArgs),
    /// Show what `apply` would change
    Plan(PlanArgs),
    /// Make the settings what a file says, all or none
    Apply(ApplyArgs),
    /// Show the latest changes
    #[command(after_help = "Example:\n  watchword settings history --format json")]
    History(ShowArgs),
    /// Make the settings what they were at a revision
    Rollback(RollbackArgs),
}

#[derive(Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword settings get lockout.minutes")]
pub(super) struct GetArgs {
    /// The setting
    key: String,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  watchword settings set lockout.minutes 30\n  \
                        watchword settings set lockout.minutes --default")]
pub(super) struct SetArgs {
    /// The setting
    key: String,
    /// The value
    #[arg(required_unless_present = "default", conflicts_with = "default")]
    value: Option<String>,
    /// Go back to the default
    #[arg(long)]
    default: bool,
    /// Only if the settings still have this revision
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword settings plan settings.toml\n\n\
                        The file holds lines such as\n  \"lockout.minutes\" = 30\n\
                        A setting that it does not name goes back to its default.")]
pub(super) struct PlanArgs {
    /// TOML file of settings
    file: PathBuf,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword settings apply settings.toml --if-revision 1234")]
pub(super) struct ApplyArgs {
    /// TOML file of settings
    file: PathBuf,
    /// Only if the settings still have this revision
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword settings rollback 1234")]
pub(super) struct RollbackArgs {
    /// A revision that `settings history` shows; 0 is the defaults
    revision: u64,
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) fn run(command: SettingsCommand) -> Done {
    match command {
        SettingsCommand::Show(args) => {
            let view = fetch(&mut Connection::open(&args.node)?)?;
            args.format.print(&view, |view| {
                let mut table = table(&["SETTING", "VALUE", "RANGE", "MEANING"]);
                for row in &view.settings {
                    let value =
                        if row.is_default { row.value.clone() } else { format!("{} *", row.value) };
                    table.add_row([row.key.clone(), value, row.range.clone(), row.doc.clone()]);
                }
                table
            })
        }
        SettingsCommand::Get(args) => {
            let view = fetch(&mut Connection::open(&args.node)?)?;
            print_line(&row(&view, &args.key)?.value)
        }
        SettingsCommand::Set(args) => {
            let changes = BTreeMap::from([(args.key.clone(), args.value)]);
            let edit = SettingsEdit { changes, if_revision: args.if_revision };
            let view: SettingsView = Connection::open(&args.node)?.patch("/v1/settings", &edit)?;
            let row = row(&view, &args.key)?;
            print_line(&format!("{} = {} (revision {})", row.key, row.value, view.revision))
        }
        SettingsCommand::Plan(args) => {
            let view = fetch(&mut Connection::open(&args.node)?)?;
            let lines = describe(&view, &differences(&view, &args.file)?);
            print_line(&format!("{lines}\nrevision {}", view.revision))
        }
        SettingsCommand::Apply(args) => apply(&args),
        SettingsCommand::History(args) => {
            let history: Vec<SettingsChangeView> =
                Connection::open(&args.node)?.get("/v1/settings/history")?;
            args.format.print(&history, |history| {
                let mut table = table(&["REVISION", "TIME", "BY", "CHANGES"]);
                for change in history {
                    let (time, by) = (change.time.clone(), change.by.clone());
                    let changes = change.changes.join("\n");
                    table.add_row([change.revision.to_string(), time, by, changes]);
                }
                table
            })
        }
        SettingsCommand::Rollback(args) => {
            let path = format!("/v1/settings/rollback/{}", args.revision);
            let view: SettingsView = Connection::open(&args.node)?.post(&path, &())?;
            print_line(&format!("settings are as at {}; revision {}", args.revision, view.revision))
        }
    }
}

fn apply(args: &ApplyArgs) -> Done {
    let mut node = Connection::open(&args.node)?;
    let view = fetch(&mut node)?;
    let changes = differences(&view, &args.file)?;
    if changes.is_empty() {
        return print_line(&format!("nothing to change; revision {}", view.revision));
    }
    let lines = describe(&view, &changes);
    // The plan was made against this revision: whoever changed something since is not overruled.
    let if_revision = Some(args.if_revision.unwrap_or(view.revision));
    let edit = SettingsEdit { changes, if_revision };
    let view: SettingsView = node.patch("/v1/settings", &edit)?;
    print_line(&format!("{lines}\nrevision {}", view.revision))
}

fn fetch(node: &mut Connection) -> Result<SettingsView, Failure> {
    node.get("/v1/settings")
}

fn row<'a>(view: &'a SettingsView, key: &str) -> Result<&'a SettingView, Failure> {
    let found = view.settings.iter().find(|row| row.key == key);
    found.ok_or_else(|| Failure::new(format!("there is no setting {key:?}")))
}

/// What must change so that the settings are what `file` says.
fn differences(
    view: &SettingsView,
    file: &Path,
) -> Result<BTreeMap<String, Option<String>>, Failure> {
    let failed = |reason: String| Failure::new(format!("{}: {reason}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    let wanted: BTreeMap<String, toml::Value> =
        toml::from_str(&text).map_err(|error| failed(error.message().to_owned()))?;
    let mut changes = BTreeMap::new();
    for (key, value) in &wanted {
        let row = row(view, key).map_err(|Failure(reason)| failed(reason))?;
        let value = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            _ => return Err(failed(format!("{key} takes a number or a text"))),
        };
        if row.value != value {
            changes.insert(key.clone(), Some(value));
        }
    }
    for row in view.settings.iter().filter(|row| !row.is_default) {
        if !wanted.contains_key(&row.key) {
            changes.insert(row.key.clone(), None);
        }
    }
    Ok(changes)
}

fn describe(view: &SettingsView, changes: &BTreeMap<String, Option<String>>) -> String {
    if changes.is_empty() {
        return "nothing to change".to_owned();
    }
    let line = |(key, value): (&String, &Option<String>)| {
        let before = view.settings.iter().find(|row| row.key == *key).map(|row| row.value.as_str());
        let after = value.as_deref().unwrap_or("(default)");
        format!("{key}: {} -> {after}", before.unwrap_or_default())
    };
    changes.iter().map(line).collect::<Vec<_>>().join("\n")
}

//! `user …`.

use clap::{Args, Subcommand};
use comfy_table::Table;

use super::import::{self, ImportArgs};
use super::input::ask_new_password;
use super::output::{FormatArgs, print_line, properties, table};
use super::socket::{Connection, path};
use super::{Done, NodeArgs};
use crate::admin::{BlockSpec, BypassSpec, UserEdit, UserSpec, UserView, UsersPage};

#[derive(Subcommand)]
pub(super) enum UserCommand {
    /// Add a user
    Add(AddArgs),
    /// Show a user
    Show(ShowArgs),
    /// List users by name
    List(ListArgs),
    /// Change a user
    Edit(EditArgs),
    /// Refuse the user everywhere
    #[command(after_help = "Example:\n  watchword user disable jo")]
    Disable(NameArgs),
    /// Undo disable
    #[command(after_help = "Example:\n  watchword user enable jo")]
    Enable(NameArgs),
    /// Refuse the user for a while, with a reason
    Block(BlockArgs),
    /// Lift a block and any lock
    #[command(after_help = "Example:\n  watchword user unblock jo")]
    Unblock(NameArgs),
    /// Let the user in once without passcode
    Bypass(BypassArgs),
    /// Remove a user and all devices
    #[command(after_help = "Example:\n  watchword user delete jo")]
    Delete(NameArgs),
    /// Add users from a CSV file
    Import(ImportArgs),
}

#[derive(Args)]
pub(super) struct NameArgs {
    /// The user, in any spelling
    user: String,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  watchword user add jo --full-name 'Jo Doe' --group vpn --password"
)]
pub(super) struct AddArgs {
    /// The user's name
    user: String,
    /// Full name
    #[arg(long, default_value = "")]
    full_name: String,
    /// Mail address
    #[arg(long, default_value = "")]
    mail: String,
    /// A group; may be repeated
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Ask for a local password (standard input when that is no terminal)
    #[arg(long)]
    password: bool,
    /// Add the user disabled
    #[arg(long)]
    disabled: bool,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword user show jo --format json")]
pub(super) struct ShowArgs {
    /// The user, in any spelling
    user: String,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword user list --limit 20")]
pub(super) struct ListArgs {
    /// Begin after this name
    #[arg(long, value_name = "USER")]
    after: Option<String>,
    /// At most so many; all when absent
    #[arg(long)]
    limit: Option<usize>,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword user edit jo --mail jo@example.org --password")]
pub(super) struct EditArgs {
    /// The user, in any spelling
    user: String,
    /// New name
    #[arg(long, value_name = "NAME")]
    rename: Option<String>,
    /// New full name
    #[arg(long)]
    full_name: Option<String>,
    /// New mail address
    #[arg(long)]
    mail: Option<String>,
    /// New groups in place of the old ones; may be repeated
    #[arg(long = "group", value_name = "GROUP")]
    groups: Option<Vec<String>>,
    /// Ask for a new local password (standard input when that is no terminal)
    #[arg(long)]
    password: bool,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword user block jo --reason 'lost phone' --seconds 86400")]
pub(super) struct BlockArgs {
    /// The user, in any spelling
    user: String,
    /// Why
    #[arg(long)]
    reason: String,
    /// How long; as setting block.days says when absent
    #[arg(long)]
    seconds: Option<u64>,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword user bypass jo --reason 'left the token at home'")]
pub(super) struct BypassArgs {
    /// The user, in any spelling
    user: String,
    /// Why
    #[arg(long)]
    reason: String,
    /// How long it lasts unless used; as setting bypass.seconds says when absent
    #[arg(long)]
    seconds: Option<u64>,
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) fn run(command: UserCommand) -> Done {
    match command {
        UserCommand::Add(args) => add(args),
        UserCommand::Show(args) => {
            let user = Connection::open(&args.node)?.get(&user_path(&args.user))?;
            args.format.print(&user, show)
        }
        UserCommand::List(args) => list(&args),
        UserCommand::Edit(args) => edit(args),
        UserCommand::Disable(args) => set_enabled(&args, false),
        UserCommand::Enable(args) => set_enabled(&args, true),
        UserCommand::Block(args) => {
            let spec = BlockSpec { reason: args.reason, seconds: args.seconds };
            let mut node = Connection::open(&args.node)?;
            let user: UserView = node.post(&path(&["v1", "users", &args.user, "block"]), &spec)?;
            let detail = user.state_detail.unwrap_or_default();
            print_line(&format!("{} blocked {detail}", user.username))
        }
        UserCommand::Unblock(args) => {
            let mut node = Connection::open(&args.node)?;
            let user: UserView = node.delete(&path(&["v1", "users", &args.user, "block"]))?;
            print_line(&format!("{} unblocked", user.username))
        }
        UserCommand::Bypass(args) => {
            let spec = BypassSpec { reason: args.reason, seconds: args.seconds };
            let mut node = Connection::open(&args.node)?;
            let user: UserView = node.post(&path(&["v1", "users", &args.user, "bypass"]), &spec)?;
            let until = user.bypass_until.unwrap_or_default();
            print_line(&format!("{} may log in once without passcode until {until}", user.username))
        }
        UserCommand::Delete(args) => {
            Connection::open(&args.node)?.delete::<()>(&user_path(&args.user))?;
            print_line(&format!("{} deleted", args.user))
        }
        UserCommand::Import(args) => import::run(&args),
    }
}

fn user_path(name: &str) -> String {
    path(&["v1", "users", name])
}

fn add(args: AddArgs) -> Done {
    let spec = UserSpec {
        username: args.user,
        full_name: args.full_name,
        mail: args.mail,
        groups: args.groups,
        password: args.password.then(ask_new_password).transpose()?,
        password_hash: None,
        disabled: args.disabled,
    };
    let user = Connection::open(&args.node)?.post("/v1/users", &spec)?;
    args.format.print(&user, show)
}

fn edit(args: EditArgs) -> Done {
    let edit = UserEdit {
        username: args.rename,
        full_name: args.full_name,
        mail: args.mail,
        groups: args.groups,
        enabled: None,
        password: args.password.then(ask_new_password).transpose()?,
    };
    let user = Connection::open(&args.node)?.patch(&user_path(&args.user), &edit)?;
    args.format.print(&user, show)
}

fn set_enabled(args: &NameArgs, enabled: bool) -> Done {
    let edit = UserEdit { enabled: Some(enabled), ..UserEdit::default() };
    let user: UserView = Connection::open(&args.node)?.patch(&user_path(&args.user), &edit)?;
    let word = if enabled { "enabled" } else { "disabled" };
    print_line(&format!("{} {word}", user.username))
}

fn list(args: &ListArgs) -> Done {
    let mut node = Connection::open(&args.node)?;
    let mut users: Vec<UserView> = Vec::new();
    let mut after = args.after.clone();
    loop {
        let wanted = args.limit.map_or(1_000, |limit| limit.saturating_sub(users.len()).min(1_000));
        if wanted == 0 {
            break;
        }
        let from = after.map_or(String::new(), |name| {
            format!("&after={}", crate::admin::percent_encoded(&name))
        });
        let page: UsersPage = node.get(&format!("/v1/users?limit={wanted}{from}"))?;
        users.extend(page.users);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    args.format.print(&users, |users| {
        let mut table = table(&["USER", "FULL NAME", "STATE", "PASSWORD", "DEVICES", "GROUPS"]);
        for user in users {
            let kinds = user.devices.iter().map(|device| format!("{:?}", device.kind));
            table.add_row([
                user.username.clone(),
                user.full_name.clone(),
                user.state.clone(),
                if user.has_password { "yes" } else { "no" }.to_owned(),
                kinds.collect::<Vec<_>>().join(", ").to_lowercase(),
                user.groups.join(", "),
            ]);
        }
        table
    })
}

fn show(user: &UserView) -> Table {
    let state = match &user.state_detail {
        Some(detail) => format!("{} {detail}", user.state),
        None => user.state.clone(),
    };
    let devices: Vec<String> = user
        .devices
        .iter()
        .map(|device| {
            let kind = format!("{:?}", device.kind).to_lowercase();
            format!("{} {kind}, {} digits {}", device.id, device.digits, device.label)
        })
        .collect();
    properties([
        ("user", user.username.clone()),
        ("id", user.id.clone()),
        ("full name", user.full_name.clone()),
        ("mail", user.mail.clone()),
        ("groups", user.groups.join(", ")),
        ("state", state),
        ("password", if user.has_password { "yes" } else { "no" }.to_owned()),
        ("bypass", user.bypass_until.clone().unwrap_or_else(|| "no".to_owned())),
        (
            "failures",
            format!("{} passwords, {} passcodes", user.password_failures, user.passcode_failures),
        ),
        ("created", user.created.clone()),
        ("devices", devices.join("\n")),
    ])
}

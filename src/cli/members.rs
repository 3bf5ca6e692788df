//! `members`, `token …`, `join`, `transfer`, `remove`, `drain`: the nodes of the cluster.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::output::{Format, FormatArgs, print_line, table};
use super::serve;
use super::socket::{Connection, path};
use super::{Done, Failure, NodeArgs, node_runtime};
use crate::admin::{
    LeaderView, MemberEdit, MemberView, NewToken, RemovalView, TokenSpec, TokenView,
};
use crate::config::Config;
use crate::join;
use crate::keys::read_private;
use crate::logging;
use crate::pki::Token;

#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  watchword members --format json\n  watchword members edit 2 --priority 200"
)]
pub(super) struct MembersArgs {
    #[command(subcommand)]
    command: Option<MemberCommand>,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Subcommand)]
enum MemberCommand {
    /// Change where a node is reached, or how much it is preferred as the leader
    Edit(EditArgs),
}

#[derive(Args)]
#[command(after_help = "Examples:\n  watchword members edit 2 --priority 200\n  \
                  watchword members edit 3 --address node3.example.org:7400")]
struct EditArgs {
    /// The node's id
    id: u64,
    /// Where its peers reach it: host and port
    #[arg(long, required_unless_present = "priority")]
    address: Option<String>,
    /// Of the nodes that can lead, the one with the highest priority does; 100 is usual
    #[arg(long)]
    priority: Option<u8>,
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) fn members(args: &MembersArgs) -> Done {
    if let Some(MemberCommand::Edit(args)) = &args.command {
        let edit = MemberEdit { address: args.address.clone(), priority: args.priority };
        let path = path(&["v1", "members", &args.id.to_string()]);
        Connection::open(&args.node)?.patch::<_, ()>(&path, &edit)?;
        return print_line(&format!("node {} is changed", args.id));
    }
    let members: Vec<MemberView> = Connection::open(&args.node)?.get("/v1/members")?;
    args.format.print(&members, |members| {
        let rows = members.iter().map(|member| {
            let number = |value: Option<u64>| value.map_or_else(String::new, |v| v.to_string());
            [
                member.node.to_string(),
                member.role.clone(),
                member.address.clone(),
                member.priority.to_string(),
                number(member.term),
                number(member.lag),
                member.version.clone().unwrap_or_default(),
                member.clock_offset_ms.map_or_else(String::new, |ms| format!("{ms:+} ms")),
                member.last_contact_ms.map_or("never".to_owned(), |ms| format!("{ms} ms ago")),
                member.admitted.clone(),
            ]
        });
        let mut table = table(&[
            "NODE",
            "ROLE",
            "ADDRESS",
            "PRIORITY",
            "TERM",
            "LAG",
            "VERSION",
            "CLOCK",
            "LAST CONTACT",
            "ADMITTED",
        ]);
        table.add_rows(rows);
        table
    })
}

#[derive(Subcommand)]
#[command(after_help = "Example:\n  watchword token create --uses 2 --for 2h")]
pub(super) enum TokenCommand {
    /// Make a token that lets nodes join; it is shown once
    Create(CreateArgs),
    /// List the tokens that still let nodes join
    List(TokensArgs),
    /// Take a token back
    Revoke(RevokeArgs),
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword token create --uses 2 --for 2h")]
pub(super) struct CreateArgs {
    /// How many nodes may join with it
    #[arg(long, default_value_t = 1)]
    uses: u32,
    /// How long it is good for
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    time: Duration,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword token list")]
pub(super) struct TokensArgs {
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword token revoke 0f1e2d3c4b5a69788796a5b4c3d2e1f0")]
pub(super) struct RevokeArgs {
    /// Its id, as `token list` shows it
    id: String,
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) fn token(command: TokenCommand) -> Done {
    match command {
        TokenCommand::Create(args) => {
            let spec = TokenSpec { seconds: args.time.as_secs(), uses: args.uses };
            let token: NewToken = Connection::open(&args.node)?.post("/v1/tokens", &spec)?;
            match args.format.format {
                Format::Json => print_line(&serde_json::to_string_pretty(&token)?),
                // Not in a table: that would break the token into lines.
                Format::Table => print_line(&format!(
                    "{}\n\nid {}, good until {}",
                    token.token, token.id, token.expires
                )),
            }
        }
        TokenCommand::List(args) => {
            let tokens: Vec<TokenView> = Connection::open(&args.node)?.get("/v1/tokens")?;
            args.format.print(&tokens, |tokens| {
                let row = |token: &TokenView| {
                    [token.id.clone(), token.uses_left.to_string(), token.expires.clone()]
                };
                let mut table = table(&["ID", "USES LEFT", "EXPIRES"]);
                table.add_rows(tokens.iter().map(row));
                table
            })
        }
        TokenCommand::Revoke(args) => {
            let path = path(&["v1", "tokens", &args.id]);
            Connection::open(&args.node)?.delete::<()>(&path)?;
            print_line("the token is taken back")
        }
    }
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword join node1.example.org:7400 --token wwjoin-…\n\n\
                  Joins and runs the node; afterwards it is run with `watchword serve`.")]
pub(super) struct JoinArgs {
    /// Address of any node of the cluster: host and port
    address: String,
    /// The token, as `init` or `token create` has shown it
    ///
    /// Other users of this host may see it in the list of processes: there, use --token-file.
    #[arg(
        long,
        env = "WATCHWORD_TOKEN",
        hide_env_values = true,
        required_unless_present = "token_file"
    )]
    token: Option<String>,
    /// File that holds the token, readable by its owner alone
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// Only follow: answer clients, but never vote
    #[arg(long)]
    learner: bool,
    /// Join only, and leave running the node to `watchword serve`
    #[arg(long)]
    no_serve: bool,
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) fn join(args: &JoinArgs) -> Done {
    let config = Config::read(&args.node.config)?;
    let token: Token = match (&args.token, &args.token_file) {
        (Some(token), _) => token.parse()?,
        (None, Some(file)) => std::str::from_utf8(&read_private(file)?)?.parse()?,
        (None, None) => return Err(Failure::new("a token is needed")),
    };
    logging::start(&config.log)?;
    node_runtime()?.block_on(join::join(&config, &args.address, &token, !args.learner))?;
    if args.no_serve {
        let file = args.node.config.display();
        return print_line(&format!("joined; run the node: watchword serve --config {file}"));
    }
    serve::run(&config, false)
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword transfer 2")]
pub(super) struct TransferArgs {
    /// The node that is to lead; if left out, the one with the highest priority, or the furthest of them
    to: Option<u64>,
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) fn transfer(args: &TransferArgs) -> Done {
    let mut connection = Connection::open(&args.node)?;
    let leader: LeaderView = connection.post("/v1/transfer", &LeaderView { leader: args.to })?;
    print_line(&describe_leader(&leader))
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  watchword drain          before maintenance\n  watchword drain --undo   afterwards"
)]
pub(super) struct DrainArgs {
    /// Put the node back into service
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) fn drain(args: &DrainArgs) -> Done {
    let mut connection = Connection::open(&args.node)?;
    let leader: LeaderView = connection.post("/v1/drain", &!args.undo)?;
    let done = if args.undo { "in service again" } else { "out of service" };
    print_line(&format!("{done}; {}", describe_leader(&leader)))
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword remove 3 --yes")]
pub(super) struct RemoveArgs {
    /// The node's id
    id: u64,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    node: NodeArgs,
}

fn describe_removal(node: u64, removal: RemovalView) -> String {
    if removal.left {
        return format!("node {node} is removed");
    }
    format!(
        "node {node} is removed, but its vote is still needed: if it runs, keep it running until `watchword \
         members` no longer shows it"
    )
}

pub(super) fn remove(args: &RemoveArgs) -> Done {
    check_meant(args.id, args.yes)?;
    let path = path(&["v1", "members", &args.id.to_string()]);
    let removal: RemovalView = Connection::open(&args.node)?.delete(&path)?;
    print_line(&describe_removal(args.id, removal))
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword replace 3 --yes\n\n\
                  Removes a node that is lost, or whose disk was wiped, and prints the command that lets \
                  another take its place, on the same host or a new one.")]
pub(super) struct ReplaceArgs {
    /// The id of the node that is replaced
    id: u64,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) fn replace(args: &ReplaceArgs) -> Done {
    check_meant(args.id, args.yes)?;
    let mut connection = Connection::open(&args.node)?;
    let members: Vec<MemberView> = connection.get("/v1/members")?;
    // The token first: a node that is removed can then be replaced, whatever fails.
    let spec = TokenSpec { seconds: REPLACEMENT_SECONDS, uses: 1 };
    let token: NewToken = connection.post("/v1/tokens", &spec)?;
    let removal: RemovalView =
        connection.delete(&path(&["v1", "members", &args.id.to_string()]))?;
    let other = members.iter().find(|member| member.node != args.id && member.role == "leader");
    let other = other.or_else(|| members.iter().find(|member| member.node != args.id));
    let address = other.map_or("ADDRESS", |member| &*member.address);
    print_line(&format!(
        "{}; until {}, another may take its place, with an empty data directory:\n\n  \
         watchword join {address} --token {} --config FILE",
        describe_removal(args.id, removal),
        token.expires,
        token.token
    ))
}

/// Whether whoever removes a node has said that it is meant.
fn check_meant(node: u64, yes: bool) -> Done {
    let refused = format!("node {node} would be removed for ever; say --yes if that is meant");
    if yes { Ok(()) } else { Err(Failure::new(refused)) }
}

/// How long the token of a replacement is good for.
const REPLACEMENT_SECONDS: u64 = 24 * 3600;

fn describe_leader(leader: &LeaderView) -> String {
    leader.leader.map_or("no leader is known".to_owned(), |id| format!("node {id} leads"))
}

//! `client …`.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;
use watchword_core::client::{PasscodeInput, Requirement};

use super::output::{FormatArgs, print_line, table};
use super::socket::{Connection, path};
use super::{Done, Failure, NodeArgs};
use crate::admin::{ClientEdit, ClientSpec, ClientView};
use crate::keys::read_private;

#[derive(Subcommand)]
pub(super) enum ClientCommand {
    /// Let a client ask
    #[command(subcommand)]
    Add(AddCommand),
    /// List all clients
    List(ListArgs),
    /// Change a client
    Edit(Box<EditArgs>),
    /// Remove a client
    Remove(RemoveArgs),
}

#[derive(Subcommand)]
pub(super) enum AddCommand {
    /// A RADIUS client: VPN gateway, Wi-Fi controller, PAM host
    Radius(Box<AddRadiusArgs>),
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  watchword client add radius vpn --address 192.0.2.0/28 --secret-file vpn.secret"
)]
pub(super) struct AddRadiusArgs {
    /// Unique name
    name: String,
    /// Address or range that it sends from; may be repeated. The most specific range wins
    #[arg(long = "address", value_name = "CIDR", required = true)]
    addresses: Vec<String>,
    /// File that holds the shared secret, readable by its owner alone
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

/// How the client's users are authenticated; what is absent keeps its value.
#[derive(Args)]
struct PolicyArgs {
    /// Who checks the password: none (the client has done it), or local (Watchword) and directories by name, with
    /// commas between; the first that knows the user decides [default: local]
    #[arg(long, value_name = "none|SOURCE,…")]
    first_factor: Option<String>,
    /// Whether unknown users are refused; no lets them pass on the client's first factor [default: yes]
    #[arg(long, value_parser = yes_or_no())]
    require_user_match: Option<bool>,
    /// How password and passcode share one field [default: auto]
    #[arg(long, value_parser = words::<PasscodeInput>(&["auto", "challenge", "separator", "appended"]))]
    passcode_input: Option<PasscodeInput>,
    /// Whether requests must be signed; auto: once the client has shown that it signs [default: auto]
    #[arg(long, value_parser = words::<Requirement>(&["yes", "no", "auto"]))]
    require_message_authenticator: Option<Requirement>,
    /// Whether unsigned requests with Proxy-State are dropped; auto: once the client has shown that
    /// it is no proxy [default: auto]
    #[arg(long, value_parser = words::<Requirement>(&["yes", "no", "auto"]))]
    limit_proxy_state: Option<Requirement>,
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword client list --format json")]
pub(super) struct ListArgs {
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword client edit vpn --require-message-authenticator yes")]
pub(super) struct EditArgs {
    /// The client
    name: String,
    /// New name
    #[arg(long, value_name = "NAME")]
    rename: Option<String>,
    /// New addresses in place of the old ones; may be repeated
    #[arg(long = "address", value_name = "CIDR")]
    addresses: Option<Vec<String>>,
    /// File that holds a new shared secret
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword client remove vpn")]
pub(super) struct RemoveArgs {
    /// The client
    name: String,
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) fn run(command: ClientCommand) -> Done {
    match command {
        ClientCommand::Add(AddCommand::Radius(args)) => add(*args),
        ClientCommand::List(args) => {
            let clients: Vec<ClientView> = Connection::open(&args.node)?.get("/v1/clients")?;
            args.format.print(&clients, |clients| listing(clients))
        }
        ClientCommand::Edit(args) => edit(*args),
        ClientCommand::Remove(args) => {
            let mut node = Connection::open(&args.node)?;
            node.delete::<()>(&path(&["v1", "clients", &args.name]))?;
            print_line(&format!("client {} removed", args.name))
        }
    }
}

fn add(args: AddRadiusArgs) -> Done {
    let secret = read_secret(&args.secret_file)?;
    let defaults = ClientSpec::new(args.name, args.addresses, secret);
    let policy = args.policy;
    let spec = ClientSpec {
        first_factor: policy.first_factor.unwrap_or(defaults.first_factor),
        require_user_match: policy.require_user_match.unwrap_or(defaults.require_user_match),
        passcode_input: policy.passcode_input.unwrap_or(defaults.passcode_input),
        require_message_authenticator: policy
            .require_message_authenticator
            .unwrap_or(defaults.require_message_authenticator),
        limit_proxy_state: policy.limit_proxy_state.unwrap_or(defaults.limit_proxy_state),
        ..defaults
    };
    let client: ClientView = Connection::open(&args.node)?.post("/v1/clients", &spec)?;
    args.format.print(&client, |client| listing(std::slice::from_ref(client)))
}

fn edit(args: EditArgs) -> Done {
    let edit = ClientEdit {
        name: args.rename,
        addresses: args.addresses,
        secret: args.secret_file.as_deref().map(read_secret).transpose()?,
        first_factor: args.policy.first_factor,
        require_user_match: args.policy.require_user_match,
        passcode_input: args.policy.passcode_input,
        require_message_authenticator: args.policy.require_message_authenticator,
        limit_proxy_state: args.policy.limit_proxy_state,
    };
    let mut node = Connection::open(&args.node)?;
    let client: ClientView = node.patch(&path(&["v1", "clients", &args.name]), &edit)?;
    args.format.print(&client, |client| listing(std::slice::from_ref(client)))
}

/// The shared secret: the file's first line.
pub(super) fn read_secret(file: &std::path::Path) -> Result<String, Failure> {
    let bytes = read_private(file)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Failure::new(format!("{} is not UTF-8", file.display())))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn listing(clients: &[ClientView]) -> comfy_table::Table {
    let mut table = table(&[
        "CLIENT",
        "KIND",
        "ADDRESSES",
        "FIRST FACTOR",
        "UNKNOWN USERS",
        "PASSCODE",
        "MESSAGE-AUTHENTICATOR",
        "PROXY-STATE LIMIT",
    ]);
    for client in clients {
        let seen = |habit: bool| if habit { " (seen)" } else { "" };
        let (signing, direct) = (seen(client.seen_signing), seen(client.seen_without_proxy));
        table.add_row([
            client.name.clone(),
            client.kind.clone(),
            client.addresses.join(", "),
            client.first_factor.clone(),
            if client.require_user_match { "refused" } else { "pass" }.to_owned(),
            format!("{:?}", client.passcode_input).to_lowercase(),
            format!("{:?}{signing}", client.require_message_authenticator).to_lowercase(),
            format!("{:?}{direct}", client.limit_proxy_state).to_lowercase(),
        ]);
    }
    table
}

/// Parses one of `allowed` as the type that serde knows by these words.
pub(super) fn words<T>(allowed: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: DeserializeOwned + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(allowed)
        .try_map(|word| serde_json::from_value(serde_json::Value::String(word)))
}

pub(super) fn yes_or_no() -> impl TypedValueParser<Value = bool> {
    PossibleValuesParser::new(["yes", "no"]).map(|word| word == "yes")
}

//! `directory …`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use watchword_core::client::Requirement;
use watchword_core::directory::Probe;

use super::clients::{read_secret, words};
use super::input::ask;
use super::output::{FormatArgs, print_line, table};
use super::socket::{Connection, path};
use super::{Done, Failure, NodeArgs};
use crate::admin::{
    DirectoryEdit, DirectoryFields, DirectoryReport, DirectorySpec, DirectoryTest, DirectoryView,
    LdapEdit, RadiusEdit,
};

#[derive(Subcommand)]
pub(super) enum DirectoryCommand {
    /// Let a directory check passwords
    #[command(subcommand)]
    Add(AddCommand),
    /// List all directories
    List(ListArgs),
    /// Try a password at each server
    Test(TestArgs),
    /// Change a directory
    #[command(subcommand)]
    Edit(EditCommand),
    /// Remove a directory that no client asks
    Remove(RemoveArgs),
}

#[derive(Subcommand)]
pub(super) enum AddCommand {
    /// An LDAP server, or Active Directory
    Ldap(Box<AddLdapArgs>),
    /// Another RADIUS server
    Radius(Box<AddRadiusArgs>),
}

#[derive(Subcommand)]
pub(super) enum EditCommand {
    /// An LDAP server, or Active Directory
    #[command(after_help = "Example:\n  watchword directory edit ldap corp --timeout 5s")]
    Ldap(Box<EditArgs<LdapArgs>>),
    /// Another RADIUS server
    #[command(after_help = "Example:\n  watchword directory edit radius nps --timeout 5s")]
    Radius(Box<EditArgs<RadiusArgs>>),
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    watchword directory add ldap corp --server ldaps://dc1.example.org --server ldaps://dc2.example.org \\\n    \
    --ca-file ca.pem --template {user}@example.org\n  \
    watchword directory add ldap people --server ldap://ldap.example.org --base ou=people,dc=example,dc=org \\\n    \
    --filter '(uid={user})' --account cn=reader,dc=example,dc=org --account-password-file reader.secret\n\n\
    Then let a client ask it:\n  watchword client edit vpn --first-factor corp")]
pub(super) struct AddLdapArgs {
    /// Unique name
    name: String,
    #[command(flatten)]
    ldap: LdapArgs,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  \
    watchword directory add radius nps --server nps1.example.org --server nps2.example.org \\\n    \
    --secret-file nps.secret\n\n\
    It checks what it can: passwords, CHAP, MS-CHAP and EAP. Then let a client ask it:\n  \
    watchword client edit wifi --first-factor nps")]
pub(super) struct AddRadiusArgs {
    /// Unique name
    name: String,
    #[command(flatten)]
    radius: RadiusArgs,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

/// How a RADIUS server is asked; what is absent keeps its value.
#[derive(Args)]
pub(super) struct RadiusArgs {
    /// Server, the preferred one first, as HOST or HOST:PORT [default port: 1812]. May be repeated
    #[arg(long = "server", value_name = "HOST")]
    servers: Option<Vec<String>>,
    /// File that holds the secret shared with all of them, readable by its owner alone
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Whether an answer without Message-Authenticator is taken for none; auto: as soon as the server has been
    /// seen to sign [default: auto]
    #[arg(long, value_parser = words::<Requirement>(&["yes", "no", "auto"]))]
    require_message_authenticator: Option<Requirement>,
    /// How it is found out that a server answers again: by Status-Server if it knows that, or by the next login
    /// alone [default: status]
    #[arg(long, value_name = "HOW", value_parser = words::<Probe>(&["status", "login"]))]
    probe: Option<Probe>,
    /// How long one server is waited for, such as 500ms or 5s [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
}

/// How an LDAP directory is asked; what is absent keeps its value.
#[derive(Args)]
pub(super) struct LdapArgs {
    /// Server, the preferred one first; ldap:// is protected by StartTLS. May be repeated
    #[arg(long = "server", value_name = "URL")]
    servers: Option<Vec<String>>,
    /// Whether ldap:// means no protection at all: whoever listens reads the passwords [default: no]
    #[arg(long, value_parser = super::clients::yes_or_no())]
    unprotected: Option<bool>,
    /// PEM file with authorities that the servers' certificates come from [default: those of the system].
    /// May be repeated
    #[arg(long = "ca-file", value_name = "FILE", conflicts_with = "fingerprints")]
    authorities: Option<Vec<PathBuf>>,
    /// SHA-256 digest of a server's certificate, which is believed whatever it says. May be repeated
    #[arg(long = "fingerprint", value_name = "HEX")]
    fingerprints: Option<Vec<String>>,
    /// Name by which a user binds, with {user} for the user's name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["base", "filter", "account", "account_password_file"])]
    template: Option<String>,
    /// Entry below which users are searched
    #[arg(long, value_name = "DN")]
    base: Option<String>,
    /// Filter that finds a user, with {user} for the user's name
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    /// As whom to search; empty for nobody
    #[arg(long, value_name = "DN")]
    account: Option<String>,
    /// File that holds the account's password, readable by its owner alone
    #[arg(long, value_name = "FILE")]
    account_password_file: Option<PathBuf>,
    /// How long one operation may take, such as 500ms or 5s [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword directory list --format json")]
pub(super) struct ListArgs {
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword directory test corp jo\n\n\
                        Nothing is counted here, but a wrong password counts in the directory.\n\
                        Without a terminal the password is read from standard input.")]
pub(super) struct TestArgs {
    /// The directory
    name: String,
    /// The user, in any spelling
    user: String,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Args)]
pub(super) struct EditArgs<A: Args> {
    /// The directory
    name: String,
    /// New name
    #[arg(long, value_name = "NAME")]
    rename: Option<String>,
    #[command(flatten)]
    fields: A,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword directory remove corp")]
pub(super) struct RemoveArgs {
    /// The directory
    name: String,
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) fn run(command: DirectoryCommand) -> Done {
    match command {
        DirectoryCommand::Add(AddCommand::Ldap(args)) => {
            add(args.name, args.ldap.fields()?, &args.node, &args.format)
        }
        DirectoryCommand::Add(AddCommand::Radius(args)) => {
            add(args.name, args.radius.fields()?, &args.node, &args.format)
        }
        DirectoryCommand::List(args) => {
            let directories: Vec<DirectoryView> =
                Connection::open(&args.node)?.get("/v1/directories")?;
            args.format.print(&directories, |directories| listing(directories))
        }
        DirectoryCommand::Test(args) => test(&args),
        DirectoryCommand::Edit(EditCommand::Ldap(args)) => {
            let EditArgs { name, rename, fields, node, format } = *args;
            edit(&name, rename, fields.fields()?, &node, &format)
        }
        DirectoryCommand::Edit(EditCommand::Radius(args)) => {
            let EditArgs { name, rename, fields, node, format } = *args;
            edit(&name, rename, fields.fields()?, &node, &format)
        }
        DirectoryCommand::Remove(args) => {
            let mut node = Connection::open(&args.node)?;
            node.delete::<()>(&path(&["v1", "directories", &args.name]))?;
            print_line(&format!("directory {} removed", args.name))
        }
    }
}

fn add(name: String, fields: DirectoryFields, node: &NodeArgs, format: &FormatArgs) -> Done {
    let spec = DirectorySpec { name, fields };
    let directory = Connection::open(node)?.post("/v1/directories", &spec)?;
    show(format, &directory)
}

fn edit(
    name: &str,
    rename: Option<String>,
    fields: DirectoryFields,
    node: &NodeArgs,
    format: &FormatArgs,
) -> Done {
    let edit = DirectoryEdit { name: rename, fields: Some(fields) };
    let directory = Connection::open(node)?.patch(&path(&["v1", "directories", name]), &edit)?;
    show(format, &directory)
}

/// Milliseconds, as the node wants them.
fn in_ms(timeout: Duration) -> u64 {
    u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)
}

impl RadiusArgs {
    fn fields(self) -> Result<DirectoryFields, Failure> {
        Ok(DirectoryFields::Radius(RadiusEdit {
            servers: self.servers,
            secret: self.secret_file.as_deref().map(read_secret).transpose()?,
            require_message_authenticator: self.require_message_authenticator,
            probe: self.probe,
            timeout_ms: self.timeout.map(in_ms),
        }))
    }
}

impl LdapArgs {
    fn fields(self) -> Result<DirectoryFields, Failure> {
        let read = |file: &Path| {
            std::fs::read_to_string(file)
                .map_err(|error| Failure::new(format!("{}: {error}", file.display())))
        };
        let authorities =
            self.authorities.map(|files| files.iter().map(|file| read(file)).collect());
        Ok(DirectoryFields::Ldap(LdapEdit {
            servers: self.servers,
            unprotected: self.unprotected,
            authorities: authorities.transpose()?,
            fingerprints: self.fingerprints,
            template: self.template,
            base: self.base,
            filter: self.filter,
            account: self.account,
            password: self.account_password_file.as_deref().map(read_secret).transpose()?,
            timeout_ms: self.timeout.map(in_ms),
        }))
    }
}

fn test(args: &TestArgs) -> Done {
    let mut node = Connection::open(&args.node)?;
    let password = ask("Password: ")?.ok_or_else(|| Failure::new("there is no password"))?;
    let test = DirectoryTest { username: args.user.clone(), password };
    let reports: Vec<DirectoryReport> =
        node.post(&path(&["v1", "directories", &args.name, "test"]), &test)?;
    args.format.print(&reports, |reports| {
        let mut table = table(&["SERVER", "ACCEPTED", "ANSWER"]);
        for report in reports {
            let accepted = if report.accepted { "yes" } else { "no" };
            table.add_row([&report.server, accepted, &report.detail]);
        }
        table
    })?;
    match reports.iter().find(|report| !report.accepted) {
        None => Ok(()),
        Some(report) => Err(Failure::new(format!("{}: {}", report.server, report.detail))),
    }
}

fn show(format: &FormatArgs, directory: &DirectoryView) -> Done {
    format.print(directory, |directory| listing(std::slice::from_ref(directory)))
}

fn listing(directories: &[DirectoryView]) -> comfy_table::Table {
    let mut table = table(&["DIRECTORY", "KIND", "SERVERS", "ASKED", "TIMEOUT", "CLIENTS"]);
    for directory in directories {
        table.add_row([
            directory.name.clone(),
            directory.kind.clone(),
            servers(directory).join("\n"),
            asked(directory),
            format!("{} ms", directory.timeout_ms),
            directory.clients.join(", "),
        ]);
    }
    table
}

/// The servers, and how the way to each is protected.
fn servers(directory: &DirectoryView) -> Vec<String> {
    let Some(ldap) = &directory.ldap else { return directory.servers.clone() };
    let servers = directory.servers.iter().zip(&ldap.security);
    let protected = servers
        .map(|(server, security)| format!("{server} ({})", format!("{security:?}").to_lowercase()));
    protected.collect()
}

/// Whom it believes and how it finds the user, in a few words.
fn asked(directory: &DirectoryView) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    match (&directory.ldap, &directory.radius) {
        (Some(ldap), _) => {
            let users = ldap
                .template
                .clone()
                .unwrap_or_else(|| format!("{} below {}", text(&ldap.filter), text(&ldap.base)));
            format!("users by {users}\nservers by {}", ldap.trust)
        }
        (None, Some(radius)) => {
            let signing = radius.signs.iter().filter(|signs| **signs).count();
            let word = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
            format!(
                "signed answers only: {} ({signing} of {} sign)\nprobed by {}",
                word(&radius.require_message_authenticator),
                radius.signs.len(),
                word(&radius.probe),
            )
        }
        (None, None) => String::new(),
    }
}

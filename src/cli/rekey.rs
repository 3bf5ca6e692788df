//! `rekey`: another data key for the cluster, or another key around it on this node.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};

use super::output::{print_line, progress_bar};
use super::socket::Connection;
use super::{Done, Failure, NodeArgs};
use crate::admin::{RekeySpec, RekeyView};
use crate::config::{Config, KeySource};
use crate::error_chain::chain;
use crate::keys::Keyring;
use crate::logging;
use crate::node::check_private;

#[derive(Args)]
#[command(
    group(ArgGroup::new("what").required(true)),
    after_help = "Examples:\n  watchword rekey --rotate\n  \
                  watchword rekey --wrap --old-config /etc/watchword/watchword.toml.old\n\n\
                  --rotate hands a new data key to every node, seals every secret under it, and gives the old one up. \
                  Logins go on. Every node must answer. What was interrupted is gone on with by running it \
                  again, on any node. Old backups, and what lies in old logs, still open by the old key.\n\n\
                  --wrap changes what wraps the data key on this node: copy the node's file, stop the node, edit \
                  [key], run this with the copy, and start the node. The data key stays what it is."
)]
pub(super) struct RekeyArgs {
    /// Replace the data key of the whole cluster, on any node, while logins go on
    #[arg(long, group = "what")]
    rotate: bool,
    /// Wrap this node's data key by what the node's file names now; the node must be stopped
    #[arg(long, group = "what", requires = "old_config")]
    wrap: bool,
    /// With --wrap: the node's file as it was, or any that names what wraps the data key still
    #[arg(long, value_name = "FILE", conflicts_with = "rotate")]
    old_config: Option<PathBuf>,
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) fn run(args: &RekeyArgs) -> Done {
    match &args.old_config {
        Some(old) if args.wrap => wrap(&args.node, old),
        _ => rotate(&args.node),
    }
}

fn rotate(node: &NodeArgs) -> Done {
    let mut connection = Connection::open(node)?;
    let mut step = |begin| connection.post("/v1/rekey", &RekeySpec { begin });
    let mut at: RekeyView = step(true)?;
    let has_begun = at.begun;
    let bar = progress_bar(at.secrets, "{pos} of {len} secrets  {elapsed}");
    while !at.is_finished {
        bar.set_length(at.secrets);
        bar.set_position(at.secrets.saturating_sub(at.left));
        at = step(false)?;
    }
    bar.finish_and_clear();
    let RekeyView { key, secrets, .. } = at;
    print_line(&format!(
        "all {secrets} secrets are sealed under data key {key}; the old one is given up"
    ))?;
    if has_begun {
        return Ok(());
    }
    print_line(
        "this was begun before and is finished now; to replace the key once more, run it again",
    )
}

fn wrap(node: &NodeArgs, old_config: &Path) -> Done {
    let config = Config::read(&node.config)?;
    logging::start(&config.log)?;
    let (new, old) = (source(&config, &node.config)?, Config::read_key_source(old_config)?);
    if new == old {
        let (file, old_config) = (node.config.display(), old_config.display());
        let reason = format!("[key] in {file} and {old_config} is the same; edit {file} first");
        return Err(Failure::new(reason));
    }
    check_private(&config.data_dir)?;
    // A running node would go on with what it was started with.
    if UnixStream::connect(config.admin_socket()).is_ok() {
        return Err(Failure::new("the node is running; stop it first"));
    }
    let file = node.config.display();
    // Also when it was interrupted just behind the change.
    if Keyring::load(&config.data_dir, &new).is_ok() {
        return print_line(&format!("the data key is wrapped by {new} already"));
    }
    let keys = Keyring::load(&config.data_dir, &old).map_err(|error| {
        Failure::new(format!("with [key] of {}: {}", old_config.display(), chain(&error)))
    })?;
    keys.rewrap(&new)?;
    print_line(&format!(
        "the data key is wrapped by {new}; run the node: watchword serve --config {file}\n\
         {old} still opens copies of keyring.json that were made before"
    ))
}

fn source(config: &Config, file: &Path) -> Result<KeySource, Failure> {
    let none = || Failure::new(format!("{}: [key] names no way", file.display()));
    config.key_source().ok_or_else(none)
}

//! `backup`, `verify`, `restore`: the whole state in one encrypted file.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use super::input::{ask, ask_new_password};
use super::output::print_line;
use super::socket::Connection;
use super::{Done, Failure, NodeArgs, node_runtime};
use crate::admin::{BackupSpec, rfc3339};
use crate::backup::{self, Backup};
use crate::config::Config;
use crate::keys::{read_private, replace_private};
use crate::{clock, logging, node};

#[derive(Args)]
#[command(after_help = "Example:\n  watchword backup /var/backups/watchword-monday \
                  --passphrase-file /root/backup.passphrase\n\n\
                  Any node will do, and logins go on. The file holds everything, the data key included, encrypted \
                  under the passphrase: without it the file is worthless.")]
pub(super) struct BackupArgs {
    /// The file to write; it must not be there yet
    file: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword verify /var/backups/watchword-monday")]
pub(super) struct VerifyArgs {
    /// The backup
    file: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword restore /var/backups/watchword-monday \
                  --config /etc/watchword/watchword.toml\n\n\
                  Makes the first node of a new cluster, as `init` does; other nodes join it. Stop the old cluster \
                  first. Nothing that it may have accepted since the backup is accepted again: bypasses are gone, \
                  TOTP passcodes are accepted after some minutes, and HOTP devices go on behind the look-ahead \
                  window.")]
pub(super) struct RestoreArgs {
    /// The backup
    file: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Args)]
struct PassphraseArgs {
    /// File that holds the passphrase, readable by its owner alone; it is asked for if left out
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl PassphraseArgs {
    fn read(&self, is_new: bool) -> Result<Zeroizing<String>, Failure> {
        let text = match &self.passphrase_file {
            Some(path) => {
                let bytes = read_private(path)?;
                std::str::from_utf8(&bytes)?.trim_end_matches(['\r', '\n']).to_owned()
            }
            None if is_new => ask_new_password()?,
            None => ask("Passphrase of the backup: ")?.unwrap_or_default(),
        };
        Ok(Zeroizing::new(text))
    }
}

pub(super) fn backup(args: &BackupArgs) -> Done {
    if args.file.try_exists()? {
        return Err(Failure::new(format!("{} exists already", args.file.display())));
    }
    let passphrase = args.passphrase.read(true)?;
    let spec = BackupSpec { passphrase: passphrase.clone() };
    let bytes = Connection::open(&args.node)?.post_for_bytes("/v1/backup", &spec)?;
    // What cannot be opened again is no backup.
    let opened = backup::read(&bytes, passphrase.as_bytes())?;
    replace_private(&args.file, &bytes)?;
    print_line(&format!("{} bytes written and checked: {}", bytes.len(), describe(&opened)))
}

pub(super) fn verify(args: &VerifyArgs) -> Done {
    let opened = open(&args.file, &args.passphrase)?;
    print_line(&format!("whole: {}", describe(&opened)))
}

pub(super) fn restore(args: &RestoreArgs) -> Done {
    let config = Config::read(&args.node.config)?;
    logging::start(&config.log)?;
    let opened = open(&args.file, &args.passphrase)?;
    let (now, saved) = (clock::now(), opened.state.time());
    if now < saved {
        // Passcodes that were used after that time could be used again.
        return Err(Failure::new(format!(
            "this machine's clock shows {}, but what the backup holds happened up to {}: set the clock right",
            rfc3339(now),
            rfc3339(saved)
        )));
    }
    let described = describe(&opened);
    let restored = node_runtime()?.block_on(node::restore(&config, opened))?;
    let file = args.node.config.display();
    let totp = restored.totp_accepted_from().map_or_else(String::new, |from| {
        format!("TOTP passcodes are accepted from {} on.\n", rfc3339(from))
    });
    print_line(&format!(
        "restored: {described}\n{totp}HOTP devices go on {} passcodes later; `watchword device resync` finds \
         those that are further.\nRun the node: watchword serve --config {file}\nand let others join: \
         watchword token create --config {file}",
        restored.settings().hotp_look_ahead()
    ))
}

fn open(file: &Path, passphrase: &PassphraseArgs) -> Result<Backup, Failure> {
    let name = file.display();
    let bytes =
        fs::read(file).map_err(|error| Failure::new(format!("cannot read {name}: {error}")))?;
    let passphrase = passphrase.read(false)?;
    backup::read(&bytes, passphrase.as_bytes())
        .map_err(|error| Failure::new(format!("{name}: {error}")))
}

fn describe(backup: &Backup) -> String {
    let Backup { header, state, .. } = backup;
    format!(
        "{} users, {} devices, {} clients of cluster {} at entry {}, {}, release {}",
        state.user_count(),
        state.device_count(),
        state.clients().count(),
        header.cluster,
        header.index,
        header.created,
        header.release,
    )
}

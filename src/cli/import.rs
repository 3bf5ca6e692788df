//! `user import`: users from a CSV file.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use indicatif::ProgressBar;

use super::output::{print_line, progress_bar};
use super::socket::Connection;
use super::{Done, Failure, NodeArgs};
use crate::admin::{BATCH_ROWS_MAX, ImportRow, RowOutcome, read_rows};

/// Bad rows that are shown one by one.
const SHOWN_MAX: usize = 100;

#[derive(Args)]
#[command(after_help = "Example:\n  watchword user import users.csv\n\n\
    The first line names the columns: username, and any of full_name, mail, groups (a;b), password,\n\
    password_hash (argon2id), disabled (yes|no), totp_key or hotp_key (base32), algorithm, digits,\n\
    period_seconds, counter, label.\n\n\
    A user who exists is left alone, so an interrupted import is resumed by running it again.\n\
    A bad row is reported with its line and does not stop the others; the status is then 1.")]
pub(super) struct ImportArgs {
    /// CSV file, or - for standard input
    file: PathBuf,
    /// Check every row and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Default)]
struct Tally {
    added: u64,
    existing: u64,
    bad: usize,
}

pub(super) fn run(args: &ImportArgs) -> Done {
    let (input, size): (Box<dyn Read>, u64) = if args.file.as_os_str() == "-" {
        (Box::new(std::io::stdin().lock()), 0)
    } else {
        let named = |error| Failure::new(format!("{}: {error}", args.file.display()));
        let file = File::open(&args.file).map_err(named)?;
        let size = file.metadata().map_err(named)?.len();
        (Box::new(file), size)
    };
    let bar = progress_bar(size, "{msg}  {elapsed}, {eta} left");
    let rows = read_rows(bar.wrap_read(input))
        .map_err(|error| Failure::new(format!("{}: {error}", args.file.display())))?;
    let mut node = if args.dry_run { None } else { Some(Connection::open(&args.node)?) };
    let mut tally = Tally::default();
    let mut batch = Vec::with_capacity(BATCH_ROWS_MAX);
    for (line, row) in rows {
        match row {
            Ok(row) => batch.push((line, row)),
            Err(error) => tally.bad(&bar, line, &error.to_string()),
        }
        if batch.len() == BATCH_ROWS_MAX {
            send(&mut node, &mut batch, &mut tally, &bar)?;
        }
    }
    send(&mut node, &mut batch, &mut tally, &bar)?;
    bar.finish_and_clear();
    let Tally { added, existing, bad } = tally;
    let verb = if args.dry_run { "would be sent" } else { "added" };
    print_line(&format!("{added} {verb}, {existing} there already, {bad} bad"))?;
    if bad == 0 { Ok(()) } else { Err(Failure::new(format!("{bad} rows were refused"))) }
}

/// Sends the rows that are waiting, if there is a node, and counts what became of them.
fn send(
    node: &mut Option<Connection>,
    batch: &mut Vec<(u64, ImportRow)>,
    tally: &mut Tally,
    bar: &ProgressBar,
) -> Done {
    let (lines, rows): (Vec<u64>, Vec<ImportRow>) = batch.drain(..).unzip();
    let Some(node) = node else {
        tally.added += rows.len() as u64;
        return Ok(());
    };
    if rows.is_empty() {
        return Ok(());
    }
    let outcomes: Vec<RowOutcome> = node.post("/v1/import", &rows)?;
    for (line, outcome) in lines.into_iter().zip(outcomes) {
        match outcome {
            RowOutcome::Added => tally.added += 1,
            RowOutcome::Exists => tally.existing += 1,
            RowOutcome::Refused(reason) => tally.bad(bar, line, &reason),
        }
    }
    bar.set_message(format!("{} added", tally.added));
    Ok(())
}

impl Tally {
    fn bad(&mut self, bar: &ProgressBar, line: u64, reason: &str) {
        self.bad += 1;
        match self.bad {
            ..=SHOWN_MAX => bar.suspend(|| eprintln!("line {line}: {reason}")),
            number if number == SHOWN_MAX + 1 => {
                bar.suspend(|| eprintln!("further bad rows are only counted"));
            }
            _ => {}
        }
    }
}

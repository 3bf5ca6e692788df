//! How listings look: a table for people, JSON for programs.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::Failure;

/// Chooses the form of a listing.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct FormatArgs {
    /// The form of the answer
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(super) format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

impl FormatArgs {
    /// Prints `value` as JSON, or what `table` makes of it.
    pub(super) fn print<T: Serialize>(
        self,
        value: &T,
        table: impl FnOnce(&T) -> Table,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => print_line(&serde_json::to_string_pretty(value)?),
            Format::Table => print_line(&table(value).to_string()),
        }
    }
}

/// Prints to standard output. A reader that has gone away (`| head`) is no failure.
pub(super) fn print_line(text: &str) -> Result<(), Failure> {
    use std::io::{ErrorKind, Write};
    match writeln!(std::io::stdout().lock(), "{}", text.trim_end()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// A bar on the way to `length`, followed by what `behind` makes of it (indicatif's template). Nothing is
/// drawn where nobody looks.
pub(super) fn progress_bar(length: u64, behind: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) =
        ProgressStyle::with_template(&format!("{{bar:30}} {{percent:>3}} %  {behind}"))
    {
        bar.set_style(style);
    }
    bar
}

/// A table with these column heads.
pub(super) fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(heads);
    table
}

/// A table of two columns: what, and its value.
pub(super) fn properties<const N: usize>(rows: [(&str, String); N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    for (name, value) in rows {
        table.add_row([name.to_owned(), value]);
    }
    table
}

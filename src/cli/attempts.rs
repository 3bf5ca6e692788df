//! `attempts`.

use clap::Args;

use super::output::{Format, FormatArgs, print_line, table};
use super::socket::Connection;
use super::{Done, NodeArgs};
use crate::admin::{AttemptView, AttemptsPage, percent_encoded};

#[derive(Args)]
#[command(after_help = "Examples:\n  watchword attempts --user jo\n  watchword attempts --follow")]
pub(super) struct AttemptsArgs {
    /// Only this user's
    #[arg(long)]
    user: Option<String>,
    /// The latest so many
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Go on with each new attempt until interrupted
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

pub(super) fn run(args: &AttemptsArgs) -> Done {
    let mut node = Connection::open(&args.node)?;
    let user = match &args.user {
        Some(user) => format!("&user={}", percent_encoded(user)),
        None => String::new(),
    };
    let mut page: AttemptsPage = node.get(&format!("/v1/attempts?limit={}{user}", args.limit))?;
    if !args.follow {
        return args.format.print(&page.attempts, |attempts| {
            let mut table =
                table(&["NUMBER", "TIME", "USER", "CLIENT", "FROM", "VERDICT", "REASON"]);
            for attempt in attempts {
                table.add_row([
                    attempt.number.to_string(),
                    attempt.time.clone(),
                    attempt.username.clone(),
                    attempt.client.clone(),
                    attempt.remote.clone(),
                    verdict(attempt).to_owned(),
                    attempt.reason.clone(),
                ]);
            }
            table
        });
    }
    loop {
        for attempt in &page.attempts {
            match args.format.format {
                Format::Json => print_line(&serde_json::to_string(attempt)?)?,
                Format::Table => print_line(&format!(
                    "{}  {}  {}  {}  {}: {}",
                    attempt.number,
                    attempt.time,
                    attempt.username,
                    attempt.client,
                    verdict(attempt),
                    attempt.reason
                ))?,
            }
        }
        let next = page.next;
        page = node.get(&format!("/v1/attempts?from={next}&wait_seconds=30{user}"))?;
    }
}

fn verdict(attempt: &AttemptView) -> &'static str {
    if attempt.accepted { "accepted" } else { "refused" }
}

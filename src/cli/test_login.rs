//! `test`: one login from the administrator's desk, as the predecessor's Test button.

use clap::Args;

use super::input::ask;
use super::output::print_line;
use super::socket::Connection;
use super::{Done, Failure, NodeArgs};
use crate::admin::{TestLogin, TestReport};

#[derive(Args)]
#[command(after_help = "Example:\n  watchword test jo\n\n\
                        It is a real login: a right passcode is used up, a wrong one counts.\n\
                        Without a terminal the answers are read from standard input, a line each.")]
pub(super) struct TestArgs {
    /// The user, in any spelling
    user: String,
    /// Apply this client's policy
    #[arg(long)]
    client: Option<String>,
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) fn run(args: &TestArgs) -> Done {
    let mut node = Connection::open(&args.node)?;
    let mut prompt = "Password, passcode, or password,passcode: ".to_owned();
    let mut challenge = None;
    loop {
        let ended = || Failure::new("standard input ended before the login did");
        let login = TestLogin {
            username: args.user.clone(),
            credential: ask(&prompt)?.ok_or_else(ended)?,
            challenge,
            client: args.client.clone(),
        };
        let report: TestReport = node.post("/v1/test", &login)?;
        for (number, step) in (1..).zip(&report.steps) {
            print_line(&format!("{number}. {step}"))?;
        }
        match report.outcome.as_str() {
            "accept" => return print_line(&format!("ACCEPT: {}", report.detail)),
            "challenge" if report.challenge.is_some() => {
                prompt = report.detail;
                challenge = report.challenge;
            }
            _ => return Err(Failure::new(format!("REJECT: {}", report.detail))),
        }
    }
}

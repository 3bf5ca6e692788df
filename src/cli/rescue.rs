//! `recover`: a node goes on alone when the majority of its cluster is lost for good.

use clap::Args;

use super::output::print_line;
use super::{Done, Failure, NodeArgs, node_runtime};
use crate::config::Config;
use crate::{logging, node};

#[derive(Args)]
#[command(
    after_help = "Example:\n  watchword recover --yes --config /etc/watchword/watchword.toml\n\n\
                  Only when so many nodes are lost for good that the others decide nothing any more. Run it on \
                  the node that is furthest, while it is stopped; without --yes it only shows how far that is. \
                  The other nodes, also those that are left, are removed: they are told so when they come back, \
                  and join again with empty data directories. Make sure that none of them still answers \
                  clients. What they had committed and this node has not got is lost."
)]
pub(super) struct RecoverArgs {
    /// Do it
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) fn recover(args: &RecoverArgs) -> Done {
    let config = Config::read(&args.node.config)?;
    logging::start(&config.log)?;
    let runtime = node_runtime()?;
    let remains = runtime.block_on(node::remains(&config))?;
    let (index, term) = remains.last;
    let voters: Vec<_> = remains.voters.iter().map(u64::to_string).collect();
    let found = format!(
        "this node's log ends at entry {index} of term {term}; the voters are {}",
        voters.join(", ")
    );
    if !args.yes {
        return Err(Failure::new(format!(
            "{found}; it would go on alone and remove the others for ever; say --yes if that is meant"
        )));
    }
    runtime.block_on(node::recover(&config))?;
    let file = args.node.config.display();
    print_line(&format!(
        "{found}\nit goes on alone; run it: watchword serve --config {file}\nthen let other nodes join: \
         watchword token create --config {file}"
    ))
}

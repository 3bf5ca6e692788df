//! `init` and `serve`.

use std::io;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::output::print_line;
use super::{Done, Failure, NodeArgs, node_runtime};
use crate::config::Config;
use crate::node::{self, Node};
use crate::{logging, metrics};

#[derive(Args)]
#[command(after_help = "Example:\n  watchword init --config /etc/watchword/watchword.toml")]
pub(super) struct InitArgs {
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  watchword serve --config /etc/watchword/watchword.toml")]
pub(super) struct ServeArgs {
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) fn init(args: &InitArgs) -> Done {
    let config = Config::read(&args.node.config)?;
    logging::start(&config.log)?;
    node_runtime()?.block_on(node::init(&config))?;
    let (data, file) = (config.data_dir.display(), args.node.config.display());
    print_line(&format!("cluster made in {data}; run it: watchword serve --config {file}"))
}

pub(super) fn serve(args: &ServeArgs) -> Done {
    let config = Config::read(&args.node.config)?;
    logging::start(&config.log)?;
    let recorder = metrics::install()?;
    node_runtime()?.block_on(async {
        // Caught from here on, so that a stop during the start is a clean one too.
        let mut stop = StopSignal::new()?;
        let node = Node::start(&config, recorder).await?;
        let addresses = node.radius_addresses();
        tracing::info!(radius = ?addresses, metrics = %node.metrics_address(), "node started");
        notify(&[sd_notify::NotifyState::Ready]);
        let signal = stop.received().await;
        tracing::info!(signal, "stopping");
        notify(&[sd_notify::NotifyState::Stopping]);
        node.stop().await?;
        tracing::info!("stopped");
        Ok::<_, Failure>(())
    })
}

/// Tells systemd, if that is who started us.
fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}

/// The signals that end a node in order.
pub(super) struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    pub(super) fn new() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one and names it.
    pub(super) async fn received(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

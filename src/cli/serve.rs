//! `init` and `serve`.

use std::io;

use clap::Args;
use rustix::process::{Resource, Rlimit};
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
    /// Stop when standard input is closed
    #[arg(long, hide = true)]
    while_stdin_open: bool,
}

pub(super) fn init(args: &InitArgs) -> Done {
    let config = Config::read(&args.node.config)?;
    logging::start(&config.log)?;
    let token = node_runtime()?.block_on(node::init(&config))?;
    let (data, file) = (config.data_dir.display(), args.node.config.display());
    let (address, expires) = (config.peers.advertised(), &token.expires);
    print_line(&format!(
        "cluster made in {data}; run it:\n\n  watchword serve --config {file}\n\n\
         Until {expires}, two more nodes may join it, each with an empty data directory:\n\n  \
         watchword join {address} --token {} --config FILE",
        token.token
    ))
}

pub(super) fn serve(args: &ServeArgs) -> Done {
    let config = Config::read(&args.node.config)?;
    logging::start(&config.log)?;
    run(&config, args.while_stdin_open)
}

/// Runs the node until it is told to stop.
pub(super) fn run(config: &Config, while_stdin_open: bool) -> Done {
    // The keys are in this process's memory; a core file would put them on a disk.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none)?;
    let recorder = metrics::install()?;
    node_runtime()?.block_on(async {
        // Caught from here on, so that a stop during the start is a clean one too.
        let mut stop = StopSignal::new()?;
        // A file that may grow no further is an error like a full disk, which the store reports; without
        // somebody who listens, the signal would end the process before it can.
        let _no_room = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
        let node = Node::start(config, recorder).await?;
        let addresses = node.radius_addresses();
        tracing::info!(radius = ?addresses, metrics = %node.metrics_address(), "node started");
        notify(&[sd_notify::NotifyState::Ready]);
        let signal = tokio::select! {
            signal = stop.received() => signal,
            () = stdin_closed(), if while_stdin_open => "end of standard input",
        };
        tracing::info!(signal, "stopping");
        notify(&[sd_notify::NotifyState::Stopping]);
        node.stop().await?;
        tracing::info!("stopped");
        Ok::<_, Failure>(())
    })
}

/// Waits until standard input ends, on a thread that this process does not wait for.
async fn stdin_closed() {
    let (closed, wait) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let copied = io::copy(&mut io::stdin(), &mut io::sink());
        drop(closed.send(copied));
    });
    drop(wait.await);
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

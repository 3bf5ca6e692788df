//! `check`: validates the node's file and tries each thing it names.

use std::net::{TcpListener, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixStream;

use clap::Args;

use super::output::print_line;
use super::{Done, Failure, NodeArgs};
use crate::config::{Config, KeySource};
use crate::error_chain::chain;
use crate::keys::Keyring;
use crate::logging;
use crate::node::check_private;
use crate::stage::Stage;

#[derive(Args)]
#[command(after_help = "Example:\n  watchword check --config /etc/watchword/watchword.toml\n\n\
                        Changes nothing. While the node runs, its addresses are in use by it.")]
pub(super) struct CheckArgs {
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) fn run(args: &CheckArgs) -> Done {
    let config = Config::read(&args.node.config)?;
    logging::start(&config.log)?;
    let is_running = UnixStream::connect(config.admin_socket()).is_ok();
    let mut failures = 0;
    let mut report = |what: &str, result: Result<String, String>| match result {
        Ok(detail) => print_line(&format!("ok      {what}: {detail}")),
        Err(reason) => {
            failures += 1;
            print_line(&format!("FAILED  {what}: {reason}"))
        }
    };
    report("file", Ok(args.node.config.display().to_string()))?;
    report("data_dir", check_data_dir(&config))?;
    report("key", check_key(&config))?;
    for address in &config.radius.listen {
        let bound = UdpSocket::bind(address).map(drop);
        report("radius.listen", in_use(is_running, address, bound))?;
    }
    let bound = TcpListener::bind(config.peers.listen).map(drop);
    report("peers.listen", in_use(is_running, &config.peers.listen, bound))?;
    report("peers.advertise", check_advertised(&config))?;
    let bound = TcpListener::bind(config.metrics.listen).map(drop);
    report("metrics.listen", in_use(is_running, &config.metrics.listen, bound))?;
    match failures {
        0 => Ok(()),
        failures => Err(Failure::new(format!("{failures} of the checks failed"))),
    }
}

fn check_data_dir(config: &Config) -> Result<String, String> {
    let path = &config.data_dir;
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            check_private(path).map_err(|error| error.to_string())?;
            Stage::of(path).map_err(|error| chain(&error))?;
            tempfile::tempfile_in(path).map_err(|error| format!("cannot write to it: {error}"))?;
            Ok(path.display().to_string())
        }
        Ok(_) => Err(format!("{} is no directory", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(format!("{} is not there yet; init makes it", path.display()))
        }
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Uses the key as the node would; when there is nothing to open yet, on a key that is thrown away.
fn check_key(config: &Config) -> Result<String, String> {
    let source = config.key_source().ok_or("no key")?;
    if Keyring::exists(&config.data_dir) {
        Keyring::load(&config.data_dir, &source).map_err(|error| chain(&error))?;
        return Ok(format!("{source} opens the data key"));
    }
    if let KeySource::File(path) = &source
        && !path.exists()
    {
        return Ok(format!("{source} is not there yet; init makes it"));
    }
    Keyring::try_source(&source).map_err(|error| chain(&error))?;
    Ok(format!("{source} can be used; there is no data key yet"))
}

/// Others must be able to make something of what they are told.
fn check_advertised(config: &Config) -> Result<String, String> {
    let address = config.peers.advertised();
    match address.to_socket_addrs() {
        Ok(mut found) => match found.next() {
            Some(found) => Ok(format!("{address}, which is {found} here")),
            None => Err(format!("{address} has no address")),
        },
        Err(error) => Err(format!("{address}: {error}")),
    }
}

fn in_use(
    is_running: bool,
    address: &std::net::SocketAddr,
    bound: std::io::Result<()>,
) -> Result<String, String> {
    match bound {
        Ok(()) => Ok(address.to_string()),
        Err(error) if is_running && error.kind() == std::io::ErrorKind::AddrInUse => {
            Ok(format!("{address}, in use by the running node"))
        }
        Err(error) => Err(format!("{address}: {error}")),
    }
}

//! The cluster under test, as its operators see it: made, started, broken, repaired.
//!
//! Everything goes through the product's own command line and its health port. Nodes are numbered
//! by their hosts, from 0; the product's own ids change when a node is replaced, and stay in here.

mod digest;
mod node;
mod system;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

pub use digest::Digest;

use crate::client::admin::Admin;
use crate::client::metrics;
use crate::lab::Lab;
use crate::wait;
use node::Node;

/// The secret that the clients share with the cluster.
pub const SECRET: &str = "a-secret-of-the-laboratory";
/// The runner's own address in the laboratory.
const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);
/// Wrong passcodes that lock a user.
pub const LOCKOUT_LIMIT: u64 = 5;
/// Counters ahead of a token's last one at which a passcode is still accepted.
pub const HOTP_LOOK_AHEAD: u64 = 50;
/// How long the cluster may take to form.
const FORM_PATIENCE: Duration = Duration::from_secs(60);

/// Settings that differ from what is shipped, and why.
const SETTINGS: [(&str, &str); 6] = [
    // Counters that nobody knows the fate of are skipped; a user must survive a few of them.
    ("hotp.look_ahead", "50"),
    // A jumped clock must not end a lock, or a challenge: that would be right, and look wrong.
    ("lockout.minutes", "10080"),
    ("lockout.reset_minutes", "10080"),
    ("challenge.seconds", "600"),
    // Nothing that was recorded in a run leaves the record within it.
    ("attempts.kept", "1048576"),
    ("lockout.passcode_failures", "5"),
];

/// The cluster.
pub struct Db {
    lab: Arc<Lab>,
    nodes: Vec<Node>,
    dir: PathBuf,
}

impl Db {
    /// A cluster of `program` on the hosts of `lab`, not yet made. Configuration and logs go below `dir`.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn new(lab: Arc<Lab>, program: &Path, dir: &Path) -> Result<Self> {
        let nodes = (0..lab.hosts()).map(|host| Node::new(&lab, host, dir, program));
        let nodes = nodes.collect::<Result<_>>()?;
        Ok(Self { lab, nodes, dir: dir.to_owned() })
    }

    /// Makes the cluster: all nodes vote, and the clients of the harness may ask.
    ///
    /// # Errors
    /// When any of it does not come about.
    pub fn setup(&self) -> Result<()> {
        let (first, others) = self.nodes.split_first().context("a cluster has a node")?;
        first.init()?;
        first.start(&self.lab)?;
        let uses = others.len().to_string();
        if !others.is_empty() {
            let ready = || metrics::ready(first.metrics()).map_err(|why| anyhow!(why));
            wait::until(FORM_PATIENCE, ready).context("n1 is not ready")?;
            let token = first.admin().json(&["token", "create", "--uses", &uses])?;
            let token = text(&token, "token")?;
            for node in others {
                node.will_join(first.peers(), token);
            }
            // At once: a joiner waits for its turn by itself.
            self.on_each(&(1..self.nodes.len()).collect::<Vec<_>>(), |host| {
                self.node(host)?.start(&self.lab)
            })?;
        }
        let voters = self.nodes.len();
        wait::until(FORM_PATIENCE, || self.has_voters(voters))
            .context("the cluster did not form")?;
        self.add_client(first)?;
        for (key, value) in SETTINGS {
            let set = first.admin().run(&["settings", "set", key, value])?;
            set.error().map_or(Ok(()), |error| Err(anyhow!("settings set {key}: {error}")))?;
        }
        Ok(())
    }

    fn add_client(&self, node: &Node) -> Result<()> {
        let (secret, from) = (self.dir.join("radius.secret"), self.control().to_string());
        node::write_private(&secret, SECRET)?;
        let secret = secret.display().to_string();
        let added = node.admin().run(&[
            "client",
            "add",
            "radius",
            "jepsen",
            "--address",
            &from,
            "--secret-file",
            &secret,
            "--first-factor",
            "none",
            "--require-message-authenticator",
            "yes",
        ])?;
        added.error().map_or(Ok(()), |error| Err(anyhow!("client add: {error}")))
    }

    /// How many nodes there are.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// `n1` for host 0.
    pub fn name(&self, host: usize) -> &str {
        self.nodes.get(host).map_or("?", Node::name)
    }

    /// Where clients send from.
    pub fn control(&self) -> IpAddr {
        CONTROL.into()
    }

    /// Where the nodes answer RADIUS, by host.
    pub fn radius(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Node::radius).collect()
    }

    /// The command line for the node on `host`.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn admin(&self, host: usize) -> Result<Admin> {
        Ok(self.node(host)?.admin())
    }

    /// Adds users from the rows of a CSV file, the first of which names the columns.
    ///
    /// # Errors
    /// When a row is refused.
    pub fn import(&self, rows: &str) -> Result<()> {
        let admin = self.admin(0)?;
        let added = admin.run_for(&["user", "import", "-"], rows, FORM_PATIENCE)?;
        added.error().map_or(Ok(()), |error| Err(anyhow!("user import: {error}")))
    }

    /// What nodes did that nobody asked for: they ended, or would not start.
    pub fn surprises(&self) -> Vec<String> {
        let of = |node: &Node| {
            let surprises = node.surprises().into_iter();
            surprises.map(|what| format!("{}: {what}", node.name())).collect::<Vec<_>>()
        };
        self.nodes.iter().flat_map(of).collect()
    }

    /// Who leads, as far as the nodes that answer say.
    pub fn leading(&self) -> Option<usize> {
        let all: Vec<usize> = (0..self.size()).collect();
        let leads = |host: usize| {
            let samples = metrics::samples(self.node(host)?.metrics())?;
            let of = |name: &str| samples.get(name).copied().unwrap_or(0.0);
            Ok((of("watchword_is_leader") > 0.0).then(|| of("watchword_raft_term")))
        };
        let terms = self.ask_each(&all, leads);
        let leaders = terms.into_iter().filter_map(|(host, term)| Some((host, term.ok()??)));
        leaders.max_by(|one, other| one.1.total_cmp(&other.1)).map(|(host, _)| host)
    }

    /// What the node says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self, host: usize) -> Result<Value> {
        self.admin(host)?.json(&["status"])
    }

    /// Whether the node says that it can commit, and if not, why.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn ready(&self, host: usize) -> Result<()> {
        let node = self.node(host)?;
        metrics::ready(node.metrics()).map_err(|why| anyhow!("{}: {why}", node.name()))
    }

    /// Does something with several nodes at once; the first failure.
    fn on_each(&self, hosts: &[usize], act: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
        self.ask_each(hosts, act).into_iter().try_for_each(|(_, done)| done)
    }

    fn ask_each<T: Send>(
        &self,
        hosts: &[usize],
        ask: impl Fn(usize) -> Result<T> + Sync,
    ) -> Vec<(usize, Result<T>)> {
        let ask = &ask;
        thread::scope(|scope| {
            let asked: Vec<_> =
                hosts.iter().map(|&host| (host, scope.spawn(move || ask(host)))).collect();
            let joined = asked.into_iter().map(|(host, thread)| {
                (host, thread.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked"))))
            });
            joined.collect()
        })
    }

    /// Whether this many nodes vote, in the eyes of all of them, and all are ready.
    fn has_voters(&self, count: usize) -> Result<()> {
        for host in 0..self.size() {
            let status = self.status(host)?;
            let voters = status.get("voters").and_then(Value::as_array).map_or(0, Vec::len);
            if voters != count {
                bail!("{} sees {voters} voters", self.name(host));
            }
            self.ready(host)?;
        }
        Ok(())
    }

    fn node(&self, host: usize) -> Result<&Node> {
        self.nodes.get(host).with_context(|| format!("there is no host {host}"))
    }
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    value.get(field).and_then(Value::as_str).with_context(|| format!("no {field:?} in {value}"))
}

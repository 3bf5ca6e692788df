//! What can be seen of all nodes after a tick.

use std::collections::BTreeSet;
use std::rc::Rc;

use watchword_cluster::{Inspected, NodeId, Role};
use watchword_core::State;

use crate::host::Host;

/// A term and a node: a vote, or a leader.
pub(crate) type Ballot = (u64, NodeId);

/// A node, as it stands after a tick.
pub(crate) struct Seen {
    /// The number of its host.
    pub(crate) host: usize,
    /// Its id.
    pub(crate) node: NodeId,
    /// How often it was started.
    pub(crate) start: u64,
    /// Its role.
    pub(crate) role: Role,
    /// Its term, and itself: what it leads under, if it leads.
    pub(crate) ballot: Ballot,
    /// The last entry that it has applied.
    pub(crate) applied: u64,
    /// Whether it has changed what it has applied since the last tick.
    pub(crate) has_applied: bool,
    /// The votes that have become durable since the last tick.
    pub(crate) votes: Vec<Ballot>,
    /// The sets of voters, as it knows, of each of which a majority decides.
    pub(crate) configurations: Vec<BTreeSet<NodeId>>,
    /// The last purged entry, and the last one.
    pub(crate) bounds: (u64, u64),
    /// The end of its log, from the first entry that has changed.
    pub(crate) changed: Option<Vec<Inspected>>,
    /// Its state.
    pub(crate) state: State,
}

/// Looks at the nodes, tick after tick.
pub(crate) struct Observer {
    hosts: Rc<Vec<Rc<Host>>>,
    applied: Vec<(u64, u64)>,
}

impl Observer {
    /// Of these hosts.
    pub(crate) fn new(hosts: Rc<Vec<Rc<Host>>>) -> Self {
        let applied = vec![(0, 0); hosts.len()];
        Self { hosts, applied }
    }

    /// Every running node.
    pub(crate) fn look(&mut self) -> Vec<Seen> {
        let hosts = self.hosts.clone();
        hosts.iter().filter_map(|host| self.look_at(host)).collect()
    }

    fn look_at(&mut self, host: &Host) -> Option<Seen> {
        let cluster = host.running.borrow().as_ref()?.cluster.clone();
        let status = cluster.status();
        let disk = host.disk.borrow();
        // What has been applied is read together with the state.
        let (applied, state) = (status.applied.unwrap_or(0), cluster.state());
        let before = &mut self.applied[host.number];
        let now = (host.starts.get(), applied);
        let has_applied = std::mem::replace(before, now) != now;
        Some(Seen {
            host: host.number,
            node: status.node_id,
            start: host.starts.get(),
            role: status.role,
            ballot: (status.term, status.node_id),
            applied,
            has_applied,
            votes: disk.take_votes(),
            configurations: status.configurations,
            bounds: disk.bounds(),
            changed: disk.take_changed(),
            state,
        })
    }
}

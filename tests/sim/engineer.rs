//! Whoever adds, removes and replaces nodes: one at a time, as an administrator would.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;
use watchword_core::node::NodeId;

use crate::host::Host;
use crate::operator::{Office, admit};

/// How often something is tried before the next task has its turn.
const TRIES: usize = 40;
const PAUSE: Duration = Duration::from_millis(150);

/// Something to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Task {
    /// A new node on this host.
    Add(usize),
    /// The node on this host leaves for ever.
    Remove(usize),
    /// A new node on this host, whose disk is empty, in place of an old one.
    Replace(usize, NodeId),
}

/// What only whoever drives the simulation can do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hand {
    /// Start the host.
    Start(usize),
    /// Stop the host; nobody belongs there any more.
    Stop(usize),
}

/// What lies before the engineer, and what he asks for.
#[derive(Default)]
pub(crate) struct Desk {
    /// What is to be done.
    pub(crate) tasks: RefCell<VecDeque<Task>>,
    /// Whether something is being done.
    pub(crate) is_busy: Cell<bool>,
    /// What whoever drives the simulation is asked to do.
    pub(crate) hands: RefCell<Vec<Hand>>,
    /// Nodes that were added, and that were removed.
    pub(crate) done: Cell<(u64, u64)>,
}

impl Desk {
    /// Whether nothing is left to do.
    pub(crate) fn is_clear(&self) -> bool {
        self.tasks.borrow().is_empty() && !self.is_busy.get()
    }
}

/// Does one task after the other.
pub(crate) async fn work(
    desk: &Desk,
    office: &Office,
    hosts: &[Rc<Host>],
    seed: u64,
) -> turmoil::Result {
    let mut random = fastrand::Rng::with_seed(seed);
    loop {
        let task = desk.tasks.borrow_mut().pop_front();
        let Some(task) = task else {
            sleep(PAUSE).await;
            continue;
        };
        desk.is_busy.set(true);
        let left = match task {
            Task::Add(host) => !add(desk, office, hosts, host).await?,
            Task::Remove(host) => match hosts[host].node() {
                Some(node) if remove(desk, hosts, node).await => {
                    // Nobody hurries to the machine: until then it is a node that may not answer.
                    sleep(Duration::from_millis(random.u64(0..2_000))).await;
                    desk.hands.borrow_mut().push(Hand::Stop(host));
                    false
                }
                // It may stay: it runs.
                _ => false,
            },
            Task::Replace(host, old) => {
                // A node that is lost for good counts against the quorum until it is out.
                let is_out = remove(desk, hosts, old).await;
                if is_out {
                    desk.tasks.borrow_mut().push_back(Task::Add(host));
                }
                !is_out
            }
        };
        if left {
            desk.tasks.borrow_mut().push_back(task);
        }
        desk.is_busy.set(false);
    }
}

/// Whether a node is added.
async fn add(
    desk: &Desk,
    office: &Office,
    hosts: &[Rc<Host>],
    number: usize,
) -> turmoil::Result<bool> {
    let host = &hosts[number];
    for attempt in 0..TRIES {
        let at = running(hosts, attempt).filter(|at| at.number != number);
        if let Some(at) = at
            && let Some(node) = admit(at, host, host.starts.get()).await?
        {
            office.appoint(host, node)?;
            desk.hands.borrow_mut().push(Hand::Start(number));
            let (added, removed) = desk.done.get();
            desk.done.set((added + 1, removed));
            return Ok(true);
        }
        sleep(PAUSE).await;
    }
    Ok(false)
}

/// Whether the node is removed, and nobody counts on it any more.
async fn remove(desk: &Desk, hosts: &[Rc<Host>], node: NodeId) -> bool {
    for attempt in 0..TRIES {
        let at = running(hosts, attempt).filter(|at| at.node() != Some(node));
        if let Some(at) = at {
            // Again after an attempt of unknown outcome, too.
            let removed = at.run(async move |handles| handles.admin.remove_node(node).await).await;
            if matches!(removed, Some(Ok(removed)) if removed.left) {
                let (added, removed) = desk.done.get();
                desk.done.set((added, removed + 1));
                return true;
            }
        }
        sleep(PAUSE).await;
    }
    false
}

/// One of the hosts with a running node.
fn running(hosts: &[Rc<Host>], attempt: usize) -> Option<&Rc<Host>> {
    let running: Vec<_> = hosts.iter().filter(|host| host.running.borrow().is_some()).collect();
    running.get(attempt % running.len().max(1)).copied()
}

//! Histories for tests: made by hand, or at random from a register that may be broken on purpose.

use serde_json::{Value, json};

use crate::checker::register::{Access, Action};
use crate::checker::wgl;
use crate::history::{Event, Kind, NEMESIS, Process};
use crate::operation::{self, Operation};
use crate::rng::Rng;

/// A history that grows event by event, a microsecond apart. Every operation has its own process
/// unless a test says otherwise.
#[derive(Default)]
pub(crate) struct Sample {
    pub(crate) events: Vec<Event>,
}

impl Sample {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Begins an operation and gives its handle.
    pub(crate) fn invoke(&mut self, f: &str, key: &str, value: impl Into<Value>) -> usize {
        self.invoke_as(self.events.len() as u64, f, key, value)
    }

    pub(crate) fn invoke_as(
        &mut self,
        process: u64,
        f: &str,
        key: &str,
        value: impl Into<Value>,
    ) -> usize {
        let mut event = Event::new(Process::Client(process), Kind::Invoke, f);
        event.key = (!key.is_empty()).then(|| key.to_owned());
        event.value = value.into();
        self.push(event)
    }

    pub(crate) fn ok(&mut self, invocation: usize, value: impl Into<Value>) {
        let mut event = self.events[invocation].completed(Kind::Ok);
        event.value = value.into();
        self.push(event);
    }

    pub(crate) fn fail(&mut self, invocation: usize) {
        self.push(self.events[invocation].completed(Kind::Fail));
    }

    pub(crate) fn info(&mut self, invocation: usize) {
        self.push(self.events[invocation].completed(Kind::Info));
    }

    /// A whole operation without anything in between.
    pub(crate) fn done(&mut self, f: &str, key: &str, value: impl Into<Value>) {
        let value = value.into();
        let invocation = self.invoke(f, key, value.clone());
        self.ok(invocation, value);
    }

    /// The same, at a node.
    pub(crate) fn done_at(&mut self, node: &str, f: &str, key: &str, value: impl Into<Value>) {
        let first = self.events.len();
        self.done(f, key, value);
        for event in &mut self.events[first..] {
            event.node = Some(node.to_owned());
        }
    }

    pub(crate) fn nemesis(&mut self, fault: &str, stage: &str, acted: u64) {
        let mut event = Event::new(NEMESIS, Kind::Info, fault);
        event.value = json!({ "stage": stage });
        event.evidence = json!({ "acted": acted });
        self.push(event);
    }

    pub(crate) fn operations(&self) -> Vec<Operation<'_>> {
        operation::pairs(&self.events).expect("well-formed")
    }

    /// Whether a search finds an order in which one register answers as these operations say: what
    /// other checkers of one bit of state can be compared with.
    pub(crate) fn is_linearizable(&self, as_register: fn(&Operation<'_>) -> Action) -> bool {
        let operations = self.operations();
        let accesses = operations
            .iter()
            .map(|operation| Access { action: as_register(operation), operation: *operation });
        let accesses: Vec<Access<'_>> = accesses.collect();
        matches!(wgl::check(&accesses), wgl::Search::Linearizable { .. })
    }

    fn push(&mut self, mut event: Event) -> usize {
        event.index = self.events.len() as u64;
        event.time = event.index * 1_000;
        self.events.push(event);
        self.events.len() - 1
    }
}

/// How a random register is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// Not at all.
    None,
    /// Some reads answer with a former value.
    StaleReads,
    /// Some acknowledged writes are not there.
    LostWrites,
    /// Some writes that failed are there.
    FailedWritesAct,
}

/// What a client of the random register does.
enum Client {
    Idle,
    Called { handle: usize, value: Value },
    Acted { handle: usize, kind: Kind, result: Value },
}

/// A random history of some `operations` on the register `key`, by clients that overlap.
pub(crate) fn register(
    sample: &mut Sample,
    rng: &mut Rng,
    key: &str,
    operations: usize,
    with_cas: bool,
    defect: Defect,
) {
    let mut clients: Vec<Client> = (0..5).map(|_| Client::Idle).collect();
    let mut past = vec![0_i64];
    let mut begun = 0;
    while begun < operations || clients.iter().any(|client| !matches!(client, Client::Idle)) {
        let at = rng.below(clients.len());
        clients[at] = match std::mem::replace(&mut clients[at], Client::Idle) {
            Client::Idle if begun == operations => Client::Idle,
            Client::Idle => {
                begun += 1;
                let now = past.last().copied().unwrap_or_default();
                let new = begun as i64;
                let (f, value) = match rng.below(if with_cas { 4 } else { 3 }) {
                    0 => ("write", json!(new)),
                    3 => ("cas", json!([now, new])),
                    _ => ("read", Value::Null),
                };
                let handle = sample.invoke(f, key, value.clone());
                Client::Called { handle, value }
            }
            Client::Called { handle, value } => act(sample, rng, defect, &mut past, handle, value),
            Client::Acted { handle, kind, result } => {
                match kind {
                    Kind::Ok => sample.ok(handle, result),
                    Kind::Fail => sample.fail(handle),
                    Kind::Info | Kind::Invoke => sample.info(handle),
                }
                Client::Idle
            }
        };
    }
}

/// The moment at which an operation takes effect, or does not.
fn act(
    sample: &Sample,
    rng: &mut Rng,
    defect: Defect,
    past: &mut Vec<i64>,
    handle: usize,
    value: Value,
) -> Client {
    let now = past.last().copied().unwrap_or_default();
    let broken = defect != Defect::None && rng.one_in(8);
    if sample.events[handle].f == "read" {
        let stale = broken && defect == Defect::StaleReads;
        let result = if stale { rng.pick(past).copied().unwrap_or_default() } else { now };
        let kind = if rng.one_in(12) { Kind::Info } else { Kind::Ok };
        return Client::Acted { handle, kind, result: json!(result) };
    }
    let new = value.as_i64().or_else(|| value[1].as_i64()).unwrap_or_default();
    let matches = value.is_i64() || value[0] == json!(now);
    let (acts, kind) = match rng.below(12) {
        _ if broken && defect == Defect::LostWrites => (false, Kind::Ok),
        _ if broken && defect == Defect::FailedWritesAct => (true, Kind::Fail),
        _ if !matches => (false, Kind::Fail),
        0 => (true, Kind::Info),
        1 => (false, Kind::Info),
        2 => (false, Kind::Fail),
        _ => (true, Kind::Ok),
    };
    if acts {
        past.push(new);
    }
    Client::Acted { handle, kind, result: value }
}

//! Operations: invocations joined with their completions.
//!
//! Every checker starts here, so that all of them refuse the same histories. A history that breaks
//! the rules (two invocations at once, a process that goes on after `info`) proves nothing, and is
//! refused with its line instead of being checked as far as it goes.
//!
//! Real-time order is the order of indexes: the recorder gives them under one lock. An operation
//! whose outcome is unknown never returns, because it may take effect at any later time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use serde_json::Value;

use crate::history::{Event, Kind, Process};

/// Where an operation of unknown outcome returns: after everything.
pub const NEVER: u64 = u64::MAX;

/// An invocation with its completion, if there is one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Operation<'a> {
    /// How it began.
    pub invocation: &'a Event,
    /// How it ended; none when the run was over before.
    pub completion: Option<&'a Event>,
}

impl<'a> Operation<'a> {
    /// What is known of its effect: `Ok`, `Fail`, or `Info` for all others.
    pub fn kind(&self) -> Kind {
        match self.completion.map(|event| event.kind) {
            Some(Kind::Ok) => Kind::Ok,
            Some(Kind::Fail) => Kind::Fail,
            Some(Kind::Info | Kind::Invoke) | None => Kind::Info,
        }
    }

    /// Whether it took effect for certain.
    pub fn is_ok(&self) -> bool {
        self.kind() == Kind::Ok
    }

    /// The interface that was used.
    pub fn via(&self) -> &'a str {
        self.invocation.via.as_deref().unwrap_or_default()
    }

    /// Which operation it is.
    pub fn f(&self) -> &'a str {
        &self.invocation.f
    }

    /// What it is on; empty when the whole system is meant.
    pub fn key(&self) -> &'a str {
        self.invocation.key.as_deref().unwrap_or_default()
    }

    /// The node that was asked, or that answered.
    pub fn node(&self) -> &'a str {
        let answered = self.completion.and_then(|event| event.node.as_deref());
        answered.or(self.invocation.node.as_deref()).unwrap_or_default()
    }

    /// The result when it is `ok`, the argument otherwise.
    pub fn value(&self) -> &'a Value {
        match self.completion {
            Some(event) if event.kind == Kind::Ok => &event.value,
            _ => &self.invocation.value,
        }
    }

    /// Index of the invocation.
    pub fn called(&self) -> u64 {
        self.invocation.index
    }

    /// Index of the completion, or [`NEVER`] when the effect may come later still.
    pub fn returned(&self) -> u64 {
        match self.kind() {
            Kind::Ok | Kind::Fail => self.ended(),
            Kind::Info | Kind::Invoke => NEVER,
        }
    }

    /// Index at which its client went on, whatever it knew then.
    pub fn ended(&self) -> u64 {
        self.completion.map_or(NEVER, |event| event.index)
    }

    /// Nanoseconds until its client went on.
    pub fn latency(&self) -> Option<u64> {
        self.completion.map(|event| event.time.saturating_sub(self.invocation.time))
    }

    /// Indexes of its events.
    pub fn events(&self) -> Vec<u64> {
        std::iter::once(self.called()).chain(self.completion.map(|event| event.index)).collect()
    }

    /// The result as a number.
    ///
    /// # Errors
    /// When it is none.
    pub fn integer(&self) -> Result<i64, Malformed> {
        self.value().as_i64().ok_or_else(|| self.malformed("the value is no integer"))
    }

    /// The result as a list of numbers.
    ///
    /// # Errors
    /// When it is none.
    pub fn integers(&self) -> Result<Vec<i64>, Malformed> {
        let items = self.value().as_array().map(|items| items.iter().map(Value::as_i64).collect());
        items.flatten().ok_or_else(|| self.malformed("the value is no list of integers"))
    }

    /// Whether the verdict of an `ok` operation is `accept`; it must be that or `reject`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn accepted(&self) -> Result<bool, Malformed> {
        match self.value().get("verdict").and_then(Value::as_str) {
            Some("accept") => Ok(true),
            Some("reject") => Ok(false),
            _ => Err(self.malformed("the verdict is neither `accept` nor `reject`")),
        }
    }

    /// Says that this operation cannot be checked.
    pub fn malformed(&self, what: &str) -> Malformed {
        Malformed::at(self.completion.unwrap_or(self.invocation), what)
    }
}

/// A history, or a part of it, that proves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Line of the history, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub what: String,
}

impl Malformed {
    fn at(event: &Event, what: &str) -> Self {
        Self { line: event.index + 1, what: format!("`{}`: {what}", event.f) }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for Malformed {}

/// The operations of the clients, in the order of their invocations. What the nemesis did is left
/// out; see [`crate::fault`].
///
/// # Errors
/// At the first event that cannot be in a history.
pub fn pairs(events: &[Event]) -> Result<Vec<Operation<'_>>, Malformed> {
    let mut operations: Vec<Operation<'_>> = Vec::new();
    let mut open: HashMap<Process, usize> = HashMap::new();
    let mut ended: HashSet<Process> = HashSet::new();
    let mut last: Option<&Event> = None;
    for event in events {
        if last.is_some_and(|last| event.index <= last.index || event.time < last.time) {
            return Err(Malformed::at(event, "the event is out of order"));
        }
        last = Some(event);
        if matches!(event.process, Process::Nemesis(_)) {
            continue;
        }
        if ended.contains(&event.process) {
            return Err(Malformed::at(event, "the process is used again after `info`"));
        }
        if event.kind == Kind::Invoke {
            if open.insert(event.process, operations.len()).is_some() {
                return Err(Malformed::at(event, "the process has an operation open already"));
            }
            operations.push(Operation { invocation: event, completion: None });
            continue;
        }
        let operation = open.remove(&event.process).and_then(|at| operations.get_mut(at));
        let Some(operation) = operation else {
            return Err(Malformed::at(event, "a completion without an invocation"));
        };
        if operation.invocation.f != event.f || operation.invocation.key != event.key {
            return Err(Malformed::at(event, "the completion is of another operation"));
        }
        operation.completion = Some(event);
        if event.kind == Kind::Info {
            ended.insert(event.process);
        }
    }
    Ok(operations)
}

/// The operations with one of these names, key by key.
pub fn by_key<'a>(
    operations: &[Operation<'a>],
    names: &[&str],
) -> BTreeMap<&'a str, Vec<Operation<'a>>> {
    let mut keys: BTreeMap<&str, Vec<Operation<'_>>> = BTreeMap::new();
    for operation in operations.iter().filter(|operation| names.contains(&operation.f())) {
        keys.entry(operation.key()).or_default().push(*operation);
    }
    keys
}

/// One moment of an operation.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// It begins.
    Call(Operation<'a>),
    /// Its outcome is known.
    Return(Operation<'a>),
}

/// Calls and returns in real-time order. What never returns has a call only.
pub fn steps<'a>(operations: &[Operation<'a>]) -> Vec<Step<'a>> {
    let mut steps: Vec<(u64, Step<'a>)> = Vec::with_capacity(2 * operations.len());
    for operation in operations {
        steps.push((operation.called(), Step::Call(*operation)));
        if operation.returned() != NEVER {
            steps.push((operation.returned(), Step::Return(*operation)));
        }
    }
    steps.sort_unstable_by_key(|(at, _)| *at);
    steps.into_iter().map(|(_, step)| step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::NEMESIS;
    use crate::sample::Sample;

    /// Events of process 7 of these kinds.
    fn of_kinds(kinds: &[Kind]) -> Vec<Event> {
        let event = |(index, kind): (usize, &Kind)| Event {
            index: index as u64,
            ..Event::new(Process::Client(7), *kind, "read")
        };
        kinds.iter().enumerate().map(event).collect()
    }

    #[test]
    fn an_invocation_is_joined_with_its_completion() {
        let mut sample = Sample::new();
        let first = sample.invoke("write", "u1", 1);
        let second = sample.invoke("write", "u1", 2);
        sample.nemesis("kill", "start", 1);
        sample.info(second);
        sample.ok(first, 1);
        sample.invoke("write", "u1", 3);
        let operations = sample.operations();
        let of =
            |at: usize| (operations[at].kind(), operations[at].called(), operations[at].returned());
        assert_eq!(operations.len(), 3);
        assert_eq!(of(0), (Kind::Ok, 0, 4));
        assert_eq!(of(1), (Kind::Info, 1, NEVER));
        assert_eq!(of(2), (Kind::Info, 5, NEVER));
    }

    #[test]
    fn a_malformed_history_is_refused_with_its_line() {
        use Kind::{Info, Invoke, Ok};
        let refused = |events: &[Event]| pairs(events).expect_err("malformed");
        assert_eq!(refused(&of_kinds(&[Invoke, Invoke])).line, 2);
        assert_eq!(refused(&of_kinds(&[Invoke, Ok, Ok])).line, 3);
        assert_eq!(refused(&of_kinds(&[Invoke, Info, Invoke])).line, 3);
        let mut swapped = of_kinds(&[Invoke, Ok]);
        swapped[1].f = "write".to_owned();
        assert!(refused(&swapped).to_string().starts_with("line 2: `write`: the completion is of"));
        let mut late = of_kinds(&[Invoke, Ok]);
        late[0].time = 5;
        assert!(refused(&late).what.contains("out of order"));
    }

    #[test]
    fn the_nemesis_is_free_to_repeat_itself() {
        let event = |index| Event { index, ..Event::new(NEMESIS, Kind::Info, "kill") };
        assert_eq!(pairs(&[event(0), event(1)]), Ok(Vec::new()));
    }
}

//! What the nemesis did, as windows of time.
//!
//! Its events are `info` with the fault as their operation and `{"stage": "start"}` or `"stop"` as
//! their value; `heal` ends everything. A fault without a stage lasts no time. What shows that it acted is
//! in the evidence: the number `acted` counts frames dropped, processes stopped, calls failed. What was
//! skipped, or did not act, stays in the record and counts for nothing.

use serde_json::Value;

use crate::history::{Event, Process};

/// The event by which the nemesis undoes everything.
pub const HEAL: &str = "heal";

/// One fault, from its start to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Which.
    pub fault: String,
    /// Nanoseconds since the run began.
    pub from: u64,
    /// The same; the end of the history for what was never undone.
    pub until: u64,
    /// How often it acted, by its own evidence.
    pub acted: u64,
    /// What its events say: where it was, and what shows that it acted.
    pub details: Vec<Value>,
}

impl Window {
    /// Whether it hurt, by its own evidence.
    pub fn has_acted(&self) -> bool {
        self.acted > 0
    }
}

/// All faults of a history, and the heals, in the order in which they began.
pub fn windows(events: &[Event]) -> Vec<Window> {
    let end = events.last().map_or(0, |event| event.time);
    let mut windows: Vec<Window> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    for event in events.iter().filter(|event| matches!(event.process, Process::Nemesis(_))) {
        let stage = event.value.get("stage").and_then(Value::as_str).unwrap_or_default();
        let running = open.iter().position(|&at| windows[at].fault == event.f);
        if let ("stop", Some(position)) = (stage, running) {
            let window = &mut windows[open.remove(position)];
            window.until = event.time;
            // The stop counts from the start on.
            window.acted = window.acted.max(acted(event));
            window.details.extend(details(event));
            continue;
        }
        // Undone after the heal: what it counts is its fault's.
        let last = windows.iter_mut().rev().find(|window| window.fault == event.f);
        if let ("stop", Some(window)) = (stage, last) {
            window.acted = window.acted.max(acted(event));
            window.details.extend(details(event));
            continue;
        }
        if event.f == HEAL {
            for at in open.drain(..) {
                windows[at].until = event.time;
            }
        }
        let lasts = stage == "start" && event.f != HEAL;
        if lasts {
            open.push(windows.len());
        }
        windows.push(Window {
            fault: event.f.clone(),
            from: event.time,
            until: if lasts { end } else { event.time },
            acted: acted(event),
            details: details(event).collect(),
        });
    }
    windows
}

/// When the nemesis undid everything.
pub fn heals(events: &[Event]) -> impl Iterator<Item = &Event> {
    let nemesis = |event: &&Event| matches!(event.process, Process::Nemesis(_)) && event.f == HEAL;
    events.iter().filter(nemesis)
}

fn acted(event: &Event) -> u64 {
    event.evidence.get("acted").and_then(Value::as_u64).unwrap_or(0)
}

fn details(event: &Event) -> impl Iterator<Item = Value> {
    let said = event.error.clone().map(Value::String);
    [event.value.clone(), event.evidence.clone()]
        .into_iter()
        .chain(said)
        .filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn a_fault_lasts_from_start_to_stop_and_to_the_heal_at_most() {
        let mut sample = Sample::new();
        sample.nemesis("partition", "start", 0);
        sample.nemesis("pause", "start", 1);
        sample.nemesis("partition", "stop", 412);
        sample.nemesis("kill", "", 1);
        sample.nemesis("heal", "", 0);
        // Undone after the heal.
        sample.nemesis("pause", "stop", 3);
        sample.nemesis("clock", "start", 1);
        sample.done("read", "u1", 0);
        let found = windows(&sample.events);
        let brief =
            |window: &Window| (window.fault.clone(), window.from, window.until, window.acted);
        assert_eq!(
            found.iter().map(brief).collect::<Vec<_>>(),
            [
                ("partition".to_owned(), 0, 2_000, 412),
                ("pause".to_owned(), 1_000, 4_000, 3),
                ("kill".to_owned(), 3_000, 3_000, 1),
                ("heal".to_owned(), 4_000, 4_000, 0),
                ("clock".to_owned(), 6_000, 8_000, 1),
            ]
        );
        assert_eq!(heals(&sample.events).count(), 1);
    }
}

//! A store that is not what was written is refused, and serves nobody an older state.

use serde_json::Value;

use super::{Anomaly, Finding};
use crate::history::{Event, Process};

/// Checks what the nemesis saw of nodes whose stores it had damaged: `refused`, or `entries_lost`.
pub fn check(events: &[Event]) -> Finding {
    let mut anomalies = Vec::new();
    let (mut damaged, mut refused, mut untold) = (0, 0, 0);
    for event in events.iter().filter(|event| matches!(event.process, Process::Nemesis(_))) {
        let Some(is_refused) = event.evidence.get("refused").and_then(Value::as_bool) else {
            continue;
        };
        damaged += 1;
        refused += usize::from(is_refused);
        let lost = event.evidence.get("entries_lost").and_then(Value::as_u64);
        untold += usize::from(!is_refused && lost.is_none());
        if let Some(lost) = lost.filter(|lost| !is_refused && *lost > 0) {
            let what = format!("a node serves a damaged store that has lost {lost} entries");
            anomalies.push(Anomaly { key: None, what, events: vec![event.index] });
        }
    }
    let summary = format!("{damaged} stores damaged, {refused} refused");
    let finding = if anomalies.is_empty() && untold > 0 {
        let summary = format!("{summary}; {untold} nodes serve and do not say what they have lost");
        Finding::unknown("refusal", summary, anomalies)
    } else {
        Finding::conclude("refusal", damaged, summary, anomalies)
    };
    finding.figure("damaged", damaged).figure("refused", refused)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checker::Validity;
    use crate::history::{Kind, NEMESIS};

    fn validity(evidence: Value) -> Validity {
        check(&[Event { evidence, ..Event::new(NEMESIS, Kind::Info, "damage-flip") }]).validity
    }

    #[test]
    fn only_what_has_lost_nothing_may_serve() {
        assert_eq!(validity(json!({"refused": true, "entries_lost": null})), Validity::Valid);
        assert_eq!(validity(json!({"refused": false, "entries_lost": 0})), Validity::Valid);
        assert_eq!(validity(json!({"refused": false, "entries_lost": 3})), Validity::Invalid);
        assert_eq!(validity(json!({"refused": false, "entries_lost": null})), Validity::Unknown);
        assert_eq!(validity(json!({"host": "n1"})), Validity::Unknown);
    }
}

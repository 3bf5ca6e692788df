//! Every answer is one of those that were due: who begins a login that needs a passcode is challenged,
//! and who has given one is accepted or rejected.

use serde_json::Value;

use super::{Anomaly, Finding};
use crate::operation::Operation;

/// Checks every operation that was answered with a verdict; `issue` is one that gave no passcode.
pub fn check(operations: &[Operation<'_>]) -> Finding {
    let mut anomalies = Vec::new();
    let mut answers = 0;
    for operation in operations.iter().filter(|one| one.is_ok()) {
        let Some(verdict) = operation.value().get("verdict").and_then(Value::as_str) else {
            continue;
        };
        answers += 1;
        let is_due = match operation.f() {
            "issue" => verdict == "challenge",
            _ => ["accept", "reject"].contains(&verdict),
        };
        if !is_due {
            let what = format!("`{}` was answered with `{verdict}`", operation.f());
            anomalies.push(Anomaly::of(operation.key(), what, &[*operation]));
        }
    }
    Finding::conclude("answers", answers, format!("{answers} answers"), anomalies)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checker::Validity;
    use crate::sample::Sample;

    fn validity(f: &str, verdict: &str) -> Validity {
        let mut sample = Sample::new();
        sample.done(f, "u1", json!({ "verdict": verdict }));
        check(&sample.operations()).validity
    }

    #[test]
    fn nobody_gets_in_without_a_passcode_and_nobody_is_asked_twice() {
        assert_eq!(validity("issue", "challenge"), Validity::Valid);
        assert_eq!(validity("issue", "accept"), Validity::Invalid);
        assert_eq!(validity("consume", "reject"), Validity::Valid);
        assert_eq!(validity("consume", "challenge"), Validity::Invalid);
    }
}

//! The same request gets the same verdict, whichever node it reaches and however often it is sent.

use super::{Anomaly, Finding};
use crate::operation::{Malformed, Operation, by_key};

/// Checks the operations `request` (`{"verdict": ".."}`); the key is the request, and all copies of
/// it have the same.
///
/// # Errors
/// When there is no verdict.
pub fn check(operations: &[Operation<'_>]) -> Result<Finding, Malformed> {
    let keys = by_key(operations, &["request"]);
    let mut anomalies = Vec::new();
    let (mut answers, mut repeated) = (0, 0);
    for (request, copies) in &keys {
        let mut first: Option<(&str, Operation<'_>)> = None;
        let mut seen = 0;
        for copy in copies.iter().filter(|copy| copy.is_ok()) {
            let verdict = copy.value().get("verdict").and_then(serde_json::Value::as_str);
            let verdict = verdict.ok_or_else(|| copy.malformed("there is no verdict"))?;
            seen += 1;
            match first {
                None => first = Some((verdict, *copy)),
                Some((other, earlier)) if other != verdict => {
                    let what = format!("one request was answered `{other}` and `{verdict}`");
                    anomalies.push(Anomaly::of(request, what, &[earlier, *copy]));
                }
                Some(_) => {}
            }
        }
        answers += seen;
        repeated += usize::from(seen > 1);
    }
    let summary = format!(
        "{} requests, {repeated} of them answered more than once, {answers} answers",
        keys.len()
    );
    Ok(Finding::conclude("verdicts", repeated, summary, anomalies)
        .figure("requests", keys.len())
        .figure("answered_repeatedly", repeated)
        .figure("answers", answers))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checker::Validity;
    use crate::sample::Sample;

    fn answered(verdicts: &[&str]) -> Finding {
        let mut sample = Sample::new();
        for verdict in verdicts {
            sample.done("request", "r1", json!({ "verdict": verdict }));
        }
        let lost = sample.invoke("request", "r1", serde_json::Value::Null);
        sample.info(lost);
        check(&sample.operations()).expect("well-formed")
    }

    #[test]
    fn a_repeated_answer_is_fine_and_a_single_one_proves_nothing() {
        assert_eq!(answered(&["accept", "accept"]).validity, Validity::Valid);
        assert_eq!(answered(&["accept"]).validity, Validity::Unknown);
    }

    #[test]
    fn another_answer_to_the_same_request_is_found() {
        let finding = answered(&["accept", "accept", "reject"]);
        assert_eq!(finding.validity, Validity::Invalid);
        assert_eq!(finding.anomalies[0].what, "one request was answered `accept` and `reject`");
    }
}

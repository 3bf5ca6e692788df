//! Who has seen something does not lose sight of it: reads are monotonic, and show one's own writes.
//!
//! For registers whose values grow. A session is one process on one key; as a process ends with its
//! first unknown operation, what it did is in order. The operations may go to any node: this is what
//! a user of the portal sees through a load balancer.

use std::collections::BTreeMap;

use super::{Anomaly, Finding};
use crate::history::{Kind, Process};
use crate::operation::{Malformed, Operation};

/// Checks the operations `write` and `read` (a number, larger means newer).
///
/// # Errors
/// When a value is no number.
pub fn check(operations: &[Operation<'_>]) -> Result<Finding, Malformed> {
    let mut sessions: BTreeMap<(Process, &str), (i64, Operation<'_>)> = BTreeMap::new();
    let mut anomalies = Vec::new();
    let mut compared = 0;
    let known = operations.iter().filter(|one| one.kind() == Kind::Ok);
    for operation in known.filter(|one| ["read", "write"].contains(&one.f())) {
        let value = operation.integer()?;
        let session = (operation.invocation.process, operation.key());
        let former = sessions.get(&session).copied();
        if let Some((newest, earlier)) = former.filter(|_| operation.f() == "read") {
            compared += 1;
            if value < newest {
                let guarantee = match earlier.f() {
                    "write" => "a session does not read its own write",
                    _ => "the reads of a session go back",
                };
                let what = format!("{guarantee}: {value} after {newest}");
                anomalies.push(Anomaly::of(operation.key(), what, &[earlier, *operation]));
            }
        }
        if former.is_none_or(|(newest, _)| value >= newest) {
            sessions.insert(session, (value, *operation));
        }
    }
    let summary = format!("{} sessions, {compared} reads with something before", sessions.len());
    Ok(Finding::conclude("session", compared, summary, anomalies)
        .figure("sessions", sessions.len())
        .figure("reads", compared))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Validity;
    use crate::sample::Sample;

    fn session(operations: &[(u64, &str, i64)]) -> Finding {
        let mut sample = Sample::new();
        for (process, f, value) in operations {
            let invocation = sample.invoke_as(*process, f, "u1", *value);
            sample.ok(invocation, *value);
        }
        check(&sample.operations()).expect("well-formed")
    }

    #[test]
    fn a_session_may_lag_behind_others_but_not_behind_itself() {
        let fine = session(&[(1, "write", 5), (2, "read", 0), (1, "read", 5), (2, "read", 5)]);
        assert_eq!(fine.validity, Validity::Valid);
    }

    #[test]
    fn a_write_that_its_writer_does_not_see_is_found() {
        let finding = session(&[(1, "write", 5), (1, "read", 4)]);
        assert_eq!(finding.anomalies[0].what, "a session does not read its own write: 4 after 5");
    }

    #[test]
    fn reads_that_go_back_are_found() {
        let finding = session(&[(1, "read", 5), (2, "read", 4), (1, "read", 4)]);
        assert_eq!(finding.anomalies.len(), 1);
        assert_eq!(finding.anomalies[0].what, "the reads of a session go back: 4 after 5");
    }
}

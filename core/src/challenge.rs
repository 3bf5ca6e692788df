//! Questions that a node has asked and whose single answer is recorded.
//!
//! Asking needs no log entry: the question travels in a sealed, expiring token that any node can
//! open. What the log records is that a challenge has been answered, so that it cannot be again.

use serde::{Deserialize, Serialize};

use crate::id::ChallengeId;
use crate::limits::CHALLENGES_MAX;
use crate::map::OrdMap;
use crate::time::Timestamp;

/// A challenge as it is named in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengeRef {
    /// Which one.
    pub id: ChallengeId,
    /// When it can no longer be answered.
    pub expires: Timestamp,
}

/// The challenges that have been answered and have not yet expired.
#[derive(Clone, Default)]
pub struct AnsweredChallenges {
    by_expiry: OrdMap<(Timestamp, ChallengeId), ()>,
}

impl AnsweredChallenges {
    /// True when `challenge` has been answered.
    pub fn contains(&self, challenge: ChallengeRef) -> bool {
        self.by_expiry.contains_key(&(challenge.expires, challenge.id))
    }

    /// Records the answer to `challenge` and forgets what has expired at `now`.
    pub(crate) fn record(&mut self, challenge: ChallengeRef, now: Timestamp) {
        self.by_expiry.insert((challenge.expires, challenge.id), ());
        while let Some(&oldest) = self.by_expiry.first().map(|(key, ())| key) {
            if oldest.0 > now && self.by_expiry.len() <= CHALLENGES_MAX {
                break;
            }
            self.by_expiry.remove(&oldest);
        }
    }

    /// All of them, the first to expire first.
    pub fn iter(&self) -> impl Iterator<Item = ChallengeRef> {
        self.by_expiry.iter().map(|(&(expires, id), ())| ChallengeRef { id, expires })
    }

    pub(crate) fn from_records(records: Vec<ChallengeRef>) -> Self {
        let by_expiry = records.into_iter().map(|one| ((one.expires, one.id), ())).collect();
        Self { by_expiry }
    }
}

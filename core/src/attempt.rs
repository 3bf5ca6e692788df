//! The bounded record of every decision.
//!
//! It serves two ends: administrators read it, and a copy of a request gets the decision that the
//! first copy got. Both are one structure, because a decision *is* its attempt: the index by request
//! names the place of the attempt in the record.

use std::sync::Arc;

use serde::ser::{SerializeSeq, SerializeStruct};
use serde::{Deserialize, Serialize, Serializer};
use smol_str::SmolStr;

use crate::decision::Decisions;
use crate::id::{ClientId, DeviceId, RequestId, UserId};
use crate::limits::DECISION_MS;
use crate::map::OrdMap;
use crate::time::Timestamp;

/// One decided attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The leader's time of the entry that decided it.
    pub time: Timestamp,
    /// The request it answers.
    pub request: RequestId,
    /// Who asked.
    pub asker: Asker,
    /// The user name as presented.
    pub username: SmolStr,
    /// Whose login it is, if the name is known.
    pub user: Option<UserId>,
    /// Where the user is, as the client says (Calling-Station-Id), or where the client is.
    pub remote: SmolStr,
    /// What was decided.
    pub verdict: Verdict,
    /// Whether something is to be said along with it; see [`crate::reply`].
    pub has_reply: bool,
}

/// Who asked for a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Asker {
    /// A client.
    Client(ClientId),
    /// An administrator who tests a login.
    Console,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The user may enter.
    Accepted(Acceptance),
    /// The user may not.
    Refused(Reason),
}

/// What an accept rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Acceptance {
    /// A passcode of this device.
    Passcode(DeviceId),
    /// A one-time bypass.
    Bypass,
    /// The name belongs to no user, and the client lets such names pass.
    UnknownUser,
}

/// Why an attempt was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Reason {
    /// The name is no user's.
    #[error("unknown user")]
    UserUnknown,
    /// The name cannot be a user's.
    #[error("malformed user name")]
    UserNameMalformed,
    /// The user is disabled.
    #[error("user disabled")]
    UserDisabled,
    /// The user is blocked.
    #[error("user blocked")]
    UserBlocked,
    /// Too many failed passwords.
    #[error("locked after failed passwords")]
    PasswordLocked,
    /// Too many failed passcodes.
    #[error("locked after failed passcodes")]
    PasscodeLocked,
    /// The password is wrong.
    #[error("wrong password")]
    PasswordWrong,
    /// Nobody who is asked knows a password of the user.
    #[error("user has no password")]
    PasswordMissing,
    /// The directory takes the password no more: it has expired.
    #[error("password expired")]
    PasswordExpired,
    /// The directory takes the password only to have it changed.
    #[error("password must be changed")]
    PasswordMustChange,
    /// The directory has the user disabled.
    #[error("disabled in the directory")]
    DirectoryDisabled,
    /// The directory has the user's account expired.
    #[error("expired in the directory")]
    DirectoryExpired,
    /// The directory has the user locked.
    #[error("locked in the directory")]
    DirectoryLocked,
    /// The directory lets the user in at other hours, or from other places, only.
    #[error("not allowed by the directory now")]
    DirectoryRestricted,
    /// What was typed did not arrive in a form that anybody who is asked could check.
    #[error("nobody can check this kind of password")]
    PasswordUncheckable,
    /// The directory has accepted somebody else than the request was for.
    #[error("the directory accepted another user")]
    IdentityDiffers,
    /// The passcode is wrong.
    #[error("wrong passcode")]
    PasscodeWrong,
    /// The passcode is, or lies before, one that was accepted already.
    #[error("passcode used already")]
    PasscodeUsed,
    /// The passcode stands for a time or counter too far off.
    #[error("passcode outside the window")]
    PasscodeOutsideWindow,
    /// The request holds no passcode, and the client cannot be asked for one.
    #[error("no passcode given")]
    PasscodeMissing,
    /// The user holds no device.
    #[error("user has no device")]
    DeviceMissing,
    /// The device was revoked while the passcode was on its way.
    #[error("device revoked")]
    DeviceRevoked,
    /// The challenge has expired.
    #[error("challenge expired")]
    ChallengeExpired,
    /// The challenge has been answered before.
    #[error("challenge answered already")]
    ChallengeAnswered,
    /// The State attribute is not a challenge of ours, or another client's.
    #[error("unknown challenge")]
    ChallengeUnknown,
    /// The client was removed while the request was on its way.
    #[error("client removed")]
    ClientRemoved,
    /// The request was decided long ago; somebody has kept it and sends it again.
    #[error("request replayed")]
    RequestReplayed,
}

/// When a request was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided<'a> {
    /// In the last [`DECISION_MS`], as this attempt: a copy of the request gets the same answer.
    Lately(u64, &'a Attempt),
    /// Earlier. No client waits that long; somebody has kept the packet.
    LongAgo,
}

/// Attempts per block of the record.
const BLOCK: usize = 64;

/// The latest attempts, numbered from zero, and the index by request of the recent ones.
#[derive(Clone, Default)]
pub struct Attempts {
    /// Full blocks by number; block `n` holds attempts `n * BLOCK ..`.
    blocks: OrdMap<u64, Arc<Vec<Attempt>>>,
    /// The block being filled.
    tail: Arc<Vec<Attempt>>,
    /// Number of the next attempt.
    next: u64,
    decisions: Decisions,
}

impl Attempts {
    /// Number that the next attempt will get: all attempts ever recorded.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Number of the oldest attempt still kept.
    pub fn first(&self) -> u64 {
        self.blocks.first().map_or(self.next - self.tail.len() as u64, |(&n, _)| n * BLOCK as u64)
    }

    /// The attempt numbered `number`, while it is kept.
    pub fn get(&self, number: u64) -> Option<&Attempt> {
        let block = match self.blocks.get(&(number / BLOCK as u64)) {
            Some(block) => block,
            None if number >= self.next - self.tail.len() as u64 => &self.tail,
            None => return None,
        };
        block.get((number % BLOCK as u64) as usize)
    }

    /// Attempts from number `from` on, oldest first.
    pub fn iter_from(&self, from: u64) -> impl Iterator<Item = (u64, &Attempt)> {
        (from.max(self.first())..self.next).filter_map(|number| Some((number, self.get(number)?)))
    }

    /// The latest decision on `request` while it is kept.
    pub fn decision(&self, request: RequestId, now: Timestamp) -> Option<Decided<'_>> {
        let number = self.decisions.find(request)?;
        let attempt = self.get(number)?;
        let is_over = now.ms_since(attempt.time) >= DECISION_MS;
        Some(if is_over { Decided::LongAgo } else { Decided::Lately(number, attempt) })
    }

    /// Appends `attempt`, keeps at most about `keep` (whole blocks), and returns its number.
    pub(crate) fn record(&mut self, attempt: Attempt, keep: u64) -> u64 {
        let number = self.next;
        self.decisions.insert(attempt.request, number);
        self.append(attempt);
        while self.blocks.len() as u64 * BLOCK as u64 > keep {
            let Some((&block, _)) = self.blocks.first() else { break };
            self.decisions.forget_before((block + 1) * BLOCK as u64);
            self.blocks.remove(&block);
        }
        number
    }

    fn append(&mut self, attempt: Attempt) {
        let tail = Arc::make_mut(&mut self.tail);
        tail.push(attempt);
        self.next += 1;
        if tail.len() == BLOCK {
            let full = std::mem::take(&mut self.tail);
            self.blocks.insert((self.next - 1) / BLOCK as u64, full);
        }
    }

    /// The record that [`AttemptsRef`] wrote; `None` when the parts contradict each other.
    pub(crate) fn from_parts(parts: AttemptsParts) -> Option<Self> {
        let AttemptsParts { first, attempts } = parts;
        first.checked_add(attempts.len() as u64)?;
        if !first.is_multiple_of(BLOCK as u64) {
            return None;
        }
        let mut record = Self { next: first, ..Self::default() };
        for attempt in attempts {
            record.decisions.insert(attempt.request, record.next);
            record.append(attempt);
        }
        Some(record)
    }
}

/// [`Attempts`] as written into a snapshot: what [`AttemptsParts`] reads.
pub(crate) struct AttemptsRef<'a>(pub(crate) &'a Attempts);

impl Serialize for AttemptsRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut parts = serializer.serialize_struct("AttemptsParts", 2)?;
        parts.serialize_field("first", &self.0.first())?;
        parts.serialize_field("attempts", &AttemptsInOrder(self.0))?;
        parts.end()
    }
}

struct AttemptsInOrder<'a>(&'a Attempts);

impl Serialize for AttemptsInOrder<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Attempts { blocks, tail, .. } = self.0;
        let kept = blocks.len() * BLOCK + tail.len();
        let mut sequence = serializer.serialize_seq(Some(kept))?;
        for attempt in
            blocks.iter().map(|(_, block)| block).chain([tail]).flat_map(|block| block.iter())
        {
            sequence.serialize_element(attempt)?;
        }
        sequence.end()
    }
}

/// [`Attempts`] as read from a snapshot.
#[derive(Deserialize)]
pub(crate) struct AttemptsParts {
    first: u64,
    attempts: Vec<Attempt>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(number: u64, time: u64) -> Attempt {
        let mut request = [0; 16];
        request[..8].copy_from_slice(&number.to_be_bytes());
        Attempt {
            time: Timestamp(time),
            request: RequestId(request),
            asker: Asker::Console,
            username: "alice".into(),
            user: None,
            remote: "".into(),
            verdict: Verdict::Refused(Reason::UserUnknown),
            has_reply: false,
        }
    }

    #[test]
    fn the_record_is_bounded_and_numbered_without_gaps() {
        let mut record = Attempts::default();
        for number in 0..5_000 {
            assert_eq!(record.record(attempt(number, number), 1_000), number);
        }
        let kept: Vec<u64> = record.iter_from(0).map(|(number, _)| number).collect();
        assert!(kept.len() >= 769 && kept.len() <= 1_000 + 2 * BLOCK, "{}", kept.len());
        assert_eq!(kept, (record.first()..5_000).collect::<Vec<_>>());
        let decided = |number| record.decision(attempt(number, 0).request, Timestamp(5_000));
        assert!(decided(record.first()).is_some());
        assert_eq!(decided(record.first() - 1), None, "it goes with its attempt");
    }

    #[test]
    fn a_decision_is_repeated_for_a_while_and_known_for_longer() {
        let mut record = Attempts::default();
        record.record(attempt(7, 1_000), 1_000);
        let first = record.get(0).expect("kept");
        let decided = |now| record.decision(first.request, Timestamp(now));
        assert_eq!(decided(60_999), Some(Decided::Lately(0, first)));
        assert_eq!(decided(61_000), Some(Decided::LongAgo));
    }

    #[test]
    fn a_request_decided_anew_keeps_its_newer_decision() {
        let mut record = Attempts::default();
        record.record(attempt(1, 0), 1_000);
        record.record(attempt(1, DECISION_MS), 1_000);
        record.record(attempt(2, DECISION_MS), 1_000);
        let found = record.decision(attempt(1, 0).request, Timestamp(DECISION_MS));
        assert!(matches!(found, Some(Decided::Lately(1, _))), "{found:?}");
    }

    #[test]
    fn the_stored_form_restores_the_same_record() {
        let mut record = Attempts::default();
        for number in 0..1_500 {
            record.record(attempt(number, number * 100), 700);
        }
        let bytes = crate::codec::encode(&AttemptsRef(&record)).expect("encodes");
        let parts = crate::codec::decode_in_proportion(&bytes).expect("decodes");
        let copy = Attempts::from_parts(parts).expect("consistent parts");
        assert_eq!((copy.first(), copy.next()), (record.first(), record.next()));
        let request = attempt(copy.first(), 0).request;
        assert!(copy.decision(request, Timestamp(0)).is_some());
        assert!(copy.iter_from(0).eq(record.iter_from(0)));
    }
}

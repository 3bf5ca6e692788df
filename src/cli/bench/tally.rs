//! What became of the logins of one run, as one lane counted it or as all lanes did.

use std::time::Instant;

use super::latency::Histogram;
use super::pool::Login;
use crate::radius::packet::Code;

/// Logins and datagrams, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub accepts: u64,
    pub rejects: u64,
    pub challenges: u64,
    /// Logins that got no reply to any copy of their request.
    pub unknown: u64,
    /// Copies of requests.
    pub retransmissions: u64,
}

impl Counts {
    /// Logins that got a verified reply.
    pub(super) fn replies(&self) -> u64 {
        self.accepts + self.rejects + self.challenges
    }

    /// Logins that ended.
    pub(super) fn logins(&self) -> u64 {
        self.replies() + self.unknown
    }

    /// Counts a verified reply.
    pub(super) fn reply(&mut self, code: Code) {
        match code {
            Code::AccessAccept => self.accepts += 1,
            Code::AccessReject => self.rejects += 1,
            // No other code passes the verification.
            _ => self.challenges += 1,
        }
    }

    fn merge(&mut self, other: &Self) {
        self.accepts += other.accepts;
        self.rejects += other.rejects;
        self.challenges += other.challenges;
        self.unknown += other.unknown;
        self.retransmissions += other.retransmissions;
    }
}

/// Everything that is known about a run.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// Logins that started before the measurement.
    pub warm_up: Counts,
    /// Logins that started during the measurement.
    pub measured: Counts,
    /// From request to verified reply, retransmissions included; measured logins only.
    pub latency: Histogram,
    /// Verified replies that arrived while the measurement lasted.
    pub replies_in_window: u64,
    /// Datagrams that no server that knows the secret sends in answer to what was asked.
    pub wrong: u64,
    /// What was wrong with the first of them.
    pub first_wrong: Option<&'static str>,
    /// Correct replies that nobody waited for any more: a copy's, or one that came too late.
    pub extra: u64,
    /// Times that the server's host said that nobody listens.
    pub unreachable: u64,
    /// The first login that was rejected.
    pub first_reject: Option<Login>,
    /// Every user had used the current time step.
    pub users_used_up: bool,
    /// When the last measured reply came.
    pub last_reply: Option<Instant>,
    /// When the last login was started.
    pub stopped: Option<Instant>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            warm_up: Counts::default(),
            measured: Counts::default(),
            latency: Histogram::new(),
            replies_in_window: 0,
            wrong: 0,
            first_wrong: None,
            extra: 0,
            unreachable: 0,
            first_reject: None,
            users_used_up: false,
            last_reply: None,
            stopped: None,
        }
    }

    /// The counts that a login belongs to.
    pub(super) fn counts(&mut self, is_measured: bool) -> &mut Counts {
        if is_measured { &mut self.measured } else { &mut self.warm_up }
    }

    /// Counts a reply that is wrong, and why.
    pub(super) fn wrong(&mut self, reason: &'static str) {
        self.wrong += 1;
        self.first_wrong.get_or_insert(reason);
    }

    /// Adds what another lane counted.
    pub(super) fn merge(&mut self, other: &Self) {
        self.warm_up.merge(&other.warm_up);
        self.measured.merge(&other.measured);
        self.latency.merge(&other.latency);
        self.replies_in_window += other.replies_in_window;
        self.wrong += other.wrong;
        self.first_wrong = self.first_wrong.or(other.first_wrong);
        self.extra += other.extra;
        self.unreachable += other.unreachable;
        self.first_reject = self.first_reject.or(other.first_reject);
        self.users_used_up |= other.users_used_up;
        self.last_reply = self.last_reply.max(other.last_reply);
        self.stopped = self.stopped.max(other.stopped);
    }
}

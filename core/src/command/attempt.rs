//! The command that decides an attempt: the only place where "accepted" is decided.
//!
//! The node that proposes it has examined the request against its own, perhaps old, state. What it
//! found is a claim here: everything that could have changed meanwhile is checked again, so that an
//! old state can delay a refusal but never cause an accept. The passcode's step or counter, the
//! failure counters, the challenge, the bypass and the record of the attempt change together.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::device::drift;
use super::{Applied, Decision, Moment, Refusal};
use crate::attempt::{Acceptance, Asker, Attempt, Decided, Reason, Verdict};
use crate::challenge::ChallengeRef;
use crate::client::{ClientPolicy, FirstFactor, Source};
use crate::device::Oath;
use crate::factor::totp;
use crate::id::{DeviceId, DirectoryId, RequestId, UserId};
use crate::limits::{CHALLENGE_MS_MAX, DECISION_MS, HELD_REPLY_BYTES_MAX};
use crate::name::UserName;
use crate::policy;
use crate::reply::HeldReply;
use crate::state::State;

/// What a node found out about one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conclude {
    /// The request; a copy of it gets the same decision.
    pub request: RequestId,
    /// Who asked.
    pub asker: Asker,
    /// Revision of the client that the examination relied on; zero for the console.
    pub client_revision: u64,
    /// The user name as presented, cut to the longest that is stored.
    pub username: SmolStr,
    /// The user it names, or `None` when it names nobody.
    pub user: Option<UserId>,
    /// Where the user is, as far as the client tells.
    pub remote: SmolStr,
    /// The challenge that the request answers.
    pub challenge: Option<ChallengeRef>,
    /// What the node found.
    pub finding: Finding,
    /// What is to be said along with the verdict that the finding leads to; see [`crate::reply`].
    pub reply: Option<Arc<[u8]>>,
}

/// What a node found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finding {
    /// Both factors were shown.
    Proven {
        /// The first factor.
        first: FirstProof,
        /// The second factor, or what stands in for it.
        second: Proof,
    },
    /// A reason to refuse.
    Failed(Reason),
}

/// How the first factor was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FirstProof {
    /// The client vouches for it.
    Client,
    /// The local password with this revision matched.
    Password {
        /// Revision of the password that was compared.
        revision: u64,
    },
    /// A directory took the password.
    Directory {
        /// Which.
        directory: DirectoryId,
        /// Its revision when it was asked.
        revision: u64,
    },
}

/// How the second factor was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// A passcode of the device matched at this time step or counter.
    Passcode {
        /// The device.
        device: DeviceId,
        /// Time step (TOTP) or counter (HOTP).
        moving_factor: u64,
    },
    /// The bypass with this revision stands in for it.
    Bypass {
        /// Revision of the bypass.
        revision: u64,
    },
    /// The name is nobody's, and the client lets such names pass on the first factor.
    UnknownUser,
}

/// The examination relied on something that is no longer so.
struct Stale;

pub(super) fn conclude(state: &mut State, at: Moment, command: &Conclude) -> Applied {
    let decided = state.attempts.decision(command.request, at.now);
    let verdict = match decided.filter(|_| !cfg!(mutant = "forget_decisions")) {
        Some(Decided::Lately(attempt, earlier)) => {
            return Applied::Concluded(Decision::again(attempt, earlier));
        }
        // Whoever captured a packet must not lock its user out with what is by now a wrong passcode.
        Some(Decided::LongAgo) => Verdict::Refused(Reason::RequestReplayed),
        None => match decide(state, at, command) {
            Ok(verdict) => verdict,
            Err(Stale) => return Applied::Stale,
        },
    };
    settle(state, at, command, verdict);
    let has_reply = reply(state, at, command, verdict);
    let attempt = record(state, at, command, verdict, has_reply);
    Applied::Concluded(Decision { verdict, attempt, repeated: false, has_reply })
}

/// The verdict. Changes nothing.
fn decide(state: &State, at: Moment, command: &Conclude) -> Result<Verdict, Stale> {
    let policy = match command.asker {
        Asker::Console => None,
        Asker::Client(id) => match state.client(id) {
            None => return Ok(Verdict::Refused(Reason::ClientRemoved)),
            Some(client)
                if client.revision != command.client_revision
                    && !cfg!(mutant = "trust_old_client") =>
            {
                return Err(Stale);
            }
            Some(client) => Some(&client.policy),
        },
    };
    if let Some(user) = command.user {
        // Deleted, or deleted and added anew: look the name up again.
        let user = state.user(user).ok_or(Stale)?;
        let admitted = policy::admit(user, at.now);
        if let Err(reason) = admitted
            && !cfg!(mutant = "admit_at_node")
        {
            return Ok(Verdict::Refused(reason));
        }
    }
    if let Some(challenge) = command.challenge {
        if challenge.expires <= at.now && !cfg!(mutant = "accept_expired_challenge") {
            return Ok(Verdict::Refused(Reason::ChallengeExpired));
        }
        if state.answered_challenges.contains(challenge)
            && !cfg!(mutant = "accept_answered_challenge")
        {
            return Ok(Verdict::Refused(Reason::ChallengeAnswered));
        }
    }
    match command.finding {
        Finding::Failed(reason) if is_over(state, command, reason) => Err(Stale),
        Finding::Failed(reason) => Ok(Verdict::Refused(reason)),
        Finding::Proven { first, second } => {
            check_first(state, command, policy, first)?;
            check_second(state, at, command, policy, second)
        }
    }
}

/// Whether what the node has found wrong was put right meanwhile: a node that is behind must not refuse
/// what an up to date one would accept. The user, if there is one, has just been found admissible.
fn is_over(state: &State, command: &Conclude, reason: Reason) -> bool {
    let user = command.user.and_then(|user| state.user(user));
    match reason {
        Reason::UserUnknown => {
            let name = UserName::canonical(&command.username);
            name.is_ok_and(|name| state.user_id(&name).is_some())
        }
        Reason::UserDisabled
        | Reason::UserBlocked
        | Reason::PasswordLocked
        | Reason::PasscodeLocked => user.is_some(),
        Reason::PasswordMissing => user.is_some_and(|user| user.password.is_some()),
        Reason::DeviceMissing => user.is_some_and(|user| !user.devices.is_empty()),
        // What was typed, or what the request carries: no change of the record mends that.
        Reason::UserNameMalformed
        | Reason::PasswordWrong
        | Reason::PasswordUncheckable
        | Reason::IdentityDiffers
        | Reason::PasswordExpired
        | Reason::PasswordMustChange
        | Reason::DirectoryDisabled
        | Reason::DirectoryExpired
        | Reason::DirectoryLocked
        | Reason::DirectoryRestricted
        | Reason::PasscodeWrong
        | Reason::PasscodeUsed
        | Reason::PasscodeOutsideWindow
        | Reason::PasscodeMissing
        | Reason::DeviceRevoked
        | Reason::ChallengeExpired
        | Reason::ChallengeAnswered
        | Reason::ChallengeUnknown
        | Reason::ClientRemoved
        | Reason::RequestReplayed => false,
    }
}

/// The first factor must be the one that the client demands, shown against the present password.
fn check_first(
    state: &State,
    command: &Conclude,
    policy: Option<&ClientPolicy>,
    first: FirstProof,
) -> Result<(), Stale> {
    // The console has no policy of its own, and may test whatever there is.
    let asks = |source| policy.is_none_or(|policy| policy.first_factor.sources().contains(&source));
    match first {
        FirstProof::Client => {
            let vouches = policy.is_none_or(|policy| policy.first_factor == FirstFactor::None);
            if vouches { Ok(()) } else { Err(Stale) }
        }
        FirstProof::Directory { directory: id, revision } => {
            let directory = state.directory(id).ok_or(Stale)?;
            let is_same = directory.revision == revision && asks(Source::Directory(id));
            if is_same || cfg!(mutant = "trust_old_directory") { Ok(()) } else { Err(Stale) }
        }
        FirstProof::Password { revision } => {
            let user = command.user.and_then(|user| state.user(user)).ok_or(Stale)?;
            let password = user.password.as_ref().ok_or(Stale)?;
            let is_same = password.revision == revision && asks(Source::Local);
            if is_same || cfg!(mutant = "trust_old_password") { Ok(()) } else { Err(Stale) }
        }
    }
}

fn check_second(
    state: &State,
    at: Moment,
    command: &Conclude,
    policy: Option<&ClientPolicy>,
    second: Proof,
) -> Result<Verdict, Stale> {
    let refused = |reason| Ok(Verdict::Refused(reason));
    match second {
        Proof::UnknownUser => {
            let passes = policy.is_some_and(|policy| !policy.require_user_match);
            let name = UserName::canonical(&command.username);
            let unknown =
                name.is_ok_and(|name| name.may_pass_unknown() && state.user_id(&name).is_none());
            if command.user.is_none() && passes && unknown {
                Ok(Verdict::Accepted(Acceptance::UnknownUser))
            } else {
                Err(Stale)
            }
        }
        Proof::Bypass { revision } => {
            let user = command.user.and_then(|user| state.user(user)).ok_or(Stale)?;
            match user.bypass_at(at.now) {
                Some(bypass) if bypass.revision == revision => {
                    Ok(Verdict::Accepted(Acceptance::Bypass))
                }
                _ => Err(Stale),
            }
        }
        Proof::Passcode { device: id, moving_factor } => {
            let Some(device) = state.device(id).filter(|one| Some(one.user) == command.user) else {
                return refused(Reason::DeviceRevoked);
            };
            let settings = &state.settings;
            let (used, in_window) = match &device.oath {
                Oath::Hotp(hotp) => (
                    moving_factor < hotp.next_counter,
                    moving_factor.saturating_sub(hotp.next_counter) < settings.hotp_look_ahead()
                        && moving_factor < u64::MAX,
                ),
                Oath::Totp(totp) => {
                    // One step more than the node was allowed: its clock and the leader's may
                    // stand on either side of a step's beginning.
                    let window = settings.totp_window_steps() as u32 + 1;
                    let current = totp::step(at.stamped, totp.period_seconds);
                    (
                        totp.last_step.is_some_and(|last| moving_factor <= last),
                        totp::window(current, totp.drift, window).contains(&moving_factor),
                    )
                }
            };
            if used && !cfg!(mutant = "accept_used") {
                refused(Reason::PasscodeUsed)
            } else if !in_window {
                refused(Reason::PasscodeOutsideWindow)
            } else {
                Ok(Verdict::Accepted(Acceptance::Passcode(id)))
            }
        }
    }
}

/// Makes the verdict's consequences true: what it used is used up, what failed is counted.
fn settle(state: &mut State, at: Moment, command: &Conclude, verdict: Verdict) {
    if let Some(challenge) = command.challenge.filter(|challenge| challenge.expires > at.now) {
        state.answered_challenges.record(challenge, at.now);
    }
    let Some(user) = command.user else { return };
    match verdict {
        Verdict::Accepted(_) => {
            if let Finding::Proven { second: Proof::Passcode { device, moving_factor }, .. } =
                command.finding
            {
                consume(state, at, device, moving_factor);
            }
            let by_bypass = verdict == Verdict::Accepted(Acceptance::Bypass);
            forgive(state, user, by_bypass);
        }
        Verdict::Refused(Reason::PasswordWrong) => {
            let limits = state.settings.password_limits();
            if let Some(user) = state.user_mut(user) {
                user.password_lockout.record_failure(at.now, limits);
            }
        }
        Verdict::Refused(Reason::PasscodeWrong) if !cfg!(mutant = "count_no_failure") => {
            let limits = state.settings.passcode_limits();
            if let Some(user) = state.user_mut(user) {
                user.passcode_lockout.record_failure(at.now, limits);
            }
        }
        // Every other refusal says nothing about a guess.
        Verdict::Refused(_) => {}
    }
}

/// Uses up a time step or counter, and everything before it.
fn consume(state: &mut State, at: Moment, device: DeviceId, moving_factor: u64) {
    let drift_max = i32::try_from(state.settings.totp_drift_steps_max()).unwrap_or(i32::MAX);
    let Some(device) = state.device_mut(device) else { return };
    match &mut device.oath {
        Oath::Hotp(hotp) => hotp.next_counter = moving_factor.saturating_add(1),
        Oath::Totp(totp) => {
            let current = totp::step(at.stamped, totp.period_seconds);
            // One that was resynchronised from further away is followed there, and back.
            let (behind, ahead) = (totp.drift.min(-drift_max), totp.drift.max(drift_max));
            totp.drift = drift(moving_factor, current).clamp(behind, ahead);
            totp.last_step = Some(moving_factor);
        }
    }
}

/// Clears the failures of a user who got in, and takes the bypass if that was the way. Leaves the
/// record alone when there is nothing to clear, which is nearly always.
fn forgive(state: &mut State, user: UserId, by_bypass: bool) {
    let nothing_to_do = state.user(user).is_none_or(|user| {
        !by_bypass && user.password_lockout.is_clear() && user.passcode_lockout.is_clear()
    });
    if nothing_to_do {
        return;
    }
    if let Some(user) = state.user_mut(user) {
        user.password_lockout.clear();
        user.passcode_lockout.clear();
        if by_bypass && !cfg!(mutant = "keep_bypass") {
            user.bypass = None;
        }
    }
}

/// Holds what is to be said, if the verdict is the one that it was meant for. Whether there is anything.
fn reply(state: &mut State, at: Moment, command: &Conclude, verdict: Verdict) -> bool {
    let Some(sealed) = &command.reply else { return false };
    let is_meant = match command.finding {
        Finding::Proven { .. } => matches!(verdict, Verdict::Accepted(_)),
        Finding::Failed(reason) => verdict == Verdict::Refused(reason),
    };
    let is_meant = is_meant || cfg!(mutant = "say_regardless");
    if is_meant {
        let expires = at.now.plus_ms(DECISION_MS);
        let held = HeldReply { request: command.request, expires, sealed: sealed.clone() };
        state.held_replies.hold(held, at.now);
    }
    is_meant
}

/// Holds what is to be said when a challenge has been answered.
pub(super) fn hold(state: &mut State, at: Moment, reply: &HeldReply) -> Result<(), Refusal> {
    let lives = reply.expires.ms_since(at.now);
    // The clock of the node that has set the time may run ahead.
    if reply.sealed.len() > HELD_REPLY_BYTES_MAX || lives > 2 * CHALLENGE_MS_MAX {
        return Err(Refusal::ReplyMalformed);
    }
    state.held_replies.hold(reply.clone(), at.now);
    Ok(())
}

fn record(
    state: &mut State,
    at: Moment,
    command: &Conclude,
    verdict: Verdict,
    has_reply: bool,
) -> u64 {
    let attempt = Attempt {
        time: at.now,
        request: command.request,
        asker: command.asker,
        username: command.username.clone(),
        user: command.user,
        remote: command.remote.clone(),
        verdict,
        has_reply,
    };
    let keep = state.settings.attempts_kept();
    state.attempts.record(attempt, keep)
}

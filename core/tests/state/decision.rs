//! Where "accepted" is decided: each rule, and what happens when the examination was stale.

use crate::common::*;
use watchword_core::attempt::{Acceptance, Asker, Reason, Verdict};
use watchword_core::client::{FirstFactor, Source};
use watchword_core::command::{Finding, FirstProof, Proof, PutClient, UserChange};
use watchword_core::device::Oath;
use watchword_core::limits::{CHALLENGE_MS_MAX, HELD_REPLY_BYTES_MAX};
use watchword_core::sealed::Sealed;
use watchword_core::settings::Value;
use watchword_core::time::Timestamp;
use watchword_core::{Applied, Command, Refusal, State};

const BY_HOTP: Verdict =
    Verdict::Accepted(Acceptance::Passcode(watchword_core::id::DeviceId([1; 16])));
const BY_TOTP: Verdict =
    Verdict::Accepted(Acceptance::Passcode(watchword_core::id::DeviceId([2; 16])));

fn refused(reason: Reason) -> Verdict {
    Verdict::Refused(reason)
}

#[test]
fn a_counter_is_accepted_once_and_uses_up_those_before_it() {
    let mut replica = Replica::with_alice();
    assert_eq!(replica.verdict(conclude(1, passcode(1, 3))), BY_HOTP);
    for counter in 0..=3 {
        let verdict = replica.verdict(conclude(10 + counter, passcode(1, counter)));
        assert_eq!(verdict, refused(Reason::PasscodeUsed), "counter {counter}");
    }
    assert_eq!(replica.verdict(conclude(2, passcode(1, 4))), BY_HOTP);
}

#[test]
fn a_counter_beyond_the_look_ahead_is_refused() {
    let mut replica = Replica::with_alice();
    let verdict = replica.verdict(conclude(1, passcode(1, 10)));
    assert_eq!(verdict, refused(Reason::PasscodeOutsideWindow));
    assert_eq!(replica.verdict(conclude(2, passcode(1, 9))), BY_HOTP);
    let verdict = replica.verdict(conclude(3, passcode(1, u64::MAX)));
    assert_eq!(verdict, refused(Reason::PasscodeOutsideWindow));
}

#[test]
fn a_time_step_is_accepted_once_and_uses_up_those_before_it() {
    let mut replica = Replica::with_alice();
    let step = replica.step();
    assert_eq!(replica.verdict(conclude(1, passcode(2, step))), BY_TOTP);
    for earlier in [step, step - 1] {
        let verdict = replica.verdict(conclude(100 + earlier, passcode(2, earlier)));
        assert_eq!(verdict, refused(Reason::PasscodeUsed));
    }
    assert_eq!(replica.verdict(conclude(2, passcode(2, step + 1))), BY_TOTP);
}

#[test]
fn a_time_step_far_from_the_leaders_time_is_refused_whatever_the_node_believed() {
    let mut replica = Replica::with_alice();
    let step = replica.step();
    for far in [step - 3, step + 3, 0, u64::MAX] {
        let verdict = replica.verdict(conclude(far, passcode(2, far)));
        assert_eq!(verdict, refused(Reason::PasscodeOutsideWindow), "{far}");
    }
}

#[test]
fn drift_is_followed_up_to_its_limit() {
    let mut replica = Replica::with_alice();
    // A token that runs ahead a little more at each login is followed.
    for ahead in 1..=10 {
        let step = replica.step() + ahead;
        assert_eq!(replica.verdict(conclude(ahead, passcode(2, step))), BY_TOTP, "{ahead} ahead");
        replica.now += 300_000;
    }
    let device = replica.state.device(device_id(2)).expect("device");
    let Oath::Totp(totp) = &device.oath else { panic!("a TOTP device") };
    assert_eq!(totp.drift, 10);
}

#[test]
fn a_token_that_was_resynchronised_from_far_away_is_followed_there_and_back() {
    let mut replica = Replica::with_alice();
    let first = replica.step() + 119;
    let resync = Command::ResyncDevice { device: device_id(2), first };
    assert_eq!(replica.apply(resync), Applied::Done);
    let mut log_in = |request, ahead| {
        replica.now += 300_000;
        let step = replica.step() + ahead;
        replica.verdict(conclude(request, passcode(2, step)))
    };
    for (request, ahead) in [(1, 120), (2, 120), (3, 119), (4, 118), (5, 119)] {
        assert_eq!(log_in(request, ahead), BY_TOTP, "login {request}");
    }
    assert_eq!(log_in(6, 122), refused(Reason::PasscodeOutsideWindow), "no further than it was");
}

#[test]
fn the_clock_of_the_state_never_runs_backwards() {
    let mut replica = Replica::with_alice();
    let step = replica.step();
    assert_eq!(replica.verdict(conclude(1, passcode(2, step))), BY_TOTP);
    let reached = replica.state.time();
    replica.now -= 3_600_000;
    // A leader whose clock was set back does not make old passcodes acceptable again.
    let old = replica.step();
    assert_eq!(replica.verdict(conclude(2, passcode(2, old))), refused(Reason::PasscodeUsed));
    assert_eq!(replica.state.time(), reached);
}

#[test]
fn the_same_request_gets_the_same_decision() {
    let mut replica = Replica::with_alice();
    let first = replica.decide(conclude(1, passcode(1, 0)));
    let second = replica.decide(conclude(1, passcode(1, 0)));
    assert_eq!((second.verdict, second.attempt), (first.verdict, first.attempt));
    assert!(second.repeated && !first.repeated);
    assert_eq!(replica.state.attempts().next(), 1, "one attempt recorded");

    let wrong = conclude(2, Finding::Failed(Reason::PasscodeWrong));
    let failed = replica.decide(wrong.clone());
    assert!(replica.decide(wrong).repeated);
    assert_eq!(failed.verdict, refused(Reason::PasscodeWrong));
    let user = replica.state.user(user_id(1)).expect("alice");
    let limits = replica.state.settings().passcode_limits();
    let failures = user.passcode_lockout.failures(replica.state.time(), limits);
    assert_eq!(failures, 1, "a repeated request counts once");
}

#[test]
fn a_request_that_is_replayed_after_a_minute_is_refused_and_locks_nobody_out() {
    let mut replica = Replica::with_alice();
    assert_eq!(replica.verdict(conclude(1, passcode(1, 0))), BY_HOTP);
    for _ in 0..20 {
        replica.now += 60_000;
        // What was a right passcode is by now wrong, or none that the node finds.
        let wrong = conclude(1, Finding::Failed(Reason::PasscodeWrong));
        assert_eq!(replica.verdict(wrong), refused(Reason::RequestReplayed));
    }
    assert_eq!(replica.verdict(conclude(1, passcode(1, 1))), refused(Reason::RequestReplayed));
    assert_eq!(replica.verdict(conclude(2, passcode(1, 1))), BY_HOTP);
    // Control: the same in requests of their own counts.
    for request in 10..20 {
        replica.verdict(conclude(request, Finding::Failed(Reason::PasscodeWrong)));
    }
    assert_eq!(replica.verdict(conclude(3, passcode(1, 2))), refused(Reason::PasscodeLocked));
}

#[test]
fn the_failure_limit_holds_for_tries_that_were_examined_before_it_was_reached() {
    let mut replica = Replica::with_alice();
    for request in 0..10 {
        let wrong = conclude(request, Finding::Failed(Reason::PasscodeWrong));
        assert_eq!(replica.verdict(wrong), refused(Reason::PasscodeWrong));
    }
    // The eleventh was examined in parallel and is right, but is ordered behind ten failures.
    let verdict = replica.verdict(conclude(10, passcode(1, 0)));
    assert_eq!(verdict, refused(Reason::PasscodeLocked));
    replica.now += 15 * 60_000;
    assert_eq!(replica.verdict(conclude(11, passcode(1, 0))), BY_HOTP);
}

#[test]
fn password_and_passcode_failures_are_counted_apart_and_cleared_by_an_accept() {
    let mut replica = Replica::with_alice();
    for request in 0..9 {
        replica.verdict(conclude(request, Finding::Failed(Reason::PasscodeWrong)));
        replica.verdict(conclude(100 + request, Finding::Failed(Reason::PasswordWrong)));
    }
    assert_eq!(replica.verdict(conclude(50, passcode(1, 0))), BY_HOTP);
    let user = replica.state.user(user_id(1)).expect("alice");
    assert!(user.password_lockout.is_clear() && user.passcode_lockout.is_clear());
    for request in 200..210 {
        replica.verdict(conclude(request, Finding::Failed(Reason::PasswordWrong)));
    }
    assert_eq!(replica.verdict(conclude(51, passcode(1, 1))), refused(Reason::PasswordLocked));
}

#[test]
fn a_used_passcode_is_no_guess_and_does_not_count_towards_the_lock() {
    let mut replica = Replica::with_alice();
    for request in 0..30 {
        replica.verdict(conclude(request, Finding::Failed(Reason::PasscodeUsed)));
    }
    assert_eq!(replica.verdict(conclude(30, passcode(1, 0))), BY_HOTP);
}

#[test]
fn nothing_relies_on_what_was_changed_before_it() {
    let block = Command::BlockUser {
        user: user_id(1),
        reason: "left".into(),
        by: "test".into(),
        for_ms: None,
    };
    let disable = Command::ChangeUser {
        user: user_id(1),
        change: UserChange { enabled: Some(false), ..UserChange::default() },
    };
    let revoke = Command::RevokeDevice { device: device_id(1) };
    for (change, reason) in [
        (block, Reason::UserBlocked),
        (disable, Reason::UserDisabled),
        (revoke, Reason::DeviceRevoked),
    ] {
        let mut replica = Replica::with_alice();
        assert_eq!(replica.apply(change), Applied::Done);
        assert_eq!(replica.verdict(conclude(1, passcode(1, 0))), refused(reason));
    }
}

#[test]
fn a_deleted_user_or_a_changed_password_makes_the_examination_stale() {
    let mut replica = Replica::with_alice();
    let revision = replica.index();
    let with_password = |revision| {
        let first = FirstProof::Password { revision };
        let second = Proof::Passcode { device: device_id(1), moving_factor: 0 };
        Command::Conclude(conclude(1, Finding::Proven { first, second }))
    };
    let password = Some(Some(Sealed::new(b"other")));
    let change = UserChange { password, ..UserChange::default() };
    let change = Command::ChangeUser { user: user_id(1), change };
    assert_eq!(replica.apply(change), Applied::Done);
    assert_eq!(replica.apply(with_password(revision)), Applied::Stale);
    assert_eq!(replica.state.attempts().next(), 0, "nothing was decided");
    let accepted = replica.apply(with_password(revision + 1));
    assert!(matches!(accepted, Applied::Concluded(decision) if decision.verdict == BY_HOTP));

    assert_eq!(replica.apply(Command::DeleteUser { user: user_id(1) }), Applied::Done);
    assert_eq!(replica.apply(Command::Conclude(conclude(2, passcode(1, 1)))), Applied::Stale);
}

#[test]
fn a_client_that_demands_a_password_gets_no_accept_without_one() {
    let mut replica = Replica::with_alice();
    let put = put_client(7, "vpn", "10.0.0.0/8", policy(FirstFactor::local(), true));
    assert_eq!(replica.apply(Command::AddClient(put.clone())), Applied::Done);
    let mut command = conclude(1, passcode(1, 0));
    command.asker = Asker::Client(client_id(7));
    command.client_revision = replica.index();
    assert_eq!(replica.apply(Command::Conclude(command.clone())), Applied::Stale);

    // Control: the same conclusion is accepted where the client vouches for the first factor.
    let put = put_client(7, "vpn", "10.0.0.0/8", policy(FirstFactor::None, true));
    assert_eq!(replica.apply(Command::EditClient(put)), Applied::Done);
    assert_eq!(replica.apply(Command::Conclude(command.clone())), Applied::Stale, "old revision");
    command.client_revision = replica.index() - 1;
    assert_eq!(replica.verdict(command.clone()), BY_HOTP);

    assert_eq!(replica.apply(Command::RemoveClient { client: client_id(7) }), Applied::Done);
    command.request = request_id(2);
    assert_eq!(replica.verdict(command), refused(Reason::ClientRemoved));
}

#[test]
fn a_directorys_word_counts_while_it_is_the_same_and_the_client_asks_it() {
    let mut replica = Replica::with_alice();
    let add = Command::AddDirectory(put_directory(5, "corp"));
    assert_eq!(replica.apply(add), Applied::Done);
    let revision = replica.state.directory(directory_id(5)).expect("added").revision;
    let sources = |source| FirstFactor::Sources([source].into());
    let put = put_client(7, "vpn", "10.0.0.0/8", policy(sources(Source::Local), true));
    assert_eq!(replica.apply(Command::AddClient(put.clone())), Applied::Done);
    let by_directory = |revision, client_revision| {
        let first = FirstProof::Directory { directory: directory_id(5), revision };
        let second = Proof::Passcode { device: device_id(1), moving_factor: 0 };
        let mut command = conclude(1, Finding::Proven { first, second });
        command.asker = Asker::Client(client_id(7));
        command.client_revision = client_revision;
        Command::Conclude(command)
    };
    let client_revision =
        |replica: &Replica| replica.state.client(client_id(7)).expect("added").revision;
    let command = by_directory(revision, client_revision(&replica));
    assert_eq!(replica.apply(command), Applied::Stale, "the client does not ask it");

    let policy = policy(sources(Source::Directory(directory_id(5))), true);
    let put = PutClient { policy, ..put };
    assert_eq!(replica.apply(Command::EditClient(put)), Applied::Done);
    let edit = Command::EditDirectory(put_directory(5, "corp"));
    assert_eq!(replica.apply(edit), Applied::Done);
    let command = by_directory(revision, client_revision(&replica));
    assert_eq!(replica.apply(command), Applied::Stale, "another directory by now");

    let revision = replica.state.directory(directory_id(5)).expect("edited").revision;
    let accepted = replica.apply(by_directory(revision, client_revision(&replica)));
    assert!(matches!(accepted, Applied::Concluded(decision) if decision.verdict == BY_HOTP));
}

#[test]
fn an_unknown_user_passes_only_where_the_client_says_so() {
    for (require_user_match, name, expected) in [
        (false, "mallory", Some(Verdict::Accepted(Acceptance::UnknownUser))),
        (true, "mallory", None),
        (false, "ALICE", None),
    ] {
        let mut replica = Replica::with_alice();
        let policy = policy(FirstFactor::None, require_user_match);
        let put = put_client(7, "vpn", "10.0.0.0/8", policy);
        assert_eq!(replica.apply(Command::AddClient(put)), Applied::Done);
        let second = Proof::UnknownUser;
        let mut command = conclude(1, Finding::Proven { first: FirstProof::Client, second });
        command.asker = Asker::Client(client_id(7));
        command.client_revision = replica.index();
        command.user = None;
        command.username = name.into();
        let applied = replica.apply(Command::Conclude(command));
        match expected {
            Some(verdict) => {
                let Applied::Concluded(decision) = applied else { panic!("{applied:?}") };
                assert_eq!(decision.verdict, verdict);
            }
            None => assert_eq!(applied, Applied::Stale, "{name}, match {require_user_match}"),
        }
    }
}

#[test]
fn a_challenge_is_answered_once_and_in_time() {
    let mut replica = Replica::with_alice();
    let expires = replica.now + 60_000;
    let answer = |request, counter| {
        let mut command = conclude(request, passcode(1, counter));
        command.challenge = Some(challenge(9, expires));
        command
    };
    assert_eq!(replica.verdict(answer(1, 0)), BY_HOTP);
    assert_eq!(replica.verdict(answer(2, 1)), refused(Reason::ChallengeAnswered));

    let mut replica = Replica::with_alice();
    replica.now = expires;
    assert_eq!(replica.verdict(answer(1, 0)), refused(Reason::ChallengeExpired));
}

#[test]
fn a_wrong_answer_uses_the_challenge_up() {
    let mut replica = Replica::with_alice();
    let expires = replica.now + 60_000;
    let mut wrong = conclude(1, Finding::Failed(Reason::PasscodeWrong));
    wrong.challenge = Some(challenge(9, expires));
    assert_eq!(replica.verdict(wrong), refused(Reason::PasscodeWrong));
    let mut right = conclude(2, passcode(1, 0));
    right.challenge = Some(challenge(9, expires));
    assert_eq!(replica.verdict(right), refused(Reason::ChallengeAnswered));
}

#[test]
fn answered_challenges_are_forgotten_when_they_expire() {
    let mut replica = Replica::with_alice();
    for number in 0..50 {
        let mut command = conclude(u64::from(number), Finding::Failed(Reason::PasscodeUsed));
        command.challenge = Some(challenge(number, replica.now + 1_000));
        replica.decide(command);
        replica.now += 100;
    }
    assert!(replica.state.answered_challenges().iter().count() <= 11);
}

#[test]
fn a_bypass_is_used_once_and_lapses() {
    let grant = Command::GrantBypass {
        user: user_id(1),
        reason: "forgot".into(),
        by: "test".into(),
        for_ms: 300_000,
    };
    let use_it = |request, revision| {
        let (first, second) = (FirstProof::Client, Proof::Bypass { revision });
        Command::Conclude(conclude(request, Finding::Proven { first, second }))
    };
    let mut replica = Replica::with_alice();
    assert_eq!(replica.apply(grant.clone()), Applied::Done);
    let revision = replica.index();
    let accepted = replica.apply(use_it(1, revision));
    let bypassed = Verdict::Accepted(Acceptance::Bypass);
    assert!(matches!(accepted, Applied::Concluded(decision) if decision.verdict == bypassed));
    assert_eq!(replica.apply(use_it(2, revision)), Applied::Stale);

    assert_eq!(replica.apply(grant), Applied::Done);
    let revision = replica.index();
    replica.now += 300_000;
    assert_eq!(replica.apply(use_it(3, revision)), Applied::Stale);
}

#[test]
fn resynchronisation_uses_both_passcodes_up_and_never_goes_back() {
    let mut replica = Replica::with_alice();
    let resync = |device, first| Command::ResyncDevice { device: device_id(device), first };
    assert_eq!(replica.apply(resync(1, 500)), Applied::Done);
    for counter in [499, 500, 501] {
        let verdict = replica.verdict(conclude(counter, passcode(1, counter)));
        assert_eq!(verdict, refused(Reason::PasscodeUsed), "{counter}");
    }
    assert_eq!(replica.verdict(conclude(1, passcode(1, 502))), BY_HOTP);
    assert_eq!(replica.apply(resync(1, 10)), Applied::Refused(Refusal::ResyncBehind));
    assert_eq!(replica.apply(resync(1, 5_000)), Applied::Refused(Refusal::ResyncTooFar));
    assert_eq!(replica.apply(resync(1, u64::MAX)), Applied::Refused(Refusal::ResyncTooFar));

    let ahead = replica.step() + 40;
    assert_eq!(replica.apply(resync(2, ahead)), Applied::Done);
    assert_eq!(replica.apply(resync(2, ahead)), Applied::Refused(Refusal::ResyncBehind));
    let verdict = replica.verdict(conclude(2, passcode(2, ahead + 1)));
    assert_eq!(verdict, refused(Reason::PasscodeUsed));
    replica.now += 30_000;
    assert_eq!(replica.verdict(conclude(3, passcode(2, ahead + 2))), BY_TOTP);
}

#[test]
fn limits_follow_the_settings() {
    let mut replica = Replica::with_alice();
    let set = Command::ChangeSettings {
        by: "test".into(),
        if_revision: None,
        changes: vec![("lockout.passcode_failures".into(), Some(Value::Integer(2)))],
    };
    assert_eq!(replica.apply(set), Applied::Done);
    for request in 0..2 {
        replica.verdict(conclude(request, Finding::Failed(Reason::PasscodeWrong)));
    }
    assert_eq!(replica.verdict(conclude(9, passcode(1, 0))), refused(Reason::PasscodeLocked));
    assert_eq!(replica.apply(Command::UnblockUser { user: user_id(1) }), Applied::Done);
    assert_eq!(replica.verdict(conclude(10, passcode(1, 0))), BY_HOTP);
}

#[test]
fn what_was_put_right_meanwhile_is_examined_again() {
    let mut replica = Replica::with_alice();
    let failed = |request, reason| conclude(request, Finding::Failed(reason));
    // Nodes that are behind find alice unknown, disabled, locked, without password or device.
    for (request, reason) in (10..).zip([
        Reason::UserDisabled,
        Reason::UserBlocked,
        Reason::PasswordLocked,
        Reason::PasscodeLocked,
        Reason::DeviceMissing,
    ]) {
        assert_eq!(replica.apply(Command::Conclude(failed(request, reason))), Applied::Stale);
    }
    let mut unknown = failed(20, Reason::UserUnknown);
    unknown.user = None;
    assert_eq!(replica.apply(Command::Conclude(unknown.clone())), Applied::Stale);
    unknown.username = "nobody".into();
    assert_eq!(replica.verdict(unknown), refused(Reason::UserUnknown));
}

/// A device that runs `ahead` steps ahead is resynchronised, saved, used at the edge of what it may, and
/// restored.
#[test]
fn no_time_step_of_before_a_restore_is_accepted_after_it() {
    for ahead in [0, 120] {
        let mut replica = Replica::with_alice();
        let first = replica.step() + ahead;
        let resync = Command::ResyncDevice { device: device_id(2), first };
        assert_eq!(replica.apply(resync), Applied::Done);
        replica.now += 300_000;
        let state = State::decode(&replica.state.encode().expect("encodes")).expect("decodes");
        let used = replica.step() + ahead + 1;
        assert_eq!(replica.verdict(conclude(1, passcode(2, used))), BY_TOTP);
        let Command::Found(founding) = found() else { panic!("a founding") };
        let restored = state.restored(Timestamp(replica.now), &founding);
        let mut restored = Replica { state: restored, log: replica.log, now: replica.now };
        let again = restored.verdict(conclude(2, passcode(2, used)));
        assert_eq!(again, refused(Reason::PasscodeUsed), "{ahead} ahead");
    }
}

#[test]
fn a_reply_is_held_for_the_verdict_that_it_is_meant_for() {
    let mut replica = Replica::with_alice();
    let saying = |request, finding, said: &[u8]| {
        let mut conclude = conclude(request, finding);
        conclude.reply = Some(said.into());
        conclude
    };
    let held = |replica: &Replica, request| {
        let held = replica.state.held_replies().get(request_id(request));
        held.map(|held| held.sealed.to_vec())
    };
    let accepted = replica.decide(saying(1, passcode(1, 0), b"granted"));
    assert!(accepted.has_reply && !accepted.repeated);
    assert_eq!(held(&replica, 1).as_deref(), Some(&b"granted"[..]));
    // A copy that another node has examined brings its own, which is not what was said.
    let again = replica.decide(saying(1, passcode(1, 0), b"other"));
    assert!(again.has_reply && again.repeated);
    assert_eq!(held(&replica, 1).as_deref(), Some(&b"granted"[..]));
    // What would have been granted is said to nobody who is refused.
    let refused = replica.decide(saying(2, passcode(1, 0), b"granted"));
    assert_eq!(refused.verdict, Verdict::Refused(Reason::PasscodeUsed));
    assert!(!refused.has_reply);
    assert_eq!(held(&replica, 2), None);
    let wrong = Finding::Failed(Reason::PasswordWrong);
    assert!(replica.decide(saying(3, wrong, b"why")).has_reply);
    assert_eq!(held(&replica, 3).as_deref(), Some(&b"why"[..]));
    assert!(!replica.decide(conclude(4, wrong)).has_reply);
    // A minute later nobody asks any more.
    replica.now += 60_000;
    replica.decide(saying(5, wrong, b"why"));
    assert_eq!((held(&replica, 1), held(&replica, 5)), (None, Some(b"why".to_vec())));
}

#[test]
fn what_is_held_for_the_answer_to_a_challenge_is_bounded() {
    let mut replica = Replica::with_alice();
    assert_eq!(replica.apply(Command::HoldReply(held_reply(7, b"granted"))), Applied::Done);
    assert!(replica.state.held_replies().get(request_id(7)).is_some());
    let malformed = Applied::Refused(Refusal::ReplyMalformed);
    let long = held_reply(8, &[0; HELD_REPLY_BYTES_MAX + 1]);
    assert_eq!(replica.apply(Command::HoldReply(long)), malformed);
    let mut late = held_reply(8, b"granted");
    late.expires = late.expires.plus_ms(2 * CHALLENGE_MS_MAX);
    assert_eq!(replica.apply(Command::HoldReply(late)), malformed);
    assert!(replica.state.held_replies().get(request_id(8)).is_none());
}

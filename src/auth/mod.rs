//! One authentication, from what an adapter has read to what it should answer.
//!
//! [`Authenticator::authenticate`] is the whole story. The node examines the request against its own
//! copy of the state, which may be old; what it finds becomes one log entry; only when that entry
//! has been applied does anybody get in.

mod primary;
mod reading;
mod request;
mod second;
mod subject;
mod turn;

use std::sync::Arc;

pub use primary::{HashError, PASSWORD_BYTES, PasswordVerifierPool, check_hash, hash_password};
pub use request::{Error, Outcome, Request, Trace};
pub(crate) use second::generator;

use metrics::{Counter, counter};
use reading::{Appended, readings};
use second::{ChallengeToken, PasscodeMatch};
use smol_str::SmolStr;
use subject::{Seen, Subject};
use turn::Turns;
use watchword_cluster::{Cluster, ProposeError};
use watchword_core::attempt::{Acceptance, Asker, Decided, Reason, Verdict};
use watchword_core::challenge::ChallengeRef;
use watchword_core::client::{FirstFactor, RadiusHabits, Source};
use watchword_core::command::{Conclude, Decision, Finding, FirstProof, Proof};
use watchword_core::directory::Directory;
use watchword_core::factor::DIGITS_MIN;
use watchword_core::id::{ClientId, DirectoryId, UserId};
use watchword_core::limits::{TEXT_BYTES_MAX, USER_NAME_BYTES_MAX};
use watchword_core::name::UserName;
use watchword_core::state::State;
use watchword_core::{Applied, Command, policy};

use crate::directory::{Answer, Directories, ServerError};
use crate::keys::{Keyring, Owner};
use crate::{clock, metrics as names};

/// Examinations of one request before giving up on a state that keeps changing under it.
const EXAMINATIONS_MAX: usize = 5;
/// Times that a proposal with unknown fate is asked again, under the same request id.
const PROPOSALS_MAX: usize = 3;
const PROMPT: &str = "Enter your passcode: ";

/// Decides logins.
#[derive(Clone)]
pub struct Authenticator {
    cluster: Cluster,
    keys: Arc<Keyring>,
    passwords: PasswordVerifierPool,
    directories: Arc<Directories>,
    turns: Arc<Turns>,
    meters: Arc<Meters>,
}

/// Counters of what happens on every login; those of refusals are looked up by their reason.
struct Meters {
    by_passcode: Counter,
    by_bypass: Counter,
    by_unknown_user: Counter,
}

/// What the examination of a request leads to.
enum Examined {
    /// A copy of the request has been decided.
    Decided(Decision),
    /// The passcode must be asked for.
    Ask(ChallengeToken),
    /// What was examined is no longer so.
    Old,
    /// There is something to decide.
    Conclude { user: Option<UserId>, challenge: Option<ChallengeRef>, finding: Finding },
}

impl Authenticator {
    /// An authenticator on this node's replica.
    pub fn new(cluster: Cluster, keys: Arc<Keyring>) -> Self {
        Self::comparing(cluster, keys, PasswordVerifierPool::default())
    }

    /// One that compares passwords with the help of `passwords`.
    pub fn comparing(
        cluster: Cluster,
        keys: Arc<Keyring>,
        passwords: PasswordVerifierPool,
    ) -> Self {
        let accepted =
            |by: &'static str| counter!(names::ATTEMPTS, "verdict" => "accepted", "reason" => by);
        let meters = Meters {
            by_passcode: accepted("passcode"),
            by_bypass: accepted("one-time bypass"),
            by_unknown_user: accepted("unknown user"),
        };
        let directories = Arc::new(Directories::new(keys.clone()));
        let turns = Arc::new(Turns::default());
        Self { cluster, keys, passwords, directories, turns, meters: Arc::new(meters) }
    }

    /// Authenticates one request.
    ///
    /// A copy of a request that was decided in the last minute gets the same decision, whichever
    /// node it reaches.
    ///
    /// # Errors
    /// When nothing could be decided. That is not a refusal: the adapter must answer in a way that
    /// makes the client ask another node.
    pub async fn authenticate(&self, request: &Request) -> Result<Outcome, Error> {
        let decided = tokio::time::timeout(request.patience, self.decide(request)).await;
        decided.unwrap_or(Err(Error::TooLate))
    }

    async fn decide(&self, request: &Request) -> Result<Outcome, Error> {
        // Held until the decision is applied.
        let _turn = self.turns.take(request).await;
        for _ in 0..EXAMINATIONS_MAX {
            // Each time: waiting for a newer state may take seconds.
            if let Some(reason) = self.cluster.cannot_examine() {
                return Err(Error::Unfit(reason));
            }
            let conclude = match self.examine(request).await? {
                Examined::Decided(decision) => {
                    request.note(format_args!("this very request was decided before"));
                    return Ok(outcome(decision));
                }
                Examined::Ask(token) => {
                    // A challenge tells that the password is right. Who is locked out must not be told, also
                    // when the lock came while this password waited to be compared, and a node that
                    // is cut off and can count no failure must tell nobody.
                    self.cluster.catch_up().await?;
                    match self.ask(request, &token)? {
                        Some(challenge) => return Ok(challenge),
                        None => continue,
                    }
                }
                Examined::Old => {
                    request.note(format_args!("the state was old; examining anew"));
                    continue;
                }
                Examined::Conclude { user, challenge, finding } => {
                    concluding(request, user, challenge, finding)
                }
            };
            match self.propose(Command::Conclude(conclude)).await? {
                Applied::Concluded(decision) => {
                    self.meters.count(&decision);
                    return Ok(outcome(decision));
                }
                // Somebody changed the client, the user or the password meanwhile, or this node is
                // behind: look again, at what the decision was made on at least.
                Applied::Stale => {
                    request.note(format_args!("the state changed; examining anew"));
                    self.cluster.catch_up().await?;
                }
                Applied::Nothing | Applied::Done | Applied::Refused(_) | Applied::Admitted(_) => {
                    return Err(Error::UnexpectedResult);
                }
            }
        }
        Err(Error::Unsettled)
    }

    /// Looks at this node's state, for adapters that look clients up; see [`Cluster::look`].
    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.cluster.look(look)
    }

    /// A copy of this node's state, to work on for longer.
    pub fn state(&self) -> State {
        self.cluster.state()
    }

    /// Tries a password at each server of a directory, for administrators.
    ///
    /// # Errors
    /// When none can be asked.
    pub async fn try_directory(
        &self,
        id: DirectoryId,
        directory: &Directory,
        user: &UserName,
        password: &str,
    ) -> Result<Vec<(String, Result<Answer, ServerError>)>, Error> {
        Ok(self.directories.try_each(id, directory, user, password).await?)
    }

    /// Whether this node can commit decisions now.
    pub fn is_ready(&self) -> bool {
        self.cluster.status().is_ready()
    }

    /// Records what an accepted login has shown about a client.
    ///
    /// # Errors
    /// When the log does not take it. Nothing depends on it: the next login shows the same.
    pub async fn learn_client(
        &self,
        client: ClientId,
        habits: RadiusHabits,
    ) -> Result<(), ProposeError> {
        self.cluster.propose(Command::LearnClient { client, habits }).await.map(drop)
    }

    /// Proposes; a proposal of unknown fate is asked again. That is safe because the request's id
    /// makes a second entry repeat what the first one decided.
    async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        let mut proposals = 0;
        loop {
            proposals += 1;
            match self.cluster.propose(command.clone()).await {
                Err(ProposeError::OutcomeUnknown) if proposals < PROPOSALS_MAX => {}
                result => return result,
            }
        }
    }

    /// The challenge, if the user may still log in. `None`: the user must be looked at anew.
    fn ask(&self, request: &Request, token: &ChallengeToken) -> Result<Option<Outcome>, Error> {
        let now = clock::now();
        let seconds = self.cluster.look(|state| {
            let now = now.max(state.time());
            let user = state.user(token.user())?;
            policy::admit(user, now).ok()?;
            // Somebody who needs none is asked for no passcode, and no copy of a request is that was
            // decided lately: the next examination repeats its verdict.
            let decided = state.attempts().decision(request.id, now);
            if user.bypass_at(now).is_some() || matches!(decided, Some(Decided::Lately(..))) {
                return None;
            }
            Some(state.settings().challenge_seconds())
        });
        let Some(seconds) = seconds else { return Ok(None) };
        let token = token.seal(&self.keys, challenged_client(request)).map_err(Error::Challenge)?;
        request.note(format_args!("the passcode is asked for by a challenge"));
        Ok(Some(Outcome::Challenge { token, prompt: PROMPT, seconds }))
    }

    /// Looks at the request with this node's eyes.
    async fn examine(&self, request: &Request) -> Result<Examined, Error> {
        let name = UserName::canonical(&request.username).ok();
        let now = clock::now();
        let seen = self.cluster.look(|state| Seen::in_state(state, request, name.as_ref(), now));
        let subject = match seen {
            Seen::Decided(decision) => return Ok(Examined::Decided(decision)),
            Seen::Nobody => return self.examine_nobody(request, name.as_ref()).await,
            Seen::User(subject) => subject,
        };
        request.note(format_args!("user {} is known", subject.user.name.text()));
        if let Err(reason) = policy::admit(&subject.user, subject.now) {
            self.compare_with_nobody(request).await?;
            return Ok(failed(Some(subject.id), reason));
        }
        if let Some(token) = &request.challenge {
            return self.examine_answer(&subject, token).await;
        }
        match &request.policy.first_factor {
            FirstFactor::None => {
                request.note(format_args!("first factor: the client has checked it"));
                self.examine_passcode(&subject, FirstProof::Client, None, &request.credential).await
            }
            FirstFactor::Sources(sources) => self.examine_sources(&subject, sources).await,
        }
    }

    /// Asks for the password's owner: the first source that knows the user decides.
    async fn examine_sources(
        &self,
        subject: &Subject<'_>,
        sources: &[Source],
    ) -> Result<Examined, Error> {
        for source in sources {
            let examined = match source {
                Source::Local => self.examine_password(subject).await?,
                Source::Directory(id) => self.examine_directory(subject, *id).await?,
            };
            if let Some(examined) = examined {
                return Ok(examined);
            }
        }
        self.compare_with_nobody(subject.request).await?;
        Ok(failed(Some(subject.id), Reason::PasswordMissing))
    }

    /// An unknown user passes only where the client says so and has checked the first factor itself.
    async fn examine_nobody(
        &self,
        request: &Request,
        name: Option<&UserName>,
    ) -> Result<Examined, Error> {
        let Some(name) = name else { return Ok(failed(None, Reason::UserNameMalformed)) };
        request.note(format_args!("the user is unknown"));
        if !request.policy.require_user_match && name.may_pass_unknown() {
            if request.policy.first_factor == FirstFactor::None {
                return Ok(proven(None, None, FirstProof::Client, Proof::UnknownUser));
            }
            if let Some(examined) = self.examine_stranger(request, name).await? {
                return Ok(examined);
            }
        }
        self.compare_with_nobody(request).await?;
        Ok(failed(None, Reason::UserUnknown))
    }

    /// Who is no user here may be one of a directory, and pass on the password alone.
    async fn examine_stranger(
        &self,
        request: &Request,
        name: &UserName,
    ) -> Result<Option<Examined>, Error> {
        let directories = self.cluster.look(|state| subject::directories(state, request));
        for (id, directory) in directories {
            let typed = &request.credential;
            let answer = self.directories.check(id, &directory, name, typed).await?;
            let first = FirstProof::Directory { directory: id, revision: directory.revision };
            return Ok(Some(match answer {
                Answer::Unknown => continue,
                Answer::Right => proven(None, None, first, Proof::UnknownUser),
                Answer::Wrong => failed(None, Reason::PasswordWrong),
                Answer::Refused(reason) => failed(None, reason),
            }));
        }
        Ok(None)
    }

    /// Spends as much time as on a user whose password is wrong: who may not try to log in must not
    /// learn from the time it takes whether there is a user, and how the user stands.
    async fn compare_with_nobody(&self, request: &Request) -> Result<(), Error> {
        let compares = request.policy.first_factor.sources().contains(&Source::Local);
        if !compares || request.challenge.is_some() {
            return Ok(());
        }
        let appended = reading::appended(&request.credential, usize::from(DIGITS_MIN));
        let appended = appended.map(|at| Appended { at, is_right: false });
        for reading in readings(request.policy.passcode_input, &request.credential, appended) {
            self.passwords.verify(reading.password, None).await?;
        }
        Ok(())
    }

    /// The answer to a challenge: the token vouches for the first factor.
    async fn examine_answer(&self, subject: &Subject<'_>, token: &[u8]) -> Result<Examined, Error> {
        let client = challenged_client(subject.request);
        let token = ChallengeToken::open(&self.keys, client, token)
            .filter(|token| token.user == subject.id && token.cluster == subject.cluster);
        let Some(token) = token else {
            return Ok(failed(Some(subject.id), Reason::ChallengeUnknown));
        };
        let ChallengeToken { challenge, first, .. } = token;
        subject.request.note(format_args!("the request answers a challenge"));
        let has_expired =
            challenge.expires <= subject.now && !cfg!(mutant = "accept_expired_challenge");
        if has_expired || !subject.vouches(first) {
            let user = Some(subject.id);
            let finding = Finding::Failed(Reason::ChallengeExpired);
            return Ok(Examined::Conclude { user, challenge: Some(challenge), finding });
        }
        self.examine_passcode(subject, first, Some(challenge), &subject.request.credential).await
    }

    /// Asks a directory for the password; `None` when it does not know the user. It is asked once only: a second
    /// reading of what was typed would be a second wrong password there.
    async fn examine_directory(
        &self,
        subject: &Subject<'_>,
        id: DirectoryId,
    ) -> Result<Option<Examined>, Error> {
        let Some(directory) = subject.directory(id) else { return Ok(Some(Examined::Old)) };
        let appended = subject.appended_passcode(&self.keys)?;
        let (input, typed) = (subject.request.policy.passcode_input, &subject.request.credential);
        let Some(reading) = readings(input, typed, appended).into_iter().next() else {
            return Ok(None);
        };
        let name = &subject.user.name;
        let answer = self.directories.check(id, directory, name, &reading.password).await?;
        subject
            .request
            .note(format_args!("first factor: directory {} says: {}", directory.name, answer));
        Ok(match answer {
            Answer::Unknown => None,
            Answer::Right => {
                let first = FirstProof::Directory { directory: id, revision: directory.revision };
                let passcode = reading.passcode.unwrap_or_default();
                Some(self.examine_passcode(subject, first, None, &passcode).await?)
            }
            Answer::Wrong => Some(self.conclude_wrong(subject, None, Reason::PasswordWrong).await?),
            Answer::Refused(reason) => Some(failed(Some(subject.id), reason)),
        })
    }

    /// Password and passcode share one field; finds out how. `None` when the user has no local password.
    async fn examine_password(&self, subject: &Subject<'_>) -> Result<Option<Examined>, Error> {
        let Some(password) = &subject.user.password else { return Ok(None) };
        let first = FirstProof::Password { revision: password.revision };
        let hash = self
            .keys
            .open(Owner::UserPassword(subject.id), &password.hash)
            .map_err(|source| subject.key_error(source))?;
        // A bypass stands in for the passcode, but the user may type one all the same.
        let appended = subject.appended_passcode(&self.keys)?;
        let (input, typed) = (subject.request.policy.passcode_input, &subject.request.credential);
        for reading in readings(input, typed, appended) {
            let right = self.passwords.verify(reading.password, Some(hash.clone())).await?
                || cfg!(mutant = "skip_password");
            subject.request.note(format_args!(
                "first factor: the password, read {}, is {}",
                if reading.passcode.is_some() { "with a passcode behind it" } else { "alone" },
                if right { "right" } else { "wrong" },
            ));
            if right {
                let passcode = reading.passcode.unwrap_or_default();
                return self.examine_passcode(subject, first, None, &passcode).await.map(Some);
            }
        }
        self.conclude_wrong(subject, None, Reason::PasswordWrong).await.map(Some)
    }

    /// The first factor is right; `typed` should be the passcode. Nothing typed asks for it.
    async fn examine_passcode(
        &self,
        subject: &Subject<'_>,
        first: FirstProof,
        challenge: Option<ChallengeRef>,
        typed: &[u8],
    ) -> Result<Examined, Error> {
        let Subject { request, id, user, now, .. } = subject;
        let conclude = |finding| Examined::Conclude { user: Some(*id), challenge, finding };
        if let Some(bypass) = user.bypass_at(*now) {
            request.note(format_args!("second factor: bypassed ({})", bypass.reason));
            let second = Proof::Bypass { revision: bypass.revision };
            return Ok(conclude(Finding::Proven { first, second }));
        }
        if user.devices.is_empty() {
            return Ok(conclude(Finding::Failed(Reason::DeviceMissing)));
        }
        if typed.is_empty() {
            if challenge.is_some() {
                return Ok(conclude(Finding::Failed(Reason::PasscodeMissing)));
            }
            let expires = now.plus_ms(subject.settings.challenge_seconds() * 1000);
            return ChallengeToken::new(subject.cluster, *id, first, expires)
                .map(Examined::Ask)
                .map_err(Error::Challenge);
        }
        let found = subject.match_passcode(&self.keys, typed)?;
        request.note(format_args!(
            "second factor: the passcode {}",
            match found {
                PasscodeMatch::Fresh { .. } => "is right",
                PasscodeMatch::Used => "was right once and is used up",
                PasscodeMatch::Wrong => "is of none of the user's devices",
            }
        ));
        match found {
            PasscodeMatch::Fresh { device, moving_factor } => {
                let second = Proof::Passcode { device, moving_factor };
                Ok(conclude(Finding::Proven { first, second }))
            }
            PasscodeMatch::Used => {
                self.conclude_wrong(subject, challenge, Reason::PasscodeUsed).await
            }
            PasscodeMatch::Wrong => {
                self.conclude_wrong(subject, challenge, Reason::PasscodeWrong).await
            }
        }
    }

    /// What was typed is wrong by what this node knows of the user. Before that counts, it must be up to
    /// date: on an old state a new password looks wrong, and the next passcodes of a token that was used
    /// elsewhere do too. Nobody can check that later: `apply` does not see what was typed.
    async fn conclude_wrong(
        &self,
        subject: &Subject<'_>,
        challenge: Option<ChallengeRef>,
        reason: Reason,
    ) -> Result<Examined, Error> {
        self.cluster.catch_up().await?;
        if !self.cluster.look(|state| subject.is_current(state)) {
            return Ok(Examined::Old);
        }
        let finding = Finding::Failed(reason);
        Ok(Examined::Conclude { user: Some(subject.id), challenge, finding })
    }
}

impl Meters {
    /// Counts a decision, unless it is an earlier one over again.
    fn count(&self, decision: &Decision) {
        if decision.repeated {
            return;
        }
        match decision.verdict {
            Verdict::Accepted(Acceptance::Passcode(_)) => self.by_passcode.increment(1),
            Verdict::Accepted(Acceptance::Bypass) => self.by_bypass.increment(1),
            Verdict::Accepted(Acceptance::UnknownUser) => self.by_unknown_user.increment(1),
            Verdict::Refused(reason) => {
                let reason = reason.to_string();
                counter!(names::ATTEMPTS, "verdict" => "refused", "reason" => reason).increment(1);
            }
        }
    }
}

/// The client that a challenge is bound to; the console counts as one.
fn challenged_client(request: &Request) -> ClientId {
    match request.asker {
        Asker::Client(client) => client,
        Asker::Console => ClientId([0; 16]),
    }
}

fn failed(user: Option<UserId>, reason: Reason) -> Examined {
    Examined::Conclude { user, challenge: None, finding: Finding::Failed(reason) }
}

fn proven(
    user: Option<UserId>,
    challenge: Option<ChallengeRef>,
    first: FirstProof,
    second: Proof,
) -> Examined {
    Examined::Conclude { user, challenge, finding: Finding::Proven { first, second } }
}

/// The log entry for a finding. Texts from outside are cut to what the record holds.
fn concluding(
    request: &Request,
    user: Option<UserId>,
    challenge: Option<ChallengeRef>,
    finding: Finding,
) -> Conclude {
    let cut = |text: &SmolStr, max: usize| {
        if text.len() <= max { text.clone() } else { text[..text.floor_char_boundary(max)].into() }
    };
    Conclude {
        request: request.id,
        asker: request.asker,
        client_revision: request.client_revision,
        username: cut(&request.username, USER_NAME_BYTES_MAX),
        user,
        remote: cut(&request.remote, TEXT_BYTES_MAX),
        challenge,
        finding,
    }
}

fn outcome(decision: Decision) -> Outcome {
    let Decision { verdict, attempt, repeated } = decision;
    match verdict {
        Verdict::Accepted(by) => Outcome::Accept { by, attempt, repeated },
        Verdict::Refused(reason) => Outcome::Reject { reason, attempt, repeated },
    }
}

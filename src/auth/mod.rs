//! One authentication, from what an adapter has read to what it should answer.
//!
//! [`Authenticator::authenticate`] is the whole story. The node examines the request against its own
//! copy of the state, which may be old; what it finds becomes one log entry; only when that entry
//! has been applied does anybody get in.

mod examine;
mod primary;
mod reading;
mod remembered;
mod request;
mod second;
mod subject;
mod turn;

use std::sync::Arc;

pub use crate::directory::Said;
pub use primary::{HashError, PASSWORD_BYTES, PasswordVerifierPool, check_hash, hash_password};
pub use request::{Credential, Error, Outcome, Request, Trace};
pub(crate) use second::generator;

use examine::Examined;
use metrics::{Counter, counter};
use second::{ChallengeToken, Token};
use smol_str::SmolStr;
use turn::Turns;
use watchword_cluster::{Cluster, ProposeError};
use watchword_core::attempt::{Acceptance, Asker, Decided, Verdict};
use watchword_core::challenge::ChallengeRef;
use watchword_core::client::RadiusHabits;
use watchword_core::command::{Conclude, Decision, Finding};
use watchword_core::directory::Directory;
use watchword_core::id::{ClientId, DirectoryId, RequestId, UserId};
use watchword_core::limits::{TEXT_BYTES_MAX, USER_NAME_BYTES_MAX};
use watchword_core::name::UserName;
use watchword_core::reply::HeldReply;
use watchword_core::state::State;
use watchword_core::{Applied, Command, policy};

use crate::directory::{Answer, Directories, Question, ServerError};
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
            let (conclude, said) = match self.examine(request).await? {
                Examined::Decided(decision) => {
                    request.note(format_args!("this very request was decided before"));
                    return self.outcome(request, decision, None).await;
                }
                Examined::Asks { user, token, said } => {
                    // What a directory asks may tell as much.
                    self.cluster.catch_up().await?;
                    if self.may_be_asked(user) {
                        request.note(format_args!("the directory asks the user something itself"));
                        let token = Token::Asked(token);
                        let token = token.seal(&self.keys, challenged_client(request));
                        return Ok(Outcome::Asks { token: token.map_err(Error::Challenge)?, said });
                    }
                    continue;
                }
                Examined::Ask(token, said) => {
                    // A challenge tells that the password is right. Who is locked out must not be told, also
                    // when the lock came while this password waited to be compared, and a node that
                    // is cut off and can count no failure must tell nobody.
                    self.cluster.catch_up().await?;
                    let token = self.holding(request, token, said).await?;
                    match self.ask(request, token)? {
                        Some(challenge) => return Ok(challenge),
                        None => continue,
                    }
                }
                Examined::Old => {
                    request.note(format_args!("the state was old; examining anew"));
                    continue;
                }
                Examined::Conclude { user, challenge, finding, said } => {
                    let reply = self.sealed_reply(request, said.as_ref())?;
                    (concluding(request, user, challenge, finding, reply), said)
                }
            };
            match self.propose(Command::Conclude(conclude)).await? {
                Applied::Concluded(decision) => {
                    self.meters.count(&decision);
                    return self.outcome(request, decision, said).await;
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
        let cluster = self.cluster.look(subject::cluster);
        let password = Some(password.as_bytes());
        let question = Question { user, password, attributes: &[], place: None, cluster };
        Ok(self.directories.try_each(id, directory, &question).await?)
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

    /// Records that a directory's server signs, so that all nodes insist on that. Nobody waits for it.
    fn learn_server(&self, directory: DirectoryId, revision: u64, server: Option<u8>) {
        let Some(server) = server else { return };
        let cluster = self.cluster.clone();
        tokio::spawn(async move {
            let learn = Command::LearnServer { directory, revision, server };
            if let Err(error) = cluster.propose(learn).await {
                tracing::warn!(%directory, %error, "that its server signs was not recorded");
            }
        });
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
    fn ask(&self, request: &Request, token: ChallengeToken) -> Result<Option<Outcome>, Error> {
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
        let token = Token::Challenge(token).seal(&self.keys, challenged_client(request));
        let token = token.map_err(Error::Challenge)?;
        request.note(format_args!("the passcode is asked for by a challenge"));
        Ok(Some(Outcome::Challenge { token, prompt: PROMPT, seconds }))
    }

    /// Whether a user, if it is one, may be asked anything.
    fn may_be_asked(&self, user: Option<UserId>) -> bool {
        let now = clock::now();
        self.cluster.look(|state| match user {
            Some(id) => state
                .user(id)
                .is_some_and(|user| policy::admit(user, now.max(state.time())).is_ok()),
            None => true,
        })
    }

    /// The challenge, with what is to be said when it has been answered held on every node until then.
    async fn holding(
        &self,
        request: &Request,
        token: ChallengeToken,
        said: Option<Said>,
    ) -> Result<ChallengeToken, Error> {
        let Some(sealed) = self.sealed_reply(request, said.as_ref())? else { return Ok(token) };
        let expires = token.challenge.expires;
        let held = HeldReply { request: request.id, expires, sealed };
        match self.propose(Command::HoldReply(held)).await? {
            Applied::Done => Ok(ChallengeToken { reply: Some(request.id), ..token }),
            _ => Err(Error::ReplyLost),
        }
    }

    fn sealed_reply(
        &self,
        request: &Request,
        said: Option<&Said>,
    ) -> Result<Option<Arc<[u8]>>, Error> {
        let Some(said) = said else { return Ok(None) };
        let sealed = self.keys.seal(Owner::Reply(request.id), said.as_bytes());
        Ok(Some(sealed.map_err(Error::Reply)?.as_bytes().into()))
    }

    /// What is to be said along with the verdict on `request`. `None`: it is not known, or does not open any more.
    async fn held(&self, request: RequestId) -> Result<Option<Said>, Error> {
        let look =
            |state: &State| state.held_replies().get(request).map(|held| held.sealed.clone());
        let mut held = self.cluster.look(look);
        if held.is_none() {
            // Another node has had it recorded a moment ago.
            self.cluster.catch_up().await?;
            held = self.cluster.look(look);
        }
        let opened = held.and_then(|held| self.keys.open_bytes(Owner::Reply(request), &held).ok());
        Ok(opened.map(Said::new))
    }

    /// What to answer; `said` is what this node knows already of what is to be said.
    async fn outcome(
        &self,
        request: &Request,
        decision: Decision,
        said: Option<Said>,
    ) -> Result<Outcome, Error> {
        let Decision { verdict, attempt, repeated, has_reply } = decision;
        let said = match (has_reply, repeated) {
            (false, _) => None,
            (true, false) => said,
            (true, true) => Some(self.held(request.id).await?.ok_or(Error::ReplyLost)?),
        };
        Ok(match verdict {
            Verdict::Accepted(by) => Outcome::Accept { by, attempt, repeated, said },
            Verdict::Refused(reason) => Outcome::Reject { reason, attempt, repeated, said },
        })
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

/// The log entry for a finding. Texts from outside are cut to what the record holds.
fn concluding(
    request: &Request,
    user: Option<UserId>,
    challenge: Option<ChallengeRef>,
    finding: Finding,
    reply: Option<Arc<[u8]>>,
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
        reply,
    }
}

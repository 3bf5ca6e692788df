//! What an adapter hands to [`super::Authenticator::authenticate`], and what it gets back.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use smol_str::SmolStr;
use watchword_cluster::{ProposeError, ReadError};
use watchword_core::attempt::{Acceptance, Asker, Reason};
use watchword_core::client::ClientPolicy;
use watchword_core::id::RequestId;
use zeroize::Zeroizing;

use crate::directory::{DirectoryError, Said};
use crate::keys::KeyError;

/// One login, as far as a client has described it.
pub struct Request {
    /// Equal for every copy of the same request, on any node.
    pub id: RequestId,
    /// Who asks.
    pub asker: Asker,
    /// Revision of the client that `policy` was taken from; zero for the console.
    pub client_revision: u64,
    /// How this client's users are authenticated.
    pub policy: ClientPolicy,
    /// The user name as presented.
    pub username: SmolStr,
    /// What the user shows.
    pub credential: Credential,
    /// What else the client says, for directories that speak its protocol; see [`crate::radius::relay`].
    pub attributes: Vec<u8>,
    /// The token of the challenge that this request answers.
    pub challenge: Option<Box<[u8]>>,
    /// Where the user is, as far as the client tells.
    pub remote: SmolStr,
    /// How long whoever asks waits for the answer.
    pub patience: Duration,
    /// Where to write down what was found, step by step.
    pub trace: Option<Trace>,
}

/// What the user shows to log in.
pub enum Credential {
    /// What was typed: password, passcode or both, as the policy says.
    Typed(Zeroizing<Vec<u8>>),
    /// Something that was made of the password. It is among the attributes, and only some directories can check it.
    Sent {
        /// Whether the user can be asked for a passcode as the answer to it.
        takes_challenge: bool,
    },
}

impl Credential {
    /// What was typed; nothing where something else was sent.
    pub(super) fn typed(&self) -> &[u8] {
        match self {
            Self::Typed(typed) => typed,
            Self::Sent { .. } => &[],
        }
    }

    /// Whether the user can be asked for a passcode.
    pub(super) fn takes_challenge(&self) -> bool {
        match self {
            Self::Typed(_) => true,
            Self::Sent { takes_challenge } => *takes_challenge,
        }
    }
}

impl Request {
    /// Writes a step down, if anybody wants to know.
    pub(super) fn note(&self, step: fmt::Arguments<'_>) {
        if let Some(trace) = &self.trace {
            trace.note(step);
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("id", &self.id)
            .field("asker", &self.asker)
            .field("username", &self.username)
            .field("answers_challenge", &self.challenge.is_some())
            .finish_non_exhaustive()
    }
}

/// The steps of one authentication, for the administrator who tests it. Holds no secret.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    fn note(&self, step: fmt::Arguments<'_>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(step.to_string());
    }

    /// What was written down so far.
    pub fn steps(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What to answer. Only [`Outcome::Accept`] lets anybody in, and it exists only as the result of an
/// applied log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The user may enter.
    Accept {
        /// What it rests on.
        by: Acceptance,
        /// Number of the attempt in the record.
        attempt: u64,
        /// True when this repeats an earlier decision on the same request.
        repeated: bool,
        /// What a directory wants said along with it.
        said: Option<Said>,
    },
    /// A directory asks the user something itself.
    Asks {
        /// A sealed token that comes back with the answer, to any node.
        token: Vec<u8>,
        /// What it asks.
        said: Option<Said>,
    },
    /// The first factor was right; the passcode is missing.
    Challenge {
        /// A sealed token that comes back with the answer, to any node.
        token: Vec<u8>,
        /// What to ask the user.
        prompt: &'static str,
        /// Seconds within which the answer must come.
        seconds: u64,
    },
    /// The user may not enter.
    Reject {
        /// Why; for the record, not for the user.
        reason: Reason,
        /// Number of the attempt in the record.
        attempt: u64,
        /// True when this repeats an earlier decision on the same request.
        repeated: bool,
        /// What a directory wants said along with it.
        said: Option<Said>,
    },
}

/// Nothing could be decided. This is never a "no": the client should ask another node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log did not take the decision, or its fate is unknown.
    #[error("the decision could not be committed")]
    Propose(#[from] ProposeError),
    /// A sealed secret could not be used.
    #[error("a secret of user {username:?} cannot be used")]
    Key {
        /// The user.
        username: SmolStr,
        /// Why.
        source: KeyError,
    },
    /// Whoever asked does not wait any longer. The decision may still be made; a copy of the request gets
    /// it.
    #[error("it took too long")]
    TooLate,
    /// It cannot be made sure that a user who is locked out is told nothing, or that what looks wrong
    /// here is wrong.
    #[error("no fresh state can be read")]
    Read(#[from] ReadError),
    /// This node's clock or state is not what the other nodes have.
    #[error("this node must not decide: {0}")]
    Unfit(String),
    /// A directory has not said whether the password is right.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Too many passwords wait to be compared.
    #[error("too many passwords wait to be compared")]
    Overloaded,
    /// A copy of the request was decided, but what a directory wanted said along with that is gone. To accept without
    /// it might be to accept something else.
    #[error("what is to be said along with the decision is no longer known")]
    ReplyLost,
    /// What is to be said along with the decision could not be sealed.
    #[error("what is to be said along with the decision could not be sealed")]
    Reply(#[source] KeyError),
    /// The state changed under the request again and again.
    #[error("the state changed during each of several examinations")]
    Unsettled,
    /// The passwords' worker pool is shut down, or one of its threads died.
    #[error("the password could not be compared")]
    Password,
    /// A challenge could not be made.
    #[error("a challenge could not be made")]
    Challenge(#[source] KeyError),
    /// The entry's result has the wrong kind: an internal contradiction.
    #[error("the log answered a decision with something else")]
    UnexpectedResult,
}

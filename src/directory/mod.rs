//! Directories: asks those who know the users' passwords when Watchword does not.
//!
//! What a directory says is a claim that the log entry names, with the directory's revision; here nothing is
//! decided and nothing is counted. A directory that cannot be asked says neither yes nor no.

mod health;
mod ldap;
mod radius;
mod tls;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

pub use ldap::message;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
pub use tls::TrustError;
use watchword_core::attempt::Reason;
use watchword_core::directory::{Directory, DirectoryKind};
use watchword_core::id::{ClusterId, DirectoryId};
use watchword_core::name::UserName;
use zeroize::Zeroizing;

use crate::keys::{KeyError, Keyring, Owner};
use crate::radius::attribute::AttributeType;
use crate::radius::relay;
use crate::radius::secret::{Secret, SecretError};

/// What a directory is asked.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// Whose password it is.
    pub user: &'a UserName,
    /// The password; `None` where the client has sent something else instead, among the attributes.
    pub password: Option<&'a [u8]>,
    /// What else the client has said, for a directory that speaks its protocol; see [`crate::radius::relay`].
    pub attributes: &'a [u8],
    /// Where the directory has asked something that this answers.
    pub place: Option<&'a Place>,
    /// Who asks: a request that comes back to the same cluster must not go round for ever.
    pub cluster: ClusterId,
}

/// Where a directory goes on when it has asked the user something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The number of the server, which knows what it has asked.
    pub server: u8,
    /// What it wants to be given along with the answer: State (RFC 2865 section 5.24).
    pub state: Box<[u8]>,
}

/// What comes back from a directory.
pub struct Reply {
    /// What it says.
    pub answer: Answer,
    /// Whom it has accepted, where it tells.
    pub identity: Option<SmolStr>,
    /// What the client is to be told along with it.
    pub said: Option<Said>,
    /// Where it goes on, if it asks.
    pub place: Option<Place>,
    /// The number of a server that was seen for the first time to sign what need not be signed.
    pub signs: Option<u8>,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self { answer, identity: None, said: None, place: None, signs: None }
    }
}

/// What a directory wants said to the client, in the client's protocol; see [`crate::radius::relay`]. May hold keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Said(Arc<Zeroizing<Vec<u8>>>);

impl Said {
    /// Wraps attributes.
    pub fn new(attributes: Zeroizing<Vec<u8>>) -> Self {
        Self(Arc::new(attributes))
    }

    /// The attributes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What the user is told; nothing if there is nothing to read.
    pub fn message(&self) -> String {
        let told = relay::attributes(&self.0)
            .filter(|found| found.kind == AttributeType::REPLY_MESSAGE)
            .flat_map(|found| found.value.iter().copied());
        String::from_utf8_lossy(&told.collect::<Vec<_>>()).into_owned()
    }
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Said({} octets)", self.0.len())
    }
}

/// What a directory says of a name and a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// They belong together.
    Right,
    /// They do not.
    Wrong,
    /// It knows nobody of that name.
    Unknown,
    /// The user may not log in, whatever the password.
    Refused(Reason),
    /// It has a question itself.
    Asks,
    /// It cannot check what the client has sent instead of a password.
    Uncheckable,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Right => f.write_str("the password is right"),
            Self::Wrong => f.write_str("the password is wrong"),
            Self::Unknown => f.write_str("the user is unknown"),
            Self::Refused(reason) => write!(f, "the user is refused: {reason}"),
            Self::Asks => f.write_str("the user is asked something"),
            Self::Uncheckable => f.write_str("this kind of password cannot be checked"),
        }
    }
}

/// Why a server of a directory has not answered.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// By LDAP.
    #[error(transparent)]
    Ldap(#[from] ldap::ServerError),
    /// By RADIUS.
    #[error(transparent)]
    Radius(#[from] radius::ServerError),
}

/// Why a directory has not said anything.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// None of its servers has answered; of the last that was asked, why.
    #[error("directory {directory:?} does not answer")]
    Unreachable {
        /// Its name.
        directory: Arc<str>,
        /// What went wrong.
        #[source]
        source: Box<ServerError>,
    },
    /// Its servers did not answer a moment ago, and are left alone for now.
    #[error("directory {0:?} has not answered lately")]
    Resting(Arc<str>),
    /// Too many wait for it already.
    #[error("too many logins wait for directory {0:?}")]
    Overloaded(Arc<str>),
    /// The certificates that it is trusted by are none.
    #[error("directory {directory:?} cannot be trusted")]
    Trust {
        /// Its name.
        directory: Arc<str>,
        /// Why.
        #[source]
        source: TrustError,
    },
    /// What it is asked with does not open.
    #[error("the secret of directory {directory:?} does not open")]
    Key {
        /// Its name.
        directory: Arc<str>,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// The secret that is shared with it cannot be one.
    #[error("directory {directory:?} cannot be asked")]
    Secret {
        /// Its name.
        directory: Arc<str>,
        /// Why.
        #[source]
        source: SecretError,
    },
}

/// Connections to all directories that were asked. One for the whole node.
pub struct Directories {
    keys: Arc<Keyring>,
    known: Mutex<HashMap<DirectoryId, (u64, Client)>>,
}

/// Asks one directory, by its protocol.
#[derive(Clone)]
enum Client {
    Ldap(Arc<ldap::Client>),
    Radius(Arc<radius::Client>),
}

impl Directories {
    /// Connected to none yet.
    pub fn new(keys: Arc<Keyring>) -> Self {
        Self { keys, known: Mutex::default() }
    }

    /// Asks `directory`.
    ///
    /// # Errors
    /// When it does not answer. That says nothing about the password.
    pub async fn check(
        &self,
        id: DirectoryId,
        directory: &Directory,
        question: &Question<'_>,
    ) -> Result<Reply, DirectoryError> {
        match self.client(id, directory)? {
            Client::Radius(client) => client.check(question).await,
            Client::Ldap(client) => match question.password.map(text) {
                Some("") => Ok(Answer::Wrong.into()),
                Some(password) => Ok(client.check(question.user, password).await?.into()),
                None => Ok(Answer::Uncheckable.into()),
            },
        }
    }

    /// Asks each server in turn, whatever became of it before, until one does not take the password; what
    /// each has said.
    ///
    /// # Errors
    /// When none can be asked.
    pub async fn try_each(
        &self,
        id: DirectoryId,
        directory: &Directory,
        question: &Question<'_>,
    ) -> Result<Vec<(String, Result<Answer, ServerError>)>, DirectoryError> {
        Ok(match self.client(id, directory)? {
            Client::Radius(client) => named(client.try_each(question).await),
            Client::Ldap(client) => {
                let password = question.password.map_or("", text);
                named(client.try_each(question.user, password).await)
            }
        })
    }

    /// The client for this revision of the directory.
    fn client(&self, id: DirectoryId, directory: &Directory) -> Result<Client, DirectoryError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((revision, client)) = known.get(&id)
            && *revision == directory.revision
        {
            if let (Client::Radius(client), DirectoryKind::Radius(target)) =
                (client, &directory.kind)
            {
                client.note_signs(target);
            }
            return Ok(client.clone());
        }
        let name = || directory.name.clone();
        let secret = match directory.kind.secret() {
            None => None,
            Some(sealed) => Some(
                self.keys
                    .open(Owner::DirectorySecret(id), sealed)
                    .map_err(|source| DirectoryError::Key { directory: name(), source })?,
            ),
        };
        let client = match &directory.kind {
            DirectoryKind::Ldap(settings) => {
                let client = ldap::Client::new(name(), settings, secret)
                    .map_err(|source| DirectoryError::Trust { directory: name(), source })?;
                Client::Ldap(Arc::new(client))
            }
            DirectoryKind::Radius(target) => {
                let secret = Secret::new(&secret.unwrap_or_default())
                    .map_err(|source| DirectoryError::Secret { directory: name(), source })?;
                Client::Radius(Arc::new(radius::Client::new(name(), target, &secret)))
            }
        };
        known.insert(id, (directory.revision, client.clone()));
        Ok(client)
    }
}

/// A password as text. An empty one would ask for nothing: RFC 4513 section 5.1.2 has the server say yes to that. One
/// that is no text cannot be sent.
fn text(password: &[u8]) -> &str {
    std::str::from_utf8(password).unwrap_or_default()
}

fn named<E: Into<ServerError>>(
    said: Vec<(String, Result<Answer, E>)>,
) -> Vec<(String, Result<Answer, ServerError>)> {
    said.into_iter().map(|(server, answer)| (server, answer.map_err(Into::into))).collect()
}

//! Directories: asks those who know the users' passwords when Watchword does not.
//!
//! What a directory says is a claim that the log entry names, with the directory's revision; here nothing is
//! decided and nothing is counted. A directory that cannot be asked says neither yes nor no.

mod ldap;
mod tls;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

pub use ldap::{ServerError, message};
pub use tls::TrustError;
use watchword_core::attempt::Reason;
use watchword_core::directory::{Directory, DirectoryKind};
use watchword_core::id::DirectoryId;
use watchword_core::name::UserName;

use crate::keys::{KeyError, Keyring, Owner};

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
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Right => f.write_str("the password is right"),
            Self::Wrong => f.write_str("the password is wrong"),
            Self::Unknown => f.write_str("the user is unknown"),
            Self::Refused(reason) => write!(f, "the user is refused: {reason}"),
        }
    }
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
    /// The password of its searching account does not open.
    #[error("the password for searching directory {directory:?} does not open")]
    Key {
        /// Its name.
        directory: Arc<str>,
        /// Why.
        #[source]
        source: KeyError,
    },
}

/// Connections to all directories that were asked. One for the whole node.
pub struct Directories {
    keys: Arc<Keyring>,
    known: Mutex<HashMap<DirectoryId, (u64, Arc<ldap::Client>)>>,
}

impl Directories {
    /// Connected to none yet.
    pub fn new(keys: Arc<Keyring>) -> Self {
        Self { keys, known: Mutex::default() }
    }

    /// Asks `directory` whether `password` is the password of `user`.
    ///
    /// # Errors
    /// When it does not answer. That says nothing about the password.
    pub async fn check(
        &self,
        id: DirectoryId,
        directory: &Directory,
        user: &UserName,
        password: &[u8],
    ) -> Result<Answer, DirectoryError> {
        // An empty one would ask for nothing: RFC 4513 section 5.1.2 has the server say yes to that. One that
        // is no text cannot be sent.
        let password = std::str::from_utf8(password).unwrap_or_default();
        if password.is_empty() {
            return Ok(Answer::Wrong);
        }
        self.client(id, directory)?.check(user, password).await
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
        user: &UserName,
        password: &str,
    ) -> Result<Vec<(String, Result<Answer, ServerError>)>, DirectoryError> {
        Ok(self.client(id, directory)?.try_each(user, password).await)
    }

    /// The client for this revision of the directory.
    fn client(
        &self,
        id: DirectoryId,
        directory: &Directory,
    ) -> Result<Arc<ldap::Client>, DirectoryError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((revision, client)) = known.get(&id)
            && *revision == directory.revision
        {
            return Ok(client.clone());
        }
        let name = || directory.name.clone();
        let password = match directory.kind.secret() {
            None => None,
            Some(sealed) => Some(
                self.keys
                    .open(Owner::DirectoryPassword(id), sealed)
                    .map_err(|source| DirectoryError::Key { directory: name(), source })?,
            ),
        };
        let DirectoryKind::Ldap(settings) = &directory.kind;
        let client = ldap::Client::new(name(), settings, password)
            .map_err(|source| DirectoryError::Trust { directory: name(), source })?;
        let client = Arc::new(client);
        known.insert(id, (directory.revision, client.clone()));
        Ok(client)
    }
}

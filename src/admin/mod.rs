//! What administrators may do.
//!
//! The command line comes through here, as will the console and the SDK; only this module and
//! [`crate::auth`] propose. Each function resolves names against a fresh state, makes what must be
//! made beforehand (ids, sealed secrets, hashes), proposes one command and reports what `apply` said.

mod attempt;
mod backup;
mod client;
mod device;
mod directory;
mod import;
mod member;
mod rekey;
mod setting;
mod status;
mod test_login;
mod user;

use std::sync::Arc;

pub use attempt::{AttemptQuery, AttemptView, AttemptsPage};
pub use backup::BackupSpec;
pub use client::{ClientEdit, ClientSpec, ClientView};
pub use device::{DeviceKind, DeviceSpec, DeviceView, Enrolled, ResyncSpec};
pub(crate) use device::{parse_key, percent_encoded};
pub use directory::{
    DirectoryEdit, DirectoryFields, DirectoryReport, DirectorySpec, DirectoryTest, DirectoryView,
    LdapEdit, RadiusEdit,
};
pub use import::{BATCH_ROWS_MAX, ImportRow, RowError, RowOutcome, read_rows};
pub use member::{
    Admitted, JoinSpec, LeaderView, MemberEdit, MemberView, NewToken, RemovalView, TokenSpec,
    TokenView,
};
pub use rekey::{RekeySpec, RekeyView};
pub use setting::{SettingView, SettingsChangeView, SettingsEdit, SettingsView};
pub use status::StatusView;
pub use test_login::{TestLogin, TestReport};
pub use user::{BlockSpec, BypassSpec, UserEdit, UserSpec, UserView, UsersPage};
pub use watchword_cluster::Caller;

use tokio_util::sync::CancellationToken;
use watchword_cluster::{Cluster, ProposeError, ReadError};
use watchword_core::name::{NameError, UserName};
use watchword_core::state::State;
use watchword_core::time::Timestamp;
use watchword_core::user::UserEntry;
use watchword_core::{Applied, Command, Refusal};

use crate::auth::{Authenticator, HashError};
use crate::keys::{KeyError, Keyring};
use crate::random::RandomError;

/// Everything administrators may do, on this node's replica.
#[derive(Clone)]
pub struct Admin {
    cluster: Cluster,
    keys: Arc<Keyring>,
    authenticator: Authenticator,
    stop: CancellationToken,
}

/// Why something was not done. Nothing was changed, except where the outcome is unknown.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The state machine refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no such thing.
    #[error("there is no {what} {name:?}")]
    NotFound {
        /// What kind of thing.
        what: &'static str,
        /// What it was called.
        name: String,
    },
    /// The cluster has no authority yet.
    #[error("the cluster is not founded yet; try again in a moment")]
    NotFounded,
    /// It cannot be done as things are.
    #[error("{0}")]
    Conflict(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A user name makes no sense.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A password hash makes no sense.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The log did not take it, or its fate is unknown.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// No fresh state can be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A secret could not be sealed or opened.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The random number generator failed.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A tested login could not be decided.
    #[error("the login could not be decided")]
    Authenticate(#[from] crate::auth::Error),
    /// The log answered with something that does not fit: an internal contradiction.
    #[error("the log answered a change with something else")]
    UnexpectedResult,
}

impl Admin {
    /// Administration of the cluster that this replica belongs to. Who waits for something to happen
    /// waits until `stop` at most.
    pub fn new(
        cluster: Cluster,
        keys: Arc<Keyring>,
        authenticator: Authenticator,
        stop: CancellationToken,
    ) -> Self {
        Self { cluster, keys, authenticator, stop }
    }

    async fn propose(&self, command: Command) -> Result<(), AdminError> {
        done(self.cluster.propose(command).await?)
    }

    /// Seals under the key that is in force now, for whoever needs no state.
    async fn seal_as_now(&self) -> Result<(), AdminError> {
        self.state().await.map(drop)
    }

    async fn state(&self) -> Result<State, AdminError> {
        let state = self.cluster.read().await?;
        // What is sealed under an earlier key would be refused.
        self.keys.follow(state.data_keys())?;
        Ok(state)
    }
}

fn done(applied: Applied) -> Result<(), AdminError> {
    match applied {
        Applied::Done => Ok(()),
        Applied::Refused(refusal) => Err(refusal.into()),
        Applied::Nothing | Applied::Concluded(_) | Applied::Stale | Applied::Admitted(_) => {
            Err(AdminError::UnexpectedResult)
        }
    }
}

/// The user called `name`, in any spelling.
fn find_user<'a>(state: &'a State, name: &str) -> Result<UserEntry<'a>, AdminError> {
    let canonical = UserName::canonical(name)?;
    state
        .user_by_name(&canonical)
        .ok_or_else(|| AdminError::NotFound { what: "user", name: name.to_owned() })
}

/// A moment as RFC 3339 text, to the second.
pub fn rfc3339(time: Timestamp) -> String {
    // Times past the year 9999 cannot be written so; nothing here lasts that long.
    let seconds = time.seconds().min(253_402_300_799);
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(time).to_string()
}

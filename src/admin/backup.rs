//! Backups of the state.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Admin, AdminError, rfc3339};
use crate::backup::{self, BackupError, Origin};
use crate::clock;

/// What a backup needs to be told.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupSpec {
    /// What it is encrypted under.
    pub passphrase: Zeroizing<String>,
}

impl std::fmt::Debug for BackupSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BackupSpec(..)")
    }
}

impl Admin {
    /// A backup of everything that was committed before this call. Logins go on meanwhile.
    ///
    /// # Errors
    /// When no fresh state can be read, or the passphrase is too short.
    pub async fn backup(&self, spec: BackupSpec) -> Result<Vec<u8>, AdminError> {
        let state = self.state().await?;
        // At least as far as the state: a number below which nothing of it was made.
        let index = *self.cluster.changes().borrow();
        let authority = state.nodes().authority().ok_or(AdminError::NotFounded)?;
        let cluster = authority.cluster.to_string();
        let origin = Origin { cluster, created: rfc3339(clock::now()), index };
        let keys = self.keys.clone();
        let writing = tokio::task::spawn_blocking(move || {
            let keys = keys.export(state.data_keys())?;
            backup::write(origin, spec.passphrase.as_bytes(), &keys, &state)
        });
        Ok(writing.await.map_err(|_| AdminError::UnexpectedResult)??)
    }
}

impl From<BackupError> for AdminError {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Key(error) => Self::Key(error),
            BackupError::Random(error) => Self::Random(error),
            error => Self::Invalid(error.to_string()),
        }
    }
}

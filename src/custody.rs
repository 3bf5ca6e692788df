//! Keeps the node's own files up to date while it runs: its certificate is renewed before it lapses,
//! and its keyring follows the data key that the cluster uses.
//!
//! Both rewrite the identity, so one task does both. Each step leaves files that a node can start
//! with, whatever comes next.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use watchword_cluster::Cluster;
use watchword_core::data_key::DataKeys;

use crate::admin::Admin;
use crate::clock;
use crate::error_chain::chain;
use crate::identity::Identity;
use crate::keys::{KeyError, Keyring};
use crate::node::{NodeError, credentials};
use crate::pki::{PrivateKey, RENEW_AFTER_MS};

/// Pause between two looks at the data keys in force. Administration looks by itself; what is sealed
/// under the key before until then is refused, and challenges still open.
const KEY_LOOK: Duration = Duration::from_millis(250);
/// Looks at the data keys between two looks at the age of the certificate: an hour.
const KEY_LOOKS_PER_RENEWAL_LOOK: u64 = 4 * 3600;
/// Pause after a failure to put the files in order, in looks: a minute.
const PATIENCE: u64 = 4 * 60;

/// Whoever keeps the files.
pub(crate) struct Custodian {
    /// Where they are.
    pub(crate) data_dir: PathBuf,
    /// Who this node is.
    pub(crate) identity: Identity,
    /// The replica.
    pub(crate) cluster: Cluster,
    /// The data keys.
    pub(crate) keys: Arc<Keyring>,
    /// Signs certificates.
    pub(crate) admin: Admin,
}

impl Custodian {
    /// Keeps the files until `stop`.
    pub(crate) async fn keep(mut self, stop: CancellationToken) {
        let mut look = tokio::time::interval(KEY_LOOK);
        let mut resume_at = 0;
        for turn in 0_u64.. {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = look.tick() => {}
            }
            if turn.is_multiple_of(KEY_LOOKS_PER_RENEWAL_LOOK) {
                self.look_at_certificate();
            }
            if turn < resume_at {
                continue;
            }
            if let Err(error) = self.look_at_keys().await {
                tracing::error!(error = chain(&error), "the keyring does not follow the cluster");
                resume_at = turn + PATIENCE;
            }
        }
    }

    /// Follows the key in force, and gives up those that nobody needs any more.
    async fn look_at_keys(&mut self) -> Result<(), NodeError> {
        let in_force = self.cluster.look(|state| *state.data_keys());
        self.keys.follow(&in_force)?;
        if !self.keys.has_retired(&in_force) {
            return Ok(());
        }
        // A log that is cut back by a crash, or taken up by `recover`, must not end before the entry
        // that gave the keys up: what it holds would be sealed under keys that are gone.
        if self.cluster.snapshot().await? < in_force.revision {
            // The replica has not noticed yet that it has come that far: at the next look.
            return Ok(());
        }
        // The log holds the founder's authority long since.
        self.identity.authority_key = None;
        self.identity.save(&self.data_dir, &self.keys)?;
        self.retire(in_force).await?;
        tracing::info!("the node has given up its earlier data keys");
        Ok(())
    }

    /// On a blocking thread: a passphrase takes argon2's time.
    async fn retire(&self, in_force: DataKeys) -> Result<(), KeyError> {
        let keys = self.keys.clone();
        let retired = tokio::task::spawn_blocking(move || keys.retire(&in_force));
        retired.await.map_err(|_| KeyError::Seal)?
    }

    fn look_at_certificate(&mut self) {
        if clock::now().ms_since(self.identity.certified) < RENEW_AFTER_MS {
            return;
        }
        match self.renewed() {
            Ok(new) => {
                tracing::info!("the node's certificate was renewed");
                self.identity = new;
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "the node's certificate is not renewed");
            }
        }
    }

    /// A new key and certificate, in use and on disk.
    fn renewed(&self) -> Result<Identity, NodeError> {
        let old = &self.identity;
        let key = PrivateKey::generate()?;
        let certificate = self.admin.certify_self(old.cluster, old.node, &key.public_key())?;
        let identity = Identity {
            node: old.node,
            cluster: old.cluster,
            authority: old.authority.clone(),
            certificate: certificate.into(),
            key,
            certified: clock::now(),
            epoch: old.epoch,
            authority_key: old.authority_key.clone(),
        };
        identity.save(&self.data_dir, &self.keys)?;
        self.cluster.renew(credentials(&identity))?;
        Ok(identity)
    }
}

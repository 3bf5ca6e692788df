//! Joining a cluster with a token: what a node does before it is one.
//!
//! The token's bearer knows the hash of the cluster's authority, so the node that answers can be told
//! from an impostor before anything is shown to it. What comes back, an id, a certificate and the data
//! key, is written before the store is made: a join that is cut off is begun again with the same
//! token and ends as the same node. It is told from a node that has lost its store by the key that it
//! asks with, which goes once the store is there (`stage.rs`).

use std::path::{Path, PathBuf};

use watchword_cluster::Cluster;
use watchword_core::id::ClusterId;
use watchword_proto::{JoinAnswer, JoinRequest};

use crate::clock;
use crate::config::Config;
use crate::identity::{Identity, IdentityError};
use crate::keys::{KeyError, Keyring};
use crate::node::{self, NodeError};
use crate::pki::{PkiError, PrivateKey, Token};
use crate::stage::{self, Maker, Stage, StageError};

mod door;

pub use door::{Door, DoorError};

/// Why the node could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The directory is not one that a node can be made in.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// Nobody answers there, or not as the cluster that the token is of.
    #[error("cannot join through {address}")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        source: DoorError,
    },
    /// An attempt that was cut off has left keys that the cluster no longer uses.
    #[error("{0} holds the data key of another cluster, or an old one; empty it and join again")]
    OtherKeys(PathBuf),
    /// The cluster said no.
    #[error("not admitted: {0}")]
    Refused(String),
    /// What it answered makes no sense.
    #[error("the cluster's answer makes no sense")]
    Answer,
    /// The token is none, or no key can be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A key file cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The identity cannot be written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The node cannot be made.
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// Joins the cluster that answers at `address`; afterwards the node can be started.
///
/// # Errors
/// When it cannot; the same command may be given again.
pub async fn join(
    config: &Config,
    address: &str,
    token: &Token,
    votes: bool,
) -> Result<(), JoinError> {
    node::prepare_data_dir(config)?;
    let data_dir = &config.data_dir;
    let source = config.key_source().ok_or(NodeError::KeySource)?;
    if let Stage::Made(_) = Stage::begin(data_dir, Maker::Join)? {
        // All that was left to do.
        return Ok(Stage::finish(data_dir)?);
    }
    // The identity is the last that is written before the store.
    if !Identity::exists(data_dir) {
        let key = join_key(data_dir)?;
        let answer = ask(address, token, &key, config.peers.advertised(), votes).await?;
        let keys = match Keyring::adopt(data_dir, &source, &answer.data_keys) {
            Err(KeyError::Exists(_)) => Keyring::load(data_dir, &source)?,
            keys => keys?,
        };
        // The data key may have been replaced since an attempt that was cut off.
        if !keys.holds(&answer.data_keys)? {
            return Err(JoinError::OtherKeys(data_dir.clone()));
        }
        let cluster = <[u8; 16]>::try_from(&answer.cluster[..]).map_err(|_| JoinError::Answer)?;
        let identity = Identity {
            node: answer.node,
            cluster: ClusterId(cluster),
            authority: answer.authority.to_vec().into(),
            certificate: answer.certificate.to_vec().into(),
            key,
            certified: clock::now(),
            epoch: answer.epoch,
            authority_key: None,
        };
        identity.save(data_dir, &keys)?;
    }
    let identity = Identity::load(data_dir, &Keyring::load(data_dir, &source)?)?;
    Cluster::create_empty(&node::options(config, &identity)?).await.map_err(NodeError::from)?;
    Ok(Stage::finish(data_dir)?)
}

/// The key that the node's certificate will be for; the same one when the join is begun again.
fn join_key(data_dir: &Path) -> Result<PrivateKey, JoinError> {
    let path = stage::join_key(data_dir);
    if path.exists() {
        return Ok(PrivateKey::from_pkcs8(&crate::keys::read_private(&path)?)?);
    }
    let key = PrivateKey::generate()?;
    crate::keys::replace_private(&path, key.pkcs8())?;
    Ok(key)
}

/// Asks the cluster at `address` to admit the node that holds `key`.
async fn ask(
    address: &str,
    token: &Token,
    key: &PrivateKey,
    advertised: String,
    votes: bool,
) -> Result<JoinAnswer, JoinError> {
    let door = Door::knock(address, token).await.map_err(|source| match source {
        DoorError::Pki(error) => JoinError::Pki(error),
        source => JoinError::Connect { address: address.to_owned(), source },
    })?;
    let public_key = key.public_key();
    let proof = door.claim(&public_key).prove(key)?;
    let request = JoinRequest {
        address: advertised,
        public_key: public_key.into(),
        votes,
        proof: proof.into(),
    };
    let answer = door.ask(request).await;
    let answer = answer.map_err(|status| JoinError::Refused(status.message().to_owned()))?;
    if token.is_of(&answer.authority) { Ok(answer) } else { Err(JoinError::Answer) }
}

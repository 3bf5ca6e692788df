//! The first node of a new cluster: empty, or with what a backup holds.
//!
//! Each step leaves something that the same command goes on with. What tells it from a node that has
//! lost its store is a mark that is written before all else (`stage.rs`).

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use watchword_cluster::{Cluster, node_name};
use watchword_core::State;
use watchword_core::command::Found;
use watchword_core::id::ClusterId;
use watchword_core::node::{self as replicated, FOUNDER};

use super::{NodeError, open_keys, options, prepare_data_dir};
use crate::admin::{Admin, NewToken, TokenSpec};
use crate::auth::Authenticator;
use crate::backup::Backup;
use crate::config::Config;
use crate::identity::Identity;
use crate::keys::{KeyError, Keyring, Owner};
use crate::pki::{Authority, PkiError, PrivateKey};
use crate::stage::{Maker, Stage, StageError};
use crate::{clock, random};

/// The token that comes with a new cluster: enough for three nodes.
const FIRST_TOKEN: TokenSpec = TokenSpec { seconds: 3600, uses: 2 };

/// Makes the first node of a new cluster: its data directory, data key, authority and log; and a
/// token for the next nodes.
///
/// # Errors
/// When there is a cluster already, or something cannot be made; then the same command, given again,
/// goes on where it was cut off.
pub async fn init(config: &Config) -> Result<NewToken, NodeError> {
    prepare_data_dir(config)?;
    let source = config.key_source().ok_or(NodeError::KeySource)?;
    let stage = Stage::begin(&config.data_dir, Maker::Init)?;
    let keys = match Keyring::create(&config.data_dir, &source) {
        Err(KeyError::Exists(_)) => open_keys(config, &source).await?,
        created => created.or_else(|error| nothing_begun(config, error))?,
    };
    let identity = own_identity(config, &keys, stage)?;
    let options = options(config, &identity)?;
    let cluster = match stage {
        Stage::Made(_) => Cluster::open(options).await?,
        Stage::Empty | Stage::Begun(_) => {
            Cluster::create(options, config.peers.advertised()).await?
        }
    };
    let token = first_token(config, &identity, &cluster, Arc::new(keys)).await;
    let closed = cluster.shutdown().await;
    let token = token?;
    closed?;
    Stage::finish(&config.data_dir)?;
    Ok(token)
}

/// Founds the cluster in its log, and makes the first token.
async fn first_token(
    config: &Config,
    identity: &Identity,
    cluster: &Cluster,
    keys: Arc<Keyring>,
) -> Result<NewToken, NodeError> {
    let authenticator = Authenticator::new(cluster.clone(), keys.clone());
    let admin = Admin::new(cluster.clone(), keys, authenticator, CancellationToken::new());
    found(config, identity, &admin).await?;
    Ok(admin.create_token(FIRST_TOKEN).await?)
}

/// Makes the first node of a new cluster that begins with what a backup holds; gives the state that
/// it begins with.
///
/// # Errors
/// When there is a node already, or something cannot be made; then the same command, given again,
/// goes on where it was cut off.
pub async fn restore(config: &Config, backup: Backup) -> Result<State, NodeError> {
    prepare_data_dir(config)?;
    let source = config.key_source().ok_or(NodeError::KeySource)?;
    let stage = Stage::begin(&config.data_dir, Maker::Restore)?;
    if let Stage::Made(_) = stage {
        return Err(StageError::Made(config.data_dir.clone()).into());
    }
    let Backup { header, data_keys, state } = backup;
    let keys = match Keyring::adopt(&config.data_dir, &source, &data_keys) {
        Err(KeyError::Exists(path)) => {
            let keys = open_keys(config, &source).await?;
            if !keys.holds(&data_keys)? {
                return Err(KeyError::Exists(path).into());
            }
            keys
        }
        adopted => adopted.or_else(|error| nothing_begun(config, error))?,
    };
    // In the middle of a replacement there are two: the new cluster goes on with it.
    keys.follow(state.data_keys())?;
    let identity = own_identity(config, &keys, stage)?;
    // Under the same id the node would be taken for one that it has forgotten to be.
    let is_of = |authority: &Arc<replicated::Authority>| authority.cluster == identity.cluster;
    if state.nodes().authority().is_some_and(is_of) {
        return Err(NodeError::SameCluster(config.data_dir.clone()));
    }
    let found = founding(config, &identity).ok_or(NodeError::NotFounder)?;
    let state = state.restored(clock::now(), &found);
    let (address, node) = (config.peers.advertised(), identity.node);
    watchword_cluster::create_from(&config.data_dir, node, address, header.index, &state).await?;
    Stage::finish(&config.data_dir)?;
    Ok(state)
}

/// A keyring that cannot be made, most often because of what `[key]` names, leaves nothing to go on
/// with: the mark goes again.
fn nothing_begun(config: &Config, error: KeyError) -> Result<Keyring, NodeError> {
    if !Keyring::exists(&config.data_dir) {
        Stage::finish(&config.data_dir)?;
    }
    Err(error.into())
}

/// The identity in the data directory; a founder's new one if there is none, and no store either.
fn own_identity(config: &Config, keys: &Keyring, stage: Stage) -> Result<Identity, NodeError> {
    let is_made = matches!(stage, Stage::Made(_));
    if !is_made && !Identity::exists(&config.data_dir) {
        new_identity(keys)?.save(&config.data_dir, keys)?;
    }
    Ok(Identity::load(&config.data_dir, keys)?)
}

/// The identity of a founder, with a new authority.
fn new_identity(keys: &Keyring) -> Result<Identity, NodeError> {
    let now = clock::now();
    let cluster = ClusterId(random::bytes().map_err(PkiError::from)?);
    let (authority, authority_key) = Authority::create(cluster, now)?;
    let sealed = keys.seal(Owner::AuthorityKey(cluster), authority_key.pkcs8())?;
    let key = PrivateKey::generate()?;
    let name = node_name(cluster, FOUNDER);
    Ok(Identity {
        node: FOUNDER,
        cluster,
        authority: authority.certificate().clone(),
        certificate: authority.certify(&name, &key.public_key(), now)?,
        key,
        certified: now,
        epoch: 0,
        authority_key: Some(sealed),
    })
}

/// Writes into the log what only the founder knows, unless it is there.
pub(super) async fn found(
    config: &Config,
    identity: &Identity,
    admin: &Admin,
) -> Result<(), NodeError> {
    match founding(config, identity) {
        Some(found) => Ok(admin.found(found).await?),
        None => Ok(()),
    }
}

/// What the founder knows; other nodes do not.
fn founding(config: &Config, identity: &Identity) -> Option<Found> {
    Some(Found {
        authority: replicated::Authority {
            cluster: identity.cluster,
            certificate: identity.authority.to_vec().into(),
            key: identity.authority_key.clone()?,
        },
        address: config.peers.advertised().into(),
        public_key: identity.key.public_key().into(),
    })
}

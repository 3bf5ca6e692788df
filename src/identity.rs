//! Which node this is: its id, its cluster and its certificate, in the data directory.
//!
//! Private keys in it are sealed under the cluster's data key.

use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use watchword_core::id::ClusterId;
use watchword_core::node::NodeId;
use watchword_core::sealed::Sealed;
use watchword_core::time::Timestamp;

use crate::keys::{self, KeyError, Keyring, Owner};
use crate::pki::PrivateKey;

/// Name of the file in the data directory.
const IDENTITY_FILE: &str = "identity.json";

/// Who this node is.
pub struct Identity {
    /// Its id.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The certificate of the cluster's authority.
    pub authority: CertificateDer<'static>,
    /// The node's certificate.
    pub certificate: CertificateDer<'static>,
    /// The key that it is for.
    pub key: PrivateKey,
    /// When it was made.
    pub certified: Timestamp,
    /// The cluster's epoch when the node came to it.
    pub epoch: u64,
    /// The authority's private key, sealed for the cluster; with the founder only, until the log
    /// holds it.
    pub authority_key: Option<Sealed>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("node", &self.node).finish_non_exhaustive()
    }
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    format: u32,
    node: NodeId,
    cluster: String,
    authority: String,
    certificate: String,
    sealed_key: String,
    certified_ms: u64,
    epoch: u64,
    sealed_authority_key: Option<String>,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file is not there.
    #[error("{0} is missing: make a cluster with `init`, or come to one with `join`")]
    Missing(PathBuf),
    /// The file is not one.
    #[error("{0} is damaged or from a newer release")]
    Malformed(PathBuf),
    /// It cannot be read, written, sealed or opened.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl Identity {
    /// Whether there is one in `data_dir`.
    pub fn exists(data_dir: &Path) -> bool {
        data_dir.join(IDENTITY_FILE).exists()
    }

    /// The id of the node whose identity is in `data_dir`: that much is legible without a key.
    ///
    /// # Errors
    /// When it is missing, exposed or malformed.
    pub fn node_in(data_dir: &Path) -> Result<NodeId, IdentityError> {
        Ok(read(&data_dir.join(IDENTITY_FILE))?.node)
    }

    /// Reads the identity in `data_dir`.
    ///
    /// # Errors
    /// When it is missing, exposed, malformed, or sealed under another key.
    pub fn load(data_dir: &Path, keys: &Keyring) -> Result<Self, IdentityError> {
        let path = data_dir.join(IDENTITY_FILE);
        let file = read(&path)?;
        let malformed = || IdentityError::Malformed(path.clone());
        let decode = |text: &str| BASE64.decode(text.as_bytes()).map_err(|_| malformed());
        let cluster = file.cluster.parse().map_err(|_| malformed())?;
        let key = keys.open_bytes(Owner::NodeKey(cluster), &decode(&file.sealed_key)?)?;
        let authority_key = file.sealed_authority_key.as_deref().map(decode).transpose()?;
        Ok(Self {
            node: file.node,
            cluster,
            authority: decode(&file.authority)?.into(),
            certificate: decode(&file.certificate)?.into(),
            key: PrivateKey::from_pkcs8(&key).map_err(|_| malformed())?,
            certified: Timestamp(file.certified_ms),
            epoch: file.epoch,
            authority_key: authority_key.map(|key| Sealed::new(&key)),
        })
    }

    /// Writes it, in the place of the one before, durably.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, data_dir: &Path, keys: &Keyring) -> Result<(), IdentityError> {
        let sealed = keys.seal(Owner::NodeKey(self.cluster), self.key.pkcs8())?;
        let file = IdentityFile {
            format: 1,
            node: self.node,
            cluster: self.cluster.to_string(),
            authority: BASE64.encode(&self.authority),
            certificate: BASE64.encode(&self.certificate),
            sealed_key: BASE64.encode(sealed.as_bytes()),
            certified_ms: self.certified.0,
            epoch: self.epoch,
            sealed_authority_key: self
                .authority_key
                .as_ref()
                .map(|key| BASE64.encode(key.as_bytes())),
        };
        let text = serde_json::to_string_pretty(&file).map_err(|_| KeyError::Seal)? + "\n";
        Ok(keys::replace_private(&data_dir.join(IDENTITY_FILE), text.as_bytes())?)
    }
}

fn read(path: &Path) -> Result<IdentityFile, IdentityError> {
    if !path.exists() {
        return Err(IdentityError::Missing(path.to_owned()));
    }
    let text = keys::read_private(path)?;
    let file: Option<IdentityFile> = serde_json::from_slice(&text).ok();
    let file = file.filter(|file| file.format == 1);
    file.ok_or_else(|| IdentityError::Malformed(path.to_owned()))
}

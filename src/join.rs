//! Joining a cluster with a token: what a node does before it is one.
//!
//! The token's bearer knows the hash of the cluster's authority, so the node that answers can be told
//! from an impostor before anything is shown to it. What comes back, an id, a certificate and the data
//! key, is written before the store is made: a join that is cut off is begun again with the same
//! token and ends as the same node.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::Endpoint;
use watchword_cluster::Cluster;
use watchword_core::id::ClusterId;
use watchword_proto::admission_client::AdmissionClient;
use watchword_proto::{JoinAnswer, JoinRequest};

use crate::clock;
use crate::config::Config;
use crate::identity::{Identity, IdentityError};
use crate::keys::{KeyError, Keyring};
use crate::node::{self, NodeError};
use crate::pki::{PkiError, PrivateKey, Token};

/// How long joining may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// The key of a join that is under way.
const JOIN_KEY_FILE: &str = "join.key";

/// Why the node could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It is a member already.
    #[error("this node belongs to a cluster already; run it: watchword serve")]
    Member,
    /// Nobody answers there, or not as the cluster that the token is of.
    #[error("cannot join through {address}")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
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
    if data_dir.join("raft").exists() {
        return Err(JoinError::Member);
    }
    if !Identity::exists(data_dir) {
        let key = join_key(data_dir)?;
        let request = JoinRequest {
            address: config.peers.advertised(),
            public_key: key.public_key().into(),
            votes,
        };
        let answer = ask(address, token, request).await?;
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
    let path = data_dir.join(JOIN_KEY_FILE);
    std::fs::remove_file(&path).map_err(|source| JoinError::Key(KeyError::File { path, source }))
}

/// The key that the node's certificate will be for; the same one when the join is begun again.
fn join_key(data_dir: &Path) -> Result<PrivateKey, JoinError> {
    let path = data_dir.join(JOIN_KEY_FILE);
    if path.exists() {
        return Ok(PrivateKey::from_pkcs8(&crate::keys::read_private(&path)?)?);
    }
    let key = PrivateKey::generate()?;
    crate::keys::replace_private(&path, key.pkcs8())?;
    Ok(key)
}

async fn ask(address: &str, token: &Token, request: JoinRequest) -> Result<JoinAnswer, JoinError> {
    let failed = |source| JoinError::Connect { address: address.to_owned(), source };
    let config = Arc::new(client(token).map_err(|error| match error {
        ClientError::Pki(error) => JoinError::Pki(error),
        ClientError::Tls(error) => failed(error.into()),
    })?);
    let connector = Connector { address: address.to_owned(), config };
    let channel = Endpoint::from_static("http://peer")
        .timeout(PATIENCE)
        .connect_timeout(PATIENCE)
        .connect_with_connector(connector)
        .await
        .map_err(|error| failed(error.into()))?;
    let answer = AdmissionClient::new(channel).join(request).await;
    let answer = answer.map_err(|status| JoinError::Refused(status.message().to_owned()))?;
    let answer = answer.into_inner();
    if token.is_of(&answer.authority) { Ok(answer) } else { Err(JoinError::Answer) }
}

enum ClientError {
    Pki(PkiError),
    Tls(rustls::Error),
}

/// A TLS client that shows the token and believes only the cluster that it is of.
fn client(token: &Token) -> Result<ClientConfig, ClientError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (certificate, key) = token.certificate().map_err(ClientError::Pki)?;
    let key = PrivateKeyDer::Pkcs8(key.pkcs8().to_vec().into());
    let token: Token = token.text().parse().map_err(ClientError::Pki)?;
    let verifier = Arc::new(Pinned { token, provider: provider.clone() });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(ClientError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(vec![certificate], key)
        .map_err(ClientError::Tls)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Believes a certificate that was signed by the authority whose hash the token holds, whatever
/// node it names.
#[derive(Debug)]
struct Pinned {
    token: Token,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let refused = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let authority = intermediates.iter().find(|one| self.token.is_of(one));
        let authority = authority.ok_or_else(refused)?.clone().into_owned();
        let mut roots = RootCertStore::empty();
        roots.add(authority)?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
                .build()
                .map_err(|_| refused())?;
        let certificate = webpki::EndEntityCert::try_from(end_entity).map_err(|_| refused())?;
        let name = certificate.valid_dns_names().next().ok_or_else(refused)?.to_owned();
        let name = ServerName::try_from(name).map_err(|_| refused())?;
        verifier.verify_server_cert(end_entity, &[], &name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[derive(Clone)]
struct Connector {
    address: String,
    config: Arc<ClientConfig>,
}

impl tower_service::Service<tonic::transport::Uri> for Connector {
    type Response = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, std::io::Error>> + Send>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), std::io::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: tonic::transport::Uri) -> Self::Future {
        let Self { address, config } = self.clone();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            // The name is not known yet; the authority is what counts.
            let name = ServerName::try_from("node").map_err(std::io::Error::other)?;
            Ok(TokioIo::new(TlsConnector::from(config).connect(name, stream).await?))
        })
    }
}

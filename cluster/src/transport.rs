//! Connections between nodes: TLS 1.3, and who is at the other end.
//!
//! Both sides prove who they are with certificates of the cluster's own authority, which name the
//! cluster and the node, so a connection that arrives at the wrong node, or in another cluster, does
//! not come about. The one exception is a node that wants to join: it has no certificate yet and
//! proves that it holds an open token; that gets it to the admission, and to nothing else.

use std::fmt;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, ConnectionCommon, RootCertStore, ServerConfig};
use tokio_rustls::{TlsConnector, client};
use watchword_core::id::{ClusterId, TokenId};

use crate::net::{BoxedStream, Net, Tcp};
use crate::runtime::NodeId;

/// Every name in the cluster's certificates ends so. It is never looked up.
const DOMAIN: &str = "watchword";
const ALPN: &[u8] = b"h2";
/// What the mark of a connection is exported under (RFC 8446 section 7.5).
const MARK_LABEL: &[u8] = b"EXPORTER-watchword-connection";

/// What a node proves itself with.
pub struct Credentials {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The certificate of the cluster's authority.
    pub authority: CertificateDer<'static>,
    /// The node's certificate; its name is [`node_name`].
    pub certificate: CertificateDer<'static>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("node", &self.node).finish_non_exhaustive()
    }
}

/// The name that certifies `node` of `cluster`.
pub fn node_name(cluster: ClusterId, node: NodeId) -> String {
    format!("node-{node}.{cluster}.{DOMAIN}")
}

/// The node that `name` certifies, if it is of `cluster`.
pub(crate) fn named_node(cluster: ClusterId, name: &str) -> Option<NodeId> {
    let rest = name.strip_suffix(DOMAIN)?.strip_suffix('.')?;
    let (node, of) = rest.strip_prefix("node-")?.split_once('.')?;
    let node = node.parse().ok()?;
    (of.parse() == Ok(cluster) && node_name(cluster, node) == name).then_some(node)
}

/// Who called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A node with a certificate of this cluster.
    Node(NodeId),
    /// Somebody who holds a token.
    Token(Bearer),
}

/// Who holds a token, and by which connection he has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// The token.
    pub token: TokenId,
    /// The connection.
    pub connection: ConnectionMark,
}

/// What only the two ends of one TLS connection know of it, and no other connection has. Whoever
/// signs it shows that he signs here and now.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ConnectionMark(pub [u8; 32]);

impl fmt::Debug for ConnectionMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionMark(..)")
    }
}

impl ConnectionMark {
    /// The mark of a connection whose handshake is done.
    ///
    /// # Errors
    /// Before that.
    pub fn of<Data>(connection: &ConnectionCommon<Data>) -> Result<Self, rustls::Error> {
        connection.export_keying_material([0; 32], MARK_LABEL, None).map(Self)
    }
}

/// The credentials are of no use.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// TLS does not take them.
    #[error("the node's certificate or key cannot be used")]
    Tls(#[from] rustls::Error),
    /// The authority's certificate is none.
    #[error("the certificate of the cluster's authority cannot be used")]
    Authority(#[source] rustls::server::VerifierBuilderError),
}

/// How this node reaches others, and what it shows to those who reach it. Clones share it.
#[derive(Clone)]
pub struct Transport {
    net: Arc<dyn Net>,
    cluster: ClusterId,
    members: Arc<dyn ClientCertVerifier>,
    tls: Arc<ArcSwap<Tls>>,
}

struct Tls {
    client: Arc<ClientConfig>,
    certificate: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Transport {
    /// A transport of the node that `credentials` are of, over TCP.
    ///
    /// # Errors
    /// When they are of no use.
    pub fn new(credentials: Credentials) -> Result<Self, TransportError> {
        Self::over(Arc::new(Tcp), credentials)
    }

    /// A transport over another network than the real one.
    ///
    /// # Errors
    /// As [`Transport::new`].
    pub fn over(net: Arc<dyn Net>, credentials: Credentials) -> Result<Self, TransportError> {
        let mut roots = RootCertStore::empty();
        roots.add(credentials.authority.clone())?;
        let roots = Arc::new(roots);
        let members = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(TransportError::Authority)?;
        let cluster = credentials.cluster;
        let tls = Arc::new(ArcSwap::from_pointee(Tls::new(roots, credentials)?));
        Ok(Self { net, cluster, members, tls })
    }

    /// Shows `credentials` from the next connection on; those that stand are not disturbed.
    ///
    /// # Errors
    /// When they are of no use; then nothing changes.
    pub fn renew(&self, credentials: Credentials) -> Result<(), TransportError> {
        let renewed = Self::over(self.net.clone(), credentials)?;
        self.tls.store(renewed.tls.load_full());
        Ok(())
    }

    /// Connects to `node` at `address`.
    pub(crate) async fn connect(
        &self,
        address: &str,
        node: NodeId,
    ) -> io::Result<client::TlsStream<BoxedStream>> {
        let name = ServerName::try_from(node_name(self.cluster, node)).map_err(io::Error::other)?;
        let stream = self.net.connect(address).await?;
        let connector = TlsConnector::from(self.tls.load().client.clone());
        connector.connect(name, stream).await
    }

    /// Whether `node` answers at `address`, as far as the handshake.
    ///
    /// # Errors
    /// When it does not, or is another node, or does not know this one.
    pub async fn reaches(&self, address: &str, node: NodeId) -> io::Result<()> {
        use tokio::io::AsyncReadExt;
        let mut stream = self.connect(address, node).await?;
        // TLS 1.3: a refusal of our certificate comes after our side of the handshake is done. A
        // server that takes it sends HTTP/2's settings.
        stream.read_u8().await.map(drop)
    }

    /// The cluster whose members it connects.
    pub(crate) fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// What verifies the certificates of members.
    pub(crate) fn members(&self) -> Arc<dyn ClientCertVerifier> {
        self.members.clone()
    }

    /// What the peer port shows and demands.
    pub(crate) fn server(
        &self,
        doorman: Arc<dyn ClientCertVerifier>,
    ) -> Result<ServerConfig, rustls::Error> {
        let tls = self.tls.load();
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(doorman)
            .with_single_cert(tls.certificate.clone(), tls.key.clone_key())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }
}

impl Tls {
    fn new(roots: Arc<RootCertStore>, credentials: Credentials) -> Result<Self, rustls::Error> {
        // The authority's certificate goes along: a node that wants to join knows only its hash.
        let certificate = vec![credentials.certificate, credentials.authority];
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificate.clone(), credentials.key.clone_key())?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { client: Arc::new(client), certificate, key: credentials.key })
    }
}

/// The only provider of cryptography.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

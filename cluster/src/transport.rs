//! Connections between nodes: TCP, TLS 1.3, and who is at the other end.
//!
//! Both sides prove who they are with certificates of the cluster's own authority, which name the
//! cluster and the node, so a connection that arrives at the wrong node, or in another cluster, does
//! not come about. The one exception is a node that wants to join: it has no certificate yet and
//! proves that it holds an open token; that gets it to the admission, and to nothing else.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use openraft::type_config::TypeConfigExt;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tonic::transport::server::Connected;
use watchword_core::id::{ClusterId, TokenId};
use webpki::EndEntityCert;

use crate::Cluster;
use crate::runtime::{Instant, NodeId, TypeConfig};

/// Every name in the cluster's certificates ends so. It is never looked up.
const DOMAIN: &str = "watchword";
const ALPN: &[u8] = b"h2";
/// Handshakes under way at once; more wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 64;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Connections that wait to be served.
const ACCEPTED_MAX: usize = 16;

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
fn named_node(cluster: ClusterId, name: &str) -> Option<NodeId> {
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
    Token(TokenId),
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
    /// A transport of the node that `credentials` are of.
    ///
    /// # Errors
    /// When they are of no use.
    pub fn new(credentials: Credentials) -> Result<Self, TransportError> {
        let mut roots = RootCertStore::empty();
        roots.add(credentials.authority.clone())?;
        let roots = Arc::new(roots);
        let members = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(TransportError::Authority)?;
        let cluster = credentials.cluster;
        let tls = Arc::new(ArcSwap::from_pointee(Tls::new(roots, credentials)?));
        Ok(Self { cluster, members, tls })
    }

    /// Shows `credentials` from the next connection on; those that stand are not disturbed.
    ///
    /// # Errors
    /// When they are of no use; then nothing changes.
    pub fn renew(&self, credentials: Credentials) -> Result<(), TransportError> {
        let renewed = Self::new(credentials)?;
        self.tls.store(renewed.tls.load_full());
        Ok(())
    }

    /// Connects to `node` at `address`.
    pub(crate) async fn connect(
        &self,
        address: &str,
        node: NodeId,
    ) -> io::Result<client::TlsStream<TcpStream>> {
        let name = ServerName::try_from(node_name(self.cluster, node)).map_err(io::Error::other)?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
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

    /// What the peer port shows and demands.
    fn server(&self, doorman: Arc<Doorman>) -> Result<ServerConfig, rustls::Error> {
        let tls = self.tls.load();
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(doorman)
            .with_single_cert(tls.certificate.clone(), tls.key.clone_key())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }

    /// Takes in connections from `listener` for as long as somebody wants them.
    pub(crate) fn accept(
        &self,
        cluster: &Cluster,
        listener: TcpListener,
    ) -> mpsc::Receiver<io::Result<PeerStream>> {
        let (accepted, streams) = mpsc::channel(ACCEPTED_MAX);
        drop(TypeConfig::spawn(accept(self.clone(), cluster.clone(), listener, accepted)));
        streams
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

async fn accept(
    transport: Transport,
    cluster: Cluster,
    listener: TcpListener,
    accepted: mpsc::Sender<io::Result<PeerStream>>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let strangers = Arc::new(Strangers::default());
    loop {
        // The semaphore is never closed.
        let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
        let (stream, source) = tokio::select! {
            () = accepted.closed() => return,
            next = listener.accept() => match next {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection from a peer");
                    TypeConfig::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (transport, cluster, accepted) = (transport.clone(), cluster.clone(), accepted.clone());
        let strangers = strangers.clone();
        drop(TypeConfig::spawn(async move {
            let handshake = TypeConfig::timeout(HANDSHAKE, shake(&transport, &cluster, stream));
            match handshake.await {
                Ok(Ok(stream)) => drop(accepted.send(Ok(stream)).await),
                Ok(Err(error)) => strangers.report(source, &error),
                Err(_) => strangers.report(source, &io::ErrorKind::TimedOut.into()),
            }
            drop(permit);
        }));
    }
}

async fn shake(
    transport: &Transport,
    cluster: &Cluster,
    stream: TcpStream,
) -> io::Result<PeerStream> {
    stream.set_nodelay(true)?;
    let doorman = Arc::new(Doorman {
        members: transport.members.clone(),
        cluster: cluster.clone(),
        id: transport.cluster,
    });
    let config = transport.server(doorman.clone()).map_err(io::Error::other)?;
    let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let caller = shown
        .and_then(|shown| doorman.caller(shown))
        .ok_or_else(|| io::Error::other("the certificate is neither a node's nor a token's"))?;
    Ok(PeerStream { stream, caller })
}

/// Lets in who has a certificate of the cluster, or holds an open token.
struct Doorman {
    members: Arc<dyn ClientCertVerifier>,
    cluster: Cluster,
    id: ClusterId,
}

impl fmt::Debug for Doorman {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doorman").finish_non_exhaustive()
    }
}

impl Doorman {
    /// Whose `certificate` is, after a handshake.
    fn caller(&self, certificate: &CertificateDer<'_>) -> Option<Caller> {
        let now = UnixTime::since_unix_epoch(Duration::from_millis((self.cluster.inner.clock)().0));
        // The names in a certificate count only if our authority has signed it.
        if self.members.verify_client_cert(certificate, &[], now).is_ok() {
            let certificate = EndEntityCert::try_from(certificate).ok()?;
            let node = certificate.valid_dns_names().find_map(|name| named_node(self.id, name))?;
            return Some(Caller::Node(node));
        }
        self.token(certificate).map(Caller::Token)
    }

    /// The open token whose key `certificate` is of. Whoever signed it: the handshake proves that
    /// the caller holds the key.
    fn token(&self, certificate: &CertificateDer<'_>) -> Option<TokenId> {
        let certificate = EndEntityCert::try_from(certificate).ok()?;
        let state = self.cluster.state();
        let (id, _) = state.nodes().token_of(&certificate.subject_public_key_info())?;
        Some(id)
    }
}

impl ClientCertVerifier for Doorman {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match self.members.verify_client_cert(certificate, intermediates, now) {
            Err(_) if self.token(certificate).is_some() => Ok(ClientCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.members.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.members.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.members.supported_verify_schemes()
    }
}

/// A connection whose other end has proved who it is.
pub(crate) struct PeerStream {
    stream: server::TlsStream<TcpStream>,
    caller: Caller,
}

impl Connected for PeerStream {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller
    }
}

impl tokio::io::AsyncRead for PeerStream {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl tokio::io::AsyncWrite for PeerStream {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Tells of those who are turned away, once a second at most: anybody can knock.
#[derive(Default)]
struct Strangers {
    last: Mutex<Option<(Instant, u64)>>,
}

impl Strangers {
    fn report(&self, source: SocketAddr, error: &io::Error) {
        let now = TypeConfig::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *last {
            Some((told, suppressed)) if now < *told + Duration::from_secs(1) => *suppressed += 1,
            last => {
                let suppressed = last.map_or(0, |(_, suppressed)| suppressed);
                *last = Some((now, 0));
                tracing::warn!(%source, %error, suppressed, "turned away at the peer port");
            }
        }
    }
}

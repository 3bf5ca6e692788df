//! The admission of a cluster as it is seen from outside: one connection that shows a token.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
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
use tokio_rustls::client::TlsStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};
use watchword_cluster::ConnectionMark;
use watchword_proto::admission_client::AdmissionClient;
use watchword_proto::{JoinAnswer, JoinRequest};

use crate::pki::{HASH_BYTES, PkiError, Token};
use crate::possession::Claim;

/// How long the connection, and the answer, may take each.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why nobody is asked, or nobody answers.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The token is of no use.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The connection does not come about: nobody is there, or not who the token says.
    #[error(transparent)]
    Connect(#[from] io::Error),
    /// HTTP/2 does not begin.
    #[error(transparent)]
    Begin(#[from] tonic::transport::Error),
}

/// A connection to a node that can admit.
#[derive(Debug)]
pub struct Door {
    client: AdmissionClient<Channel>,
    token: Vec<u8>,
    authority: [u8; HASH_BYTES],
    connection: ConnectionMark,
}

impl Door {
    /// Connects to the node at `address`, which must be of the cluster that `token` is of.
    ///
    /// # Errors
    /// When it is not, or is not there.
    pub async fn knock(address: &str, token: &Token) -> Result<Self, DoorError> {
        let public_key = token.key()?.public_key();
        let config = Arc::new(client(token)?);
        let connecting = tokio::time::timeout(PATIENCE, connect(address, config));
        let stream = connecting.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let connection = ConnectionMark::of(stream.get_ref().1)?;
        let channel = Endpoint::from_static("http://peer")
            .timeout(PATIENCE)
            .connect_with_connector(Connected(Some(stream)))
            .await?;
        let client = AdmissionClient::new(channel);
        Ok(Self { client, token: public_key, authority: token.authority_hash(), connection })
    }

    /// What a node with this key claims when it asks here.
    pub fn claim<'a>(&'a self, public_key: &'a [u8]) -> Claim<'a> {
        Claim {
            token: &self.token,
            authority: self.authority,
            connection: self.connection.0,
            public_key,
        }
    }

    /// Asks for a place in the cluster.
    ///
    /// # Errors
    /// When the cluster says no.
    pub async fn ask(mut self, request: JoinRequest) -> Result<JoinAnswer, Status> {
        Ok(self.client.join(request).await?.into_inner())
    }
}

async fn connect(address: &str, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    // The name is not known yet; the authority is what counts.
    let name = ServerName::try_from("node").map_err(io::Error::other)?;
    TlsConnector::from(config).connect(name, stream).await
}

/// A TLS client that shows the token and believes only the cluster that it is of.
fn client(token: &Token) -> Result<ClientConfig, DoorError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (certificate, key) = token.certificate().map_err(DoorError::Pki)?;
    let key = PrivateKeyDer::Pkcs8(key.pkcs8().to_vec().into());
    let token: Token = token.text().parse().map_err(DoorError::Pki)?;
    let verifier = Arc::new(Pinned { token, provider: provider.clone() });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(DoorError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(vec![certificate], key)
        .map_err(DoorError::Tls)?;
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

/// The connection, handed out once: what was signed for it is good for no other.
struct Connected(Option<TlsStream<TcpStream>>);

impl tower_service::Service<Uri> for Connected {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let stream = self.0.take().map(TokioIo::new);
        std::future::ready(stream.ok_or_else(|| io::ErrorKind::ConnectionAborted.into()))
    }
}

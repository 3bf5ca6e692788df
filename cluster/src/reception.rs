//! The peer port: who is let in, as a node or with an open token.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::alias::JoinHandleOf;
use openraft::type_config::TypeConfigExt;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::{TlsAcceptor, server};
use tonic::transport::server::Connected;
use watchword_core::id::{ClusterId, TokenId};
use webpki::EndEntityCert;

use crate::Cluster;
use crate::net::{BoxedStream, Listener};
use crate::runtime::{Instant, TypeConfig};
use crate::transport::{Bearer, Caller, ConnectionMark, Transport, named_node};

/// Handshakes under way at once; more wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 64;
/// Handshakes under way with one IPv4 address or one IPv6 network: nobody alone can hold the door shut.
const HANDSHAKES_PER_SOURCE: usize = 8;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Connections that wait to be served.
const ACCEPTED_MAX: usize = 16;

/// Takes in connections from `listener` for as long as somebody wants them. The task ends, and the
/// listener is closed, right after nobody does.
pub(crate) fn receive(
    transport: Transport,
    cluster: Cluster,
    listener: impl Listener,
) -> (mpsc::Receiver<io::Result<PeerStream>>, JoinHandleOf<TypeConfig, ()>) {
    let (accepted, streams) = mpsc::channel(ACCEPTED_MAX);
    (streams, TypeConfig::spawn(accept(transport, cluster, listener, accepted)))
}

async fn accept(
    transport: Transport,
    cluster: Cluster,
    mut listener: impl Listener,
    accepted: mpsc::Sender<io::Result<PeerStream>>,
) {
    let visitors = Arc::new(Visitors::default());
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let strangers = Arc::new(Strangers::default());
    loop {
        let permit = tokio::select! {
            () = accepted.closed() => return,
            permit = handshakes.clone().acquire_owned() => permit,
        };
        // The semaphore is never closed.
        let Ok(permit) = permit else { return };
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
        let Some(visit) = visitors.enter(source.ip()) else {
            strangers.report(source, &io::Error::other("too many handshakes at once"));
            continue;
        };
        drop(TypeConfig::spawn(async move {
            let handshake = TypeConfig::timeout(HANDSHAKE, shake(&transport, &cluster, stream));
            match handshake.await {
                Ok(Ok(stream)) => drop(accepted.send(Ok(stream)).await),
                Ok(Err(error)) => strangers.report(source, &error),
                Err(_) => strangers.report(source, &io::ErrorKind::TimedOut.into()),
            }
            drop((visit, permit));
        }));
    }
}

async fn shake(
    transport: &Transport,
    cluster: &Cluster,
    stream: BoxedStream,
) -> io::Result<PeerStream> {
    let doorman = Arc::new(Doorman {
        members: transport.members(),
        cluster: cluster.clone(),
        id: transport.cluster(),
    });
    let config = transport.server(doorman.clone()).map_err(io::Error::other)?;
    let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
    let tls = stream.get_ref().1;
    let mark = ConnectionMark::of(tls).map_err(io::Error::other)?;
    let shown = tls.peer_certificates().and_then(|chain| chain.first());
    let caller = shown
        .and_then(|shown| doorman.caller(shown, mark))
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
    /// Whose `certificate` is, after the handshake of a connection.
    fn caller(
        &self,
        certificate: &CertificateDer<'_>,
        connection: ConnectionMark,
    ) -> Option<Caller> {
        let now = UnixTime::since_unix_epoch(Duration::from_millis((self.cluster.inner.clock)().0));
        // The names in a certificate count only if our authority has signed it.
        if self.members.verify_client_cert(certificate, &[], now).is_ok() {
            let certificate = EndEntityCert::try_from(certificate).ok()?;
            let node = certificate.valid_dns_names().find_map(|name| named_node(self.id, name))?;
            return Some(Caller::Node(node));
        }
        let token = self.token(certificate)?;
        Some(Caller::Token(Bearer { token, connection }))
    }

    /// The open token whose key `certificate` is of. Whoever signed it: the handshake proves that
    /// the caller holds the key.
    fn token(&self, certificate: &CertificateDer<'_>) -> Option<TokenId> {
        let certificate = EndEntityCert::try_from(certificate).ok()?;
        let key = certificate.subject_public_key_info();
        self.cluster.look(|state| state.nodes().token_of(&key).map(|(id, _)| id))
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
    stream: server::TlsStream<BoxedStream>,
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

/// The handshakes under way, by subscriber.
#[derive(Default)]
struct Visitors {
    by_source: Mutex<HashMap<IpAddr, usize>>,
}

/// One of them.
struct Visit {
    visitors: Arc<Visitors>,
    source: IpAddr,
}

impl Visitors {
    /// One more from `source`, unless there are too many of the same subscriber.
    fn enter(self: &Arc<Self>, source: IpAddr) -> Option<Visit> {
        let source = subscriber(source);
        let mut by_source = self.by_source.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_source.entry(source).or_default();
        if *count >= HANDSHAKES_PER_SOURCE {
            return None;
        }
        *count += 1;
        Some(Visit { visitors: self.clone(), source })
    }
}

/// What one subscriber has: an IPv4 address, or the IPv6 network of 64 bits in which it may take any address.
fn subscriber(address: IpAddr) -> IpAddr {
    const NETWORK: u128 = !0 << 64;
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut by_source = self.visitors.by_source.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_source.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                by_source.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_hold_the_door_shut() {
        let visitors = Arc::new(Visitors::default());
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (busy, same, other) in [
            ("10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"),
            ("2001:db8::1", "2001:db8::ffff:1:2", "2001:db8:0:1::1"),
        ] {
            let (busy, same, other) = (address(busy), address(same), address(other));
            assert_shut_to_one(&visitors, busy, same, other);
        }
    }

    fn assert_shut_to_one(visitors: &Arc<Visitors>, busy: IpAddr, same: IpAddr, other: IpAddr) {
        let visits: Vec<_> = (0..HANDSHAKES_PER_SOURCE).map(|_| visitors.enter(busy)).collect();
        assert!(visits.iter().all(Option::is_some) && visitors.enter(same).is_none());
        assert!(visitors.enter(other).is_some());
        drop(visits);
        assert!(visitors.enter(busy).is_some());
        assert!(visitors.by_source.lock().expect("sound").is_empty(), "nobody is left");
    }
}

//! One connection to one LDAP server: TCP, TLS where it is wanted, and a relay that lets nothing through to the
//! library but messages.
//!
//! ```text
//!   ldap3 ── socket pair ── relay (checks what comes) ── TLS ── TCP ── server
//! ```

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, LdapError, StdStream};
use rustls::ClientConfig;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use watchword_core::directory::{LdapServer, Security};

use super::message::{self, MESSAGE_BYTES_MAX, MessageError};

/// `LDAPMessage {1, ExtendedRequest {StartTLS}}` (RFC 4511 section 4.14.1).
const START_TLS: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";
/// Octets read at a time.
const CHUNK: usize = 16 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// TCP or TLS cannot be set up.
    #[error("no connection")]
    Io(#[from] io::Error),
    /// The server does not go over to TLS.
    #[error("the server refuses StartTLS")]
    StartTlsRefused,
    /// What it says is not LDAP.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// Its name cannot be in a certificate.
    #[error("{0:?} cannot be the name of a server")]
    Name(Arc<str>, #[source] InvalidDnsNameError),
    /// The library refuses.
    #[error(transparent)]
    Library(#[from] LdapError),
}

/// Connects. There is no limit of time.
pub(super) async fn connect(
    server: &LdapServer,
    tls: &Arc<ClientConfig>,
) -> Result<Ldap, ConnectError> {
    let mut tcp = TcpStream::connect((&*server.host, server.port)).await?;
    tcp.set_nodelay(true)?;
    match server.security {
        Security::None => hand_over(tcp).await,
        Security::Tls => hand_over(secure(server, tls, tcp).await?).await,
        Security::StartTls => {
            start_tls(&mut tcp).await?;
            hand_over(secure(server, tls, tcp).await?).await
        }
    }
}

async fn secure(
    server: &LdapServer,
    tls: &Arc<ClientConfig>,
    tcp: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ConnectError> {
    let name = match server.host.parse::<IpAddr>() {
        Ok(address) => ServerName::from(address),
        Err(_) => ServerName::try_from(server.host.to_string())
            .map_err(|error| ConnectError::Name(server.host.clone(), error))?,
    };
    Ok(TlsConnector::from(tls.clone()).connect(name, tcp).await?)
}

/// Asks for TLS. Nothing may follow the answer in the clear: it could be anybody's.
async fn start_tls(tcp: &mut TcpStream) -> Result<(), ConnectError> {
    tcp.write_all(START_TLS).await?;
    let mut octets = Vec::new();
    let length = loop {
        if let Some(length) = message::length(&octets)? {
            break length;
        }
        if tcp.read_buf(&mut octets).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    };
    if octets.len() > length {
        return Err(MessageError::Malformed.into());
    }
    message::check(&octets)?;
    match message::is_extended_success(&octets) {
        true => Ok(()),
        false => Err(ConnectError::StartTlsRefused),
    }
}

/// Gives the library its end of a socket pair, and relays between the other end and the server until one of
/// them ends.
async fn hand_over<S>(server: S) -> Result<Ldap, ConnectError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let ours = UnixStream::from_std(ours)?;
    tokio::spawn(async move {
        if let Err(error) = relay(server, ours).await {
            tracing::debug!(error = %error, "an LDAP connection has ended");
        }
    });
    let settings = LdapConnSettings::new().set_std_stream(StdStream::Unix(theirs));
    let (connection, ldap) = LdapConnAsync::with_settings(settings, "ldapi:///").await?;
    tokio::spawn(async move {
        // Whoever waits for an answer is told that the connection is closed.
        let _ = connection.drive().await;
    });
    Ok(ldap)
}

async fn relay<S>(server: S, library: UnixStream) -> Result<(), ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (from_server, mut to_server) = tokio::io::split(server);
    let (mut from_library, to_library) = library.into_split();
    tokio::select! {
        asked = tokio::io::copy(&mut from_library, &mut to_server) => {
            asked?;
            Ok(to_server.shutdown().await?)
        }
        answered = let_through(from_server, to_library) => answered,
    }
}

/// Passes messages on, and ends at the first thing that is none.
async fn let_through(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> Result<(), ConnectError> {
    let mut octets = bytes::BytesMut::with_capacity(CHUNK);
    loop {
        let checked = match cfg!(mutant = "relay_unchecked") {
            true => octets.len(),
            false => checked(&octets)?,
        };
        to.write_all(&octets.split_to(checked)).await?;
        // No more than one message is ever incomplete.
        octets.reserve(CHUNK.min(MESSAGE_BYTES_MAX));
        if from.read_buf(&mut octets).await? == 0 {
            return Ok(());
        }
    }
}

/// How many of `octets`, from the first on, are whole messages that may be let through.
fn checked(octets: &[u8]) -> Result<usize, MessageError> {
    let mut checked = 0;
    while let Some(length) = message::length(octets.get(checked..).unwrap_or_default())? {
        message::check(octets.get(checked..checked + length).unwrap_or_default())?;
        checked += length;
    }
    Ok(checked)
}

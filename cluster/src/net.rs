//! The network below TLS: TCP, or what a simulation puts in its place.

use std::io;
use std::net::SocketAddr;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A connection, in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection of whatever kind.
pub type BoxedStream = Box<dyn Stream>;

/// Makes connections.
pub trait Net: Send + Sync {
    /// Connects to `address`, a host and a port.
    ///
    /// # Errors
    /// When nobody answers there.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxedStream>>;
}

/// Takes connections in.
pub trait Listener: Send + 'static {
    /// The next one, and where it comes from.
    ///
    /// # Errors
    /// When it could not be taken in; the next one perhaps can.
    fn accept(&mut self) -> impl Future<Output = io::Result<(BoxedStream, SocketAddr)>> + Send;
}

/// The real network.
#[derive(Clone, Copy, Debug)]
pub struct Tcp;

impl Net for Tcp {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(async move { boxed(TcpStream::connect(address).await?) })
    }
}

impl Listener for TcpListener {
    async fn accept(&mut self) -> io::Result<(BoxedStream, SocketAddr)> {
        let (stream, source) = Self::accept(self).await?;
        Ok((boxed(stream)?, source))
    }
}

/// What is sent is small and waited for.
fn boxed(stream: TcpStream) -> io::Result<BoxedStream> {
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

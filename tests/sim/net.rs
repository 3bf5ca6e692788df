//! The product's network between nodes, on the simulated one.

use std::io;
use std::net::SocketAddr;

use futures::future::BoxFuture;
use turmoil::net::{TcpListener, TcpStream};
use watchword_cluster::net::{BoxedStream, Listener, Net};

/// Connects through the simulation.
pub(crate) struct SimulatedNet;

impl Net for SimulatedNet {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(async move {
            let (host, port) = address.rsplit_once(':').ok_or(io::ErrorKind::InvalidInput)?;
            let port: u16 = port.parse().map_err(io::Error::other)?;
            Ok(Box::new(TcpStream::connect((host, port)).await?) as BoxedStream)
        })
    }
}

/// Takes connections in from the simulation.
pub(crate) struct SimulatedListener(pub(crate) TcpListener);

impl Listener for SimulatedListener {
    async fn accept(&mut self) -> io::Result<(BoxedStream, SocketAddr)> {
        let (stream, source) = self.0.accept().await?;
        Ok((Box::new(stream), source))
    }
}

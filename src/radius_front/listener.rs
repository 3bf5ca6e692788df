//! The sockets.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::exchange::{Exchanges, Received};
use crate::radius::packet::PACKET_BYTES_MAX;
use crate::throttle;

/// Octets that the kernel may hold for us: a burst must not be lost while a core is busy.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Datagrams taken in a row before other tasks get a turn.
const BURST: usize = 64;

/// A bound socket that is not yet served.
pub struct Listener {
    socket: Arc<UdpSocket>,
    number: u16,
}

impl Listener {
    /// Binds `address`. `number` tells the node's sockets apart.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(address: SocketAddr, number: u16) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            // One socket per family: an operator who wants both names both.
            socket.set_only_v6(true)?;
        }
        // The kernel clamps these to its own limits, which is all right.
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(Self { socket: Arc::new(UdpSocket::from_std(socket.into())?), number })
    }

    /// The address, with the port that the system chose if none was asked for.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Receives until `stop`; requests under way are tracked by `tasks`.
    pub async fn serve(
        self,
        exchanges: Arc<Exchanges>,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) {
        let mut buffer = [0; PACKET_BYTES_MAX];
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                ready = self.socket.readable() => {
                    if let Err(error) = ready {
                        tracing::error!(%error, "the RADIUS socket failed");
                        return;
                    }
                }
            }
            for _ in 0..BURST {
                match self.socket.try_recv_from(&mut buffer) {
                    Ok((length, source)) => {
                        let datagram = buffer.get(..length).unwrap_or_default();
                        self.handle(&exchanges, &tasks, datagram, source);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // An earlier reply met a closed port; that is its receiver's trouble.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(error) => {
                        throttle::once_a_second("radius_receive", |suppressed| {
                            tracing::error!(%error, suppressed, "cannot receive RADIUS");
                        });
                        break;
                    }
                }
            }
            tokio::task::yield_now().await;
        }
    }

    fn handle(
        &self,
        exchanges: &Arc<Exchanges>,
        tasks: &TaskTracker,
        datagram: &[u8],
        source: SocketAddr,
    ) {
        match exchanges.receive(datagram, source, self.number) {
            Received::Dropped => {}
            Received::Answer(reply) => {
                // Nothing is kept for a copy's answer: the client asks again.
                send_now(&self.socket, &reply, source);
            }
            Received::Pending(pending) => {
                let (exchanges, socket) = (exchanges.clone(), self.socket.clone());
                tasks.spawn(async move {
                    if let Some(reply) = exchanges.answer(pending).await
                        && !send_now(&socket, &reply, source)
                    {
                        send(&socket, &reply, source).await;
                    }
                });
            }
        }
    }
}

/// Sends without waiting; false when the socket's buffer is full.
fn send_now(socket: &UdpSocket, reply: &[u8], to: SocketAddr) -> bool {
    match socket.try_send_to(reply, to) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        sent => {
            report(sent, to);
            true
        }
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], to: SocketAddr) {
    report(socket.send_to(reply, to).await, to);
}

/// A lost reply is the protocol's ordinary fate: the client asks again.
fn report(sent: io::Result<usize>, to: SocketAddr) {
    if let Err(error) = sent {
        throttle::once_a_second("radius_send", |suppressed| {
            tracing::warn!(%error, %to, suppressed, "cannot send a RADIUS reply");
        });
    }
}

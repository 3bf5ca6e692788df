//! One socket to a RADIUS server, and who waits for an answer on it.
//!
//! A socket carries 256 requests at a time, told apart by their identifiers (RFC 2865 section 3). An identifier that
//! becomes free is used again as late as possible.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use watchword_core::client::Requirement;

use crate::clock;
use crate::radius::attribute::AttributeType;
use crate::radius::packet::{PACKET_BYTES_MAX, Packet};
use crate::radius::request::{MessageAuthenticatorRule, SentRequest};
use crate::radius::secret::Secret;
use crate::throttle;

/// A socket.
pub(super) struct Link {
    pub(super) socket: Arc<UdpSocket>,
    waiting: Arc<Mutex<Waiting>>,
    receiver: AbortHandle,
}

/// An identifier on a link, for as long as it is kept.
pub(super) struct Slot {
    pub(super) link: Arc<Link>,
    pub(super) identifier: u8,
}

/// Who waits, by identifier.
struct Waiting {
    free: VecDeque<u8>,
    waiters: Vec<Option<Waiter>>,
}

struct Waiter {
    sent: SentRequest,
    reply: oneshot::Sender<io::Result<Vec<u8>>>,
}

/// What tells a reply from a forgery, and when the last one came.
pub(super) struct Proof {
    pub(super) secret: Secret,
    pub(super) require_message_authenticator: Requirement,
    /// Whether the server has been seen to sign an answer that need not be signed.
    pub(super) signs: AtomicBool,
    /// On the clock that never jumps, in milliseconds.
    pub(super) heard: AtomicU64,
}

impl Proof {
    /// Whether `reply` must be signed: with EAP always (RFC 3579 section 3.2), so that it shows nothing.
    fn rule(&self, reply: &Packet<'_>) -> MessageAuthenticatorRule {
        let signs = self.signs.load(Ordering::Relaxed);
        let is_required = self.require_message_authenticator.in_force(signs)
            || reply.first(AttributeType::EAP_MESSAGE).is_some();
        match is_required {
            true => MessageAuthenticatorRule::Required,
            false => MessageAuthenticatorRule::Optional,
        }
    }
}

impl Link {
    /// A socket of its own port, from which `server` is asked.
    pub(super) async fn open(server: SocketAddr, proof: Arc<Proof>) -> io::Result<Self> {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => ([0; 4], 0).into(),
            SocketAddr::V6(_) => ([0u16; 8], 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        // Nothing from anywhere else is received then, and a closed port is reported.
        socket.connect(server).await?;
        let socket = Arc::new(socket);
        let waiters = std::iter::repeat_with(|| None).take(256).collect();
        let waiting = Arc::new(Mutex::new(Waiting { free: (0..=255).collect(), waiters }));
        let receiver = tokio::spawn(receive(socket.clone(), waiting.clone(), proof));
        Ok(Self { socket, waiting, receiver: receiver.abort_handle() })
    }

    /// An identifier that nobody waits for, if there is one.
    pub(super) fn slot(self: &Arc<Self>) -> Option<Slot> {
        let identifier = lock(&self.waiting).free.pop_front()?;
        Some(Slot { link: self.clone(), identifier })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.receiver.abort();
    }
}

impl Slot {
    /// Waits for the reply to `sent`.
    pub(super) fn expect(&self, sent: SentRequest) -> oneshot::Receiver<io::Result<Vec<u8>>> {
        let (reply, receiver) = oneshot::channel();
        let mut waiting = lock(&self.link.waiting);
        if let Some(waiter) = waiting.waiters.get_mut(usize::from(self.identifier)) {
            *waiter = Some(Waiter { sent, reply });
        }
        receiver
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut waiting = lock(&self.link.waiting);
        if let Some(waiter) = waiting.waiters.get_mut(usize::from(self.identifier)) {
            *waiter = None;
        }
        waiting.free.push_back(self.identifier);
    }
}

/// Hands replies to those who wait for them. Whatever is no reply to what was asked, by somebody who knows the
/// secret, counts as nothing received.
async fn receive(socket: Arc<UdpSocket>, waiting: Arc<Mutex<Waiting>>, proof: Arc<Proof>) {
    let mut buffer = [0; PACKET_BYTES_MAX];
    loop {
        match socket.recv(&mut buffer).await {
            Ok(length) => {
                let datagram = buffer.get(..length).unwrap_or_default();
                if let Err(cause) = deliver(datagram, &waiting, &proof) {
                    throttle::once_a_second("radius_reply", |suppressed| {
                        let server = socket.peer_addr().ok();
                        tracing::warn!(
                            ?server,
                            cause,
                            suppressed,
                            "a RADIUS reply is not believed"
                        );
                    });
                }
            }
            // Nobody is there: whoever waits need not wait longer.
            Err(error) => {
                let waiters: Vec<_> = {
                    let mut waiting = lock(&waiting);
                    waiting.waiters.iter_mut().filter_map(Option::take).collect()
                };
                for waiter in waiters {
                    let _ = waiter.reply.send(Err(io::Error::from(error.kind())));
                }
                if error.kind() != io::ErrorKind::ConnectionRefused {
                    return;
                }
            }
        }
    }
}

fn deliver(datagram: &[u8], waiting: &Mutex<Waiting>, proof: &Proof) -> Result<(), &'static str> {
    let identifier = usize::from(*datagram.get(1).ok_or("header_truncated")?);
    let sent = {
        let waiting = lock(waiting);
        match waiting.waiters.get(identifier).and_then(Option::as_ref) {
            Some(waiter) => waiter.sent,
            // It comes late, or twice.
            None => return Ok(()),
        }
    };
    let reply = Packet::parse(datagram).map_err(|error| error.name())?;
    let rule = proof.rule(&reply);
    sent.verify_reply(datagram, &proof.secret, rule).map_err(|error| error.name())?;
    proof.heard.store(clock::in_ms(clock::monotonic()), Ordering::Relaxed);
    let mut waiting = lock(waiting);
    let waiter = waiting.waiters.get_mut(identifier);
    if let Some(waiter) = waiter.and_then(|slot| slot.take_if(|waiter| waiter.sent == sent)) {
        // Whoever waited may just have given up.
        let _ = waiter.reply.send(Ok(datagram.to_vec()));
    }
    Ok(())
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

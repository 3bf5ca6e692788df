//! One server of a RADIUS target: its sockets, and whether it is worth asking.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use watchword_core::directory::{Probe, RadiusServer, RadiusTarget};

use super::link::{Link, Proof, Slot};
use crate::clock;
use crate::directory::Question;
use crate::directory::health::Health;
use crate::radius::attribute::AttributeType;
use crate::radius::packet::{Authenticator, Packet, PacketError};
use crate::radius::relay::{self, RelayError};
use crate::radius::request::{Request, SentRequest};
use crate::radius::secret::Secret;
use crate::radius::writer::BuildError;
use crate::random::{self, RandomError};

/// Sockets to one server: sixteen thousand requests under way.
const LINKS_MAX: usize = 64;
/// How often a request is sent while its answer is waited for (RFC 5080 section 2.2.1): a datagram may be lost.
const SENDINGS: u32 = 3;
/// Who asks, where the client does not say who it is (RFC 2865 section 4.1).
const NAS_IDENTIFIER: &str = "watchword";

/// Why a server has not answered.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Its name is no address, or there is no way to it.
    #[error("{server} cannot be reached")]
    Socket {
        /// Which.
        server: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It has not answered in time, or not in a way that is believed.
    #[error("{0} has not answered in time")]
    Timeout(String),
    /// It has answered others meanwhile, but not this.
    #[error("{0} answers others, but not this")]
    Silent(String),
    /// More is asked of it than it answers.
    #[error("{0} is overloaded")]
    Overloaded(String),
    /// The request cannot be sent on.
    #[error("the request cannot be sent to {server}")]
    Build {
        /// To whom.
        server: String,
        /// Why.
        #[source]
        source: BuildError,
    },
    /// Its answer cannot be read.
    #[error("the answer of {server} cannot be read")]
    Unreadable {
        /// Whose.
        server: String,
        /// Why.
        #[source]
        source: RelayError,
    },
    /// Its answer is no packet.
    #[error("the answer of {server} is no RADIUS packet")]
    Packet {
        /// Whose.
        server: String,
        /// Why.
        #[source]
        source: PacketError,
    },
    /// No random numbers can be drawn.
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl ServerError {
    /// Whether the server is to blame.
    fn is_its_own(&self) -> bool {
        match self {
            Self::Socket { .. } | Self::Timeout(_) | Self::Unreadable { .. } => true,
            Self::Packet { .. } => true,
            Self::Silent(_) | Self::Overloaded(_) | Self::Build { .. } | Self::Random(_) => false,
        }
    }
}

/// A server.
pub(super) struct Server {
    address: RadiusServer,
    proof: Arc<Proof>,
    probe: Probe,
    timeout: Duration,
    links: Mutex<Vec<Arc<Link>>>,
    health: Health,
    was_asked: AtomicBool,
    /// Whether it has ever answered a Status-Server.
    answers_status: AtomicBool,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Server {
    /// A server that was not asked yet.
    pub(super) fn new(
        address: &RadiusServer,
        target: &RadiusTarget,
        secret: Secret,
        timeout: Duration,
    ) -> Self {
        let proof = Proof {
            secret,
            require_message_authenticator: target.require_message_authenticator,
            signs: AtomicBool::new(address.signs),
            heard: AtomicU64::new(0),
        };
        Self {
            address: address.clone(),
            proof: Arc::new(proof),
            probe: target.probe,
            timeout,
            links: Mutex::default(),
            health: Health::default(),
            was_asked: AtomicBool::new(false),
            answers_status: AtomicBool::new(false),
        }
    }

    /// The secret that its answers are hidden and signed under.
    pub(super) fn secret(&self) -> &Secret {
        &self.proof.secret
    }

    /// Notes what another node may have seen: whether it signs.
    pub(super) fn note_signs(&self, signs: bool) {
        if signs {
            self.proof.signs.store(true, Ordering::Relaxed);
        }
    }

    /// Whether `reply`, which was verified, is the first that is signed although it need not be.
    pub(super) fn shows_that_it_signs(&self, reply: &Packet<'_>) -> bool {
        reply.first(AttributeType::MESSAGE_AUTHENTICATOR).is_some()
            && reply.first(AttributeType::EAP_MESSAGE).is_none()
            && !self.proof.signs.swap(true, Ordering::Relaxed)
    }

    /// Whether it may be asked now. One that has failed is not asked by logins if it is known to tell otherwise that it is
    /// back; many servers ignore Status-Server.
    pub(super) fn is_due(&self) -> bool {
        match self.answers_status.load(Ordering::Relaxed) {
            true => self.health.rests().is_none(),
            false => self.health.is_due(self.timeout),
        }
    }

    /// Notes whether it has answered. One that has just failed is probed at once, and until it answers.
    pub(super) fn note<T>(self: &Arc<Self>, answered: &Result<T, ServerError>) {
        if answered.as_ref().is_err_and(|error| !error.is_its_own()) {
            return;
        }
        let has_failed = self.health.note(self.as_ref(), answered);
        if answered.is_err() {
            // Its name may stand for another address by now.
            self.links().clear();
        }
        let is_first = !self.was_asked.swap(true, Ordering::Relaxed);
        if self.probe == Probe::Status && (has_failed || is_first) {
            tokio::spawn(probe(Arc::downgrade(self)));
        }
    }

    /// Asks whether it is there (RFC 5997).
    async fn probe(&self) -> Result<(), ServerError> {
        let build = |buffer: &mut Vec<u8>, identifier, authenticator| {
            let mut request = Request::status_server(buffer, identifier, authenticator);
            request.attributes.push_text(AttributeType::NAS_IDENTIFIER, NAS_IDENTIFIER)?;
            Ok(request.sign(&self.proof.secret).1)
        };
        self.exchange(build).await.map(drop)
    }

    /// Asks `question`. Yields the octets of the reply, which is one to this very question, and the Request
    /// Authenticator that it answers.
    pub(super) async fn ask(
        &self,
        question: &Question<'_>,
    ) -> Result<(Vec<u8>, Authenticator), ServerError> {
        let secret = &self.proof.secret;
        let build = |buffer: &mut Vec<u8>, identifier, authenticator| {
            let mut request = Request::access(buffer, identifier, authenticator, true);
            let attributes = &mut request.attributes;
            let has = |kind| relay::first(question.attributes, kind).is_some();
            if !has(AttributeType::USER_NAME) {
                attributes.push_text(AttributeType::USER_NAME, question.user.as_str())?;
            }
            if !has(AttributeType::NAS_IDENTIFIER) && !has(AttributeType::NAS_IP_ADDRESS) {
                attributes.push_text(AttributeType::NAS_IDENTIFIER, NAS_IDENTIFIER)?;
            }
            for found in relay::attributes(question.attributes) {
                attributes.push(found.kind, found.value)?;
            }
            if let Some(place) = question.place
                && !place.state.is_empty()
            {
                attributes.push(AttributeType::STATE, &place.state)?;
            }
            attributes.push(AttributeType::PROXY_STATE, &relay::mark(question.cluster))?;
            if let Some(password) = question.password {
                request.push_password(password, secret)?;
            }
            Ok(request.sign(secret).1)
        };
        self.exchange(build).await
    }

    /// Sends what `build` builds, once more if nothing comes back, and waits for the reply.
    async fn exchange(
        &self,
        build: impl FnOnce(&mut Vec<u8>, u8, Authenticator) -> Result<SentRequest, BuildError>,
    ) -> Result<(Vec<u8>, Authenticator), ServerError> {
        let started = clock::in_ms(clock::monotonic());
        let slot = timeout(self.timeout, self.slot()).await.map_err(|_| self.timed_out())??;
        let mut octets = Vec::new();
        let sent = build(&mut octets, slot.identifier, random::bytes()?)
            .map_err(|source| ServerError::Build { server: self.to_string(), source })?;
        let mut reply = slot.expect(sent);
        for _ in 0..SENDINGS {
            let socket = &slot.link.socket;
            socket.send(&octets).await.map_err(|source| self.unreachable(source))?;
            match timeout(self.timeout / SENDINGS, &mut reply).await {
                Ok(Ok(reply)) => {
                    let reply = reply.map_err(|source| self.unreachable(source))?;
                    return Ok((reply, sent.authenticator));
                }
                // The link has ended.
                Ok(Err(_)) => break,
                Err(_) => {}
            }
        }
        // One that answers others leaves this one unanswered on purpose, and is well.
        match self.proof.heard.load(Ordering::Relaxed) > started {
            true => Err(ServerError::Silent(self.to_string())),
            false => Err(self.timed_out()),
        }
    }

    /// An identifier on one of the links, a new one if need be.
    async fn slot(&self) -> Result<Slot, ServerError> {
        let free = |links: &[Arc<Link>]| links.iter().find_map(Link::slot);
        if let Some(slot) = free(&self.links()) {
            return Ok(slot);
        }
        let unreachable = |source| self.unreachable(source);
        let host = (&*self.address.host, self.address.port);
        let mut addresses = tokio::net::lookup_host(host).await.map_err(unreachable)?;
        let address = addresses.next().ok_or(io::ErrorKind::NotFound.into());
        let address = address.map_err(unreachable)?;
        let link = Link::open(address, self.proof.clone()).await.map_err(unreachable)?;
        let mut links = self.links();
        // Others may have opened one meanwhile.
        if let Some(slot) = free(&links) {
            return Ok(slot);
        }
        if links.len() >= LINKS_MAX {
            return Err(ServerError::Overloaded(self.to_string()));
        }
        let link = Arc::new(link);
        links.push(link.clone());
        link.slot().ok_or_else(|| ServerError::Overloaded(self.to_string()))
    }

    /// What was received is no packet after all.
    pub(super) fn not_a_packet(&self, source: PacketError) -> ServerError {
        ServerError::Packet { server: self.to_string(), source }
    }

    fn timed_out(&self) -> ServerError {
        ServerError::Timeout(self.to_string())
    }

    fn unreachable(&self, source: io::Error) -> ServerError {
        ServerError::Socket { server: self.to_string(), source }
    }

    fn links(&self) -> MutexGuard<'_, Vec<Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks whether the server is there: once if it is well, to know whether it answers that at all, and otherwise until it
/// answers that or a login.
async fn probe(server: Weak<Server>) {
    while let Some(server) = server.upgrade() {
        let answered = server.probe().await;
        server.answers_status.fetch_or(answered.is_ok(), Ordering::Relaxed);
        if server.health.rests().is_some() {
            server.health.note(server.as_ref(), &answered);
        }
        let Some(rest) = server.health.rests() else { break };
        drop(server);
        sleep(rest).await;
    }
}

//! What happens on each datagram.
//!
//! ```text
//!   datagram ── parse ── client? ── authentic? ── copy? ── room? ── authenticate ── reply
//!                 │         │           │           │        │            │
//!              dropped   dropped     dropped    answered   dropped    no answer: the
//!              (malformed, unknown client, …)   or dropped (overload) NAS asks elsewhere
//! ```
//!
//! Everything up to the authentication is done at once, in the receiving task, and costs no
//! consensus. Each drop is counted under its cause.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use watchword_core::attempt::{Acceptance, Asker};
use watchword_core::client::{RadiusHabits, Source};
use watchword_core::id::RequestId;
use zeroize::Zeroizing;

use super::client::{ClientTable, KnownClient};
use super::drop_cause::DropCause;
use super::duplicate::{DuplicateCache, InFlight, Limits, Lookup, RequestKey};
use crate::auth::{self, Authenticator, Credential, Outcome, Said};
use crate::config::RadiusConfig;
use crate::error_chain::chain;
use crate::keys::Keyring;
use crate::radius::attribute::AttributeType;
use crate::radius::authenticator::MessageAuthenticator;
use crate::radius::packet::{Code, Packet};
use crate::radius::password;
use crate::radius::relay::{self, RelayError};
use crate::radius::reply::Reply;
use crate::radius::vendor;
use crate::radius::writer::BuildError;
use crate::random::{self, RandomError};
use crate::{clock, metrics as names, throttle};

/// How long a request is worked on. Clients send it three times, some seconds apart; then they turn to
/// another node, which repeats or joins what this one may still decide.
const PATIENCE: Duration = Duration::from_secs(10);
/// MS-CHAP-Response and MS-CHAP2-Response: RFC 2548 sections 2.1.3 and 2.3.2.
const MS_CHAP_RESPONSES: [u8; 2] = [1, 25];
/// RFC 3748 section 4.2.
const EAP_FAILURE: u8 = 4;

/// Why a reply cannot be built.
#[derive(Debug, thiserror::Error)]
enum BuildReplyError {
    /// It does not fit.
    #[error("the reply is too long")]
    Build(#[from] BuildError),
    /// What a directory wants said does not fit.
    #[error("what the directory wants said cannot be said")]
    Relay(#[from] RelayError),
    /// No salt can be drawn.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// The RADIUS front's shared parts.
pub struct Exchanges {
    authenticator: Authenticator,
    clients: ClientTable,
    duplicates: DuplicateCache,
    in_flight: Arc<Semaphore>,
    meters: Meters,
}

/// A request that must be authenticated; everything before that has been passed.
pub struct Pending {
    client: Arc<KnownClient>,
    datagram: Box<[u8]>,
    source: SocketAddr,
    is_signed: bool,
    token: InFlight,
    /// On the clock that never jumps.
    received: Duration,
    _permit: OwnedSemaphorePermit,
}

/// What to do with a datagram.
pub enum Received {
    /// Nothing.
    Dropped,
    /// Send these octets back.
    Answer(Arc<[u8]>),
    /// Call [`Exchanges::answer`].
    Pending(Pending),
}

struct Meters {
    requests: Counter,
    resent: Counter,
    joined: Counter,
    accepts: Counter,
    challenges: Counter,
    rejects: Counter,
    in_flight: Gauge,
    seconds: Histogram,
}

impl Exchanges {
    /// The front of one node.
    pub fn new(authenticator: Authenticator, keys: Arc<Keyring>, config: &RadiusConfig) -> Self {
        let keep_ms = u64::try_from(config.duplicate_window.as_millis()).unwrap_or(u64::MAX);
        Self {
            authenticator,
            clients: ClientTable::new(keys),
            duplicates: DuplicateCache::new(Limits { keep_ms, ..Limits::default() }),
            in_flight: Arc::new(Semaphore::new(config.in_flight_max)),
            meters: Meters {
                requests: counter!(names::RADIUS_REQUESTS),
                resent: counter!(names::RADIUS_DUPLICATES, "handled" => "resent"),
                joined: counter!(names::RADIUS_DUPLICATES, "handled" => "joined"),
                accepts: counter!(names::RADIUS_REPLIES, "code" => "accept"),
                challenges: counter!(names::RADIUS_REPLIES, "code" => "challenge"),
                rejects: counter!(names::RADIUS_REPLIES, "code" => "reject"),
                in_flight: gauge!(names::RADIUS_IN_FLIGHT),
                seconds: histogram!(names::RADIUS_SECONDS),
            },
        }
    }

    /// Takes in one datagram that arrived from `source` at socket number `listener`.
    pub fn receive(&self, datagram: &[u8], source: SocketAddr, listener: u16) -> Received {
        self.meters.requests.increment(1);
        match self.try_receive(datagram, source, listener) {
            Ok(received) => received,
            Err(cause) => {
                report_drop(cause, source);
                Received::Dropped
            }
        }
    }

    fn try_receive(
        &self,
        datagram: &[u8],
        source: SocketAddr,
        listener: u16,
    ) -> Result<Received, DropCause> {
        let packet = Packet::parse(datagram)?;
        if !self.authenticator.look(|state| self.clients.is_of(state)) {
            self.clients.rebuild(&self.authenticator.state());
        }
        let client = self.clients.find(source.ip()).ok_or(DropCause::UnknownClient)?;
        let is_signed = check_authentic(&packet, &client)?;
        match packet.code {
            Code::AccessRequest if self.goes_round(&packet) => return Err(DropCause::GoesRound),
            Code::AccessRequest => {}
            Code::StatusServer => return self.answer_status(&packet, &client),
            _ => return Err(DropCause::UnsupportedCode),
        }
        let received = clock::monotonic();
        let key = RequestKey::new(listener, source, &packet);
        let token = match self.duplicates.begin(&key, clock::in_ms(received)) {
            Lookup::New(token) => token,
            Lookup::Join => {
                self.meters.joined.increment(1);
                return Ok(Received::Dropped);
            }
            Lookup::Answered(reply) => {
                self.meters.resent.increment(1);
                return Ok(Received::Answer(reply));
            }
            Lookup::Full => return Err(DropCause::Overload),
        };
        let permit = self.in_flight.clone().try_acquire_owned().map_err(|_| DropCause::Overload)?;
        self.meters.in_flight.increment(1);
        let datagram = packet.bytes().into();
        let pending =
            Pending { client, datagram, source, is_signed, token, received, _permit: permit };
        Ok(Received::Pending(pending))
    }

    /// Whether a node of this cluster has sent the request to the server that it comes from now, or to one behind that.
    fn goes_round(&self, packet: &Packet<'_>) -> bool {
        let mut states = packet.all(AttributeType::PROXY_STATE).peekable();
        if states.peek().is_none() {
            return false;
        }
        let cluster =
            self.authenticator.look(|state| state.nodes().authority().map(|it| it.cluster));
        let mark = cluster.map(relay::mark);
        states.any(|state| mark.is_some_and(|mark| state == mark))
    }

    /// Status-Server (RFC 5997): an Access-Accept says that this node can commit. A node that cannot
    /// says nothing, so that the client turns to another.
    fn answer_status(
        &self,
        packet: &Packet<'_>,
        client: &KnownClient,
    ) -> Result<Received, DropCause> {
        if !self.authenticator.is_ready() {
            return Err(DropCause::NotReady);
        }
        let mut buffer = Vec::new();
        let reply = Reply::start(&mut buffer, Code::AccessAccept, packet);
        let bytes = reply.sign(&client.secret).map_err(|_| DropCause::ReplyTooLong)?;
        Ok(Received::Answer(bytes.into()))
    }

    /// Authenticates and builds the reply. `None`: no answer is given.
    pub async fn answer(&self, pending: Pending) -> Option<Arc<[u8]>> {
        let (source, received) = (pending.source, pending.received);
        let reply = self.try_answer(pending).await;
        self.meters.in_flight.decrement(1);
        self.meters.seconds.record(clock::monotonic().saturating_sub(received));
        reply.map_err(|cause| report_drop(cause, source)).ok()
    }

    async fn try_answer(&self, pending: Pending) -> Result<Arc<[u8]>, DropCause> {
        let Pending { client, datagram, source, is_signed, token, .. } = pending;
        let packet = Packet::parse(&datagram)?;
        let mut request = read_request(&packet, &client, source)?;
        if !is_signed {
            if let Credential::Typed(typed) = &request.credential
                && !is_typed(typed)
            {
                return Err(DropCause::SecretMismatch);
            }
            // Nothing protects the name. Whoever can change the packet on its way must not get past the
            // passcode by a name that nobody has.
            request.policy.require_user_match = true;
        }
        let outcome = self.authenticator.authenticate(&request).await.map_err(|error| {
            throttle::once_a_second("login", |suppressed| {
                let error = chain(&error);
                tracing::error!(client = %client.name, error, suppressed, "login not decided");
            });
            DropCause::Undecided
        })?;
        let mut buffer = Vec::new();
        build_reply(&mut buffer, &outcome, &packet, &client).map_err(|error| {
            throttle::once_a_second("reply", |suppressed| {
                let error = chain(&error);
                tracing::error!(client = %client.name, error, suppressed, "no reply can be built");
            });
            DropCause::ReplyTooLong
        })?;
        let reply: Arc<[u8]> = buffer.into();
        token.answer(reply.clone(), clock::in_ms(clock::monotonic()));
        self.count(&outcome);
        self.learn(&outcome, &packet, &client, is_signed);
        Ok(reply)
    }

    fn count(&self, outcome: &Outcome) {
        let replies = match outcome {
            Outcome::Accept { .. } => &self.meters.accepts,
            Outcome::Challenge { .. } | Outcome::Asks { .. } => &self.meters.challenges,
            Outcome::Reject { .. } => &self.meters.rejects,
        };
        replies.increment(1);
    }

    /// Learns from a login that proves that its sender knows the secret. Nobody waits for that.
    fn learn(
        &self,
        outcome: &Outcome,
        packet: &Packet<'_>,
        client: &Arc<KnownClient>,
        is_signed: bool,
    ) {
        // A right passcode was hidden under the shared secret; nothing else proves as much.
        let Outcome::Accept { by: Acceptance::Passcode(_), .. } = outcome else { return };
        let known = client.radius.habits;
        let shown = RadiusHabits {
            signs: known.signs || is_signed,
            is_no_proxy: known.is_no_proxy || packet.first(AttributeType::PROXY_STATE).is_none(),
        };
        if shown == known {
            return;
        }
        let (authenticator, client) = (self.authenticator.clone(), client.clone());
        tokio::spawn(async move {
            if let Err(error) = authenticator.learn_client(client.id, shown).await {
                tracing::warn!(client = %client.name, %error, "its habits were not recorded");
            }
        });
    }
}

/// Counts a packet that gets no answer under its cause, and logs it now and then.
fn report_drop(cause: DropCause, source: SocketAddr) {
    let cause = cause.name();
    counter!(names::RADIUS_DROPPED, "cause" => cause).increment(1);
    throttle::once_a_second(cause, |suppressed| {
        tracing::warn!(%source, cause, suppressed, "RADIUS packet dropped");
    });
}

/// Whether people may have typed this. What was hidden under another secret comes out as random octets:
/// in a request that is not signed they show that its sender does not know the secret, and must not
/// count as a failure of the user.
fn is_typed(credential: &[u8]) -> bool {
    std::str::from_utf8(credential).is_ok_and(|text| !text.chars().any(char::is_control))
}

/// Checks that the packet may be believed; returns whether it is signed.
fn check_authentic(packet: &Packet<'_>, client: &KnownClient) -> Result<bool, DropCause> {
    match packet.message_authenticator(&client.secret) {
        MessageAuthenticator::Valid => Ok(true),
        MessageAuthenticator::Invalid => Err(DropCause::BadMessageAuthenticator),
        MessageAuthenticator::Absent => {
            // RFC 5997 section 3 and RFC 3579 section 3.2 demand it, whatever the client is allowed.
            let by_rfc = packet.code == Code::StatusServer
                || packet.first(AttributeType::EAP_MESSAGE).is_some();
            let by_proxy_state =
                client.limits_proxy_state && packet.first(AttributeType::PROXY_STATE).is_some();
            if by_rfc || client.demands_message_authenticator {
                Err(DropCause::NoMessageAuthenticator)
            } else if by_proxy_state {
                Err(DropCause::ProxyStateUnsigned)
            } else {
                Ok(false)
            }
        }
    }
}

/// What the packet says about a login.
fn read_request(
    packet: &Packet<'_>,
    client: &KnownClient,
    source: SocketAddr,
) -> Result<auth::Request, DropCause> {
    let username = packet.first_text(AttributeType::USER_NAME).ok_or(DropCause::NoUserName)?;
    let asks_directory = |source: &Source| matches!(source, Source::Directory(_));
    let attributes = match client.policy.first_factor.sources().iter().any(asks_directory) {
        true => relay::take_request(packet),
        false => Vec::new(),
    };
    let remote = match packet.first_text(AttributeType::CALLING_STATION_ID) {
        Some(station) => station.into(),
        None => source.ip().to_canonical().to_string().into(),
    };
    Ok(auth::Request {
        id: request_id(packet, client),
        asker: Asker::Client(client.id),
        client_revision: client.revision,
        policy: client.policy.clone(),
        username: username.into(),
        credential: read_credential(packet, client)?,
        attributes,
        challenge: packet.first(AttributeType::STATE).map(Into::into),
        remote,
        patience: PATIENCE,
        trace: None,
    })
}

/// What the user shows: a password, or what CHAP, MS-CHAP or EAP have made of one. EAP has no place for a question that
/// it has not come to itself.
fn read_credential(packet: &Packet<'_>, client: &KnownClient) -> Result<Credential, DropCause> {
    if packet.first(AttributeType::EAP_MESSAGE).is_some() {
        return Ok(Credential::Sent { takes_challenge: false });
    }
    if let Some(hidden) = packet.first(AttributeType::USER_PASSWORD) {
        let clear = password::reveal(hidden, &client.secret, &packet.authenticator)?;
        return Ok(Credential::Typed(Zeroizing::new(clear.as_bytes().to_vec())));
    }
    let has_response = packet.first(AttributeType::CHAP_PASSWORD).is_some()
        || vendor::microsoft(packet).any(|sub| MS_CHAP_RESPONSES.contains(&sub.kind));
    match has_response {
        true => Ok(Credential::Sent { takes_challenge: true }),
        false => Err(DropCause::NoUserPassword),
    }
}

/// Equal for every copy of a request, whichever node it reaches and through whatever address
/// translation, and different for every other request: the NAS's authenticator is 128 random bits,
/// and what it protects is hashed along with it.
fn request_id(packet: &Packet<'_>, client: &KnownClient) -> RequestId {
    const IDENTIFYING: [AttributeType; 6] = [
        AttributeType::USER_NAME,
        AttributeType::USER_PASSWORD,
        AttributeType::CHAP_PASSWORD,
        AttributeType::STATE,
        AttributeType::NAS_IP_ADDRESS,
        AttributeType::NAS_IDENTIFIER,
    ];
    let mut hash = Sha256::new();
    hash.update(client.id.0);
    hash.update([packet.identifier]);
    hash.update(packet.authenticator);
    for kind in IDENTIFYING {
        let value = packet.first(kind).unwrap_or_default();
        // A length in front keeps two neighbours from being read as two others. It fits: the
        // protocol's values are no longer than 253 octets.
        hash.update([kind.0, value.len() as u8]);
        hash.update(value);
    }
    for part in packet.all(AttributeType::EAP_MESSAGE) {
        hash.update([AttributeType::EAP_MESSAGE.0, part.len() as u8]);
        hash.update(part);
    }
    for sub in vendor::microsoft(packet) {
        hash.update([AttributeType::VENDOR_SPECIFIC.0, sub.kind, sub.value.len() as u8]);
        hash.update(sub.value);
    }
    let mut id = [0; 16];
    id.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
    RequestId(id)
}

fn build_reply(
    buffer: &mut Vec<u8>,
    outcome: &Outcome,
    packet: &Packet<'_>,
    client: &KnownClient,
) -> Result<(), BuildReplyError> {
    let (code, said) = match outcome {
        Outcome::Accept { said, .. } => (Code::AccessAccept, said.as_ref()),
        Outcome::Challenge { .. } => (Code::AccessChallenge, None),
        Outcome::Asks { said, .. } => (Code::AccessChallenge, said.as_ref()),
        Outcome::Reject { said, .. } => (Code::AccessReject, said.as_ref()),
    };
    let mut reply = Reply::start(buffer, code, packet);
    let said = said.map(Said::as_bytes).unwrap_or_default();
    if !said.is_empty() {
        let (attributes, salt) = (&mut reply.attributes, random::bytes()?);
        relay::put_reply(said, attributes, &client.secret, &packet.authenticator, salt)?;
    }
    if let Outcome::Challenge { token, prompt, seconds } = outcome {
        let seconds = u32::try_from(*seconds).unwrap_or(u32::MAX);
        reply.attributes.push_text(AttributeType::REPLY_MESSAGE, prompt)?;
        reply.attributes.push(AttributeType::STATE, token)?;
        reply.attributes.push_u32(AttributeType::SESSION_TIMEOUT, seconds)?;
    }
    if let Outcome::Asks { token, .. } = outcome {
        reply.attributes.push(AttributeType::STATE, token)?;
    }
    // Whoever speaks EAP waits for an answer in EAP (RFC 3579 section 2.6.5).
    if let (Outcome::Reject { .. }, Some(eap)) = (outcome, packet.first(AttributeType::EAP_MESSAGE))
        && relay::first(said, AttributeType::EAP_MESSAGE).is_none()
    {
        let identifier = eap.get(1).copied().unwrap_or_default();
        reply.attributes.push(AttributeType::EAP_MESSAGE, &[EAP_FAILURE, identifier, 0, 4])?;
    }
    reply.sign(&client.secret)?;
    Ok(())
}

//! What this node asks of its peers.
//!
//! One connection per peer carries everything but snapshots, which have their own so that they
//! delay nobody. A peer that cannot be reached is tried again after a pause that grows; the connector
//! sees to that, because a failure to connect does not always reach openraft's own pause.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use hyper_util::rt::TokioIo;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::TypeConfigExt;
use openraft::{BasicNode, OptionalSend};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_rustls::client::TlsStream;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use watchword_core::codec;
use watchword_proto::Frame;
use watchword_proto::peer_client::PeerClient;

use crate::net::BoxedStream;
use crate::options::Options;
use crate::quorum::Quorum;
use crate::runtime::{Instant, NodeId, Snapshot, SnapshotMeta, TypeConfig, Vote};
use crate::service::REMOVED;
use crate::snapshot::SnapshotData;
use crate::storage;
use crate::transport::Transport;

/// How long connecting and the handshake may take.
const CONNECT: Duration = Duration::from_secs(1);
/// Pause after the first failure to connect; it doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Silence after which a connection is tested, and how long the test may take.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Flow control: what may be on its way in one stream and one connection.
pub(crate) const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
pub(crate) const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Longest message, in bytes; the longest that is sent, a forwarded batch, is a quarter of it.
pub(crate) const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Memory that decoding a message may claim.
const MESSAGE_MEMORY_MAX: usize = 64 * 1024 * 1024;
/// Bytes of a snapshot in one message.
const SNAPSHOT_PIECE: usize = 256 * 1024;

/// Encodes a message.
pub(crate) fn frame<T: Serialize>(message: &T) -> Result<Frame, Status> {
    let data = codec::encode(message).map_err(|error| Status::internal(error.to_string()))?;
    Ok(Frame { data: data.into() })
}

/// The inverse of [`frame`].
pub(crate) fn open<T: DeserializeOwned>(frame: &Frame) -> Result<T, Status> {
    codec::decode::<T, MESSAGE_MEMORY_MAX>(&frame.data)
        .map_err(|error| Status::invalid_argument(error.to_string()))
}

/// What a leader sends.
#[derive(Serialize, Deserialize)]
pub(crate) struct Append {
    /// The entries.
    pub(crate) request: AppendEntriesRequest<TypeConfig>,
    /// Whether it has heard of a quorum lately, so that it can decide something.
    pub(crate) has_quorum: bool,
}

/// Gives out connections to peers. Clones share them.
#[derive(Clone)]
pub(crate) struct Network {
    transport: Option<Transport>,
    /// This node.
    me: NodeId,
    peers: Arc<Mutex<BTreeMap<(NodeId, Lane), Known>>>,
    /// Where the members are reached, by the latest membership.
    addresses: Arc<Mutex<BTreeMap<NodeId, String>>>,
    /// Whether this node knows that it was removed.
    removed: Arc<AtomicBool>,
    /// Where that is written down, so that it also holds after a restart.
    marker: Arc<Path>,
    /// The latest epoch that this node has heard of. A later one than its own: the cluster went on
    /// without it, and it may not even help others any more.
    latest_epoch: Arc<AtomicU64>,
    /// This node's epoch.
    epoch: u64,
    /// What is told to followers; known as soon as the replica runs.
    quorum: Arc<OnceLock<Quorum>>,
}

/// A handle to what a peer serves.
pub(crate) type Client = PeerClient<InterceptedService<Channel, EpochStamp>>;

/// Adds this node's epoch to every call.
#[derive(Clone)]
pub(crate) struct EpochStamp(u64);

impl Interceptor for EpochStamp {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(EPOCH, MetadataValue::from(self.0));
        Ok(request)
    }
}

/// Name of the epoch in the metadata of a call.
const EPOCH: &str = "watchword-epoch";

/// The epoch of whoever made a call with this metadata.
pub(crate) fn epoch_of(metadata: &MetadataMap) -> Option<u64> {
    metadata.get(EPOCH)?.to_str().ok()?.parse().ok()
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Urgent,
    Bulk,
}

struct Known {
    address: String,
    channel: Channel,
}

impl Network {
    /// Connections by the transport; without one, no peer can be reached.
    pub(crate) fn new(options: &Options, epoch: u64) -> Self {
        Self {
            transport: options.transport.clone(),
            me: options.node_id,
            peers: Arc::default(),
            addresses: Arc::default(),
            removed: Arc::default(),
            marker: storage::removed_marker(&options.data_dir).into(),
            latest_epoch: Arc::new(AtomicU64::new(epoch)),
            epoch,
            quorum: Arc::default(),
        }
    }

    /// Notes where the members are reached.
    pub(crate) fn note_addresses(&self, members: &BTreeMap<NodeId, String>) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if *addresses != *members {
            addresses.clone_from(members);
        }
    }

    /// Whom a leader asks what to tell its followers.
    pub(crate) fn watch(&self, quorum: Quorum) {
        drop(self.quorum.set(quorum));
    }

    fn append(&self, request: AppendEntriesRequest<TypeConfig>) -> Append {
        let has_quorum = self.quorum.get().is_some_and(Quorum::stands);
        Append { request, has_quorum }
    }

    /// This node's epoch.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether this node knows that it was removed.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }

    /// Whether the cluster went on in a later epoch, without this node.
    pub(crate) fn is_fenced(&self) -> bool {
        self.latest_epoch.load(Ordering::Relaxed) > self.epoch
    }

    /// Notes, for ever, if the cluster went on in a later epoch.
    pub(crate) fn note_epoch(&self, theirs: u64) {
        if theirs > self.epoch {
            self.latest_epoch.fetch_max(theirs, Ordering::Relaxed);
            self.note_removed();
        }
    }

    /// What a caller is told that does not belong: that, and in which epoch the cluster is.
    pub(crate) fn refusal(&self) -> Status {
        let mut status = Status::permission_denied(REMOVED);
        let latest = MetadataValue::from(self.latest_epoch.load(Ordering::Relaxed));
        status.metadata_mut().insert(EPOCH, latest);
        status
    }

    /// Looks whether a refusal says that this node was removed.
    pub(crate) fn note(&self, status: &Status) {
        if status.code() == Code::PermissionDenied && status.message() == REMOVED {
            self.note_epoch(epoch_of(status.metadata()).unwrap_or(0));
            self.note_removed();
        }
    }

    /// Notes, for ever, that this node was removed.
    pub(crate) fn note_removed(&self) {
        if self.removed.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::error!("{REMOVED}; empty its data directory to join again");
        if let Err(error) = std::fs::write(&self.marker, REMOVED) {
            tracing::error!(%error, "that cannot be written down");
        }
    }

    /// A handle to what `node` at `address` serves.
    pub(crate) fn peer(&self, node: NodeId, address: &str) -> Option<Client> {
        self.client(node, address, Lane::Urgent)
    }

    fn client(&self, node: NodeId, address: &str, lane: Lane) -> Option<Client> {
        let transport = self.transport.clone()?;
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = peers.get(&(node, lane)).filter(|known| known.address == address);
        let channel = match known {
            Some(known) => known.channel.clone(),
            None => {
                let connector = Connector {
                    transport,
                    node,
                    is_me: node == self.me,
                    address: address.into(),
                    failed: Arc::default(),
                };
                let channel = channel(connector);
                let known = Known { address: address.to_owned(), channel: channel.clone() };
                peers.insert((node, lane), known);
                channel
            }
        };
        let client = PeerClient::with_interceptor(channel, EpochStamp(self.epoch));
        Some(
            client
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
    }
}

/// A connection that is made when it is needed, and again when it has broken.
fn channel(connector: Connector) -> Channel {
    Endpoint::from_static("http://peer")
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .connect_with_connector_lazy(connector)
}

/// Connects to one peer, not too often: between two attempts it fails at once, so that a call which
/// could go elsewhere is not held up.
#[derive(Clone)]
struct Connector {
    transport: Transport,
    node: NodeId,
    /// Whether that is this node itself, which looks for others in its own place.
    is_me: bool,
    address: Arc<str>,
    failed: Arc<Mutex<Failed>>,
}

/// The attempts that have failed since the last that did not.
#[derive(Default)]
struct Failed {
    count: u32,
    last: Option<Instant>,
}

/// Pause after so many failures in a row.
fn pause(failures: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(PAUSE_MAX)
}

impl Connector {
    fn failed(&self) -> MutexGuard<'_, Failed> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_too_early(&self) -> bool {
        let failed = self.failed();
        failed.last.is_some_and(|last| TypeConfig::now() < last + pause(failed.count))
    }

    async fn connect(self) -> io::Result<TokioIo<TlsStream<BoxedStream>>> {
        if self.is_too_early() {
            return Err(io::Error::other("it was not reached a moment ago"));
        }
        let connecting = self.transport.connect(&self.address, self.node);
        let connected = match TypeConfig::timeout(CONNECT, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let (node, address) = (self.node, &*self.address);
        let mut failed = self.failed();
        match connected {
            Ok(stream) => {
                if failed.count > 0 && !self.is_me {
                    tracing::info!(node, address, "peer reached again");
                }
                *failed = Failed::default();
                Ok(TokioIo::new(stream))
            }
            Err(error) => {
                failed.count = failed.count.saturating_add(1);
                failed.last = Some(TypeConfig::now());
                // Once, and again at each doubling: not for every attempt.
                if failed.count.is_power_of_two() && !self.is_me {
                    tracing::warn!(node, address, %error, "peer not reached");
                }
                Err(error)
            }
        }
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<BoxedStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

/// Whether a call failed before anything was sent.
pub(crate) fn is_unsent(status: &Status) -> bool {
    let mut error = status.source();
    while let Some(cause) = error {
        if cause.is::<tonic::ConnectError>() {
            return true;
        }
        error = cause.source();
    }
    false
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &BasicNode) -> Peer {
        Peer { network: self.clone(), target, address: node.addr.clone() }
    }
}

/// One peer, as openraft calls it.
pub(crate) struct Peer {
    network: Network,
    target: NodeId,
    address: String,
}

impl Peer {
    fn client(&self, lane: Lane) -> Result<Client, Unreachable<TypeConfig>> {
        // openraft goes on with the address that a member had when it came.
        let addresses = self.network.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let address = addresses.get(&self.target).unwrap_or(&self.address);
        self.network.client(self.target, address, lane).ok_or_else(|| {
            let text = format!("node {} cannot be reached: there is no transport", self.target);
            Unreachable::new(&io::Error::other(text))
        })
    }

    fn failed(&self, status: Status) -> RPCError<TypeConfig> {
        failed(&self.network, status)
    }

    /// The message as a request with openraft's own deadline.
    fn request<T: Serialize>(
        &self,
        message: &T,
        option: &RPCOption,
    ) -> Result<Request<Frame>, RPCError<TypeConfig>> {
        let mut request = Request::new(frame(message).map_err(|status| self.failed(status))?);
        request.set_timeout(option.soft_ttl());
        Ok(request)
    }
}

fn failed(network: &Network, status: Status) -> RPCError<TypeConfig> {
    network.note(&status);
    match status.code() {
        Code::Unavailable
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::DeadlineExceeded => RPCError::Unreachable(Unreachable::new(&status)),
        _ => RPCError::Network(NetworkError::new(&status)),
    }
}

/// Calls one method with one message, and waits no longer than openraft does.
macro_rules! call {
    ($peer:expr, $method:ident, $message:expr, $option:expr, $kind:ident) => {{
        let peer: &Peer = $peer;
        let mut client = peer.client(Lane::Urgent)?;
        let request = peer.request($message, &$option)?;
        let patience = $option.soft_ttl();
        match TypeConfig::timeout(patience, client.$method(request)).await {
            Ok(answer) => answer
                .and_then(|answer| open(answer.get_ref()))
                .map_err(|status| peer.failed(status)),
            Err(_) => Err(RPCError::Timeout(Timeout {
                action: RPCTypes::$kind,
                id: peer.target,
                target: peer.target,
                timeout: patience,
            })),
        }
    }};
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        message: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = self.network.append(message);
        call!(self, append_one, &message, option, AppendEntries)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
            RPCError<TypeConfig>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let mut client = self.client(Lane::Urgent)?;
            // What cannot be encoded ends the stream, and openraft begins another.
            let network = self.network.clone();
            let frames = input
                .map(move |request| frame(&network.append(request)))
                .take_while(|frame| futures::future::ready(frame.is_ok()))
                .filter_map(|frame| futures::future::ready(frame.ok()));
            let answers = match client.append(frames).await {
                Ok(answers) => answers,
                Err(status) => {
                    // openraft has not been asked for a request yet and would be back at once.
                    TypeConfig::sleep(PAUSE_MIN).await;
                    return Err(self.failed(status));
                }
            };
            let answers = answers.into_inner();
            let network = &self.network;
            // Nothing may be read from a stream after its first error: it gives errors for ever.
            let answers = answers.scan(false, |is_over, answer| {
                let answer = (!*is_over).then(|| {
                    answer.and_then(|frame| open(&frame)).map_err(|status| failed(network, status))
                });
                *is_over = matches!(answer, Some(Err(_)));
                futures::future::ready(answer)
            });
            Ok(Box::pin(answers) as BoxStream<'s, _>)
        })
    }

    async fn vote(
        &mut self,
        message: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        call!(self, vote, &message, option, Vote)
    }

    async fn pre_vote(
        &mut self,
        message: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        call!(self, pre_vote, &message, option, Vote)
    }

    async fn transfer_leader(
        &mut self,
        message: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        call!(self, transfer_leader, &message, option, TransferLeader)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let unreadable = |error: io::Error| StreamingError::Network(NetworkError::new(&error));
        let bytes = Bytes::from_owner(snapshot.snapshot.read().await.map_err(unreadable)?);
        let described: (Vote, SnapshotMeta, u64) = (vote, snapshot.meta, bytes.len() as u64);
        let description = frame(&described).map_err(|status| self.failed(status))?;
        let pieces = (0..bytes.len())
            .step_by(SNAPSHOT_PIECE)
            .map(move |at| Frame { data: bytes.slice(at..bytes.len().min(at + SNAPSHOT_PIECE)) });
        let mut client = self.client(Lane::Bulk)?;
        let sent = client.snapshot(futures::stream::iter([description].into_iter().chain(pieces)));
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            answer = sent => {
                let answer = answer.and_then(|answer| open(answer.get_ref()));
                Ok(answer.map_err(|status| self.failed(status))?)
            }
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new((1..).map(pause)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_and_has_an_end() {
        let ms = |failures| pause(failures).as_millis();
        assert_eq!([ms(1), ms(2), ms(3), ms(4), ms(5)], [100, 200, 400, 800, 1_000]);
        assert_eq!(ms(u32::MAX), 1_000);
    }
}

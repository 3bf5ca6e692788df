//! What this node does for its peers.
//!
//! Every call names its caller, whom the transport has checked. A node that was removed is told so,
//! and gets nothing else, as soon as it is out of the membership: until then its vote may be needed to
//! take it out. A node that has heard of a later epoch than its own serves nobody any more: two that were
//! left behind must not go on deciding for one another.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::{Stream, StreamExt};
use openraft::raft::{SnapshotResponse, TransferLeaderRequest, VoteRequest};
use tonic::{Request, Response, Status, Streaming};
use watchword_proto::Frame;
use watchword_proto::peer_server::Peer;

use crate::Cluster;
use crate::blocking::off_thread;
use crate::contact::Contact;
use crate::network::{self, Append, frame, open};
use crate::runtime::{NodeId, Snapshot, SnapshotMeta, TypeConfig, Vote};
use crate::snapshot::SnapshotData;
use crate::transport::Caller;

/// Longest snapshot that is taken in, in bytes.
const SNAPSHOT_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;

/// The service on this node's replica.
pub(crate) struct PeerService(pub(crate) Cluster);

/// What a node is told that was removed.
pub(crate) const REMOVED: &str = "this node was removed from the cluster";

impl PeerService {
    /// The member that calls.
    fn member<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let Some(&Caller::Node(node)) = request.extensions().get::<Caller>() else {
            return Err(Status::permission_denied("for members only"));
        };
        let theirs = network::epoch_of(request.metadata())
            .ok_or_else(|| Status::invalid_argument("the epoch is missing"))?;
        self.admit(node, theirs).map(|()| node)
    }

    /// Whether `node`, which is in epoch `theirs`, is served.
    fn admit(&self, node: NodeId, theirs: u64) -> Result<(), Status> {
        let inner = &self.0.inner;
        if inner.stopping.load(Ordering::Relaxed) {
            return Err(Status::failed_precondition("this node is stopping"));
        }
        // First: whom this node itself calls removed, and who may have lost its key, announces nothing.
        if self.has_left(node) {
            return Err(inner.network.refusal());
        }
        if theirs > inner.network.epoch() {
            // It is this node that was removed.
            inner.network.note_epoch(theirs);
            return Err(Status::failed_precondition(REMOVED));
        }
        if inner.network.is_fenced() || theirs < inner.network.epoch() {
            return Err(inner.network.refusal());
        }
        Ok(())
    }

    /// Whether `node` was removed and is out of the membership.
    fn has_left(&self, node: NodeId) -> bool {
        self.0.look(|state| state.nodes().is_removed(node)) && !self.0.is_member(node)
    }
}

impl Append {
    /// Notes what the message says of its sender.
    fn note(&self, leader: NodeId, contact: &Contact) {
        let committed = self.request.leader_commit.map_or(0, |id| id.index);
        contact.note(leader, committed, self.has_quorum);
    }
}

fn stopped(error: impl ToString) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl Peer for PeerService {
    type AppendStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn append(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let node = self.member(&request)?;
        // A stream gives errors for ever after its first one: it must end there.
        let service = Self(self.0.clone());
        let epoch = self.0.inner.network.epoch();
        let requests = request.into_inner().scan((), move |(), next| {
            let admitted = service.admit(node, epoch);
            let append = admitted.and(next).and_then(|frame| open::<Append>(&frame));
            match &append {
                Ok(append) => append.note(node, &service.0.inner.contact),
                Err(error) => tracing::debug!(node, %error, "a stream of entries ended"),
            }
            futures::future::ready(append.ok().map(|append| append.request))
        });
        let answers = self.0.inner.raft.stream_append(Box::pin(requests));
        let answers = answers.map(|answer| frame(&answer.map_err(stopped)?));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn append_one(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        let node = self.member(&request)?;
        let append = open::<Append>(request.get_ref())?;
        append.note(node, &self.0.inner.contact);
        let answer = self.0.inner.raft.append_entries(append.request).await.map_err(stopped)?;
        frame(&answer).map(Response::new)
    }

    async fn vote(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        self.member(&request)?;
        let request = open::<VoteRequest<TypeConfig>>(request.get_ref())?;
        let answer = self.0.inner.raft.vote(request).await.map_err(stopped)?;
        frame(&answer).map(Response::new)
    }

    async fn pre_vote(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        self.member(&request)?;
        let request = open::<VoteRequest<TypeConfig>>(request.get_ref())?;
        let answer = self.0.inner.raft.pre_vote(request).await.map_err(stopped)?;
        frame(&answer).map(Response::new)
    }

    async fn transfer_leader(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        self.member(&request)?;
        let request = open::<TransferLeaderRequest<TypeConfig>>(request.get_ref())?;
        let answer = self.0.inner.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        frame(&answer).map(Response::new)
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Frame>, Status> {
        self.member(&request)?;
        let mut pieces = request.into_inner();
        let first = pieces.message().await?;
        let first = first.ok_or_else(|| Status::invalid_argument("the description is missing"))?;
        let (vote, meta, length) = open::<(Vote, SnapshotMeta, u64)>(&first)?;
        if length > SNAPSHOT_BYTES_MAX {
            return Err(Status::invalid_argument("the snapshot is too long"));
        }
        // Memory is taken as the bytes come, not as they are announced.
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.message().await? {
            bytes.extend_from_slice(&piece.data);
            if bytes.len() as u64 > length {
                return Err(Status::invalid_argument("the snapshot is longer than announced"));
            }
        }
        if bytes.len() as u64 != length {
            return Err(Status::invalid_argument("the snapshot is shorter than announced"));
        }
        let snapshot = Snapshot { meta, snapshot: SnapshotData::Received(Arc::from(bytes)) };
        let answer: SnapshotResponse<TypeConfig> =
            self.0.inner.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        frame(&answer).map(Response::new)
    }

    async fn propose(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        self.member(&request)?;
        let entries = open(request.get_ref())?;
        frame(&self.0.propose_forwarded(entries).await).map(Response::new)
    }

    async fn read_index(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        self.member(&request)?;
        frame(&self.0.read_index().await).map(Response::new)
    }

    async fn survey(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        self.member(&request)?;
        frame(&self.0.report()).map(Response::new)
    }

    async fn hold_key(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        self.member(&request)?;
        let (keep, key) = (self.0.inner.keep_key.clone(), request.into_inner().data);
        let kept = off_thread(move || keep(&key)).await.map_err(stopped)?;
        kept.map_err(Status::failed_precondition)?;
        frame(&()).map(Response::new)
    }
}

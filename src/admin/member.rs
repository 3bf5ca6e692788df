//! The nodes of the cluster: who belongs, who may come, who leads.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use watchword_cluster::{Bearer, Caller, TransferError, node_name};
use watchword_core::command::{Admit, Found, NodeChange};
use watchword_core::id::{ClusterId, TokenId};
use watchword_core::node::{Authority, NodeId};
use watchword_core::{Applied, Command, Refusal};

use super::{Admin, AdminError, rfc3339};
use crate::keys::Owner;
use crate::pki::{self, PkiError, Token};
use crate::possession::Claim;
use crate::{clock, random};

/// A member as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemberView {
    /// Its id.
    pub node: NodeId,
    /// Where its peers reach it.
    pub address: String,
    /// `leader`, `voter`, `learner`, `joining` or `leaving`.
    pub role: String,
    /// Who leads if several can: the highest.
    pub priority: u8,
    /// Its term.
    pub term: Option<u64>,
    /// Entries of the asked node's log that are not in its state yet.
    pub lag: Option<u64>,
    /// The release that it runs.
    pub version: Option<String>,
    /// Milliseconds by which its clock is ahead of the asked node's.
    pub clock_offset_ms: Option<i64>,
    /// Milliseconds since it last answered the asked node.
    pub last_contact_ms: Option<u64>,
    /// When it was admitted.
    pub admitted: String,
}

/// A token as listed: never the token itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenView {
    /// Its id.
    pub id: String,
    /// When it lapses.
    pub expires: String,
    /// Nodes that it may still admit.
    pub uses_left: u32,
}

/// A token to make.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct TokenSpec {
    /// For how long.
    pub seconds: u64,
    /// For how many nodes.
    pub uses: u32,
}

/// A new token.
#[derive(Clone, Serialize, Deserialize)]
pub struct NewToken {
    /// The token: shown once, stored nowhere.
    pub token: String,
    /// Its id, to take it back by.
    pub id: String,
    /// When it lapses.
    pub expires: String,
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewToken").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A node that wants to join.
#[derive(Clone, Debug)]
pub struct JoinSpec {
    /// Where its peers will reach it.
    pub address: String,
    /// The key that its certificate is to be made for, a DER SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// False if it is only to follow.
    pub votes: bool,
    /// That it holds the private half of the key: a signature of its [`Claim`].
    pub proof: Vec<u8>,
}

/// What a node gets that was admitted.
pub struct Admitted {
    /// Its id.
    pub node: NodeId,
    /// The cluster.
    pub authority: Arc<Authority>,
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
    /// The cluster's epoch.
    pub epoch: u64,
    /// The cluster's data keys.
    pub data_keys: zeroize::Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Admitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admitted").field("node", &self.node).finish_non_exhaustive()
    }
}

/// What to change about a node; what is left out stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberEdit {
    /// Where its peers reach it.
    pub address: Option<String>,
    /// Who leads if several can: the highest.
    pub priority: Option<u8>,
}

/// How a removal went.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct RemovalView {
    /// Whether the node is out of the membership. Until it is, its vote may be needed.
    pub left: bool,
}

/// Who leads.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct LeaderView {
    /// Its id.
    pub leader: Option<NodeId>,
}

impl Admin {
    /// Writes the founder of the cluster and its authority into the log, unless they are there.
    ///
    /// # Errors
    /// When the log does not take them.
    pub async fn found(&self, found: Found) -> Result<(), AdminError> {
        if self.cluster.state().nodes().authority().is_some() {
            return Ok(());
        }
        match self.propose(Command::Found(Box::new(found))).await {
            Err(AdminError::Refused(Refusal::FoundedAlready)) => Ok(()),
            founded => founded,
        }
    }

    /// All members, by id.
    ///
    /// # Errors
    /// When no fresh state can be read.
    pub async fn members(&self) -> Result<Vec<MemberView>, AdminError> {
        let state = self.state().await?;
        let status = self.cluster.status();
        let behind = |applied: u64| status.last_log.unwrap_or(0).saturating_sub(applied);
        let present = |list: &[watchword_cluster::Member], id| list.iter().any(|one| one.id == id);
        let members = state.nodes().iter().filter_map(|(id, node)| {
            let role = match (present(&status.voters, id), present(&status.learners, id)) {
                (false, false) if node.removed.is_some() => return None,
                _ if node.removed.is_some() => "leaving",
                (true, _) if status.leader == Some(id) => "leader",
                (true, _) => "voter",
                (false, true) => "learner",
                (false, false) => "joining",
            };
            let mut member = MemberView {
                node: id,
                address: node.address.to_string(),
                role: role.to_owned(),
                priority: node.priority,
                term: None,
                lag: None,
                version: None,
                clock_offset_ms: None,
                last_contact_ms: None,
                admitted: rfc3339(node.admitted),
            };
            if id == status.node_id {
                member.term = Some(status.term);
                member.lag = Some(behind(status.applied.unwrap_or(0)));
                member.version = Some(env!("CARGO_PKG_VERSION").to_owned());
                member.clock_offset_ms = Some(0);
                member.last_contact_ms = Some(0);
            } else if let Some(peer) = status.peers.iter().find(|peer| peer.id == id) {
                member.term = Some(peer.term);
                member.lag = Some(behind(peer.applied));
                member.version = Some(peer.version.clone());
                member.clock_offset_ms = Some(peer.clock_offset_ms);
                member.last_contact_ms =
                    Some(u64::try_from(peer.silence.as_millis()).unwrap_or(u64::MAX));
            }
            Some(member)
        });
        Ok(members.collect())
    }

    /// Makes a token.
    ///
    /// # Errors
    /// When the state machine refuses, or the log does not take it.
    pub async fn create_token(&self, spec: TokenSpec) -> Result<NewToken, AdminError> {
        let state = self.state().await?;
        let authority = state.nodes().authority().ok_or(AdminError::NotFounded)?;
        let token = Token::create(&authority.certificate)?;
        let id = TokenId(random::bytes()?);
        let command = Command::CreateToken {
            token: id,
            public_key: token.key()?.public_key().into(),
            for_ms: spec.seconds.saturating_mul(1000),
            uses: spec.uses,
        };
        self.propose(command).await?;
        let state = self.cluster.state();
        let expires = state.nodes().token(id).map(|token| rfc3339(token.expires));
        let expires = expires.ok_or(AdminError::UnexpectedResult)?;
        Ok(NewToken { token: token.text().to_string(), id: id.to_string(), expires })
    }

    /// The tokens that still admit nodes.
    ///
    /// # Errors
    /// When no fresh state can be read.
    pub async fn tokens(&self) -> Result<Vec<TokenView>, AdminError> {
        let state = self.state().await?;
        let now = clock::now().max(state.time());
        let open = state.nodes().tokens().filter(|(_, token)| token.is_open(now));
        let view = |(id, token): (TokenId, &watchword_core::node::JoinToken)| TokenView {
            id: id.to_string(),
            expires: rfc3339(token.expires),
            uses_left: token.uses_left,
        };
        Ok(open.map(view).collect())
    }

    /// Takes a token back.
    ///
    /// # Errors
    /// When there is no such token.
    pub async fn revoke_token(&self, id: &str) -> Result<(), AdminError> {
        let unknown = || AdminError::NotFound { what: "token", name: id.to_owned() };
        let token = id.parse().map_err(|_| unknown())?;
        self.propose(Command::RevokeToken { token }).await
    }

    /// Admits a node whose bearer has shown `caller` to be a token.
    ///
    /// # Errors
    /// When the bearer does not hold the node's key, the token is used up or has lapsed, or the node
    /// cannot be admitted.
    pub async fn admit(&self, caller: Caller, spec: JoinSpec) -> Result<Admitted, AdminError> {
        let Caller::Token(bearer) = caller else {
            return Err(AdminError::Invalid("only a token admits a node".to_owned()));
        };
        self.check_proof(bearer, &spec)?;
        let now = clock::now();
        let admit = Admit {
            token: bearer.token,
            address: spec.address.into(),
            public_key: spec.public_key.into(),
            votes: spec.votes,
        };
        // Made before anything is written: a key that cannot be certified admits nobody.
        let authority = self.authority()?;
        authority.1.certify("probe", &admit.public_key, now)?;
        let public_key = admit.public_key.clone();
        let node = match self.cluster.propose(Command::AdmitNode(Box::new(admit))).await? {
            Applied::Admitted(node) => node,
            Applied::Refused(refusal) => return Err(refusal.into()),
            _ => return Err(AdminError::UnexpectedResult),
        };
        tracing::info!(node, "a node was admitted");
        let name = node_name(authority.0.cluster, node);
        let certificate = authority.1.certify(&name, &public_key, now)?.to_vec();
        // As it is after the admission: no other key comes into force before the new node holds it.
        let state = self.cluster.state();
        let data_keys = self.keys.export(state.data_keys())?;
        let epoch = state.nodes().epoch();
        Ok(Admitted { node, authority: authority.0, certificate, epoch, data_keys })
    }

    /// Checks that `bearer` holds the key that he wants certified. He gets what belongs to whoever
    /// holds it, and everybody can see a member's public key.
    fn check_proof(&self, bearer: Bearer, spec: &JoinSpec) -> Result<(), AdminError> {
        let state = self.cluster.state();
        let authority = state.nodes().authority().ok_or(AdminError::NotFounded)?;
        let token = state.nodes().token(bearer.token).ok_or(Refusal::TokenUnknown)?;
        let claim = Claim {
            token: &token.public_key,
            authority: pki::authority_hash(&authority.certificate),
            connection: bearer.connection.0,
            public_key: &spec.public_key,
        };
        Ok(claim.check(&spec.proof)?)
    }

    /// The authority as the state holds it, and able to sign.
    fn authority(&self) -> Result<(Arc<Authority>, pki::Authority), AdminError> {
        let state = self.cluster.state();
        let authority = state.nodes().authority().ok_or(AdminError::NotFounded)?.clone();
        let key = self.keys.open(Owner::AuthorityKey(authority.cluster), &authority.key)?;
        let certificate = authority.certificate.to_vec().into();
        let signer = pki::Authority::open(authority.cluster, certificate, &key)?;
        Ok((authority, signer))
    }

    /// A new certificate for this node.
    ///
    /// # Errors
    /// When the authority cannot be used.
    pub fn certify_self(
        &self,
        cluster: ClusterId,
        node: NodeId,
        public_key: &[u8],
    ) -> Result<Vec<u8>, AdminError> {
        let (_, signer) = self.authority()?;
        Ok(signer.certify(&node_name(cluster, node), public_key, clock::now())?.to_vec())
    }

    /// Removes a node for ever, and waits a moment until it is out of the membership.
    ///
    /// # Errors
    /// When it is unknown or the last voter, or those that stay could decide nothing.
    pub async fn remove_node(&self, node: NodeId) -> Result<RemovalView, AdminError> {
        if !self.cluster.could_go_on_without(node) {
            return Err(AdminError::Conflict(format!(
                "without node {node} too few of the voters answer to decide anything: bring the silent \
                 ones back, or remove them first"
            )));
        }
        self.propose(Command::RemoveNode { node }).await?;
        Ok(RemovalView { left: self.cluster.wait_until_left(node).await })
    }

    /// Changes where a node is reached, or how much it is preferred as the leader.
    ///
    /// # Errors
    /// When it is unknown, was removed, or another is at that address.
    pub async fn edit_node(&self, node: NodeId, edit: MemberEdit) -> Result<(), AdminError> {
        let change = NodeChange { address: edit.address.map(Into::into), priority: edit.priority };
        self.propose(Command::EditNode { node, change }).await
    }

    /// Where a node's peers reach it, as far as this node knows.
    pub fn recorded_address(&self, node: NodeId) -> Option<String> {
        self.cluster.state().nodes().get(node).map(|node| node.address.to_string())
    }

    /// Hands leadership to `heir`, or to the best of the voters that would lead: by priority, then by how far
    /// they are.
    ///
    /// # Errors
    /// When this node does not lead, or the other does not take over.
    pub async fn transfer(&self, heir: Option<NodeId>) -> Result<LeaderView, AdminError> {
        Ok(LeaderView { leader: Some(self.cluster.transfer(heir).await?) })
    }

    /// Takes this node out of service, or back: it is not ready and does not lead.
    ///
    /// # Errors
    /// When nobody takes leadership over; then it is not ready all the same, and hands it over as soon as
    /// another would take it.
    pub async fn drain(&self, drained: bool) -> Result<LeaderView, AdminError> {
        self.cluster.drain(drained).await?;
        Ok(LeaderView { leader: self.cluster.status().leader })
    }
}

impl From<PkiError> for AdminError {
    fn from(error: PkiError) -> Self {
        match error {
            PkiError::Random(error) => Self::Random(error),
            error => Self::Invalid(error.to_string()),
        }
    }
}

impl From<TransferError> for AdminError {
    fn from(error: TransferError) -> Self {
        Self::Conflict(error.to_string())
    }
}

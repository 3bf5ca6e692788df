//! Everything that can be written into the log.
//!
//! A released variant or struct is never edited: a new shape is a new variant at the end. One file
//! per group holds the data of its commands and what each does to the state.

mod attempt;
mod client;
mod data_key;
mod device;
mod directory;
mod feature;
mod node;
mod setting;
mod user;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use attempt::{Conclude, Finding, FirstProof, Proof};
pub use client::{ClientFields, PutClient, RadiusFields};
pub use data_key::Resealed;
pub use device::{NewDevice, NewOath};
pub use directory::PutDirectory;
pub use feature::FEATURE_LEVEL;
pub(crate) use feature::FIRST_FEATURE_LEVEL;
pub use node::{Admit, Found, NodeChange};
pub use user::{NewUser, UserChange};

use crate::attempt::{Attempt, Verdict};
use crate::client::RadiusHabits;
use crate::id::{ClientId, DeviceId, DirectoryId, TokenId, UserId};
use crate::limits::NODES_MAX;
use crate::node::NodeId;
use crate::reply::HeldReply;
use crate::sealed::KeyId;
use crate::settings::{SettingError, Value};
use crate::state::State;
use crate::time::Timestamp;

/// One log entry: what to do, and when the leader proposed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The leader's clock. `apply` clamps it so that the state's time never runs backwards.
    pub time: Timestamp,
    /// What to do.
    pub command: Command,
}

/// Everything that can change the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Adds a user, with devices.
    AddUser(Box<NewUser>),
    /// Changes what an administrator may edit.
    ChangeUser {
        /// Whom.
        user: UserId,
        /// What.
        change: UserChange,
    },
    /// Removes a user and all devices.
    DeleteUser {
        /// Whom.
        user: UserId,
    },
    /// Refuses every attempt of the user until unblocked, or until a time.
    BlockUser {
        /// Whom.
        user: UserId,
        /// Why.
        reason: Arc<str>,
        /// Who does it.
        by: Arc<str>,
        /// How long, in milliseconds; `None` for ever.
        for_ms: Option<u64>,
    },
    /// Lifts a block and any lock.
    UnblockUser {
        /// Whom.
        user: UserId,
    },
    /// Lets the user in once without second factor.
    GrantBypass {
        /// Whom.
        user: UserId,
        /// Why.
        reason: Arc<str>,
        /// Who does it.
        by: Arc<str>,
        /// How long, in milliseconds.
        for_ms: u64,
    },
    /// Enrols a device.
    AddDevice {
        /// Whose.
        user: UserId,
        /// What.
        device: NewDevice,
    },
    /// Removes a device.
    RevokeDevice {
        /// Which.
        device: DeviceId,
    },
    /// Moves a device to the place that two consecutive passcodes have shown; both are used up.
    ResyncDevice {
        /// Which.
        device: DeviceId,
        /// Time step or counter of the first of the two passcodes.
        first: u64,
    },
    /// Adds a client.
    AddClient(PutClient),
    /// Replaces a client.
    EditClient(PutClient),
    /// Removes a client.
    RemoveClient {
        /// Which.
        client: ClientId,
    },
    /// Records what an accepted login has shown about a RADIUS client.
    LearnClient {
        /// Which.
        client: ClientId,
        /// What to add to its habits.
        habits: RadiusHabits,
    },
    /// Adds a directory.
    AddDirectory(PutDirectory),
    /// Replaces a directory.
    EditDirectory(PutDirectory),
    /// Removes a directory.
    RemoveDirectory {
        /// Which.
        directory: DirectoryId,
    },
    /// Records that a server of a RADIUS target signs answers that need not be signed.
    LearnServer {
        /// Of which directory.
        directory: DirectoryId,
        /// The revision of the directory whose server it is.
        revision: u64,
        /// Its number.
        server: u8,
    },
    /// Changes settings, all or none.
    ChangeSettings {
        /// Who does it.
        by: Arc<str>,
        /// The revision of the settings that the change was made against, if that matters.
        if_revision: Option<u64>,
        /// Key and new value; `None` goes back to the default.
        changes: Vec<(Arc<str>, Option<Value>)>,
    },
    /// Allows the commands of a newer feature level. Proposed only when every member understands it.
    EnableFeature {
        /// The level.
        level: u32,
    },
    /// Decides an attempt.
    Conclude(Conclude),
    /// Holds what is to be said when a challenge has been answered.
    HoldReply(HeldReply),
    /// Founds the cluster: its certificate authority and first node.
    Found(Box<Found>),
    /// Makes a token that admits nodes.
    CreateToken {
        /// Drawn at random by the proposer.
        token: TokenId,
        /// The token's public key, a DER SubjectPublicKeyInfo.
        public_key: Arc<[u8]>,
        /// How long it admits nodes, in milliseconds.
        for_ms: u64,
        /// How many nodes it admits.
        uses: u32,
    },
    /// Takes a token back.
    RevokeToken {
        /// Which.
        token: TokenId,
    },
    /// Admits a node that has shown a token.
    AdmitNode(Box<Admit>),
    /// Marks a node as removed, for ever.
    RemoveNode {
        /// Which.
        node: NodeId,
    },
    /// Changes what an administrator may edit of a node.
    EditNode {
        /// Which.
        node: NodeId,
        /// What.
        change: NodeChange,
    },
    /// Goes on with one node alone after a majority was lost: all others are removed, and a new
    /// epoch begins. Never proposed, only written by `recover` into the store of that node.
    Recover {
        /// Which stays.
        node: NodeId,
    },
    /// Changes nothing: after it, every node takes the digest of its state.
    Checkpoint,
    /// Goes over to another data key, which every node holds already: what is sealed under the one
    /// before cannot enter any more.
    UseKey {
        /// Which.
        key: KeyId,
        /// Its number: one more than that of the key before.
        generation: u64,
        /// Who holds it.
        holders: Vec<NodeId>,
    },
    /// Seals secrets under the current data key that were sealed under an earlier one.
    Reseal {
        /// Which.
        items: Vec<Resealed>,
    },
    /// Gives the earlier data keys up.
    RetireKeys {
        /// Number of the current one.
        generation: u64,
    },
}

/// What an entry did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// It carried no command (the first entry of a term, a membership change).
    Nothing,
    /// It was done.
    Done,
    /// It would have broken a rule and changed nothing.
    Refused(Refusal),
    /// It decided an attempt, or repeats an earlier decision on the same request.
    Concluded(Decision),
    /// The attempt was examined against a state that has changed since. Nothing was decided; the
    /// node examines it again.
    Stale,
    /// The node has this id.
    Admitted(NodeId),
}

/// A decided attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What was decided.
    pub verdict: Verdict,
    /// Number of the attempt in the record.
    pub attempt: u64,
    /// True when an earlier entry decided it and this one changed nothing.
    pub repeated: bool,
    /// Whether something is to be said along with it; see [`crate::reply`].
    pub has_reply: bool,
}

impl Decision {
    /// The decision that was recorded as the attempt numbered `attempt`, once more.
    pub fn again(attempt: u64, earlier: &Attempt) -> Self {
        let Attempt { verdict, has_reply, .. } = *earlier;
        Self { verdict, attempt, repeated: true, has_reply }
    }
}

/// Why a change was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The name is taken.
    #[error("user {0:?} exists already")]
    UserExists(Arc<str>),
    /// No such user.
    #[error("there is no such user")]
    UserUnknown,
    /// The id is in use: ids are random, so the proposer is broken.
    #[error("the id is in use")]
    IdTaken,
    /// No such device.
    #[error("there is no such device")]
    DeviceUnknown,
    /// A parameter of the device is out of range.
    #[error("the device's parameters are out of range")]
    DeviceMalformed,
    /// The two passcodes lie behind what has been used already.
    #[error("these passcodes have been used or passed over already")]
    ResyncBehind,
    /// The two passcodes lie too far ahead.
    #[error("these passcodes are too far from what is expected")]
    ResyncTooFar,
    /// The name is taken.
    #[error("client {0:?} exists already")]
    ClientExists(Arc<str>),
    /// No such client.
    #[error("there is no such client")]
    ClientUnknown,
    /// Another client has the very same address range.
    #[error("{address} belongs to client {client:?} already")]
    AddressTaken {
        /// The range.
        address: Arc<str>,
        /// Whose it is.
        client: Arc<str>,
    },
    /// The client's parameters make no sense.
    #[error("a client needs a name and at least one address")]
    ClientMalformed,
    /// The name is taken.
    #[error("directory {0:?} exists already")]
    DirectoryExists(Arc<str>),
    /// The name would be read as something else where directories are named.
    #[error("a directory cannot be called \"none\" or \"local\", and its name holds no comma")]
    DirectoryNameReserved,
    /// No such directory.
    #[error("there is no such directory")]
    DirectoryUnknown,
    /// A client asks it.
    #[error("client {0:?} asks this directory; give it another first factor before")]
    DirectoryInUse(Arc<str>),
    /// The directory's parameters make no sense.
    #[error(
        "a directory needs a server and a timeout of 100 ms to 30 s; one that is asked by LDAP needs certificates \
         to believe, and {{user}} in the name that users bind by or the filter that finds them"
    )]
    DirectoryMalformed,
    /// What is to be said is too long, or is to be held for too long.
    #[error("what the directory has said is too long to be kept")]
    ReplyMalformed,
    /// A setting was refused.
    #[error("{0}")]
    Setting(SettingError),
    /// The settings have changed meanwhile.
    #[error("the settings are at revision {0} now")]
    RevisionPassed(u64),
    /// A text is empty where it must not be, too long, or holds control characters.
    #[error("{0} is missing, too long or holds control characters")]
    TextMalformed(Text),
    /// A bound of [`crate::limits`] is reached.
    #[error("there can be no more than {max} {what}")]
    TooMany {
        /// Of what.
        what: Countable,
        /// The bound.
        max: u64,
    },
    /// The command belongs to a feature level that is not enabled.
    #[error("feature level {0} is not enabled")]
    FeatureDisabled(u32),
    /// There is an authority already.
    #[error("the cluster is founded already")]
    FoundedAlready,
    /// A key or certificate is missing or too long.
    #[error("a key or certificate is missing or too long")]
    KeyMalformed,
    /// A token needs a time and a number of uses within bounds.
    #[error("a token admits 1 to {NODES_MAX} nodes, for a week at most")]
    TokenMalformed,
    /// No such token: revoked, or another cluster's.
    #[error("the token is unknown: it was revoked, or belongs to another cluster")]
    TokenUnknown,
    /// The token has lapsed.
    #[error("the token has expired; make a new one with: watchword token create")]
    TokenExpired,
    /// The token has admitted all the nodes that it was made for.
    #[error("the token is used up; make a new one with: watchword token create")]
    TokenUsed,
    /// No such node.
    #[error("there is no node {0}")]
    NodeUnknown(NodeId),
    /// The node was removed and cannot come back under its id.
    #[error("node {0} was removed; empty its data directory and join again")]
    NodeRemoved(NodeId),
    /// A cluster without voters could decide nothing.
    #[error("node {0} is the only voter and cannot be removed")]
    LastVoter(NodeId),
    /// Two nodes cannot share an address.
    #[error("{address} is the address of node {node} already")]
    NodeAddressTaken {
        /// The address.
        address: Arc<str>,
        /// Whose it is.
        node: NodeId,
    },
    /// The proposer has sealed something under a key that is no longer the current one.
    #[error("the data key was replaced meanwhile; nothing was changed, try again")]
    DataKeyReplaced,
    /// One key is replaced after the other.
    #[error(
        "an earlier replacement of the data key is not finished; run: watchword rekey --rotate"
    )]
    RotationUnfinished,
    /// Those who hold the new key are not those who belong to the cluster.
    #[error("node {0} was admitted or removed while the data key was handed out; try again")]
    NodesChanged(NodeId),
    /// An earlier key is still needed.
    #[error("{0} secrets are sealed under an earlier data key; run: watchword rekey --rotate")]
    SealedOtherwise(u64),
    /// Another token admitted the node, or it is the founder.
    #[error(
        "another token admitted node {0}, which has this key; if that join was never finished, remove \
         node {0}, empty the data directory, and join again"
    )]
    NodeAdmittedOtherwise(NodeId),
}

/// A text that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Text {
    /// A user's name, mail address or group.
    Profile,
    /// The reason of a block or bypass.
    Reason,
    /// The label of a device.
    Label,
    /// The name of a client.
    ClientName,
    /// The address of a node or server.
    Address,
    /// The name of a directory.
    DirectoryName,
    /// A name to bind by, or to search below.
    BindName,
    /// A search filter.
    Filter,
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Profile => "a name, mail address or group",
            Self::Reason => "the reason",
            Self::Label => "the label",
            Self::ClientName => "the client's name",
            Self::Address => "the address",
            Self::DirectoryName => "the directory's name",
            Self::BindName => "a name in the directory",
            Self::Filter => "the filter",
        })
    }
}

/// Something whose number is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Countable {
    /// Users of the cluster.
    Users,
    /// Groups of one user.
    Groups,
    /// Devices of one user.
    Devices,
    /// Clients of the cluster.
    Clients,
    /// Addresses of one client.
    Addresses,
    /// Settings in one change.
    SettingChanges,
    /// Nodes of the cluster.
    Nodes,
    /// Tokens that admit nodes.
    Tokens,
    /// Secrets in one reseal.
    Reseals,
    /// Directories of the cluster.
    Directories,
    /// Servers of one directory.
    Servers,
    /// Certificates or digests that servers are recognised by.
    Trusted,
    /// Sources of first factors of one client.
    Sources,
}

impl fmt::Display for Countable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Users => "users",
            Self::Groups => "groups of one user",
            Self::Devices => "devices of one user",
            Self::Clients => "clients",
            Self::Addresses => "addresses of one client",
            Self::SettingChanges => "settings in one change",
            Self::Nodes => "nodes",
            Self::Tokens => "tokens",
            Self::Reseals => "secrets in one reseal",
            Self::Directories => "directories",
            Self::Servers => "servers of one directory",
            Self::Trusted => "trusted certificates of one directory",
            Self::Sources => "sources of first factors of one client",
        })
    }
}

/// Where and when a command is applied.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    /// Log index of the entry.
    pub(crate) index: u64,
    /// The state's time, clamped.
    pub(crate) now: Timestamp,
    /// The leader's clock as it was, which may have been put back. Passcodes are judged by it: after
    /// a clock that ran ahead was put right, the clamped time is wrong until the right time reaches it.
    pub(crate) stamped: Timestamp,
}

impl Command {
    /// The feature level that must be enabled before this command may be proposed.
    pub fn feature_level(&self) -> u32 {
        match self {
            Self::AddUser(_)
            | Self::ChangeUser { .. }
            | Self::DeleteUser { .. }
            | Self::BlockUser { .. }
            | Self::UnblockUser { .. }
            | Self::GrantBypass { .. }
            | Self::AddDevice { .. }
            | Self::RevokeDevice { .. }
            | Self::ResyncDevice { .. }
            | Self::AddClient(_)
            | Self::EditClient(_)
            | Self::RemoveClient { .. }
            | Self::LearnClient { .. }
            | Self::AddDirectory(_)
            | Self::EditDirectory(_)
            | Self::RemoveDirectory { .. }
            | Self::LearnServer { .. }
            | Self::ChangeSettings { .. }
            | Self::EnableFeature { .. }
            | Self::Conclude(_)
            | Self::HoldReply(_)
            | Self::Found(_)
            | Self::CreateToken { .. }
            | Self::RevokeToken { .. }
            | Self::AdmitNode(_)
            | Self::RemoveNode { .. }
            | Self::EditNode { .. }
            | Self::Recover { .. }
            | Self::Checkpoint
            | Self::UseKey { .. }
            | Self::Reseal { .. }
            | Self::RetireKeys { .. } => 1,
        }
    }

    /// The one dispatch: every change of the state passes here.
    pub(crate) fn apply(&self, state: &mut State, at: Moment) -> Applied {
        if self.feature_level() > state.feature_level {
            return Applied::Refused(Refusal::FeatureDisabled(self.feature_level()));
        }
        if !data_key::permits(state, self) && !cfg!(mutant = "admit_other_keys") {
            return Applied::Refused(Refusal::DataKeyReplaced);
        }
        let done = match self {
            Self::AddUser(new) => user::add(state, at, new),
            Self::ChangeUser { user, change } => user::change(state, at, *user, change),
            Self::DeleteUser { user } => user::delete(state, *user),
            Self::BlockUser { user, reason, by, for_ms } => {
                user::block(state, at, *user, reason, by, *for_ms)
            }
            Self::UnblockUser { user } => user::unblock(state, *user),
            Self::GrantBypass { user, reason, by, for_ms } => {
                user::grant_bypass(state, at, *user, reason, by, *for_ms)
            }
            Self::AddDevice { user, device } => device::add(state, at, *user, device),
            Self::RevokeDevice { device } => device::revoke(state, *device),
            Self::ResyncDevice { device, first } => device::resync(state, at, *device, *first),
            Self::AddClient(client) => client::add(state, at, client),
            Self::EditClient(client) => client::edit(state, at, client),
            Self::RemoveClient { client } => client::remove(state, at, *client),
            Self::LearnClient { client, habits } => client::learn(state, at, *client, *habits),
            Self::AddDirectory(put) => directory::add(state, at, put),
            Self::EditDirectory(put) => directory::edit(state, at, put),
            Self::RemoveDirectory { directory } => directory::remove(state, at, *directory),
            Self::LearnServer { directory, revision, server } => {
                directory::learn(state, at, *directory, *revision, *server)
            }
            Self::ChangeSettings { by, if_revision, changes } => {
                setting::change(state, at, by, *if_revision, changes)
            }
            Self::EnableFeature { level } => {
                feature::enable(state, *level);
                Ok(())
            }
            Self::Conclude(conclude) => return attempt::conclude(state, at, conclude),
            Self::HoldReply(reply) => attempt::hold(state, at, reply),
            Self::Found(found) => node::found(state, at, found),
            Self::CreateToken { token, public_key, for_ms, uses } => {
                node::create_token(state, at, *token, public_key, *for_ms, *uses)
            }
            Self::RevokeToken { token } => node::revoke_token(state, *token),
            Self::AdmitNode(admit) => {
                return node::admit(state, at, admit).unwrap_or_else(Applied::Refused);
            }
            Self::RemoveNode { node } => node::remove(state, at, *node),
            Self::EditNode { node, change } => node::edit(state, *node, change),
            Self::Recover { node } => {
                node::recover(state, at, *node);
                Ok(())
            }
            Self::Checkpoint => Ok(()),
            Self::UseKey { key, generation, holders } => {
                data_key::use_key(state, at, *key, *generation, holders)
            }
            Self::Reseal { items } => data_key::reseal(state, at, items),
            Self::RetireKeys { generation } => data_key::retire(state, at, *generation),
        };
        done.map_or_else(Applied::Refused, |()| Applied::Done)
    }
}

/// Checks a text that people wrote: bounded, no control characters, not empty if `required`.
fn check_text(text: &str, required: bool, what: Text) -> Result<(), Refusal> {
    let fits = text.len() <= crate::limits::TEXT_BYTES_MAX && !text.chars().any(char::is_control);
    if fits && !(required && text.trim().is_empty()) {
        Ok(())
    } else {
        Err(Refusal::TextMalformed(what))
    }
}

/// Checks that `count` does not exceed `max`.
fn check_count(count: usize, max: usize, what: Countable) -> Result<(), Refusal> {
    if count <= max { Ok(()) } else { Err(Refusal::TooMany { what, max: max as u64 }) }
}

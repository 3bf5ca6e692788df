//! The replicated state.
//!
//! A [`State`] is a value in persistent maps: a clone shares everything and costs a few pointers.
//! Readers and the snapshot hold the version that they took, without a lock, while `apply` goes on.
//! All maps are ordered, so equal logs give equal bytes.

use std::sync::Arc;

use crate::attempt::Attempts;
use crate::challenge::AnsweredChallenges;
use crate::client::Client;
use crate::command::{Applied, Entry, FIRST_FEATURE_LEVEL, Moment};
use crate::data_key::DataKeys;
use crate::device::Device;
use crate::directory::Directory;
use crate::id::{ClientId, DeviceId, DirectoryId, UserId};
use crate::map::OrdMap;
use crate::name::UserName;
use crate::node::Nodes;
use crate::reply::HeldReplies;
use crate::settings::Settings;
use crate::time::Timestamp;
use crate::user::{User, UserEntry};

/// Everything that is replicated.
#[derive(Clone)]
pub struct State {
    pub(crate) time: Timestamp,
    pub(crate) feature_level: u32,
    pub(crate) users: OrdMap<UserId, Arc<User>>,
    pub(crate) user_names: OrdMap<UserName, UserId>,
    pub(crate) devices: OrdMap<DeviceId, Arc<Device>>,
    pub(crate) clients: OrdMap<ClientId, Arc<Client>>,
    /// Log index of the last change of any client: readers that index clients go by it.
    pub(crate) clients_revision: u64,
    pub(crate) directories: OrdMap<DirectoryId, Arc<Directory>>,
    /// Log index of the last change of any directory.
    pub(crate) directories_revision: u64,
    pub(crate) settings: Settings,
    pub(crate) answered_challenges: AnsweredChallenges,
    pub(crate) held_replies: HeldReplies,
    pub(crate) attempts: Attempts,
    pub(crate) nodes: Nodes,
    pub(crate) data_keys: DataKeys,
}

impl Default for State {
    fn default() -> Self {
        Self {
            time: Timestamp(0),
            feature_level: FIRST_FEATURE_LEVEL,
            users: OrdMap::default(),
            user_names: OrdMap::default(),
            devices: OrdMap::default(),
            clients: OrdMap::default(),
            clients_revision: 0,
            directories: OrdMap::default(),
            directories_revision: 0,
            settings: Settings::default(),
            answered_challenges: AnsweredChallenges::default(),
            held_replies: HeldReplies::default(),
            attempts: Attempts::default(),
            nodes: Nodes::default(),
            data_keys: DataKeys::default(),
        }
    }
}

impl State {
    /// Applies the committed entry at log index `index`.
    ///
    /// Total and deterministic: it never fails, blocks or panics, and a refused command changes
    /// nothing but the state's time. The caller feeds every index once, in order.
    pub fn apply(&mut self, index: u64, entry: &Entry) -> Applied {
        self.time = self.time.max(entry.time);
        entry.command.apply(self, Moment { index, now: self.time, stamped: entry.time })
    }

    /// Time of the latest entry, never running backwards.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// The feature level that is enabled.
    pub fn feature_level(&self) -> u32 {
        self.feature_level
    }

    /// The user with this id.
    pub fn user(&self, id: UserId) -> Option<&Arc<User>> {
        self.users.get(&id)
    }

    /// The user with this canonical name.
    pub fn user_id(&self, name: &UserName) -> Option<UserId> {
        self.user_names.get(name).copied()
    }

    /// The user with this canonical name.
    pub fn user_by_name(&self, name: &UserName) -> Option<UserEntry<'_>> {
        let id = self.user_id(name)?;
        Some((id, self.user(id)?))
    }

    pub(crate) fn user_mut(&mut self, id: UserId) -> Option<&mut User> {
        self.users.get_mut(&id).map(Arc::make_mut)
    }

    /// All users by name, from the first name after `after` on.
    pub fn users_after(&self, after: Option<&UserName>) -> impl Iterator<Item = UserEntry<'_>> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.user_names
            .range_from(after.map_or(Unbounded, Excluded))
            .filter_map(|(_, &id)| Some((id, self.user(id)?)))
    }

    /// Number of users.
    pub fn user_count(&self) -> usize {
        self.users.len()
    }

    /// The device with this id.
    pub fn device(&self, id: DeviceId) -> Option<&Arc<Device>> {
        self.devices.get(&id)
    }

    pub(crate) fn device_mut(&mut self, id: DeviceId) -> Option<&mut Device> {
        self.devices.get_mut(&id).map(Arc::make_mut)
    }

    /// The devices of `user`, in order of enrolment.
    pub fn devices_of<'a>(
        &'a self,
        user: &'a User,
    ) -> impl Iterator<Item = (DeviceId, &'a Arc<Device>)> {
        user.devices.iter().filter_map(|&id| Some((id, self.device(id)?)))
    }

    /// Number of devices.
    pub fn device_count(&self) -> usize {
        self.devices.len()
    }

    /// The client with this id.
    pub fn client(&self, id: ClientId) -> Option<&Client> {
        self.clients.get(&id).map(Arc::as_ref)
    }

    pub(crate) fn client_mut(&mut self, id: ClientId) -> Option<&mut Client> {
        self.clients.get_mut(&id).map(Arc::make_mut)
    }

    /// All clients, by id.
    pub fn clients(&self) -> impl Iterator<Item = (ClientId, &Client)> {
        self.clients.iter().map(|(&id, client)| (id, client.as_ref()))
    }

    /// The client with this name.
    pub fn client_by_name(&self, name: &str) -> Option<(ClientId, &Client)> {
        self.clients().find(|(_, client)| *client.name == *name)
    }

    /// Log index of the last change of any client.
    pub fn clients_revision(&self) -> u64 {
        self.clients_revision
    }

    /// The directory with this id.
    pub fn directory(&self, id: DirectoryId) -> Option<&Arc<Directory>> {
        self.directories.get(&id)
    }

    pub(crate) fn directory_mut(&mut self, id: DirectoryId) -> Option<&mut Directory> {
        self.directories.get_mut(&id).map(Arc::make_mut)
    }

    /// All directories, by id.
    pub fn directories(&self) -> impl Iterator<Item = (DirectoryId, &Arc<Directory>)> {
        self.directories.iter().map(|(&id, directory)| (id, directory))
    }

    /// The directory with this name.
    pub fn directory_by_name(&self, name: &str) -> Option<(DirectoryId, &Arc<Directory>)> {
        self.directories().find(|(_, directory)| *directory.name == *name)
    }

    /// Log index of the last change of any directory.
    pub fn directories_revision(&self) -> u64 {
        self.directories_revision
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The challenges that have been answered.
    pub fn answered_challenges(&self) -> &AnsweredChallenges {
        &self.answered_challenges
    }

    /// What is to be said along with verdicts.
    pub fn held_replies(&self) -> &HeldReplies {
        &self.held_replies
    }

    /// The nodes of the cluster.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// The record of attempts.
    pub fn attempts(&self) -> &Attempts {
        &self.attempts
    }
}

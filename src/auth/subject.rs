//! What this node's state says about a request: all that the examination reads of it.
//!
//! It is taken in one look and may be old by the time that a password has been compared; `apply` checks
//! what was found.

use std::collections::BTreeSet;
use std::sync::Arc;

use watchword_core::attempt::Decided;
use watchword_core::client::{FirstFactor, PasscodeInput, Source};
use watchword_core::command::{Decision, FirstProof};
use watchword_core::device::Device;
use watchword_core::directory::Directory;
use watchword_core::factor::Passcode;
use watchword_core::id::{ClusterId, DeviceId, DirectoryId, UserId};
use watchword_core::name::UserName;
use watchword_core::settings::Settings;
use watchword_core::state::State;
use watchword_core::time::Timestamp;
use watchword_core::user::User;

use super::reading::{self, Appended};
use super::second::{PasscodeMatch, match_passcode};
use super::{Error, Request};
use crate::clock;
use crate::keys::{KeyError, Keyring};

/// What the state says about a request.
pub(super) enum Seen<'a> {
    /// A copy of it was decided.
    Decided(Decision),
    /// Nobody has this name.
    Nobody,
    /// Whose login it is.
    User(Subject<'a>),
}

/// The login being examined: a known user, at a moment.
pub(super) struct Subject<'a> {
    pub(super) request: &'a Request,
    pub(super) now: Timestamp,
    pub(super) id: UserId,
    pub(super) user: Arc<User>,
    devices: Vec<(DeviceId, Arc<Device>)>,
    /// The directories that the client asks.
    directories: Vec<(DirectoryId, Arc<Directory>)>,
    pub(super) settings: Settings,
    /// The cluster that challenges are of.
    pub(super) cluster: ClusterId,
}

impl<'a> Seen<'a> {
    /// Looks `request` of the user `name` up in `state`, when this node's clock shows `now`.
    pub(super) fn in_state(
        state: &State,
        request: &'a Request,
        name: Option<&UserName>,
        now: Timestamp,
    ) -> Self {
        let now = now.max(state.time());
        if let Some(decision) = decided_before(state, request, now) {
            return Self::Decided(decision);
        }
        let Some((id, user)) = name.and_then(|name| state.user_by_name(name)) else {
            return Self::Nobody;
        };
        Self::User(Subject {
            request,
            now,
            id,
            user: user.clone(),
            devices: state.devices_of(user).map(|(id, device)| (id, device.clone())).collect(),
            directories: directories(state, request),
            settings: state.settings().clone(),
            cluster: cluster(state),
        })
    }
}

impl Subject<'_> {
    /// Whether `state` shows the same factors of the user.
    pub(super) fn is_current(&self, state: &State) -> bool {
        let Some(now) = state.user(self.id) else { return false };
        let revision = |user: &User| user.password.as_ref().map(|password| password.revision);
        revision(now) == revision(&self.user)
            && now.bypass == self.user.bypass
            && now.devices == self.user.devices
            && self.devices.iter().all(|(id, device)| state.device(*id) == Some(device))
            && self.directories.iter().all(|(id, asked)| state.directory(*id) == Some(asked))
    }

    /// One of the directories that the client asks, as it was when the examination began.
    pub(super) fn directory(&self, id: DirectoryId) -> Option<&Directory> {
        let mut asked = self.directories.iter().filter(|(asked, _)| *asked == id);
        asked.next().map(|(_, directory)| directory.as_ref())
    }

    /// The directory of this revision, among those that the client asks.
    pub(super) fn directory_at(&self, revision: u64) -> Option<DirectoryId> {
        let mut asked = self.directories.iter().filter(|(_, one)| one.revision == revision);
        asked.next().map(|(id, _)| *id)
    }

    /// Whether `name`, as a directory spells it, may be this user: whatever the domain in front of it or behind it.
    pub(super) fn is_called(&self, name: &str) -> bool {
        let local = |name: &str| {
            let name = name.rsplit_once('\\').map_or(name, |(_, user)| user);
            let name = name.split_once('@').map_or(name, |(user, _)| user);
            UserName::canonical(name).ok()
        };
        let user = local(self.user.name.as_str());
        user.is_some() && user == local(name)
    }

    /// What the typed passcode is to the user's devices.
    pub(super) fn match_passcode(
        &self,
        keys: &Keyring,
        typed: &[u8],
    ) -> Result<PasscodeMatch, Error> {
        let passcode = std::str::from_utf8(typed).ok().and_then(Passcode::parse);
        let Some(passcode) = passcode else { return Ok(PasscodeMatch::Wrong) };
        match_passcode(&self.settings, keys, &self.devices, &passcode, clock::now())
            .map_err(|source| self.key_error(source))
    }

    pub(super) fn key_error(&self, source: KeyError) -> Error {
        Error::Key { username: self.user.name.text(), source }
    }

    /// Whether a first factor that was shown before a challenge still counts: the password, or the directory, has
    /// not been changed since and the client still asks it, or the client still vouches for it.
    pub(super) fn vouches(&self, first: FirstProof) -> bool {
        match first {
            FirstProof::Client => self.request.policy.first_factor == FirstFactor::None,
            FirstProof::Password { revision } => {
                let is_same =
                    self.user.password.as_ref().is_some_and(|one| one.revision == revision);
                is_same && self.request.policy.first_factor.sources().contains(&Source::Local)
            }
            FirstProof::Directory { directory, revision } => {
                self.directory(directory).is_some_and(|asked| asked.revision == revision)
            }
        }
    }

    /// The passcode that ends the typed text, given the lengths of the user's passcodes. A right one is
    /// preferred among several lengths.
    pub(super) fn appended_passcode(&self, keys: &Keyring) -> Result<Option<Appended>, Error> {
        let input = self.request.policy.passcode_input;
        if !matches!(input, PasscodeInput::Appended | PasscodeInput::Auto) {
            return Ok(None);
        }
        let typed = self.request.credential.typed();
        let digits = self.devices.iter().map(|(_, device)| usize::from(device.oath.digits()));
        let lengths: BTreeSet<_> = digits.collect();
        let mut candidate = None;
        for length in lengths.into_iter().rev() {
            let Some(at) = reading::appended(typed, length) else { continue };
            let digits = typed.get(at..).unwrap_or_default();
            let found = self.match_passcode(keys, digits)?;
            if found != PasscodeMatch::Wrong {
                return Ok(Some(Appended { at, is_right: true }));
            }
            candidate = candidate.or(Some(Appended { at, is_right: false }));
        }
        Ok(candidate)
    }
}

/// The cluster that challenges are of.
pub(super) fn cluster(state: &State) -> ClusterId {
    state.nodes().authority().map_or(ClusterId([0; 16]), |authority| authority.cluster)
}

/// The directories that the client asks.
pub(super) fn directories(state: &State, request: &Request) -> Vec<(DirectoryId, Arc<Directory>)> {
    let sources = request.policy.first_factor.sources().iter();
    let directories = sources.filter_map(|source| match source {
        Source::Local => None,
        Source::Directory(id) => Some((*id, state.directory(*id)?.clone())),
    });
    directories.collect()
}

/// What a copy of this request was told, where it pays to look before the examination: it may compare
/// a password, or end in a challenge although the first copy was decided (by a bypass that it used
/// up). Any other examination ends in an entry, and `apply` looks itself.
fn decided_before(state: &State, request: &Request, now: Timestamp) -> Option<Decision> {
    let compares_password =
        request.policy.first_factor != FirstFactor::None && request.challenge.is_none();
    if !compares_password && !request.credential.typed().is_empty() {
        return None;
    }
    match state.attempts().decision(request.id, now)? {
        Decided::Lately(attempt, earlier) => Some(Decision::again(attempt, earlier)),
        Decided::LongAgo => None,
    }
}

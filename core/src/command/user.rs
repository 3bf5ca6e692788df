//! Commands about users.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Countable, Moment, NewDevice, Refusal, Text, check_count, check_text, device};
use crate::id::UserId;
use crate::limits::{USER_DEVICES_MAX, USER_GROUPS_MAX, USERS_MAX};
use crate::lockout::Lockout;
use crate::name::UserName;
use crate::sealed::Sealed;
use crate::state::State;
use crate::user::{Block, Bypass, Password, Profile, User};

/// A user to add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewUser {
    /// Drawn at random by the proposer.
    pub id: UserId,
    /// Canonical name.
    pub name: UserName,
    /// The descriptive part.
    pub profile: Profile,
    /// The argon2id hash of a local password, sealed for `id`.
    pub password: Option<Sealed>,
    /// False adds the user disabled.
    pub enabled: bool,
    /// Devices to enrol along with the user.
    pub devices: Vec<NewDevice>,
}

/// A change to a user; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserChange {
    /// A new name.
    pub name: Option<UserName>,
    /// A new full name.
    pub full_name: Option<Arc<str>>,
    /// A new mail address.
    pub mail: Option<Arc<str>>,
    /// New groups.
    pub groups: Option<Arc<[Arc<str>]>>,
    /// Enables or disables.
    pub enabled: Option<bool>,
    /// The argon2id hash of a new password, sealed for the user's id; `Some(None)` takes the password
    /// away.
    pub password: Option<Option<Sealed>>,
}

pub(super) fn add(state: &mut State, at: Moment, new: &NewUser) -> Result<(), Refusal> {
    if state.user_id(&new.name).is_some() {
        return Err(Refusal::UserExists(new.name.as_str().into()));
    }
    if state.users.contains_key(&new.id) {
        return Err(Refusal::IdTaken);
    }
    check_count(state.users.len() + 1, USERS_MAX, Countable::Users)?;
    check_count(new.devices.len(), USER_DEVICES_MAX, Countable::Devices)?;
    let profile = checked_profile(&new.profile)?;
    for (position, one) in new.devices.iter().enumerate() {
        device::check(state, one)?;
        if new.devices.iter().take(position).any(|other| other.id == one.id) {
            return Err(Refusal::IdTaken);
        }
    }
    let user = User {
        name: new.name.clone(),
        profile,
        enabled: new.enabled,
        password: new.password.clone().map(|hash| Password { hash, revision: at.index }),
        devices: new.devices.iter().map(|one| one.id).collect(),
        block: None,
        bypass: None,
        password_lockout: Lockout::default(),
        passcode_lockout: Lockout::default(),
        created: at.now,
    };
    for one in &new.devices {
        state.devices.insert(one.id, Arc::new(device::enrolled(one, new.id, at.now)));
    }
    state.user_names.insert(new.name.clone(), new.id);
    state.users.insert(new.id, Arc::new(user));
    Ok(())
}

pub(super) fn change(
    state: &mut State,
    at: Moment,
    id: UserId,
    change: &UserChange,
) -> Result<(), Refusal> {
    let user = state.user(id).ok_or(Refusal::UserUnknown)?;
    let mut next = User::clone(user);
    if let Some(name) = &change.name {
        if state.user_id(name).is_some_and(|other| other != id) {
            return Err(Refusal::UserExists(name.as_str().into()));
        }
        next.name = name.clone();
    }
    if let Some(full_name) = &change.full_name {
        next.profile.full_name = full_name.clone();
    }
    if let Some(mail) = &change.mail {
        next.profile.mail = mail.clone();
    }
    if let Some(groups) = &change.groups {
        next.profile.groups = groups.clone();
    }
    next.profile = checked_profile(&next.profile)?;
    next.enabled = change.enabled.unwrap_or(next.enabled);
    if let Some(hash) = &change.password {
        next.password = hash.clone().map(|hash| Password { hash, revision: at.index });
        next.password_lockout.clear();
    }
    let old_name = user.name.clone();
    if next.name != old_name {
        state.user_names.remove(&old_name);
        state.user_names.insert(next.name.clone(), id);
    }
    state.users.insert(id, Arc::new(next));
    Ok(())
}

pub(super) fn delete(state: &mut State, id: UserId) -> Result<(), Refusal> {
    let user = state.user(id).ok_or(Refusal::UserUnknown)?.clone();
    for device in user.devices.iter() {
        state.devices.remove(device);
    }
    state.user_names.remove(&user.name);
    state.users.remove(&id);
    Ok(())
}

pub(super) fn block(
    state: &mut State,
    at: Moment,
    id: UserId,
    reason: &Arc<str>,
    by: &Arc<str>,
    for_ms: Option<u64>,
) -> Result<(), Refusal> {
    check_text(reason, true, Text::Reason)?;
    let user = state.user_mut(id).ok_or(Refusal::UserUnknown)?;
    user.block = Some(Box::new(Block {
        reason: reason.clone(),
        by: by.clone(),
        since: at.now,
        until: for_ms.map(|ms| at.now.plus_ms(ms)),
    }));
    Ok(())
}

pub(super) fn unblock(state: &mut State, id: UserId) -> Result<(), Refusal> {
    let user = state.user_mut(id).ok_or(Refusal::UserUnknown)?;
    user.block = None;
    user.password_lockout.clear();
    user.passcode_lockout.clear();
    Ok(())
}

pub(super) fn grant_bypass(
    state: &mut State,
    at: Moment,
    id: UserId,
    reason: &Arc<str>,
    by: &Arc<str>,
    for_ms: u64,
) -> Result<(), Refusal> {
    check_text(reason, true, Text::Reason)?;
    let user = state.user_mut(id).ok_or(Refusal::UserUnknown)?;
    user.bypass = Some(Box::new(Bypass {
        reason: reason.clone(),
        by: by.clone(),
        until: at.now.plus_ms(for_ms),
        revision: at.index,
    }));
    Ok(())
}

/// The profile with sorted groups, if its texts are within bounds.
fn checked_profile(profile: &Profile) -> Result<Profile, Refusal> {
    check_text(&profile.full_name, false, Text::Profile)?;
    check_text(&profile.mail, false, Text::Profile)?;
    check_count(profile.groups.len(), USER_GROUPS_MAX, Countable::Groups)?;
    profile.groups.iter().try_for_each(|group| check_text(group, true, Text::Profile))?;
    let mut groups = profile.groups.to_vec();
    groups.sort_unstable();
    groups.dedup();
    Ok(Profile {
        full_name: compact(&profile.full_name),
        mail: compact(&profile.mail),
        groups: if groups.is_empty() { Arc::default() } else { groups.into() },
    })
}

/// The text; all empty ones are one, which takes no memory.
fn compact(text: &Arc<str>) -> Arc<str> {
    if text.is_empty() { Arc::default() } else { text.clone() }
}

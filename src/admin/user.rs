//! Users: add, look up, edit, block, bypass, delete.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use watchword_core::Command;
use watchword_core::command::{NewUser, UserChange};
use watchword_core::id::UserId;
use watchword_core::name::UserName;
use watchword_core::sealed::Sealed;
use watchword_core::state::State;
use watchword_core::user::{Profile, User};
use zeroize::Zeroizing;

use super::{Admin, AdminError, DeviceView, find_user, rfc3339};
use crate::auth::{PASSWORD_BYTES, check_hash, hash_password};
use crate::keys::Owner;
use crate::{clock, random};

/// Users on one page of a listing at most.
const PAGE_MAX: usize = 1_000;

/// A user to add.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserSpec {
    /// Name, in any spelling.
    pub username: String,
    /// Full name.
    pub full_name: String,
    /// Mail address.
    pub mail: String,
    /// Groups.
    pub groups: Vec<String>,
    /// A local password, in the clear.
    pub password: Option<String>,
    /// A local password's argon2id hash, in place of `password`.
    pub password_hash: Option<String>,
    /// Adds the user disabled.
    pub disabled: bool,
}

/// Changes to a user; what is absent stays.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserEdit {
    /// A new name.
    pub username: Option<String>,
    /// A new full name.
    pub full_name: Option<String>,
    /// A new mail address.
    pub mail: Option<String>,
    /// New groups.
    pub groups: Option<Vec<String>>,
    /// Enables or disables.
    pub enabled: Option<bool>,
    /// A new local password.
    pub password: Option<String>,
}

/// Blocks a user.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockSpec {
    /// Why.
    pub reason: String,
    /// How long in seconds; absent: as the settings say.
    pub seconds: Option<u64>,
}

/// Lets a user in once without second factor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BypassSpec {
    /// Why.
    pub reason: String,
    /// How long in seconds; absent: as the settings say.
    pub seconds: Option<u64>,
}

/// A user as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UserView {
    /// Id.
    pub id: String,
    /// Canonical name.
    pub username: String,
    /// Full name.
    pub full_name: String,
    /// Mail address.
    pub mail: String,
    /// Groups.
    pub groups: Vec<String>,
    /// `enabled`, `disabled`, `blocked` or `locked`.
    pub state: String,
    /// Why, and until when, for a user who is blocked or locked.
    pub state_detail: Option<String>,
    /// Whether there is a local password.
    pub has_password: bool,
    /// Until when a bypass lasts.
    pub bypass_until: Option<String>,
    /// Wrong passwords that count now.
    pub password_failures: u32,
    /// Wrong passcodes that count now.
    pub passcode_failures: u32,
    /// When the user was added.
    pub created: String,
    /// What the user holds.
    pub devices: Vec<DeviceView>,
}

/// One page of users.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UsersPage {
    /// The users, by name.
    pub users: Vec<UserView>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
    /// Users in all.
    pub total: usize,
}

impl Admin {
    /// Adds a user and returns it.
    ///
    /// # Errors
    /// When the name is taken, or a value is refused.
    pub async fn add_user(&self, spec: UserSpec) -> Result<UserView, AdminError> {
        let name = spec.username.clone();
        self.seal_as_now().await?;
        let new = self.new_user(spec).await?;
        self.propose(Command::AddUser(Box::new(new))).await?;
        self.user(&name).await
    }

    /// The command's data for `spec`: id drawn, password hashed and sealed.
    pub(super) async fn new_user(&self, spec: UserSpec) -> Result<NewUser, AdminError> {
        let id = UserId(random::bytes()?);
        let password = match (spec.password, spec.password_hash) {
            (Some(_), Some(_)) => {
                let reason = "give a password or its hash, not both";
                return Err(AdminError::Invalid(reason.to_owned()));
            }
            (Some(password), None) => Some(self.sealed_password(id, password).await?),
            (None, Some(hash)) => {
                check_hash(&hash)?;
                Some(self.keys.seal(Owner::UserPassword(id), hash.as_bytes())?)
            }
            (None, None) => None,
        };
        Ok(NewUser {
            id,
            name: UserName::canonical(&spec.username)?,
            profile: Profile {
                full_name: spec.full_name.trim().into(),
                mail: spec.mail.trim().into(),
                groups: groups(&spec.groups),
            },
            password,
            enabled: !spec.disabled,
            devices: Vec::new(),
        })
    }

    /// Hashes a password on a blocking thread and seals the hash for its user.
    async fn sealed_password(&self, id: UserId, password: String) -> Result<Sealed, AdminError> {
        let password = Zeroizing::new(password);
        if !PASSWORD_BYTES.contains(&password.len()) {
            let reason = format!(
                "a password has {} to {} bytes",
                PASSWORD_BYTES.start(),
                PASSWORD_BYTES.end()
            );
            return Err(AdminError::Invalid(reason));
        }
        let hash = watchword_cluster::off_thread(move || hash_password(password.as_bytes()))
            .await
            .map_err(|_| AdminError::UnexpectedResult)??;
        Ok(self.keys.seal(Owner::UserPassword(id), hash.as_bytes())?)
    }

    /// The user called `name`.
    ///
    /// # Errors
    /// When there is none.
    pub async fn user(&self, name: &str) -> Result<UserView, AdminError> {
        let state = self.state().await?;
        let (id, user) = find_user(&state, name)?;
        Ok(view(&state, id, user))
    }

    /// Up to `limit` users by name, after the one called `after`.
    ///
    /// # Errors
    /// When no fresh state can be read.
    pub async fn users(&self, after: Option<&str>, limit: usize) -> Result<UsersPage, AdminError> {
        let state = self.state().await?;
        let after = after.map(UserName::canonical).transpose()?;
        let limit = limit.clamp(1, PAGE_MAX);
        let mut rest = state.users_after(after.as_ref()).peekable();
        let users: Vec<UserView> =
            rest.by_ref().take(limit).map(|(id, user)| view(&state, id, user)).collect();
        let next = rest.peek().and(users.last()).map(|last| last.username.clone());
        Ok(UsersPage { users, next, total: state.user_count() })
    }

    /// Changes a user and returns it.
    ///
    /// # Errors
    /// When there is no such user, or a value is refused.
    pub async fn edit_user(&self, name: &str, edit: UserEdit) -> Result<UserView, AdminError> {
        let state = self.state().await?;
        let (id, _) = find_user(&state, name)?;
        let UserEdit { username, full_name, mail, groups: new_groups, enabled, password } = edit;
        let change = UserChange {
            name: username.as_deref().map(UserName::canonical).transpose()?,
            full_name: full_name.map(|text| text.trim().into()),
            mail: mail.map(|text| text.trim().into()),
            groups: new_groups.map(|names| groups(&names)),
            enabled,
            password: match password {
                Some(password) => Some(Some(self.sealed_password(id, password).await?)),
                None => None,
            },
        };
        let renamed = change.name.clone();
        if change != UserChange::default() {
            self.propose(Command::ChangeUser { user: id, change }).await?;
        }
        self.user(renamed.as_ref().map_or(name, UserName::as_str)).await
    }

    /// Removes a user and all devices.
    ///
    /// # Errors
    /// When there is no such user.
    pub async fn delete_user(&self, name: &str) -> Result<(), AdminError> {
        let (user, _) = find_user(&self.state().await?, name)?;
        self.propose(Command::DeleteUser { user }).await
    }

    /// Refuses every attempt of a user from now on.
    ///
    /// # Errors
    /// When there is no such user, or no reason.
    pub async fn block_user(
        &self,
        name: &str,
        spec: BlockSpec,
        by: &str,
    ) -> Result<UserView, AdminError> {
        let state = self.state().await?;
        let (user, _) = find_user(&state, name)?;
        let seconds = spec.seconds.unwrap_or(state.settings().block_days() * 86_400);
        let (reason, by) = (spec.reason.into(), by.into());
        let for_ms = Some(seconds.saturating_mul(1000));
        self.propose(Command::BlockUser { user, reason, by, for_ms }).await?;
        self.user(name).await
    }

    /// Lifts a block and any lock.
    ///
    /// # Errors
    /// When there is no such user.
    pub async fn unblock_user(&self, name: &str) -> Result<UserView, AdminError> {
        let (user, _) = find_user(&self.state().await?, name)?;
        self.propose(Command::UnblockUser { user }).await?;
        self.user(name).await
    }

    /// Lets a user in once without second factor.
    ///
    /// # Errors
    /// When there is no such user, or no reason.
    pub async fn bypass_user(
        &self,
        name: &str,
        spec: BypassSpec,
        by: &str,
    ) -> Result<UserView, AdminError> {
        let state = self.state().await?;
        let (user, _) = find_user(&state, name)?;
        let seconds = spec.seconds.unwrap_or(state.settings().bypass_seconds());
        if !(10..=86_400).contains(&seconds) {
            let reason = "a bypass lasts between 10 and 86400 seconds";
            return Err(AdminError::Invalid(reason.to_owned()));
        }
        let (reason, by) = (spec.reason.into(), by.into());
        let for_ms = seconds * 1000;
        self.propose(Command::GrantBypass { user, reason, by, for_ms }).await?;
        self.user(name).await
    }
}

fn groups(names: &[String]) -> Arc<[Arc<str>]> {
    names.iter().map(|name| name.trim().into()).collect()
}

fn view(state: &State, id: UserId, user: &User) -> UserView {
    let now = clock::now().max(state.time());
    let settings = state.settings();
    let locked_until = [&user.password_lockout, &user.passcode_lockout]
        .into_iter()
        .filter_map(|lockout| lockout.locked_until(now))
        .max();
    let (status, detail) = if !user.enabled {
        ("disabled", None)
    } else if let Some(block) = user.block_at(now) {
        let until = block.until.map_or("unblocked".to_owned(), rfc3339);
        ("blocked", Some(format!("until {until} by {}: {}", block.by, block.reason)))
    } else if let Some(until) = locked_until {
        ("locked", Some(format!("until {}", rfc3339(until))))
    } else {
        ("enabled", None)
    };
    UserView {
        id: id.to_string(),
        username: user.name.to_string(),
        full_name: user.profile.full_name.to_string(),
        mail: user.profile.mail.to_string(),
        groups: user.profile.groups.iter().map(ToString::to_string).collect(),
        state: status.to_owned(),
        state_detail: detail,
        has_password: user.password.is_some(),
        bypass_until: user.bypass_at(now).map(|bypass| rfc3339(bypass.until)),
        password_failures: user.password_lockout.failures(now, settings.password_limits()),
        passcode_failures: user.passcode_lockout.failures(now, settings.passcode_limits()),
        created: rfc3339(user.created),
        devices: state.devices_of(user).map(|(id, device)| DeviceView::new(id, device)).collect(),
    }
}

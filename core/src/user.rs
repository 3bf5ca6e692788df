//! People who log in.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{DeviceId, UserId};
use crate::lockout::Lockout;
use crate::name::UserName;
use crate::sealed::Sealed;
use crate::time::Timestamp;

/// One user. A change yields a new value; texts are shared with the old one. What few users have is
/// boxed, because there are many users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Canonical name; unique.
    pub name: UserName,
    /// What an administrator may edit.
    pub profile: Profile,
    /// A disabled user is refused everywhere.
    pub enabled: bool,
    /// The local password, if the user has one.
    pub password: Option<Password>,
    /// What the user holds, in order of enrolment.
    pub devices: Arc<[DeviceId]>,
    /// A block in force, perhaps one that has expired.
    pub block: Option<Box<Block>>,
    /// A bypass that has been granted and not yet used, perhaps one that has expired.
    pub bypass: Option<Box<Bypass>>,
    /// Failed passwords.
    pub password_lockout: Lockout,
    /// Failed passcodes.
    pub passcode_lockout: Lockout,
    /// When the user was added.
    pub created: Timestamp,
}

/// The descriptive part of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Full name, for people.
    pub full_name: Arc<str>,
    /// Mail address.
    pub mail: Arc<str>,
    /// Names of groups, sorted, without doubles.
    pub groups: Arc<[Arc<str>]>,
}

/// A local password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Password {
    /// The argon2id hash in PHC format, sealed for the user's id.
    pub hash: Sealed,
    /// Log index of the change that set it: proof that a check was made against this password.
    pub revision: u64,
}

/// Every attempt of a blocked user is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Why.
    pub reason: Arc<str>,
    /// Who blocked.
    pub by: Arc<str>,
    /// Since when.
    pub since: Timestamp,
    /// Until when; `None`: until unblocked.
    pub until: Option<Timestamp>,
}

/// Permission for one login without second factor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bypass {
    /// Why.
    pub reason: Arc<str>,
    /// Who granted it.
    pub by: Arc<str>,
    /// When it lapses, used or not.
    pub until: Timestamp,
    /// Log index of the grant: proof that an attempt relies on this one.
    pub revision: u64,
}

impl User {
    /// The block in force at `now`.
    pub fn block_at(&self, now: Timestamp) -> Option<&Block> {
        self.block.as_deref().filter(|block| block.until.is_none_or(|until| until > now))
    }

    /// The bypass in force at `now`.
    pub fn bypass_at(&self, now: Timestamp) -> Option<&Bypass> {
        self.bypass.as_deref().filter(|bypass| bypass.until > now)
    }
}

/// A user and its id, as look-ups return it.
pub type UserEntry<'a> = (UserId, &'a Arc<User>);

//! What is required of a user at a client.
//!
//! These rules are read twice: by the node that handles a request, to refuse early, and by `apply`,
//! which alone may accept.

use crate::attempt::Reason;
use crate::time::Timestamp;
use crate::user::User;

/// Whether `user` may try to log in at all at `now`.
///
/// # Errors
/// The reason for the refusal.
pub fn admit(user: &User, now: Timestamp) -> Result<(), Reason> {
    if !user.enabled {
        Err(Reason::UserDisabled)
    } else if user.block_at(now).is_some() {
        Err(Reason::UserBlocked)
    } else if user.password_lockout.locked_until(now).is_some() {
        Err(Reason::PasswordLocked)
    } else if user.passcode_lockout.locked_until(now).is_some() {
        Err(Reason::PasscodeLocked)
    } else {
        Ok(())
    }
}

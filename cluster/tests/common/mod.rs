//! What the tests inside and outside the crate propose.

use watchword_core::Command;
use watchword_core::command::NewUser;
use watchword_core::id::UserId;
use watchword_core::name::UserName;
use watchword_core::user::Profile;

/// Adds the user with this number.
pub(crate) fn add_user(number: u64) -> Command {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    Command::AddUser(Box::new(NewUser {
        id: UserId(id),
        name: UserName::canonical(&format!("user-{number}")).expect("a name"),
        profile: Profile::default(),
        password: None,
        enabled: true,
        devices: Vec::new(),
    }))
}

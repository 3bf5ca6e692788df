//! Commands that replace the data key. The key itself never comes near the log, not even sealed.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ClientFields, Command, Countable, Moment, NewDevice, PutClient, Refusal, check_count};
use crate::client::ClientKind;
use crate::data_key::{DataKeys, Secret};
use crate::limits::{RESEALED_MAX, SEALED_BYTES_MAX};
use crate::node::NodeId;
use crate::sealed::{KeyId, Sealed};
use crate::state::State;

/// A secret that is sealed under another key. Its content is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resealed {
    /// Which.
    pub secret: Secret,
    /// What it was; if it is something else by now, it stays.
    pub old: Sealed,
    /// What it becomes.
    pub new: Sealed,
}

/// Whether `command` brings nothing into the state that is sealed under another key than the current
/// one. The holders of that one need no other.
pub(super) fn permits(state: &State, command: &Command) -> bool {
    let keys = state.data_keys();
    let devices = |new: &[NewDevice]| new.iter().all(|device| keys.is_current(&device.key));
    match command {
        Command::AddUser(new) => {
            new.password.iter().all(|hash| keys.is_current(hash)) && devices(&new.devices)
        }
        Command::ChangeUser { change, .. } => {
            change.password.iter().flatten().all(|hash| keys.is_current(hash))
        }
        Command::AddDevice { device, .. } => keys.is_current(&device.key),
        Command::AddClient(put) => keys.is_current(secret_of(put)),
        // An edit leaves the secret as it is, unless there is a new one.
        Command::EditClient(put) => {
            keys.is_current(secret_of(put))
                || state.secret(Secret::ClientSecret(put.id)) == Some(secret_of(put))
        }
        Command::AddDirectory(put) => {
            put.kind.secret().is_none_or(|secret| keys.is_current(secret))
        }
        Command::EditDirectory(put) => put.kind.secret().is_none_or(|secret| {
            keys.is_current(secret)
                || state.secret(Secret::DirectorySecret(put.id)) == Some(secret)
        }),
        Command::Reseal { items } => items.iter().all(|item| keys.is_current(&item.new)),
        // The first seal tells the first key.
        Command::Found(_)
        | Command::DeleteUser { .. }
        | Command::BlockUser { .. }
        | Command::UnblockUser { .. }
        | Command::GrantBypass { .. }
        | Command::RevokeDevice { .. }
        | Command::ResyncDevice { .. }
        | Command::RemoveClient { .. }
        | Command::RemoveDirectory { .. }
        | Command::LearnServer { .. }
        | Command::LearnClient { .. }
        | Command::ChangeSettings { .. }
        | Command::EnableFeature { .. }
        // What these hold does not outlive the earlier key by long, and is not sealed anew.
        | Command::Conclude(_)
        | Command::HoldReply(_)
        | Command::CreateToken { .. }
        | Command::RevokeToken { .. }
        | Command::AdmitNode(_)
        | Command::RemoveNode { .. }
        | Command::EditNode { .. }
        | Command::Recover { .. }
        | Command::Checkpoint
        | Command::UseKey { .. }
        | Command::RetireKeys { .. } => true,
    }
}

fn secret_of(put: &PutClient) -> &Sealed {
    let ClientFields::Radius(radius) = &put.fields;
    &radius.secret
}

/// Goes over to another key. Whoever belongs to the cluster must hold it, and nobody else: a node that
/// came meanwhile could open nothing, one that was removed must not know it.
pub(super) fn use_key(
    state: &mut State,
    at: Moment,
    key: KeyId,
    generation: u64,
    holders: &[NodeId],
) -> Result<(), Refusal> {
    let keys = state.data_keys;
    if !keys.is_settled {
        return Err(Refusal::RotationUnfinished);
    }
    if generation != keys.generation.saturating_add(1) || keys.current == Some(key) {
        return Err(Refusal::DataKeyReplaced);
    }
    let present: BTreeSet<NodeId> = state.nodes.present().map(|(id, _)| id).collect();
    let holders = holders.iter().copied().collect();
    let mut differing = present.symmetric_difference(&holders);
    if let Some(&node) = differing.next().filter(|_| !cfg!(mutant = "use_unheld_key")) {
        return Err(Refusal::NodesChanged(node));
    }
    state.data_keys =
        DataKeys { current: Some(key), generation, is_settled: false, revision: at.index };
    Ok(())
}

/// Exchanges seals, each if it is still the one that was exchanged. No revision moves: the secrets are
/// what they were, and no login that is under way becomes wrong.
pub(super) fn reseal(state: &mut State, at: Moment, items: &[Resealed]) -> Result<(), Refusal> {
    check_count(items.len(), RESEALED_MAX, Countable::Reseals)?;
    if items.iter().any(|item| item.new.as_bytes().len() > SEALED_BYTES_MAX) {
        return Err(Refusal::KeyMalformed);
    }
    for Resealed { secret, old, new } in items {
        if (state.secret(*secret) == Some(old) || cfg!(mutant = "reseal_what_changed"))
            && let Some(held) = secret_mut(state, *secret)
        {
            *held = new.clone();
        }
    }
    state.data_keys.revision = at.index;
    Ok(())
}

fn secret_mut(state: &mut State, secret: Secret) -> Option<&mut Sealed> {
    match secret {
        Secret::UserPassword(id) => {
            state.user_mut(id)?.password.as_mut().map(|password| &mut password.hash)
        }
        Secret::DeviceKey(id) => Some(&mut state.device_mut(id)?.key),
        Secret::ClientSecret(id) => {
            let ClientKind::Radius(radius) = &mut state.client_mut(id)?.kind;
            Some(&mut radius.secret)
        }
        Secret::AuthorityKey => {
            state.nodes.authority.as_mut().map(|held| &mut Arc::make_mut(held).key)
        }
        Secret::DirectorySecret(id) => state.directory_mut(id)?.kind.secret_mut(),
    }
}

/// Gives the earlier keys up: nobody needs them any more.
pub(super) fn retire(state: &mut State, at: Moment, generation: u64) -> Result<(), Refusal> {
    if generation != state.data_keys.generation {
        return Err(Refusal::DataKeyReplaced);
    }
    let left = state.secrets().filter(|(_, sealed)| !state.data_keys.is_current(sealed)).count();
    if left > 0 {
        return Err(Refusal::SealedOtherwise(left as u64));
    }
    state.data_keys.is_settled = true;
    state.data_keys.revision = at.index;
    Ok(())
}

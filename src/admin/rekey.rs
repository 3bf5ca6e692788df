//! Replacing the data key of the whole cluster, step by step, while logins go on.
//!
//! The new key goes to every node over the connections between members; the log learns its id alone.
//! Where things stand is in the state, so that any node goes on with what another has begun.

use serde::{Deserialize, Serialize};
use watchword_cluster::HandOutError;
use watchword_core::command::Resealed;
use watchword_core::data_key::{DataKeys, Secret};
use watchword_core::sealed::Sealed;
use watchword_core::{Command, Refusal, State};

use super::{Admin, AdminError, done};
use crate::keys::{DataKey, KeyError, Keyring, Owner};

/// Secrets that one step seals anew: what a fresh read is worth, and little to lose.
const STEP_SECRETS: usize = 4_096;
/// Bytes of sealed secrets in one entry of the log.
const ENTRY_SEALED_BYTES: usize = 32 * 1024;
/// Keys that are handed out in vain because nodes come and go meanwhile.
const HAND_OUTS_MAX: usize = 3;

/// What a step may do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RekeySpec {
    /// Whether to begin if nothing is unfinished.
    pub begin: bool,
}

/// Where a replacement of the data key stands after a step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RekeyView {
    /// Id of the key in force.
    pub key: String,
    /// Whether this step has begun it.
    pub begun: bool,
    /// Secrets that the state holds.
    pub secrets: u64,
    /// Those of them that are still sealed under an earlier key.
    pub left: u64,
    /// Whether the earlier keys are given up.
    pub is_finished: bool,
}

impl Admin {
    /// Does the next step of replacing the data key: hands out and uses a new one, seals some of the
    /// secrets under it, or gives the earlier ones up.
    ///
    /// # Errors
    /// When a node does not answer or cannot keep the key; then the key in force stays. When a secret
    /// does not open; it is named.
    pub async fn rekey(&self, spec: RekeySpec) -> Result<RekeyView, AdminError> {
        let state = self.state().await?;
        if state.data_keys().is_settled && spec.begin {
            self.use_new_key(state).await?;
            return self.view(true).await;
        }
        if !state.data_keys().is_settled {
            let generation = state.data_keys().generation;
            let (keys, of) = (self.keys.clone(), state);
            let resealed = off_the_runtime(move || sealed_anew(&keys, &of)).await??;
            if resealed.is_empty() {
                self.propose(Command::RetireKeys { generation }).await?;
            } else {
                let applied = self.cluster.propose_many(commands(resealed)).await?;
                applied.into_iter().try_for_each(done)?;
            }
        }
        self.view(false).await
    }

    async fn view(&self, begun: bool) -> Result<RekeyView, AdminError> {
        let state = self.state().await?;
        off_the_runtime(move || view(&state, begun)).await
    }

    /// Hands a new key to every node and uses it.
    async fn use_new_key(&self, mut state: State) -> Result<(), AdminError> {
        if state.nodes().authority().is_none() {
            return Err(AdminError::NotFounded);
        }
        let mut refused = None;
        for _ in 0..HAND_OUTS_MAX {
            match self.hand_out_and_use(state.data_keys()).await {
                // One that was removed meanwhile knows the key: it must be another.
                Err(AdminError::Refused(refusal @ Refusal::NodesChanged(_))) => {
                    refused = Some(refusal);
                    state = self.state().await?;
                }
                used => return used,
            }
        }
        Err(refused.map_or(AdminError::UnexpectedResult, AdminError::Refused))
    }

    async fn hand_out_and_use(&self, in_force: &DataKeys) -> Result<(), AdminError> {
        self.cluster.ask_everybody().await?;
        let generation = in_force.generation + 1;
        let new = DataKey::generate(generation)?;
        let (key, encoded) = (new.id(), new.encode());
        let keys = self.keys.clone();
        off_the_runtime(move || keys.hold(new)).await??;
        let holders = self.cluster.hand_out(&encoded).await?;
        tracing::info!(%key, ?holders, "a new data key was handed out");
        self.propose(Command::UseKey { key, generation, holders }).await
    }
}

/// Does what takes its time (a passphrase, a walk over all users) where nobody waits for it.
async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, AdminError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| AdminError::UnexpectedResult)
}

fn view(state: &State, begun: bool) -> RekeyView {
    let keys = state.data_keys();
    RekeyView {
        key: keys.current.map(|key| key.to_string()).unwrap_or_default(),
        begun,
        secrets: state.secrets().count() as u64,
        left: left(state).count() as u64,
        is_finished: keys.is_settled,
    }
}

/// What is sealed under an earlier key.
fn left(state: &State) -> impl Iterator<Item = (Secret, &Sealed)> {
    let keys = state.data_keys();
    state.secrets().filter(|(_, sealed)| !keys.is_current(sealed))
}

/// The first of them, under the current key; none when there are none left.
fn sealed_anew(keys: &Keyring, state: &State) -> Result<Vec<Resealed>, AdminError> {
    let anew = |(secret, old): (Secret, &Sealed)| {
        let owner = owner(state, secret).ok_or(AdminError::NotFounded)?;
        let clear = keys.open(owner, old).map_err(|error| match error {
            KeyError::DoesNotOpen => AdminError::Conflict(format!(
                "{} opens under no data key that this node holds; set it anew or remove it, and run the \
                 command again",
                name(state, secret)
            )),
            error => error.into(),
        })?;
        Ok(Resealed { secret, old: old.clone(), new: keys.seal(owner, &clear)? })
    };
    left(state).take(STEP_SECRETS).map(anew).collect()
}

/// What a secret is sealed for.
fn owner(state: &State, secret: Secret) -> Option<Owner> {
    Some(match secret {
        Secret::UserPassword(id) => Owner::UserPassword(id),
        Secret::DeviceKey(id) => Owner::DeviceKey(id),
        Secret::ClientSecret(id) => Owner::ClientSecret(id),
        Secret::AuthorityKey => Owner::AuthorityKey(state.nodes().authority()?.cluster),
        Secret::DirectorySecret(id) => Owner::DirectorySecret(id),
    })
}

/// What a secret is, for people.
fn name(state: &State, secret: Secret) -> String {
    match secret {
        Secret::UserPassword(id) => {
            let user = state.user(id).map_or_else(String::new, |user| user.name.to_string());
            format!("the password of user {user}")
        }
        Secret::DeviceKey(id) => format!("the key of device {id}"),
        Secret::ClientSecret(id) => {
            let client = state.client(id).map_or("", |client| &client.name);
            format!("the shared secret of client {client}")
        }
        Secret::AuthorityKey => "the key of the cluster's authority".to_owned(),
        Secret::DirectorySecret(id) => {
            let directory = state.directory(id).map_or("", |directory| &directory.name);
            format!("the password for searching directory {directory}")
        }
    }
}

/// Commands that are short enough for the log.
fn commands(resealed: Vec<Resealed>) -> Vec<Command> {
    let mut commands = Vec::new();
    let (mut items, mut bytes) = (Vec::new(), 0);
    for item in resealed {
        bytes += item.old.as_bytes().len() + item.new.as_bytes().len();
        items.push(item);
        if bytes >= ENTRY_SEALED_BYTES {
            commands.push(Command::Reseal { items: std::mem::take(&mut items) });
            bytes = 0;
        }
    }
    if !items.is_empty() {
        commands.push(Command::Reseal { items });
    }
    commands
}

impl From<HandOutError> for AdminError {
    fn from(error: HandOutError) -> Self {
        Self::Conflict(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use watchword_core::limits::{ENTRY_BYTES_MAX, RESEALED_MAX, SEALED_BYTES_MAX};
    use watchword_core::{Entry, codec, time::Timestamp};

    use super::*;

    #[test]
    fn every_entry_is_short_enough_whatever_the_secrets_are() {
        for length in [21, 60, 140, SEALED_BYTES_MAX] {
            let sealed = Sealed::new(&vec![7; length]);
            let item = Resealed {
                secret: Secret::DeviceKey(watchword_core::id::DeviceId([0xff; 16])),
                old: sealed.clone(),
                new: sealed,
            };
            let commands = commands(vec![item; 3_000]);
            let mut count = 0;
            for command in commands {
                let Command::Reseal { items } = &command else { panic!("a reseal") };
                count += items.len();
                assert!(items.len() <= RESEALED_MAX, "{length}");
                let entry = Entry { time: Timestamp(u64::MAX), command };
                assert!(codec::encode(&entry).expect("encodes").len() <= ENTRY_BYTES_MAX);
            }
            assert_eq!(count, 3_000);
        }
    }
}

//! Commands about directories.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Countable, Moment, Refusal, Text, check_count, check_text};
use crate::client::{FirstFactor, Source};
use crate::directory::{Bind, Directory, DirectoryKind, Ldap, Trust, USER};
use crate::id::DirectoryId;
use crate::limits::{
    DIRECTORIES_MAX, DIRECTORY_SERVERS_MAX, DIRECTORY_TIMEOUT_MS, KEY_BYTES_MAX, SEALED_BYTES_MAX,
    TRUSTED_MAX,
};
use crate::state::State;

/// A directory to add, or to put in the place of the one with this id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutDirectory {
    /// Drawn at random by the proposer, or that of the directory to replace.
    pub id: DirectoryId,
    /// Unique name.
    pub name: Arc<str>,
    /// How it is asked.
    pub kind: DirectoryKind,
}

pub(super) fn add(state: &mut State, at: Moment, put: &PutDirectory) -> Result<(), Refusal> {
    if state.directories.contains_key(&put.id) {
        return Err(Refusal::IdTaken);
    }
    check_count(state.directories.len() + 1, DIRECTORIES_MAX, Countable::Directories)?;
    replace(state, at, put)
}

pub(super) fn edit(state: &mut State, at: Moment, put: &PutDirectory) -> Result<(), Refusal> {
    if !state.directories.contains_key(&put.id) {
        return Err(Refusal::DirectoryUnknown);
    }
    replace(state, at, put)
}

fn replace(state: &mut State, at: Moment, put: &PutDirectory) -> Result<(), Refusal> {
    check_text(&put.name, true, Text::DirectoryName)?;
    let is_taken =
        |(id, other): (&DirectoryId, &Arc<Directory>)| *id != put.id && other.name == put.name;
    if Source::RESERVED.contains(&&*put.name) || put.name.contains(',') {
        return Err(Refusal::DirectoryNameReserved);
    }
    if state.directories.iter().any(is_taken) {
        return Err(Refusal::DirectoryExists(put.name.clone()));
    }
    let DirectoryKind::Ldap(ldap) = &put.kind;
    check_ldap(ldap)?;
    let directory =
        Directory { name: put.name.clone(), revision: at.index, kind: put.kind.clone() };
    state.directories.insert(put.id, Arc::new(directory));
    state.directories_revision = at.index;
    Ok(())
}

fn check_ldap(ldap: &Ldap) -> Result<(), Refusal> {
    check_count(ldap.servers.len(), DIRECTORY_SERVERS_MAX, Countable::Servers)?;
    if ldap.servers.is_empty() || !DIRECTORY_TIMEOUT_MS.contains(&ldap.timeout_ms) {
        return Err(Refusal::DirectoryMalformed);
    }
    for server in ldap.servers.iter() {
        check_text(&server.host, true, Text::Address)?;
    }
    let (trusted, fits) = match &ldap.trust {
        Trust::System => (1, true),
        Trust::Authorities(certificates) => {
            let fits = certificates.iter().all(|certificate| certificate.len() <= KEY_BYTES_MAX);
            (certificates.len(), fits)
        }
        Trust::Fingerprints(digests) => (digests.len(), true),
    };
    check_count(trusted, TRUSTED_MAX, Countable::Trusted)?;
    let names_user = match &ldap.bind {
        Bind::Template(template) => {
            check_text(template, true, Text::BindName)?;
            template.contains(USER)
        }
        Bind::Search(search) => {
            check_text(&search.base, false, Text::BindName)?;
            check_text(&search.filter, true, Text::Filter)?;
            if let Some((name, password)) = &search.account {
                check_text(name, true, Text::BindName)?;
                if password.as_bytes().len() > SEALED_BYTES_MAX {
                    return Err(Refusal::DirectoryMalformed);
                }
            }
            search.filter.contains(USER)
        }
    };
    // A filter or name that is the same for everybody would let everybody in by one password.
    if names_user && trusted > 0 && fits { Ok(()) } else { Err(Refusal::DirectoryMalformed) }
}

pub(super) fn remove(state: &mut State, at: Moment, id: DirectoryId) -> Result<(), Refusal> {
    if !state.directories.contains_key(&id) {
        return Err(Refusal::DirectoryUnknown);
    }
    let asks = |first: &FirstFactor| first.sources().contains(&Source::Directory(id));
    let asking = state.clients.iter().find(|(_, client)| asks(&client.policy.first_factor));
    if let Some((_, client)) = asking {
        return Err(Refusal::DirectoryInUse(client.name.clone()));
    }
    state.directories.remove(&id);
    state.directories_revision = at.index;
    Ok(())
}

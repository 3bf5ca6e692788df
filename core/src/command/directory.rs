//! Commands about directories.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Countable, Moment, Refusal, Text, check_count, check_text};
use crate::client::{FirstFactor, Source};
use crate::directory::{
    Bind, Directory, DirectoryKind, Ldap, RadiusServer, RadiusTarget, Trust, USER,
};
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
    let old = state.directories.get(&put.id).ok_or(Refusal::DirectoryUnknown)?;
    let kind = keeping_habits(&old.kind, &put.kind);
    replace(state, at, &PutDirectory { kind, ..put.clone() })
}

/// What the holders of the old secret have shown says nothing about those of a new one.
fn keeping_habits(old: &DirectoryKind, new: &DirectoryKind) -> DirectoryKind {
    let (DirectoryKind::Radius(old), DirectoryKind::Radius(new)) = (old, new) else {
        return new.clone();
    };
    let is_same = |one: &RadiusServer, other: &RadiusServer| {
        (&one.host, one.port) == (&other.host, other.port) && old.secret == new.secret
    };
    let servers = new.servers.iter().map(|server| {
        let signs = old.servers.iter().any(|known| known.signs && is_same(known, server));
        RadiusServer { signs, ..server.clone() }
    });
    DirectoryKind::Radius(RadiusTarget { servers: servers.collect(), ..new.clone() })
}

/// Records that a server signs. The directory's own revision stays: no decision that is under way becomes wrong by it.
pub(super) fn learn(
    state: &mut State,
    at: Moment,
    id: DirectoryId,
    revision: u64,
    number: u8,
) -> Result<(), Refusal> {
    let directory = state.directory_mut(id).ok_or(Refusal::DirectoryUnknown)?;
    let DirectoryKind::Radius(target) = &mut directory.kind else {
        return Err(Refusal::DirectoryUnknown);
    };
    // It may be another server by now.
    if directory.revision == revision
        && let Some(server) = Arc::make_mut(&mut target.servers).get_mut(usize::from(number))
    {
        server.signs = true;
        state.directories_revision = at.index;
    }
    Ok(())
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
    if !DIRECTORY_TIMEOUT_MS.contains(&put.kind.timeout_ms()) {
        return Err(Refusal::DirectoryMalformed);
    }
    match &put.kind {
        DirectoryKind::Ldap(ldap) => check_ldap(ldap)?,
        DirectoryKind::Radius(target) => check_target(target)?,
    }
    let directory =
        Directory { name: put.name.clone(), revision: at.index, kind: put.kind.clone() };
    state.directories.insert(put.id, Arc::new(directory));
    state.directories_revision = at.index;
    Ok(())
}

fn check_ldap(ldap: &Ldap) -> Result<(), Refusal> {
    check_servers(ldap.servers.iter().map(|server| &*server.host))?;
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

fn check_target(target: &RadiusTarget) -> Result<(), Refusal> {
    check_servers(target.servers.iter().map(|server| &*server.host))?;
    let fits = target.secret.as_bytes().len() <= SEALED_BYTES_MAX;
    if fits { Ok(()) } else { Err(Refusal::DirectoryMalformed) }
}

fn check_servers<'a>(mut hosts: impl ExactSizeIterator<Item = &'a str>) -> Result<(), Refusal> {
    check_count(hosts.len(), DIRECTORY_SERVERS_MAX, Countable::Servers)?;
    if hosts.len() == 0 {
        return Err(Refusal::DirectoryMalformed);
    }
    hosts.try_for_each(|host| check_text(host, true, Text::Address))
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

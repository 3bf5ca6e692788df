//! Commands about clients.

use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Countable, Moment, Refusal, Text, check_count, check_text};
use crate::client::{
    Client, ClientKind, ClientPolicy, FirstFactor, RadiusClient, RadiusHabits, Requirement, Source,
};
use crate::id::ClientId;
use crate::limits::{CLIENT_ADDRESSES_MAX, CLIENT_SOURCES_MAX, CLIENTS_MAX, SEALED_BYTES_MAX};
use crate::sealed::Sealed;
use crate::state::State;

/// A client to add, or to put in the place of the one with this id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutClient {
    /// Drawn at random by the proposer, or that of the client to replace.
    pub id: ClientId,
    /// Unique name.
    pub name: Arc<str>,
    /// How its users are authenticated.
    pub policy: ClientPolicy,
    /// The protocol it speaks.
    pub fields: ClientFields,
}

/// What an administrator decides about a client of each protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientFields {
    /// RADIUS over UDP.
    Radius(RadiusFields),
}

/// What an administrator decides about a RADIUS client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RadiusFields {
    /// Where it sends from.
    pub addresses: Arc<[IpNet]>,
    /// The shared secret, sealed for the client's id.
    pub secret: Sealed,
    /// Whether Message-Authenticator is demanded.
    pub require_message_authenticator: Requirement,
    /// Whether Proxy-State without Message-Authenticator is refused.
    pub limit_proxy_state: Requirement,
}

pub(super) fn add(state: &mut State, at: Moment, put: &PutClient) -> Result<(), Refusal> {
    if state.clients.contains_key(&put.id) {
        return Err(Refusal::IdTaken);
    }
    check_count(state.clients.len() + 1, CLIENTS_MAX, Countable::Clients)?;
    replace(state, at, put, RadiusHabits::default())
}

pub(super) fn edit(state: &mut State, at: Moment, put: &PutClient) -> Result<(), Refusal> {
    let client = state.clients.get(&put.id).ok_or(Refusal::ClientUnknown)?;
    // What the old secret's holder has shown says nothing about the new one's.
    let habits = match (&client.kind, &put.fields) {
        (ClientKind::Radius(old), ClientFields::Radius(new)) if old.secret == new.secret => {
            old.habits
        }
        _ => RadiusHabits::default(),
    };
    replace(state, at, put, habits)
}

fn replace(
    state: &mut State,
    at: Moment,
    put: &PutClient,
    habits: RadiusHabits,
) -> Result<(), Refusal> {
    check_text(&put.name, true, Text::ClientName)?;
    let others = || state.clients.iter().filter(|(id, _)| **id != put.id).map(|(_, other)| other);
    if others().any(|other| other.name == put.name) {
        return Err(Refusal::ClientExists(put.name.clone()));
    }
    let sources = put.policy.first_factor.sources();
    check_count(sources.len(), CLIENT_SOURCES_MAX, Countable::Sources)?;
    let is_known = |source: &Source| match source {
        Source::Local => true,
        Source::Directory(id) => state.directories.contains_key(id),
    };
    if !sources.iter().all(is_known) {
        return Err(Refusal::DirectoryUnknown);
    }
    if put.policy.first_factor != FirstFactor::None && sources.is_empty() {
        return Err(Refusal::ClientMalformed);
    }
    let ClientFields::Radius(radius) = &put.fields;
    check_count(radius.addresses.len(), CLIENT_ADDRESSES_MAX, Countable::Addresses)?;
    if radius.addresses.is_empty() || radius.secret.as_bytes().len() > SEALED_BYTES_MAX {
        return Err(Refusal::ClientMalformed);
    }
    // Compare ranges, not spellings: 10.0.0.1/8 and 10.0.0.0/8 are one.
    let addresses: Arc<[IpNet]> = radius.addresses.iter().map(IpNet::trunc).collect();
    for other in others() {
        let taken = other
            .radius()
            .and_then(|held| held.addresses.iter().find(|address| addresses.contains(address)));
        if let Some(address) = taken {
            let (address, client) = (address.to_string().into(), other.name.clone());
            return Err(Refusal::AddressTaken { address, client });
        }
    }
    let client = Client {
        name: put.name.clone(),
        revision: at.index,
        policy: put.policy.clone(),
        kind: ClientKind::Radius(RadiusClient {
            addresses,
            secret: radius.secret.clone(),
            require_message_authenticator: radius.require_message_authenticator,
            limit_proxy_state: radius.limit_proxy_state,
            habits,
        }),
    };
    state.clients.insert(put.id, Arc::new(client));
    state.clients_revision = at.index;
    Ok(())
}

pub(super) fn remove(state: &mut State, at: Moment, id: ClientId) -> Result<(), Refusal> {
    if state.clients.remove(&id).is_none() {
        return Err(Refusal::ClientUnknown);
    }
    state.clients_revision = at.index;
    Ok(())
}

/// Adds to what is known about a client. The client's own revision stays: no decision that is under
/// way becomes wrong by it.
pub(super) fn learn(
    state: &mut State,
    at: Moment,
    id: ClientId,
    habits: RadiusHabits,
) -> Result<(), Refusal> {
    let client = state.client_mut(id).ok_or(Refusal::ClientUnknown)?;
    let ClientKind::Radius(radius) = &mut client.kind;
    radius.habits.signs |= habits.signs;
    radius.habits.is_no_proxy |= habits.is_no_proxy;
    state.clients_revision = at.index;
    Ok(())
}

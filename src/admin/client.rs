//! Clients: who may ask.

use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use watchword_core::Command;
use watchword_core::client::{Client, ClientKind, ClientPolicy, PasscodeInput, Requirement};
use watchword_core::command::{ClientFields, PutClient, RadiusFields};
use watchword_core::id::ClientId;
use watchword_core::state::State;

use super::directory::{first_factor_text, parse_first_factor};
use super::{Admin, AdminError};
use crate::keys::Owner;
use crate::random;

/// Shortest shared secret, in bytes. RFC 2865 section 3 asks for 16 as a habit; what is shorter than
/// 8 falls to a search within hours.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 8..=128;

/// A RADIUS client to add.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientSpec {
    /// Unique name.
    pub name: String,
    /// Addresses or ranges that it sends from.
    pub addresses: Vec<String>,
    /// The shared secret.
    pub secret: String,
    /// Who checks the password: `none` for the client, or `local` and names of directories, in order, with
    /// commas between.
    #[serde(default = "ClientSpec::first_factor")]
    pub first_factor: String,
    /// Whether unknown users are refused.
    #[serde(default = "ClientSpec::require_user_match")]
    pub require_user_match: bool,
    /// How password and passcode share one field.
    #[serde(default = "ClientSpec::passcode_input")]
    pub passcode_input: PasscodeInput,
    /// Whether Message-Authenticator is demanded.
    #[serde(default = "ClientSpec::auto")]
    pub require_message_authenticator: Requirement,
    /// Whether Proxy-State without Message-Authenticator is refused.
    #[serde(default = "ClientSpec::auto")]
    pub limit_proxy_state: Requirement,
}

impl ClientSpec {
    fn first_factor() -> String {
        "local".to_owned()
    }

    fn require_user_match() -> bool {
        true
    }

    fn passcode_input() -> PasscodeInput {
        PasscodeInput::Auto
    }

    fn auto() -> Requirement {
        Requirement::Auto
    }

    /// A client with the defaults.
    pub fn new(name: String, addresses: Vec<String>, secret: String) -> Self {
        Self {
            name,
            addresses,
            secret,
            first_factor: Self::first_factor(),
            require_user_match: Self::require_user_match(),
            passcode_input: Self::passcode_input(),
            require_message_authenticator: Self::auto(),
            limit_proxy_state: Self::auto(),
        }
    }
}

/// Changes to a client; what is absent stays.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientEdit {
    /// A new name.
    pub name: Option<String>,
    /// New addresses.
    pub addresses: Option<Vec<String>>,
    /// A new shared secret.
    pub secret: Option<String>,
    /// Who checks the password.
    pub first_factor: Option<String>,
    /// Whether unknown users are refused.
    pub require_user_match: Option<bool>,
    /// How password and passcode share one field.
    pub passcode_input: Option<PasscodeInput>,
    /// Whether Message-Authenticator is demanded.
    pub require_message_authenticator: Option<Requirement>,
    /// Whether Proxy-State without Message-Authenticator is refused.
    pub limit_proxy_state: Option<Requirement>,
}

/// A client as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClientView {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// `radius`.
    pub kind: String,
    /// Addresses or ranges that it sends from.
    pub addresses: Vec<String>,
    /// Who checks the password.
    pub first_factor: String,
    /// Whether unknown users are refused.
    pub require_user_match: bool,
    /// How password and passcode share one field.
    pub passcode_input: PasscodeInput,
    /// Whether Message-Authenticator is demanded.
    pub require_message_authenticator: Requirement,
    /// Whether Proxy-State without Message-Authenticator is refused.
    pub limit_proxy_state: Requirement,
    /// Whether an accepted login has shown that it signs its requests.
    pub seen_signing: bool,
    /// Whether an accepted login has shown that it sends requests of its own, without Proxy-State.
    pub seen_without_proxy: bool,
}

impl Admin {
    /// Adds a RADIUS client.
    ///
    /// # Errors
    /// When the name or an address is taken, or a value is refused.
    pub async fn add_client(&self, spec: ClientSpec) -> Result<ClientView, AdminError> {
        let state = self.state().await?;
        let id = ClientId(random::bytes()?);
        let put = PutClient {
            id,
            name: spec.name.trim().into(),
            policy: ClientPolicy {
                first_factor: parse_first_factor(&state, &spec.first_factor)?,
                require_user_match: spec.require_user_match,
                passcode_input: spec.passcode_input,
            },
            fields: ClientFields::Radius(RadiusFields {
                addresses: parse_addresses(&spec.addresses)?,
                secret: self.sealed_secret(id, &spec.secret)?,
                require_message_authenticator: spec.require_message_authenticator,
                limit_proxy_state: spec.limit_proxy_state,
            }),
        };
        let name = put.name.clone();
        self.propose(Command::AddClient(put)).await?;
        self.client(&name).await
    }

    fn sealed_secret(
        &self,
        id: ClientId,
        secret: &str,
    ) -> Result<watchword_core::sealed::Sealed, AdminError> {
        if !SECRET_BYTES.contains(&secret.len()) {
            let (min, max) = (SECRET_BYTES.start(), SECRET_BYTES.end());
            return Err(AdminError::Invalid(format!("a shared secret has {min} to {max} bytes")));
        }
        Ok(self.keys.seal(Owner::ClientSecret(id), secret.as_bytes())?)
    }

    /// The client called `name`.
    ///
    /// # Errors
    /// When there is none.
    pub async fn client(&self, name: &str) -> Result<ClientView, AdminError> {
        let state = self.state().await?;
        let (id, client) = find_client(&state, name)?;
        Ok(view(&state, id, client))
    }

    /// All clients, by name.
    ///
    /// # Errors
    /// When no fresh state can be read.
    pub async fn clients(&self) -> Result<Vec<ClientView>, AdminError> {
        let state = self.state().await?;
        let mut clients: Vec<_> =
            state.clients().map(|(id, client)| view(&state, id, client)).collect();
        clients.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(clients)
    }

    /// Changes a client.
    ///
    /// # Errors
    /// When there is no such client, or a value is refused.
    pub async fn edit_client(
        &self,
        name: &str,
        edit: ClientEdit,
    ) -> Result<ClientView, AdminError> {
        let state = self.state().await?;
        let (id, client) = find_client(&state, name)?;
        let ClientKind::Radius(radius) = &client.kind;
        let old = &client.policy;
        let put = PutClient {
            id,
            name: edit.name.as_deref().map_or_else(|| client.name.clone(), |new| new.trim().into()),
            policy: ClientPolicy {
                first_factor: match &edit.first_factor {
                    Some(text) => parse_first_factor(&state, text)?,
                    None => old.first_factor.clone(),
                },
                require_user_match: edit.require_user_match.unwrap_or(old.require_user_match),
                passcode_input: edit.passcode_input.unwrap_or(old.passcode_input),
            },
            fields: ClientFields::Radius(RadiusFields {
                addresses: match &edit.addresses {
                    Some(addresses) => parse_addresses(addresses)?,
                    None => radius.addresses.clone(),
                },
                secret: match &edit.secret {
                    Some(secret) => self.sealed_secret(id, secret)?,
                    None => radius.secret.clone(),
                },
                require_message_authenticator: edit
                    .require_message_authenticator
                    .unwrap_or(radius.require_message_authenticator),
                limit_proxy_state: edit.limit_proxy_state.unwrap_or(radius.limit_proxy_state),
            }),
        };
        let name = put.name.clone();
        self.propose(Command::EditClient(put)).await?;
        self.client(&name).await
    }

    /// Removes a client.
    ///
    /// # Errors
    /// When there is no such client.
    pub async fn remove_client(&self, name: &str) -> Result<(), AdminError> {
        let (client, _) = find_client(&self.state().await?, name)?;
        self.propose(Command::RemoveClient { client }).await
    }
}

pub(super) fn find_client<'a>(
    state: &'a State,
    name: &str,
) -> Result<(ClientId, &'a Client), AdminError> {
    state
        .client_by_name(name)
        .ok_or_else(|| AdminError::NotFound { what: "client", name: name.to_owned() })
}

/// Addresses and ranges; a bare address is a range of one.
fn parse_addresses(texts: &[String]) -> Result<Arc<[IpNet]>, AdminError> {
    texts
        .iter()
        .map(|text| {
            let text = text.trim();
            text.parse::<IpNet>()
                .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
                .map_err(|_| AdminError::Invalid(format!("{text:?} is no address or range")))
        })
        .collect()
}

fn view(state: &State, id: ClientId, client: &Client) -> ClientView {
    let ClientKind::Radius(radius) = &client.kind;
    ClientView {
        id: id.to_string(),
        name: client.name.to_string(),
        kind: "radius".to_owned(),
        addresses: radius.addresses.iter().map(ToString::to_string).collect(),
        first_factor: first_factor_text(state, &client.policy.first_factor),
        require_user_match: client.policy.require_user_match,
        passcode_input: client.policy.passcode_input,
        require_message_authenticator: radius.require_message_authenticator,
        limit_proxy_state: radius.limit_proxy_state,
        seen_signing: radius.habits.signs,
        seen_without_proxy: radius.habits.is_no_proxy,
    }
}

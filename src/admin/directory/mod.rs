//! Directories: who knows the users' passwords when Watchword does not.

mod ldap;
mod radius;

use std::sync::Arc;

use data_encoding::HEXLOWER;
pub use ldap::LdapEdit;
pub use radius::RadiusEdit;
use serde::{Deserialize, Serialize};
use watchword_core::Command;
use watchword_core::client::{FirstFactor, Requirement, Source};
use watchword_core::command::PutDirectory;
use watchword_core::directory::{
    Bind, Directory, DirectoryKind, Ldap, Probe, RadiusTarget, Security, Trust,
};
use watchword_core::id::DirectoryId;
use watchword_core::name::UserName;
use watchword_core::state::State;
use zeroize::Zeroizing;

use super::{Admin, AdminError};
use crate::directory::Answer;
use crate::error_chain::chain;
use crate::random;

/// How long one operation may take when nobody says so.
const TIMEOUT_MS: u64 = 2_000;

/// A directory to add.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectorySpec {
    /// Unique name.
    pub name: String,
    /// Everything else. Servers, and what its protocol needs, must be there.
    pub fields: DirectoryFields,
}

/// Changes to a directory; what is absent stays.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DirectoryEdit {
    /// A new name.
    pub name: Option<String>,
    /// Everything else.
    pub fields: Option<DirectoryFields>,
}

/// How a directory is asked, by its protocol.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DirectoryFields {
    /// LDAP.
    Ldap(LdapEdit),
    /// RADIUS.
    Radius(RadiusEdit),
}

/// A directory as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DirectoryView {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// `ldap` or `radius`.
    pub kind: String,
    /// Servers, the preferred one first.
    pub servers: Vec<String>,
    /// How long one operation may take, in milliseconds.
    pub timeout_ms: u64,
    /// The clients that ask it.
    pub clients: Vec<String>,
    /// What is particular to LDAP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ldap: Option<LdapView>,
    /// What is particular to RADIUS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub radius: Option<RadiusView>,
}

/// How a directory is asked by LDAP.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LdapView {
    /// How connections are protected: `tls`, `starttls` or `none`, for each server.
    pub security: Vec<Security>,
    /// `system`, `authorities` or `fingerprints`.
    pub trust: String,
    /// The digests, if these are believed.
    pub fingerprints: Vec<String>,
    /// The name by which a user binds.
    pub template: Option<String>,
    /// The entry below which users are searched.
    pub base: Option<String>,
    /// The filter that finds a user.
    pub filter: Option<String>,
    /// As whom is searched.
    pub account: Option<String>,
}

/// How a RADIUS server is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RadiusView {
    /// Whether an answer without Message-Authenticator is taken for none.
    pub require_message_authenticator: Requirement,
    /// Which servers have been seen to sign; `auto` demands it of these.
    pub signs: Vec<bool>,
    /// How it is found out that a server that has failed answers again.
    pub probe: Probe,
}

/// A password to try at a directory.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryTest {
    /// Whose.
    pub username: String,
    /// The password.
    pub password: String,
}

/// What a server of the directory has said to that.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DirectoryReport {
    /// Which server.
    pub server: String,
    /// Whether it took the password.
    pub accepted: bool,
    /// What it said, or why it did not answer.
    pub detail: String,
}

impl Admin {
    /// Adds a directory.
    ///
    /// # Errors
    /// When the name is taken, or a value is refused.
    pub async fn add_directory(&self, spec: DirectorySpec) -> Result<DirectoryView, AdminError> {
        self.seal_as_now().await?;
        let id = DirectoryId(random::bytes()?);
        let kind = match &spec.fields {
            DirectoryFields::Ldap(fields) => {
                DirectoryKind::Ldap(self.changed_ldap(id, &ldap::none(), fields)?)
            }
            DirectoryFields::Radius(fields) => {
                DirectoryKind::Radius(self.changed_target(id, &radius::none(), fields)?)
            }
        };
        let put = PutDirectory { id, name: spec.name.trim().into(), kind };
        let name = put.name.clone();
        self.propose(Command::AddDirectory(put)).await?;
        self.directory(&name).await
    }

    /// Changes a directory.
    ///
    /// # Errors
    /// When there is no such directory, or a value is refused.
    pub async fn edit_directory(
        &self,
        name: &str,
        edit: DirectoryEdit,
    ) -> Result<DirectoryView, AdminError> {
        let state = self.state().await?;
        let (id, directory) = find_directory(&state, name)?;
        let name =
            edit.name.as_deref().map_or_else(|| directory.name.clone(), |new| new.trim().into());
        let kind = match (&directory.kind, &edit.fields) {
            (kept, None) => kept.clone(),
            (DirectoryKind::Ldap(old), Some(DirectoryFields::Ldap(edit))) => {
                DirectoryKind::Ldap(self.changed_ldap(id, old, edit)?)
            }
            (DirectoryKind::Radius(old), Some(DirectoryFields::Radius(edit))) => {
                DirectoryKind::Radius(self.changed_target(id, old, edit)?)
            }
            (kept, Some(_)) => {
                let protocol = protocol(kept);
                let other = format!("directory {} is asked by {protocol}", directory.name);
                return Err(AdminError::Invalid(other));
            }
        };
        self.propose(Command::EditDirectory(PutDirectory { id, name: name.clone(), kind })).await?;
        self.directory(&name).await
    }

    /// Removes a directory.
    ///
    /// # Errors
    /// When there is no such directory, or a client asks it.
    pub async fn remove_directory(&self, name: &str) -> Result<(), AdminError> {
        let (directory, _) = find_directory(&self.state().await?, name)?;
        self.propose(Command::RemoveDirectory { directory }).await
    }

    /// The directory called `name`.
    ///
    /// # Errors
    /// When there is none.
    pub async fn directory(&self, name: &str) -> Result<DirectoryView, AdminError> {
        let state = self.state().await?;
        let (id, directory) = find_directory(&state, name)?;
        Ok(view(&state, id, directory))
    }

    /// All directories, by name.
    ///
    /// # Errors
    /// When no fresh state can be read.
    pub async fn directories(&self) -> Result<Vec<DirectoryView>, AdminError> {
        let state = self.state().await?;
        let views = state.directories().map(|(id, directory)| view(&state, id, directory));
        let mut views: Vec<_> = views.collect();
        views.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(views)
    }

    /// Tries a password at each server of a directory, until one refuses it. Counts nothing here; a wrong
    /// password counts in the directory.
    ///
    /// # Errors
    /// When there is no such directory, or it cannot be asked at all.
    pub async fn test_directory(
        &self,
        name: &str,
        test: DirectoryTest,
    ) -> Result<Vec<DirectoryReport>, AdminError> {
        let state = self.state().await?;
        let (id, directory) = find_directory(&state, name)?;
        let user = UserName::canonical(&test.username)?;
        let password = Zeroizing::new(test.password);
        let said = self.authenticator.try_directory(id, directory, &user, &password).await?;
        let report = |(server, answered): (String, Result<Answer, _>)| match answered {
            Ok(answer) => DirectoryReport {
                server,
                accepted: answer == Answer::Right,
                detail: answer.to_string(),
            },
            Err(error) => DirectoryReport { server, accepted: false, detail: chain(&error) },
        };
        Ok(said.into_iter().map(report).collect())
    }
}

fn find_directory<'a>(
    state: &'a State,
    name: &str,
) -> Result<(DirectoryId, &'a Arc<Directory>), AdminError> {
    state
        .directory_by_name(name)
        .ok_or_else(|| AdminError::NotFound { what: "directory", name: name.to_owned() })
}

/// `none`, or names of sources with commas between.
pub(super) fn parse_first_factor(state: &State, text: &str) -> Result<FirstFactor, AdminError> {
    if text.trim() == "none" {
        return Ok(FirstFactor::None);
    }
    let source = |name: &str| match name.trim() {
        "local" => Ok(Source::Local),
        name => find_directory(state, name).map(|(id, _)| Source::Directory(id)),
    };
    Ok(FirstFactor::Sources(text.split(',').map(source).collect::<Result<_, _>>()?))
}

/// The inverse.
pub(super) fn first_factor_text(state: &State, first: &FirstFactor) -> String {
    let FirstFactor::Sources(sources) = first else { return "none".to_owned() };
    let name = |source: &Source| match source {
        Source::Local => "local",
        Source::Directory(id) => state.directory(*id).map_or("?", |directory| &directory.name),
    };
    sources.iter().map(name).collect::<Vec<_>>().join(",")
}

fn protocol(kind: &DirectoryKind) -> &'static str {
    match kind {
        DirectoryKind::Ldap(_) => "ldap",
        DirectoryKind::Radius(_) => "radius",
    }
}

fn view(state: &State, id: DirectoryId, directory: &Directory) -> DirectoryView {
    let asks = |first: &FirstFactor| first.sources().contains(&Source::Directory(id));
    let clients = state.clients().filter(|(_, client)| asks(&client.policy.first_factor));
    let (servers, ldap, radius) = match &directory.kind {
        DirectoryKind::Ldap(ldap) => {
            let servers = ldap.servers.iter().map(ToString::to_string).collect();
            (servers, Some(ldap_view(ldap)), None)
        }
        DirectoryKind::Radius(target) => {
            let servers = target.servers.iter().map(ToString::to_string).collect();
            (servers, None, Some(radius_view(target)))
        }
    };
    DirectoryView {
        id: id.to_string(),
        name: directory.name.to_string(),
        kind: protocol(&directory.kind).to_owned(),
        servers,
        timeout_ms: directory.kind.timeout_ms(),
        clients: clients.map(|(_, client)| client.name.to_string()).collect(),
        ldap,
        radius,
    }
}

fn ldap_view(ldap: &Ldap) -> LdapView {
    let (template, search) = match &ldap.bind {
        Bind::Template(template) => (Some(template.to_string()), None),
        Bind::Search(search) => (None, Some(search)),
    };
    let digests: &[_] = match &ldap.trust {
        Trust::Fingerprints(digests) => digests,
        Trust::System | Trust::Authorities(_) => &[],
    };
    LdapView {
        security: ldap.servers.iter().map(|server| server.security).collect(),
        trust: match &ldap.trust {
            Trust::System => "system",
            Trust::Authorities(_) => "authorities",
            Trust::Fingerprints(_) => "fingerprints",
        }
        .to_owned(),
        fingerprints: digests.iter().map(|digest| HEXLOWER.encode(digest)).collect(),
        template,
        base: search.map(|search| search.base.to_string()),
        filter: search.map(|search| search.filter.to_string()),
        account: search.and_then(|search| Some(search.account.as_ref()?.0.to_string())),
    }
}

fn radius_view(target: &RadiusTarget) -> RadiusView {
    RadiusView {
        require_message_authenticator: target.require_message_authenticator,
        signs: target.servers.iter().map(|server| server.signs).collect(),
        probe: target.probe,
    }
}

/// `HOST[:PORT]`, an IPv6 address in brackets; `None` when it is something else.
fn host_and_port(text: &str, standard: u16) -> Option<(&str, u16)> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map_or(Ok(standard), str::parse).ok()?;
    let is_name = !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ', '[', ']']);
    (is_name && port != 0).then_some((host, port))
}

//! Directories: who knows the users' passwords when Watchword does not.

use std::sync::Arc;

use data_encoding::HEXLOWER_PERMISSIVE;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use watchword_core::Command;
use watchword_core::client::{FirstFactor, Source};
use watchword_core::command::PutDirectory;
use watchword_core::directory::{
    Bind, Directory, DirectoryKind, Ldap, LdapServer, Search, Security, Trust,
};
use watchword_core::id::DirectoryId;
use watchword_core::name::UserName;
use watchword_core::state::State;
use zeroize::Zeroizing;

use super::{Admin, AdminError};
use crate::directory::Answer;
use crate::error_chain::chain;
use crate::keys::Owner;
use crate::random;

/// How long one operation may take when nobody says so.
const TIMEOUT_MS: u64 = 2_000;

/// A directory to add.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectorySpec {
    /// Unique name.
    pub name: String,
    /// Everything else. Servers, and a way to find the user, must be there.
    pub fields: DirectoryEdit,
}

/// Changes to a directory; what is absent stays.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DirectoryEdit {
    /// A new name.
    pub name: Option<String>,
    /// Servers, the preferred one first: `ldaps://HOST[:PORT]`, or `ldap://HOST[:PORT]` for StartTLS.
    pub servers: Option<Vec<String>>,
    /// Whether `ldap://` means no TLS at all.
    pub unprotected: Option<bool>,
    /// Certificates of the authorities to believe, in PEM; none stands for those of the operating system.
    pub authorities: Option<Vec<String>>,
    /// SHA-256 digests of the servers' own certificates to believe, in hexadecimal.
    pub fingerprints: Option<Vec<String>>,
    /// The name by which a user binds, with `{user}` for the user's name.
    pub template: Option<String>,
    /// The entry below which users are searched.
    pub base: Option<String>,
    /// The filter that finds a user, with `{user}` for the user's name.
    pub filter: Option<String>,
    /// As whom to search. Empty: as nobody.
    pub account: Option<String>,
    /// The password of that account.
    pub password: Option<String>,
    /// How long one operation may take, in milliseconds.
    pub timeout_ms: Option<u64>,
}

/// A directory as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DirectoryView {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// `ldap`.
    pub kind: String,
    /// Servers, the preferred one first.
    pub servers: Vec<String>,
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
    /// How long one operation may take, in milliseconds.
    pub timeout_ms: u64,
    /// The clients that ask it.
    pub clients: Vec<String>,
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
        let none = Ldap {
            servers: [].into(),
            trust: Trust::System,
            bind: Bind::Template("".into()),
            timeout_ms: TIMEOUT_MS,
        };
        let kind = DirectoryKind::Ldap(self.changed(id, &none, &spec.fields)?);
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
        let DirectoryKind::Ldap(old) = &directory.kind;
        let name =
            edit.name.as_deref().map_or_else(|| directory.name.clone(), |new| new.trim().into());
        let kind = DirectoryKind::Ldap(self.changed(id, old, &edit)?);
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

    /// `old` with what `edit` says.
    fn changed(
        &self,
        id: DirectoryId,
        old: &Ldap,
        edit: &DirectoryEdit,
    ) -> Result<Ldap, AdminError> {
        let was_unprotected = old.servers.iter().any(|server| server.security == Security::None);
        let unprotected = edit.unprotected.unwrap_or(was_unprotected);
        let servers = match &edit.servers {
            Some(urls) => {
                urls.iter().map(|url| parse_server(url, unprotected)).collect::<Result<_, _>>()?
            }
            None => old.servers.iter().map(|server| protected(server, unprotected)).collect(),
        };
        Ok(Ldap {
            servers,
            trust: changed_trust(&old.trust, edit)?,
            bind: self.changed_bind(id, &old.bind, edit)?,
            timeout_ms: edit.timeout_ms.unwrap_or(old.timeout_ms),
        })
    }

    fn changed_bind(
        &self,
        id: DirectoryId,
        old: &Bind,
        edit: &DirectoryEdit,
    ) -> Result<Bind, AdminError> {
        let searches = edit.base.is_some() || edit.filter.is_some() || edit.account.is_some();
        if let Some(template) = &edit.template {
            if searches || edit.password.is_some() {
                let both = "users bind by a template, or are searched; not both";
                return Err(AdminError::Invalid(both.to_owned()));
            }
            return Ok(Bind::Template(template.as_str().into()));
        }
        let old = match old {
            Bind::Search(search) => Some(search),
            Bind::Template(_) if searches => None,
            kept @ Bind::Template(_) => return Ok(kept.clone()),
        };
        let text = |new: &Option<String>, old: Option<&Arc<str>>| {
            new.as_deref().map(Arc::from).or_else(|| old.cloned()).unwrap_or_default()
        };
        let account = match (edit.account.as_deref(), old.and_then(|old| old.account.as_ref())) {
            (Some(""), _) | (None, None) => None,
            (Some(name), old) => Some((Arc::from(name), old.map(|(_, password)| password.clone()))),
            (None, Some((name, password))) => Some((name.clone(), Some(password.clone()))),
        };
        let account = match (account, &edit.password) {
            (None, None) => None,
            (None, Some(_)) => {
                return Err(AdminError::Invalid("a password belongs to an account".to_owned()));
            }
            (Some((name, _)), Some(password)) => {
                Some((name, self.keys.seal(Owner::DirectoryPassword(id), password.as_bytes())?))
            }
            (Some((name, Some(kept))), None) => Some((name, kept)),
            (Some(_), None) => {
                let missing = "the account that searches has no password";
                return Err(AdminError::Invalid(missing.to_owned()));
            }
        };
        Ok(Bind::Search(Search {
            base: text(&edit.base, old.map(|old| &old.base)),
            filter: text(&edit.filter, old.map(|old| &old.filter)),
            account,
        }))
    }
}

fn changed_trust(old: &Trust, edit: &DirectoryEdit) -> Result<Trust, AdminError> {
    match (&edit.authorities, &edit.fingerprints) {
        (None, None) => Ok(old.clone()),
        (Some(_), Some(_)) => {
            let both = "servers are known by authorities or by fingerprints, not by both";
            Err(AdminError::Invalid(both.to_owned()))
        }
        (Some(texts), None) => {
            let mut authorities: Vec<Arc<[u8]>> = Vec::new();
            for text in texts {
                for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
                    let certificate = certificate.map_err(|error| {
                        AdminError::Invalid(format!("a certificate cannot be read: {error}"))
                    })?;
                    authorities.push(certificate.as_ref().into());
                }
            }
            match (texts.is_empty(), authorities.is_empty()) {
                (true, _) => Ok(Trust::System),
                (false, true) => Err(AdminError::Invalid("there is no PEM certificate".to_owned())),
                (false, false) => Ok(Trust::Authorities(authorities.into())),
            }
        }
        (None, Some(texts)) => {
            let digests = texts.iter().map(|text| parse_digest(text)).collect::<Result<_, _>>()?;
            Ok(Trust::Fingerprints(digests))
        }
    }
}

/// A SHA-256 digest, with or without colons.
fn parse_digest(text: &str) -> Result<[u8; 32], AdminError> {
    let digits: String = text.chars().filter(|c| !matches!(c, ':' | ' ')).collect();
    let digest = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok();
    digest.and_then(|digest| digest.try_into().ok()).ok_or_else(|| {
        AdminError::Invalid(format!("{text:?} is no SHA-256 digest: 64 hexadecimal digits"))
    })
}

/// `ldaps://HOST[:PORT]` or `ldap://HOST[:PORT]`; an IPv6 address in brackets.
fn parse_server(url: &str, unprotected: bool) -> Result<LdapServer, AdminError> {
    let malformed = || {
        AdminError::Invalid(format!(
            "{url:?} is none of ldaps://HOST[:PORT] and ldap://HOST[:PORT]"
        ))
    };
    let (scheme, rest) = url.trim().split_once("://").ok_or_else(malformed)?;
    let (security, standard) = match (scheme.to_ascii_lowercase().as_str(), unprotected) {
        ("ldaps", _) => (Security::Tls, 636),
        ("ldap", false) => (Security::StartTls, 389),
        ("ldap", true) => (Security::None, 389),
        _ => return Err(malformed()),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(malformed)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| malformed())?;
            (
                host,
                if port.is_empty() {
                    None
                } else {
                    Some(port.strip_prefix(':').ok_or_else(malformed)?)
                },
            )
        }
        None => match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let port = port.map_or(Ok(standard), str::parse).map_err(|_| malformed())?;
    let is_name = !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ', '[', ']']);
    if !is_name || port == 0 {
        return Err(malformed());
    }
    Ok(LdapServer { host: host.into(), port, security })
}

/// The same server, where `ldap://` may mean something else now.
fn protected(server: &LdapServer, unprotected: bool) -> LdapServer {
    let security = match (server.security, unprotected) {
        (Security::Tls, _) => Security::Tls,
        (_, true) => Security::None,
        (_, false) => Security::StartTls,
    };
    LdapServer { security, ..server.clone() }
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

fn view(state: &State, id: DirectoryId, directory: &Directory) -> DirectoryView {
    let DirectoryKind::Ldap(ldap) = &directory.kind;
    let (template, search) = match &ldap.bind {
        Bind::Template(template) => (Some(template.to_string()), None),
        Bind::Search(search) => (None, Some(search)),
    };
    let asks = |first: &FirstFactor| first.sources().contains(&Source::Directory(id));
    let clients = state.clients().filter(|(_, client)| asks(&client.policy.first_factor));
    DirectoryView {
        id: id.to_string(),
        name: directory.name.to_string(),
        kind: "ldap".to_owned(),
        servers: ldap.servers.iter().map(ToString::to_string).collect(),
        security: ldap.servers.iter().map(|server| server.security).collect(),
        trust: match &ldap.trust {
            Trust::System => "system",
            Trust::Authorities(_) => "authorities",
            Trust::Fingerprints(_) => "fingerprints",
        }
        .to_owned(),
        fingerprints: match &ldap.trust {
            Trust::Fingerprints(digests) => {
                digests.iter().map(|digest| data_encoding::HEXLOWER.encode(digest)).collect()
            }
            Trust::System | Trust::Authorities(_) => Vec::new(),
        },
        template,
        base: search.map(|search| search.base.to_string()),
        filter: search.map(|search| search.filter.to_string()),
        account: search.and_then(|search| Some(search.account.as_ref()?.0.to_string())),
        timeout_ms: ldap.timeout_ms,
        clients: clients.map(|(_, client)| client.name.to_string()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_they_are_written() {
        let read = |url| parse_server(url, false).map(|server| server.to_string()).ok();
        assert_eq!(read("ldaps://dc1.lab.test").as_deref(), Some("ldaps://dc1.lab.test:636"));
        assert_eq!(read("LDAP://dc1:3389/").as_deref(), Some("ldap://dc1:3389"));
        assert_eq!(read("ldaps://[2001:db8::1]").as_deref(), Some("ldaps://[2001:db8::1]:636"));
        for url in
            ["dc1", "http://dc1", "ldap://", "ldap://a:0", "ldap://a:b", "ldap://[a]", "ldap://a/b"]
        {
            assert_eq!(read(url), None, "{url}");
        }
        assert_eq!(
            parse_server("ldap://a", true).map(|server| server.security).ok(),
            Some(Security::None)
        );
    }

    #[test]
    fn digests_are_read_in_both_spellings() {
        let colons = vec!["AB"; 32].join(":");
        assert_eq!(parse_digest(&colons).ok(), Some([0xab; 32]));
        assert!(parse_digest("ab").is_err());
    }
}

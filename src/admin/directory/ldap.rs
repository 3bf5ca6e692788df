//! Directories that are asked by LDAP.

use std::sync::Arc;

use data_encoding::HEXLOWER_PERMISSIVE;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use watchword_core::directory::{Bind, Ldap, LdapServer, Search, Security, Trust};
use watchword_core::id::DirectoryId;

use super::{TIMEOUT_MS, host_and_port};
use crate::admin::{Admin, AdminError};
use crate::keys::Owner;

/// How a directory is asked by LDAP; of an edit, what is absent stays.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LdapEdit {
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

/// One of which nothing is known yet.
pub(super) fn none() -> Ldap {
    Ldap {
        servers: [].into(),
        trust: Trust::System,
        bind: Bind::Template("".into()),
        timeout_ms: TIMEOUT_MS,
    }
}

impl Admin {
    /// `old` with what `edit` says.
    pub(super) fn changed_ldap(
        &self,
        id: DirectoryId,
        old: &Ldap,
        edit: &LdapEdit,
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
        edit: &LdapEdit,
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
                Some((name, self.keys.seal(Owner::DirectorySecret(id), password.as_bytes())?))
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

fn changed_trust(old: &Trust, edit: &LdapEdit) -> Result<Trust, AdminError> {
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
    let (host, port) = host_and_port(rest, standard).ok_or_else(malformed)?;
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

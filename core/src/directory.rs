//! Identity sources: who knows the users' passwords when Watchword does not.
//!
//! What is kept here is how to ask. The asking is done elsewhere, and what it gives is a claim that names
//! the revision of the directory it relied on.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::client::Requirement;
use crate::sealed::Sealed;

/// One identity source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Unique name, for people.
    pub name: Arc<str>,
    /// Log index of the last change: proof that a decision relies on this version.
    pub revision: u64,
    /// How it is asked.
    pub kind: DirectoryKind,
}

/// The protocol of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryKind {
    /// LDAP, and Active Directory by LDAP.
    Ldap(Ldap),
    /// Another RADIUS server.
    Radius(RadiusTarget),
}

/// A directory that checks a password by a bind (RFC 4513 section 5.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ldap {
    /// The servers, the preferred one first. All of them hold the same.
    pub servers: Arc<[LdapServer]>,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// As whom a user binds.
    pub bind: Bind,
    /// How long one operation may take, in milliseconds.
    pub timeout_ms: u64,
}

/// A RADIUS server that checks the password, and whatever else a client sends instead of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RadiusTarget {
    /// The servers, the preferred one first. All of them know the same users.
    pub servers: Arc<[RadiusServer]>,
    /// The secret that they share with Watchword, sealed for the directory's id.
    pub secret: Sealed,
    /// Whether an answer without Message-Authenticator is taken for none (CVE-2024-3596).
    pub require_message_authenticator: Requirement,
    /// How it is found out that a server that has failed answers again.
    pub probe: Probe,
    /// How long one server is waited for, in milliseconds.
    pub timeout_ms: u64,
}

/// One server of a RADIUS target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RadiusServer {
    /// Name or address, without brackets.
    pub host: Arc<str>,
    /// Its UDP port for authentication.
    pub port: u16,
    /// Whether it has been seen to sign an answer that need not be signed; `auto` goes by it.
    pub signs: bool,
}

/// How it is found out that a server answers again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// By Status-Server (RFC 5997), which concerns no user; as long as it has never answered one, by logins as well.
    Status,
    /// By the next login.
    Login,
}

/// One server of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LdapServer {
    /// Name or address, without brackets.
    pub host: Arc<str>,
    /// Its TCP port.
    pub port: u16,
    /// How the connection is protected.
    pub security: Security,
}

/// How a connection to a server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// TLS from the first octet on: `ldaps://`.
    Tls,
    /// TLS after StartTLS (RFC 4511 section 4.14).
    StartTls,
    /// Not at all: whoever is on the way reads the passwords.
    None,
}

/// Whose certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trust {
    /// Those that an authority of the operating system has issued.
    System,
    /// Those that one of these authorities has issued, each a DER certificate.
    Authorities(Arc<[Arc<[u8]>]>),
    /// Those whose SHA-256 digest is among these, whatever they say.
    Fingerprints(Arc<[[u8; 32]]>),
}

/// As whom a user binds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bind {
    /// By a name that follows from the user's: `{user}` stands for it.
    Template(Arc<str>),
    /// By the name of the one entry that a search finds.
    Search(Search),
}

/// How the entry of a user is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// The entry below which it is.
    pub base: Arc<str>,
    /// The filter (RFC 4515), where `{user}` stands for the name.
    pub filter: Arc<str>,
    /// Who searches, and the password, sealed for the directory's id; `None` for anybody.
    pub account: Option<(Arc<str>, Sealed)>,
}

/// What a user's name is put in the place of.
pub const USER: &str = "{user}";

impl DirectoryKind {
    /// What it is asked with: the password of the account that searches, if there is one, or the shared secret.
    pub fn secret(&self) -> Option<&Sealed> {
        match self {
            Self::Radius(target) => Some(&target.secret),
            Self::Ldap(Ldap { bind: Bind::Search(search), .. }) => {
                search.account.as_ref().map(|(_, password)| password)
            }
            Self::Ldap(Ldap { bind: Bind::Template(_), .. }) => None,
        }
    }

    pub(crate) fn secret_mut(&mut self) -> Option<&mut Sealed> {
        match self {
            Self::Radius(target) => Some(&mut target.secret),
            Self::Ldap(Ldap { bind: Bind::Search(search), .. }) => {
                search.account.as_mut().map(|(_, password)| password)
            }
            Self::Ldap(Ldap { bind: Bind::Template(_), .. }) => None,
        }
    }

    /// How long one operation may take, in milliseconds.
    pub fn timeout_ms(&self) -> u64 {
        match self {
            Self::Ldap(ldap) => ldap.timeout_ms,
            Self::Radius(target) => target.timeout_ms,
        }
    }
}

impl fmt::Display for LdapServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.security == Security::Tls { "ldaps" } else { "ldap" };
        write!(f, "{scheme}://")?;
        write_address(f, &self.host, self.port)
    }
}

impl fmt::Display for RadiusServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_address(f, &self.host, self.port)
    }
}

/// An IPv6 address stands in brackets.
fn write_address(f: &mut fmt::Formatter<'_>, host: &str, port: u16) -> fmt::Result {
    if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
}

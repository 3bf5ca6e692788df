//! Identity sources: who knows the users' passwords when Watchword does not.
//!
//! What is kept here is how to ask. The asking is done elsewhere, and what it gives is a claim that names
//! the revision of the directory it relied on.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

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
    /// The password of the account that searches, if there is one.
    pub fn secret(&self) -> Option<&Sealed> {
        let Self::Ldap(ldap) = self;
        match &ldap.bind {
            Bind::Search(Search { account: Some((_, password)), .. }) => Some(password),
            Bind::Search(_) | Bind::Template(_) => None,
        }
    }

    pub(crate) fn secret_mut(&mut self) -> Option<&mut Sealed> {
        let Self::Ldap(ldap) = self;
        match &mut ldap.bind {
            Bind::Search(Search { account: Some((_, password)), .. }) => Some(password),
            Bind::Search(_) | Bind::Template(_) => None,
        }
    }
}

impl fmt::Display for LdapServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.security == Security::Tls { "ldaps" } else { "ldap" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

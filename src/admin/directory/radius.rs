//! Directories that are RADIUS servers.

use serde::{Deserialize, Serialize};
use watchword_core::client::Requirement;
use watchword_core::directory::{Probe, RadiusServer, RadiusTarget};
use watchword_core::id::DirectoryId;
use watchword_core::sealed::Sealed;

use super::{TIMEOUT_MS, host_and_port};
use crate::admin::{Admin, AdminError};
use crate::keys::Owner;

/// Where RADIUS servers are asked (RFC 2865 section 3).
const PORT: u16 = 1812;

/// How a RADIUS server is asked; of an edit, what is absent stays.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RadiusEdit {
    /// Servers, the preferred one first: `HOST[:PORT]`.
    pub servers: Option<Vec<String>>,
    /// The secret that they share with Watchword.
    pub secret: Option<String>,
    /// Whether an answer without Message-Authenticator is taken for none.
    pub require_message_authenticator: Option<Requirement>,
    /// How it is found out that a server that has failed answers again.
    pub probe: Option<Probe>,
    /// How long one server is waited for, in milliseconds.
    pub timeout_ms: Option<u64>,
}

/// One of which nothing is known yet.
pub(super) fn none() -> RadiusTarget {
    RadiusTarget {
        servers: [].into(),
        secret: Sealed::new(&[]),
        require_message_authenticator: Requirement::Auto,
        probe: Probe::Status,
        timeout_ms: TIMEOUT_MS,
    }
}

impl Admin {
    /// `old` with what `edit` says.
    pub(super) fn changed_target(
        &self,
        id: DirectoryId,
        old: &RadiusTarget,
        edit: &RadiusEdit,
    ) -> Result<RadiusTarget, AdminError> {
        let secret = match &edit.secret {
            Some(secret) if secret.is_empty() => {
                return Err(AdminError::Invalid("the shared secret is empty".to_owned()));
            }
            Some(secret) => self.keys.seal(Owner::DirectorySecret(id), secret.as_bytes())?,
            None if old.secret.as_bytes().is_empty() => {
                return Err(AdminError::Invalid(
                    "a RADIUS server needs a shared secret".to_owned(),
                ));
            }
            None => old.secret.clone(),
        };
        let servers = match &edit.servers {
            Some(servers) => {
                servers.iter().map(|server| parse_server(server)).collect::<Result<_, _>>()?
            }
            None => old.servers.clone(),
        };
        Ok(RadiusTarget {
            servers,
            secret,
            require_message_authenticator: edit
                .require_message_authenticator
                .unwrap_or(old.require_message_authenticator),
            probe: edit.probe.unwrap_or(old.probe),
            timeout_ms: edit.timeout_ms.unwrap_or(old.timeout_ms),
        })
    }
}

/// `HOST[:PORT]`; an IPv6 address in brackets.
fn parse_server(text: &str) -> Result<RadiusServer, AdminError> {
    let (host, port) = host_and_port(text.trim(), PORT)
        .ok_or_else(|| AdminError::Invalid(format!("{text:?} is not HOST[:PORT]")))?;
    Ok(RadiusServer { host: host.into(), port, signs: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_they_are_written() {
        let read = |text| parse_server(text).map(|server| server.to_string()).ok();
        assert_eq!(read("nps1.example.org").as_deref(), Some("nps1.example.org:1812"));
        assert_eq!(read("192.0.2.1:1645").as_deref(), Some("192.0.2.1:1645"));
        assert_eq!(read("[2001:db8::1]").as_deref(), Some("[2001:db8::1]:1812"));
        for text in ["", "a:0", "a:b", "udp://a", "a b", "2001:db8::1", "[a]"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}

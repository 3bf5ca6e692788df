//! LDAP, and Active Directory by LDAP: a password is right when a bind with it succeeds.
//!
//! What a user types is put into names and filters in their own escapes, so that it stays a name. A server that
//! fails is passed over; when none answers, nothing is said about the password.

mod connection;
pub mod message;
mod reason;
mod server;

use std::sync::Arc;
use std::time::Duration;

use ldap3::{dn_escape, ldap_escape};
use tokio::sync::Semaphore;
use watchword_core::directory::{Bind, Ldap, Search, USER};
use watchword_core::name::UserName;
use zeroize::Zeroizing;

pub(super) use server::ServerError;

use super::tls::{self, TrustError};
use super::{Answer, DirectoryError};
use server::Server;

/// Logins that ask one directory at a time: it must not hold up everybody when it is slow.
const IN_FLIGHT_MAX: usize = 256;

/// Asks one directory.
pub(super) struct Client {
    name: Arc<str>,
    bind: Bind,
    /// The password of the account that searches.
    password: Option<Zeroizing<String>>,
    servers: Vec<Server>,
    in_flight: Semaphore,
}

impl Client {
    /// A client with no connection yet.
    pub(super) fn new(
        name: Arc<str>,
        settings: &Ldap,
        password: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Self, TrustError> {
        let tls = tls::client(&settings.trust)?;
        let timeout = Duration::from_millis(settings.timeout_ms);
        let server = |address: &_| Server::new(Clone::clone(address), tls.clone(), timeout);
        let text = |octets: Zeroizing<Vec<u8>>| {
            Zeroizing::new(String::from_utf8_lossy(&octets).into_owned())
        };
        Ok(Self {
            name,
            bind: settings.bind.clone(),
            password: password.map(text),
            servers: settings.servers.iter().map(server).collect(),
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
        })
    }

    /// Whether `password` is the password of `user`.
    pub(super) async fn check(
        &self,
        user: &UserName,
        password: &str,
    ) -> Result<Answer, DirectoryError> {
        let permit = self.in_flight.try_acquire();
        let _permit = permit.map_err(|_| DirectoryError::Overloaded(self.name.clone()))?;
        let mut failure = None;
        for server in self.servers.iter().filter(|server| server.is_due()) {
            let answered = self.ask(server, user, password).await;
            server.note(&answered);
            match answered {
                Ok(answer) => return Ok(answer),
                Err(error) => failure = Some(error),
            }
        }
        Err(match failure {
            Some(source) => {
                let source = Box::new(source.into());
                DirectoryError::Unreachable { directory: self.name.clone(), source }
            }
            None => DirectoryError::Resting(self.name.clone()),
        })
    }

    /// Asks every server, until one does not take the password.
    pub(super) async fn try_each(
        &self,
        user: &UserName,
        password: &str,
    ) -> Vec<(String, Result<Answer, ServerError>)> {
        let mut said = Vec::new();
        for server in &self.servers {
            // As at a login: asking without a password would be asking for nothing.
            let answered = match password {
                "" => Ok(Answer::Wrong),
                _ => self.ask(server, user, password).await,
            };
            server.note(&answered);
            let is_refused = matches!(answered, Ok(answer) if answer != Answer::Right);
            said.push((server.to_string(), answered));
            if is_refused {
                break;
            }
        }
        said
    }

    async fn ask(
        &self,
        server: &Server,
        user: &UserName,
        password: &str,
    ) -> Result<Answer, ServerError> {
        let name = match &self.bind {
            Bind::Template(template) => match filled(template, user) {
                Some(name) => name,
                None => return Ok(Answer::Unknown),
            },
            Bind::Search(search) => match self.find(server, search, user).await? {
                Some(name) => name,
                None => return Ok(Answer::Unknown),
            },
        };
        let result = server.bind(&name, password).await?;
        reason::answer(&result).map_or_else(|| Err(server.unable(result)), Ok)
    }

    /// The name of the one entry of `user`.
    async fn find(
        &self,
        server: &Server,
        search: &Search,
        user: &UserName,
    ) -> Result<Option<String>, ServerError> {
        let filter = search.filter.replace(USER, &ldap_escape(user.as_str()));
        let account = search.account.as_ref().map(|(name, _)| &**name);
        let account = account.zip(self.password.as_ref().map(|password| password.as_str()));
        let mut found = server.find(&search.base, &filter, account).await?;
        match found.len() {
            0 | 1 => Ok(found.pop().filter(|name| !name.is_empty())),
            _ => {
                // Whose password would it be?
                let (directory, user) = (&self.name, user.as_str());
                tracing::warn!(%directory, user, "several entries of the directory have this name");
                Ok(None)
            }
        }
    }
}

/// The name by which `user` binds; `None` when there can be none. In a distinguished name it is escaped; in
/// what Active Directory takes besides, `user@domain` and `DOMAIN\user`, nothing could be.
fn filled(template: &str, user: &UserName) -> Option<String> {
    if template.contains('=') {
        return Some(template.replace(USER, &dn_escape(user.as_str())));
    }
    // Characters that no name has there, so that none is read as more than a name.
    let is_name = !user.as_str().contains([
        '"', '/', '\\', '[', ']', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@',
    ]);
    is_name.then(|| template.replace(USER, user.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserName {
        UserName::canonical(name).expect("a name")
    }

    #[test]
    fn a_name_stays_a_name_whatever_is_in_it() {
        let dn = |name| filled("uid={user},ou=people,dc=example", &user(name)).expect("a name");
        assert_eq!(dn("alice"), "uid=alice,ou=people,dc=example");
        assert_eq!(dn("a,ou=admins"), "uid=a\\2cou\\3dadmins,ou=people,dc=example");
        let upn = |name| filled("{user}@lab.test", &user(name));
        assert_eq!(upn("alice").as_deref(), Some("alice@lab.test"));
        assert_eq!(upn("a=b"), None);
        assert_eq!(ldap_escape("*)(uid=*"), "\\2a\\29\\28uid=\\2a");
    }
}

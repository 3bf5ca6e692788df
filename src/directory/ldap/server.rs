//! One server of a directory that is asked by LDAP: its connections, and whether it is worth asking.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ldap3::{Ldap, LdapError, LdapResult, Scope, SearchEntry, SearchOptions};
use rustls::ClientConfig;
use tokio::time::error::Elapsed;
use watchword_core::directory::LdapServer;

use super::connection::{ConnectError, connect};
use crate::directory::health::Health;

/// Connections that are kept while nobody uses them.
const IDLE_MAX: usize = 64;

/// Why a server has not answered.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// There is no connection to it.
    #[error("{server}")]
    Connect {
        /// Which.
        server: String,
        /// Why.
        #[source]
        source: Box<ConnectError>,
    },
    /// It has not answered in time.
    #[error("{0} has not answered in time")]
    Timeout(String),
    /// The connection has broken.
    #[error("{server} has broken off")]
    Broken {
        /// Which.
        server: String,
        /// How.
        #[source]
        source: Box<LdapError>,
    },
    /// It has answered that it cannot.
    #[error("{server} cannot: {result}")]
    Unable {
        /// Which.
        server: String,
        /// What it says.
        result: Box<LdapResult>,
    },
}

/// A server.
pub(super) struct Server {
    address: LdapServer,
    tls: Arc<ClientConfig>,
    timeout: Duration,
    /// Connections for binds; each serves one at a time (RFC 4511 section 4.2.1).
    idle: Mutex<Vec<Ldap>>,
    /// The connection that searches, bound as whoever may; it serves many at a time.
    searching: tokio::sync::Mutex<Option<Ldap>>,
    health: Health,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Server {
    /// A server that was not asked yet.
    pub(super) fn new(address: LdapServer, tls: Arc<ClientConfig>, timeout: Duration) -> Self {
        let (idle, searching) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { address, tls, timeout, idle, searching, health: Health::default() }
    }

    /// Whether it may be asked now.
    pub(super) fn is_due(&self) -> bool {
        self.health.is_due(self.timeout)
    }

    /// Notes whether it has answered.
    pub(super) fn note<T>(&self, answered: &Result<T, ServerError>) {
        self.health.note(self, answered);
    }

    /// Binds as `name`, which is nobody else than who must know `password`; what the server says to that.
    pub(super) async fn bind(&self, name: &str, password: &str) -> Result<LdapResult, ServerError> {
        let reused = self.idle().pop();
        if let Some(mut ldap) = reused {
            match self.bind_on(&mut ldap, name, password).await {
                // The server may have closed it, and all others, while it was idle.
                Err(ServerError::Broken { .. }) => self.idle().clear(),
                answered => {
                    self.put_back(ldap, &answered);
                    return answered;
                }
            }
        }
        let mut ldap = self.connect().await?;
        let answered = self.bind_on(&mut ldap, name, password).await;
        self.put_back(ldap, &answered);
        answered
    }

    async fn bind_on(
        &self,
        ldap: &mut Ldap,
        name: &str,
        password: &str,
    ) -> Result<LdapResult, ServerError> {
        let bound = tokio::time::timeout(self.timeout, ldap.simple_bind(name, password)).await;
        self.answered(bound)
    }

    /// Keeps a connection, unless it has failed.
    fn put_back(&self, ldap: Ldap, answered: &Result<LdapResult, ServerError>) {
        let mut idle = self.idle();
        if answered.is_ok() && idle.len() < IDLE_MAX {
            idle.push(ldap);
        }
    }

    /// The names of the first two entries below `base` that `filter` finds; as `account` if there is one.
    pub(super) async fn find(
        &self,
        base: &str,
        filter: &str,
        account: Option<(&str, &str)>,
    ) -> Result<Vec<String>, ServerError> {
        let was_open = self.searching.lock().await.is_some();
        match self.try_find(base, filter, account).await {
            Err(ServerError::Broken { .. }) if was_open => {
                self.searching.lock().await.take();
                self.try_find(base, filter, account).await
            }
            found => found,
        }
    }

    async fn try_find(
        &self,
        base: &str,
        filter: &str,
        account: Option<(&str, &str)>,
    ) -> Result<Vec<String>, ServerError> {
        let mut ldap = self.searcher(account).await?;
        ldap.with_search_options(SearchOptions::new().sizelimit(2));
        // No attributes (RFC 4511 section 4.5.1.8): the name is enough.
        let search = ldap.search(base, Scope::Subtree, filter, ["1.1"]);
        let found = tokio::time::timeout(self.timeout, search).await;
        let found = self.answered(found);
        if found.is_err() {
            self.searching.lock().await.take();
        }
        let found = found?;
        let (entries, result) = (found.0, found.1);
        match result.rc {
            // Also where there are more than two, and where the base is not there.
            0 | 4 | 32 => {
                let entries = entries.into_iter().filter(|entry| !entry.is_ref());
                Ok(entries.map(|entry| SearchEntry::construct(entry).dn).collect())
            }
            _ => Err(self.unable(result)),
        }
    }

    /// The connection that searches.
    async fn searcher(&self, account: Option<(&str, &str)>) -> Result<Ldap, ServerError> {
        // Whoever comes meanwhile waits for the same connection.
        let mut searching = self.searching.lock().await;
        if let Some(ldap) = searching.as_mut()
            && !ldap.is_closed()
        {
            return Ok(ldap.clone());
        }
        let mut ldap = self.connect().await?;
        if let Some((name, password)) = account {
            let result = self.bind_on(&mut ldap, name, password).await?;
            if result.rc != 0 {
                return Err(self.unable(result));
            }
        }
        *searching = Some(ldap.clone());
        Ok(ldap)
    }

    /// It has answered, and said nothing of use.
    pub(super) fn unable(&self, result: LdapResult) -> ServerError {
        ServerError::Unable { server: self.address.to_string(), result: Box::new(result) }
    }

    async fn connect(&self) -> Result<Ldap, ServerError> {
        let connected = tokio::time::timeout(self.timeout, connect(&self.address, &self.tls)).await;
        connected.map_err(|_| ServerError::Timeout(self.address.to_string()))?.map_err(|source| {
            let (server, source) = (self.address.to_string(), Box::new(source));
            ServerError::Connect { server, source }
        })
    }

    fn answered<T>(
        &self,
        answered: Result<Result<T, LdapError>, Elapsed>,
    ) -> Result<T, ServerError> {
        let server = || self.address.to_string();
        answered
            .map_err(|_| ServerError::Timeout(server()))?
            .map_err(|source| ServerError::Broken { server: server(), source: Box::new(source) })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Ldap>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Which client an address belongs to.
//!
//! The table is derived from the replicated clients and rebuilt when they change. It holds the shared
//! secrets in the clear, in this process's memory alone.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use watchword_core::State;
use watchword_core::client::{ClientPolicy, RadiusClient};
use watchword_core::id::ClientId;

use crate::keys::{Keyring, Owner};
use crate::radius::secret::Secret;

/// A client, ready for use.
pub struct KnownClient {
    /// Its id.
    pub id: ClientId,
    /// Its name, for logs.
    pub name: Arc<str>,
    /// The revision that this was made from.
    pub revision: u64,
    /// How its users are authenticated.
    pub policy: ClientPolicy,
    /// The shared secret.
    pub secret: Secret,
    /// Whether a request without Message-Authenticator is dropped now.
    pub demands_message_authenticator: bool,
    /// Whether Proxy-State without Message-Authenticator is refused now.
    pub limits_proxy_state: bool,
    /// What is replicated about it.
    pub radius: RadiusClient,
}

/// All clients by address, as of the state that it was last rebuilt from.
pub struct ClientTable {
    keys: Arc<Keyring>,
    current: ArcSwap<Snapshot>,
    rebuilding: Mutex<()>,
}

#[derive(Default)]
struct Snapshot {
    /// `None` before the first build: revision zero is a real one.
    revision: Option<u64>,
    /// Where some secret does not open: the revision of the data keys. On a state that is old, because
    /// the node has come lately, secrets can be sealed under a key that was given up since.
    retry_from: Option<u64>,
    clients: HashMap<IpNet, Arc<KnownClient>>,
    /// Prefix lengths that occur, longest first.
    ipv4_lengths: Vec<u8>,
    ipv6_lengths: Vec<u8>,
}

impl ClientTable {
    /// An empty table.
    pub fn new(keys: Arc<Keyring>) -> Self {
        Self { keys, current: ArcSwap::default(), rebuilding: Mutex::new(()) }
    }

    /// The client that `address` belongs to: the one with the most specific range.
    pub fn find(&self, address: IpAddr) -> Option<Arc<KnownClient>> {
        self.current.load().find(address.to_canonical())
    }

    /// Whether it is as new as `state`, as far as that matters.
    pub fn is_of(&self, state: &State) -> bool {
        self.current.load().is_of(state)
    }

    /// Makes it as new as `state`. Opens the secrets of all clients, so this may take milliseconds.
    pub fn rebuild(&self, state: &State) {
        let _alone = self.rebuilding.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have done it, perhaps from a newer state.
        let current = self.current.load();
        if !current.is_of(state) && current.revision <= Some(state.clients_revision()) {
            self.current.store(Arc::new(Snapshot::new(state, &self.keys)));
        }
    }
}

impl Snapshot {
    fn new(state: &State, keys: &Keyring) -> Self {
        let mut table = Self { revision: Some(state.clients_revision()), ..Self::default() };
        for (id, client) in state.clients() {
            let Some(radius) = client.radius() else { continue };
            let opened = keys.open(Owner::ClientSecret(id), &radius.secret);
            let secret = opened.ok().and_then(|clear| Secret::new(&clear).ok());
            let Some(secret) = secret else {
                tracing::error!(client = %client.name, "the client's shared secret does not open");
                table.retry_from = Some(state.data_keys().revision);
                continue;
            };
            let habits = radius.habits;
            let known = Arc::new(KnownClient {
                id,
                name: client.name.clone(),
                revision: client.revision,
                policy: client.policy.clone(),
                secret,
                demands_message_authenticator: radius
                    .require_message_authenticator
                    .in_force(habits.signs),
                limits_proxy_state: radius.limit_proxy_state.in_force(habits.is_no_proxy),
                radius: radius.clone(),
            });
            for range in radius.addresses.iter() {
                table.insert(*range, known.clone());
            }
        }
        table
    }

    fn is_of(&self, state: &State) -> bool {
        let is_whole = self.retry_from.is_none_or(|from| from == state.data_keys().revision);
        is_whole && self.revision == Some(state.clients_revision())
    }

    fn insert(&mut self, range: IpNet, client: Arc<KnownClient>) {
        let lengths = match range {
            IpNet::V4(_) => &mut self.ipv4_lengths,
            IpNet::V6(_) => &mut self.ipv6_lengths,
        };
        if !lengths.contains(&range.prefix_len()) {
            lengths.push(range.prefix_len());
            lengths.sort_unstable_by(|one, other| other.cmp(one));
        }
        self.clients.insert(range.trunc(), client);
    }

    fn find(&self, address: IpAddr) -> Option<Arc<KnownClient>> {
        let lengths = match address {
            IpAddr::V4(_) => &self.ipv4_lengths,
            IpAddr::V6(_) => &self.ipv6_lengths,
        };
        lengths.iter().find_map(|&length| {
            let range = IpNet::new(address, length).ok()?.trunc();
            self.clients.get(&range).cloned()
        })
    }
}

#[cfg(test)]
mod tests {
    use watchword_core::client::{FirstFactor, PasscodeInput, RadiusHabits, Requirement};
    use watchword_core::command::{ClientFields, PutClient, RadiusFields, Resealed};
    use watchword_core::data_key::Secret as SecretOf;
    use watchword_core::sealed::Sealed;
    use watchword_core::time::Timestamp;
    use watchword_core::{Applied, Command, Entry};

    use super::*;
    use crate::config::KeySource;

    fn client(name: &str, ranges: &[&str]) -> (Vec<IpNet>, Arc<KnownClient>) {
        let addresses: Vec<IpNet> =
            ranges.iter().map(|range| range.parse().expect("range")).collect();
        let known = KnownClient {
            id: ClientId([0; 16]),
            name: name.into(),
            revision: 1,
            policy: ClientPolicy {
                first_factor: FirstFactor::None,
                require_user_match: true,
                passcode_input: PasscodeInput::Auto,
            },
            secret: Secret::new(b"secret").expect("not empty"),
            demands_message_authenticator: false,
            limits_proxy_state: false,
            radius: RadiusClient {
                addresses: addresses.as_slice().into(),
                secret: Sealed::new(&[]),
                require_message_authenticator: Requirement::No,
                limit_proxy_state: Requirement::No,
                habits: RadiusHabits::default(),
            },
        };
        (addresses, Arc::new(known))
    }

    #[test]
    fn a_secret_that_does_not_open_yet_is_tried_again_when_it_is_sealed_anew() {
        let new_keyring = || {
            // Nothing is written to it later.
            let dir = tempfile::tempdir().expect("temporary directory");
            let source = KeySource::File(dir.path().join("key"));
            Keyring::create(dir.path(), &source).expect("creates")
        };
        let (keys, earlier, id) = (Arc::new(new_keyring()), new_keyring(), ClientId([1; 16]));
        let seal = |keys: &Keyring| keys.seal(Owner::ClientSecret(id), b"secret").expect("seals");
        let (old, new) = (seal(&earlier), seal(&keys));
        let fields = RadiusFields {
            addresses: ["10.0.0.0/8".parse().expect("range")].into(),
            secret: old.clone(),
            require_message_authenticator: Requirement::Auto,
            limit_proxy_state: Requirement::Auto,
        };
        let put = PutClient {
            id,
            name: "vpn".into(),
            policy: client("vpn", &[]).1.policy.clone(),
            fields: ClientFields::Radius(fields),
        };
        let secret = SecretOf::ClientSecret(id);
        let commands = [
            Command::AddClient(put),
            Command::Reseal { items: vec![Resealed { secret, old, new }] },
        ];
        let (mut state, table) = (State::default(), ClientTable::new(keys));
        let mut found = Vec::new();
        for (index, command) in (1..).zip(commands) {
            let applied = state.apply(index, &Entry { time: Timestamp(1), command });
            assert_eq!(applied, Applied::Done);
            assert!(!table.is_of(&state));
            table.rebuild(&state);
            found.push(table.find("10.1.2.3".parse().expect("address")).is_some());
        }
        assert_eq!(found, [false, true]);
    }

    #[test]
    fn the_most_specific_range_wins() {
        let mut table = Snapshot::default();
        for (name, ranges) in [
            ("all", &["0.0.0.0/0"][..]),
            ("ten", &["10.0.0.0/8", "2001:db8::/32"]),
            ("site", &["10.1.0.0/16"]),
            ("host", &["10.1.2.3/32", "2001:db8::1/128"]),
        ] {
            let (ranges, known) = client(name, ranges);
            ranges.into_iter().for_each(|range| table.insert(range, known.clone()));
        }
        for (address, expected) in [
            ("10.1.2.3", Some("host")),
            ("10.1.2.4", Some("site")),
            ("10.2.0.1", Some("ten")),
            ("192.0.2.1", Some("all")),
            ("2001:db8::1", Some("host")),
            ("2001:db8::2", Some("ten")),
            ("2001:db9::1", None),
        ] {
            let found = table.find(address.parse().expect("address"));
            assert_eq!(found.as_ref().map(|known| &*known.name), expected, "{address}");
        }
    }
}

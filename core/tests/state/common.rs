//! Builders shared by the tests of the replicated state.

use std::sync::Arc;

use watchword_core::attempt::{Asker, Verdict};
use watchword_core::challenge::ChallengeRef;
use watchword_core::client::{ClientPolicy, FirstFactor, PasscodeInput, Requirement};
use watchword_core::command::{
    Admit, ClientFields, Conclude, Decision, Finding, FirstProof, Found, NewDevice, NewOath,
    NewUser, Proof, PutClient, PutDirectory, RadiusFields, Resealed,
};
use watchword_core::data_key::Secret;
use watchword_core::directory::{
    Bind, DirectoryKind, Ldap, LdapServer, Probe, RadiusServer, RadiusTarget, Search, Security,
    Trust,
};
use watchword_core::factor::Algorithm;
use watchword_core::id::{
    ChallengeId, ClientId, ClusterId, DeviceId, DirectoryId, RequestId, TokenId, UserId,
};
use watchword_core::name::UserName;
use watchword_core::node::Authority;
use watchword_core::reply::HeldReply;
use watchword_core::sealed::{KeyId, Sealed};
use watchword_core::time::Timestamp;
use watchword_core::user::Profile;
use watchword_core::{Applied, Command, Entry, State};

pub(crate) const START: u64 = 1_800_000_000_000;

pub(crate) fn user_id(n: u8) -> UserId {
    UserId([n; 16])
}

pub(crate) fn device_id(n: u8) -> DeviceId {
    DeviceId([n; 16])
}

pub(crate) fn client_id(n: u8) -> ClientId {
    ClientId([n; 16])
}

pub(crate) fn directory_id(n: u8) -> DirectoryId {
    DirectoryId([n; 16])
}

pub(crate) fn request_id(n: u64) -> RequestId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.to_be_bytes());
    RequestId(id)
}

pub(crate) fn challenge(n: u8, expires: u64) -> ChallengeRef {
    ChallengeRef { id: ChallengeId([n; 16]), expires: Timestamp(expires) }
}

pub(crate) fn totp_device(n: u8) -> NewDevice {
    NewDevice {
        id: device_id(n),
        label: "token".into(),
        key: Sealed::new(&[n; 49]),
        algorithm: Algorithm::Sha1,
        digits: 6,
        oath: NewOath::Totp { period_seconds: 30 },
    }
}

pub(crate) fn hotp_device(n: u8) -> NewDevice {
    NewDevice { oath: NewOath::Hotp { counter: 0 }, ..totp_device(n) }
}

pub(crate) fn new_user(n: u8, name: &str, devices: Vec<NewDevice>) -> Command {
    Command::AddUser(Box::new(NewUser {
        id: user_id(n),
        name: UserName::canonical(name).expect("a name"),
        profile: Profile::default(),
        password: Some(Sealed::new(b"sealed hash")),
        enabled: true,
        devices,
    }))
}

pub(crate) fn put_client(n: u8, name: &str, address: &str, policy: ClientPolicy) -> PutClient {
    PutClient {
        id: client_id(n),
        name: name.into(),
        policy,
        fields: ClientFields::Radius(RadiusFields {
            addresses: Arc::new([address.parse().expect("a range")]),
            secret: Sealed::new(b"sealed secret"),
            require_message_authenticator: Requirement::Auto,
            limit_proxy_state: Requirement::Auto,
        }),
    }
}

pub(crate) fn put_directory(n: u8, name: &str) -> PutDirectory {
    let server = |host: &str, security| LdapServer { host: host.into(), port: 636, security };
    PutDirectory {
        id: directory_id(n),
        name: name.into(),
        kind: DirectoryKind::Ldap(Ldap {
            servers: [server("dc1.example.org", Security::Tls), server("::1", Security::StartTls)]
                .into(),
            trust: Trust::Fingerprints([[7; 32]].into()),
            bind: Bind::Search(Search {
                base: "dc=example,dc=org".into(),
                filter: "(uid={user})".into(),
                account: Some(("cn=reader".into(), Sealed::new(b"sealed"))),
            }),
            timeout_ms: 2_000,
        }),
    }
}

pub(crate) fn put_target(n: u8, name: &str) -> PutDirectory {
    let server = |host: &str, port| RadiusServer { host: host.into(), port, signs: false };
    PutDirectory {
        id: directory_id(n),
        name: name.into(),
        kind: DirectoryKind::Radius(RadiusTarget {
            servers: [server("nps1.example.org", 1812), server("::1", 1645)].into(),
            secret: Sealed::new(b"sealed"),
            require_message_authenticator: Requirement::Auto,
            probe: Probe::Status,
            timeout_ms: 2_000,
        }),
    }
}

pub(crate) fn policy(first_factor: FirstFactor, require_user_match: bool) -> ClientPolicy {
    ClientPolicy { first_factor, require_user_match, passcode_input: PasscodeInput::Auto }
}

/// A conclusion of the console about user 1, called alice.
pub(crate) fn conclude(request: u64, finding: Finding) -> Conclude {
    Conclude {
        request: request_id(request),
        asker: Asker::Console,
        client_revision: 0,
        username: "alice".into(),
        user: Some(user_id(1)),
        remote: "".into(),
        challenge: None,
        finding,
        reply: None,
    }
}

/// What is held for that request until a minute from the start.
pub(crate) fn held_reply(request: u64, sealed: &[u8]) -> HeldReply {
    let expires = Timestamp(START + 60_000);
    HeldReply { request: request_id(request), expires, sealed: sealed.into() }
}

pub(crate) fn passcode(device: u8, moving_factor: u64) -> Finding {
    Finding::Proven {
        first: FirstProof::Client,
        second: Proof::Passcode { device: device_id(device), moving_factor },
    }
}

/// A state and the log that leads to it.
pub(crate) struct Replica {
    pub(crate) state: State,
    pub(crate) log: Vec<Entry>,
    pub(crate) now: u64,
}

impl Default for Replica {
    fn default() -> Self {
        let mut replica = Self { state: State::default(), log: Vec::new(), now: START };
        // An entry that changes nothing but the time, so that a refused one changes nothing at all.
        replica.apply(Command::EnableFeature { level: 0 });
        replica
    }
}

impl Replica {
    /// A replica with alice (user 1) who holds a HOTP (1) and a TOTP (2) device.
    pub(crate) fn with_alice() -> Self {
        let mut replica = Self::default();
        let devices = vec![hotp_device(1), totp_device(2)];
        assert_eq!(replica.apply(new_user(1, "alice", devices)), Applied::Done);
        replica
    }

    pub(crate) fn index(&self) -> u64 {
        self.log.len() as u64
    }

    pub(crate) fn apply(&mut self, command: Command) -> Applied {
        let entry = Entry { time: Timestamp(self.now), command };
        self.log.push(entry.clone());
        self.state.apply(self.log.len() as u64, &entry)
    }

    pub(crate) fn decide(&mut self, conclude: Conclude) -> Decision {
        match self.apply(Command::Conclude(conclude)) {
            Applied::Concluded(decision) => decision,
            other => panic!("no decision but {other:?}"),
        }
    }

    pub(crate) fn verdict(&mut self, conclude: Conclude) -> Verdict {
        self.decide(conclude).verdict
    }

    /// The current step of a token with 30 seconds.
    pub(crate) fn step(&self) -> u64 {
        self.now / 30_000
    }
}

pub(crate) fn token_id(n: u8) -> TokenId {
    TokenId([n; 16])
}

/// A public key; any bytes will do here.
pub(crate) fn public_key(n: u8) -> Arc<[u8]> {
    [n; 44].into()
}

pub(crate) fn found() -> Command {
    Command::Found(Box::new(Found {
        authority: Authority {
            cluster: ClusterId([7; 16]),
            certificate: [1, 2, 3].into(),
            key: Sealed::new(b"sealed"),
        },
        address: "node1.example.org:7400".into(),
        public_key: public_key(1),
    }))
}

pub(crate) fn create_token(token: u8, uses: u32) -> Command {
    Command::CreateToken {
        token: token_id(token),
        public_key: public_key(100 + token),
        for_ms: 3_600_000,
        uses,
    }
}

pub(crate) fn admit(token: u8, key: u8, address: &str) -> Command {
    Command::AdmitNode(Box::new(Admit {
        token: token_id(token),
        address: address.into(),
        public_key: public_key(key),
        votes: true,
    }))
}

/// Something sealed under key `n`.
pub(crate) fn sealed_under(n: u8) -> Sealed {
    Sealed::new(&[&KeyId([n; 4]).header()[..], b"ciphertext"].concat())
}

pub(crate) fn use_key(n: u8, generation: u64, holders: &[u64]) -> Command {
    Command::UseKey { key: KeyId([n; 4]), generation, holders: holders.to_vec() }
}

/// A secret that goes over to key `n`.
pub(crate) fn resealed(secret: Secret, old: &[u8], n: u8) -> Resealed {
    Resealed { secret, old: Sealed::new(old), new: sealed_under(n) }
}

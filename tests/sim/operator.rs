//! Administrators: they change users and clients at any node, and keep what they were promised.

use std::cell::Cell;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use data_encoding::BASE32_NOPAD;
use tokio::time::{sleep, timeout};
use watchword::admin::{
    Admin, AdminError, BlockSpec, BypassSpec, ClientEdit, ClientSpec, DeviceKind, DeviceSpec,
    ImportRow, RowOutcome, SettingsEdit, UserEdit, UserSpec,
};
use watchword::clock;
use watchword::config::KeySource;
use watchword::keys::{Keyring, Owner};
use watchword::pki::{Authority, PrivateKey};
use watchword_cluster::ProposeError;
use watchword_core::command::{Admit, Found};
use watchword_core::id::TokenId;
use watchword_core::node::{Authority as Replicated, NodeId};
use watchword_core::{Applied, Command};

use crate::history::{Class, End, Person, SharedHistory, Wish};
use crate::host::{CLUSTER, Host, Identity};
use crate::nas::{Manner, Orders, secret};
use crate::scenario::{CHALLENGE_SECONDS, CLOCK_ERROR_SECONDS_MAX, Scenario};

/// By which nodes are admitted.
const TOKEN: TokenId = TokenId([1; 16]);
/// How many administrators there are.
pub(crate) const OPERATORS: usize = 3;
/// How long one waits for an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Users of each class.
const USERS: [(Class, usize); 6] = [
    (Class::Plain, 6),
    (Class::Raced, 2),
    (Class::Victim, 4),
    (Class::Managed, 4 * OPERATORS),
    (Class::Bypassed, OPERATORS),
    (Class::Clocked, 3),
];

/// What certifies nodes, and the data keys that they get.
pub(crate) struct Office {
    authority: Authority,
    authority_key: PrivateKey,
    keys: Keyring,
    data_keys: Vec<u8>,
    /// Where each node has a directory.
    dir: PathBuf,
    appointed: Cell<u32>,
}

impl Office {
    /// A new authority and data key. Their files are in `dir`, which is nobody else's: a name that is drawn
    /// would depend on the names that others have drawn.
    pub(crate) fn new(dir: &Path) -> anyhow::Result<Self> {
        let (authority, authority_key) = Authority::create(CLUSTER, clock::now())?;
        let source = KeySource::File(dir.join("data.key"));
        let keys = Keyring::create(dir, &source)?;
        let in_force = *watchword_core::State::default().data_keys();
        let data_keys = keys.export(&in_force)?.to_vec();
        let (dir, appointed) = (dir.to_owned(), Cell::new(0));
        Ok(Self { authority, authority_key, keys, data_keys, dir, appointed })
    }

    /// Makes whoever is node `node` of the cluster on `host`.
    pub(crate) fn appoint(&self, host: &Host, node: NodeId) -> anyhow::Result<()> {
        let key = PrivateKey::generate()?;
        self.appointed.set(self.appointed.get() + 1);
        let dir = self.dir.join(format!("identity-{}", self.appointed.get()));
        let identity = Identity::new(node, key, &self.authority, &self.data_keys, dir)?;
        host.identity.replace(Some(Rc::new(identity)));
        Ok(())
    }

    /// What the founder writes into the log.
    fn founding(&self, address: String) -> anyhow::Result<Found> {
        let sealed = self.keys.seal(Owner::AuthorityKey(CLUSTER), self.authority_key.pkcs8())?;
        Ok(Found {
            authority: Replicated {
                cluster: CLUSTER,
                certificate: self.authority.certificate().to_vec().into(),
                key: sealed,
            },
            address: address.into(),
            public_key: PrivateKey::generate()?.public_key().into(),
        })
    }

    /// Makes the cluster, and everything that its clients need. Without faults.
    pub(crate) async fn found(
        &self,
        scenario: &Scenario,
        hosts: &[Rc<Host>],
        nas: &[String],
        history: &SharedHistory,
    ) -> anyhow::Result<()> {
        let founder = hosts.first().context("there are hosts")?;
        let found = self.founding(founder.address())?;
        wait_until(|| founder.running.borrow().is_some()).await?;
        let made = founder.run(async move |node| {
            node.admin.found(found).await?;
            let token = Command::CreateToken {
                token: TOKEN,
                public_key: [100].into(),
                for_ms: 24 * 60 * 60 * 1000,
                uses: 60,
            };
            anyhow::ensure!(node.cluster.propose(token).await? == Applied::Done);
            Ok(())
        });
        made.await.context("the founder runs")??;
        populate(scenario, founder, nas, history).await
    }
}

/// Admits whoever will run on `host`; gives its id.
pub(crate) async fn admit(at: &Host, host: &Host, start: u64) -> anyhow::Result<Option<NodeId>> {
    let address = host.address();
    // The same in every try, so that one of unknown outcome is answered with the id that it was given.
    let public_key: Arc<[u8]> =
        format!("key of {} after {start} starts", host.name).as_bytes().into();
    let admitted = at.run(async move |node| {
        let admit = Admit { token: TOKEN, address: address.into(), public_key, votes: true };
        node.cluster.propose(Command::AdmitNode(Box::new(admit))).await
    });
    match admitted.await {
        Some(Ok(Applied::Admitted(node))) => Ok(Some(node)),
        Some(Ok(Applied::Refused(refusal))) => bail!("a node is not admitted: {refusal}"),
        _ => Ok(None),
    }
}

/// Waits until something is so.
async fn wait_until(mut is_so: impl FnMut() -> bool) -> anyhow::Result<()> {
    for _ in 0..5_000 {
        if is_so() {
            return Ok(());
        }
        sleep(Duration::from_millis(4)).await;
    }
    bail!("it does not come about within 20 s")
}

/// Settings, clients and users.
async fn populate(
    scenario: &Scenario,
    at: &Host,
    nas: &[String],
    history: &SharedHistory,
) -> anyhow::Result<()> {
    let edit = SettingsEdit {
        changes: [
            ("lockout.passcode_failures".to_owned(), Some(scenario.failures_max.to_string())),
            ("lockout.password_failures".to_owned(), Some(scenario.failures_max.to_string())),
            ("hotp.look_ahead".to_owned(), Some("100".to_owned())),
            ("clock.error_seconds_max".to_owned(), Some(CLOCK_ERROR_SECONDS_MAX.to_string())),
            // A wrong clock may be wrong by more than these.
            ("lockout.minutes".to_owned(), Some("1".to_owned())),
            ("lockout.reset_minutes".to_owned(), Some("1".to_owned())),
            ("challenge.seconds".to_owned(), Some(CHALLENGE_SECONDS.to_string())),
        ]
        .into(),
        ..SettingsEdit::default()
    };
    let clients: Vec<_> = Manner::ALL
        .into_iter()
        .enumerate()
        .zip(nas)
        .map(|((number, manner), address)| ClientSpec {
            first_factor: if manner.has_password() {
                "local".to_owned()
            } else {
                "none".to_owned()
            },
            ..ClientSpec::new(format!("nas{number}"), vec![address.clone()], secret(number, true))
        })
        .collect();
    let mut random = fastrand::Rng::with_seed(scenario.seed);
    let mut rows = Vec::new();
    for (class, count) in USERS {
        for number in 0..count {
            let name = format!("{class:?}-{number}").to_lowercase();
            let person = Person::new(&name, class, &mut random);
            rows.push(ImportRow {
                user: UserSpec {
                    username: name,
                    password_hash: Some(cheap_hash(&person.password())?),
                    ..UserSpec::default()
                },
                device: Some(DeviceSpec {
                    key: Some(BASE32_NOPAD.encode(&person.key)),
                    ..DeviceSpec::new(match class {
                        Class::Clocked => DeviceKind::Totp,
                        _ => DeviceKind::Hotp,
                    })
                }),
            });
            history.borrow_mut().people.push(person);
        }
    }
    let populated = at.run(async move |node| {
        node.admin.edit_settings(edit, "operator").await?;
        for client in clients {
            node.admin.add_client(client).await?;
        }
        let outcomes = node.admin.import_users(rows).await?;
        ensure!(outcomes.iter().all(|outcome| *outcome == RowOutcome::Added), "{outcomes:?}");
        Ok(())
    });
    populated.await.context("the founder runs")?
}

/// A hash that costs next to nothing to compare with.
pub(crate) fn cheap_hash(password: &str) -> anyhow::Result<String> {
    let params = Params::new(8, 1, 1, None).map_err(anyhow::Error::msg)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = argon2.hash_password_with_salt(password.as_bytes(), b"salt of no matter");
    Ok(hash.map_err(|error| anyhow::anyhow!("{error}"))?.to_string())
}

/// Somebody who asks for changes, of users that are nobody else's.
pub(crate) struct Operator {
    number: usize,
    hosts: Rc<Vec<Rc<Host>>>,
    history: SharedHistory,
    orders: Rc<Orders>,
    random: fastrand::Rng,
    /// Users of whom it is not known what is in force.
    uncertain: Vec<usize>,
    shut: Vec<usize>,
    added: u64,
    version: u64,
}

impl Operator {
    /// Somebody who has done nothing yet.
    pub(crate) fn new(
        number: usize,
        hosts: Rc<Vec<Rc<Host>>>,
        history: SharedHistory,
        orders: Rc<Orders>,
        seed: u64,
    ) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let (uncertain, shut) = (Vec::new(), Vec::new());
        Self { number, hosts, history, orders, random, uncertain, shut, added: 0, version: 0 }
    }

    /// Asks for one change after the other.
    pub(crate) async fn run(mut self) -> turmoil::Result {
        let mut turn = 0;
        loop {
            let pause = self.random.u64(20..250);
            sleep(Duration::from_millis(pause)).await;
            let running: Vec<_> =
                self.hosts.iter().filter(|host| host.running.borrow().is_some()).cloned().collect();
            if running.is_empty() || self.orders.is_over.get() {
                continue;
            }
            if self.orders.is_calm.get() {
                // A change and a reading at each node in turn.
                let host = running[turn % running.len()].clone();
                turn += 1;
                for wish in [self.rename(), self.read()].into_iter().flatten() {
                    self.fulfil(wish, &host).await;
                }
                continue;
            }
            let (Some(host), Some(wish)) = (self.random.choice(running), self.choose()) else {
                continue;
            };
            self.fulfil(wish, &host).await;
        }
    }

    /// This one's users of a class.
    fn own(&self, class: Class) -> Vec<usize> {
        let history = self.history.borrow();
        let people = history.people.iter().enumerate();
        let of_class = people.filter(|(_, person)| person.class == class);
        let own = of_class.skip(self.number).step_by(OPERATORS);
        own.map(|(number, _)| number).collect()
    }

    fn rename(&mut self) -> Option<Wish> {
        self.version += 1;
        Some(Wish::Rename(*self.own(Class::Plain).first()?, self.version))
    }

    fn read(&self) -> Option<Wish> {
        Some(Wish::Read(*self.own(Class::Plain).first()?))
    }

    fn choose(&mut self) -> Option<Wish> {
        match self.random.u8(0..100) {
            0..15 => {
                self.added += 1;
                Some(Wish::Add(format!("added-{}-{}", self.number, self.added)))
            }
            15..35 => self.rename(),
            35..55 => self.read(),
            55..88 => {
                let mut managed = self.own(Class::Managed);
                managed.retain(|one| !self.uncertain.contains(one));
                let one = self.random.choice(managed)?;
                Some(if self.shut.contains(&one) { Wish::Open(one) } else { Wish::Shut(one) })
            }
            88..95 => Some(Wish::Bypass(*self.own(Class::Bypassed).first()?)),
            _ if !self.orders.is_rotated.get() => {
                let nas = Manner::ALL.iter().position(|one| *one == Manner::Rotated)?;
                Some(Wish::Rotate(nas))
            }
            _ => None,
        }
    }

    async fn fulfil(&mut self, wish: Wish, host: &Host) {
        let number = self.history.borrow_mut().invoke(wish.clone(), host.number);
        if matches!(wish, Wish::Rotate(_)) {
            self.orders.is_rotated.set(true);
        }
        let person = match wish {
            Wish::Shut(one) | Wish::Open(one) => Some(one),
            _ => None,
        };
        let name = |one: usize| self.history.borrow().people[one].name.clone();
        let way = self.random.u8(0..100);
        let end = match wish.clone() {
            Wish::Add(name) => {
                let spec = UserSpec { username: name, ..UserSpec::default() };
                ask(host, async move |admin| admin.add_user(spec).await.map(|_| None)).await
            }
            Wish::Rename(one, version) => {
                let (name, full_name) = (name(one), Some(version.to_string()));
                let edit = UserEdit { full_name, ..UserEdit::default() };
                ask(host, async move |admin| admin.edit_user(&name, edit).await.map(|_| None)).await
            }
            Wish::Read(one) => {
                let name = name(one);
                ask(host, async move |admin| {
                    Ok(Some(admin.user(&name).await?.full_name.parse().unwrap_or(0)))
                })
                .await
            }
            Wish::Shut(one) => {
                let name = name(one);
                ask(host, async move |admin| shut(&admin, &name, way).await.map(|()| None)).await
            }
            Wish::Open(one) => {
                let name = name(one);
                ask(host, async move |admin| {
                    admin.unblock_user(&name).await?;
                    let edit = UserEdit { enabled: Some(true), ..UserEdit::default() };
                    admin.edit_user(&name, edit).await.map(|_| None)
                })
                .await
            }
            Wish::Bypass(one) => {
                let name = name(one);
                let spec = BypassSpec { reason: "locked out".to_owned(), seconds: None };
                ask(host, async move |admin| {
                    admin.bypass_user(&name, spec, "operator").await.map(|_| None)
                })
                .await
            }
            Wish::Rotate(nas) => {
                let secret = Some(secret(nas, false));
                let edit = ClientEdit { secret, ..ClientEdit::default() };
                let name = format!("nas{nas}");
                ask(host, async move |admin| admin.edit_client(&name, edit).await.map(|_| None))
                    .await
            }
        };
        match (person, end) {
            (Some(one), End::Done(_)) => {
                self.shut.retain(|other| *other != one);
                if matches!(wish, Wish::Shut(_)) {
                    self.shut.push(one);
                }
            }
            // What may take place at any time from now on is not touched again.
            (Some(one), End::Unknown | End::Refused) => self.uncertain.push(one),
            (None, _) => {}
        }
        self.history.borrow_mut().end(number, end);
    }
}

/// One of the ways to keep somebody out.
async fn shut(admin: &Admin, name: &str, way: u8) -> Result<(), AdminError> {
    match way {
        0..45 => {
            let edit = UserEdit { enabled: Some(false), ..UserEdit::default() };
            admin.edit_user(name, edit).await.map(drop)
        }
        45..90 => {
            let spec = BlockSpec { reason: "a stolen phone".to_owned(), seconds: None };
            admin.block_user(name, spec, "operator").await.map(drop)
        }
        _ => {
            for device in admin.user(name).await?.devices {
                admin.revoke_device(&device.id).await?;
            }
            Ok(())
        }
    }
}

/// Has an administrator of `host` do something.
async fn ask<F: Future<Output = Result<Option<u64>, AdminError>> + 'static>(
    host: &Host,
    work: impl FnOnce(Admin) -> F + 'static,
) -> End {
    let answer = timeout(PATIENCE, host.run(move |node| work(node.admin))).await;
    match answer.ok().flatten() {
        Some(Ok(version)) => End::Done(version),
        Some(Err(AdminError::Refused(_))) => End::Refused,
        Some(Err(AdminError::Propose(error))) if !matches!(error, ProposeError::OutcomeUnknown) => {
            End::Refused
        }
        // Also where reading what was changed has failed.
        Some(Err(_)) | None => End::Unknown,
    }
}

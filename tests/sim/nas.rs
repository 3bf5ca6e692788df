//! RADIUS clients: they send to any node, send again to another, and write down every verdict.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use turmoil::net::UdpSocket;
use watchword::radius::attribute::AttributeType;
use watchword::radius::packet::Code;
use watchword::radius::request::{MessageAuthenticatorRule, Request, SentRequest};
use watchword::radius::secret::Secret;

use crate::history::{Class, Event, Login, SharedHistory, Typed};
use crate::host::{Host, RADIUS};
use crate::scenario::{CHALLENGE_SECONDS, CLOCK_ERROR_SECONDS_MAX};

/// After how long a request is sent again.
const RETRY: Duration = Duration::from_millis(700);
/// How often it is sent.
const TRIES: usize = 5;
/// Logins that one client has under way.
const LANES: usize = 3;
/// How long somebody thinks about a challenge who answers too late, though a clock that is behind may judge what
/// one has asked that was ahead.
const TOO_LONG: Duration = Duration::from_secs(CHALLENGE_SECONDS + 2 * CLOCK_ERROR_SECONDS_MAX + 1);

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It has checked the password.
    PasscodeOnly,
    /// Password and passcode in one field.
    Inline,
    /// The password first, the passcode when it is asked for.
    Challenged,
    /// As the first, and its secret is rotated.
    Rotated,
}

impl Manner {
    /// One client of each.
    pub(crate) const ALL: [Self; 4] =
        [Self::PasscodeOnly, Self::Inline, Self::Challenged, Self::Rotated];

    /// Whether the node checks the password.
    pub(crate) fn has_password(self) -> bool {
        matches!(self, Self::Inline | Self::Challenged)
    }
}

/// What the clients are told meanwhile.
#[derive(Default)]
pub(crate) struct Orders {
    /// Only logins that must succeed, now that there are no faults.
    pub(crate) is_calm: Cell<bool>,
    /// No logins at all.
    pub(crate) is_over: Cell<bool>,
    /// Whether the rotation of the secret has been asked for.
    pub(crate) is_rotated: Cell<bool>,
}

/// Secrets of a client: before and after a rotation.
pub(crate) fn secret(nas: usize, is_old: bool) -> String {
    format!("{} secret of client {nas}", if is_old { "old" } else { "new" })
}

/// A client.
pub(crate) struct Nas {
    number: usize,
    manner: Manner,
    hosts: Rc<Vec<Rc<Host>>>,
    history: SharedHistory,
    orders: Rc<Orders>,
    random: RefCell<fastrand::Rng>,
    socket: UdpSocket,
    next_identifier: Cell<u8>,
    open: RefCell<BTreeMap<u8, Open>>,
}

/// A request whose replies are recognised.
struct Open {
    login: usize,
    expected: SentRequest,
    secret: Secret,
    reply: Option<oneshot::Sender<Reply>>,
}

struct Reply {
    code: Code,
    state: Option<Vec<u8>>,
}

/// What is typed into one login.
struct Choice {
    person: usize,
    typed: Typed,
    passcode: String,
    right_password: bool,
}

impl Nas {
    /// The software of a client's host.
    pub(crate) async fn run(
        number: usize,
        hosts: Rc<Vec<Rc<Host>>>,
        history: SharedHistory,
        orders: Rc<Orders>,
        seed: u64,
    ) -> turmoil::Result {
        let nas = Rc::new(Self {
            number,
            manner: Manner::ALL[number],
            hosts,
            history,
            orders,
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
            socket: UdpSocket::bind(("0.0.0.0", 1645)).await?,
            next_identifier: Cell::default(),
            open: RefCell::default(),
        });
        for _ in 0..LANES {
            let nas = nas.clone();
            spawn_local(async move { nas.log_in_again_and_again().await });
        }
        let mut buffer = vec![0; 4096];
        loop {
            let (length, _) = nas.socket.recv_from(&mut buffer).await?;
            nas.receive(&buffer[..length]);
        }
    }

    /// Writes down a verdict, whichever copy it answers.
    fn receive(&self, bytes: &[u8]) {
        let mut open = self.open.borrow_mut();
        let Some(one) = bytes.get(1).and_then(|identifier| open.get_mut(identifier)) else {
            return;
        };
        let rule = MessageAuthenticatorRule::Required;
        let Ok(packet) = one.expected.verify_reply(bytes, &one.secret, rule) else { return };
        self.history.borrow_mut().note(Event::Replied(one.login, packet.code));
        if let Some(reply) = one.reply.take() {
            let state = packet.first(AttributeType::STATE).map(<[u8]>::to_vec);
            // Nobody waits any more if it came too late.
            drop(reply.send(Reply { code: packet.code, state }));
        }
    }

    async fn log_in_again_and_again(&self) {
        loop {
            let pause = self.random.borrow_mut().u64(5..80);
            sleep(Duration::from_millis(pause)).await;
            if self.orders.is_over.get() {
                continue;
            }
            let Some(choice) = self.choose() else { continue };
            self.log_in(&choice).await;
            self.history.borrow_mut().people[choice.person].is_busy = false;
        }
    }

    /// Who logs in, and with what.
    fn choose(&self) -> Option<Choice> {
        let mut history = self.history.borrow_mut();
        let mut random = self.random.borrow_mut();
        let person = random.usize(0..history.people.len());
        let one = &mut history.people[person];
        if one.class == Class::Plain {
            if one.is_busy {
                return None;
            }
            one.is_busy = true;
        } else if self.orders.is_calm.get() {
            return None;
        }
        let mut choice =
            Choice { person, typed: Typed::Nothing, passcode: String::new(), right_password: true };
        let passcode = match one.class {
            Class::Bypassed => return Some(choice),
            // Also what was shown a moment ago, or will be: each step is of use once.
            Class::Clocked => Some(one.timed_passcode(random.i64(-2..3))),
            Class::Victim if random.u8(0..100) < 70 => {
                if self.manner.has_password() && random.bool() {
                    choice.right_password = false;
                    one.passcode()
                } else {
                    choice.typed = Typed::Wrong;
                    choice.passcode = one.wrong_passcode(&mut random);
                    return Some(choice);
                }
            }
            // The counter moves on now and then only, so that several send the same passcode.
            Class::Raced if random.u8(0..100) < 75 => one.passcode_of(one.next),
            _ => one.passcode(),
        };
        let Some((moving_factor, passcode)) = passcode else {
            one.is_busy = false;
            return None;
        };
        choice.typed = Typed::Right(moving_factor);
        choice.passcode = passcode;
        Some(choice)
    }

    async fn log_in(&self, choice: &Choice) {
        let (name, password) = {
            let history = self.history.borrow();
            let one = &history.people[choice.person];
            let password = if choice.right_password { one.password() } else { "wrong".to_owned() };
            (one.name.clone(), password)
        };
        let login = |typed| Login {
            person: choice.person,
            nas: self.number,
            password: self.manner.has_password().then_some(choice.right_password),
            typed,
            under_old_secret: self.is_under_old_secret(),
            late_for: None,
            sent: 0,
        };
        let passcode = &choice.passcode;
        match self.manner {
            Manner::PasscodeOnly | Manner::Rotated => {
                self.ask(login(choice.typed), &name, passcode, None).await;
            }
            Manner::Inline => {
                self.ask(login(choice.typed), &name, &format!("{password}{passcode}"), None).await;
            }
            Manner::Challenged => {
                let before = self.history.borrow().events.len();
                let asked = self.ask(login(Typed::Nothing), &name, &password, None).await;
                let Some(Reply { code: Code::AccessChallenge, state: Some(state) }) = asked else {
                    return;
                };
                let is_late = self.random.borrow_mut().u8(0..100) < 3;
                if is_late {
                    sleep(TOO_LONG).await;
                }
                if choice.typed != Typed::Nothing && !self.orders.is_over.get() {
                    let late_for = is_late.then_some(before);
                    let login = Login { late_for, ..login(choice.typed) };
                    self.ask(login, &name, passcode, Some(&state)).await;
                }
            }
        }
    }

    /// Whether the next request is sent under the secret from before the rotation.
    fn is_under_old_secret(&self) -> bool {
        let is_new = self.orders.is_rotated.get() && self.random.borrow_mut().bool();
        self.manner == Manner::Rotated && !is_new
    }

    /// Sends a request and its copies, each to any node, until there is a reply.
    async fn ask(
        &self,
        login: Login,
        name: &str,
        credential: &str,
        state: Option<&[u8]>,
    ) -> Option<Reply> {
        let is_old = self.manner != Manner::Rotated || login.under_old_secret;
        let secret = Secret::new(secret(self.number, is_old).as_bytes()).ok()?;
        let identifier = self.next_identifier.get();
        self.next_identifier.set(identifier.wrapping_add(1));
        let mut authenticator = [0; 16];
        self.random.borrow_mut().fill(&mut authenticator);
        let mut bytes = Vec::new();
        let mut request = Request::access(&mut bytes, identifier, authenticator, true);
        request.attributes.push_text(AttributeType::USER_NAME, name).ok()?;
        request.push_password(credential.as_bytes(), &secret).ok()?;
        if let Some(state) = state {
            request.attributes.push(AttributeType::STATE, state).ok()?;
        }
        let (_, expected) = request.sign(&secret);
        let number = self.history.borrow_mut().send(login);
        let (to, mut reply) = oneshot::channel();
        let open = Open { login: number, expected, secret, reply: Some(to) };
        self.open.borrow_mut().insert(identifier, open);
        for _ in 0..TRIES {
            // A balancer may double a packet, too.
            let copies = if self.random.borrow_mut().u8(0..100) < 20 { 2 } else { 1 };
            for _ in 0..copies {
                self.send(&bytes).await;
            }
            if let Ok(reply) = timeout(RETRY, &mut reply).await {
                return reply.ok();
            }
        }
        None
    }

    async fn send(&self, bytes: &[u8]) {
        let hosts: Vec<_> = self.hosts.iter().filter(|host| host.node().is_some()).collect();
        let host = self.random.borrow_mut().choice(&hosts).map(|host| host.name.clone());
        if let Some(host) = host {
            // Who is not there does not answer.
            drop(self.socket.send_to(bytes, (host.as_str(), RADIUS)).await);
        }
    }
}

//! What the outside has seen: logins with their replies, and administrators' changes.
//!
//! Everybody outside of the nodes writes here, and the invariants read it. The place of an event in the list
//! is its time: what stands later happened later.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use watchword::radius::packet::Code;
use watchword_core::factor::{Algorithm, Generator, totp};
use watchword_core::time::Timestamp;

use crate::entropy;

/// Counters that a token of the simulation may use up.
const COUNTERS: usize = 600;
/// Digits of each passcode.
const DIGITS: u8 = 6;
/// Seconds of a time step.
const PERIOD: u32 = 30;

/// Shared by everybody outside of the nodes.
pub(crate) type SharedHistory = Rc<RefCell<History>>;

/// What was seen.
#[derive(Default)]
pub(crate) struct History {
    /// The users.
    pub(crate) people: Vec<Person>,
    /// Every login that was ever sent.
    pub(crate) logins: Vec<Login>,
    /// Every change that was ever asked for.
    pub(crate) changes: Vec<Change>,
    /// What happened, in order.
    pub(crate) events: Vec<Event>,
}

/// What happens to a user of the simulation, so that it is known what may happen at a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Logs in as it should be, one login after the other: nobody may be refused.
    Plain,
    /// The same passcode is sent by several clients at once.
    Raced,
    /// Somebody guesses.
    Victim,
    /// Is disabled, blocked, and has devices revoked.
    Managed,
    /// Is let in once without a passcode now and then.
    Bypassed,
    /// Holds a time-based token.
    Clocked,
}

/// A user.
pub(crate) struct Person {
    /// The name.
    pub(crate) name: String,
    /// What happens to it.
    pub(crate) class: Class,
    /// The token's key.
    pub(crate) key: Vec<u8>,
    /// Whether a login is under way, where only one may be.
    pub(crate) is_busy: bool,
    /// The next unused counter.
    pub(crate) next: u64,
    generator: Generator,
    passcodes: Vec<String>,
    all: BTreeSet<String>,
}

impl Person {
    /// A user with a token that shows no passcode twice: what is typed stands for one counter.
    pub(crate) fn new(name: &str, class: Class, random: &mut fastrand::Rng) -> Self {
        loop {
            let mut key = vec![0; 20];
            random.fill(&mut key);
            let generator = Generator::new(&key, Algorithm::Sha1, DIGITS);
            let counters = if class == Class::Clocked { 0 } else { COUNTERS as u64 };
            let passcodes: Vec<_> =
                (0..counters).map(|counter| generator.passcode(counter)).collect();
            let all: BTreeSet<_> = passcodes.iter().cloned().collect();
            if all.len() == passcodes.len() {
                let name = name.to_owned();
                return Self {
                    name,
                    class,
                    key,
                    is_busy: false,
                    next: 0,
                    generator,
                    passcodes,
                    all,
                };
            }
        }
    }

    /// The password.
    pub(crate) fn password(&self) -> String {
        format!("{} horse", self.name)
    }

    /// The passcode that a clock shows which is `ahead` steps ahead, and its step.
    pub(crate) fn timed_passcode(&self, ahead: i64) -> (u64, String) {
        let step = totp::step(Timestamp(entropy::true_time_ms()), PERIOD);
        let step = step.saturating_add_signed(ahead);
        (step, self.generator.passcode(step))
    }

    /// The next passcode and what it stands for; none when the token is used up.
    pub(crate) fn passcode(&mut self) -> Option<(u64, String)> {
        let counter = self.next;
        self.next += 1;
        self.passcode_of(counter)
    }

    /// The passcode of `counter`.
    pub(crate) fn passcode_of(&self, counter: u64) -> Option<(u64, String)> {
        let passcode = self.passcodes.get(usize::try_from(counter).ok()?)?;
        Some((counter, passcode.clone()))
    }

    /// Digits that are none of its passcodes.
    pub(crate) fn wrong_passcode(&self, random: &mut fastrand::Rng) -> String {
        loop {
            let guess = format!("{:06}", random.u32(0..1_000_000));
            if !self.all.contains(&guess) {
                return guess;
            }
        }
    }
}

/// What was typed as the passcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// The passcode of this counter or time step.
    Right(u64),
    /// Something else.
    Wrong,
    /// Nothing.
    Nothing,
}

/// One request. Its copies are octet for octet the same.
#[derive(Debug)]
pub(crate) struct Login {
    /// Number of the user.
    pub(crate) person: usize,
    /// Number of the client.
    pub(crate) nas: usize,
    /// Whether the password is right; `None` where the client has checked it.
    pub(crate) password: Option<bool>,
    /// What is in the place of the passcode.
    pub(crate) typed: Typed,
    /// Sent under the secret from before its rotation.
    pub(crate) under_old_secret: bool,
    /// Answers a challenge that is out of date, and was asked for after so many events.
    pub(crate) late_for: Option<usize>,
    /// Place of the event at which its first copy left.
    pub(crate) sent: usize,
}

/// What an administrator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// A user of this name.
    Add(String),
    /// This user's full name, by its version.
    Rename(usize, u64),
    /// No more logins of this user: disabled, blocked, or its token revoked.
    Shut(usize),
    /// Logins again.
    Open(usize),
    /// One login without passcode.
    Bypass(usize),
    /// Another secret for this client.
    Rotate(usize),
    /// Which version this user's full name has.
    Read(usize),
}

/// A change that was asked for.
pub(crate) struct Change {
    /// What.
    pub(crate) wish: Wish,
    /// At which host.
    pub(crate) host: usize,
    /// Place of the event at which it was asked for.
    pub(crate) invoked: usize,
    /// How it ended, once it has.
    pub(crate) ended: Option<End>,
    /// Place of the event at which it ended.
    pub(crate) ended_at: Option<usize>,
}

/// How a change ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was acknowledged; a reading gave this version.
    Done(Option<u64>),
    /// It was refused.
    Refused,
    /// Nobody knows whether it took place, or will.
    Unknown,
}

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The first copy of a login left.
    Sent(usize),
    /// A login was answered.
    Replied(usize, Code),
    /// A change was asked for.
    Invoked(usize),
    /// A change ended.
    Ended(usize),
    /// All faults are over.
    Healed,
}

impl History {
    /// Adds an event; gives its place.
    pub(crate) fn note(&mut self, event: Event) -> usize {
        self.events.push(event);
        self.events.len() - 1
    }

    /// Adds a login that is sent now; gives its number.
    pub(crate) fn send(&mut self, mut login: Login) -> usize {
        let number = self.logins.len();
        login.sent = self.note(Event::Sent(number));
        self.logins.push(login);
        number
    }

    /// Adds a change that is asked for now; gives its number.
    pub(crate) fn invoke(&mut self, wish: Wish, host: usize) -> usize {
        let number = self.changes.len();
        let invoked = self.note(Event::Invoked(number));
        self.changes.push(Change { wish, host, invoked, ended: None, ended_at: None });
        number
    }

    /// Ends a change.
    pub(crate) fn end(&mut self, number: usize, end: End) {
        let at = self.note(Event::Ended(number));
        let change = &mut self.changes[number];
        (change.ended, change.ended_at) = (Some(end), Some(at));
    }

    /// An event with what it is about, for the trace.
    pub(crate) fn describe(&self, event: Event) -> String {
        match event {
            Event::Sent(number) => format!("{event:?} {:?}", self.logins[number]),
            Event::Invoked(number) => format!("{event:?} {:?}", self.changes[number].wish),
            Event::Ended(number) => format!("{event:?} {:?}", self.changes[number].ended),
            Event::Replied(..) | Event::Healed => format!("{event:?}"),
        }
    }

    /// The name of a login's user.
    pub(crate) fn name(&self, login: &Login) -> &str {
        &self.people[login.person].name
    }
}

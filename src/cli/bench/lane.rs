//! One socket with up to 128 logins in flight.
//!
//! RADIUS has 256 identifiers per socket (RFC 2865 section 3). Half of them are used at once, for
//! two reasons, both measured: 256 replies in a burst overflow a socket's receive buffer of the
//! size that Linux gives (about 200 fit), which would look like the server's loss; and an
//! identifier that is used again at once meets servers that have sent the reply but not yet cleared
//! the request away.
//!
//! A lane is a thread that blocks in `recv`: a reply wakes it, it starts the next login, and blocks
//! again. So a login costs one `send` and one `recv`, and the lane costs nothing while the server
//! works. (A loop that polls would take one of the two cores that it shares with the server.) The
//! socket's read timeout wakes the lane to look for requests that are due to be sent again.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::BenchError;
use super::generator::Run;
use super::pool::{Login, Nothing};
use super::tally::Tally;
use crate::clock;
use crate::radius::attribute::AttributeType;
use crate::radius::packet::{Authenticator, Code, PACKET_BYTES_MAX};
use crate::radius::request::{MessageAuthenticatorRule, Request, SentRequest};
use crate::radius::secret::Secret;
use crate::radius::writer::BuildError;

/// Logins in flight on one socket.
pub(super) const WIDTH_MAX: u32 = 128;
/// Identifiers of one socket (RFC 2865 section 3).
const IDENTIFIERS: usize = 256;
/// How often a lane looks for what is due, and whether to end.
const TICK: Duration = Duration::from_millis(10);
/// How many ended requests an identifier remembers, to tell a late reply from a wrong one.
const PAST_MAX: usize = 8;

/// What every request has in common.
pub(super) struct Plan {
    pub secret: Secret,
    pub rule: MessageAuthenticatorRule,
    /// Requests carry a Message-Authenticator.
    pub is_signed: bool,
    /// Stands in front of each passcode: empty, or a password and a comma.
    pub prefix: String,
    pub timeout: Duration,
    pub retries: u32,
}

/// One socket and its requests.
pub(super) struct Lane<'a> {
    run: &'a Run<'a>,
    server: SocketAddr,
    socket: UdpSocket,
    width: usize,
    in_flight: usize,
    slots: Vec<Slot>,
    /// First in, first out: an identifier rests as long as possible.
    free: VecDeque<u8>,
    authenticators: Authenticators,
    next_look: Instant,
    tally: Tally,
}

/// One identifier.
#[derive(Default)]
struct Slot {
    /// The request as it was sent, to be sent again.
    octets: Vec<u8>,
    flight: Option<Flight>,
    past: VecDeque<Past>,
}

/// A login that waits for its reply.
struct Flight {
    login: Login,
    is_measured: bool,
    sent: SentRequest,
    started: Instant,
    due: Instant,
    resent: u32,
}

/// A request that nobody waits for any more, and how it was answered.
struct Past {
    sent: SentRequest,
    code: Option<Code>,
}

/// What a datagram is.
enum Judgement {
    Answer(Code),
    Extra,
    Wrong(&'static str),
}

impl<'a> Lane<'a> {
    /// A lane to `server` for `width` logins at once, 1 to 128.
    pub(super) fn new(
        run: &'a Run<'a>,
        server: SocketAddr,
        width: u32,
        authenticators: Authenticators,
    ) -> Result<Self, BenchError> {
        let width = width.min(WIDTH_MAX) as usize;
        let socket = connect(server).map_err(|source| BenchError::Socket { server, source })?;
        Ok(Self {
            run,
            server,
            socket,
            width,
            in_flight: 0,
            slots: std::iter::repeat_with(Slot::default).take(IDENTIFIERS).collect(),
            free: (0..=u8::MAX).collect(),
            authenticators,
            next_look: Instant::now(),
            tally: Tally::new(),
        })
    }

    /// Logs in until the run is over and every login has ended.
    pub(super) fn work(mut self) -> Result<Tally, BenchError> {
        let mut buffer = [0; PACKET_BYTES_MAX];
        loop {
            self.start_logins()?;
            if self.tally.stopped.is_some() && self.in_flight == 0 || self.run.interrupt.is_raised()
            {
                self.tally.stopped.get_or_insert_with(Instant::now);
                return Ok(self.tally);
            }
            if let Some(length) = self.receive(&mut buffer)? {
                self.handle(buffer.get(..length).unwrap_or_default());
            }
            self.resend_overdue()?;
        }
    }

    fn start_logins(&mut self) -> Result<(), BenchError> {
        while self.in_flight < self.width && self.tally.stopped.is_none() {
            let now = Instant::now();
            if self.run.is_over(now) {
                self.tally.stopped = Some(now);
                break;
            }
            let is_measured = now >= self.run.warm_until;
            let step = self.run.users.step(clock::now());
            let mut pool = self.run.pool.lock().unwrap_or_else(PoisonError::into_inner);
            let next = pool.take(step, is_measured);
            drop(pool);
            match next {
                Ok(login) => self.start(login, is_measured)?,
                Err(Nothing::Busy) => break,
                Err(Nothing::Done) => self.tally.stopped = Some(now),
                Err(Nothing::StepUsedUp) => {
                    self.tally.users_used_up = true;
                    self.tally.stopped = Some(now);
                    self.run.halt();
                }
            }
        }
        Ok(())
    }

    fn start(&mut self, login: Login, is_measured: bool) -> Result<(), BenchError> {
        // There is one: fewer are in flight than there are identifiers.
        let Some(identifier) = self.free.pop_front() else { return Ok(()) };
        let authenticator = self.authenticators.draw();
        let Some(slot) = self.slots.get_mut(usize::from(identifier)) else { return Ok(()) };
        let sent = build(&mut slot.octets, self.run, login, identifier, authenticator)?;
        let started = Instant::now();
        let due = started + self.run.plan.timeout;
        slot.flight = Some(Flight { login, is_measured, sent, started, due, resent: 0 });
        self.in_flight += 1;
        send(&self.socket, &slot.octets, &mut self.tally)
            .map_err(|source| BenchError::Socket { server: self.server, source })
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, BenchError> {
        match self.socket.recv(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock
                | io::ErrorKind::TimedOut
                | io::ErrorKind::Interrupted => Ok(None),
                io::ErrorKind::ConnectionRefused => {
                    self.tally.unreachable += 1;
                    Ok(None)
                }
                _ => Err(BenchError::Socket { server: self.server, source: error }),
            },
        }
    }

    fn handle(&mut self, datagram: &[u8]) {
        let now = Instant::now();
        let plan = self.run.plan;
        let identifier = datagram.get(1).copied();
        let slot = identifier.and_then(|identifier| self.slots.get_mut(usize::from(identifier)));
        let (Some(identifier), Some(slot)) = (identifier, slot) else {
            self.tally.wrong("header_truncated");
            return;
        };
        match slot.judge(datagram, &plan.secret, plan.rule) {
            Judgement::Wrong(reason) => self.tally.wrong(reason),
            Judgement::Extra => self.tally.extra += 1,
            Judgement::Answer(code) => {
                let Some(flight) = slot.settle(Some(code)) else { return };
                self.free.push_back(identifier);
                self.in_flight -= 1;
                self.count(&flight, code, now);
                self.run.give_back(flight.login);
            }
        }
    }

    fn count(&mut self, flight: &Flight, code: Code, now: Instant) {
        self.tally.counts(flight.is_measured).reply(code);
        match code {
            Code::AccessAccept => self.run.accepted(now),
            Code::AccessReject => drop(self.tally.first_reject.get_or_insert(flight.login)),
            _ => {}
        }
        if flight.is_measured {
            self.tally.latency.record(now.duration_since(flight.started));
            self.tally.last_reply = Some(now);
        }
        if now >= self.run.warm_until && self.tally.stopped.is_none() {
            self.tally.replies_in_window += 1;
        }
        self.run.count_reply();
    }

    fn resend_overdue(&mut self) -> Result<(), BenchError> {
        let now = Instant::now();
        if now < self.next_look {
            return Ok(());
        }
        self.next_look = now + TICK;
        for (identifier, slot) in (0..=u8::MAX).zip(&mut self.slots) {
            let Some(flight) = slot.flight.as_mut().filter(|flight| flight.due <= now) else {
                continue;
            };
            let counts = self.tally.counts(flight.is_measured);
            if flight.resent < self.run.plan.retries {
                counts.retransmissions += 1;
                flight.resent += 1;
                flight.due = now + self.run.plan.timeout;
                send(&self.socket, &slot.octets, &mut self.tally)
                    .map_err(|source| BenchError::Socket { server: self.server, source })?;
            } else if let Some(flight) = slot.settle(None) {
                counts.unknown += 1;
                self.free.push_back(identifier);
                self.in_flight -= 1;
                self.run.give_back(flight.login);
            }
        }
        Ok(())
    }
}

impl Slot {
    /// The login in flight ends, answered by `code` or not at all.
    fn settle(&mut self, code: Option<Code>) -> Option<Flight> {
        let flight = self.flight.take()?;
        if self.past.len() == PAST_MAX {
            self.past.pop_front();
        }
        self.past.push_back(Past { sent: flight.sent, code });
        Some(flight)
    }

    fn judge(&self, datagram: &[u8], secret: &Secret, rule: MessageAuthenticatorRule) -> Judgement {
        let reason = match &self.flight {
            None => "no request awaits it",
            Some(flight) => match flight.sent.verify_reply(datagram, secret, rule) {
                Ok(reply) => return Judgement::Answer(reply.code),
                Err(error) => error.name(),
            },
        };
        // A copy of a request gets a copy of the reply, possibly after the identifier was used
        // again.
        for past in self.past.iter().rev() {
            if let Ok(reply) = past.sent.verify_reply(datagram, secret, rule) {
                return match past.code {
                    Some(code) if code != reply.code => {
                        Judgement::Wrong("contradicts an earlier reply")
                    }
                    _ => Judgement::Extra,
                };
            }
        }
        Judgement::Wrong(reason)
    }
}

fn connect(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = match server {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
    };
    socket.connect(server)?;
    socket.set_read_timeout(Some(TICK))?;
    Ok(socket)
}

/// Sends, and counts when the host has said that nobody listens: then the datagram is lost like any
/// other, and retransmission takes care of it.
fn send(socket: &UdpSocket, octets: &[u8], tally: &mut Tally) -> io::Result<()> {
    // The first failure tells of an earlier datagram, and this one has not been sent.
    for _ in 0..2 {
        match socket.send(octets) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                tally.unreachable += 1;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn build(
    octets: &mut Vec<u8>,
    run: &Run<'_>,
    login: Login,
    identifier: u8,
    authenticator: Authenticator,
) -> Result<SentRequest, BenchError> {
    let plan = run.plan;
    let Some(user) = run.users.all.get(login.user as usize) else {
        return Err(BenchError::ThreadDied);
    };
    let passcode = user.passcode(login.moving_factor);
    let mut request = Request::access(octets, identifier, authenticator, plan.is_signed);
    let mut fill = || -> Result<(), BuildError> {
        request.attributes.push_text(AttributeType::USER_NAME, &user.name)?;
        if plan.prefix.is_empty() {
            request.push_password(passcode.as_bytes(), &plan.secret)?;
        } else {
            let both = [plan.prefix.as_bytes(), passcode.as_bytes()].concat();
            request.push_password(&both, &plan.secret)?;
        }
        request.attributes.push_text(AttributeType::NAS_IDENTIFIER, "watchword-bench")
    };
    fill().map_err(|error| BenchError::Build {
        username: user.name.to_string(),
        reason: error.to_string(),
    })?;
    let (_, sent) = request.sign(&plan.secret);
    Ok(sent)
}

/// Request Authenticators: SplitMix64 from a random seed.
///
/// A NAS must draw them unpredictably, because they hide passwords from whoever listens. Here they
/// only have to be unique, in this run and the next, and the system's generator would cost as much
/// as the rest of the request.
pub(super) struct Authenticators(u64);

impl Authenticators {
    pub(super) fn new() -> Result<Self, BenchError> {
        Ok(Self(u64::from_be_bytes(crate::random::bytes()?)))
    }

    fn draw(&mut self) -> Authenticator {
        let [high, low] = [self.next(), self.next()].map(u128::from);
        (high << 64 | low).to_be_bytes()
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

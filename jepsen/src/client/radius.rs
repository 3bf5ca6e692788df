//! A RADIUS client: Access-Requests with PAP, signed and verified, sent again to other nodes.
//!
//! One socket per client thread, and as many requests open at once as a race needs. A request that
//! stays unanswered is sent again byte for byte, as a NAS does it, to the next node of its route; a
//! reply counts only when it comes from a node that was asked, carries this request's identifier,
//! and both signatures hold. Nothing here decides what a verdict means.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};

use crate::rng::Rng;

const ACCESS_REQUEST: u8 = 1;
const ACCESS_ACCEPT: u8 = 2;
const ACCESS_REJECT: u8 = 3;
const ACCESS_CHALLENGE: u8 = 11;
const USER_NAME: u8 = 1;
const USER_PASSWORD: u8 = 2;
const STATE: u8 = 24;
const CALLING_STATION_ID: u8 = 31;
const MESSAGE_AUTHENTICATOR: u8 = 80;
/// Octets before the attributes: code, identifier, length, authenticator.
const HEADER: usize = 20;
/// What is waited for a reply after the last copy was sent, before the outcome is unknown.
const GIVE_UP_AFTER: u32 = 4;

/// What a node said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Access-Accept.
    Accept,
    /// Access-Reject.
    Reject,
    /// Access-Challenge, with the State that its answer must carry.
    Challenge(Vec<u8>),
}

impl Reply {
    /// As histories have it.
    pub fn verdict(&self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Reject => "reject",
            Self::Challenge(_) => "challenge",
        }
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Question<'a> {
    /// Who logs in.
    pub user: &'a str,
    /// What was typed.
    pub passcode: &'a str,
    /// The State of the challenge that this answers.
    pub state: Option<&'a [u8]>,
    /// Calling-Station-Id: where the user is, which the record of attempts keeps.
    pub station: Option<&'a str>,
}

impl<'a> Question<'a> {
    /// What `user` asks who types `passcode`.
    pub fn of(user: &'a str, passcode: &'a str) -> Self {
        Self { user, passcode, ..Self::default() }
    }
}

/// One signed request; its copies are equal octet for octet.
#[derive(Clone, Debug)]
pub struct Request {
    octets: Vec<u8>,
    authenticator: [u8; 16],
}

/// A request and the nodes that it is sent to: the first at once, each further one when no answer
/// came in time.
#[derive(Clone, Debug)]
pub struct Flight {
    /// The request.
    pub request: Request,
    /// Nodes by number, in the order in which they are tried.
    pub route: Vec<usize>,
}

/// How a flight ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landing {
    /// What was said, and by which node; none when nobody answered, so that nobody knows.
    pub reply: Option<(usize, Reply)>,
}

/// A RADIUS client on a socket of its own.
pub struct Radius {
    socket: UdpSocket,
    secret: Vec<u8>,
    nodes: Vec<SocketAddr>,
    retry: Duration,
    rng: Rng,
    identifier: u8,
}

struct Open<'a> {
    number: usize,
    flight: &'a Flight,
    /// How many nodes of the route were asked.
    asked: usize,
    due: Instant,
}

impl Radius {
    /// A client that sends from `local` to `nodes`, and to the next node after `retry`.
    ///
    /// # Errors
    /// When no socket can be had.
    pub fn new(
        local: IpAddr,
        nodes: Vec<SocketAddr>,
        secret: &str,
        retry: Duration,
        rng: Rng,
    ) -> io::Result<Self> {
        let socket = UdpSocket::bind((local, 0))?;
        Ok(Self { socket, secret: secret.as_bytes().to_vec(), nodes, retry, rng, identifier: 0 })
    }

    /// The next request: new identifier, new Request Authenticator.
    pub fn request(&mut self, question: &Question<'_>) -> Request {
        self.identifier = self.identifier.wrapping_add(1);
        let mut authenticator = [0; 16];
        for half in authenticator.chunks_mut(8) {
            half.copy_from_slice(&self.rng.next_u64().to_be_bytes());
        }
        Request::new(self.identifier, authenticator, question, &self.secret)
    }

    /// Sends all `flights` at once and calls `landed` as each is answered, or given up.
    ///
    /// # Errors
    /// When the socket fails, which is the harness's trouble and no node's.
    pub fn fly(
        &mut self,
        flights: &[Flight],
        mut landed: impl FnMut(usize, Landing),
    ) -> io::Result<()> {
        let begun = Instant::now();
        let mut open: Vec<Open<'_>> = flights
            .iter()
            .enumerate()
            .map(|(number, flight)| Open { number, flight, asked: 0, due: begun })
            .collect();
        let mut buffer = [0; 4096];
        while !open.is_empty() {
            let now = Instant::now();
            let mut kept = Vec::with_capacity(open.len());
            for mut one in open {
                if one.due > now || self.send(&mut one, now)? {
                    kept.push(one);
                } else {
                    landed(one.number, Landing { reply: None });
                }
            }
            open = kept;
            let Some(due) = open.iter().map(|one| one.due).min() else { break };
            let wait = due.saturating_duration_since(Instant::now());
            self.socket.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
            let (length, source) = match self.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error),
            };
            let datagram = buffer.get(..length).unwrap_or_default();
            let Some(node) = self.nodes.iter().position(|&node| node == source) else { continue };
            let answered = open.iter().enumerate().find_map(|(at, one)| {
                let was_asked = one.flight.route.iter().take(one.asked).any(|&asked| asked == node);
                let reply = one.flight.request.verified(datagram, &self.secret)?;
                was_asked.then_some((at, reply))
            });
            if let Some((at, reply)) = answered {
                let one = open.swap_remove(at);
                landed(one.number, Landing { reply: Some((node, reply)) });
            }
        }
        Ok(())
    }

    /// One flight.
    ///
    /// # Errors
    /// As [`Radius::fly`].
    pub fn ask(&mut self, question: &Question<'_>, route: Vec<usize>) -> io::Result<Landing> {
        let request = self.request(question);
        let mut landing = Landing { reply: None };
        self.fly(&[Flight { request, route }], |_, landed| landing = landed)?;
        Ok(landing)
    }

    /// Sends the next copy; false when there is nobody left to ask and the last wait is over.
    fn send(&self, one: &mut Open<'_>, now: Instant) -> io::Result<bool> {
        let Some(&node) = one.flight.route.get(one.asked) else { return Ok(false) };
        let Some(&address) = self.nodes.get(node) else { return Ok(false) };
        match self.socket.send_to(&one.flight.request.octets, address) {
            Ok(_) => {}
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        one.asked += 1;
        let is_last = one.asked == one.flight.route.len();
        one.due = now + if is_last { self.retry * GIVE_UP_AFTER } else { self.retry };
        Ok(true)
    }
}

/// What a broken network does to a UDP socket: nothing that a NAS would stop at.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock
            | ErrorKind::TimedOut
            | ErrorKind::Interrupted
            | ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
    )
}

impl Request {
    fn new(identifier: u8, authenticator: [u8; 16], asked: &Question<'_>, secret: &[u8]) -> Self {
        let mut attributes = Vec::with_capacity(128);
        let mut push = |kind: u8, value: &[u8]| {
            // Every value here is far below the 253 octets that an attribute takes.
            let length = u8::try_from(value.len() + 2).unwrap_or(u8::MAX);
            attributes.extend([kind, length]);
            attributes.extend(value.iter().take(253));
        };
        push(MESSAGE_AUTHENTICATOR, &[0; 16]);
        push(USER_NAME, asked.user.as_bytes());
        push(USER_PASSWORD, &hidden(asked.passcode.as_bytes(), &authenticator, secret));
        if let Some(state) = asked.state {
            push(STATE, state);
        }
        if let Some(station) = asked.station {
            push(CALLING_STATION_ID, station.as_bytes());
        }
        let length = u16::try_from(HEADER + attributes.len()).unwrap_or(u16::MAX);
        let mut octets = vec![ACCESS_REQUEST, identifier];
        octets.extend(length.to_be_bytes());
        octets.extend(authenticator);
        octets.extend(attributes);
        let signature = hmac_md5(&octets, secret);
        if let Some(place) = octets.get_mut(HEADER + 2..HEADER + 18) {
            place.copy_from_slice(&signature);
        }
        Self { octets, authenticator }
    }

    /// The reply in `datagram` if it answers this request and whoever sent it knows the secret.
    fn verified(&self, datagram: &[u8], secret: &[u8]) -> Option<Reply> {
        let &[code, identifier, high, low, ..] = datagram else { return None };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let packet = datagram.get(..length).filter(|packet| packet.len() >= HEADER)?;
        if self.octets.get(1) != Some(&identifier) {
            return None;
        }
        let attributes = packet.get(HEADER..)?;
        // RFC 2865 section 3: over the reply with the request's authenticator in place of its own.
        let mut as_signed = packet.to_vec();
        as_signed.get_mut(4..HEADER)?.copy_from_slice(&self.authenticator);
        let mut hash = Md5::new();
        hash.update(&as_signed);
        hash.update(secret);
        if packet.get(4..HEADER) != Some(hash.finalize().as_slice()) {
            return None;
        }
        // RFC 3579 section 3.2: the same with zeros in the Message-Authenticator.
        let (at, signature) = find(attributes, MESSAGE_AUTHENTICATOR)?;
        as_signed.get_mut(HEADER + at..)?.get_mut(..16)?.fill(0);
        if signature != hmac_md5(&as_signed, secret) {
            return None;
        }
        match code {
            ACCESS_ACCEPT => Some(Reply::Accept),
            ACCESS_REJECT => Some(Reply::Reject),
            ACCESS_CHALLENGE => find(attributes, STATE).map(|(_, s)| Reply::Challenge(s.to_vec())),
            _ => None,
        }
    }
}

/// Where the first attribute of this type has its value, and the value.
fn find(attributes: &[u8], kind: u8) -> Option<(usize, &[u8])> {
    let mut at = 0;
    loop {
        let &[found, length, ..] = attributes.get(at..)? else { return None };
        let length = usize::from(length);
        let value = attributes.get(at + 2..at + length)?;
        if found == kind {
            return Some((at + 2, value));
        }
        at += length;
    }
}

/// RFC 2865 section 5.2: each 16 octets are hidden under a hash that the 16 before them go into.
fn hidden(password: &[u8], authenticator: &[u8; 16], secret: &[u8]) -> Vec<u8> {
    let mut padded = password.to_vec();
    padded.resize(password.len().div_ceil(16).max(1) * 16, 0);
    let mut before = authenticator.to_vec();
    for block in padded.chunks_mut(16) {
        let mut hash = Md5::new();
        hash.update(secret);
        hash.update(&before);
        block.iter_mut().zip(hash.finalize()).for_each(|(octet, mask)| *octet ^= mask);
        before = block.to_vec();
    }
    padded
}

fn hmac_md5(octets: &[u8], secret: &[u8]) -> [u8; 16] {
    let Ok(mut mac) = Hmac::<Md5>::new_from_slice(secret) else {
        // HMAC takes a key of any length.
        return [0; 16];
    };
    mac.update(octets);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// The reply of a server that knows `secret`.
    fn reply_to(request: &[u8], code: u8, state: Option<&[u8]>, secret: &[u8]) -> Vec<u8> {
        let mut attributes = vec![MESSAGE_AUTHENTICATOR, 18];
        attributes.extend([0; 16]);
        if let Some(state) = state {
            attributes.extend([STATE, state.len() as u8 + 2]);
            attributes.extend(state);
        }
        let mut reply = vec![code, request[1]];
        reply.extend(((HEADER + attributes.len()) as u16).to_be_bytes());
        reply.extend(&request[4..HEADER]);
        reply.extend(attributes);
        let signature = hmac_md5(&reply, secret);
        reply[HEADER + 2..HEADER + 18].copy_from_slice(&signature);
        let mut hash = Md5::new();
        hash.update(&reply);
        hash.update(secret);
        let authenticator = hash.finalize();
        reply[4..HEADER].copy_from_slice(&authenticator);
        reply
    }

    fn request(passcode: &str) -> Request {
        let question = Question { user: "jo", passcode, ..Question::default() };
        Request::new(7, [9; 16], &question, b"secret")
    }

    #[test]
    fn the_example_of_rfc_2865_section_7_1_hides_its_password_so() {
        let authenticator = [
            0x0f, 0x40, 0x3f, 0x94, 0x73, 0x97, 0x80, 0x57, 0xbd, 0x83, 0xd5, 0xcb, 0x98, 0xf4,
            0x22, 0x7a,
        ];
        let expected = [
            0x0d, 0xbe, 0x70, 0x8d, 0x93, 0xd4, 0x13, 0xce, 0x31, 0x96, 0xe4, 0x3f, 0x78, 0x2a,
            0x0a, 0xee,
        ];
        assert_eq!(hidden(b"arctangent", &authenticator, b"xyzzy5461"), expected);
    }

    #[test]
    fn a_reply_counts_only_when_both_signatures_hold() {
        let request = request("123456");
        let good = reply_to(&request.octets, ACCESS_CHALLENGE, Some(b"token"), b"secret");
        assert_eq!(request.verified(&good, b"secret"), Some(Reply::Challenge(b"token".to_vec())));
        assert_eq!(request.verified(&good, b"other"), None);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(request.verified(&bad, b"secret"), None, "octet {at}");
        }
        let other = Request::new(7, [8; 16], &Question::default(), b"secret");
        assert_eq!(other.verified(&good, b"secret"), None, "the reply to another request");
    }

    #[test]
    fn a_request_that_one_node_ignores_reaches_the_next_octet_for_octet() {
        let silent = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let speaks = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let nodes = [&silent, &speaks].map(|node| node.local_addr().expect("bound")).to_vec();
        let server = thread::spawn(move || {
            let mut buffer = [0; 4096];
            let (length, source) = speaks.recv_from(&mut buffer).expect("a request");
            let reply = reply_to(&buffer[..length], ACCESS_ACCEPT, None, b"secret");
            speaks.send_to(&reply, source).expect("sent");
            buffer[..length].to_vec()
        });
        let local = IpAddr::from([127, 0, 0, 1]);
        let retry = Duration::from_millis(20);
        let mut radius = Radius::new(local, nodes, "secret", retry, Rng::new(1)).expect("a client");
        let question = Question { user: "jo", passcode: "1", ..Question::default() };
        let landing = radius.ask(&question, vec![0, 1]).expect("flown");
        assert_eq!(landing.reply, Some((1, Reply::Accept)));
        let mut first = [0; 4096];
        let length = silent.recv(&mut first).expect("the first copy");
        assert_eq!(first[..length], server.join().expect("no panic")[..]);
    }

    #[test]
    fn nobody_answering_is_not_a_verdict() {
        let silent = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let nodes = vec![silent.local_addr().expect("bound")];
        let local = IpAddr::from([127, 0, 0, 1]);
        let retry = Duration::from_millis(5);
        let mut radius = Radius::new(local, nodes, "secret", retry, Rng::new(1)).expect("a client");
        let landing = radius.ask(&Question::default(), vec![0, 0]).expect("flown");
        assert_eq!(landing.reply, None);
    }
}

//! A RADIUS server as a directory: a proxy that holds the answer back until the second factor is done.
//!
//! It is asked with what the client has sent: a password hidden anew, or CHAP, MS-CHAP and EAP unopened. What it
//! says besides yes and no is handed back for the client, see [`crate::radius::relay`].

mod link;
mod server;

use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;
use tokio::sync::Semaphore;
use watchword_core::attempt::Reason;
use watchword_core::directory::RadiusTarget;
use zeroize::Zeroizing;

pub(super) use server::ServerError;

use super::{Answer, DirectoryError, Place, Question, Reply, Said};
use crate::radius::attribute::{Attribute, AttributeType};
use crate::radius::packet::{Authenticator, Code, Packet};
use crate::radius::relay::{self, RelayError};
use crate::radius::secret::Secret;
use crate::radius::vendor::{self, VENDOR_MICROSOFT, VendorSpecific};
use server::Server;

/// Logins that ask one target at a time: it must not hold up everybody when it is slow.
const IN_FLIGHT_MAX: usize = 4_096;
/// RFC 2548 section 2.1.5.
const MS_CHAP_ERROR: u8 = 2;

/// Asks one target.
pub(super) struct Client {
    name: Arc<str>,
    servers: Vec<Arc<Server>>,
    in_flight: Semaphore,
}

impl Client {
    /// A client with no socket yet.
    pub(super) fn new(name: Arc<str>, target: &RadiusTarget, secret: &Secret) -> Self {
        let timeout = Duration::from_millis(target.timeout_ms);
        let server = |address: &_| Arc::new(Server::new(address, target, secret.clone(), timeout));
        Self {
            name,
            servers: target.servers.iter().map(server).collect(),
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
        }
    }

    /// Notes which servers sign, as any node has seen.
    pub(super) fn note_signs(&self, target: &RadiusTarget) {
        let known = self.servers.iter().zip(target.servers.iter());
        known.for_each(|(server, known)| server.note_signs(known.signs));
    }

    /// What the target says to `question`. What goes on where a server has asked something is asked of that server.
    pub(super) async fn check(&self, question: &Question<'_>) -> Result<Reply, DirectoryError> {
        let permit = self.in_flight.try_acquire();
        let _permit = permit.map_err(|_| DirectoryError::Overloaded(self.name.clone()))?;
        let mut failure = None;
        for (number, server) in (0..).zip(&self.servers) {
            let is_asked = match question.place {
                Some(place) => place.server == number,
                None => server.is_due(),
            };
            if !is_asked {
                continue;
            }
            let answered = ask(server, number, question).await;
            server.note(&answered);
            match answered {
                Ok(reply) => return Ok(reply),
                Err(error) => failure = Some(error),
            }
        }
        Err(match failure {
            Some(source) => DirectoryError::Unreachable {
                directory: self.name.clone(),
                source: Box::new(source.into()),
            },
            None => DirectoryError::Resting(self.name.clone()),
        })
    }

    /// Asks every server, until one does not take the password.
    pub(super) async fn try_each(
        &self,
        question: &Question<'_>,
    ) -> Vec<(String, Result<Answer, ServerError>)> {
        let mut said = Vec::new();
        for (number, server) in (0..).zip(&self.servers) {
            let answered = ask(server, number, question).await;
            server.note(&answered);
            let answer = answered.map(|reply| reply.answer);
            let is_refused = matches!(answer, Ok(answer) if answer != Answer::Right);
            said.push((server.to_string(), answer));
            if is_refused {
                break;
            }
        }
        said
    }
}

async fn ask(
    server: &Arc<Server>,
    number: u8,
    question: &Question<'_>,
) -> Result<Reply, ServerError> {
    let (octets, authenticator) = server.ask(question).await?;
    let unreadable = |source| ServerError::Unreadable { server: server.to_string(), source };
    // It has been checked to be the reply to what was asked.
    let packet = Packet::parse(&octets).map_err(|error| server.not_a_packet(error))?;
    let reply = read(&packet, server.secret(), &authenticator, number).map_err(unreadable)?;
    let signs = server.shows_that_it_signs(&packet).then_some(number);
    Ok(Reply { signs, ..reply })
}

/// What a reply to the request with `authenticator` says.
fn read(
    packet: &Packet<'_>,
    secret: &Secret,
    authenticator: &Authenticator,
    server: u8,
) -> Result<Reply, RelayError> {
    let taken = relay::take_reply(packet, secret, authenticator)?;
    Ok(match packet.code {
        Code::AccessAccept => Reply {
            identity: packet.first_text(AttributeType::USER_NAME).map(SmolStr::from),
            said: said(taken),
            ..Answer::Right.into()
        },
        Code::AccessChallenge => {
            let state = packet.first(AttributeType::STATE).unwrap_or_default().into();
            let place = Some(Place { server, state });
            Reply { said: said(taken), place, ..Answer::Asks.into() }
        }
        _ => Reply { said: said(of_reject(&taken)), ..refusal(packet).into() },
    })
}

fn said(taken: Zeroizing<Vec<u8>>) -> Option<Said> {
    (!taken.is_empty()).then(|| Said::new(taken))
}

/// What a rejected user may be told: nothing that a session would be configured by.
fn of_reject(taken: &[u8]) -> Zeroizing<Vec<u8>> {
    let is_told = |found: &Attribute<'_>| match found.kind {
        AttributeType::REPLY_MESSAGE | AttributeType::EAP_MESSAGE => true,
        AttributeType::PASSWORD_RETRY => true,
        AttributeType::VENDOR_SPECIFIC => VendorSpecific::parse(found.value).is_some_and(|one| {
            one.vendor == VENDOR_MICROSOFT && one.first(MS_CHAP_ERROR).is_some()
        }),
        _ => false,
    };
    relay::only(taken, is_told)
}

/// Why a target has rejected: as MS-CHAP-Error says (RFC 2759 section 6), if there is one.
fn refusal(packet: &Packet<'_>) -> Answer {
    let mut errors = vendor::microsoft(packet).filter(|sub| sub.kind == MS_CHAP_ERROR);
    let error = errors.next().and_then(|error| {
        // Behind the identifier that it belongs to.
        let text = std::str::from_utf8(error.value.get(1..)?).ok()?;
        text.split(' ').find_map(|part| part.strip_prefix("E="))?.parse::<u32>().ok()
    });
    match error {
        Some(646 | 649) => Answer::Refused(Reason::DirectoryRestricted),
        Some(647) => Answer::Refused(Reason::DirectoryDisabled),
        Some(648) => Answer::Refused(Reason::PasswordExpired),
        _ => Answer::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::radius::reply::Reply as ReplyPacket;
    use crate::radius::request::Request;

    fn reply(code: Code, error: Option<&str>) -> Vec<u8> {
        let secret = Secret::new(b"far").expect("not empty");
        let mut buffer = Vec::new();
        let (request, _) = Request::access(&mut buffer, 1, [2; 16], true).sign(&secret);
        let request = Packet::parse(request).expect("well formed");
        let mut buffer = Vec::new();
        let mut reply = ReplyPacket::start(&mut buffer, code, &request);
        if let Some(error) = error {
            let error = [b"\x07", error.as_bytes()].concat();
            reply.attributes.push_vendor(VENDOR_MICROSOFT, MS_CHAP_ERROR, &error).expect("fits");
        }
        reply.attributes.push(AttributeType::CLASS, b"staff").expect("fits");
        reply.attributes.push_text(AttributeType::REPLY_MESSAGE, "hello").expect("fits");
        reply.attributes.push(AttributeType::STATE, b"inner").expect("fits");
        reply.sign(&secret).expect("fits").to_vec()
    }

    fn read_reply(code: Code, error: Option<&str>) -> Reply {
        let octets = reply(code, error);
        let secret = Secret::new(b"far").expect("not empty");
        read(&Packet::parse(&octets).expect("well formed"), &secret, &[2; 16], 3).expect("opens")
    }

    fn kinds(reply: &Reply) -> Vec<u8> {
        let said = reply.said.as_ref().expect("something");
        relay::attributes(said.as_bytes()).map(|found| found.kind.0).collect()
    }

    #[test]
    fn a_reject_tells_why_and_configures_nothing() {
        for (error, answer) in [
            (None, Answer::Wrong),
            (Some("E=691 R=0 C=00112233445566778899aabbccddeeff V=3 M=no"), Answer::Wrong),
            (Some("E=648 R=0 V=3"), Answer::Refused(Reason::PasswordExpired)),
            (Some("E=647 R=0 V=3"), Answer::Refused(Reason::DirectoryDisabled)),
            (Some("E=646 R=0 V=3"), Answer::Refused(Reason::DirectoryRestricted)),
            (Some("E=bad"), Answer::Wrong),
            (Some(""), Answer::Wrong),
        ] {
            let reply = read_reply(Code::AccessReject, error);
            assert_eq!(reply.answer, answer, "{error:?}");
            let expected: &[u8] = if error.is_some() { &[26, 18] } else { &[18] };
            assert_eq!(kinds(&reply), expected);
        }
    }

    #[test]
    fn an_accept_is_passed_on_whole_and_a_challenge_with_its_place() {
        let accept = read_reply(Code::AccessAccept, None);
        assert_eq!((accept.answer, kinds(&accept)), (Answer::Right, vec![25, 18]));
        assert!(accept.place.is_none());
        let asks = read_reply(Code::AccessChallenge, None);
        assert_eq!(asks.answer, Answer::Asks);
        let place = asks.place.expect("a place");
        assert_eq!((place.server, &*place.state), (3, &b"inner"[..]));
    }
}

//! Requests of a client, and the check that a reply answers one of them.
//!
//! Serves whoever asks another RADIUS server: the load generator, the test command, a proxy. It
//! draws no random numbers and keeps no time: the caller brings identifier and Request
//! Authenticator, and both must be unpredictable where the answer matters.

use super::attribute::AttributeType;
use super::authenticator::{
    MessageAuthenticator, authenticator_is_valid, check_message_authenticator,
};
use super::packet::{Authenticator, Code, Packet, PacketError};
use super::password;
use super::secret::Secret;
use super::writer::{AttributeWriter, BuildError};

/// A request under construction.
#[derive(Debug)]
pub struct Request<'b> {
    /// Takes the request's attributes, in order.
    pub attributes: AttributeWriter<'b>,
    code: Code,
    identifier: u8,
    authenticator: Authenticator,
}

impl<'b> Request<'b> {
    /// Starts an Access-Request in `buffer`, whose old content is discarded. `is_signed`: with a
    /// Message-Authenticator in front; without one only to show what an old client does.
    pub fn access(
        buffer: &'b mut Vec<u8>,
        identifier: u8,
        authenticator: Authenticator,
        is_signed: bool,
    ) -> Self {
        Self::start(buffer, Code::AccessRequest, identifier, authenticator, is_signed)
    }

    /// Starts a Status-Server; it always has a Message-Authenticator (RFC 5997 section 3).
    pub fn status_server(
        buffer: &'b mut Vec<u8>,
        identifier: u8,
        authenticator: Authenticator,
    ) -> Self {
        Self::start(buffer, Code::StatusServer, identifier, authenticator, true)
    }

    /// Starts an Accounting-Request; its authenticator is computed when it is signed (RFC 2866
    /// section 3), so it needs no Message-Authenticator.
    pub fn accounting(buffer: &'b mut Vec<u8>, identifier: u8) -> Self {
        Self::start(buffer, Code::AccountingRequest, identifier, [0; 16], false)
    }

    fn start(
        buffer: &'b mut Vec<u8>,
        code: Code,
        identifier: u8,
        authenticator: Authenticator,
        is_signed: bool,
    ) -> Self {
        let attributes =
            AttributeWriter::start(buffer, code, identifier, &authenticator, false, is_signed);
        Self { attributes, code, identifier, authenticator }
    }

    /// Appends `password`, 0 to 128 octets, as a hidden User-Password (RFC 2865 section 5.2).
    ///
    /// # Errors
    /// When the password or the packet gets too long.
    pub fn push_password(&mut self, password: &[u8], secret: &Secret) -> Result<(), BuildError> {
        let mut hidden = Vec::with_capacity(password::PASSWORD_BYTES_MAX);
        password::hide_into(&mut hidden, password, secret, &self.authenticator)
            .map_err(BuildError::Password)?;
        self.attributes.push(AttributeType::USER_PASSWORD, &hidden)
    }

    /// Signs the request. Yields its octets and what is needed to recognise the reply.
    pub fn sign(self, secret: &Secret) -> (&'b [u8], SentRequest) {
        let Self { attributes, code, identifier, authenticator } = self;
        let is_digested = code == Code::AccountingRequest;
        let bytes = attributes.finish(secret, is_digested);
        // The digest has replaced the zeros in the octets; the reply is tied to it.
        let authenticator =
            Packet::parse(bytes).map_or(authenticator, |packet| packet.authenticator);
        (bytes, SentRequest { code, identifier, authenticator })
    }
}

/// What a client remembers of a request while it waits for the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentRequest {
    /// What was sent.
    pub code: Code,
    /// Its identifier.
    pub identifier: u8,
    /// Its Request Authenticator, as sent.
    pub authenticator: Authenticator,
}

/// Whether a reply must have a Message-Authenticator. One that is there is checked in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageAuthenticatorRule {
    /// A reply without one is refused.
    Required,
    /// A reply without one is accepted: for servers from before CVE-2024-3596, and for accounting.
    Optional,
}

/// Why octets are not the reply to a request. The client goes on waiting (RFC 2865 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ReplyError {
    /// Not a RADIUS packet.
    #[error("the reply is no RADIUS packet")]
    Packet(#[source] PacketError),
    /// The identifier is that of another request.
    #[error("the reply has another identifier")]
    Identifier,
    /// This code answers no request of this kind.
    #[error("the reply's code does not answer the request")]
    Code,
    /// The Response Authenticator was not made from this request and this secret.
    #[error("the reply's authenticator does not match")]
    ResponseAuthenticator,
    /// The Message-Authenticator was not made from this request and this secret.
    #[error("the reply's Message-Authenticator does not match")]
    MessageAuthenticator,
    /// There is no Message-Authenticator, and there must be one.
    #[error("the reply has no Message-Authenticator")]
    MessageAuthenticatorAbsent,
}

impl ReplyError {
    /// A stable name for metrics and logs; never changed once released.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packet(error) => error.name(),
            Self::Identifier => "identifier",
            Self::Code => "code",
            Self::ResponseAuthenticator => "response_authenticator",
            Self::MessageAuthenticator => "message_authenticator",
            Self::MessageAuthenticatorAbsent => "message_authenticator_absent",
        }
    }
}

impl SentRequest {
    /// Checks that `datagram` is the reply of somebody who knows the secret to this very request:
    /// identifier, code, Response Authenticator (RFC 2865 section 3) and Message-Authenticator
    /// (RFC 3579 section 3.2).
    ///
    /// # Errors
    /// The first check that failed.
    pub fn verify_reply<'a>(
        &self,
        datagram: &'a [u8],
        secret: &Secret,
        rule: MessageAuthenticatorRule,
    ) -> Result<Packet<'a>, ReplyError> {
        let reply = Packet::parse(datagram).map_err(ReplyError::Packet)?;
        if reply.identifier != self.identifier {
            return Err(ReplyError::Identifier);
        }
        if !self.is_answered_by(reply.code) {
            return Err(ReplyError::Code);
        }
        if !authenticator_is_valid(&reply, &self.authenticator, secret) {
            return Err(ReplyError::ResponseAuthenticator);
        }
        let found = check_message_authenticator(&reply, &self.authenticator, secret);
        match (found, rule) {
            (MessageAuthenticator::Invalid, _) => Err(ReplyError::MessageAuthenticator),
            (MessageAuthenticator::Absent, MessageAuthenticatorRule::Required) => {
                Err(ReplyError::MessageAuthenticatorAbsent)
            }
            (MessageAuthenticator::Absent, MessageAuthenticatorRule::Optional)
            | (MessageAuthenticator::Valid, _) => Ok(reply),
        }
    }

    fn is_answered_by(&self, code: Code) -> bool {
        match self.code {
            Code::AccessRequest => {
                matches!(code, Code::AccessAccept | Code::AccessReject | Code::AccessChallenge)
            }
            Code::StatusServer => matches!(code, Code::AccessAccept | Code::AccountingResponse),
            Code::AccountingRequest => code == Code::AccountingResponse,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::radius::password::PasswordError;

    fn secret() -> Secret {
        Secret::new(b"xyzzy5461").expect("not empty")
    }

    /// RFC 2865 section 7.1, octet by octet.
    #[test]
    fn the_request_of_the_rfc_is_built() {
        let authenticator = 0x0f40_3f94_7397_8057_bd83_d5cb_98f4_227a_u128.to_be_bytes();
        let mut buffer = Vec::new();
        let mut request = Request::access(&mut buffer, 0, authenticator, false);
        request.attributes.push_text(AttributeType::USER_NAME, "nemo").expect("fits");
        request.push_password(b"arctangent", &secret()).expect("fits");
        let address = Ipv4Addr::new(192, 168, 1, 16);
        request.attributes.push_ipv4(AttributeType::NAS_IP_ADDRESS, address).expect("fits");
        request.attributes.push_u32(AttributeType::NAS_PORT, 3).expect("fits");
        let (bytes, sent) = request.sign(&secret());
        let hex: String = bytes.iter().map(|octet| format!("{octet:02x}")).collect();
        assert!(include_str!("testdata/rfc.txt").contains(&hex));
        let code = Code::AccessRequest;
        assert_eq!(sent, SentRequest { code, identifier: 0, authenticator });
    }

    #[test]
    fn an_accounting_request_is_remembered_by_its_digest() {
        let mut buffer = Vec::new();
        let (bytes, sent) = Request::accounting(&mut buffer, 3).sign(&secret());
        assert_eq!(bytes[4..20], sent.authenticator);
        assert_ne!(sent.authenticator, [0; 16]);
    }

    #[test]
    fn a_password_that_is_too_long_is_an_error() {
        let mut buffer = Vec::new();
        let mut request = Request::access(&mut buffer, 0, [1; 16], true);
        let outcome = request.push_password(&[b'a'; 129], &secret());
        assert_eq!(outcome, Err(BuildError::Password(PasswordError::TooLong)));
    }

    #[test]
    fn only_a_reply_answers_a_request() {
        let sent = |code| SentRequest { code, identifier: 0, authenticator: [0; 16] };
        let answers = |request| {
            let sent = sent(request);
            (0..=255u8).filter(|&octet| sent.is_answered_by(octet.into())).collect::<Vec<_>>()
        };
        assert_eq!(answers(Code::AccessRequest), [2, 3, 11]);
        assert_eq!(answers(Code::StatusServer), [2, 5]);
        assert_eq!(answers(Code::AccountingRequest), [5]);
        assert!(answers(Code::AccessAccept).is_empty());
    }
}

//! Replies of a server: built, tied to their request and signed.
//!
//! The order is fixed: Message-Authenticator, what the caller says, the request's Proxy-State. What
//! a reply says is decided elsewhere.

use super::attribute::AttributeType;
use super::packet::{Code, Packet};
use super::secret::Secret;
use super::writer::{AttributeWriter, BuildError};

/// A reply under construction.
///
/// ```text
/// let mut reply = Reply::start(&mut buffer, Code::AccessReject, &request);
/// reply.attributes.push_text(AttributeType::REPLY_MESSAGE, "try again")?;
/// socket.send(reply.sign(&secret)?);
/// ```
#[derive(Debug)]
pub struct Reply<'b, 'r> {
    /// Takes the reply's attributes, in order.
    pub attributes: AttributeWriter<'b>,
    request: Packet<'r>,
}

impl<'b, 'r> Reply<'b, 'r> {
    /// Starts a reply to `request` in `buffer`, whose old content is discarded.
    ///
    /// It gets a Message-Authenticator whether or not the request has one, because a reply without
    /// one can be forged (CVE-2024-3596). The exception is the answer to an Accounting-Request: its
    /// RFC gives it none, and implementations differ in how it would be computed.
    pub fn start(buffer: &'b mut Vec<u8>, code: Code, request: &Packet<'r>) -> Self {
        let Packet { identifier, authenticator, .. } = request;
        let is_signed = request.code != Code::AccountingRequest;
        let attributes =
            AttributeWriter::start(buffer, code, *identifier, authenticator, true, is_signed);
        Self { attributes, request: *request }
    }

    /// Echoes the request's Proxy-State in order (RFC 2865 section 5.33), signs the reply with
    /// Message-Authenticator (RFC 3579 section 3.2) and Response Authenticator (RFC 2865 section
    /// 3), and yields its octets.
    ///
    /// # Errors
    /// [`BuildError::PacketTooLong`] when Proxy-State does not fit any more. A reply without it
    /// would not reach its client, so there is none.
    pub fn sign(self, secret: &Secret) -> Result<&'b [u8], BuildError> {
        let Self { mut attributes, request } = self;
        for state in request.all(AttributeType::PROXY_STATE) {
            attributes.push_any(AttributeType::PROXY_STATE, &[state])?;
        }
        Ok(attributes.finish(secret, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::radius::authenticator::MessageAuthenticator;
    use crate::radius::request::{MessageAuthenticatorRule, Request, SentRequest};

    fn secret() -> Secret {
        Secret::new(b"xyzzy5461").expect("not empty")
    }

    fn request(proxy_states: &[Vec<u8>], is_signed: bool) -> (Vec<u8>, SentRequest) {
        let mut buffer = Vec::new();
        let mut request = Request::access(&mut buffer, 9, [4; 16], is_signed);
        for state in proxy_states {
            request.attributes.push(AttributeType::PROXY_STATE, state).expect("fits");
        }
        let (_, sent) = request.sign(&secret());
        (buffer, sent)
    }

    #[test]
    fn the_order_is_signature_then_content_then_proxy_state() {
        for is_signed in [true, false] {
            let (bytes, sent) = request(&[b"near".to_vec(), b"far".to_vec()], is_signed);
            let request = Packet::parse(&bytes).expect("well formed");
            let mut buffer = vec![0xff; 3000];
            let mut reply = Reply::start(&mut buffer, Code::AccessChallenge, &request);
            reply.attributes.push_text(AttributeType::REPLY_MESSAGE, "passcode?").expect("fits");
            reply.attributes.push(AttributeType::STATE, &[1; 253]).expect("fits");
            reply.attributes.push_u32(AttributeType::SESSION_TIMEOUT, 60).expect("fits");
            let bytes = reply.sign(&secret()).expect("fits");
            let reply = sent
                .verify_reply(bytes, &secret(), MessageAuthenticatorRule::Required)
                .expect("authentic");
            let kinds: Vec<_> = reply.attributes().map(|found| found.kind).collect();
            let expected = [
                AttributeType::MESSAGE_AUTHENTICATOR,
                AttributeType::REPLY_MESSAGE,
                AttributeType::STATE,
                AttributeType::SESSION_TIMEOUT,
                AttributeType::PROXY_STATE,
                AttributeType::PROXY_STATE,
            ];
            assert_eq!(kinds, expected);
            let echoed: Vec<_> = reply.all(AttributeType::PROXY_STATE).collect();
            assert_eq!(echoed, [&b"near"[..], b"far"]);
        }
    }

    #[test]
    fn proxy_state_that_does_not_fit_is_an_error() {
        let (bytes, _) = request(&vec![vec![1; 253]; 15], true);
        let request = Packet::parse(&bytes).expect("well formed");
        let mut buffer = Vec::new();
        let reply = Reply::start(&mut buffer, Code::AccessReject, &request);
        assert_eq!(reply.sign(&secret()).map(<[u8]>::len), Ok(20 + 18 + 15 * 255));
        let mut reply = Reply::start(&mut buffer, Code::AccessReject, &request);
        reply.attributes.push(AttributeType::CLASS, &[0; 232]).expect("fits so far");
        assert_eq!(reply.sign(&secret()), Err(BuildError::PacketTooLong));
    }

    #[test]
    fn accounting_is_answered_without_a_message_authenticator() {
        let mut buffer = Vec::new();
        let (bytes, sent) = Request::accounting(&mut buffer, 9).sign(&secret());
        let request = Packet::parse(bytes).expect("well formed");
        let mut buffer = Vec::new();
        let reply = Reply::start(&mut buffer, Code::AccountingResponse, &request);
        let bytes = reply.sign(&secret()).expect("fits");
        assert_eq!(bytes.len(), 20);
        assert!(sent.verify_reply(bytes, &secret(), MessageAuthenticatorRule::Optional).is_ok());
    }

    #[test]
    fn status_server_is_answered_with_one() {
        let mut buffer = Vec::new();
        let (bytes, sent) = Request::status_server(&mut buffer, 9, [4; 16]).sign(&secret());
        let request = Packet::parse(bytes).expect("well formed");
        assert_eq!(request.message_authenticator(&secret()), MessageAuthenticator::Valid);
        for code in [Code::AccessAccept, Code::AccountingResponse] {
            let mut buffer = Vec::new();
            let bytes = Reply::start(&mut buffer, code, &request).sign(&secret()).expect("fits");
            assert!(
                sent.verify_reply(bytes, &secret(), MessageAuthenticatorRule::Required).is_ok()
            );
        }
    }
}

//! What makes a RADIUS packet authentic: Message-Authenticator and the authenticator field.
//!
//! Both are digests over the octets as they arrived, so they are checked on the raw packet before
//! anything in it is believed; rebuilding the packet first would check a different text.
//! Comparisons take the same time wherever the difference is. Whether an absent
//! Message-Authenticator is acceptable is a matter of policy (CVE-2024-3596) and decided elsewhere.

use subtle::ConstantTimeEq;

use super::attribute::{ATTRIBUTE_HEADER_BYTES, AttributeType};
use super::packet::{AUTHENTICATOR_BYTES, Authenticator, Code, HEADER_BYTES, Packet};
use super::secret::{DIGEST_BYTES, Secret};

/// Octets in front of the authenticator field: code, identifier and length.
const PREFIX_BYTES: usize = HEADER_BYTES - AUTHENTICATOR_BYTES;
/// What stands in a digested field while the digest is computed.
const ZEROS: [u8; DIGEST_BYTES] = [0; DIGEST_BYTES];

/// What a packet's Message-Authenticator says (RFC 3579 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageAuthenticator {
    /// There is none: the packet may come from anybody.
    Absent,
    /// There is exactly one, and it was made by somebody who knows the secret.
    Valid,
    /// There is one that does not match, has not 16 octets, or is not alone. Such a packet is
    /// silently discarded.
    Invalid,
}

impl Packet<'_> {
    /// Checks the Message-Authenticator of a *request* on its raw octets: HMAC-MD5 over the packet
    /// with the attribute's own 16 octets taken as zero (RFC 2869 section 5.14).
    ///
    /// The authenticator field counts as it stands, except in the requests whose authenticator is
    /// itself computed afterwards (accounting, disconnect, CoA): there it counts as zeros (RFC 5176
    /// section 3.4).
    pub fn message_authenticator(&self, secret: &Secret) -> MessageAuthenticator {
        match self.code {
            Code::AccountingRequest | Code::DisconnectRequest | Code::CoaRequest => {
                check_message_authenticator(self, &ZEROS, secret)
            }
            _ => check_message_authenticator(self, &self.authenticator, secret),
        }
    }

    /// Whether the Request Authenticator of an Accounting-Request (RFC 2866 section 3), Disconnect-
    /// or CoA-Request (RFC 5176 section 2.3) proves that its sender knows the secret. For other
    /// requests, whose authenticator is random, this is meaningless and false.
    pub fn request_authenticator_is_valid(&self, secret: &Secret) -> bool {
        authenticator_is_valid(self, &ZEROS, secret)
    }
}

/// Checks the Message-Authenticator of `packet` with `authenticator` in the authenticator field:
/// for a reply, the Request Authenticator of its request.
pub(super) fn check_message_authenticator(
    packet: &Packet<'_>,
    authenticator: &Authenticator,
    secret: &Secret,
) -> MessageAuthenticator {
    let mut found = None;
    let mut offset = 0;
    for attribute in packet.attributes() {
        offset += ATTRIBUTE_HEADER_BYTES;
        if attribute.kind == AttributeType::MESSAGE_AUTHENTICATOR {
            if found.is_some() || attribute.value.len() != DIGEST_BYTES {
                return MessageAuthenticator::Invalid;
            }
            found = Some(offset);
        }
        offset += attribute.value.len();
    }
    let Some(offset) = found else {
        return MessageAuthenticator::Absent;
    };
    match matches(packet.bytes(), offset, authenticator, secret) {
        Some(true) => MessageAuthenticator::Valid,
        // `None` would mean that the attribute is not where it was just found.
        Some(false) | None => MessageAuthenticator::Invalid,
    }
}

/// Whether the 16 octets at `offset` behind the header are the digest of everything else.
fn matches(
    bytes: &[u8],
    offset: usize,
    authenticator: &Authenticator,
    secret: &Secret,
) -> Option<bool> {
    let (prefix, attributes) = split_header(bytes)?;
    let (before, rest) = attributes.split_at_checked(offset)?;
    let (received, after) = rest.split_first_chunk::<DIGEST_BYTES>()?;
    let computed = secret.hmac_md5(&[prefix, authenticator, before, &ZEROS, after]);
    Some(computed.ct_eq(received).into())
}

/// Whether the authenticator field of `packet` is the MD5 digest of the packet with `authenticator`
/// in that field, and the secret: a Response Authenticator (RFC 2865 section 3) with the Request
/// Authenticator, an accounting Request Authenticator with zeros.
pub(super) fn authenticator_is_valid(
    packet: &Packet<'_>,
    authenticator: &Authenticator,
    secret: &Secret,
) -> bool {
    split_header(packet.bytes()).is_some_and(|(prefix, attributes)| {
        let computed = secret.md5_suffixed(&[prefix, authenticator, attributes]);
        computed.ct_eq(&packet.authenticator).into()
    })
}

/// Code, identifier and length; attributes. Leaves out the authenticator field between them.
fn split_header(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    Some((bytes.get(..PREFIX_BYTES)?, bytes.get(HEADER_BYTES..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::radius::reply::Reply;
    use crate::radius::request::{MessageAuthenticatorRule, Request};

    fn secret() -> Secret {
        Secret::new(b"xyzzy5461").expect("not empty")
    }

    fn access_request(name: &str) -> Vec<u8> {
        let mut buffer = Vec::new();
        let mut request = Request::access(&mut buffer, 7, [0x3c; 16], true);
        request.attributes.push_text(AttributeType::USER_NAME, name).expect("fits");
        request.push_password(b"arctangent", &secret()).expect("fits");
        request.attributes.push(AttributeType::PROXY_STATE, b"hop").expect("fits");
        request.sign(&secret());
        buffer
    }

    fn found(bytes: &[u8]) -> Option<MessageAuthenticator> {
        Packet::parse(bytes).ok().map(|packet| packet.message_authenticator(&secret()))
    }

    proptest! {
        #[test]
        fn a_request_with_one_octet_changed_is_not_valid(
            name in "[a-zä-ö]{1,60}",
            index in any::<prop::sample::Index>(),
            change in 1..=255u8,
        ) {
            let mut bytes = access_request(&name);
            prop_assert_eq!(found(&bytes), Some(MessageAuthenticator::Valid));
            let index = index.index(bytes.len());
            bytes[index] ^= change;
            prop_assert_ne!(found(&bytes), Some(MessageAuthenticator::Valid));
        }

        #[test]
        fn a_reply_with_one_octet_changed_is_not_valid(
            code in prop::sample::select(vec![
                Code::AccessAccept,
                Code::AccessReject,
                Code::AccessChallenge,
            ]),
            index in any::<prop::sample::Index>(),
            change in 1..=255u8,
        ) {
            let mut buffer = Vec::new();
            let request = Request::access(&mut buffer, 7, [0x3c; 16], true);
            let (request, sent) = request.sign(&secret());
            let request = Packet::parse(request).expect("well formed");
            let mut buffer = Vec::new();
            let mut reply = Reply::start(&mut buffer, code, &request);
            reply.attributes.push(AttributeType::STATE, &[1; 40]).expect("fits");
            reply.sign(&secret()).expect("fits");
            let rule = MessageAuthenticatorRule::Optional;
            prop_assert!(sent.verify_reply(&buffer, &secret(), rule).is_ok());
            let index = index.index(buffer.len());
            buffer[index] ^= change;
            prop_assert!(sent.verify_reply(&buffer, &secret(), rule).is_err());
        }

        #[test]
        fn an_accounting_request_with_one_octet_changed_is_not_valid(
            index in any::<prop::sample::Index>(),
            change in 1..=255u8,
        ) {
            let mut buffer = Vec::new();
            let mut request = Request::accounting(&mut buffer, 7);
            request.attributes.push(AttributeType::ACCT_SESSION_ID, b"s-1").expect("fits");
            request.sign(&secret());
            let valid = |bytes: &[u8]| {
                Packet::parse(bytes).is_ok_and(|p| p.request_authenticator_is_valid(&secret()))
            };
            prop_assert!(valid(&buffer));
            let index = index.index(buffer.len());
            buffer[index] ^= change;
            prop_assert!(!valid(&buffer));
        }
    }

    /// A careless verifier: compares only the first `count` octets of the digest.
    fn accepts_prefix(bytes: &[u8], count: usize) -> bool {
        let mut unsigned = bytes.to_vec();
        unsigned[22..38].fill(0);
        secret().hmac_md5(&[&unsigned])[..count] == bytes[22..22 + count]
    }

    /// The control: packets that the careless verifier accepts are refused, wherever in the digest
    /// the difference lies.
    #[test]
    fn a_digest_that_is_right_only_in_part_is_refused() {
        let bytes = access_request("nemo");
        assert!(accepts_prefix(&bytes, 16));
        for right in 0..16 {
            let mut forged = bytes.clone();
            forged[22 + right] ^= 1;
            assert!(accepts_prefix(&forged, right) && !accepts_prefix(&forged, right + 1));
            assert_eq!(found(&forged), Some(MessageAuthenticator::Invalid));
        }
    }

    #[test]
    fn another_secret_is_refused() {
        let bytes = access_request("nemo");
        let packet = Packet::parse(&bytes).expect("well formed");
        let other = Secret::new(b"xyzzy5462").expect("not empty");
        assert_eq!(packet.message_authenticator(&other), MessageAuthenticator::Invalid);
    }

    #[test]
    fn a_random_request_authenticator_proves_nothing() {
        let bytes = access_request("nemo");
        let packet = Packet::parse(&bytes).expect("well formed");
        assert!(!packet.request_authenticator_is_valid(&secret()));
    }
}

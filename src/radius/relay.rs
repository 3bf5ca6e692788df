//! What a proxy passes on: the attributes of a request, and those of the reply to it.
//!
//! Both lose here what belongs to one hop: signatures, what is hidden under its secret, State. They are sequences of
//! attributes as they stand in a packet (RFC 2865 section 5), in their order, unknown ones included; of a reply, what
//! was hidden is in the clear, so it must not leave this process unless sealed.
//!
//! ```text
//!   client ── request ──► take_request ──► target
//!   client ◄── put_reply ◄── take_reply ◄── reply
//! ```

use sha2::{Digest, Sha256};
use watchword_core::id::ClusterId;
use zeroize::Zeroizing;

use super::attribute::{ATTRIBUTE_HEADER_BYTES, Attribute, AttributeType, Walk};
use super::hidden::{self, HiddenError, SALT_BYTES};
use super::packet::{Authenticator, Packet};
use super::password;
use super::secret::Secret;
use super::vendor::{VENDOR_MICROSOFT, VendorSpecific};
use super::writer::{AttributeWriter, BuildError};

/// Microsoft's attributes that are hidden: RFC 2548 section 2.4.
const MS_CHAP_MPPE_KEYS: u8 = 12;
const MS_MPPE_SEND_KEY: u8 = 16;
const MS_MPPE_RECV_KEY: u8 = 17;
/// Octets of the keys in MS-CHAP-MPPE-Keys, with their padding (RFC 2548 section 2.4.1).
const MPPE_KEYS_BYTES: usize = 32;

/// Why a reply cannot be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    /// Something hidden in it does not open.
    #[error("the {0} of the reply does not open")]
    Hidden(AttributeType, #[source] HiddenError),
    /// It does not fit into a packet.
    #[error("the reply cannot be passed on")]
    Build(#[from] BuildError),
}

/// What the requests of a cluster carry to other servers as Proxy-State: one that comes back with it goes round.
pub fn mark(cluster: ClusterId) -> [u8; 16] {
    let digest = Sha256::new().chain_update(b"goes round").chain_update(cluster.0).finalize();
    std::array::from_fn(|at| digest.get(at).copied().unwrap_or_default())
}

/// The attributes of `request` that another server may want to see: all but those that the next hop gets anew.
pub fn take_request(request: &Packet<'_>) -> Vec<u8> {
    let mut taken = Vec::with_capacity(request.bytes().len());
    for Attribute { kind, value } in request.attributes() {
        let is_of_hop = matches!(
            kind,
            AttributeType::USER_PASSWORD
                | AttributeType::MESSAGE_AUTHENTICATOR
                | AttributeType::STATE
        );
        if !is_of_hop {
            push(&mut taken, kind, value);
        }
    }
    // The challenge of CHAP is the Request Authenticator where none is named (RFC 2865 section 5.40), and that of the
    // next hop is another.
    if request.first(AttributeType::CHAP_PASSWORD).is_some()
        && request.first(AttributeType::CHAP_CHALLENGE).is_none()
    {
        push(&mut taken, AttributeType::CHAP_CHALLENGE, &request.authenticator);
    }
    taken
}

/// The attributes of `reply`, which answers the request with `request_authenticator`, for whoever passes it on.
///
/// # Errors
/// [`RelayError::Hidden`]: then its sender has hidden something under another secret.
pub fn take_reply(
    reply: &Packet<'_>,
    secret: &Secret,
    request_authenticator: &Authenticator,
) -> Result<Zeroizing<Vec<u8>>, RelayError> {
    let mut taken = Zeroizing::new(Vec::with_capacity(reply.bytes().len()));
    for Attribute { kind, value } in reply.attributes() {
        let failed = |error| RelayError::Hidden(kind, error);
        match kind {
            AttributeType::MESSAGE_AUTHENTICATOR
            | AttributeType::PROXY_STATE
            | AttributeType::STATE => {}
            AttributeType::TUNNEL_PASSWORD => {
                let (tag, hidden) = value.split_first().ok_or(failed(HiddenError::Malformed))?;
                let clear =
                    hidden::reveal(hidden, secret, request_authenticator).map_err(failed)?;
                push_parts(&mut taken, kind, &[&[*tag], &clear]);
            }
            AttributeType::VENDOR_SPECIFIC => {
                match hiding_sub_attributes(value) {
                    None => push(&mut taken, kind, value),
                    // One attribute each, since they differ in length when they are hidden.
                    Some(sub_attributes) => {
                        for (kind_of_vendor, value) in sub_attributes {
                            let clear = reveal_microsoft(
                                kind_of_vendor,
                                value,
                                secret,
                                request_authenticator,
                            );
                            push_microsoft(&mut taken, kind_of_vendor, &clear.map_err(failed)?);
                        }
                    }
                }
            }
            _ => push(&mut taken, kind, value),
        }
    }
    Ok(taken)
}

/// Appends what [`take_reply`] has taken to the reply to the request with `request_authenticator`. `salt` is where the
/// salts of hidden values begin: drawn at random, once for each reply.
///
/// # Errors
/// When the reply gets too long.
pub fn put_reply(
    taken: &[u8],
    writer: &mut AttributeWriter<'_>,
    secret: &Secret,
    request_authenticator: &Authenticator,
    salt: [u8; SALT_BYTES],
) -> Result<(), RelayError> {
    let mut salts = Salts(u16::from_be_bytes(salt));
    for Attribute { kind, value } in attributes(taken) {
        let failed = |error| RelayError::Hidden(kind, error);
        match (kind, value.split_first()) {
            (AttributeType::TUNNEL_PASSWORD, Some((tag, clear))) => {
                let hidden = hidden::hide(clear, salts.next(), secret, request_authenticator);
                writer.push_any(kind, &[&[*tag], &hidden.map_err(failed)?])?;
            }
            (AttributeType::VENDOR_SPECIFIC, _) => match hiding_sub_attributes(value) {
                None => writer.push(kind, value)?,
                Some(sub_attributes) => {
                    for (kind_of_vendor, clear) in sub_attributes {
                        let salt = salts.next();
                        let hidden = hide_microsoft(
                            kind_of_vendor,
                            clear,
                            salt,
                            secret,
                            request_authenticator,
                        );
                        let hidden = hidden.map_err(failed)?;
                        writer.push_vendor(VENDOR_MICROSOFT, kind_of_vendor, &hidden)?;
                    }
                }
            },
            _ => writer.push(kind, value)?,
        }
    }
    Ok(())
}

/// What was taken, attribute by attribute.
pub fn attributes(taken: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    // Ends where what was taken is damaged, which the seal excludes.
    Walk(taken).map_while(Result::ok)
}

/// Those attributes alone of what was taken that `is_wanted`.
pub fn only(taken: &[u8], is_wanted: impl Fn(&Attribute<'_>) -> bool) -> Zeroizing<Vec<u8>> {
    let mut wanted = Zeroizing::new(Vec::with_capacity(taken.len()));
    attributes(taken)
        .filter(is_wanted)
        .for_each(|found| push(&mut wanted, found.kind, found.value));
    wanted
}

/// The value of the first attribute of type `kind`.
pub fn first(taken: &[u8], kind: AttributeType) -> Option<&[u8]> {
    attributes(taken).find(|found| found.kind == kind).map(|found| found.value)
}

/// Salts, each another (RFC 2868 section 3.5); the highest bit is not theirs.
struct Salts(u16);

impl Salts {
    fn next(&mut self) -> [u8; SALT_BYTES] {
        self.0 = self.0.wrapping_add(1);
        self.0.to_be_bytes()
    }
}

/// The sub-attributes of one Vendor-Specific attribute of Microsoft, if one of them is hidden.
fn hiding_sub_attributes(value: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let specific = VendorSpecific::parse(value).filter(|one| one.vendor == VENDOR_MICROSOFT)?;
    let all: Vec<_> = specific.sub_attributes()?.map(|sub| (sub.kind, sub.value)).collect();
    let hides = |kind: u8| matches!(kind, MS_CHAP_MPPE_KEYS | MS_MPPE_SEND_KEY | MS_MPPE_RECV_KEY);
    all.iter().any(|(kind, _)| hides(*kind)).then_some(all)
}

fn reveal_microsoft(
    kind: u8,
    value: &[u8],
    secret: &Secret,
    request_authenticator: &Authenticator,
) -> Result<Zeroizing<Vec<u8>>, HiddenError> {
    match kind {
        MS_MPPE_SEND_KEY | MS_MPPE_RECV_KEY => hidden::reveal(value, secret, request_authenticator),
        MS_CHAP_MPPE_KEYS => {
            let clear = password::reveal(value, secret, request_authenticator);
            let clear = clear.map_err(|_| HiddenError::Malformed)?;
            // Zeros at the end are a part of them, not padding of a text.
            let mut keys = Zeroizing::new(vec![0; MPPE_KEYS_BYTES]);
            keys.iter_mut().zip(clear.as_bytes()).for_each(|(to, from)| *to = *from);
            Ok(keys)
        }
        _ => Ok(Zeroizing::new(value.to_vec())),
    }
}

fn hide_microsoft(
    kind: u8,
    clear: &[u8],
    salt: [u8; SALT_BYTES],
    secret: &Secret,
    request_authenticator: &Authenticator,
) -> Result<Vec<u8>, HiddenError> {
    match kind {
        MS_MPPE_SEND_KEY | MS_MPPE_RECV_KEY => {
            hidden::hide(clear, salt, secret, request_authenticator)
        }
        MS_CHAP_MPPE_KEYS => {
            let mut hidden = Vec::with_capacity(MPPE_KEYS_BYTES);
            password::hide_into(&mut hidden, clear, secret, request_authenticator)
                .map_err(|_| HiddenError::TooLong)?;
            Ok(hidden)
        }
        _ => Ok(clear.to_vec()),
    }
}

fn push_microsoft(taken: &mut Vec<u8>, kind: u8, value: &[u8]) {
    // Shorter than it was hidden, so it fits.
    let length = (value.len() + ATTRIBUTE_HEADER_BYTES) as u8;
    let parts = [&VENDOR_MICROSOFT.to_be_bytes()[..], &[kind, length], value];
    push_parts(taken, AttributeType::VENDOR_SPECIFIC, &parts);
}

fn push(taken: &mut Vec<u8>, kind: AttributeType, value: &[u8]) {
    push_parts(taken, kind, &[value]);
}

/// Appends an attribute; its value has come out of a packet and is not longer than it was there.
fn push_parts(taken: &mut Vec<u8>, kind: AttributeType, parts: &[&[u8]]) {
    let length = parts.iter().map(|part| part.len()).sum::<usize>() + ATTRIBUTE_HEADER_BYTES;
    taken.extend_from_slice(&[kind.0, length as u8]);
    parts.iter().for_each(|part| taken.extend_from_slice(part));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::radius::packet::Code;
    use crate::radius::reply::Reply;
    use crate::radius::request::{MessageAuthenticatorRule, Request};

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes()).expect("not empty")
    }

    /// A reply to a request with `authenticator` that says what `write` writes.
    fn reply_with(
        authenticator: Authenticator,
        secret: &Secret,
        write: impl FnOnce(&mut AttributeWriter<'_>),
    ) -> Vec<u8> {
        let mut buffer = Vec::new();
        let mut request = Request::access(&mut buffer, 1, authenticator, true);
        request.attributes.push(AttributeType::PROXY_STATE, b"hop").expect("fits");
        let (request, _) = request.sign(secret);
        let request = Packet::parse(request).expect("well formed");
        let mut buffer = Vec::new();
        let mut reply = Reply::start(&mut buffer, Code::AccessAccept, &request);
        write(&mut reply.attributes);
        reply.sign(secret).expect("fits").to_vec()
    }

    fn taken(reply: &[u8], authenticator: &Authenticator, secret: &Secret) -> Zeroizing<Vec<u8>> {
        let reply = Packet::parse(reply).expect("well formed");
        take_reply(&reply, secret, authenticator).expect("opens")
    }

    #[test]
    fn keys_and_tunnel_passwords_are_hidden_anew_on_each_hop() {
        let (near, far) = (secret("near"), secret("far"));
        let (near_authenticator, far_authenticator) = ([1; 16], [2; 16]);
        let key = |salt| hidden::hide(&[7; 32], [salt, 1], &far, &far_authenticator).expect("fits");
        let mut keys = vec![9; MPPE_KEYS_BYTES];
        keys[20..].fill(0);
        let mut old_keys = Vec::new();
        password::hide_into(&mut old_keys, &keys, &far, &far_authenticator).expect("fits");
        let password = hidden::hide(b"tunnel", [3, 3], &far, &far_authenticator).expect("fits");
        let from_target = reply_with(far_authenticator, &far, |writer| {
            writer.push_text(AttributeType::FILTER_ID, "staff").expect("fits");
            writer.push_any(AttributeType::TUNNEL_PASSWORD, &[&[1], &password]).expect("fits");
            writer.push_vendor(VENDOR_MICROSOFT, MS_MPPE_SEND_KEY, &key(1)).expect("fits");
            writer.push_vendor(VENDOR_MICROSOFT, MS_MPPE_RECV_KEY, &key(2)).expect("fits");
            writer.push_vendor(VENDOR_MICROSOFT, MS_CHAP_MPPE_KEYS, &old_keys).expect("fits");
            writer.push_vendor(9, 1, b"opaque").expect("fits");
            writer.push(AttributeType::STATE, b"inner").expect("fits");
            writer.push(AttributeType(200), b"").expect("fits");
        });
        let clear = taken(&from_target, &far_authenticator, &far);
        let kinds: Vec<u8> = attributes(&clear).map(|found| found.kind.0).collect();
        assert_eq!(kinds, [11, 69, 26, 26, 26, 26, 200], "nothing of the hop, in order");
        let to_client = reply_with(near_authenticator, &near, |writer| {
            put_reply(&clear, writer, &near, &near_authenticator, [5, 5]).expect("fits");
        });
        assert_ne!(from_target, to_client);
        // Whoever stands behind the near hop reads the same.
        assert_eq!(taken(&to_client, &near_authenticator, &near), clear);
        let elsewhere = Packet::parse(&to_client).expect("well formed");
        let stolen = take_reply(&elsewhere, &far, &near_authenticator);
        assert!(stolen.is_err() || stolen != Ok(clear), "another secret reveals nothing");
    }

    #[test]
    fn a_request_loses_what_belongs_to_its_hop() {
        let (key, mut buffer) = (secret("near"), Vec::new());
        let mut request = Request::access(&mut buffer, 1, [4; 16], true);
        request.attributes.push_text(AttributeType::USER_NAME, "nemo").expect("fits");
        request.push_password(b"arctangent", &key).expect("fits");
        request.attributes.push(AttributeType::CHAP_PASSWORD, &[1; 17]).expect("fits");
        request.attributes.push(AttributeType::STATE, b"ours").expect("fits");
        request.attributes.push(AttributeType::PROXY_STATE, b"hop").expect("fits");
        let (bytes, _) = request.sign(&key);
        let taken = take_request(&Packet::parse(bytes).expect("well formed"));
        let kinds: Vec<u8> = attributes(&taken).map(|found| found.kind.0).collect();
        assert_eq!(kinds, [1, 3, 33, 60]);
        assert_eq!(first(&taken, AttributeType::CHAP_CHALLENGE), Some(&[4; 16][..]));
    }

    proptest! {
        #[test]
        fn whatever_a_target_says_arrives_or_is_an_error(
            values in prop::collection::vec(
                (any::<u8>(), prop::collection::vec(any::<u8>(), 0..=253)), 0..12),
        ) {
            let key = secret("far");
            let said = reply_with([2; 16], &key, |writer| {
                for (kind, value) in &values {
                    // Those that the builder writes itself are refused, and so is what is too much.
                    let _ = writer.push(AttributeType(*kind), value);
                }
            });
            let packet = Packet::parse(&said).expect("well formed");
            if let Ok(clear) = take_reply(&packet, &key, &[2; 16]) {
                let again = reply_with([3; 16], &key, |writer| {
                    put_reply(&clear, writer, &key, &[3; 16], [0; 2]).expect("fits");
                });
                prop_assert_eq!(taken(&again, &[3; 16], &key), clear);
            }
        }
    }

    #[test]
    fn a_forged_reply_is_no_reply() {
        let mut buffer = Vec::new();
        let (_, sent) = Request::access(&mut buffer, 1, [2; 16], true).sign(&secret("far"));
        let forged = reply_with([2; 16], &secret("near"), |_| {});
        let rule = MessageAuthenticatorRule::Required;
        assert!(sent.verify_reply(&forged, &secret("far"), rule).is_err());
    }
}

//! What a stranger may send to the RADIUS port: any bytes parse or are refused, everything that can
//! be asked of a packet can be asked, and a reply to it is one that its client accepts.
//!
//! The bytes are taken as they are and once more with a length field that fits them, because random
//! ones seldom state a plausible length.

#![no_main]

use libfuzzer_sys::fuzz_target;
use watchword::radius::attribute::{Attribute, AttributeType};
use watchword::radius::authenticator::MessageAuthenticator;
use watchword::radius::packet::{Code, HEADER_BYTES, PACKET_BYTES_MAX, Packet};
use watchword::radius::password;
use watchword::radius::reply::Reply;
use watchword::radius::request::{MessageAuthenticatorRule, SentRequest};
use watchword::radius::secret::Secret;
use watchword::radius::vendor::VendorSpecific;

fuzz_target!(|bytes: &[u8]| {
    let secret = Secret::new(b"xyzzy5461").expect("not empty");
    check(bytes, &secret);
    if (HEADER_BYTES..=PACKET_BYTES_MAX).contains(&bytes.len()) {
        let mut fitting = bytes.to_vec();
        fitting[2..4].copy_from_slice(&(bytes.len() as u16).to_be_bytes());
        check(&fitting, &secret);
    }
});

fn check(bytes: &[u8], secret: &Secret) {
    let Ok(packet) = Packet::parse(bytes) else { return };
    let walked: usize = packet.attributes().map(|attribute| 2 + attribute.value.len()).sum();
    assert_eq!(HEADER_BYTES + walked, packet.bytes().len());
    packet.attributes().for_each(|attribute| check_attribute(&packet, attribute, secret));
    check_signature(&packet, secret);
    packet.request_authenticator_is_valid(secret);
    check_reply(&packet, secret);
    for code in [Code::AccessRequest, Code::StatusServer, Code::AccountingRequest] {
        let Packet { identifier, authenticator, .. } = packet;
        let sent = SentRequest { code, identifier, authenticator };
        let _ = sent.verify_reply(bytes, secret, MessageAuthenticatorRule::Optional);
    }
}

fn check_attribute(packet: &Packet<'_>, attribute: Attribute<'_>, secret: &Secret) {
    let Attribute { kind, value } = attribute;
    assert!(packet.all(kind).any(|found| found == value));
    let _ = (attribute.text(), attribute.u32(), attribute.ipv4(), attribute.ipv6());
    let _ = (packet.first(kind), packet.first_text(kind), packet.first_u32(kind));
    let _ = (packet.concatenated(kind), kind.to_string());
    if let Ok(clear) = password::reveal(value, secret, &packet.authenticator) {
        let mut hidden = Vec::new();
        password::hide_into(&mut hidden, clear.as_bytes(), secret, &packet.authenticator)
            .expect("no longer than before");
        // Padding of more than a block is legal and shrinks.
        assert_eq!(hidden[..], value[..hidden.len()]);
    }
    if let Some(vendor) = VendorSpecific::parse(value) {
        vendor.sub_attributes().map(Iterator::count);
        vendor.first(1);
    }
}

/// A fuzzer cannot find an HMAC by chance, so "valid" is only acceptable for the seeds' own packets:
/// any single changed octet must undo it.
fn check_signature(packet: &Packet<'_>, secret: &Secret) {
    if packet.message_authenticator(secret) != MessageAuthenticator::Valid {
        return;
    }
    let mut changed = packet.bytes().to_vec();
    for index in 0..changed.len() {
        changed[index] ^= 1;
        if let Ok(forged) = Packet::parse(&changed) {
            assert_ne!(forged.message_authenticator(secret), MessageAuthenticator::Valid);
        }
        changed[index] ^= 1;
    }
}

fn check_reply(packet: &Packet<'_>, secret: &Secret) {
    let mut buffer = Vec::new();
    let mut reply = Reply::start(&mut buffer, Code::AccessChallenge, packet);
    for Attribute { kind, value } in packet.attributes().take(4) {
        let _ = reply.attributes.push(kind, value);
    }
    reply.attributes.push_text(AttributeType::REPLY_MESSAGE, "passcode?").expect("fits");
    let Ok(bytes) = reply.sign(secret) else { return };
    assert!(bytes.len() <= PACKET_BYTES_MAX);
    let Packet { code, identifier, authenticator, .. } = *packet;
    let rule = match code {
        Code::AccessRequest => MessageAuthenticatorRule::Required,
        _ => return,
    };
    let sent = SentRequest { code, identifier, authenticator };
    let reply = sent.verify_reply(bytes, secret, rule).expect("our own reply");
    assert!(reply.all(AttributeType::PROXY_STATE).eq(packet.all(AttributeType::PROXY_STATE)));
}

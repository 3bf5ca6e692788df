//! How outgoing packets are put together: header, attributes, signatures.
//!
//! [`crate::radius::reply::Reply`] and [`crate::radius::request::Request`] say what goes into a
//! packet; here are the bounds that every packet keeps. A packet is written into a buffer of the
//! caller, which is reused from packet to packet, so that building one allocates nothing.

use std::net::Ipv4Addr;

use super::attribute::{ATTRIBUTE_HEADER_BYTES, ATTRIBUTE_VALUE_BYTES_MAX, AttributeType};
use super::packet::{Authenticator, Code, HEADER_BYTES, PACKET_BYTES_MAX};
use super::password::PasswordError;
use super::secret::{DIGEST_BYTES, Secret};
use super::vendor::VENDOR_VALUE_BYTES_MAX;

const LENGTH_OFFSET: usize = 2;
const AUTHENTICATOR_OFFSET: usize = 4;
/// Message-Authenticator is always the first attribute: a receiver then has digested a secret
/// before any octet that an attacker may choose (the countermeasure to CVE-2024-3596).
const MESSAGE_AUTHENTICATOR_OFFSET: usize = HEADER_BYTES + ATTRIBUTE_HEADER_BYTES;

/// Why a packet cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A value does not fit into one attribute.
    #[error("{length} octets do not fit into one {kind}")]
    AttributeTooLong {
        /// The attribute.
        kind: AttributeType,
        /// Octets of the value.
        length: usize,
    },
    /// The packet would exceed 4096 octets.
    #[error("the packet would be longer than 4096 octets")]
    PacketTooLong,
    /// An attribute that the builder itself writes: Message-Authenticator, in a reply Proxy-State.
    #[error("{0} is written by the builder itself")]
    Reserved(AttributeType),
    /// The password cannot be hidden.
    #[error("the password cannot be hidden")]
    Password(#[source] PasswordError),
}

/// Appends attributes to a packet, in order, within the bounds of RFC 2865 sections 3 and 5.
#[derive(Debug)]
pub struct AttributeWriter<'b> {
    buffer: &'b mut Vec<u8>,
    is_reply: bool,
    is_signed: bool,
}

impl<'b> AttributeWriter<'b> {
    /// Starts a packet in `buffer`, whose old content is discarded. `is_signed`: with a
    /// Message-Authenticator.
    pub(super) fn start(
        buffer: &'b mut Vec<u8>,
        code: Code,
        identifier: u8,
        authenticator: &Authenticator,
        is_reply: bool,
        is_signed: bool,
    ) -> Self {
        buffer.clear();
        buffer.reserve(PACKET_BYTES_MAX);
        buffer.extend_from_slice(&[code.into(), identifier, 0, 0]);
        buffer.extend_from_slice(authenticator);
        if is_signed {
            let length = ATTRIBUTE_HEADER_BYTES + DIGEST_BYTES;
            buffer.extend_from_slice(&[AttributeType::MESSAGE_AUTHENTICATOR.0, length as u8]);
            buffer.extend_from_slice(&[0; DIGEST_BYTES]);
        }
        Self { buffer, is_reply, is_signed }
    }

    /// Appends one attribute with 0 to 253 octets of value.
    ///
    /// # Errors
    /// When the value or the packet gets too long, or the builder writes this type itself; then
    /// nothing is appended.
    pub fn push(&mut self, kind: AttributeType, value: &[u8]) -> Result<(), BuildError> {
        let is_reserved = kind == AttributeType::MESSAGE_AUTHENTICATOR
            || (self.is_reply && kind == AttributeType::PROXY_STATE);
        if is_reserved {
            return Err(BuildError::Reserved(kind));
        }
        self.push_any(kind, &[value])
    }

    /// Appends one attribute with an integer, a number of seconds or a time (RFC 2865 section 5).
    ///
    /// # Errors
    /// As [`AttributeWriter::push`].
    pub fn push_u32(&mut self, kind: AttributeType, value: u32) -> Result<(), BuildError> {
        self.push(kind, &value.to_be_bytes())
    }

    /// Appends one attribute with an IPv4 address.
    ///
    /// # Errors
    /// As [`AttributeWriter::push`].
    pub fn push_ipv4(&mut self, kind: AttributeType, value: Ipv4Addr) -> Result<(), BuildError> {
        self.push(kind, &value.octets())
    }

    /// Appends text as one attribute or, when it is longer than 253 octets, as several that are
    /// each whole UTF-8 (Reply-Message, RFC 2865 section 5.18). Empty text is left out, because an
    /// empty attribute of type text must not be sent (RFC 2865 section 5).
    ///
    /// # Errors
    /// As [`AttributeWriter::push`]; then the packet may hold the beginning of the text.
    pub fn push_text(&mut self, kind: AttributeType, text: &str) -> Result<(), BuildError> {
        let mut rest = text;
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.floor_char_boundary(ATTRIBUTE_VALUE_BYTES_MAX));
            self.push(kind, part.as_bytes())?;
            rest = after;
        }
        Ok(())
    }

    /// Appends octets as as many attributes as they need, at least one (EAP-Message, RFC 3579
    /// section 3.1).
    ///
    /// # Errors
    /// As [`AttributeWriter::push`]; then the packet may hold the beginning of the value.
    pub fn push_split(&mut self, kind: AttributeType, value: &[u8]) -> Result<(), BuildError> {
        if value.is_empty() {
            return self.push(kind, value);
        }
        value.chunks(ATTRIBUTE_VALUE_BYTES_MAX).try_for_each(|part| self.push(kind, part))
    }

    /// Appends one Vendor-Specific attribute with one sub-attribute of 0 to 247 octets (RFC 2865
    /// section 5.26).
    ///
    /// # Errors
    /// When the value or the packet gets too long; then nothing is appended.
    pub fn push_vendor(&mut self, vendor: u32, kind: u8, value: &[u8]) -> Result<(), BuildError> {
        let length = u8::try_from(value.len() + ATTRIBUTE_HEADER_BYTES)
            .ok()
            .filter(|_| value.len() <= VENDOR_VALUE_BYTES_MAX)
            .ok_or(BuildError::AttributeTooLong {
                kind: AttributeType::VENDOR_SPECIFIC,
                length: value.len(),
            })?;
        let parts = [&vendor.to_be_bytes()[..], &[kind, length], value];
        self.push_any(AttributeType::VENDOR_SPECIFIC, &parts)
    }

    /// Appends one attribute whose value is `parts` joined, whatever its type.
    pub(super) fn push_any(
        &mut self,
        kind: AttributeType,
        parts: &[&[u8]],
    ) -> Result<(), BuildError> {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let octet = u8::try_from(length + ATTRIBUTE_HEADER_BYTES)
            .map_err(|_| BuildError::AttributeTooLong { kind, length })?;
        if self.buffer.len() + usize::from(octet) > PACKET_BYTES_MAX {
            return Err(BuildError::PacketTooLong);
        }
        self.buffer.extend_from_slice(&[kind.0, octet]);
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
        Ok(())
    }

    /// Completes the packet and yields its octets.
    ///
    /// The Message-Authenticator comes first, over the packet with whatever the authenticator field
    /// was started with; then, for `is_digested`, the digest of the result replaces that field
    /// (Response Authenticator, RFC 2865 section 3; accounting, RFC 2866 section 3).
    pub(super) fn finish(self, secret: &Secret, is_digested: bool) -> &'b [u8] {
        let Self { buffer, is_signed, .. } = self;
        // `push_any` keeps the packet at 4096 octets, so the length fits.
        let length = buffer.len() as u16;
        patch(buffer, LENGTH_OFFSET, &length.to_be_bytes());
        if is_signed {
            let digest = secret.hmac_md5(&[buffer]);
            patch(buffer, MESSAGE_AUTHENTICATOR_OFFSET, &digest);
        }
        if is_digested {
            let digest = secret.md5_suffixed(&[buffer]);
            patch(buffer, AUTHENTICATOR_OFFSET, &digest);
        }
        buffer
    }
}

/// Replaces the octets at `offset`, which [`AttributeWriter::start`] has laid out.
fn patch<const N: usize>(buffer: &mut [u8], offset: usize, value: &[u8; N]) {
    let place = buffer.get_mut(offset..).and_then(|rest| rest.first_chunk_mut::<N>());
    debug_assert!(place.is_some(), "the field lies within the packet");
    if let Some(place) = place {
        *place = *value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::radius::packet::Packet;

    const KIND: AttributeType = AttributeType::REPLY_MESSAGE;

    fn secret() -> Secret {
        Secret::new(b"xyzzy5461").expect("not empty")
    }

    /// The packet that `write` makes, and what it returned.
    fn written<T>(write: impl FnOnce(&mut AttributeWriter<'_>) -> T) -> (Vec<u8>, T) {
        let mut buffer = Vec::new();
        let mut writer =
            AttributeWriter::start(&mut buffer, Code::AccessReject, 7, &[9; 16], true, true);
        let outcome = write(&mut writer);
        writer.finish(&secret(), true);
        (buffer, outcome)
    }

    fn values(bytes: &[u8]) -> Vec<Vec<u8>> {
        let packet = Packet::parse(bytes).expect("well formed");
        packet.attributes().skip(1).map(|attribute| attribute.value.to_vec()).collect()
    }

    #[test]
    fn a_value_has_at_most_253_octets() {
        let (bytes, outcome) = written(|writer| writer.push(KIND, &[1; 253]));
        assert_eq!((outcome, values(&bytes)), (Ok(()), vec![vec![1; 253]]));
        let (bytes, outcome) = written(|writer| writer.push(KIND, &[1; 254]));
        let error = BuildError::AttributeTooLong { kind: KIND, length: 254 };
        assert_eq!((outcome, values(&bytes)), (Err(error), Vec::new()));
    }

    #[test]
    fn a_packet_has_at_most_4096_octets() {
        // 20 of header, 18 of Message-Authenticator, 15 times 255 leave 233.
        let fill = |writer: &mut AttributeWriter<'_>, last: usize| {
            for _ in 0..15 {
                writer.push(KIND, &[1; 253]).expect("room");
            }
            writer.push(KIND, &vec![2; last])
        };
        let (bytes, outcome) = written(|writer| fill(writer, 231));
        assert_eq!((outcome, bytes.len()), (Ok(()), 4096));
        let (bytes, outcome) = written(|writer| fill(writer, 232));
        assert_eq!((outcome, bytes.len()), (Err(BuildError::PacketTooLong), 4096 - 233));
    }

    #[test]
    fn text_is_split_between_characters() {
        let text = format!("{}{}", "a".repeat(252), "ä".repeat(127));
        let (bytes, outcome) = written(|writer| writer.push_text(KIND, &text));
        outcome.expect("fits");
        let parts = values(&bytes);
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [252, 252, 2]);
        assert!(parts.iter().all(|part| std::str::from_utf8(part).is_ok()));
        assert_eq!(parts.concat(), text.as_bytes());
    }

    #[test]
    fn empty_text_is_left_out_and_an_empty_value_is_not() {
        let (bytes, outcome) = written(|writer| writer.push_text(KIND, ""));
        assert_eq!((outcome, values(&bytes).len()), (Ok(()), 0));
        let (bytes, outcome) = written(|writer| writer.push_split(AttributeType::EAP_MESSAGE, b""));
        assert_eq!((outcome, values(&bytes)), (Ok(()), vec![vec![]]));
    }

    #[test]
    fn a_long_value_is_split_and_joined_again() {
        let eap = vec![0xee; 600];
        let (bytes, outcome) =
            written(|writer| writer.push_split(AttributeType::EAP_MESSAGE, &eap));
        outcome.expect("fits");
        let packet = Packet::parse(&bytes).expect("well formed");
        assert_eq!(packet.all(AttributeType::EAP_MESSAGE).count(), 3);
        assert_eq!(packet.concatenated(AttributeType::EAP_MESSAGE), eap);
    }

    #[test]
    fn a_vendor_value_has_at_most_247_octets() {
        let (bytes, outcome) = written(|writer| writer.push_vendor(311, 26, &[5; 247]));
        outcome.expect("fits");
        let value = values(&bytes).concat();
        assert_eq!((value.len(), &value[..6]), (253, &[0, 0, 1, 0x37, 26, 249][..]));
        for length in [248, 254, 300] {
            let (_, outcome) = written(|writer| writer.push_vendor(311, 26, &vec![5; length]));
            let kind = AttributeType::VENDOR_SPECIFIC;
            assert_eq!(outcome, Err(BuildError::AttributeTooLong { kind, length }));
        }
    }

    #[test]
    fn what_the_builder_writes_itself_is_refused() {
        for kind in [AttributeType::MESSAGE_AUTHENTICATOR, AttributeType::PROXY_STATE] {
            let (_, outcome) = written(|writer| writer.push(kind, &[0; 16]));
            assert_eq!(outcome, Err(BuildError::Reserved(kind)));
        }
    }
}

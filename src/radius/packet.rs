//! A received RADIUS packet as a view of the octets that arrived (RFC 2865 section 3).
//!
//! Parsing checks the outer form once and copies nothing, so that a flood of rubbish costs little;
//! order and unknown attributes stay as they are, so that a proxy can pass them on. A parsed packet
//! is *not* authentic: see [`crate::radius::authenticator`]. Which packets are welcome is decided
//! elsewhere, and whoever drops one says so, with `PacketError::name` as the metric's label.

use super::attribute::{Attribute, AttributeType, Malformed, Walk};

/// Octets of code, identifier, length and authenticator; the shortest packet.
pub const HEADER_BYTES: usize = 20;
/// The longest packet, in octets.
pub const PACKET_BYTES_MAX: usize = 4096;
/// Octets of a Request or Response Authenticator.
pub const AUTHENTICATOR_BYTES: usize = 16;

/// A Request or Response Authenticator.
pub type Authenticator = [u8; AUTHENTICATOR_BYTES];

/// What a packet is (RFC 2865 section 3, RFC 2866 section 3, RFC 5176 section 2.3, RFC 5997).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// 1: may this user log in?
    AccessRequest,
    /// 2: yes; also the answer to Status-Server on an authentication port.
    AccessAccept,
    /// 3: no.
    AccessReject,
    /// 4: something happened in a session.
    AccountingRequest,
    /// 5: taken note of; also the answer to Status-Server on an accounting port.
    AccountingResponse,
    /// 11: a question to the user.
    AccessChallenge,
    /// 12: are you there?
    StatusServer,
    /// 13: reserved by RFC 2865.
    StatusClient,
    /// 40: end a session.
    DisconnectRequest,
    /// 41: the session was ended.
    DisconnectAck,
    /// 42: the session was not ended.
    DisconnectNak,
    /// 43: change a session's authorization.
    CoaRequest,
    /// 44: it was changed.
    CoaAck,
    /// 45: it was not changed.
    CoaNak,
    /// Any other octet. The octets above never appear here when the code came from [`Code::from`].
    Other(u8),
}

impl From<u8> for Code {
    fn from(octet: u8) -> Self {
        match octet {
            1 => Self::AccessRequest,
            2 => Self::AccessAccept,
            3 => Self::AccessReject,
            4 => Self::AccountingRequest,
            5 => Self::AccountingResponse,
            11 => Self::AccessChallenge,
            12 => Self::StatusServer,
            13 => Self::StatusClient,
            40 => Self::DisconnectRequest,
            41 => Self::DisconnectAck,
            42 => Self::DisconnectNak,
            43 => Self::CoaRequest,
            44 => Self::CoaAck,
            45 => Self::CoaNak,
            other => Self::Other(other),
        }
    }
}

impl From<Code> for u8 {
    fn from(code: Code) -> Self {
        match code {
            Code::AccessRequest => 1,
            Code::AccessAccept => 2,
            Code::AccessReject => 3,
            Code::AccountingRequest => 4,
            Code::AccountingResponse => 5,
            Code::AccessChallenge => 11,
            Code::StatusServer => 12,
            Code::StatusClient => 13,
            Code::DisconnectRequest => 40,
            Code::DisconnectAck => 41,
            Code::DisconnectNak => 42,
            Code::CoaRequest => 43,
            Code::CoaAck => 44,
            Code::CoaNak => 45,
            Code::Other(octet) => octet,
        }
    }
}

impl Code {
    /// The name in the RFCs; `Other` for a code without one here, so that it can label a metric.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AccessRequest => "Access-Request",
            Self::AccessAccept => "Access-Accept",
            Self::AccessReject => "Access-Reject",
            Self::AccountingRequest => "Accounting-Request",
            Self::AccountingResponse => "Accounting-Response",
            Self::AccessChallenge => "Access-Challenge",
            Self::StatusServer => "Status-Server",
            Self::StatusClient => "Status-Client",
            Self::DisconnectRequest => "Disconnect-Request",
            Self::DisconnectAck => "Disconnect-ACK",
            Self::DisconnectNak => "Disconnect-NAK",
            Self::CoaRequest => "CoA-Request",
            Self::CoaAck => "CoA-ACK",
            Self::CoaNak => "CoA-NAK",
            Self::Other(_) => "Other",
        }
    }
}

/// Why a datagram is not a RADIUS packet. RFC 2865 section 3 wants it silently discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PacketError {
    /// The datagram is shorter than a header.
    #[error("the datagram is shorter than 20 octets")]
    HeaderTruncated,
    /// The length field is below 20 or above 4096.
    #[error("the packet's length is not between 20 and 4096")]
    LengthOutOfRange,
    /// The datagram is shorter than its length field says.
    #[error("the datagram is shorter than the packet's length")]
    Truncated,
    /// An attribute's length field is below 2.
    #[error("an attribute's length is below 2")]
    AttributeTooShort,
    /// An attribute runs past the packet's end.
    #[error("an attribute runs past the end of the packet")]
    AttributeOverrun,
}

impl PacketError {
    /// A stable name for metrics and logs; never changed once released.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HeaderTruncated => "header_truncated",
            Self::LengthOutOfRange => "length_out_of_range",
            Self::Truncated => "truncated",
            Self::AttributeTooShort => "attribute_too_short",
            Self::AttributeOverrun => "attribute_overrun",
        }
    }
}

impl From<Malformed> for PacketError {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::TooShort => Self::AttributeTooShort,
            Malformed::Overrun => Self::AttributeOverrun,
        }
    }
}

/// A well-formed packet: a view of the octets it was parsed from. Cheap to copy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What it is.
    pub code: Code,
    /// Matches requests with replies; reused by the client all the time.
    pub identifier: u8,
    /// The Request or Response Authenticator.
    pub authenticator: Authenticator,
    /// Header and attributes, without padding. Private, because the walk below relies on the check
    /// that [`Packet::parse`] has made.
    bytes: &'a [u8],
    attributes: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Parses one datagram. Octets behind the length that the packet states are padding and no part
    /// of the packet (RFC 2865 section 3).
    ///
    /// # Errors
    /// A [`PacketError`] for everything that the RFC wants silently discarded.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, PacketError> {
        let (&[code, identifier, high, low], after) =
            datagram.split_first_chunk().ok_or(PacketError::HeaderTruncated)?;
        let (&authenticator, _) = after.split_first_chunk().ok_or(PacketError::HeaderTruncated)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if !(HEADER_BYTES..=PACKET_BYTES_MAX).contains(&length) {
            return Err(PacketError::LengthOutOfRange);
        }
        let bytes = datagram.get(..length).ok_or(PacketError::Truncated)?;
        let attributes = bytes.get(HEADER_BYTES..).unwrap_or_default();
        for attribute in Walk(attributes) {
            attribute?;
        }
        Ok(Self { code: code.into(), identifier, authenticator, bytes, attributes })
    }

    /// The packet's octets, exactly as many as its length field says.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// All attributes in the order in which they arrived, unknown ones included.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + Clone + use<'a> {
        // The whole sequence has been walked before, so no item is an error.
        Walk(self.attributes).flatten()
    }

    /// The values of all attributes of type `kind`, in order.
    pub fn all(&self, kind: AttributeType) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        self.attributes().filter(move |found| found.kind == kind).map(|found| found.value)
    }

    /// The value of the first attribute of type `kind`.
    pub fn first(&self, kind: AttributeType) -> Option<&'a [u8]> {
        self.all(kind).next()
    }

    /// The first attribute of type `kind` as text; `None` also when it is not UTF-8.
    pub fn first_text(&self, kind: AttributeType) -> Option<&'a str> {
        self.first(kind).and_then(|value| Attribute { kind, value }.text())
    }

    /// The first attribute of type `kind` as an integer; `None` also when it has not four octets.
    pub fn first_u32(&self, kind: AttributeType) -> Option<u32> {
        self.first(kind).and_then(|value| Attribute { kind, value }.u32())
    }

    /// The values of all attributes of type `kind` joined in order, for data that are split over
    /// several attributes such as EAP-Message (RFC 3579 section 3.1).
    pub fn concatenated(&self, kind: AttributeType) -> Vec<u8> {
        self.all(kind).flatten().copied().collect()
    }
}

impl std::fmt::Debug for Packet<'_> {
    /// No attribute values: they may be secret.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {} ", self.code.name(), self.identifier)?;
        formatter.debug_list().entries(self.attributes()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::radius::request::Request;
    use crate::radius::secret::Secret;

    /// A packet from its parts, written out by hand so that the parser is not checked against
    /// itself.
    fn packet(code: u8, attributes: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let body: Vec<u8> = attributes
            .iter()
            .flat_map(|(kind, value)| [&[*kind, value.len() as u8 + 2], &value[..]].concat())
            .collect();
        let length = (HEADER_BYTES + body.len()) as u16;
        [&[code, 7], &length.to_be_bytes()[..], &[3; 16], &body].concat()
    }

    fn attributes() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
        let value = prop::collection::vec(any::<u8>(), 0..=253);
        prop::collection::vec((any::<u8>(), value), 0..16)
    }

    /// Everything that can be asked of a packet.
    fn read_everything(packet: &Packet<'_>) {
        let secret = Secret::new(b"secret").expect("not empty");
        for Attribute { kind, value } in packet.attributes() {
            assert!(packet.all(kind).any(|found| found == value));
            assert!(packet.first(kind).is_some());
            packet.concatenated(kind);
            packet.first_text(kind);
            packet.first_u32(kind);
        }
        packet.message_authenticator(&secret);
        packet.request_authenticator_is_valid(&secret);
        assert!(!format!("{packet:?}").is_empty());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            if let Ok(packet) = Packet::parse(&bytes) {
                read_everything(&packet);
            }
        }

        /// Random octets seldom state a plausible length, so here it is put right.
        #[test]
        fn parsing_never_panics_behind_a_good_header(
            mut bytes in prop::collection::vec(any::<u8>(), 20..200),
            mask in 0..=255u8,
        ) {
            let length = (bytes.len() as u16).to_be_bytes();
            bytes[2..4].copy_from_slice(&length);
            bytes[20..].iter_mut().for_each(|octet| *octet &= mask);
            if let Ok(packet) = Packet::parse(&bytes) {
                read_everything(&packet);
            }
        }

        #[test]
        fn what_was_written_is_read_in_order(code in any::<u8>(), attributes in attributes()) {
            let bytes = packet(code, &attributes);
            let packet = Packet::parse(&bytes).expect("well formed");
            prop_assert_eq!((u8::from(packet.code), packet.identifier), (code, 7));
            prop_assert_eq!(packet.authenticator, [3; 16]);
            prop_assert_eq!(packet.bytes(), &bytes[..]);
            let read: Vec<_> =
                packet.attributes().map(|found| (found.kind.0, found.value.to_vec())).collect();
            prop_assert_eq!(read, attributes);
        }

        #[test]
        fn a_packet_read_and_written_again_is_the_same(attributes in attributes()) {
            let attributes: Vec<_> =
                attributes.into_iter().filter(|(kind, _)| *kind != 80).collect();
            let bytes = packet(1, &attributes);
            let packet = Packet::parse(&bytes).expect("well formed");
            let mut buffer = Vec::new();
            let mut request =
                Request::access(&mut buffer, packet.identifier, packet.authenticator, false);
            for Attribute { kind, value } in packet.attributes() {
                request.attributes.push(kind, value).expect("fits");
            }
            let (written, _) = request.sign(&Secret::new(b"secret").expect("not empty"));
            prop_assert_eq!(written, &bytes[..]);
        }
    }

    #[test]
    fn every_code_survives_the_way_there_and_back() {
        for octet in 0..=255u8 {
            let code = Code::from(octet);
            assert_eq!(u8::from(code), octet);
            assert_eq!(code.name() == "Other", matches!(code, Code::Other(_)));
        }
    }

    #[test]
    fn accessors_find_the_first_of_their_type() {
        let state = |value: &[u8]| (24, value.to_vec());
        let bytes = packet(1, &[state(b"a"), (27, vec![0, 0, 1, 0]), state(b"b"), (1, vec![0xff])]);
        let packet = Packet::parse(&bytes).expect("well formed");
        assert_eq!(packet.first(AttributeType::STATE), Some(&b"a"[..]));
        assert_eq!(packet.first_text(AttributeType::STATE), Some("a"));
        assert_eq!(packet.concatenated(AttributeType::STATE), b"ab");
        assert_eq!(packet.first_u32(AttributeType::SESSION_TIMEOUT), Some(256));
        assert_eq!(packet.first_u32(AttributeType::STATE), None);
        assert_eq!(packet.first_text(AttributeType::USER_NAME), None);
        assert_eq!(packet.first(AttributeType::CLASS), None);
    }

    #[test]
    fn the_longest_packet_is_accepted_and_padding_is_not_part_of_it() {
        let mut filled = vec![(18, vec![1; 253]); 15];
        filled.push((18, vec![1; 249]));
        let bytes = packet(1, &filled);
        assert_eq!(bytes.len(), PACKET_BYTES_MAX);
        let padded = [&bytes[..], &[1, 2, 3]].concat();
        let packet = Packet::parse(&padded).expect("well formed");
        assert_eq!((packet.bytes(), packet.attributes().count()), (&bytes[..], 16));
    }

    #[test]
    fn debug_output_holds_no_value() {
        let bytes = packet(1, &[(2, b"hunter2".to_vec())]);
        let packet = Packet::parse(&bytes).expect("well formed");
        assert_eq!(format!("{packet:?}"), "Access-Request 7 [User-Password(7 octets)]");
    }
}

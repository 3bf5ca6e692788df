//! RADIUS attributes: their types, their names, and one attribute's octets read as what it means.
//!
//! A type that is not in the table is still an attribute: it is carried and echoed as opaque
//! octets, because a proxy must pass on what it does not know. Nothing here decides which
//! attributes a packet may or must hold.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Octets in front of each value: type and length (RFC 2865 section 5).
pub const ATTRIBUTE_HEADER_BYTES: usize = 2;
/// Longest value of one attribute, in octets (RFC 2865 section 5).
pub const ATTRIBUTE_VALUE_BYTES_MAX: usize = 253;

/// The type of an attribute: any octet, known by name or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttributeType(pub u8);

/// One row per attribute: constant, number, name in the RFCs.
macro_rules! attribute_types {
    ($($(#[$meta:meta])* $constant:ident = $number:literal, $name:literal;)*) => {
        impl AttributeType {
            $($(#[$meta])* #[doc = $name] pub const $constant: Self = Self($number);)*

            /// The name in the RFCs, if the type has one there.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($name),)*
                    _ => None,
                }
            }
        }

        /// Every type that has a name, for tests of the table.
        #[cfg(test)]
        const NAMED: &[AttributeType] = &[$(AttributeType::$constant),*];
    };
}

attribute_types! {
    // RFC 2865
    USER_NAME = 1, "User-Name";
    USER_PASSWORD = 2, "User-Password";
    CHAP_PASSWORD = 3, "CHAP-Password";
    NAS_IP_ADDRESS = 4, "NAS-IP-Address";
    NAS_PORT = 5, "NAS-Port";
    SERVICE_TYPE = 6, "Service-Type";
    FRAMED_PROTOCOL = 7, "Framed-Protocol";
    FRAMED_IP_ADDRESS = 8, "Framed-IP-Address";
    FRAMED_IP_NETMASK = 9, "Framed-IP-Netmask";
    FRAMED_ROUTING = 10, "Framed-Routing";
    FILTER_ID = 11, "Filter-Id";
    FRAMED_MTU = 12, "Framed-MTU";
    FRAMED_COMPRESSION = 13, "Framed-Compression";
    LOGIN_IP_HOST = 14, "Login-IP-Host";
    LOGIN_SERVICE = 15, "Login-Service";
    LOGIN_TCP_PORT = 16, "Login-TCP-Port";
    REPLY_MESSAGE = 18, "Reply-Message";
    CALLBACK_NUMBER = 19, "Callback-Number";
    CALLBACK_ID = 20, "Callback-Id";
    FRAMED_ROUTE = 22, "Framed-Route";
    FRAMED_IPX_NETWORK = 23, "Framed-IPX-Network";
    STATE = 24, "State";
    CLASS = 25, "Class";
    VENDOR_SPECIFIC = 26, "Vendor-Specific";
    SESSION_TIMEOUT = 27, "Session-Timeout";
    IDLE_TIMEOUT = 28, "Idle-Timeout";
    TERMINATION_ACTION = 29, "Termination-Action";
    CALLED_STATION_ID = 30, "Called-Station-Id";
    CALLING_STATION_ID = 31, "Calling-Station-Id";
    NAS_IDENTIFIER = 32, "NAS-Identifier";
    PROXY_STATE = 33, "Proxy-State";
    LOGIN_LAT_SERVICE = 34, "Login-LAT-Service";
    LOGIN_LAT_NODE = 35, "Login-LAT-Node";
    LOGIN_LAT_GROUP = 36, "Login-LAT-Group";
    FRAMED_APPLETALK_LINK = 37, "Framed-AppleTalk-Link";
    FRAMED_APPLETALK_NETWORK = 38, "Framed-AppleTalk-Network";
    FRAMED_APPLETALK_ZONE = 39, "Framed-AppleTalk-Zone";
    CHAP_CHALLENGE = 60, "CHAP-Challenge";
    NAS_PORT_TYPE = 61, "NAS-Port-Type";
    PORT_LIMIT = 62, "Port-Limit";
    LOGIN_LAT_PORT = 63, "Login-LAT-Port";
    // RFC 2866
    ACCT_STATUS_TYPE = 40, "Acct-Status-Type";
    ACCT_DELAY_TIME = 41, "Acct-Delay-Time";
    ACCT_INPUT_OCTETS = 42, "Acct-Input-Octets";
    ACCT_OUTPUT_OCTETS = 43, "Acct-Output-Octets";
    ACCT_SESSION_ID = 44, "Acct-Session-Id";
    ACCT_AUTHENTIC = 45, "Acct-Authentic";
    ACCT_SESSION_TIME = 46, "Acct-Session-Time";
    ACCT_INPUT_PACKETS = 47, "Acct-Input-Packets";
    ACCT_OUTPUT_PACKETS = 48, "Acct-Output-Packets";
    ACCT_TERMINATE_CAUSE = 49, "Acct-Terminate-Cause";
    ACCT_MULTI_SESSION_ID = 50, "Acct-Multi-Session-Id";
    ACCT_LINK_COUNT = 51, "Acct-Link-Count";
    // RFC 2868
    TUNNEL_TYPE = 64, "Tunnel-Type";
    TUNNEL_MEDIUM_TYPE = 65, "Tunnel-Medium-Type";
    TUNNEL_CLIENT_ENDPOINT = 66, "Tunnel-Client-Endpoint";
    TUNNEL_SERVER_ENDPOINT = 67, "Tunnel-Server-Endpoint";
    TUNNEL_PASSWORD = 69, "Tunnel-Password";
    TUNNEL_PRIVATE_GROUP_ID = 81, "Tunnel-Private-Group-ID";
    TUNNEL_ASSIGNMENT_ID = 82, "Tunnel-Assignment-ID";
    TUNNEL_PREFERENCE = 83, "Tunnel-Preference";
    TUNNEL_CLIENT_AUTH_ID = 90, "Tunnel-Client-Auth-ID";
    TUNNEL_SERVER_AUTH_ID = 91, "Tunnel-Server-Auth-ID";
    // RFC 2869 and, for EAP-Message and Message-Authenticator, RFC 3579
    ACCT_INPUT_GIGAWORDS = 52, "Acct-Input-Gigawords";
    ACCT_OUTPUT_GIGAWORDS = 53, "Acct-Output-Gigawords";
    EVENT_TIMESTAMP = 55, "Event-Timestamp";
    ARAP_PASSWORD = 70, "ARAP-Password";
    ARAP_FEATURES = 71, "ARAP-Features";
    ARAP_ZONE_ACCESS = 72, "ARAP-Zone-Access";
    ARAP_SECURITY = 73, "ARAP-Security";
    ARAP_SECURITY_DATA = 74, "ARAP-Security-Data";
    PASSWORD_RETRY = 75, "Password-Retry";
    PROMPT = 76, "Prompt";
    CONNECT_INFO = 77, "Connect-Info";
    CONFIGURATION_TOKEN = 78, "Configuration-Token";
    EAP_MESSAGE = 79, "EAP-Message";
    MESSAGE_AUTHENTICATOR = 80, "Message-Authenticator";
    ARAP_CHALLENGE_RESPONSE = 84, "ARAP-Challenge-Response";
    ACCT_INTERIM_INTERVAL = 85, "Acct-Interim-Interval";
    NAS_PORT_ID = 87, "NAS-Port-Id";
    FRAMED_POOL = 88, "Framed-Pool";
    // RFC 3162
    NAS_IPV6_ADDRESS = 95, "NAS-IPv6-Address";
    FRAMED_INTERFACE_ID = 96, "Framed-Interface-Id";
    FRAMED_IPV6_PREFIX = 97, "Framed-IPv6-Prefix";
    LOGIN_IPV6_HOST = 98, "Login-IPv6-Host";
    FRAMED_IPV6_ROUTE = 99, "Framed-IPv6-Route";
    FRAMED_IPV6_POOL = 100, "Framed-IPv6-Pool";
    // RFC 5176, seen in answers to disconnect requests
    ERROR_CAUSE = 101, "Error-Cause";
}

impl fmt::Display for AttributeType {
    /// The name, or `Attr-` and the number.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => formatter.write_str(name),
            None => write!(formatter, "Attr-{}", self.0),
        }
    }
}

/// One attribute as it stands in a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its type.
    pub kind: AttributeType,
    /// Its value, 0 to 253 octets.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The value as text: UTF-8 (RFC 2865 section 5, data type `text`).
    pub fn text(self) -> Option<&'a str> {
        std::str::from_utf8(self.value).ok()
    }

    /// The value as an unsigned 32 bit integer (data types `integer` and `time`).
    pub fn u32(self) -> Option<u32> {
        <[u8; 4]>::try_from(self.value).ok().map(u32::from_be_bytes)
    }

    /// The value as an IPv4 address (data type `address`).
    pub fn ipv4(self) -> Option<Ipv4Addr> {
        <[u8; 4]>::try_from(self.value).ok().map(Ipv4Addr::from)
    }

    /// The value as an IPv6 address (RFC 3162 section 2.1).
    pub fn ipv6(self) -> Option<Ipv6Addr> {
        <[u8; 16]>::try_from(self.value).ok().map(Ipv6Addr::from)
    }
}

impl fmt::Debug for Attribute<'_> {
    /// Type and length only: a value may be a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}({} octets)", self.kind, self.value.len())
    }
}

/// Why octets are not a sequence of attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A length below 2 leaves no room for the attribute's own header.
    TooShort,
    /// An attribute runs past the end.
    Overrun,
}

/// The attributes in `octets` one by one, in order. Ends at the first malformed one, which it
/// yields as an error; sub-attributes in the usual format of RFC 2865 section 5.26 look the same.
#[derive(Clone, Debug)]
pub(super) struct Walk<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Walk<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let attribute = split_attribute(self.0);
        self.0 = attribute.map_or(&[], |(_, rest)| rest);
        Some(attribute.map(|(attribute, _)| attribute))
    }
}

fn split_attribute(octets: &[u8]) -> Result<(Attribute<'_>, &[u8]), Malformed> {
    let (&[kind, length], _) =
        octets.split_first_chunk::<ATTRIBUTE_HEADER_BYTES>().ok_or(Malformed::Overrun)?;
    let length = usize::from(length);
    if length < ATTRIBUTE_HEADER_BYTES {
        return Err(Malformed::TooShort);
    }
    let (whole, rest) = octets.split_at_checked(length).ok_or(Malformed::Overrun)?;
    let value = whole.get(ATTRIBUTE_HEADER_BYTES..).unwrap_or_default();
    Ok((Attribute { kind: AttributeType(kind), value }, rest))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_named_type_has_its_own_number_and_name() {
        let numbers: BTreeSet<u8> = NAMED.iter().map(|kind| kind.0).collect();
        let names: BTreeSet<&str> = NAMED.iter().filter_map(|kind| kind.name()).collect();
        assert_eq!((numbers.len(), names.len()), (NAMED.len(), NAMED.len()));
    }

    #[test]
    fn a_type_without_a_name_is_shown_by_its_number() {
        assert_eq!(AttributeType::MESSAGE_AUTHENTICATOR.to_string(), "Message-Authenticator");
        assert_eq!(AttributeType(241).name(), None);
        assert_eq!(AttributeType(241).to_string(), "Attr-241");
    }

    #[test]
    fn values_are_read_only_at_their_exact_length() {
        let of = |value| Attribute { kind: AttributeType::STATE, value };
        assert_eq!(of(&[1, 2, 3, 4]).u32(), Some(0x0102_0304));
        assert_eq!(of(&[192, 0, 2, 1]).ipv4(), Some(Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!(of(&[0; 16]).ipv6(), Some(Ipv6Addr::UNSPECIFIED));
        assert_eq!(
            (of(&[1, 2, 3]).u32(), of(&[1; 5]).ipv4(), of(&[0; 4]).ipv6()),
            (None, None, None)
        );
        assert_eq!((of("ä".as_bytes()).text(), of(&[0xff]).text()), (Some("ä"), None));
    }

    #[test]
    fn debug_output_holds_no_value() {
        let attribute = Attribute { kind: AttributeType::USER_PASSWORD, value: b"hunter2" };
        assert_eq!(format!("{attribute:?}"), "User-Password(7 octets)");
    }

    #[test]
    fn a_walk_ends_at_the_first_malformed_attribute() {
        let walk = |octets| Walk(octets).map(|item| item.map(|a| a.value)).collect::<Vec<_>>();
        assert_eq!(walk(&[]), []);
        assert_eq!(walk(&[1, 2, 2, 3, 9]), [Ok(&[][..]), Ok(&[9][..])]);
        assert_eq!(walk(&[1, 1, 2, 3, 9]), [Err(Malformed::TooShort)]);
        assert_eq!(walk(&[1, 0]), [Err(Malformed::TooShort)]);
        assert_eq!(walk(&[1, 3, 7, 2]), [Ok(&[7][..]), Err(Malformed::Overrun)]);
        assert_eq!(walk(&[1, 4, 7]), [Err(Malformed::Overrun)]);
    }
}

//! Vendor-Specific attributes, RFC 2865 section 5.26: the one place where vendors add their own.
//!
//! Splits a value into the vendor and, where the vendor keeps to the format that the RFC suggests,
//! into sub-attributes. It knows no vendor's meanings.

use super::attribute::{Attribute, AttributeType, Walk};
use super::packet::Packet;

/// Octets in front of the vendor's own data.
pub const VENDOR_ID_BYTES: usize = 4;
/// Longest value of a single sub-attribute, in octets: what 253 leave behind the vendor's number
/// and the sub-attribute's own header.
pub const VENDOR_VALUE_BYTES_MAX: usize = 247;
/// Microsoft, RFC 2548.
pub const VENDOR_MICROSOFT: u32 = 311;

/// The value of one Vendor-Specific attribute.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VendorSpecific<'a> {
    /// The vendor's SMI private enterprise number.
    pub vendor: u32,
    /// Everything behind it, in the vendor's own format; at most 249 octets in a packet.
    pub data: &'a [u8],
}

impl<'a> VendorSpecific<'a> {
    /// Splits the value of an attribute; `None` when it is too short to name a vendor.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (vendor, data) = value.split_first_chunk::<VENDOR_ID_BYTES>()?;
        Some(Self { vendor: u32::from_be_bytes(*vendor), data })
    }

    /// The sub-attributes, each with the vendor's own type, 0 to 247 octets of value; `None` when
    /// the data do not consist of them from end to end (the format is only a suggestion).
    pub fn sub_attributes(self) -> Option<impl Iterator<Item = SubAttribute<'a>> + Clone> {
        Walk(self.data)
            .all(|item| item.is_ok())
            .then(|| Walk(self.data).flatten().map(SubAttribute::from))
    }

    /// The first sub-attribute of type `kind`.
    pub fn first(self, kind: u8) -> Option<&'a [u8]> {
        self.sub_attributes()?.find(|sub| sub.kind == kind).map(|sub| sub.value)
    }
}

/// Microsoft's sub-attributes in a packet, in order.
pub fn microsoft<'a>(packet: &Packet<'a>) -> impl Iterator<Item = SubAttribute<'a>> {
    let values = packet.all(AttributeType::VENDOR_SPECIFIC).filter_map(VendorSpecific::parse);
    let values = values.filter(|specific| specific.vendor == VENDOR_MICROSOFT);
    values.filter_map(VendorSpecific::sub_attributes).flatten()
}

impl std::fmt::Debug for VendorSpecific<'_> {
    /// Vendor and length only: the data may be a key.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "vendor {} ({} octets)", self.vendor, self.data.len())
    }
}

/// One sub-attribute in the format that RFC 2865 section 5.26 suggests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SubAttribute<'a> {
    /// The vendor's type.
    pub kind: u8,
    /// The value.
    pub value: &'a [u8],
}

impl<'a> From<Attribute<'a>> for SubAttribute<'a> {
    fn from(Attribute { kind: AttributeType(kind), value }: Attribute<'a>) -> Self {
        Self { kind, value }
    }
}

impl std::fmt::Debug for SubAttribute<'_> {
    /// Type and length only: the value may be a key.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}({} octets)", self.kind, self.value.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_splits_into_vendor_and_sub_attributes() {
        let value = [0, 0, 1, 0x37, 11, 4, 0xaa, 0xbb, 25, 2, 11, 3, 0xcc];
        let vendor = VendorSpecific::parse(&value).expect("names a vendor");
        assert_eq!(vendor.vendor, VENDOR_MICROSOFT);
        let subs: Vec<_> = vendor.sub_attributes().expect("well formed").collect();
        assert_eq!(subs.iter().map(|sub| sub.kind).collect::<Vec<_>>(), [11, 25, 11]);
        assert_eq!(vendor.first(11), Some(&[0xaa, 0xbb][..]));
        assert_eq!(vendor.first(25), Some(&[][..]));
        assert_eq!(vendor.first(1), None);
    }

    #[test]
    fn data_in_another_format_stay_whole() {
        let vendor = VendorSpecific::parse(&[0, 0, 0, 9, 1, 3, 7, 1]).expect("names a vendor");
        assert!(vendor.sub_attributes().is_none());
        assert_eq!((vendor.first(1), vendor.data), (None, &[1, 3, 7, 1][..]));
    }

    #[test]
    fn a_value_too_short_for_a_vendor_is_none() {
        assert_eq!(VendorSpecific::parse(&[0, 0, 1]), None);
        let empty = VendorSpecific::parse(&[0, 0, 1, 0x37]).expect("names a vendor");
        assert_eq!(empty.sub_attributes().expect("well formed").count(), 0);
    }

    #[test]
    fn debug_output_holds_no_value() {
        let vendor = VendorSpecific { vendor: 311, data: b"\x01\x04ky" };
        let sub = SubAttribute { kind: 1, value: b"ky" };
        assert_eq!(format!("{vendor:?} {sub:?}"), "vendor 311 (4 octets) 1(2 octets)");
    }
}

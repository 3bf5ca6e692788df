//! What an LDAP server sends, looked through before the LDAP library reads it (RFC 4511 section 4).
//!
//! The library takes whatever length a server announces, descends as deep as it nests, and panics where a
//! message is not what it should be. A server, or whoever poses as one on an unprotected connection, must not
//! be able to do that to a node.

use std::str;

/// Longest message, in octets.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// What came is no answer to anything that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It announces too much.
    #[error("the server announces more than {MESSAGE_BYTES_MAX} octets")]
    TooLong,
    /// It is none.
    #[error("the server sends no LDAP message")]
    Malformed,
    /// It takes its leave (RFC 4511 section 4.4.1).
    #[error("the server closes the connection")]
    Notice,
}

/// Universal and application tags that are understood, with the bit for *constructed* where it is due.
mod tag {
    pub(super) const BOOLEAN: u8 = 0x01;
    pub(super) const INTEGER: u8 = 0x02;
    pub(super) const OCTET_STRING: u8 = 0x04;
    pub(super) const ENUMERATED: u8 = 0x0a;
    pub(super) const SEQUENCE: u8 = 0x30;
    pub(super) const SET: u8 = 0x31;
    pub(super) const BIND_RESPONSE: u8 = 0x61;
    pub(super) const SEARCH_ENTRY: u8 = 0x64;
    pub(super) const SEARCH_DONE: u8 = 0x65;
    pub(super) const SEARCH_REFERENCE: u8 = 0x73;
    pub(super) const EXTENDED_RESPONSE: u8 = 0x78;
    pub(super) const CONTROLS: u8 = 0xa0;
    pub(super) const REFERRAL: u8 = 0xa3;
    pub(super) const SASL_CREDENTIALS: u8 = 0x87;
    pub(super) const RESPONSE_NAME: u8 = 0x8a;
    pub(super) const RESPONSE_VALUE: u8 = 0x8b;
}

/// How many octets the message has that begins with `octets`; `None` when that cannot be told yet, or they
/// are not all there.
///
/// # Errors
/// When it is no message, or too long.
pub fn length(octets: &[u8]) -> Result<Option<usize>, MessageError> {
    let [first, rest @ ..] = octets else { return Ok(None) };
    if *first != tag::SEQUENCE {
        return Err(MessageError::Malformed);
    }
    let (header, content) = match announced(rest) {
        Announced::Length { octets, content } => (1 + octets, content),
        Announced::Incomplete => return Ok(None),
        Announced::Malformed => return Err(MessageError::Malformed),
    };
    let all = header.saturating_add(content);
    if all > MESSAGE_BYTES_MAX {
        return Err(MessageError::TooLong);
    }
    Ok((octets.len() >= all).then_some(all))
}

/// Checks that `message` is one of those that answer a bind, a search or an extended request.
///
/// # Errors
/// When it is not.
pub fn check(message: &[u8]) -> Result<(), MessageError> {
    let mut outer = Reader(message);
    let mut body = outer.inside(tag::SEQUENCE).ok_or(MessageError::Malformed)?;
    let id = body.primitive(tag::INTEGER, 1..=4).ok_or(MessageError::Malformed)?;
    // Nobody has asked for it: the server wants to end, or says what nobody understands.
    if id.iter().all(|octet| *octet == 0) {
        return Err(MessageError::Notice);
    }
    let is_well =
        outer.is_empty() && operation(&mut body).is_some() && controls(&mut body).is_some();
    if is_well && body.is_empty() { Ok(()) } else { Err(MessageError::Malformed) }
}

/// Whether a message that was checked says that an extended request has succeeded.
pub(super) fn is_extended_success(message: &[u8]) -> bool {
    let code = || {
        let mut body = Reader(message).inside(tag::SEQUENCE)?;
        body.take(tag::INTEGER)?;
        body.inside(tag::EXTENDED_RESPONSE)?.take(tag::ENUMERATED)
    };
    code().is_some_and(|code| code.iter().all(|octet| *octet == 0))
}

fn operation(body: &mut Reader<'_>) -> Option<()> {
    match body.peek()? {
        tag::SEARCH_ENTRY => {
            let mut entry = body.inside(tag::SEARCH_ENTRY)?;
            entry.text(tag::OCTET_STRING)?;
            entry.inside(tag::SEQUENCE)?.each(|attributes| {
                let mut attribute = attributes.inside(tag::SEQUENCE)?;
                attribute.text(tag::OCTET_STRING)?;
                attribute.inside(tag::SET)?.each(|values| values.octets().map(drop))?;
                attribute.end()
            })?;
            entry.end()
        }
        tag::SEARCH_REFERENCE => {
            body.inside(tag::SEARCH_REFERENCE)?.each(|urls| urls.text(tag::OCTET_STRING))
        }
        result @ (tag::BIND_RESPONSE | tag::SEARCH_DONE | tag::EXTENDED_RESPONSE) => {
            let mut result = body.inside(result)?;
            result.primitive(tag::ENUMERATED, 1..=4)?;
            // The name that was found so far, and what there is to say.
            result.text(tag::OCTET_STRING)?;
            result.text(tag::OCTET_STRING)?;
            result.each(|rest| match rest.peek()? {
                tag::REFERRAL => {
                    rest.inside(tag::REFERRAL)?.each(|urls| urls.text(tag::OCTET_STRING))
                }
                tag::RESPONSE_NAME => rest.text(tag::RESPONSE_NAME),
                other @ (tag::SASL_CREDENTIALS | tag::RESPONSE_VALUE) => {
                    rest.primitive(other, 0..=MESSAGE_BYTES_MAX).map(drop)
                }
                _ => None,
            })
        }
        _ => None,
    }
}

fn controls(body: &mut Reader<'_>) -> Option<()> {
    if body.is_empty() {
        return Some(());
    }
    body.inside(tag::CONTROLS)?.each(|controls| {
        let mut control = controls.inside(tag::SEQUENCE)?;
        control.text(tag::OCTET_STRING)?;
        if control.peek() == Some(tag::BOOLEAN) {
            control.primitive(tag::BOOLEAN, 1..=1)?;
        }
        if !control.is_empty() {
            control.octets()?;
        }
        control.end()
    })
}

/// What stands where a length should.
enum Announced {
    /// So many octets announce so much content.
    Length { octets: usize, content: usize },
    /// It goes on beyond what is there.
    Incomplete,
    /// No definite length of up to four octets (RFC 4511 section 5.1).
    Malformed,
}

fn announced(octets: &[u8]) -> Announced {
    let Some((&first, rest)) = octets.split_first() else { return Announced::Incomplete };
    let count = usize::from(first & 0x7f);
    match (first, count) {
        (0..=0x7f, _) => Announced::Length { octets: 1, content: usize::from(first) },
        (_, 1..=4) => match rest.get(..count) {
            None => Announced::Incomplete,
            Some(digits) => Announced::Length {
                octets: 1 + count,
                content: digits.iter().fold(0, |all, digit| all << 8 | usize::from(*digit)),
            },
        },
        _ => Announced::Malformed,
    }
}

/// Reads one element after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next element's tag.
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The content of the next element, which has this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (&first, rest) = self.0.split_first()?;
        let Announced::Length { octets, content } = announced(rest) else { return None };
        let (content, rest) = rest.get(octets..)?.split_at_checked(content)?;
        self.0 = rest;
        (first == tag).then_some(content)
    }

    fn inside(&mut self, tag: u8) -> Option<Self> {
        self.take(tag).map(Self)
    }

    fn primitive(&mut self, tag: u8, length: std::ops::RangeInclusive<usize>) -> Option<&'a [u8]> {
        self.take(tag).filter(|content| length.contains(&content.len()))
    }

    fn octets(&mut self) -> Option<&'a [u8]> {
        self.take(tag::OCTET_STRING)
    }

    /// An LDAPString (RFC 4511 section 4.1.2).
    fn text(&mut self, tag: u8) -> Option<()> {
        str::from_utf8(self.take(tag)?).ok().map(drop)
    }

    /// Reads to the end.
    fn each(mut self, mut read: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        while !self.is_empty() {
            read(&mut self)?;
        }
        Some(())
    }

    fn end(self) -> Option<()> {
        self.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A successful answer to a bind, as OpenLDAP sends it.
    const BOUND: [u8; 14] = [0x30, 12, 2, 1, 1, 0x61, 7, 10, 1, 0, 4, 0, 4, 0];

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).expect("short").to_be_bytes();
        [&[tag, 0x84][..], &length, content].concat()
    }

    #[test]
    fn a_message_is_taken_when_it_is_whole() {
        for end in 0..BOUND.len() {
            assert_eq!(length(&BOUND[..end]), Ok(None));
        }
        assert_eq!(length(&BOUND), Ok(Some(14)));
        assert_eq!(length(&[&BOUND[..], &[0x30]].concat()), Ok(Some(14)));
        assert_eq!(check(&BOUND), Ok(()));
    }

    #[test]
    fn an_entry_with_values_and_a_result_with_all_that_may_follow_are_messages() {
        let text = |text: &[u8]| element(4, text);
        let values = element(0x31, &[text(&[0xff, 0]), text(b"")].concat());
        let attribute = element(0x30, &[text(b"objectGUID"), values].concat());
        let entry = element(0x64, &[text(b"cn=a"), element(0x30, &attribute)].concat());
        let id = [2, 1, 7];
        assert_eq!(check(&element(0x30, &[&id[..], &entry].concat())), Ok(()));
        let control =
            element(0x30, &[text(b"1.2.3"), vec![1, 1, 0xff], text(b"\x30\x00")].concat());
        let referral = element(0xa3, &text(b"ldap://b"));
        let result =
            [&[10, 1, 49][..], &text(b""), &text(b"no"), &referral, &[0x8a, 1, b'1']].concat();
        let result = [&id[..], &element(0x78, &result), &element(0xa0, &control)].concat();
        assert_eq!(check(&element(0x30, &result)), Ok(()));
        let reference = [&id[..], &element(0x73, &text(b"ldap://b"))].concat();
        assert_eq!(check(&element(0x30, &reference)), Ok(()));
    }

    #[test]
    fn what_the_library_would_stumble_over_is_refused() {
        // Announces half a gigabyte; is nested; has no definite length.
        assert_eq!(length(&[0x30, 0x84, 0x20, 0, 0, 0]), Err(MessageError::TooLong));
        assert_eq!(length(&[0x30, 0x80, 0, 0]), Err(MessageError::Malformed));
        assert_eq!(length(&[0x30, 0x85, 0, 0, 0, 0, 1]), Err(MessageError::Malformed));
        assert_eq!(length(b"HTTP/1.1"), Err(MessageError::Malformed));
        let mut nested = vec![0x30, 0];
        for _ in 0..1_000 {
            nested = element(0x30, &nested);
        }
        assert_eq!(check(&nested), Err(MessageError::Malformed));
        // A text that is none; a request; nothing but an id; something behind the end.
        let mut bound = BOUND;
        bound[5] = 0x60;
        assert_eq!(check(&bound), Err(MessageError::Malformed));
        assert_eq!(check(&[0x30, 3, 2, 1, 1]), Err(MessageError::Malformed));
        let garbled = [0x30, 13, 2, 1, 1, 0x61, 8, 10, 1, 0, 4, 1, 0xff, 4, 0];
        assert_eq!(check(&garbled), Err(MessageError::Malformed));
        assert_eq!(check(&[&BOUND[..], &[0]].concat()), Err(MessageError::Malformed));
        let mut notice = BOUND;
        notice[4] = 0;
        assert_eq!(check(&notice), Err(MessageError::Notice));
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(octets in any::<Vec<u8>>()) {
            let _ = length(&octets);
            let _ = check(&octets);
        }

        #[test]
        fn nor_do_changes_of_a_message(at in 0..14_usize, octet in any::<u8>()) {
            let mut bound = BOUND;
            bound[at] = octet;
            if let Ok(Some(length)) = length(&bound) {
                let _ = check(&bound[..length]);
            }
        }
    }
}

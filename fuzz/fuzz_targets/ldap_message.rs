//! What an LDAP server sends: messages are told apart from everything else, and none is longer than allowed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use watchword::directory::message::{MESSAGE_BYTES_MAX, check, length};

fuzz_target!(|octets: &[u8]| {
    let _ = check(octets);
    let mut rest = octets;
    while let Ok(Some(length)) = length(rest) {
        assert!((2..=MESSAGE_BYTES_MAX.min(rest.len())).contains(&length));
        let (message, behind) = rest.split_at(length);
        // Whatever follows it, a message stays what it is.
        let is_well = check(message);
        assert_eq!(is_well, check(&[message, &[]].concat()));
        rest = behind;
    }
});

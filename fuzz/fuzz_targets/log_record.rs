//! What a log or a snapshot may hold: any bytes decode or are refused, and what decodes is stable.
//!
//! The bytes that come back need not be the ones that went in (an integer has more than one
//! encoding), but from then on nothing may change. An entry that decodes is also applied, because
//! `State::apply` is total.

#![no_main]

use libfuzzer_sys::fuzz_target;
use watchword_core::limits::ENTRY_BYTES_MAX;
use watchword_core::{Entry, State, codec};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(entry) = codec::decode::<Entry, ENTRY_BYTES_MAX>(bytes) {
        let again = codec::encode(&entry).expect("what decoded encodes");
        // Another bound: the encoding that comes out may be longer than the one that went in.
        let same = codec::decode::<Entry, { 2 * ENTRY_BYTES_MAX }>(&again).expect("decodes");
        assert_eq!(same, entry);
        let mut state = State::default();
        state.apply(1, &entry);
        check_state(&state);
    }
    if let Ok(state) = State::decode(bytes) {
        check_state(&state);
    }
});

fn check_state(state: &State) {
    let bytes = state.encode().expect("a state encodes");
    let same = State::decode(&bytes).expect("what was encoded decodes");
    assert_eq!(same.encode().expect("a state encodes"), bytes);
}

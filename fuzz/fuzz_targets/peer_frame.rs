//! What a peer may send to the port of the members, or answer: any bytes are read as a message of
//! each kind or refused, and what was read is stable.
//!
//! That reading takes no more memory than it may is what `-malloc_limit_mb` looks after.

#![no_main]

use libfuzzer_sys::fuzz_target;
use watchword_cluster::read_as_every_message;

fuzz_target!(|bytes: &[u8]| {
    for (kind, again) in read_as_every_message(bytes) {
        // The bytes may differ (an integer has more than one encoding), but no longer change.
        assert!(read_as_every_message(&again).contains(&(kind, again)), "{kind}");
    }
});

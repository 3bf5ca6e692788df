//! A CSV file of users, as an administrator may hand it in: any bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use watchword::admin::read_rows;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(rows) = read_rows(bytes) {
        let mut last = 0;
        for (line, _) in rows {
            assert!(line >= last, "line numbers never run backwards");
            last = line;
        }
    }
});

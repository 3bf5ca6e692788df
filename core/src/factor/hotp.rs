//! HOTP, RFC 4226: passcodes that stand for a counter.

use super::{Generator, Passcode};

/// The first counter in `next .. next + window` whose passcode is `passcode` (look-ahead,
/// RFC 4226 section 7.4).
pub fn find(generator: &Generator, passcode: &Passcode, next: u64, window: u64) -> Option<u64> {
    (next..next.saturating_add(window)).find(|&counter| generator.matches(passcode, counter))
}

/// True when `passcode` was right for one of the `window` counters before `next`: it has been used or
/// skipped, which deserves another word than "wrong".
pub fn is_used(generator: &Generator, passcode: &Passcode, next: u64, window: u64) -> bool {
    (next.saturating_sub(window)..next).any(|counter| generator.matches(passcode, counter))
}

/// The counter of `first` in `next .. next + window` where `second` is the passcode right after it
/// (resynchronisation, RFC 4226 section 7.4).
pub fn resynchronise(
    generator: &Generator,
    first: &Passcode,
    second: &Passcode,
    next: u64,
    window: u64,
) -> Option<u64> {
    (next..next.saturating_add(window)).find(|&counter| {
        generator.matches(first, counter) && generator.matches(second, counter.saturating_add(1))
    })
}

#[cfg(test)]
mod tests {
    use super::super::Algorithm;
    use super::*;

    /// RFC 4226 appendix D.
    const KEY: &[u8] = b"12345678901234567890";
    const VALUES: [&str; 10] = [
        "755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871",
        "520489",
    ];

    fn generator() -> Generator {
        Generator::new(KEY, Algorithm::Sha1, 6)
    }

    fn passcode(text: &str) -> Passcode {
        Passcode::parse(text).expect("digits")
    }

    #[test]
    fn rfc_4226_appendix_d() {
        for (counter, value) in (0..).zip(VALUES) {
            assert_eq!(generator().passcode(counter), value);
        }
    }

    #[test]
    fn look_ahead_ends_at_the_window() {
        assert_eq!(find(&generator(), &passcode(VALUES[4]), 0, 5), Some(4));
        assert_eq!(find(&generator(), &passcode(VALUES[5]), 0, 5), None);
        assert_eq!(find(&generator(), &passcode(VALUES[4]), 5, 5), None);
    }

    #[test]
    fn a_passcode_behind_the_counter_counts_as_used() {
        assert!(is_used(&generator(), &passcode(VALUES[2]), 3, 10));
        assert!(!is_used(&generator(), &passcode(VALUES[3]), 3, 10));
    }

    #[test]
    fn resynchronisation_needs_two_in_a_row() {
        let find = |one, two| resynchronise(&generator(), &passcode(one), &passcode(two), 2, 100);
        assert_eq!(find(VALUES[6], VALUES[7]), Some(6));
        assert_eq!(find(VALUES[6], VALUES[8]), None);
        assert_eq!(find(VALUES[0], VALUES[1]), None);
    }

    #[test]
    fn the_end_of_the_counter_does_not_overflow() {
        assert_eq!(find(&generator(), &passcode("000000"), u64::MAX, 10), None);
    }
}

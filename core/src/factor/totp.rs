//! TOTP, RFC 6238: passcodes that stand for a time step.

use super::{Generator, Passcode};
use crate::time::Timestamp;

/// The time step of `now`: whole periods since the epoch (RFC 6238 section 4.2, T0 = 0).
/// A period of zero counts as one second.
pub fn step(now: Timestamp, period_seconds: u32) -> u64 {
    now.seconds() / u64::from(period_seconds.max(1))
}

/// The range of steps that are acceptable at `step` for a device that runs `drift` steps ahead
/// (negative: behind), with `window` steps on either side.
pub fn window(step: u64, drift: i32, window: u32) -> std::ops::RangeInclusive<u64> {
    let centre = step.saturating_add_signed(i64::from(drift));
    let window = u64::from(window);
    centre.saturating_sub(window)..=centre.saturating_add(window)
}

/// What a passcode stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// A step after the last accepted one.
    New(u64),
    /// A step that was accepted already, or lies before one that was.
    Used,
}

/// Looks for `passcode` in `steps`, from the middle outwards: most tokens keep good time. Steps up to
/// `last_accepted` are found only as [`Match::Used`].
pub fn find(
    generator: &Generator,
    passcode: &Passcode,
    steps: std::ops::RangeInclusive<u64>,
    last_accepted: Option<u64>,
) -> Option<Match> {
    let middle = steps.start() + steps.end().saturating_sub(*steps.start()) / 2;
    let outwards = (0..=steps.end().saturating_sub(middle))
        .flat_map(|far| [middle.checked_add(far), middle.checked_sub(far).filter(|_| far > 0)])
        .flatten()
        .filter(|step| steps.contains(step));
    let mut used = false;
    for step in outwards.filter(|&step| generator.matches(passcode, step)) {
        if last_accepted.is_none_or(|last| step > last) {
            return Some(Match::New(step));
        }
        used = true;
    }
    used.then_some(Match::Used)
}

/// The step of `first` in `steps` where `second` is the passcode of the step after it.
pub fn resynchronise(
    generator: &Generator,
    first: &Passcode,
    second: &Passcode,
    mut steps: std::ops::RangeInclusive<u64>,
) -> Option<u64> {
    steps.find(|&step| {
        generator.matches(first, step) && generator.matches(second, step.saturating_add(1))
    })
}

#[cfg(test)]
mod tests {
    use super::super::Algorithm;
    use super::*;

    /// RFC 6238 appendix B: seconds, then the values for SHA-1, SHA-256 and SHA-512.
    const VECTORS: [(u64, [&str; 3]); 6] = [
        (59, ["94287082", "46119246", "90693936"]),
        (1_111_111_109, ["07081804", "68084774", "25091201"]),
        (1_111_111_111, ["14050471", "67062674", "99943326"]),
        (1_234_567_890, ["89005924", "91819424", "93441116"]),
        (2_000_000_000, ["69279037", "90698825", "38618901"]),
        (20_000_000_000, ["65353130", "77737706", "47863826"]),
    ];

    #[test]
    fn rfc_6238_appendix_b() {
        let digits = b"1234567890".repeat(7);
        let keys = [
            (Algorithm::Sha1, &digits[..20]),
            (Algorithm::Sha256, &digits[..32]),
            (Algorithm::Sha512, &digits[..64]),
        ];
        for (seconds, values) in VECTORS {
            let step = step(Timestamp(seconds * 1000), 30);
            for ((algorithm, key), value) in keys.into_iter().zip(values) {
                assert_eq!(Generator::new(key, algorithm, 8).passcode(step), value);
            }
        }
    }

    #[test]
    fn an_accepted_step_and_those_before_it_are_used() {
        let generator = Generator::new(b"12345678901234567890", Algorithm::Sha1, 6);
        let at = |step| Passcode::parse(&generator.passcode(step)).expect("digits");
        assert_eq!(find(&generator, &at(100), 99..=101, None), Some(Match::New(100)));
        assert_eq!(find(&generator, &at(100), 99..=101, Some(99)), Some(Match::New(100)));
        assert_eq!(find(&generator, &at(100), 99..=101, Some(100)), Some(Match::Used));
        assert_eq!(find(&generator, &at(100), 99..=101, Some(101)), Some(Match::Used));
        assert_eq!(find(&generator, &at(102), 99..=101, None), None);
    }

    #[test]
    fn every_step_of_the_window_is_looked_at() {
        let generator = Generator::new(b"12345678901234567890", Algorithm::Sha1, 8);
        for steps in [0..=0, 0..=1, 0..=2, 7..=12, 7..=13, u64::MAX - 2..=u64::MAX] {
            for step in steps.clone() {
                let passcode = Passcode::parse(&generator.passcode(step)).expect("digits");
                let found = find(&generator, &passcode, steps.clone(), None);
                assert_eq!(found, Some(Match::New(step)), "{step} in {steps:?}");
            }
        }
    }

    #[test]
    fn the_window_follows_the_drift_and_never_wraps() {
        assert_eq!(window(100, 3, 1), 102..=104);
        assert_eq!(window(100, -3, 0), 97..=97);
        assert_eq!(window(0, -5, 2), 0..=2);
        assert_eq!(window(u64::MAX, 5, 2), u64::MAX - 2..=u64::MAX);
    }

    #[test]
    fn resynchronisation_needs_two_in_a_row() {
        let generator = Generator::new(b"12345678901234567890", Algorithm::Sha256, 6);
        let at = |step| Passcode::parse(&generator.passcode(step)).expect("digits");
        assert_eq!(resynchronise(&generator, &at(7), &at(8), 0..=50), Some(7));
        assert_eq!(resynchronise(&generator, &at(7), &at(9), 0..=50), None);
    }
}

//! Password and passcode in one field: the ways of reading what was typed.

use watchword_core::client::PasscodeInput;
use watchword_core::factor::Passcode;
use zeroize::Zeroizing;

/// One way of reading the typed text.
pub(super) struct Reading {
    pub(super) password: Zeroizing<Vec<u8>>,
    pub(super) passcode: Option<Zeroizing<Vec<u8>>>,
}

impl Reading {
    /// A password alone.
    pub(super) fn password(typed: &[u8]) -> Self {
        Self { password: Zeroizing::new(typed.to_vec()), passcode: None }
    }
}

/// A passcode that may follow the password without anything between.
#[derive(Clone, Copy)]
pub(super) struct Appended {
    /// Where it begins.
    pub(super) at: usize,
    /// Whether it is a passcode of one of the user's devices at this moment.
    pub(super) is_right: bool,
}

/// The ways in which `typed` may be read, the likeliest first. No more than two, because each costs
/// an argon2 comparison.
pub(super) fn readings(
    input: PasscodeInput,
    typed: &Zeroizing<Vec<u8>>,
    appended: Option<Appended>,
) -> Vec<Reading> {
    let whole = || Reading::password(typed);
    let split = |at: usize, skip: usize| {
        let (password, passcode) = typed.split_at_checked(at)?;
        Some(Reading {
            password: Zeroizing::new(password.to_vec()),
            passcode: Some(Zeroizing::new(passcode.get(skip..)?.to_vec())),
        })
    };
    let separated = || {
        let comma = typed.iter().rposition(|&byte| byte == b',')?;
        let digits = std::str::from_utf8(typed.get(comma + 1..)?).ok()?;
        Passcode::parse(digits)?;
        split(comma, 1)
    };
    let appended = appended.and_then(|one| Some((split(one.at, 0)?, one.is_right)));
    match input {
        PasscodeInput::Challenge => vec![whole()],
        PasscodeInput::Separator => vec![separated().unwrap_or_else(whole)],
        PasscodeInput::Appended => vec![appended.map_or_else(whole, |(split, _)| split)],
        PasscodeInput::Auto => match (separated(), appended) {
            (Some(separated), _) => vec![separated, whole()],
            // Digits that are the passcode of this moment are hardly part of the password.
            (None, Some((split, true))) => vec![split, whole()],
            (None, Some((split, false))) => vec![whole(), split],
            (None, None) => vec![whole()],
        },
    }
}

/// Where a passcode of `length` digits begins that ends the typed text and leaves something in front.
pub(super) fn appended(typed: &[u8], length: usize) -> Option<usize> {
    let at = typed.len().checked_sub(length).filter(|&at| at > 0)?;
    typed.get(at..)?.iter().all(u8::is_ascii_digit).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each reading as `password|passcode`.
    fn read(input: PasscodeInput, typed: &str, right: Option<bool>) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let at = appended(typed.as_bytes(), 6);
        let appended = at.zip(right).map(|(at, is_right)| Appended { at, is_right });
        let typed = Zeroizing::new(typed.as_bytes().to_vec());
        let readings = readings(input, &typed, appended).into_iter();
        let shown = readings.map(|one| match one.passcode {
            Some(passcode) => format!("{}|{}", text(&one.password), text(&passcode)),
            None => text(&one.password),
        });
        shown.collect()
    }

    #[test]
    fn each_way_of_typing_is_read_as_the_client_says() {
        use PasscodeInput::{Appended, Auto, Challenge, Separator};
        assert_eq!(read(Challenge, "pw,123456", None), ["pw,123456"]);
        assert_eq!(read(Separator, "p,w,123456", None), ["p,w|123456"]);
        assert_eq!(read(Separator, "p,w", None), ["p,w"]);
        assert_eq!(read(Appended, "pw123456", Some(false)), ["pw|123456"]);
        assert_eq!(read(Appended, "123456", Some(false)), ["123456"]);
        assert_eq!(read(Auto, "pw,123456", Some(true)), ["pw|123456", "pw,123456"]);
        assert_eq!(read(Auto, "pw123456", Some(true)), ["pw|123456", "pw123456"]);
        assert_eq!(read(Auto, "pw123456", Some(false)), ["pw123456", "pw|123456"]);
        assert_eq!(read(Auto, "password", None), ["password"]);
    }
}

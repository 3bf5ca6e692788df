//! What the result of a bind says about a user.

use ldap3::LdapResult;
use watchword_core::attempt::Reason;

use crate::directory::Answer;

/// Result codes of RFC 4511 appendix A.
mod code {
    pub(super) const SUCCESS: u32 = 0;
    pub(super) const CONSTRAINT_VIOLATION: u32 = 19;
    pub(super) const NO_SUCH_OBJECT: u32 = 32;
    pub(super) const INVALID_DN_SYNTAX: u32 = 34;
    pub(super) const INAPPROPRIATE_AUTHENTICATION: u32 = 48;
    pub(super) const INVALID_CREDENTIALS: u32 = 49;
}

/// What the server says of the user; `None` when it says nothing of him.
pub(super) fn answer(result: &LdapResult) -> Option<Answer> {
    match result.rc {
        code::SUCCESS => Some(Answer::Right),
        code::INVALID_CREDENTIALS => Some(windows_error(&result.text).map_or(Answer::Wrong, told)),
        // Nothing to compare with; nobody of that name; no name at all.
        code::INAPPROPRIATE_AUTHENTICATION => Some(Answer::Wrong),
        code::NO_SUCH_OBJECT | code::INVALID_DN_SYNTAX => Some(Answer::Unknown),
        // The password policy of many servers (draft-behera-ldap-password-policy section 8.1.2).
        code::CONSTRAINT_VIOLATION => Some(Answer::Refused(Reason::DirectoryLocked)),
        _ => None,
    }
}

/// The Windows error in an Active Directory server's text: `… data 52e, v4563`.
fn windows_error(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("data ")?;
    let digits = rest.split(|c: char| !c.is_ascii_hexdigit()).next()?;
    u32::from_str_radix(digits, 16).ok()
}

/// Windows' names for these are in winerror.h.
fn told(error: u32) -> Answer {
    match error {
        // ERROR_NO_SUCH_USER
        0x525 => Answer::Unknown,
        // ERROR_INVALID_LOGON_HOURS, ERROR_INVALID_WORKSTATION
        0x530 | 0x531 => Answer::Refused(Reason::DirectoryRestricted),
        // ERROR_PASSWORD_EXPIRED
        0x532 => Answer::Refused(Reason::PasswordExpired),
        // ERROR_ACCOUNT_DISABLED
        0x533 => Answer::Refused(Reason::DirectoryDisabled),
        // ERROR_ACCOUNT_EXPIRED
        0x701 => Answer::Refused(Reason::DirectoryExpired),
        // ERROR_PASSWORD_MUST_CHANGE
        0x773 => Answer::Refused(Reason::PasswordMustChange),
        // ERROR_ACCOUNT_LOCKED_OUT
        0x775 => Answer::Refused(Reason::DirectoryLocked),
        // ERROR_LOGON_FAILURE (52e), and whatever else is no success.
        _ => Answer::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn active_directory_tells_why() {
        let said = |rc, text: &str| {
            let (matched, text) = (String::new(), text.to_owned());
            answer(&LdapResult { rc, matched, text, refs: Vec::new(), ctrls: Vec::new() })
        };
        let windows = |data: &str| {
            said(
                49,
                &format!(
                    "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data {data}, v1db1"
                ),
            )
        };
        assert_eq!(said(0, ""), Some(Answer::Right));
        assert_eq!(said(49, ""), Some(Answer::Wrong));
        assert_eq!(windows("52e"), Some(Answer::Wrong));
        assert_eq!(windows("525"), Some(Answer::Unknown));
        assert_eq!(windows("533"), Some(Answer::Refused(Reason::DirectoryDisabled)));
        assert_eq!(windows("773"), Some(Answer::Refused(Reason::PasswordMustChange)));
        assert_eq!(windows("775"), Some(Answer::Refused(Reason::DirectoryLocked)));
        assert_eq!(said(52, "busy"), None, "nothing about the user");
    }
}

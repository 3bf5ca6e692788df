//! Why a packet gets no answer: the label of the metric, and a word in the log.

use crate::radius::packet::PacketError;
use crate::radius::password::PasswordError;

/// Why a packet gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropCause {
    /// It is no RADIUS packet.
    Malformed(PacketError),
    /// No client sends from this address.
    UnknownClient,
    /// Its Message-Authenticator was not made with the client's secret.
    BadMessageAuthenticator,
    /// It has no Message-Authenticator, and must have one.
    NoMessageAuthenticator,
    /// It came through a proxy without a Message-Authenticator.
    ProxyStateUnsigned,
    /// It has been here before: the RADIUS server that was asked has sent it back.
    GoesRound,
    /// Its code is none that is served here.
    UnsupportedCode,
    /// No more requests may be under way, or there is no room to remember them.
    Overload,
    /// This node cannot commit, and was asked whether it can.
    NotReady,
    /// It has no User-Name, or one that is no text.
    NoUserName,
    /// It has no User-Password, and nothing that could stand for one.
    NoUserPassword,
    /// Its User-Password cannot be revealed.
    BadUserPassword(PasswordError),
    /// Its User-Password was hidden under another secret.
    SecretMismatch,
    /// The login could not be decided.
    Undecided,
    /// The reply would not fit into a packet.
    ReplyTooLong,
}

impl DropCause {
    /// A stable name for metrics and logs; never changed once released.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed(error) => error.name(),
            Self::UnknownClient => "unknown_client",
            Self::BadMessageAuthenticator => "bad_message_authenticator",
            Self::NoMessageAuthenticator => "no_message_authenticator",
            Self::ProxyStateUnsigned => "proxy_state_unsigned",
            Self::GoesRound => "goes_round",
            Self::UnsupportedCode => "unsupported_code",
            Self::Overload => "overload",
            Self::NotReady => "not_ready",
            Self::NoUserName => "no_user_name",
            Self::NoUserPassword => "no_user_password",
            Self::BadUserPassword(error) => error.name(),
            Self::SecretMismatch => "secret_mismatch",
            Self::Undecided => "undecided",
            Self::ReplyTooLong => "reply_too_long",
        }
    }
}

impl From<PacketError> for DropCause {
    fn from(error: PacketError) -> Self {
        Self::Malformed(error)
    }
}

impl From<PasswordError> for DropCause {
    fn from(error: PasswordError) -> Self {
        Self::BadUserPassword(error)
    }
}

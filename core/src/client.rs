//! Whoever asks on a user's behalf.

use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::id::DirectoryId;
use crate::sealed::Sealed;

/// One client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Unique name, for people.
    pub name: Arc<str>,
    /// Log index of the last change: proof that a decision relies on this version.
    pub revision: u64,
    /// How users are authenticated for it.
    pub policy: ClientPolicy,
    /// The protocol it speaks.
    pub kind: ClientKind,
}

/// How the users of one client are authenticated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientPolicy {
    /// Who checks the password.
    pub first_factor: FirstFactor,
    /// True: an unknown user is refused. False: the first factor alone lets an unknown user pass.
    pub require_user_match: bool,
    /// How password and passcode share one field.
    pub passcode_input: PasscodeInput,
}

/// Who checks the first factor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FirstFactor {
    /// The client has done it; only the passcode is sent.
    None,
    /// The first of these that knows the user.
    Sources(Arc<[Source]>),
}

/// Who may know a user's password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// Watchword itself.
    Local,
    /// A directory.
    Directory(DirectoryId),
}

impl FirstFactor {
    /// Watchword's own passwords alone.
    pub fn local() -> Self {
        Self::Sources([Source::Local].into())
    }

    /// Who is asked, in order; nobody when the client has done it.
    pub fn sources(&self) -> &[Source] {
        match self {
            Self::None => &[],
            Self::Sources(sources) => sources,
        }
    }
}

impl Source {
    /// Words that stand for no directory where sources are named.
    pub const RESERVED: [&str; 2] = ["none", "local"];
}

/// How password and passcode arrive when Watchword checks both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PasscodeInput {
    /// Whichever of the following the text looks like.
    Auto,
    /// The password alone; the passcode is asked for by a challenge.
    Challenge,
    /// `password,passcode`.
    Separator,
    /// The passcode right behind the password; its length is known from the user's devices.
    Appended,
}

/// The protocol a client speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientKind {
    /// RADIUS over UDP.
    Radius(RadiusClient),
}

/// The RADIUS side of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RadiusClient {
    /// Where it sends from. Among all clients the most specific range wins.
    pub addresses: Arc<[IpNet]>,
    /// The shared secret, sealed for the client's id.
    pub secret: Sealed,
    /// Whether a request without Message-Authenticator is dropped (CVE-2024-3596).
    pub require_message_authenticator: Requirement,
    /// Whether a request with Proxy-State but without Message-Authenticator is dropped.
    pub limit_proxy_state: Requirement,
    /// What accepted logins have taught us about the client; `auto` goes by it.
    pub habits: RadiusHabits,
}

/// A demand on each request of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Requirement {
    /// Always.
    Yes,
    /// Never.
    No,
    /// As soon as an accepted login has shown that the client can meet it; from then on for ever.
    Auto,
}

impl Requirement {
    /// Whether the demand is in force, given whether the client has shown that it can meet it.
    pub fn in_force(self, shown: bool) -> bool {
        match self {
            Self::Yes => true,
            Self::No => false,
            Self::Auto => shown,
        }
    }
}

/// What a RADIUS client has been seen to do in a login that was accepted (which proves that the
/// request came from somebody who knows the shared secret).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RadiusHabits {
    /// It signs requests with Message-Authenticator.
    pub signs: bool,
    /// It sends requests without Proxy-State, so it is no proxy.
    pub is_no_proxy: bool,
}

impl Client {
    /// The RADIUS side, for a client that has one.
    pub fn radius(&self) -> Option<&RadiusClient> {
        match &self.kind {
            ClientKind::Radius(radius) => Some(radius),
        }
    }
}

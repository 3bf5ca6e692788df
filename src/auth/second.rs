//! The second factor: which device a passcode belongs to, and the challenge that asks for one.
//!
//! Everything here reads an old state and decides nothing: a match is a claim that `apply` checks.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use watchword_core::challenge::ChallengeRef;
use watchword_core::codec;
use watchword_core::command::FirstProof;
use watchword_core::device::{Device, Oath};
use watchword_core::factor::{Generator, Passcode, hotp, totp};
use watchword_core::id::{ChallengeId, ClientId, ClusterId, DeviceId, RequestId, UserId};
use watchword_core::name::UserName;
use watchword_core::settings::Settings;
use watchword_core::time::Timestamp;
use zeroize::Zeroizing;

use crate::directory::Place;
use crate::keys::{KeyError, Keyring, Owner};
use crate::random;

/// Octets that tell one name from another, where nobody gains by two that have the same.
const NAME_DIGEST_BYTES: usize = 8;
const TOKEN_BYTES_MAX: usize = 512;

/// What a passcode was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PasscodeMatch {
    /// The right one for this device at this time step or counter.
    Fresh {
        /// The device.
        device: DeviceId,
        /// Time step or counter.
        moving_factor: u64,
    },
    /// Once right, and used or passed over.
    Used,
    /// Of none of the user's devices.
    Wrong,
}

/// Looks for `passcode` on all of a user's `devices` at `now`. A fresh match on any device wins over a
/// used one on another.
pub(super) fn match_passcode(
    settings: &Settings,
    keys: &Keyring,
    devices: &[(DeviceId, Arc<Device>)],
    passcode: &Passcode,
    now: Timestamp,
) -> Result<PasscodeMatch, KeyError> {
    let mut best = PasscodeMatch::Wrong;
    for &(id, ref device) in devices {
        let generator = generator(keys, id, device)?;
        match match_device(settings, id, &device.oath, &generator, passcode, now) {
            PasscodeMatch::Wrong => {}
            PasscodeMatch::Used => best = PasscodeMatch::Used,
            fresh @ PasscodeMatch::Fresh { .. } => return Ok(fresh),
        }
    }
    Ok(best)
}

fn match_device(
    settings: &Settings,
    device: DeviceId,
    oath: &Oath,
    generator: &Generator,
    passcode: &Passcode,
    now: Timestamp,
) -> PasscodeMatch {
    match oath {
        Oath::Totp(token) => {
            let window = u32::try_from(settings.totp_window_steps()).unwrap_or(0);
            let current = totp::step(now, token.period_seconds);
            let steps = totp::window(current, token.drift, window);
            match totp::find(generator, passcode, steps, token.last_step) {
                Some(totp::Match::New(step)) => {
                    PasscodeMatch::Fresh { device, moving_factor: step }
                }
                Some(totp::Match::Used) => PasscodeMatch::Used,
                None => PasscodeMatch::Wrong,
            }
        }
        Oath::Hotp(token) => {
            let window = settings.hotp_look_ahead();
            match hotp::find(generator, passcode, token.next_counter, window) {
                Some(counter) => PasscodeMatch::Fresh { device, moving_factor: counter },
                None if hotp::is_used(generator, passcode, token.next_counter, window) => {
                    PasscodeMatch::Used
                }
                None => PasscodeMatch::Wrong,
            }
        }
    }
}

/// The generator of a device's passcodes.
pub(crate) fn generator(
    keys: &Keyring,
    id: DeviceId,
    device: &Device,
) -> Result<Generator, KeyError> {
    let key = keys.open(Owner::DeviceKey(id), &device.key)?;
    Ok(Generator::new(&key, device.oath.algorithm(), device.oath.digits()))
}

/// What a token says, sealed for the client that it was issued to. It carries all that another node needs to go on, so
/// issuing one writes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Token {
    /// The passcode was asked for.
    Challenge(ChallengeToken),
    /// A directory has asked something.
    Asked(AskedToken),
}

/// A passcode was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChallengeToken {
    /// The cluster that has issued it: one that is restored from a backup has the same key.
    pub(super) cluster: ClusterId,
    /// Which challenge, and until when.
    pub(super) challenge: ChallengeRef,
    /// Whose login it is.
    pub(super) user: UserId,
    /// How the first factor was shown.
    pub(super) first: FirstProof,
    /// The request whose reply is held until the answer; see [`watchword_core::reply`].
    pub(super) reply: Option<RequestId>,
}

/// A directory has asked something. RADIUS State must hold it, along with what the directory itself puts there, so it
/// says little.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AskedToken {
    /// The revision of the directory: no other has it.
    pub(super) directory: u64,
    /// Whose login it is.
    user: [u8; NAME_DIGEST_BYTES],
    /// Where the directory goes on.
    pub(super) place: Place,
}

impl ChallengeToken {
    /// A new challenge for `user`.
    pub(super) fn new(
        cluster: ClusterId,
        user: UserId,
        first: FirstProof,
        expires: Timestamp,
    ) -> Result<Self, KeyError> {
        let id = ChallengeId(random::bytes()?);
        let challenge = ChallengeRef { id, expires };
        Ok(Self { cluster, challenge, user, first, reply: None })
    }

    /// Whose login it is.
    pub(super) fn user(&self) -> UserId {
        self.user
    }
}

impl AskedToken {
    /// What the directory of this revision has asked `user`.
    pub(super) fn new(directory: u64, user: &UserName, place: Place) -> Self {
        Self { directory, user: name_digest(user), place }
    }

    /// Whether it was `user` who was asked.
    pub(super) fn is_of(&self, user: &UserName) -> bool {
        self.user == name_digest(user)
    }
}

fn name_digest(user: &UserName) -> [u8; NAME_DIGEST_BYTES] {
    let digest = Sha256::digest(user.as_str());
    std::array::from_fn(|at| digest.get(at).copied().unwrap_or_default())
}

impl Token {
    /// The token as bytes: about 110, where RADIUS State carries 253 (RFC 2865 section 5.24).
    pub(super) fn seal(&self, keys: &Keyring, client: ClientId) -> Result<Vec<u8>, KeyError> {
        let bytes = codec::encode(self).map(Zeroizing::new).map_err(|_| KeyError::Seal)?;
        Ok(keys.seal(Owner::Challenge(client), &bytes)?.as_bytes().to_vec())
    }

    /// The token in `bytes`, if it was issued to `client` by a node of this cluster.
    pub(super) fn open(keys: &Keyring, client: ClientId, bytes: &[u8]) -> Option<Self> {
        let clear = keys.open_bytes(Owner::Challenge(client), bytes).ok()?;
        codec::decode::<_, TOKEN_BYTES_MAX>(&clear).ok()
    }
}

//! Devices: enrol, list, revoke, resynchronise.

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use watchword_core::Command;
use watchword_core::command::{NewDevice, NewOath};
use watchword_core::device::{Device, Oath};
use watchword_core::factor::{
    Algorithm, DIGITS_MAX, DIGITS_MIN, KEY_BYTES_MAX, KEY_BYTES_MIN, Passcode, hotp, totp,
};
use watchword_core::id::DeviceId;
use watchword_core::state::State;
use watchword_core::user::User;
use zeroize::Zeroizing;

use super::{Admin, AdminError, find_user, rfc3339};
use crate::keys::Owner;
use crate::{auth, clock, random};

/// What kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// RFC 6238.
    Totp,
    /// RFC 4226.
    Hotp,
}

/// A device to enrol.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceSpec {
    /// What kind.
    pub kind: DeviceKind,
    /// A name for people.
    #[serde(default)]
    pub label: String,
    /// The shared key in base32; absent: a new one is made.
    #[serde(default)]
    pub key: Option<String>,
    /// Hash function; absent: SHA-1, which every authenticator app knows.
    #[serde(default = "DeviceSpec::algorithm")]
    pub algorithm: Algorithm,
    /// Digits of a passcode.
    #[serde(default = "DeviceSpec::digits")]
    pub digits: u8,
    /// Seconds of a time step (TOTP).
    #[serde(default = "DeviceSpec::period_seconds")]
    pub period_seconds: u32,
    /// First counter to accept (HOTP).
    #[serde(default)]
    pub counter: u64,
}

impl DeviceSpec {
    fn algorithm() -> Algorithm {
        Algorithm::Sha1
    }

    fn digits() -> u8 {
        DIGITS_MIN
    }

    fn period_seconds() -> u32 {
        30
    }

    /// A device of `kind` with a new key and the parameters that every authenticator app knows.
    pub fn new(kind: DeviceKind) -> Self {
        Self {
            kind,
            label: String::new(),
            key: None,
            algorithm: Self::algorithm(),
            digits: Self::digits(),
            period_seconds: Self::period_seconds(),
            counter: 0,
        }
    }
}

/// A device that was enrolled, with its key: shown once.
#[derive(Clone, Serialize, Deserialize)]
pub struct Enrolled {
    /// The device.
    pub device: DeviceView,
    /// The shared key in base32.
    pub key: String,
    /// The key and all parameters as an `otpauth://` URI, for a QR code.
    pub uri: String,
}

/// Two consecutive passcodes of a device.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResyncSpec {
    /// The first.
    pub first: String,
    /// The one right after it.
    pub second: String,
}

/// A device as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceView {
    /// Id.
    pub id: String,
    /// What kind.
    pub kind: DeviceKind,
    /// Name for people.
    pub label: String,
    /// Hash function.
    pub algorithm: Algorithm,
    /// Digits of a passcode.
    pub digits: u8,
    /// Seconds of a time step (TOTP).
    pub period_seconds: Option<u32>,
    /// Steps by which its clock is ahead (TOTP).
    pub drift_steps: Option<i32>,
    /// The next counter (HOTP).
    pub next_counter: Option<u64>,
    /// Whether it has been used.
    pub used: bool,
    /// When it was enrolled.
    pub created: String,
}

impl DeviceView {
    pub(super) fn new(id: DeviceId, device: &Device) -> Self {
        let (kind, period_seconds, drift_steps, next_counter, used) = match &device.oath {
            Oath::Totp(token) => (
                DeviceKind::Totp,
                Some(token.period_seconds),
                Some(token.drift),
                None,
                token.last_step.is_some(),
            ),
            Oath::Hotp(token) => {
                (DeviceKind::Hotp, None, None, Some(token.next_counter), token.next_counter > 0)
            }
        };
        Self {
            id: id.to_string(),
            kind,
            label: device.label.to_string(),
            algorithm: device.oath.algorithm(),
            digits: device.oath.digits(),
            period_seconds,
            drift_steps,
            next_counter,
            used,
            created: rfc3339(device.created),
        }
    }
}

impl Admin {
    /// Enrols a device and returns it with its key.
    ///
    /// # Errors
    /// When there is no such user, or a parameter is refused.
    pub async fn add_device(&self, name: &str, spec: DeviceSpec) -> Result<Enrolled, AdminError> {
        let state = self.state().await?;
        let (user, record) = find_user(&state, name)?;
        let (device, key) = self.new_device(&spec)?;
        self.check_new_key(&state, record, &key)?;
        let id = device.id;
        let issuer = state.settings().oath_issuer();
        let uri = otpauth_uri(&issuer, record.name.as_str(), &spec, &key);
        self.propose(Command::AddDevice { user, device }).await?;
        let state = self.state().await?;
        let device = state.device(id).ok_or(AdminError::UnexpectedResult)?;
        Ok(Enrolled { device: DeviceView::new(id, device), key: BASE32_NOPAD.encode(&key), uri })
    }

    /// Refuses a key that the user holds already: the same passcode would open once for each.
    fn check_new_key(
        &self,
        state: &State,
        user: &User,
        key: &Zeroizing<Vec<u8>>,
    ) -> Result<(), AdminError> {
        for (id, device) in state.devices_of(user) {
            let held = self.keys.open(Owner::DeviceKey(id), &device.key)?;
            if bool::from(held.as_slice().ct_eq(key.as_slice())) {
                return Err(AdminError::Invalid("the user has a device with this key".to_owned()));
            }
        }
        Ok(())
    }

    /// The command's data for `spec`, and the key in the clear.
    pub(super) fn new_device(
        &self,
        spec: &DeviceSpec,
    ) -> Result<(NewDevice, Zeroizing<Vec<u8>>), AdminError> {
        let id = DeviceId(random::bytes()?);
        let key = match &spec.key {
            Some(text) => parse_key(text)?,
            // As long as the hash, which RFC 4226 section 4 and RFC 6238 section 3 advise.
            None => Zeroizing::new(match spec.algorithm {
                Algorithm::Sha1 => random::bytes::<20>()?.to_vec(),
                Algorithm::Sha256 => random::bytes::<32>()?.to_vec(),
                Algorithm::Sha512 => random::bytes::<64>()?.to_vec(),
            }),
        };
        if !(DIGITS_MIN..=DIGITS_MAX).contains(&spec.digits) {
            return Err(AdminError::Invalid("a passcode has 6, 7 or 8 digits".to_owned()));
        }
        if spec.kind == DeviceKind::Totp && !matches!(spec.period_seconds, 30 | 60) {
            return Err(AdminError::Invalid("a time step has 30 or 60 seconds".to_owned()));
        }
        let device = NewDevice {
            id,
            label: spec.label.trim().into(),
            key: self.keys.seal(Owner::DeviceKey(id), &key)?,
            algorithm: spec.algorithm,
            digits: spec.digits,
            oath: match spec.kind {
                DeviceKind::Totp => NewOath::Totp { period_seconds: spec.period_seconds },
                DeviceKind::Hotp => NewOath::Hotp { counter: spec.counter },
            },
        };
        Ok((device, key))
    }

    /// Removes a device.
    ///
    /// # Errors
    /// When there is no such device.
    pub async fn revoke_device(&self, id: &str) -> Result<(), AdminError> {
        let device = parse_id(id)?;
        self.propose(Command::RevokeDevice { device }).await
    }

    /// Moves a device to where two consecutive passcodes show it to be. Both are used up.
    ///
    /// # Errors
    /// When there is no such device, or the passcodes are not two in a row within the window.
    pub async fn resync_device(
        &self,
        id: &str,
        spec: ResyncSpec,
    ) -> Result<DeviceView, AdminError> {
        let device = parse_id(id)?;
        let state = self.state().await?;
        let record = state.device(device).ok_or_else(|| unknown(id))?;
        let passcode = |text: &str| {
            let reason = || AdminError::Invalid("a passcode has 6 to 8 digits".to_owned());
            Passcode::parse(text).ok_or_else(reason)
        };
        let (first, second) = (passcode(&spec.first)?, passcode(&spec.second)?);
        let generator = auth::generator(&self.keys, device, record)?;
        let settings = state.settings();
        let found = match &record.oath {
            Oath::Hotp(token) => {
                let window = settings.hotp_resync_counters();
                hotp::resynchronise(&generator, &first, &second, token.next_counter, window)
            }
            Oath::Totp(token) => {
                let window = u32::try_from(settings.totp_resync_steps()).unwrap_or(u32::MAX);
                let current = totp::step(clock::now(), token.period_seconds);
                let steps = totp::window(current, 0, window);
                let after = token.last_step.map_or(0, |last| last.saturating_add(1));
                let steps = *steps.start().max(&after)..=*steps.end();
                totp::resynchronise(&generator, &first, &second, steps)
            }
        };
        let first = found.ok_or_else(|| {
            let reason = "these are not two new passcodes of this device in a row";
            AdminError::Invalid(reason.to_owned())
        })?;
        self.propose(Command::ResyncDevice { device, first }).await?;
        let state = self.state().await?;
        let record = state.device(device).ok_or_else(|| unknown(id))?;
        Ok(DeviceView::new(device, record))
    }
}

fn parse_id(id: &str) -> Result<DeviceId, AdminError> {
    id.parse().map_err(|_| unknown(id))
}

fn unknown(id: &str) -> AdminError {
    AdminError::NotFound { what: "device", name: id.to_owned() }
}

/// A key in base32 (RFC 4648 section 6), as people copy it: any case, spaces, hyphens, padding.
pub(crate) fn parse_key(text: &str) -> Result<Zeroizing<Vec<u8>>, AdminError> {
    let compact = text
        .chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, '-' | '='))
        .map(|c| c.to_ascii_uppercase())
        .collect::<String>();
    let compact = Zeroizing::new(compact);
    let key = BASE32_NOPAD
        .decode(compact.as_bytes())
        .map(Zeroizing::new)
        .map_err(|_| AdminError::Invalid("the key is not base32".to_owned()))?;
    if (KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&key.len()) {
        Ok(key)
    } else {
        let reason = format!("a key has {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes");
        Err(AdminError::Invalid(reason))
    }
}

/// The de-facto key URI of authenticator apps.
fn otpauth_uri(issuer: &str, user: &str, spec: &DeviceSpec, key: &[u8]) -> String {
    let (kind, moving) = match spec.kind {
        DeviceKind::Totp => ("totp", format!("period={}", spec.period_seconds)),
        DeviceKind::Hotp => ("hotp", format!("counter={}", spec.counter)),
    };
    let algorithm = match spec.algorithm {
        Algorithm::Sha1 => "SHA1",
        Algorithm::Sha256 => "SHA256",
        Algorithm::Sha512 => "SHA512",
    };
    let (issuer, user) = (percent_encoded(issuer), percent_encoded(user));
    let key = BASE32_NOPAD.encode(key);
    let digits = spec.digits;
    format!(
        "otpauth://{kind}/{issuer}:{user}?secret={key}&issuer={issuer}\
         &algorithm={algorithm}&digits={digits}&{moving}"
    )
}

/// RFC 3986 section 2: everything but the unreserved characters as `%XX`.
pub(crate) fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_people_copy_them() {
        let key = parse_key("gezd gnbv-gy3t qojq GEZDGNBVGY3TQOJQ").expect("base32");
        assert_eq!(**key, *b"12345678901234567890");
        for text in ["", "GEZDGNBV", "GEZDGNBVGY3TQOJQ1", "not base 32 at all, really!"] {
            assert!(parse_key(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_uri_holds_every_parameter_and_escapes_names() {
        let spec = DeviceSpec { digits: 8, ..DeviceSpec::new(DeviceKind::Totp) };
        assert_eq!(
            otpauth_uri("Example & Co", "jo", &spec, b"12345678901234567890"),
            "otpauth://totp/Example%20%26%20Co:jo?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\
             &issuer=Example%20%26%20Co&algorithm=SHA1&digits=8&period=30"
        );
    }
}

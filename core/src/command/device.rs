//! Commands about devices.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Countable, Moment, Refusal, Text, check_count, check_text};
use crate::device::{Device, Hotp, Oath, Totp};
use crate::factor::{Algorithm, DIGITS_MAX, DIGITS_MIN, totp};
use crate::id::{DeviceId, UserId};
use crate::limits::{SEALED_BYTES_MAX, USER_DEVICES_MAX};
use crate::sealed::Sealed;
use crate::state::State;
use crate::time::Timestamp;

/// A device to enrol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewDevice {
    /// Drawn at random by the proposer.
    pub id: DeviceId,
    /// A name for people.
    pub label: Arc<str>,
    /// The shared key, sealed for `id`.
    pub key: Sealed,
    /// Hash function.
    pub algorithm: Algorithm,
    /// 6, 7 or 8.
    pub digits: u8,
    /// What moves.
    pub oath: NewOath,
}

/// What moves in a new OATH token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NewOath {
    /// Time.
    Totp {
        /// 30 or 60.
        period_seconds: u32,
    },
    /// A counter.
    Hotp {
        /// The first counter to accept.
        counter: u64,
    },
}

/// Checks a device that is to be enrolled, apart from its owner.
pub(super) fn check(state: &State, new: &NewDevice) -> Result<(), Refusal> {
    check_text(&new.label, false, Text::Label)?;
    if state.devices.contains_key(&new.id) {
        return Err(Refusal::IdTaken);
    }
    let period_fits = match new.oath {
        NewOath::Totp { period_seconds } => matches!(period_seconds, 30 | 60),
        NewOath::Hotp { .. } => true,
    };
    let fits = period_fits
        && (DIGITS_MIN..=DIGITS_MAX).contains(&new.digits)
        && new.key.as_bytes().len() <= SEALED_BYTES_MAX;
    if fits { Ok(()) } else { Err(Refusal::DeviceMalformed) }
}

/// The record of a device that has passed [`check`].
pub(super) fn enrolled(new: &NewDevice, user: UserId, now: Timestamp) -> Device {
    let &NewDevice { algorithm, digits, .. } = new;
    let oath = match new.oath {
        NewOath::Totp { period_seconds } => {
            Oath::Totp(Totp { algorithm, digits, period_seconds, drift: 0, last_step: None })
        }
        NewOath::Hotp { counter } => Oath::Hotp(Hotp { algorithm, digits, next_counter: counter }),
    };
    Device { user, label: new.label.clone(), key: new.key.clone(), oath, created: now }
}

pub(super) fn add(
    state: &mut State,
    at: Moment,
    user: UserId,
    new: &NewDevice,
) -> Result<(), Refusal> {
    check(state, new)?;
    let owner = state.users.get(&user).ok_or(Refusal::UserUnknown)?;
    check_count(owner.devices.len() + 1, USER_DEVICES_MAX, Countable::Devices)?;
    let devices = owner.devices.iter().copied().chain([new.id]).collect();
    if let Some(owner) = state.user_mut(user) {
        owner.devices = devices;
    }
    state.devices.insert(new.id, Arc::new(enrolled(new, user, at.now)));
    Ok(())
}

pub(super) fn revoke(state: &mut State, id: DeviceId) -> Result<(), Refusal> {
    let owner = state.devices.get(&id).ok_or(Refusal::DeviceUnknown)?.user;
    state.devices.remove(&id);
    if let Some(owner) = state.user_mut(owner) {
        owner.devices = owner.devices.iter().copied().filter(|&device| device != id).collect();
    }
    Ok(())
}

/// Moves a device to `first` and the step or counter after it, both used up.
///
/// It can only move forwards: resynchronisation must not bring passcodes back to life that were
/// accepted or passed over before.
pub(super) fn resync(
    state: &mut State,
    at: Moment,
    id: DeviceId,
    first: u64,
) -> Result<(), Refusal> {
    let counters = state.settings.hotp_resync_counters();
    let steps = u32::try_from(state.settings.totp_resync_steps()).unwrap_or(u32::MAX);
    let device = state.device_mut(id).ok_or(Refusal::DeviceUnknown)?;
    let second = first.checked_add(1).ok_or(Refusal::ResyncTooFar)?;
    match &mut device.oath {
        Oath::Hotp(hotp) => {
            if first < hotp.next_counter {
                return Err(Refusal::ResyncBehind);
            }
            if first - hotp.next_counter >= counters {
                return Err(Refusal::ResyncTooFar);
            }
            hotp.next_counter = second.checked_add(1).ok_or(Refusal::ResyncTooFar)?;
        }
        Oath::Totp(totp) => {
            if totp.last_step.is_some_and(|last| first <= last) {
                return Err(Refusal::ResyncBehind);
            }
            let current = totp::step(at.now, totp.period_seconds);
            if !totp::window(current, 0, steps).contains(&first) {
                return Err(Refusal::ResyncTooFar);
            }
            totp.drift = drift(second, current);
            totp.last_step = Some(second);
        }
    }
    Ok(())
}

/// How many steps `step` is ahead of `current`.
pub(super) fn drift(step: u64, current: u64) -> i32 {
    let ahead = i128::from(step) - i128::from(current);
    i32::try_from(ahead).unwrap_or(if ahead < 0 { i32::MIN } else { i32::MAX })
}

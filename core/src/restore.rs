//! Beginning anew from a state that was saved.
//!
//! What happened after it was saved is not known. Whatever was accepted since must not be accepted
//! again: passcodes that may have been used are used up, bypasses are gone, and the nodes of before
//! belong to another cluster.

use std::sync::Arc;

use crate::challenge::AnsweredChallenges;
use crate::command::Found;
use crate::device::Oath;
use crate::factor::totp;
use crate::node::{FOUNDER, Node, Nodes};
use crate::state::State;
use crate::time::Timestamp;

impl State {
    /// The state with which a new cluster begins at `now` that goes on from this one.
    ///
    /// A TOTP passcode is accepted when its time step is later than any that could have been accepted
    /// before `now`, or before the state was saved if `now` is earlier, however far the device's clock
    /// had drifted. A HOTP device goes on behind the
    /// whole look-ahead window: what could be accepted when the state was saved no longer is.
    #[must_use]
    pub fn restored(mut self, now: Timestamp, found: &Found) -> Self {
        self.time = self.time.max(now);
        let settings = &self.settings;
        // `apply` grants one step more than the window.
        let window = settings.totp_window_steps() + 1;
        let drift_max = settings.totp_drift_steps_max();
        let time = self.time;
        let skipped = settings.hotp_look_ahead();
        let devices: Vec<_> = self.devices.iter().map(|(&id, _)| id).collect();
        for id in devices {
            match self.device_mut(id).map(|device| &mut device.oath) {
                Some(Oath::Totp(token)) => {
                    // A device that was resynchronised may have drifted further than others.
                    let drift = u64::try_from(token.drift).unwrap_or(0).max(drift_max);
                    let latest = totp::step(time, token.period_seconds);
                    let latest = latest.saturating_add(drift).saturating_add(window);
                    token.last_step = token.last_step.max(Some(latest));
                }
                Some(Oath::Hotp(token)) => {
                    token.next_counter = token.next_counter.saturating_add(skipped);
                }
                None => {}
            }
        }
        let users: Vec<_> =
            self.users.iter().map(|(&id, user)| (id, user.bypass.is_some())).collect();
        for (id, _) in users.into_iter().filter(|(_, has_bypass)| *has_bypass) {
            if let Some(user) = self.user_mut(id) {
                user.bypass = None;
            }
        }
        // Challenges name their cluster; none of the earlier one's is open here.
        self.answered_challenges = AnsweredChallenges::default();
        self.nodes =
            Nodes { authority: Some(Arc::new(found.authority.clone())), ..Nodes::default() };
        let founder = Node::new(found.address.clone(), found.public_key.clone(), true, self.time);
        self.nodes.nodes.insert(FOUNDER, Arc::new(founder));
        self
    }

    /// The earliest time from which on every TOTP device of a state restored at `now` is accepted
    /// again.
    pub fn totp_accepted_from(&self) -> Option<Timestamp> {
        let from = self.devices.iter().filter_map(|(_, device)| match &device.oath {
            Oath::Totp(token) => {
                let seconds =
                    (token.last_step? + 1).saturating_mul(u64::from(token.period_seconds));
                Some(Timestamp(seconds.saturating_mul(1000)))
            }
            Oath::Hotp(_) => None,
        });
        from.max()
    }
}

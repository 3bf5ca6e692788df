//! Which login comes next: the users in turn, none twice at once, no passcode twice at all.

use std::collections::VecDeque;

/// One login: a user's number and the counter or time step of the passcode. It exists once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Login {
    /// Place in [`super::users::Users::all`].
    pub user: u32,
    /// What the passcode stands for.
    pub moving_factor: u64,
}

/// Why there is no login to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nothing {
    /// As many as asked for have been started.
    Done,
    /// Every user is logging in; one will be back.
    Busy,
    /// Every user that is not logging in has used the current time step.
    StepUsedUp,
}

/// The users that may log in, in turn, and the first unused counter or step of each.
///
/// A passcode counts as used when its login starts: what becomes of it does not matter, because a
/// server that did not answer may have accepted it.
pub(super) struct Pool {
    ready: VecDeque<u32>,
    next: Vec<u64>,
    budget: Option<u64>,
}

impl Pool {
    /// `next` holds the first unused counter or step of each user.
    pub(super) fn new(next: Vec<u64>) -> Self {
        let mut ready: Vec<u32> = (0..u32::try_from(next.len()).unwrap_or(u32::MAX)).collect();
        // Who has used least comes first. It continues an earlier round, and keeps those in front
        // who have not used the current time step.
        ready.sort_by_key(|&user| next.get(user as usize).copied());
        Self { ready: ready.into(), next, budget: None }
    }

    /// From now on, starts `budget` logins that count, or any number.
    pub(super) fn allow(&mut self, budget: Option<u64>) {
        self.budget = budget;
    }

    /// The next login. `step`: the current time step, for TOTP. `counts`: whether it takes from the
    /// budget.
    pub(super) fn take(&mut self, step: Option<u64>, counts: bool) -> Result<Login, Nothing> {
        if counts && self.budget == Some(0) {
            return Err(Nothing::Done);
        }
        let &user = self.ready.front().ok_or(Nothing::Busy)?;
        let next = self.next.get_mut(user as usize).ok_or(Nothing::Busy)?;
        let moving_factor = step.unwrap_or(*next);
        if moving_factor < *next {
            return Err(Nothing::StepUsedUp);
        }
        *next = moving_factor.saturating_add(1);
        self.ready.pop_front();
        if counts {
            self.budget = self.budget.map(|left| left.saturating_sub(1));
        }
        Ok(Login { user, moving_factor })
    }

    /// A login has ended, whatever its outcome: its user may log in again when it is their turn.
    pub(super) fn give_back(&mut self, login: Login) {
        self.ready.push_back(login.user);
    }

    /// How many users could log in at once at `step`.
    pub(super) fn available(&self, step: Option<u64>) -> usize {
        step.map_or(self.ready.len(), |step| self.next.iter().filter(|&&next| next <= step).count())
    }

    /// The first unused counter or step of each user.
    pub(super) fn next(&self) -> &[u64] {
        &self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: u32, moving_factor: u64) -> Result<Login, Nothing> {
        Ok(Login { user, moving_factor })
    }

    #[test]
    fn users_take_turns_and_count_on() {
        let mut pool = Pool::new(vec![5, 5]);
        let first = pool.take(None, true).expect("ready");
        assert_eq!(first, Login { user: 0, moving_factor: 5 });
        assert_eq!(pool.take(None, true), login(1, 5));
        assert_eq!(pool.take(None, true), Err(Nothing::Busy));
        pool.give_back(first);
        assert_eq!(pool.take(None, true), login(0, 6));
        assert_eq!(pool.next(), [7, 6]);
    }

    #[test]
    fn whoever_has_used_least_is_first() {
        let mut pool = Pool::new(vec![9, 8, 9]);
        assert_eq!(pool.take(None, true), login(1, 8));
        assert_eq!(pool.take(None, true), login(0, 9));
    }

    #[test]
    fn a_time_step_is_used_once() {
        let mut pool = Pool::new(vec![101, 0]);
        assert_eq!((pool.available(Some(100)), pool.available(Some(101))), (1, 2));
        let first = pool.take(Some(100), true).expect("ready");
        assert_eq!(first, Login { user: 1, moving_factor: 100 });
        pool.give_back(first);
        assert_eq!(pool.take(Some(100), true), Err(Nothing::StepUsedUp));
        assert_eq!(pool.take(Some(101), true), login(0, 101));
        assert_eq!(pool.take(Some(101), true), login(1, 101));
    }

    #[test]
    fn the_budget_is_for_logins_that_count() {
        let mut pool = Pool::new(vec![0; 9]);
        pool.allow(Some(1));
        assert!(pool.take(None, false).is_ok());
        assert!(pool.take(None, true).is_ok());
        assert_eq!(pool.take(None, true), Err(Nothing::Done));
    }
}

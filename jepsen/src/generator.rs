//! When the next operation begins, and which it is: phases, stagger, mix.
//!
//! Every client thread draws from a generator of its own, seeded by the run and the client's number,
//! so that the same seed asks for the same operations in the same order. When they happen is up to
//! the cluster: a run is a race, and only its choices are repeated.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::rng::Rng;

/// A part of a run, which somebody ends.
#[derive(Debug, Default)]
pub struct Phase {
    is_over: Mutex<bool>,
    ended: Condvar,
}

impl Phase {
    /// A phase that has begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends it, and wakes whoever waits.
    pub fn end(&self) {
        *self.is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ended.notify_all();
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        *self.is_over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets time pass; false as soon as the phase is over.
    pub fn wait(&self, duration: Duration) -> bool {
        let deadline = Instant::now() + duration;
        let mut is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_over {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let waited = self.ended.wait_timeout(is_over, left);
            is_over = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }
}

/// The operations of one client.
pub struct Generator<'a, T> {
    phase: &'a Phase,
    rng: Rng,
    gap: Duration,
    mix: Vec<T>,
}

impl<'a, T: Clone> Generator<'a, T> {
    /// Operations until `phase` ends, each after a pause of `gap` on average, drawn from `mix` by
    /// weight.
    pub fn new(phase: &'a Phase, rng: Rng, gap: Duration, mix: &[(usize, T)]) -> Self {
        let repeated = |(weight, one): &(usize, T)| std::iter::repeat_n(one.clone(), *weight);
        Self { phase, rng, gap, mix: mix.iter().flat_map(repeated).collect() }
    }

    /// Waits for the next operation; none when the phase is over.
    pub fn draw(&mut self) -> Option<T> {
        // Drawn before waiting, so that what is drawn does not depend on when the phase ends.
        let one = self.rng.pick(&self.mix).cloned();
        let pause = self.gap.mul_f64(2.0 * self.rng.unit());
        if self.phase.wait(pause) { one } else { None }
    }

    /// The client's random numbers, for what an operation needs beside its name.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_operations_by_weight() {
        let draw = |seed| {
            let phase = Phase::new();
            let mix = [(3, "read"), (1, "write")];
            let mut generator = Generator::new(&phase, Rng::new(seed), Duration::ZERO, &mix);
            (0..400).filter_map(|_| generator.draw()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let writes = draw(1).iter().filter(|one| **one == "write").count();
        assert!((50..150).contains(&writes), "{writes}");
    }

    #[test]
    fn the_end_of_the_phase_wakes_who_waits() {
        let phase = Phase::new();
        let hour = Duration::from_secs(3_600);
        let draws = || Generator::new(&phase, Rng::new(1), hour, &[(1, ())]).draw();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(draws);
            phase.end();
            assert_eq!(waiting.join().expect("no panic"), None);
        });
    }
}

//! What befalls each frame on its way from one port to another.
//!
//! Pure: the time is an argument and chance follows from the seed, so that every fault is tested
//! without a network. [`Switch`](super::Switch) moves the frames.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::rng::Rng;

/// Frames that may wait on one link; the newest is dropped above that, as by a router.
const QUEUE_MAX: usize = 1024;
/// How much later than the others of its link a reordered frame arrives.
const HELD_BACK: Duration = Duration::from_millis(20);
/// Length of an Ethernet header. What it says is never corrupted: the switch goes by it.
const HEADER: usize = 14;

/// One direction between two ports. Shares are from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    /// Share of frames that are lost.
    pub loss: f64,
    /// How much later every frame arrives.
    pub delay: Duration,
    /// Up to how much more, or less, than `delay`; frames overtake each other by it.
    pub jitter: Duration,
    /// Share of frames that arrive twice.
    pub duplicate: f64,
    /// Share of frames that are held back until later ones have passed.
    pub reorder: f64,
    /// Share of frames in which one bit is flipped.
    pub corrupt: f64,
    /// Bits per second; unlimited when none.
    pub rate: Option<u32>,
}

/// What happened on a link so far, in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Came in.
    pub received: u64,
    /// Went out, copies included.
    pub delivered: u64,
    /// Dropped, because the link is cut.
    pub cut: u64,
    /// Dropped by chance.
    pub lost: u64,
    /// Arrived later by delay or jitter.
    pub delayed: u64,
    /// Arrived later by the rate.
    pub throttled: u64,
    /// Sent twice.
    pub duplicated: u64,
    /// Held back.
    pub reordered: u64,
    /// Changed.
    pub corrupted: u64,
    /// Dropped, because too many waited.
    pub overflowed: u64,
}

/// A port as a number: the hosts from 0, then the control host.
pub type Port = usize;

/// Links, the frames on them, and what happened to them.
pub(super) struct Fabric {
    ports: usize,
    lanes: Vec<Lane>,
    /// By the time they are due, then by the order in which they came.
    waiting: BinaryHeap<Reverse<Frame>>,
    frames: u64,
    rng: Rng,
}

/// One link with all that is known of it.
#[derive(Clone, Default)]
struct Lane {
    link: Link,
    /// How many faults cut it now. It carries frames when the last has healed.
    cuts: u32,
    counters: Counters,
    waiting: usize,
    /// Until when earlier frames take up the link's rate.
    busy_until: Option<Instant>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Frame {
    due: Instant,
    number: u64,
    from: Port,
    to: Port,
    bytes: Vec<u8>,
}

impl Fabric {
    /// `ports` ports, every two of them joined both ways by perfect links.
    pub(super) fn new(ports: usize, rng: Rng) -> Self {
        let lanes = vec![Lane::default(); ports * ports];
        Self { ports, lanes, waiting: BinaryHeap::new(), frames: 0, rng }
    }

    /// Changes a link for the frames that come from now on.
    pub(super) fn change(&mut self, from: Port, to: Port, change: impl FnOnce(&mut Link)) {
        if let Some(lane) = self.lane(from, to) {
            change(&mut lane.link);
        }
    }

    /// Cuts a link once more. What is on its way arrives.
    pub(super) fn cut(&mut self, from: Port, to: Port) {
        if let Some(lane) = self.lane(from, to) {
            lane.cuts += 1;
        }
    }

    /// Takes one cut back.
    pub(super) fn join(&mut self, from: Port, to: Port) {
        if let Some(lane) = self.lane(from, to) {
            lane.cuts = lane.cuts.saturating_sub(1);
        }
    }

    /// Makes all links perfect.
    pub(super) fn heal(&mut self) {
        for lane in &mut self.lanes {
            lane.link = Link::default();
            lane.cuts = 0;
            lane.busy_until = None;
        }
    }

    /// What happened between two ports, in this direction.
    pub(super) fn counters(&self, from: Port, to: Port) -> Counters {
        let lane = self.lanes.get(from * self.ports + to);
        lane.map(|lane| lane.counters).unwrap_or_default()
    }

    /// Takes a frame that came in `now`.
    pub(super) fn admit(&mut self, from: Port, to: Port, bytes: &[u8], now: Instant) {
        let Some(lane) = self.lanes.get_mut(from * self.ports + to) else { return };
        lane.counters.received += 1;
        if lane.cuts > 0 {
            lane.counters.cut += 1;
            return;
        }
        if self.rng.unit() < lane.link.loss {
            lane.counters.lost += 1;
            return;
        }
        let twice = self.rng.unit() < lane.link.duplicate;
        lane.counters.duplicated += u64::from(twice);
        for _ in 0..=usize::from(twice) {
            if lane.waiting >= QUEUE_MAX {
                lane.counters.overflowed += 1;
                continue;
            }
            let mut bytes = bytes.to_vec();
            if self.rng.unit() < lane.link.corrupt && bytes.len() > HEADER {
                lane.counters.corrupted += 1;
                let at = HEADER + self.rng.below(bytes.len() - HEADER);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << self.rng.below(8);
                }
            }
            let due = lane.due(bytes.len(), now, &mut self.rng);
            lane.waiting += 1;
            self.frames += 1;
            self.waiting.push(Reverse(Frame { due, number: self.frames, from, to, bytes }));
        }
    }

    /// The next frame that is to go out by `now`, and where.
    pub(super) fn deliver(&mut self, now: Instant) -> Option<(Port, Vec<u8>)> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(Frame { from, to, bytes, .. }) = self.waiting.pop()?;
        let lane = self.lane(from, to)?;
        lane.waiting -= 1;
        lane.counters.delivered += 1;
        Some((to, bytes))
    }

    /// When the next frame is to go out.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse(frame)| frame.due)
    }

    fn lane(&mut self, from: Port, to: Port) -> Option<&mut Lane> {
        self.lanes.get_mut(from * self.ports + to)
    }
}

impl Lane {
    /// When a frame of `length` bytes that came in `now` arrives.
    fn due(&mut self, length: usize, now: Instant, rng: &mut Rng) -> Instant {
        let mut due = now;
        if let Some(rate) = self.link.rate {
            let takes = Duration::from_secs_f64(length as f64 * 8.0 / f64::from(rate.max(1)));
            due = self.busy_until.map_or(now, |busy| busy.max(now)) + takes;
            self.busy_until = Some(due);
            self.counters.throttled += 1;
        }
        if !self.link.delay.is_zero() || !self.link.jitter.is_zero() {
            let jitter = self.link.jitter.mul_f64(2.0 * rng.unit());
            due += (self.link.delay + jitter).saturating_sub(self.link.jitter);
            self.counters.delayed += 1;
        }
        if rng.unit() < self.link.reorder {
            due += HELD_BACK;
            self.counters.reordered += 1;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: u64 = 1000;

    /// Sends numbered frames from port 0 to port 1 over `link`, a microsecond apart, and takes out
    /// all.
    fn carried(link: Link) -> (Vec<Vec<u8>>, Counters) {
        let mut fabric = Fabric::new(2, Rng::new(7));
        fabric.change(0, 1, |old| *old = link);
        let begin = Instant::now();
        for number in 0..FRAMES {
            let mut frame = vec![0; HEADER];
            frame.extend(number.to_be_bytes());
            fabric.admit(0, 1, &frame, begin + Duration::from_micros(number));
        }
        let late = begin + Duration::from_secs(3600);
        let out = std::iter::from_fn(|| fabric.deliver(late)).map(|(_, bytes)| bytes).collect();
        assert_eq!(fabric.counters(1, 0), Counters::default(), "the way back is another link");
        (out, fabric.counters(0, 1))
    }

    #[test]
    fn a_perfect_link_keeps_every_frame_and_their_order() {
        let (out, counters) = carried(Link::default());
        assert!(out.is_sorted());
        assert_eq!((counters.received, counters.delivered), (FRAMES, FRAMES));
    }

    #[test]
    fn what_is_counted_is_what_happened() {
        let (out, counters) = carried(Link { loss: 0.3, ..Link::default() });
        assert_eq!(out.len() as u64 + counters.lost, FRAMES);
        assert!((200..400).contains(&counters.lost), "{counters:?}");

        let (out, counters) = carried(Link { duplicate: 0.01, ..Link::default() });
        assert_eq!(out.len() as u64, FRAMES + counters.duplicated - counters.overflowed);
        assert!(counters.duplicated > 0);

        let (out, counters) = carried(Link { reorder: 0.1, ..Link::default() });
        assert!(!out.is_sorted() && counters.reordered > 0);

        let (out, counters) = carried(Link { corrupt: 0.1, ..Link::default() });
        let (whole, _) = carried(Link::default());
        let changed = out.iter().zip(&whole).filter(|(out, whole)| out != whole).count();
        assert_eq!(changed as u64, counters.corrupted);
        assert!(out.iter().all(|frame| frame.starts_with(&[0; HEADER])), "headers stay whole");

        let (out, counters) = carried(Link { delay: Duration::from_millis(50), ..Link::default() });
        assert!(out.is_sorted(), "an even delay keeps the order");
        assert_eq!(counters.delayed, FRAMES);
    }

    #[test]
    fn a_frame_arrives_when_its_link_says_and_not_before() {
        let mut fabric = Fabric::new(2, Rng::new(7));
        fabric.change(0, 1, |link| {
            link.delay = Duration::from_millis(50);
            link.rate = Some(8_000);
        });
        let now = Instant::now();
        fabric.admit(0, 1, &[0; 100], now);
        let due = now + Duration::from_millis(150);
        assert_eq!(fabric.next_due(), Some(due));
        assert!(fabric.deliver(due - Duration::from_nanos(1)).is_none());
        assert!(fabric.deliver(due).is_some());
    }

    #[test]
    fn a_link_that_two_faults_cut_is_whole_when_both_have_healed() {
        let mut fabric = Fabric::new(2, Rng::new(7));
        let now = Instant::now();
        let passes = |fabric: &mut Fabric| {
            fabric.admit(0, 1, &[0; 60], now);
            fabric.deliver(now).is_some()
        };
        fabric.cut(0, 1);
        fabric.cut(0, 1);
        assert!(!passes(&mut fabric));
        fabric.join(0, 1);
        assert!(!passes(&mut fabric));
        fabric.join(0, 1);
        assert!(passes(&mut fabric));
        assert_eq!(fabric.counters(0, 1).cut, 2);
    }

    #[test]
    fn a_slow_link_drops_what_it_cannot_hold() {
        let mut fabric = Fabric::new(2, Rng::new(7));
        fabric.change(0, 1, |link| link.rate = Some(1));
        let now = Instant::now();
        for _ in 0..QUEUE_MAX + 5 {
            fabric.admit(0, 1, &[0; 60], now);
        }
        assert_eq!(fabric.counters(0, 1).overflowed, 5);
    }

    #[test]
    fn a_seed_gives_one_fate() {
        let link = Link { loss: 0.2, corrupt: 0.2, reorder: 0.2, ..Link::default() };
        assert_eq!(carried(link), carried(link));
    }
}

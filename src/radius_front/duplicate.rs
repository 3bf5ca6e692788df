//! The duplicate cache, RFC 5080 section 2.2.2: a retransmission gets the first answer or waits.
//!
//! A client that hears nothing sends the same octets again. While the first copy is in flight a
//! second one is dropped; once it is answered, the same reply is repeated for a while. A packet
//! that reuses source and identifier with another Request Authenticator is a new request, and the
//! client has given up the old one, so the old entry gives way at once. That keeps the cache as
//! small as the number of identifiers in use, however many requests per second arrive.
//!
//! ```text
//!              begin                    answer                  keep_ms later, a new
//!   (nothing) ───────► in flight ──────────────────► answered ─────────────────────► (nothing)
//!       ▲                  │ dropped without answer             authenticator, no room
//!       └──────────────────┘
//! ```
//!
//! The caller must verify the Message-Authenticator first: a forged packet must not touch the
//! cache. The cache reads no clock and sends nothing. It only knows this process; the same request
//! at another node is a matter of the replicated state.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::radius::packet::{Authenticator, Code, Packet};

#[cfg(test)]
mod model;

/// Most shards; each has its own lock, so that worker threads seldom meet.
const SHARDS_MAX: usize = 16;
/// A cache smaller than this is not worth dividing.
const SHARD_ENTRIES_MIN: usize = 1024;
/// Expired answers looked at per call: more than one, so that the queue shrinks, and few, so that
/// no call has to pay for a whole burst.
const SWEEP_COUNT: usize = 4;
/// Outdated places that the queue may hold before it is tidied, beside as many as current ones.
const OUTDATED_MAX: usize = 64;

/// How much the cache may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests in flight and answers kept, together.
    pub entries_max: usize,
    /// Octets of all answers kept.
    pub bytes_max: usize,
    /// How long an answer is repeated, in milliseconds; RFC 5080 wants 5 to 30 seconds.
    pub keep_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries_max: 262_144, bytes_max: 64 * 1024 * 1024, keep_ms: 30_000 }
    }
}

/// What makes two packets copies of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestKey {
    slot: Slot,
    authenticator: Authenticator,
}

impl RequestKey {
    /// The key of a request that arrived from `source` on the socket that the caller calls
    /// `listener`.
    pub fn new(listener: u16, source: SocketAddr, request: &Packet<'_>) -> Self {
        let Packet { code, identifier, authenticator, .. } = *request;
        Self { slot: Slot { listener, source, code, identifier }, authenticator }
    }
}

/// Where a client can have one request outstanding at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Slot {
    listener: u16,
    source: SocketAddr,
    code: Code,
    identifier: u8,
}

/// What is to be done with a request.
#[derive(Debug)]
pub enum Lookup {
    /// It is new: process it, then call [`InFlight::answer`].
    New(InFlight),
    /// Its first copy is being processed: drop this one.
    Join,
    /// It has been answered: send these octets again.
    Answered(Arc<[u8]>),
    /// Nothing more can be taken on: drop it. The client will try again, or elsewhere.
    Full,
}

/// Requests in flight and answers, shared by all worker threads. See the module.
#[derive(Debug)]
pub struct DuplicateCache {
    shards: Box<[Arc<Mutex<Shard>>]>,
    hasher: RandomState,
}

impl DuplicateCache {
    /// An empty cache. A large one is divided, and the limits with it; they are then kept by each
    /// part rather than exactly by the whole.
    pub fn new(limits: Limits) -> Self {
        let count = (limits.entries_max / SHARD_ENTRIES_MIN).clamp(1, SHARDS_MAX);
        let limits = Limits {
            entries_max: limits.entries_max / count,
            bytes_max: limits.bytes_max / count,
            keep_ms: limits.keep_ms,
        };
        let shards = (0..count).map(|_| Arc::new(Mutex::new(Shard::new(limits)))).collect();
        Self { shards, hasher: RandomState::new() }
    }

    /// Looks a request up and, when it is new, notes that it is in flight. `now_ms` is any clock
    /// that does not run backwards.
    pub fn begin(&self, key: &RequestKey, now_ms: u64) -> Lookup {
        let index = self.hasher.hash_one(key.slot) % self.shards.len() as u64;
        let Some(shard) = self.shards.get(index as usize) else {
            // Not reached: there is at least one shard, and the index is below their number.
            return Lookup::Full;
        };
        match lock(shard).begin(key, now_ms) {
            Begun::New(generation) => {
                Lookup::New(InFlight { shard: Some(Arc::clone(shard)), slot: key.slot, generation })
            }
            Begun::Join => Lookup::Join,
            Begun::Answered(reply) => Lookup::Answered(reply),
            Begun::Full => Lookup::Full,
        }
    }

    /// What the cache holds, for metrics.
    pub fn usage(&self) -> Usage {
        self.shards.iter().map(|shard| lock(shard).usage).fold(Usage::default(), |sum, part| {
            Usage {
                in_flight: sum.in_flight + part.in_flight,
                answers: sum.answers + part.answers,
                bytes: sum.bytes + part.bytes,
            }
        })
    }
}

/// What a cache holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Requests that are being processed.
    pub in_flight: usize,
    /// Answers kept, including a few that have expired but were not looked at since.
    pub answers: usize,
    /// Octets of these answers.
    pub bytes: usize,
}

/// The right and duty to answer one request. Dropping it without an answer forgets the request, so
/// that a retransmission gets another try.
#[derive(Debug)]
#[must_use = "dropping it at once forgets the request"]
pub struct InFlight {
    /// `None` once answered.
    shard: Option<Arc<Mutex<Shard>>>,
    slot: Slot,
    generation: u64,
}

impl InFlight {
    /// Keeps `reply` for retransmissions. False when the client has meanwhile reused the identifier
    /// and no longer waits for it; then nothing is kept.
    pub fn answer(mut self, reply: Arc<[u8]>, now_ms: u64) -> bool {
        self.shard
            .take()
            .is_some_and(|shard| lock(&shard).answer(self.slot, self.generation, reply, now_ms))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(shard) = self.shard.take() {
            lock(&shard).forget(self.slot, self.generation);
        }
    }
}

/// A thread that panicked while it held the lock cannot have left a half-made change that matters
/// here: at worst an entry too few or too many, which only costs a repetition.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Begun {
    New(u64),
    Join,
    Answered(Arc<[u8]>),
    Full,
}

#[derive(Debug)]
struct Shard {
    limits: Limits,
    entries: HashMap<Slot, Entry>,
    /// One place per answer, oldest first. An entry that has given way leaves its place behind,
    /// told by its generation; such places are skipped, and cleared away when they outnumber the
    /// others.
    queue: VecDeque<Place>,
    usage: Usage,
    generation: u64,
    now_ms: u64,
}

#[derive(Debug)]
struct Entry {
    authenticator: Authenticator,
    /// Tells this entry from earlier and later ones in the same slot.
    generation: u64,
    /// `None` while in flight.
    reply: Option<Arc<[u8]>>,
    /// Only meaningful with a reply.
    expires_ms: u64,
}

#[derive(Debug)]
struct Place {
    slot: Slot,
    generation: u64,
    expires_ms: u64,
}

impl Shard {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: HashMap::new(),
            queue: VecDeque::new(),
            usage: Usage::default(),
            generation: 0,
            now_ms: 0,
        }
    }

    fn begin(&mut self, key: &RequestKey, now_ms: u64) -> Begun {
        self.sweep(now_ms);
        if let Some(entry) = self.entries.get(&key.slot) {
            let is_copy = entry.authenticator == key.authenticator;
            match &entry.reply {
                None if is_copy => return Begun::Join,
                Some(reply) if is_copy && entry.expires_ms > self.now_ms => {
                    return Begun::Answered(Arc::clone(reply));
                }
                _ => self.remove(&key.slot),
            }
        }
        // Requests that have lost their entry count for as long as they are being processed, so
        // that a client cannot start any number of them by changing the authenticator.
        while self.usage.in_flight + self.usage.answers >= self.limits.entries_max {
            if !self.evict_oldest() {
                return Begun::Full;
            }
        }
        self.generation += 1;
        let generation = self.generation;
        let authenticator = key.authenticator;
        let entry = Entry { authenticator, generation, reply: None, expires_ms: 0 };
        self.entries.insert(key.slot, entry);
        self.usage.in_flight += 1;
        Begun::New(generation)
    }

    fn answer(&mut self, slot: Slot, generation: u64, reply: Arc<[u8]>, now_ms: u64) -> bool {
        self.usage.in_flight -= 1;
        self.sweep(now_ms);
        let expires_ms = self.now_ms.saturating_add(self.limits.keep_ms);
        let Some(entry) = self.entries.get_mut(&slot).filter(|e| e.generation == generation) else {
            return false;
        };
        self.usage.answers += 1;
        self.usage.bytes += reply.len();
        entry.reply = Some(reply);
        entry.expires_ms = expires_ms;
        self.queue.push_back(Place { slot, generation, expires_ms });
        while self.usage.bytes > self.limits.bytes_max && self.evict_oldest() {}
        self.tidy();
        true
    }

    fn forget(&mut self, slot: Slot, generation: u64) {
        self.usage.in_flight -= 1;
        if self.is_current(&slot, generation) {
            self.remove(&slot);
        }
    }

    fn is_current(&self, slot: &Slot, generation: u64) -> bool {
        self.entries.get(slot).is_some_and(|entry| entry.generation == generation)
    }

    /// Removes an entry; its place in the queue stays and is outdated.
    fn remove(&mut self, slot: &Slot) {
        if let Some(Entry { reply: Some(reply), .. }) = self.entries.remove(slot) {
            self.usage.answers -= 1;
            self.usage.bytes -= reply.len();
        }
    }

    /// Removes the oldest answer; false when there is none.
    fn evict_oldest(&mut self) -> bool {
        while let Some(place) = self.queue.pop_front() {
            if self.is_current(&place.slot, place.generation) {
                self.remove(&place.slot);
                return true;
            }
        }
        false
    }

    /// Advances the time and removes a few of the answers that have expired by then.
    fn sweep(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        for _ in 0..SWEEP_COUNT {
            let Some(place) = self.queue.front() else { return };
            let is_current = self.is_current(&place.slot, place.generation);
            if is_current && place.expires_ms > self.now_ms {
                return;
            }
            if let Some(place) = self.queue.pop_front().filter(|_| is_current) {
                self.remove(&place.slot);
            }
        }
    }

    /// Clears outdated places away once they outnumber the current ones, which costs each call a
    /// constant amount on average.
    fn tidy(&mut self) {
        if self.queue.len() > 2 * self.usage.answers + OUTDATED_MAX {
            let entries = &self.entries;
            self.queue.retain(|place| {
                entries.get(&place.slot).is_some_and(|entry| entry.generation == place.generation)
            });
        }
    }
}

//! The duplicate cache against a model that is too simple to be wrong, and its edges one by one.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { entries_max: 6, bytes_max: 40, keep_ms: 30 };

fn key(port: u16, identifier: u8, authenticator: u8) -> RequestKey {
    let source = SocketAddr::from(([127, 0, 0, 1], port));
    RequestKey {
        slot: Slot { listener: 0, source, code: Code::AccessRequest, identifier },
        authenticator: [authenticator; 16],
    }
}

fn reply(octet: u8, length: usize) -> Arc<[u8]> {
    vec![octet; length].into()
}

fn begin_new(cache: &DuplicateCache, key: &RequestKey, now_ms: u64) -> InFlight {
    match cache.begin(key, now_ms) {
        Lookup::New(in_flight) => in_flight,
        other => panic!("not new: {other:?}"),
    }
}

fn answered(cache: &DuplicateCache, key: &RequestKey, now_ms: u64) -> Option<Arc<[u8]>> {
    match cache.begin(key, now_ms) {
        Lookup::Answered(reply) => Some(reply),
        _ => None,
    }
}

fn is_new(cache: &DuplicateCache, key: &RequestKey, now_ms: u64) -> bool {
    matches!(cache.begin(key, now_ms), Lookup::New(_))
}

#[test]
fn a_copy_waits_and_then_gets_the_same_octets_until_they_expire() {
    let cache = DuplicateCache::new(LIMITS);
    let first = begin_new(&cache, &key(1, 1, 1), 0);
    assert!(matches!(cache.begin(&key(1, 1, 1), 5), Lookup::Join));
    let octets = reply(7, 20);
    assert!(first.answer(Arc::clone(&octets), 10));
    assert_eq!(answered(&cache, &key(1, 1, 1), 10), Some(Arc::clone(&octets)));
    assert_eq!(answered(&cache, &key(1, 1, 1), 39), Some(octets));
    assert!(is_new(&cache, &key(1, 1, 1), 40));
}

#[test]
fn an_expired_answer_is_not_repeated_even_before_it_is_removed() {
    let cache = DuplicateCache::new(LIMITS);
    for port in 0..6 {
        assert!(begin_new(&cache, &key(port, 1, 1), 0).answer(reply(1, 1), 0));
    }
    const { assert!(SWEEP_COUNT < 6, "the last one is still there") };
    assert!(is_new(&cache, &key(5, 1, 1), 30));
}

#[test]
fn requests_that_differ_in_anything_are_different() {
    let cache = DuplicateCache::new(LIMITS);
    let base = key(1, 1, 1);
    let mut variants = [base, key(2, 1, 1), key(1, 2, 1), base, base];
    variants[3].slot.listener = 1;
    variants[4].slot.code = Code::AccountingRequest;
    let tokens: Vec<_> = variants.iter().map(|key| begin_new(&cache, key, 0)).collect();
    assert!(variants.iter().all(|key| matches!(cache.begin(key, 0), Lookup::Join)));
    drop(tokens);
    assert_eq!(cache.usage(), Usage::default());
}

#[test]
fn a_new_authenticator_is_a_new_request_and_ends_the_old_one() {
    let cache = DuplicateCache::new(LIMITS);
    assert!(begin_new(&cache, &key(1, 1, 1), 0).answer(reply(1, 20), 0));
    let old = begin_new(&cache, &key(1, 1, 2), 0);
    assert_eq!(cache.usage(), Usage { in_flight: 1, answers: 0, bytes: 0 });
    let new = begin_new(&cache, &key(1, 1, 3), 0);
    assert!(!old.answer(reply(2, 20), 0), "the late answer is not kept");
    assert!(
        matches!(cache.begin(&key(1, 1, 3), 0), Lookup::Join),
        "and does not touch the new one"
    );
    assert!(new.answer(reply(3, 20), 0));
    assert_eq!(answered(&cache, &key(1, 1, 3), 0), Some(reply(3, 20)));
}

#[test]
fn a_request_dropped_without_an_answer_gets_another_try() {
    let cache = DuplicateCache::new(LIMITS);
    drop(begin_new(&cache, &key(1, 1, 1), 0));
    let old = begin_new(&cache, &key(1, 1, 1), 0);
    let new = begin_new(&cache, &key(1, 1, 2), 0);
    drop(old);
    assert!(matches!(cache.begin(&key(1, 1, 2), 0), Lookup::Join), "only its own entry is dropped");
    drop(new);
    assert_eq!(cache.usage(), Usage::default());
}

#[test]
fn full_of_requests_in_flight_refuses_the_newest() {
    let cache = DuplicateCache::new(LIMITS);
    let mut tokens: Vec<_> = (0..6).map(|port| begin_new(&cache, &key(port, 1, 1), 0)).collect();
    assert!(matches!(cache.begin(&key(9, 1, 1), 0), Lookup::Full));
    assert!(matches!(cache.begin(&key(3, 1, 1), 0), Lookup::Join), "the others go on");
    assert!(
        matches!(cache.begin(&key(3, 1, 2), 0), Lookup::Full),
        "changing the authenticator too"
    );
    tokens.pop();
    assert!(is_new(&cache, &key(9, 1, 1), 0));
}

#[test]
fn answers_give_way_to_requests_oldest_first() {
    let cache = DuplicateCache::new(LIMITS);
    for port in 0..6 {
        assert!(begin_new(&cache, &key(port, 1, 1), 0).answer(reply(1, 1), u64::from(port)));
    }
    let _token = begin_new(&cache, &key(9, 1, 1), 6);
    assert_eq!(answered(&cache, &key(1, 1, 1), 6), Some(reply(1, 1)));
    assert!(is_new(&cache, &key(0, 1, 1), 6));
}

#[test]
fn answers_are_bounded_in_octets() {
    let cache = DuplicateCache::new(LIMITS);
    for port in 0..3 {
        assert!(begin_new(&cache, &key(port, 1, 1), 0).answer(reply(1, 20), 0));
    }
    assert_eq!(cache.usage(), Usage { in_flight: 0, answers: 2, bytes: 40 });
    assert!(is_new(&cache, &key(0, 1, 1), 0));
    assert!(begin_new(&cache, &key(4, 1, 1), 0).answer(reply(1, 41), 0));
    assert_eq!(cache.usage(), Usage::default(), "larger than the cache: not kept");
}

#[test]
fn reused_identifiers_leave_nothing_behind() {
    let cache = DuplicateCache::new(LIMITS);
    // An answer that stays at the head of the queue, so that nothing behind it is swept.
    assert!(begin_new(&cache, &key(2, 1, 1), 0).answer(reply(1, 20), 0));
    for round in 0..10_000u32 {
        let key = key(1, 1, round as u8);
        assert!(begin_new(&cache, &key, 0).answer(reply(1, 20), 0));
        let queued = lock(&cache.shards[0]).queue.len();
        assert!(queued <= 2 * 2 + OUTDATED_MAX, "{queued} places for two answers");
    }
    assert_eq!(cache.usage(), Usage { in_flight: 0, answers: 2, bytes: 40 });
}

#[test]
fn expired_answers_are_removed_as_others_come() {
    let limits = Limits { entries_max: 100_000, bytes_max: 1 << 30, keep_ms: 30 };
    let cache = DuplicateCache::new(limits);
    let fill = |ports: std::ops::Range<u16>, now_ms| {
        for port in ports {
            assert!(begin_new(&cache, &key(port, 1, 1), now_ms).answer(reply(1, 20), now_ms));
        }
    };
    fill(0..5_000, 0);
    assert_eq!(cache.usage().answers, 5_000);
    fill(10_000..15_000, 30);
    assert_eq!(cache.usage().answers, 5_000);
}

#[test]
fn one_of_many_threads_gets_the_request() {
    let cache = DuplicateCache::new(Limits::default());
    let new = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for port in 0..500 {
                    match cache.begin(&key(port, 1, 1), 0) {
                        Lookup::New(token) => {
                            new.fetch_add(1, Ordering::Relaxed);
                            assert!(token.answer(reply(1, 20), 0));
                        }
                        Lookup::Join | Lookup::Answered(_) => {}
                        Lookup::Full => panic!("there is room"),
                    }
                }
            });
        }
    });
    assert_eq!(new.into_inner(), 500);
    assert_eq!(cache.usage(), Usage { in_flight: 0, answers: 500, bytes: 10_000 });
}

/// A list of everything, searched from end to end.
struct Model {
    limits: Limits,
    /// Oldest answer first; those in flight anywhere.
    entries: Vec<Listed>,
    in_flight: Vec<u64>,
    /// A broken model for the control: takes requests for copies whatever their authenticator.
    ignores_authenticator: bool,
}

struct Listed {
    key: RequestKey,
    /// The step that began it.
    id: u64,
    /// When it expires, and what it is; `None` while in flight.
    answer: Option<(u64, Arc<[u8]>)>,
}

impl Listed {
    fn is_alive(&self, now_ms: u64) -> bool {
        self.answer.as_ref().is_none_or(|(expires_ms, _)| *expires_ms > now_ms)
    }
}

#[derive(Debug, PartialEq)]
enum Seen {
    New,
    Join,
    Answered(Arc<[u8]>),
    Full,
    Kept(bool),
    Nothing,
}

impl Model {
    fn stored(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.entries.iter().filter_map(|entry| entry.answer.as_ref()).map(|(_, reply)| reply)
    }

    fn evict(&mut self) -> bool {
        let oldest = self.entries.iter().position(|entry| entry.answer.is_some());
        oldest.map(|index| self.entries.remove(index)).is_some()
    }

    fn begin(&mut self, key: RequestKey, id: u64, now_ms: u64) -> Seen {
        self.entries.retain(|entry| entry.is_alive(now_ms));
        let found = self.entries.iter().find(|entry| entry.key.slot == key.slot);
        if let Some(Listed { key: found, answer, .. }) = found
            && (found.authenticator == key.authenticator || self.ignores_authenticator)
        {
            return match answer {
                None => Seen::Join,
                Some((_, reply)) => Seen::Answered(Arc::clone(reply)),
            };
        }
        self.entries.retain(|entry| entry.key.slot != key.slot);
        while self.in_flight.len() + self.stored().count() >= self.limits.entries_max {
            if !self.evict() {
                return Seen::Full;
            }
        }
        self.entries.push(Listed { key, id, answer: None });
        self.in_flight.push(id);
        Seen::New
    }

    fn end(&mut self, id: u64, reply: Option<Arc<[u8]>>, now_ms: u64) -> Seen {
        self.in_flight.retain(|&other| other != id);
        let found = self.entries.iter().position(|entry| entry.id == id);
        let entry = found.map(|index| self.entries.remove(index));
        let Some(reply) = reply else { return Seen::Nothing };
        let Some(Listed { key, .. }) = entry else { return Seen::Kept(false) };
        self.entries.retain(|entry| entry.is_alive(now_ms));
        self.entries.push(Listed { key, id, answer: Some((now_ms + self.limits.keep_ms, reply)) });
        while self.stored().map(|reply| reply.len()).sum::<usize>() > self.limits.bytes_max {
            self.evict();
        }
        Seen::Kept(true)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Begin { port: u16, identifier: u8, authenticator: u8 },
    Answer { which: usize, length: usize },
    Drop { which: usize },
    Wait { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4u16, 0..2u8, 0..3u8).prop_map(|(port, identifier, authenticator)| {
            Step::Begin { port, identifier, authenticator }
        }),
        3 => (any::<usize>(), 1..25usize)
            .prop_map(|(which, length)| Step::Answer { which, length }),
        1 => any::<usize>().prop_map(|which| Step::Drop { which }),
        1 => (1..20u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// The first step at which cache and model say different things.
fn first_difference(steps: &[Step], ignores_authenticator: bool) -> Option<usize> {
    let cache = DuplicateCache::new(LIMITS);
    let mut model =
        Model { limits: LIMITS, entries: Vec::new(), in_flight: Vec::new(), ignores_authenticator };
    let mut tokens: Vec<(u64, InFlight)> = Vec::new();
    let mut now_ms = 0;
    steps.iter().enumerate().position(|(number, step)| {
        let id = number as u64;
        let take = |tokens: &mut Vec<(u64, InFlight)>, which: usize| {
            (!tokens.is_empty()).then(|| tokens.remove(which % tokens.len()))
        };
        let (seen, expected) = match *step {
            Step::Begin { port, identifier, authenticator } => {
                let key = key(port, identifier, authenticator);
                let expected = model.begin(key, id, now_ms);
                let seen = match cache.begin(&key, now_ms) {
                    Lookup::New(token) => {
                        tokens.push((id, token));
                        Seen::New
                    }
                    Lookup::Join => Seen::Join,
                    Lookup::Answered(reply) => Seen::Answered(reply),
                    Lookup::Full => Seen::Full,
                };
                (seen, expected)
            }
            Step::Answer { which, length } => match take(&mut tokens, which) {
                Some((id, token)) => {
                    let reply = reply(id as u8, length);
                    let expected = model.end(id, Some(Arc::clone(&reply)), now_ms);
                    (Seen::Kept(token.answer(reply, now_ms)), expected)
                }
                None => (Seen::Nothing, Seen::Nothing),
            },
            Step::Drop { which } => match take(&mut tokens, which) {
                Some((id, token)) => {
                    drop(token);
                    (Seen::Nothing, model.end(id, None, now_ms))
                }
                None => (Seen::Nothing, Seen::Nothing),
            },
            Step::Wait { ms } => {
                now_ms += ms;
                (Seen::Nothing, Seen::Nothing)
            }
        };
        seen != expected || cache.usage().in_flight != model.in_flight.len()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_cache_does_what_the_model_does(steps in prop::collection::vec(step(), 0..120)) {
        prop_assert_eq!(first_difference(&steps, false), None);
    }
}

/// The control: the same comparison must notice a model that is wrong about the authenticator.
#[test]
fn the_comparison_notices_a_wrong_model() {
    let begin = |authenticator| Step::Begin { port: 1, identifier: 1, authenticator };
    let steps = [begin(1), Step::Answer { which: 0, length: 20 }, begin(1), begin(2)];
    assert_eq!(first_difference(&steps, false), None);
    assert_eq!(first_difference(&steps, true), Some(3));
}

//! What is to be said along with a verdict, held for whoever gives it.
//!
//! A directory may have more to say than yes: what a session is allowed, keys for it. The node that answers the
//! client may be another than the one that has asked the directory: after a challenge, or when the client asks
//! again elsewhere. So it is held here for as long as that may happen, in a form that only nodes can open.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::RequestId;
use crate::limits::HELD_BYTES_MAX;
use crate::map::OrdMap;
use crate::time::Timestamp;

/// One reply that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldReply {
    /// The request that led to it.
    pub request: RequestId,
    /// When nobody can need it any more.
    pub expires: Timestamp,
    /// What it says, sealed by whoever holds the data key.
    pub sealed: Arc<[u8]>,
}

/// All replies that are held.
#[derive(Clone, Default)]
pub struct HeldReplies {
    by_request: OrdMap<RequestId, HeldReply>,
    by_expiry: OrdMap<(Timestamp, RequestId), ()>,
    /// Octets of all.
    bytes: usize,
}

impl HeldReplies {
    /// The one that `request` has led to.
    pub fn get(&self, request: RequestId) -> Option<&HeldReply> {
        self.by_request.get(&request)
    }

    /// Holds `reply`, and forgets what has expired at `now`, and what expires first if there is too much.
    pub(crate) fn hold(&mut self, reply: HeldReply, now: Timestamp) {
        self.forget(reply.request);
        self.insert(reply);
        while let Some(&(expires, request)) = self.by_expiry.first().map(|(key, ())| key) {
            if expires > now && self.bytes <= HELD_BYTES_MAX {
                break;
            }
            self.forget(request);
        }
    }

    fn insert(&mut self, reply: HeldReply) {
        self.bytes += reply.sealed.len();
        self.by_expiry.insert((reply.expires, reply.request), ());
        self.by_request.insert(reply.request, reply);
    }

    fn forget(&mut self, request: RequestId) {
        let Some(held) = self.by_request.remove(&request) else { return };
        self.bytes = self.bytes.saturating_sub(held.sealed.len());
        self.by_expiry.remove(&(held.expires, request));
    }

    /// All of them, by request.
    pub fn iter(&self) -> impl Iterator<Item = &HeldReply> {
        self.by_request.iter().map(|(_, reply)| reply)
    }

    pub(crate) fn from_records(records: Vec<HeldReply>) -> Self {
        let mut held = Self::default();
        for reply in records {
            held.forget(reply.request);
            held.insert(reply);
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(request: u8, expires: u64, bytes: usize) -> HeldReply {
        let sealed = vec![request; bytes].into();
        HeldReply { request: RequestId([request; 16]), expires: Timestamp(expires), sealed }
    }

    fn held(replies: &HeldReplies) -> Vec<u8> {
        replies.iter().map(|reply| reply.request.0[0]).collect()
    }

    #[test]
    fn what_has_expired_is_forgotten_and_what_comes_again_is_held_once() {
        let mut replies = HeldReplies::default();
        replies.hold(reply(1, 10, 5), Timestamp(0));
        replies.hold(reply(2, 20, 5), Timestamp(9));
        replies.hold(reply(2, 30, 7), Timestamp(9));
        assert_eq!((held(&replies), replies.bytes), (vec![1, 2], 12));
        replies.hold(reply(3, 40, 1), Timestamp(10));
        assert_eq!((held(&replies), replies.bytes), (vec![2, 3], 8));
        assert_eq!(replies.get(RequestId([2; 16])), Some(&reply(2, 30, 7)));
        let same = HeldReplies::from_records(replies.iter().cloned().collect());
        assert_eq!((held(&same), same.bytes, same.by_expiry.len()), (vec![2, 3], 8, 2));
    }

    #[test]
    fn what_expires_first_gives_way_when_there_is_too_much() {
        let mut replies = HeldReplies::default();
        replies.hold(reply(1, 90, HELD_BYTES_MAX / 2), Timestamp(0));
        replies.hold(reply(2, 80, HELD_BYTES_MAX / 2), Timestamp(0));
        replies.hold(reply(3, 99, 1), Timestamp(0));
        assert_eq!(held(&replies), [1, 3]);
    }
}

//! Every kind of message that a peer may send, in one list, for whoever tries what the reading of
//! them stands: the tests below, and `fuzz/`. Nothing else may use it.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use watchword_proto::Frame;

use crate::logged::Logged;
use crate::network::{self, Append};
use crate::propose::{ProposeError, Proposed};
use crate::read::ReadError;
use crate::runtime::{SnapshotMeta, TypeConfig, Vote};
use crate::survey::Report;

/// Reads a message of one kind and encodes it again.
type Again = fn(&Frame) -> Option<Vec<u8>>;

/// The kinds of messages between peers.
const KINDS: [(&str, Again); 13] = [
    ("entries", encoded_again::<Append>),
    ("answer to entries", encoded_again::<AppendEntriesResponse<TypeConfig>>),
    ("answer to a stream of entries", encoded_again::<StreamAppendResult<TypeConfig>>),
    ("vote request", encoded_again::<VoteRequest<TypeConfig>>),
    ("vote", encoded_again::<VoteResponse<TypeConfig>>),
    ("transfer of the lead", encoded_again::<TransferLeaderRequest<TypeConfig>>),
    ("answer to a transfer", encoded_again::<TransferLeaderResponse<TypeConfig>>),
    ("description of a snapshot", encoded_again::<(Vote, SnapshotMeta, u64)>),
    ("answer to a snapshot", encoded_again::<SnapshotResponse<TypeConfig>>),
    ("proposals", encoded_again::<Vec<Logged>>),
    ("answer to proposals", encoded_again::<Vec<Result<Proposed, ProposeError>>>),
    ("index to read at", encoded_again::<Result<u64, ReadError>>),
    ("report", encoded_again::<Report>),
];

/// Reads `bytes` as a message of each kind. Gives the kinds that they are one of, each with the
/// message encoded again; empty where that fails.
pub fn read_as_every_message(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let frame = Frame { data: Bytes::copy_from_slice(bytes) };
    KINDS.iter().filter_map(|(kind, again)| Some((*kind, again(&frame)?))).collect()
}

fn encoded_again<T: Serialize + DeserializeOwned>(frame: &Frame) -> Option<Vec<u8>> {
    let message = network::open::<T>(frame).ok()?;
    Some(network::frame(&message).map(|frame| frame.data.to_vec()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use watchword_core::codec;

    use super::*;

    proptest! {
        #[test]
        fn what_a_peer_sends_is_read_or_refused_and_what_was_read_is_stable(
            bytes in any::<Vec<u8>>(),
        ) {
            // The first byte names the format: few random ones would get past it.
            for bytes in [&bytes[..], &[&[1], &bytes[..]].concat()] {
                for (kind, again) in read_as_every_message(bytes) {
                    let read = read_as_every_message(&again);
                    prop_assert!(read.contains(&(kind, again)), "{}: {:?}", kind, read);
                }
            }
        }
    }

    #[test]
    fn a_number_of_entries_that_cannot_be_there_is_refused_before_memory_is_taken() {
        let claimed = codec::encode(&u64::MAX).expect("encodes");
        assert_eq!(read_as_every_message(&claimed), []);
    }
}

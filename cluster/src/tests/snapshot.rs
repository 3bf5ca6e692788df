//! A snapshot that came from a leader.

use std::time::Duration;

use openraft::storage::RaftStateMachine;
use watchword_core::State;

use super::*;
use crate::memory::MemoryDisk;
use crate::runtime::{SnapshotMeta, StoredMembership};
use crate::snapshot::{Shelf, SnapshotData};
use crate::state_machine::StateMachine;

#[tokio::test(start_paused = true)]
async fn a_received_snapshot_is_kept_and_only_if_it_can_be_decoded() {
    let disk = MemoryDisk::new(Duration::from_millis(1));
    let shelf = Shelf::new(Medium::Memory(disk.clone()), None);
    let mut state_machine = StateMachine::new(shelf, Arc::default());
    let mut state = State::default();
    // Long enough for several pieces.
    for index in 0..5000 {
        let entry = Entry { time: Timestamp(index), command: add_user(index) };
        state.apply(index, &entry);
    }
    let bytes = state.encode().expect("encodes");
    assert!(bytes.len() > 3 * storage::CHUNK_BYTES);
    let meta = SnapshotMeta {
        last_log_id: Some(log_id(2, 1, 4999)),
        last_membership: StoredMembership::default(),
    };

    let torn = SnapshotData::Received(bytes[..bytes.len() / 2].into());
    assert!(state_machine.install_snapshot(&meta, torn).await.is_err());
    assert!(state_machine.get_current_snapshot().await.expect("asks").is_none());

    let whole = SnapshotData::Received(bytes.as_slice().into());
    state_machine.install_snapshot(&meta, whole).await.expect("installed");
    let digest = |machine: &StateMachine| machine.view().look(State::digest).expect("encodes");
    assert_eq!(digest(&state_machine), state.digest().expect("encodes"));

    // It is on the disk: another state machine finds it after a crash.
    let left = disk.crash(0, 0);
    let recovered = left.recovered();
    let shelf = Shelf::new(Medium::Memory(left), recovered.snapshot);
    let mut state_machine = StateMachine::new(shelf, Arc::default());
    state_machine.restore().await.expect("restored");
    assert_eq!(state_machine.applied(), meta.last_log_id);
    assert_eq!(digest(&state_machine), state.digest().expect("encodes"));
}

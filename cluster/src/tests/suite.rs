//! openraft's own tests of a log and a state machine, on both media.

use std::time::Duration;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use tempfile::TempDir;

use crate::disk::Disk;
use crate::log_store::LogStore;
use crate::medium::{Medium, Recovered};
use crate::memory::MemoryDisk;
use crate::runtime::TypeConfig;
use crate::snapshot::Shelf;
use crate::state_machine::StateMachine;
use crate::storage;

struct OnDisk;
struct InMemory;

fn stores(medium: Medium, recovered: &Recovered) -> (LogStore, StateMachine) {
    let log = LogStore::new(medium.clone(), recovered);
    (
        log,
        StateMachine::new(
            Shelf::new(medium, recovered.snapshot.clone()),
            std::sync::Arc::default(),
        ),
    )
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("a directory");
        storage::create(dir.path(), 0, None).expect("created");
        let (storage, recovered) = storage::open(dir.path(), Some(0)).expect("opened");
        let disk = Disk::start(storage, &recovered).expect("a thread");
        let (log, state_machine) = stores(Medium::Disk(disk), &recovered);
        Ok((dir, log, state_machine))
    }
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine> for InMemory {
    async fn build(&self) -> Result<((), LogStore, StateMachine), StorageError<TypeConfig>> {
        let disk = MemoryDisk::new(Duration::from_micros(50));
        let recovered = disk.recovered();
        let (log, state_machine) = stores(Medium::Memory(disk), &recovered);
        Ok(((), log, state_machine))
    }
}

#[test]
fn the_durable_store_passes_openrafts_suite() {
    TypeConfig::run(async { Suite::test_all(OnDisk).await }).expect("passes");
}

#[test]
fn the_store_in_memory_passes_openrafts_suite() {
    TypeConfig::run(async { Suite::test_all(InMemory).await }).expect("passes");
}

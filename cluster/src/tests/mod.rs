//! Tests that break the store, or look at it between two steps of a write.

#[path = "../../tests/common/mod.rs"]
mod common;

mod crash;
mod damage;
mod fault;
mod full;
#[path = "../../tests/common/members.rs"]
mod members;
mod membership;
mod peer;
mod snapshot;
mod suite;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::EntryPayload;
use openraft::entry::RaftEntry as _;
use watchword_core::time::Timestamp;
use watchword_core::{Command, Entry};

use common::add_user;

use crate::block::log_id;
use crate::disk::Disk;
use crate::logged::Logged;
use crate::medium::Medium;
use crate::probe::Probe;
use crate::runtime::RaftEntry;
use crate::storage::{self, OpenError};
use crate::{Cluster, Options};

/// A log entry that adds the user whose number is its index.
fn entry(term: u64, index: u64) -> RaftEntry {
    let entry = Entry { time: Timestamp(index), command: add_user(index) };
    RaftEntry::new(
        log_id(term, 1, index),
        EntryPayload::Normal(Logged::new(entry).expect("encodes")),
    )
}

fn options(dir: &Path) -> Options {
    Options::new(dir, 1, Arc::new(|| Timestamp(1_700_000_000_000)))
}

/// Opens a store in which `probe` looks at, or breaks, every step.
async fn open_probed(options: Options, probe: Probe) -> Result<Cluster, OpenError> {
    let (mut storage, recovered) = storage::open(&options.data_dir, Some(options.node_id))?;
    storage.set_probe(probe);
    let disk = Disk::start(storage, &recovered).expect("a thread");
    Cluster::start(options, Medium::Disk(disk), recovered).await
}

/// Copies a directory with everything in it: what a process that dies now would leave.
fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            copy_file(&path, &target);
        }
    }
}

/// Copies a file without writing the holes and zeros that make up most of a small database.
fn copy_file(from: &Path, to: &Path) {
    use std::io::{Seek, SeekFrom, Write};
    let bytes = fs::read(from).expect("readable");
    let mut file = fs::File::create(to).expect("creatable");
    file.set_len(bytes.len() as u64).expect("a length");
    for (number, page) in (0u64..).zip(bytes.chunks(4096)) {
        if page.iter().any(|&byte| byte != 0) {
            file.seek(SeekFrom::Start(number * 4096)).expect("a place");
            file.write_all(page).expect("written");
        }
    }
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

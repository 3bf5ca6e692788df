//! The first node of a cluster: what becomes of an `init` or `restore` that is cut off, and of a node
//! that has lost its store.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use crate::backup::{backup, node_to_back_up, passphrase};
use crate::harness::{Directory, Node};

/// Something that a command trips over, as if it were cut off there.
pub(crate) struct Obstacle(PathBuf);

impl Obstacle {
    /// A directory where a file is to be written.
    pub(crate) fn directory(path: PathBuf) -> Self {
        DirBuilder::new().mode(0o700).create(&path).expect("made");
        Self(path)
    }

    pub(crate) fn clear(self) {
        if self.0.is_dir() {
            fs::remove_dir(&self.0).expect("removed");
        } else {
            fs::remove_file(&self.0).expect("removed");
        }
    }
}

/// Makes the data directory as an operator may.
pub(crate) fn make_data(directory: &Directory) {
    DirBuilder::new().mode(0o700).create(directory.path("data")).expect("made");
}

/// A file where the store is to be built.
pub(crate) fn obstruct_store(directory: &Directory) -> Obstacle {
    let path = directory.path("data/raft.new");
    fs::write(&path, "in the way").expect("written");
    Obstacle(path)
}

/// What `init`, or `restore`, trips over, in the order in which it comes to it.
fn obstacles(directory: &Directory, store: Obstacle) -> [Obstacle; 2] {
    [Obstacle::directory(directory.path("data/identity.json.new")), store]
}

fn is_being_founded(directory: &Directory) -> bool {
    directory.path("data/founding").exists()
}

/// Others join it by the token that a command has printed.
fn admits(first: &Node, said: &str) {
    let token = said.split("--token ").nth(1).and_then(|rest| rest.split(' ').next());
    let _second = Directory::for_peers().join(first, token.expect("a token"));
    first.wait_for_voters(2);
}

#[test]
fn an_init_that_is_cut_off_anywhere_is_finished_by_the_same_command() {
    let directory = Directory::for_peers();
    make_data(&directory);
    // Without a data key nothing has begun.
    let obstacle = Obstacle::directory(directory.path("data/keyring.json.new"));
    directory.cli(&["init"]).refused();
    obstacle.clear();
    assert!(!is_being_founded(&directory));
    // Unless it was killed right before.
    directory.write_file("data/founding", "init\n");
    let store = obstruct_store(&directory);
    for obstacle in obstacles(&directory, store) {
        directory.cli(&["init"]).refused();
        assert!(is_being_founded(&directory) && !directory.path("data/raft").exists());
        let cut_off = directory.cli(&["serve"]).refused();
        assert!(cut_off.contains("`watchword init` was cut off"), "{cut_off}");
        obstacle.clear();
    }
    let said = directory.cli(&["init"]).done();
    assert!(!is_being_founded(&directory));
    let first = directory.serve();
    admits(&first, &said);
}

#[test]
fn an_init_that_fails_on_a_store_that_is_there_goes_on_with_it() {
    let directory = Directory::for_peers();
    let file = fs::read_to_string(directory.config()).expect("its file");
    // The state machine takes no address as long as this.
    let advertise = format!("[peers]\nadvertise = \"{}:7400\"\n", "a".repeat(300));
    directory.write_file("watchword.toml", &file.replacen("[peers]\n", &advertise, 1));
    for _ in 0..2 {
        let refused = directory.cli(&["init"]).refused();
        assert!(refused.contains("address"), "{refused}");
        assert!(is_being_founded(&directory) && directory.path("data/raft").exists());
    }
    directory.write_file("watchword.toml", &file);
    directory.cli(&["init"]).done();
    // Cut off at its very end: it only makes another token.
    directory.write_file("data/founding", "init\n");
    let said = directory.cli(&["init"]).done();
    assert!(!is_being_founded(&directory));
    let again = directory.cli(&["init"]).refused();
    assert!(again.contains("there is a node in"), "{again}");
    let first = directory.serve();
    admits(&first, &said);
}

#[test]
fn a_start_founds_what_an_init_has_left_and_ends_its_making() {
    let directory = Directory::initialised();
    directory.write_file("data/founding", "init\n");
    let node = directory.serve();
    assert!(!is_being_founded(node.directory()));
    node.token(&[]);
    let directory = node.kill();
    // From here on it has promised something.
    fs::remove_dir_all(directory.path("data/raft")).expect("removed");
    for command in [&["init"][..], &["serve"]] {
        let refused = directory.cli(command).refused();
        assert!(refused.contains("the store of node 1 is gone"), "{refused}");
    }
}

#[test]
fn a_restore_that_is_cut_off_anywhere_is_finished_by_the_same_command() {
    let node = node_to_back_up();
    let file = backup(&node);
    let directory = Directory::for_peers();
    make_data(&directory);
    let passphrase = passphrase(&directory);
    let restore = ["restore", &file, "--passphrase-file", &passphrase];
    directory.write_file("data/founding", "restore\n");
    // As one leaves it that is cut off while it fills the store: no store at all.
    let store = directory.path("data/raft.restore");
    fs::write(&store, "in the way").expect("written");
    for obstacle in obstacles(&directory, Obstacle(store)) {
        directory.cli(&restore).refused();
        assert!(is_being_founded(&directory) && !directory.path("data/raft").exists());
        for command in ["serve", "init"] {
            let cut_off = directory.cli(&[command]).refused();
            assert!(cut_off.contains("`watchword restore` was cut off"), "{cut_off}");
        }
        obstacle.clear();
    }
    fs::create_dir_all(directory.path("data/raft.restore/raft/sled")).expect("half a store");
    directory.cli(&restore).done();
    assert!(!is_being_founded(&directory) && !directory.path("data/raft.restore").exists());
    directory.write_file("data/founding", "restore\n");
    let again = directory.cli(&restore).refused();
    assert!(again.contains("run it: watchword serve"), "{again}");
    let first = directory.serve();
    assert!(!is_being_founded(first.directory()));
    first.user("alice");
}

#[test]
fn a_restore_never_takes_up_a_node_of_the_cluster_that_the_backup_is_of() {
    let node = node_to_back_up();
    let file = backup(&node);
    let (directory, _) = node.stop();
    let passphrase = passphrase(&directory);
    let restore = ["restore", &file, "--passphrase-file", &passphrase];
    fs::remove_dir_all(directory.path("data/raft")).expect("removed");
    let refused = directory.cli(&restore).refused();
    assert!(refused.contains("the store of node 1 is gone"), "{refused}");
    // Nor when the directory says that a restore has begun.
    directory.write_file("data/founding", "restore\n");
    let refused = directory.cli(&restore).refused();
    assert!(refused.contains("the very cluster that the backup is of"), "{refused}");
    assert!(!directory.path("data/raft").exists());
}

//! How far the making of a node has come, as its data directory tells.
//!
//! `init`, `restore` and `join` may be cut off anywhere and are finished by the same command. Each says
//! in the directory that it has begun, before anything else: an identity without a store is what it
//! leaves halfway, but also what is left of a node that has lost its store. Such a node must never go
//! on. Under its id it has promised what it no longer knows: votes, and entries that others count on.
//!
//! ```text
//! data_dir/founding      `init` or `restore` is under way
//! data_dir/join.key      `join` is under way: the key that the node asks with
//! ```

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use watchword_cluster::Cluster;
use watchword_core::node::NodeId;

use crate::identity::{Identity, IdentityError};
use crate::keys::{KeyError, Keyring, remove_private, replace_private};

/// Says that a cluster is being founded, and by which command.
const FOUNDING_FILE: &str = "founding";
/// The key of a join that is under way.
const JOIN_KEY_FILE: &str = "join.key";

/// A command that makes a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// Of a new cluster.
    Init,
    /// Of a new cluster that begins with a backup.
    Restore,
    /// Of a cluster that is there.
    Join,
}

impl fmt::Display for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Init => "init",
            Self::Restore => "restore",
            Self::Join => "join",
        })
    }
}

/// What is in a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing of a node.
    Empty,
    /// A node without a store, whose making has begun.
    Begun(Maker),
    /// A node with its store. Its maker may have been cut off before it said that it was done.
    Made(Option<Maker>),
}

/// Why a directory is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The node has forgotten everything but who it is.
    #[error(
        "the store of node {node} is gone from {data_dir}, and the node must not come back without it; \
         run `watchword replace {node} --yes` on another node, empty {data_dir} and join with the token \
         that it prints; if there is no other node, empty {data_dir} and restore a backup"
    )]
    StoreGone {
        /// The node.
        node: NodeId,
        /// The directory.
        data_dir: PathBuf,
    },
    /// The command was cut off, and another one is tried.
    #[error(
        "`watchword {maker}` was cut off in {data_dir}; give the same command again, or empty the \
         directory"
    )]
    CutOff {
        /// The command.
        maker: Maker,
        /// The directory.
        data_dir: PathBuf,
    },
    /// There is a node.
    #[error("there is a node in {0} already; run it: watchword serve")]
    Made(PathBuf),
    /// There is a data key of nobody.
    #[error("{0} holds a data key, but neither a node nor what has begun to make one; empty it")]
    KeyAlone(PathBuf),
    /// The mark is none.
    #[error("{0} is damaged or from a newer release")]
    Malformed(PathBuf),
    /// The directory cannot be looked into.
    #[error("cannot access {path}")]
    Io {
        /// What exactly.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A mark cannot be written or removed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The identity cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Stage {
    /// What is in `data_dir`.
    ///
    /// # Errors
    /// When it cannot be told, or is nothing that anybody may go on with.
    pub fn of(data_dir: &Path) -> Result<Self, StageError> {
        let maker = maker(data_dir)?;
        let is_made = Cluster::is_made(data_dir)
            .map_err(|source| StageError::Io { path: data_dir.to_owned(), source })?;
        match (is_made, maker) {
            (true, maker) => Ok(Self::Made(maker)),
            (false, Some(maker)) => Ok(Self::Begun(maker)),
            (false, None) if Identity::exists(data_dir) => {
                let node = Identity::node_in(data_dir)?;
                Err(StageError::StoreGone { node, data_dir: data_dir.to_owned() })
            }
            (false, None) if Keyring::exists(data_dir) => {
                Err(StageError::KeyAlone(data_dir.to_owned()))
            }
            (false, None) => Ok(Self::Empty),
        }
    }

    /// Begins, or goes on with, what `maker` does; says how far that has come.
    ///
    /// # Errors
    /// When there is a node already that it has not made, or another maker was cut off.
    pub fn begin(data_dir: &Path, maker: Maker) -> Result<Self, StageError> {
        let stage = Self::of(data_dir)?;
        match stage {
            Self::Begun(other) if other != maker => {
                Err(StageError::CutOff { maker: other, data_dir: data_dir.to_owned() })
            }
            Self::Made(found) if found != Some(maker) => Err(StageError::Made(data_dir.to_owned())),
            Self::Begun(_) | Self::Made(_) => Ok(stage),
            Self::Empty => {
                // A join's mark is its key.
                if maker != Maker::Join {
                    let text = format!("{maker}\n");
                    replace_private(&data_dir.join(FOUNDING_FILE), text.as_bytes())?;
                }
                Ok(Self::Begun(maker))
            }
        }
    }

    /// Removes what says that the node is being made. From now on a directory that holds an identity
    /// and no store is refused.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn finish(data_dir: &Path) -> Result<(), StageError> {
        remove_private(&join_key(data_dir))?;
        Ok(remove_private(&data_dir.join(FOUNDING_FILE))?)
    }
}

/// Where the key of a join is kept while it is under way.
pub fn join_key(data_dir: &Path) -> PathBuf {
    data_dir.join(JOIN_KEY_FILE)
}

/// Who has begun to make a node in `data_dir` and has not said that it is done.
fn maker(data_dir: &Path) -> Result<Option<Maker>, StageError> {
    let path = data_dir.join(FOUNDING_FILE);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| StageError::Io { path, source }
    };
    let founding = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        read => Some(read.map_err(failed(&path))?),
    };
    match founding.as_deref().map(str::trim_end) {
        Some("init") => return Ok(Some(Maker::Init)),
        Some("restore") => return Ok(Some(Maker::Restore)),
        Some(_) => return Err(StageError::Malformed(path)),
        None => {}
    }
    let path = join_key(data_dir);
    let is_joining = path.try_exists().map_err(failed(&path))?;
    Ok(is_joining.then_some(Maker::Join))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory")
    }

    #[test]
    fn what_a_maker_has_begun_is_its_own_until_it_is_done() {
        for maker in [Maker::Init, Maker::Restore] {
            let dir = directory();
            let dir = dir.path();
            assert_eq!(Stage::of(dir).expect("told"), Stage::Empty);
            for _ in 0..2 {
                let begun = Stage::begin(dir, maker).expect("begun");
                assert_eq!((begun, Stage::of(dir).expect("told")), (begun, Stage::Begun(maker)));
            }
            let others = [Maker::Init, Maker::Restore, Maker::Join];
            for other in others.into_iter().filter(|&other| other != maker) {
                let refused = Stage::begin(dir, other);
                assert!(
                    matches!(refused, Err(StageError::CutOff { maker: by, .. }) if by == maker)
                );
            }
            fs::create_dir(dir.join("raft")).expect("made");
            assert_eq!(Stage::begin(dir, maker).expect("begun"), Stage::Made(Some(maker)));
            Stage::finish(dir).expect("done");
            assert_eq!(Stage::of(dir).expect("told"), Stage::Made(None));
            for maker in others {
                assert!(matches!(Stage::begin(dir, maker), Err(StageError::Made(_))));
            }
            Stage::finish(dir).expect("that it was done already is no error");
        }
    }

    #[test]
    fn a_data_key_that_nobody_has_begun_with_is_nobodys_to_go_on_with() {
        let dir = directory();
        fs::write(dir.path().join("keyring.json"), "{}").expect("written");
        assert!(matches!(Stage::of(dir.path()), Err(StageError::KeyAlone(_))));
        fs::write(join_key(dir.path()), "key").expect("written");
        assert_eq!(Stage::of(dir.path()).expect("told"), Stage::Begun(Maker::Join));
    }

    #[test]
    fn a_mark_that_says_something_else_is_refused() {
        let dir = directory();
        fs::write(dir.path().join(FOUNDING_FILE), "").expect("written");
        assert!(matches!(Stage::of(dir.path()), Err(StageError::Malformed(_))));
    }
}

//! Each host's disk: an ext4 of its own whose power can be cut.
//!
//! The file system is in a sparse file in memory. A cut is ext4's own shutdown without a flush of
//! its journal: what was not synced never reaches the file, and mounting it again replays the
//! journal as after a real loss of power. The mount options ask for what a program must be ready for:
//! nothing is written unasked for minutes, and a rename brings no data along. A disk's own cache is
//! not imitated: what the file system has handed down is there.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use serde::Serialize;

use super::{run, sys};
use crate::wait;

/// Size of a disk. Only what is written takes memory.
const BYTES: u64 = 400 << 20;
/// How the images are called, so that those which an earlier run left behind are known as ours.
const PREFIX: &str = "watchword-jepsen-";
/// The file that fills a disk.
const FILLER: &str = ".filled-by-the-laboratory";
/// How long a process that was killed may hold the file system.
const RELEASE: Duration = Duration::from_secs(10);

/// One host's disk, mounted.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    root: PathBuf,
}

/// Room on a disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// In all.
    pub size: u64,
    /// Not used yet.
    pub free: u64,
}

impl Disk {
    /// Makes an empty disk for the host `name` in the directory `images`, mounted at `root`.
    pub(super) fn make(images: &Path, name: &str, root: PathBuf) -> Result<Self> {
        let image = images.join(format!("{PREFIX}{name}.img"));
        File::create_new(&image)
            .and_then(|file| file.set_len(BYTES))
            .with_context(|| format!("making {}", image.display()))?;
        // No reserve for root: as root we would be the only one to use it.
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-N", "4096"]).arg(&image))?;
        fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
        let disk = Self { image, root };
        disk.mount()?;
        Ok(disk)
    }

    /// The directory that it is mounted at.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Cuts the power: from now on nothing reaches the disk, and every write fails.
    ///
    /// The caller has [halted](super::process::halt) whoever uses it: a sync that is under way
    /// while the kernel gives its journal up may be told that it has succeeded, and whoever hears
    /// that would acknowledge what is lost. He then kills them, and [mounts it
    /// again](Self::remount).
    ///
    /// # Errors
    /// When the kernel refuses, or a write still succeeds.
    pub fn cut(&self) -> Result<()> {
        let root = File::open(&self.root).context("opening the disk")?;
        sys::shut_down_ext4(&root).context("shutting the file system down")?;
        let written = fs::write(self.root.join("written-without-power"), "x");
        ensure!(written.is_err(), "the power is cut, but {} can be written", self.root.display());
        Ok(())
    }

    /// Mounts it again, and tells whether there was a journal to recover, which is so after a cut.
    ///
    /// # Errors
    /// When somebody still uses it, or it cannot be mounted.
    pub fn remount(&self) -> Result<bool> {
        self.unmount()?;
        let recovers = self.has_journal_to_recover()?;
        self.mount()?;
        Ok(recovers)
    }

    /// Leaves no room, and tells how many bytes it took.
    ///
    /// # Errors
    /// When a write still succeeds afterwards.
    pub fn fill(&self) -> Result<u64> {
        let path = self.root.join(FILLER);
        let filler = File::options().create(true).append(true).open(&path).context("the filler")?;
        let mut filled = filler.metadata().context("the filler")?.len();
        let begun = filled;
        // In ever smaller steps, because a step that does not fit takes nothing.
        let mut step = BYTES;
        while step >= 1024 {
            match fallocate(&filler, FallocateFlags::empty(), filled, step) {
                Ok(()) => filled += step,
                Err(Errno::NOSPC) => step /= 2,
                Err(error) => return Err(error).context("filling the disk"),
            }
        }
        let probe = self.root.join(".probe");
        let written = File::create(&probe).and_then(|mut file| {
            file.write_all(&[1; 8192])?;
            file.sync_all()
        });
        // The probe is there, empty, when only its content found no room.
        let _ = fs::remove_file(&probe);
        match written {
            Err(error) if error.kind() == ErrorKind::StorageFull => Ok(filled - begun),
            Err(error) => Err(error).context("probing the full disk"),
            Ok(()) => bail!("{} was filled, but can be written", self.root.display()),
        }
    }

    /// Gives the room back that [`fill`](Self::fill) took.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn free(&self) -> Result<()> {
        match fs::remove_file(self.root.join(FILLER)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("freeing"),
            _ => Ok(()),
        }
    }

    /// How full it is.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn usage(&self) -> Result<Usage> {
        let stat = statvfs(&self.root).context("asking how full the disk is")?;
        Ok(Usage { size: stat.f_blocks * stat.f_frsize, free: stat.f_bavail * stat.f_frsize })
    }

    fn mount(&self) -> Result<()> {
        // `mount` makes the loop device such that it goes with the mount, however that ends.
        let options = "loop,commit=300,noauto_da_alloc";
        run(Command::new("mount")
            .args(["-t", "ext4", "-o", options])
            .arg(&self.image)
            .arg(&self.root))
    }

    fn unmount(&self) -> Result<()> {
        let mut result = Ok(());
        wait::holds(RELEASE, || {
            result = match unmount(&self.root, UnmountFlags::empty()) {
                // Not mounted: the last try has got as far as this.
                Err(Errno::INVAL) => Ok(()),
                result => result,
            };
            // Busy as long as one who was killed is on his way out.
            result != Err(Errno::BUSY)
        });
        result.with_context(|| format!("unmounting {}", self.root.display()))
    }

    /// Reads it from the superblock: `EXT4_FEATURE_INCOMPAT_RECOVER`.
    fn has_journal_to_recover(&self) -> Result<bool> {
        const INCOMPATIBLE_FEATURES: u64 = 1024 + 0x60;
        const RECOVER: u8 = 0x4;
        let mut flags = [0];
        let mut image = File::open(&self.image).context("opening the image")?;
        image.seek(SeekFrom::Start(INCOMPATIBLE_FEATURES)).context("the superblock")?;
        image.read_exact(&mut flags).context("the superblock")?;
        Ok(flags[0] & RECOVER != 0)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever still uses it is about to be killed. The loop device goes with the last.
        let _ = unmount(&self.root, UnmountFlags::DETACH);
    }
}

/// Detaches loop devices that an earlier run left behind, and returns their names.
///
/// One that another laboratory uses now stays: the kernel detaches it when that one is done.
///
/// # Errors
/// When `losetup` fails.
pub fn detach_leftovers() -> Result<Vec<String>> {
    let devices = devices()?;
    for device in &devices {
        // Another laboratory may have ended, and its devices with it, since the list was made.
        if let Err(error) = run(Command::new("losetup").args(["-d", device]))
            && self::devices()?.contains(device)
        {
            return Err(error);
        }
    }
    Ok(devices)
}

/// The loop devices of laboratories, of this one and of others.
fn devices() -> Result<Vec<String>> {
    let list =
        Command::new("losetup").args(["--noheadings", "--raw", "-O", "NAME,BACK-FILE"]).output();
    let list = list.context("running losetup")?;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let ours = list.lines().filter_map(|line| {
        let (device, file) = line.split_once(' ')?;
        file.rsplit('/').next()?.starts_with(PREFIX).then(|| device.to_owned())
    });
    Ok(ours.collect())
}

//! A store that is not what was written. Its node must refuse to start, say so, and be replaced.
//!
//! Never for more members than may be lost: it takes only one that a ready majority can do without,
//! and keeps it until it was replaced.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use super::field::Resource;
use super::{Field, Nemesis, Outcome};
use crate::lab::between;
use crate::rng::Rng;

/// How many bits are flipped. Many, because most of a store's file may be old and never read again.
const FLIPS: usize = 64;

/// How it is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bits are flipped.
    Flip,
    /// The file is shorter.
    Truncate,
}

/// A store that may be damaged.
pub(super) struct Damage {
    kind: Kind,
    host: Option<usize>,
}

impl Damage {
    /// Damage of that kind, not done yet.
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, host: None }
    }
}

impl Nemesis for Damage {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Flip => "damage-flip",
            Kind::Truncate => "damage-truncate",
        }
    }

    fn start(&mut self, field: &Field, rng: &mut Rng) -> Result<Outcome> {
        if self.host.is_some() {
            return Ok(Outcome::skipped("a store is damaged already"));
        }
        let Some(host) = field.claim_expendable(rng) else {
            return Ok(Outcome::skipped("no member can be spared now"));
        };
        // What is applied was committed: nothing may take it away, but what happens here.
        let Some(before) = field.system.applied(host) else {
            field.release(Resource::Node(host));
            return Ok(Outcome::skipped("the node does not say what it holds"));
        };
        self.host = Some(host);
        field.system.stop(host)?;
        let Some((file, length)) = largest(&field.system.store(host)?)? else {
            self.host = None;
            field.restart(&[host])?;
            return Ok(Outcome::skipped("the store has no file"));
        };
        let changed = match self.kind {
            Kind::Flip => flip(&file, length, rng)?,
            Kind::Truncate => truncate(&file, length, rng)?,
        };
        // Alone, so that nobody gives it what it has lost before it is asked.
        let others = (0..field.lab.hosts()).filter(|other| *other != host).collect();
        let links = between(&[vec![host], others]);
        field.lab.switch().cut(&links);
        let said = field.system.start_refused(host);
        let after = field.system.last_log(host);
        field.lab.switch().join(&links);
        let said = said?;
        let lost = after.map(|after| before.saturating_sub(after));
        let evidence = json!({
            "host": field.name(host),
            "file": file.file_name().map(|name| name.display().to_string()),
            "refused": said.is_some(),
            "said": said,
            "entries_lost": lost,
        });
        Ok(Outcome::of(changed, evidence))
    }

    fn stop(&mut self, field: &Field) -> Result<Outcome> {
        let Some(host) = self.host else {
            return Ok(Outcome::skipped("no store is damaged"));
        };
        field.system.replace(host)?;
        self.host = None;
        field.release(Resource::Node(host));
        let votes = field.system.members()?.contains(&host);
        Ok(Outcome::done(json!({"host": field.name(host), "votes": votes})))
    }
}

/// The largest file below `dir`, with its length.
fn largest(dir: &Path) -> Result<Option<(PathBuf, u64)>> {
    let mut largest = None;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
            let entry = entry.context("reading the store")?;
            let metadata = entry.metadata().context("reading the store")?;
            if metadata.is_dir() {
                dirs.push(entry.path());
            } else if largest.as_ref().is_none_or(|(_, length)| metadata.len() > *length) {
                largest = Some((entry.path(), metadata.len()));
            }
        }
    }
    Ok(largest)
}

/// Flips bits where there is something, and tells how many.
fn flip(path: &Path, length: u64, rng: &mut Rng) -> Result<u64> {
    let file = File::options().read(true).write(true).open(path).context("opening the store")?;
    let length = usize::try_from(length).context("the store's length")?;
    let mut flipped = 0;
    // Zeros are room that was never used; a flip there shows nothing.
    for _ in 0..100 * FLIPS {
        let (at, mut byte) = (rng.below(length) as u64, [0]);
        if file.read_at(&mut byte, at).context("reading the store")? == 1 && byte != [0] {
            byte[0] ^= 1 << rng.below(8);
            file.write_all_at(&byte, at).context("damaging the store")?;
            flipped += 1;
        }
        if flipped == FLIPS as u64 {
            break;
        }
    }
    file.sync_all().context("damaging the store")?;
    Ok(flipped)
}

/// Cuts off between a tenth and nine tenths, and tells how many bytes.
fn truncate(path: &Path, length: u64, rng: &mut Rng) -> Result<u64> {
    let kept = (length as f64 * (0.1 + 0.8 * rng.unit())) as u64;
    let file = File::options().write(true).open(path).context("opening the store")?;
    file.set_len(kept).and_then(|()| file.sync_all()).context("damaging the store")?;
    Ok(length - kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_file_is_damaged_and_the_damage_is_counted() {
        let dir = std::env::temp_dir().join(format!("jepsen-damage-{}", std::process::id()));
        fs::create_dir_all(dir.join("deep")).expect("a directory");
        let whole = vec![7; 100_000];
        fs::write(dir.join("small"), "x").expect("a file");
        fs::write(dir.join("deep/large"), &whole).expect("a file");
        let (file, length) = largest(&dir).expect("read").expect("a file");
        assert_eq!((file.clone(), length), (dir.join("deep/large"), 100_000));

        let flipped = flip(&file, length, &mut Rng::new(7)).expect("flipped");
        let damaged = fs::read(&file).expect("read");
        let differ = whole.iter().zip(&damaged).filter(|(whole, damaged)| whole != damaged).count();
        assert_eq!((flipped, differ), (64, 64));

        let cut = truncate(&file, length, &mut Rng::new(7)).expect("cut");
        assert_eq!(fs::metadata(&file).expect("metadata").len(), length - cut);
        assert!((10_000..=90_000).contains(&cut));
        fs::remove_dir_all(&dir).expect("removed");
    }
}

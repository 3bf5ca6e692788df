//! What a node holds, in one hash: two nodes that have applied the same entries must show the same.
//!
//! The product compares everything that its nodes hold by itself, and tells the result. This is the same
//! question asked from outside: what the command line lists, hashed, between two looks at the applied
//! index that agree. Only useful when nothing is written any more.

use anyhow::{Result, bail};
use serde_json::Value;
use sha1::{Digest as _, Sha1};

use super::Db;

/// Everything that can be listed, and that no clock changes by itself.
const LISTINGS: [&[&str]; 5] = [
    &["user", "list"],
    &["client", "list"],
    &["settings", "show"],
    &["attempts", "--limit", "1000"],
    &["token", "list"],
];

/// What a node holds at an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Index of the last entry applied.
    pub index: u64,
    /// Hash of all listings.
    pub hash: String,
    /// Latest checkpoint at which the product itself saw all equal.
    pub equal_at: Option<u64>,
    /// First checkpoint at which the product itself saw a difference.
    pub differs_at: Option<u64>,
}

impl Db {
    /// What the node on `host` holds.
    ///
    /// # Errors
    /// When it cannot be read, or something is still being written.
    pub fn digest(&self, host: usize) -> Result<Digest> {
        let before = self.status(host)?;
        let admin = self.admin(host)?;
        let mut hash = Sha1::new();
        for listing in LISTINGS {
            hash.update(admin.json(listing)?.to_string());
        }
        let after = self.status(host)?;
        let applied = |status: &Value| status.get("applied").and_then(Value::as_u64);
        let (Some(index), true) = (applied(&before), applied(&before) == applied(&after)) else {
            bail!("{} is still applying entries", self.name(host));
        };
        let at = |field: &str| after.get(field).and_then(Value::as_u64);
        let (equal_at, differs_at) = (at("states_equal_at"), at("states_differ_at"));
        let hash = hash.finalize().iter().map(|octet| format!("{octet:02x}")).collect();
        Ok(Digest { index, hash, equal_at, differs_at })
    }
}

//! The first factor: local passwords.
//!
//! argon2id takes tens of milliseconds of a core and 19 MiB, so comparisons run on blocking threads,
//! no more at once than there are cores; everything else keeps its latency. One that was right a moment ago is
//! recognised without that.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::Error;
use super::remembered::Remembered;
use crate::clock;
use crate::random::{self, RandomError};

/// Most memory that an imported hash may ask for, in KiB, and most passes and lanes: a comparison
/// must not exhaust the node.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
const PASSES_MAX: u32 = 10;
const LANES_MAX: u32 = 8;

/// Shortest and longest password, in bytes. RFC 2865 section 5.2 carries at most 128.
pub const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 1..=128;

/// How long a comparison may wait for its turn: less than a client waits for its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// There is no usable argon2id hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Not a PHC string of argon2id.
    #[error("the password hash is not an argon2id hash in PHC format ($argon2id$v=19$...)")]
    Malformed,
    /// Its parameters ask for too much.
    #[error(
        "the password hash asks for more than {} MiB, {PASSES_MAX} passes or {LANES_MAX} lanes",
        MEMORY_KIB_MAX / 1024
    )]
    TooExpensive,
    /// No salt could be drawn.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// There was no memory to hash in.
    #[error("the password could not be hashed")]
    Failed,
}

/// Compares passwords with hashes, a bounded number at a time.
#[derive(Clone)]
pub struct PasswordVerifierPool {
    permits: Arc<Semaphore>,
    /// `None` where no key for it could be drawn.
    remembered: Option<Arc<Remembered>>,
    /// What is compared with when there is no hash; a match counts for nothing.
    nobody: Arc<str>,
}

impl Default for PasswordVerifierPool {
    fn default() -> Self {
        Self::new(&NOBODY)
    }
}

impl PasswordVerifierPool {
    /// A pool that compares with the argon2id hash `nobody` when there is no hash: it takes the time of that.
    pub fn new(nobody: &str) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let remembered = Remembered::new().ok().map(Arc::new);
        Self { permits: Arc::new(Semaphore::new(cores)), remembered, nobody: nobody.into() }
    }

    /// Whether `password` has the argon2id hash `phc`: compared, unless it was found to have it less than `remembering`
    /// ago.
    pub(super) async fn recognise(
        &self,
        password: Zeroizing<Vec<u8>>,
        phc: Zeroizing<Vec<u8>>,
        remembering: Duration,
    ) -> Result<bool, Error> {
        let remembered = self.remembered.as_ref().filter(|_| !remembering.is_zero());
        let Some(remembered) = remembered else { return self.verify(password, Some(phc)).await };
        if remembered.knows(&password, &phc, clock::monotonic()) {
            return Ok(true);
        }
        let is_right = self.verify(password.clone(), Some(phc.clone())).await?;
        if is_right {
            let now = clock::monotonic();
            remembered.remember(&password, &phc, now, now + remembering);
        }
        Ok(is_right)
    }

    /// Whether `password` has the argon2id hash `phc`. Without a hash the answer is no, after the
    /// time that a comparison takes: who asks must not learn whether there is a user.
    pub(super) async fn verify(
        &self,
        password: Zeroizing<Vec<u8>>,
        phc: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<bool, Error> {
        // Nobody waits for the answer to a login that has waited longer, and a queue that is worked
        // off for nobody would keep everybody else out.
        let permit = self.permits.clone().acquire_owned();
        let permit = tokio::time::timeout(PATIENCE, permit).await.map_err(|_| Error::Overloaded)?;
        let permit = permit.map_err(|_| Error::Password)?;
        let nobody = self.nobody.clone();
        let compare = move || {
            let _permit = permit;
            let known = phc.as_deref().and_then(|phc| std::str::from_utf8(phc).ok());
            let matches = Argon2::default().verify_password(&password, known.unwrap_or(&nobody));
            known.is_some() && matches.is_ok()
        };
        watchword_cluster::off_thread(compare).await.map_err(|_| Error::Password)
    }
}

/// A hash of the usual cost.
static NOBODY: LazyLock<String> = LazyLock::new(|| {
    Argon2::default()
        .hash_password_with_salt(b"nobody", b"no user, no salt")
        .map(|hash| hash.to_string())
        .unwrap_or_default()
});

/// Hashes a password with argon2id, 19 MiB, two passes, one lane (RFC 9106; about 30 ms).
///
/// # Errors
/// When no salt can be drawn, or there is no memory to hash in.
pub fn hash_password(password: &[u8]) -> Result<Zeroizing<String>, HashError> {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT);
    let salt = random::bytes::<16>()?;
    argon2
        .hash_password_with_salt(password, &salt)
        .map(|hash| Zeroizing::new(hash.to_string()))
        .map_err(|_| HashError::Failed)
}

/// Checks a hash that somebody brings along.
///
/// # Errors
/// When it is not argon2id, or too expensive to compare with.
pub fn check_hash(phc: &str) -> Result<(), HashError> {
    let hash = PasswordHash::new(phc).map_err(|_| HashError::Malformed)?;
    if hash.algorithm.as_str() != "argon2id" || hash.hash.is_none() || hash.salt.is_none() {
        return Err(HashError::Malformed);
    }
    let params = Params::try_from(&hash).map_err(|_| HashError::Malformed)?;
    let affordable = params.m_cost() <= MEMORY_KIB_MAX
        && params.t_cost() <= PASSES_MAX
        && params.p_cost() <= LANES_MAX;
    if affordable { Ok(()) } else { Err(HashError::TooExpensive) }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn verify(password: &str, phc: Option<&str>) -> bool {
        let bytes = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
        let pool = PasswordVerifierPool::default();
        pool.verify(bytes(password), phc.map(bytes)).await.expect("pool runs")
    }

    #[tokio::test]
    async fn only_the_right_password_matches() {
        let hash = hash_password(b"correct horse").expect("hashes");
        assert!(verify("correct horse", Some(&hash)).await);
        assert!(!verify("correct horsf", Some(&hash)).await);
        assert!(!verify("", Some(&hash)).await);
    }

    #[tokio::test]
    async fn a_password_is_compared_once_in_a_while() {
        let bytes = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
        let pool = PasswordVerifierPool::default();
        let hash = hash_password(b"correct horse").expect("hashes");
        let recognise = async |password: &str, seconds| {
            let remembering = Duration::from_secs(seconds);
            pool.recognise(bytes(password), bytes(&hash), remembering).await
        };
        assert_eq!(recognise("correct horse", 60).await.ok(), Some(true));
        // Nobody can compare any more.
        pool.permits.close();
        assert_eq!(recognise("correct horse", 60).await.ok(), Some(true), "it is remembered");
        assert!(recognise("correct horse", 0).await.is_err(), "not where it shall not be");
        assert!(recognise("correct horsf", 60).await.is_err(), "a wrong one is compared");
    }

    #[tokio::test]
    async fn nothing_matches_without_a_hash() {
        assert!(!verify("nobody", None).await);
        assert!(!verify("nobody", Some("")).await);
        assert!(!verify("nobody", Some("$argon2id$v=19$m=19456,t=2,p=1$")).await);
    }

    #[test]
    fn imported_hashes_are_checked() {
        assert_eq!(check_hash(&hash_password(b"x").expect("hashes")), Ok(()));
        for text in ["", "x", "$2b$12$abcdefghijklmnopqrstuv", "$argon2id$v=19$m=19456,t=2,p=1"] {
            assert_eq!(check_hash(text), Err(HashError::Malformed), "{text}");
        }
        let greedy = "$argon2id$v=19$m=4194304,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg\
                      $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        assert_eq!(check_hash(greedy), Err(HashError::TooExpensive));
    }
}

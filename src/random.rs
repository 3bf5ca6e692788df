//! The only caller of the operating system's random number generator.

/// The generator failed: nothing that needs a fresh key, nonce or id can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the random number generator failed")]
pub struct RandomError;

/// `N` random bytes, fit for keys and nonces.
///
/// # Errors
/// When the generator fails.
pub fn bytes<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| RandomError)?;
    Ok(bytes)
}

//! The feature level: which commands every member of the cluster understands.

use super::Refusal;
use crate::state::State;

/// The highest level that this release understands.
pub const FEATURE_LEVEL: u32 = 1;

pub(super) fn enable(state: &mut State, level: u32) -> Result<(), Refusal> {
    if level > FEATURE_LEVEL {
        return Err(Refusal::FeatureDisabled(level));
    }
    // Levels only rise: entries of a level may be in the log already.
    state.feature_level = state.feature_level.max(level);
    Ok(())
}

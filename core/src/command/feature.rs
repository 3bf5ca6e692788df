//! The feature level: which commands every member of the cluster understands.

use crate::state::State;

/// The highest level that this release understands.
pub const FEATURE_LEVEL: u32 = 1;

/// The level of a new cluster. It never changes: a log that is replayed by a later release must begin
/// where it began.
pub(crate) const FIRST_FEATURE_LEVEL: u32 = 1;

/// What a level means to this release must not decide what an entry does, or releases would disagree
/// on it. A replica whose state has a level that it does not understand has to stop instead.
pub(super) fn enable(state: &mut State, level: u32) {
    // Levels only rise: entries of a level may be in the log already.
    state.feature_level = state.feature_level.max(level);
}

//! Commands about settings.

use std::sync::Arc;

use super::{Countable, Moment, Refusal, check_count};
use crate::limits::SETTING_CHANGES_MAX;
use crate::settings::{Setting, Value};
use crate::state::State;

pub(super) fn change(
    state: &mut State,
    at: Moment,
    by: &Arc<str>,
    if_revision: Option<u64>,
    changes: &[(Arc<str>, Option<Value>)],
) -> Result<(), Refusal> {
    let revision = state.settings.revision();
    if if_revision.is_some_and(|expected| expected != revision) {
        return Err(Refusal::RevisionPassed(revision));
    }
    check_count(changes.len(), SETTING_CHANGES_MAX, Countable::SettingChanges)?;
    for (key, value) in changes {
        let row = Setting::find(key).map_err(Refusal::Setting)?;
        if let Some(value) = value {
            row.check(value).map_err(Refusal::Setting)?;
        }
    }
    state.settings.change(at.index, at.now, by.clone(), changes);
    Ok(())
}

//! Settings: show, change, and go back.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use watchword_core::Command;
use watchword_core::settings::{Kind, Setting, SettingsChange, Value, table};

use super::{Admin, AdminError, rfc3339};

/// Changes to settings: key and text of the new value; `None` goes back to the default.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsEdit {
    /// What to change.
    pub changes: BTreeMap<String, Option<String>>,
    /// Only if the settings still have this revision.
    #[serde(default)]
    pub if_revision: Option<u64>,
}

/// All settings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SettingsView {
    /// Log index of the last change.
    pub revision: u64,
    /// One row per setting.
    pub settings: Vec<SettingView>,
}

/// One setting as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SettingView {
    /// Dotted name.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Whether that is the default.
    pub is_default: bool,
    /// What values it takes.
    pub range: String,
    /// What it does.
    pub doc: String,
}

/// One change as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SettingsChangeView {
    /// The revision that it made.
    pub revision: u64,
    /// When.
    pub time: String,
    /// Who.
    pub by: String,
    /// `key: before -> after`.
    pub changes: Vec<String>,
}

/// A change for people.
fn change_view(change: &SettingsChange) -> SettingsChangeView {
    let text = |value: &Option<Value>| match value {
        Some(value) => value.to_string(),
        None => "(default)".to_owned(),
    };
    let changes = &change.changes;
    SettingsChangeView {
        revision: change.revision,
        time: rfc3339(change.time),
        by: change.by.to_string(),
        changes: changes
            .iter()
            .map(|(key, before, after)| format!("{key}: {} -> {}", text(before), text(after)))
            .collect(),
    }
}

impl Admin {
    /// Every setting with its value.
    ///
    /// # Errors
    /// When no fresh state can be read.
    pub async fn settings(&self) -> Result<SettingsView, AdminError> {
        let state = self.state().await?;
        let settings = state.settings();
        let row = |setting: &Setting| SettingView {
            key: setting.key.to_owned(),
            value: settings.value(setting).to_string(),
            is_default: settings.explicit(setting.key).is_none(),
            range: match setting.kind {
                Kind::Integer { min, max, .. } => format!("{min} to {max}"),
                Kind::Text { .. } => "text".to_owned(),
            },
            doc: setting.doc.to_owned(),
        };
        Ok(SettingsView { revision: settings.revision(), settings: table().map(row).collect() })
    }

    /// Changes settings, all or none.
    ///
    /// # Errors
    /// Names the limit that a value breaks, or the revision that has passed.
    pub async fn edit_settings(
        &self,
        edit: SettingsEdit,
        by: &str,
    ) -> Result<SettingsView, AdminError> {
        let changes = edit
            .changes
            .iter()
            .map(|(key, text)| {
                let row = Setting::find(key)?;
                let value = text.as_deref().map(|text| row.parse(text)).transpose()?;
                Ok((Arc::from(row.key), value))
            })
            .collect::<Result<Vec<_>, watchword_core::settings::SettingError>>()
            .map_err(|error| AdminError::Invalid(error.to_string()))?;
        self.change_settings(changes, edit.if_revision, by).await
    }

    /// The latest changes, oldest first.
    ///
    /// # Errors
    /// When no fresh state can be read.
    pub async fn settings_history(&self) -> Result<Vec<SettingsChangeView>, AdminError> {
        let state = self.state().await?;
        Ok(state.settings().history().iter().map(change_view).collect())
    }

    /// Makes the settings what they were at `revision`, by a new change.
    ///
    /// # Errors
    /// When the history does not reach back that far.
    pub async fn roll_back_settings(
        &self,
        revision: u64,
        by: &str,
    ) -> Result<SettingsView, AdminError> {
        let state = self.state().await?;
        let changes = state.settings().changes_back_to(revision).ok_or_else(|| {
            AdminError::NotFound { what: "settings revision", name: revision.to_string() }
        })?;
        if changes.is_empty() {
            return self.settings().await;
        }
        self.change_settings(changes, Some(state.settings().revision()), by).await
    }

    async fn change_settings(
        &self,
        changes: Vec<(Arc<str>, Option<Value>)>,
        if_revision: Option<u64>,
        by: &str,
    ) -> Result<SettingsView, AdminError> {
        self.propose(Command::ChangeSettings { by: by.into(), if_revision, changes }).await?;
        self.settings().await
    }
}

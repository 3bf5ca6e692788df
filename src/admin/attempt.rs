//! The record of attempts, as administrators read it.

use serde::{Deserialize, Serialize};
use watchword_core::attempt::{Acceptance, Asker, Attempt, Verdict};
use watchword_core::state::State;

use super::{Admin, AdminError, find_user, rfc3339};

/// Attempts on one page at most.
const PAGE_MAX: usize = 1_000;

/// Which attempts to show.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttemptQuery {
    /// Only this user's.
    pub user: Option<String>,
    /// Only from this number on; absent: the latest.
    pub from: Option<u64>,
    /// At most so many.
    pub limit: Option<usize>,
    /// When there is none yet, wait for one, at most so many seconds.
    pub wait_seconds: Option<u64>,
}

/// One page of attempts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttemptsPage {
    /// The attempts, oldest first.
    pub attempts: Vec<AttemptView>,
    /// Where the next page begins.
    pub next: u64,
}

/// An attempt as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttemptView {
    /// Number in the record.
    pub number: u64,
    /// When it was decided.
    pub time: String,
    /// The user name as presented.
    pub username: String,
    /// Name of the client, or `console`.
    pub client: String,
    /// Where the user is, as far as the client tells.
    pub remote: String,
    /// Whether the user got in.
    pub accepted: bool,
    /// What the decision rests on.
    pub reason: String,
    /// The request.
    pub request: String,
}

impl Admin {
    /// Attempts, filtered.
    ///
    /// # Errors
    /// When there is no such user, or no fresh state can be read.
    pub async fn attempts(&self, query: AttemptQuery) -> Result<AttemptsPage, AdminError> {
        let wait = std::time::Duration::from_secs(query.wait_seconds.unwrap_or(0).min(60));
        let mut changes = self.cluster.changes();
        let deadline = tokio::time::Instant::now() + wait;
        let from = query.from;
        loop {
            let state = self.state().await?;
            let page = page(&state, &query)?;
            let waits = from.is_some_and(|from| state.attempts().next() <= from);
            if !page.attempts.is_empty() || !waits {
                return Ok(page);
            }
            let changed = self.stop.run_until_cancelled(changes.changed());
            match tokio::time::timeout_at(deadline, changed).await {
                Ok(Some(Ok(()))) => {}
                // The time is up, or the node stops: an empty page says so.
                Ok(Some(Err(_)) | None) | Err(_) => return Ok(page),
            }
        }
    }
}

fn page(state: &State, query: &AttemptQuery) -> Result<AttemptsPage, AdminError> {
    let user = match &query.user {
        Some(name) => Some(find_user(state, name)?.0),
        None => None,
    };
    let limit = query.limit.unwrap_or(100).clamp(1, PAGE_MAX);
    let record = state.attempts();
    let wanted = |attempt: &Attempt| user.is_none_or(|user| attempt.user == Some(user));
    let (numbers, next) = match query.from {
        Some(from) => {
            let numbers: Vec<u64> = record
                .iter_from(from)
                .filter(|(_, attempt)| wanted(attempt))
                .map(|(number, _)| number)
                .take(limit)
                .collect();
            let full = numbers.len() == limit;
            let next = numbers.last().filter(|_| full).map_or(record.next(), |last| last + 1);
            (numbers, next)
        }
        None => {
            let newest_first = (record.first()..record.next()).rev();
            let mut numbers: Vec<u64> = newest_first
                .filter(|&number| record.get(number).is_some_and(wanted))
                .take(limit)
                .collect();
            numbers.reverse();
            (numbers, record.next())
        }
    };
    let attempts = numbers
        .into_iter()
        .filter_map(|number| Some(view(state, number, record.get(number)?)))
        .collect();
    Ok(AttemptsPage { attempts, next })
}

fn view(state: &State, number: u64, attempt: &Attempt) -> AttemptView {
    let client = match attempt.asker {
        Asker::Console => "console".to_owned(),
        Asker::Client(id) => match state.client(id) {
            Some(client) => client.name.to_string(),
            None => format!("removed ({id})"),
        },
    };
    let (accepted, reason) = match attempt.verdict {
        Verdict::Accepted(Acceptance::Passcode(device)) => (true, format!("passcode of {device}")),
        Verdict::Accepted(Acceptance::Bypass) => (true, "one-time bypass".to_owned()),
        Verdict::Accepted(Acceptance::UnknownUser) => {
            (true, "unknown user, passed on the first factor".to_owned())
        }
        Verdict::Refused(reason) => (false, reason.to_string()),
    };
    AttemptView {
        number,
        time: rfc3339(attempt.time),
        username: printable(&attempt.username),
        client,
        remote: printable(&attempt.remote),
        accepted,
        reason,
        request: attempt.request.to_string(),
    }
}

/// The text as it may be shown on a terminal: outsiders wrote it.
fn printable(text: &str) -> String {
    let escaped = text.chars().map(|c| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    });
    escaped.collect()
}

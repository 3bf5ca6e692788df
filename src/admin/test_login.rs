//! One login from the administrator's desk, step by step.

use std::time::Duration;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use watchword_core::attempt::Asker;
use watchword_core::client::{ClientPolicy, FirstFactor, PasscodeInput};
use watchword_core::id::RequestId;
use zeroize::Zeroizing;

use super::client::find_client;
use super::{Admin, AdminError};
use crate::auth::{Credential, Outcome, Request, Trace};
use crate::random;

/// How long a login is tried.
const PATIENCE: Duration = Duration::from_secs(10);

/// A login to try. It is a real one: a right passcode is used up, a wrong one counts.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestLogin {
    /// The user.
    pub username: String,
    /// What the user would type.
    pub credential: String,
    /// The challenge that this answers, as the report before gave it.
    #[serde(default)]
    pub challenge: Option<String>,
    /// The client whose policy applies; absent: password and passcode are both checked here.
    #[serde(default)]
    pub client: Option<String>,
}

/// What happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TestReport {
    /// What was found, in order.
    pub steps: Vec<String>,
    /// `accept`, `reject` or `challenge`.
    pub outcome: String,
    /// Why, or what to ask for.
    pub detail: String,
    /// The challenge to answer.
    pub challenge: Option<String>,
}

impl Admin {
    /// Tries a login.
    ///
    /// # Errors
    /// When there is no such client, or nothing could be decided.
    pub async fn test_login(&self, login: TestLogin) -> Result<TestReport, AdminError> {
        let policy = match &login.client {
            Some(name) => find_client(&self.state().await?, name)?.1.policy.clone(),
            None => ClientPolicy {
                first_factor: FirstFactor::local(),
                require_user_match: true,
                passcode_input: PasscodeInput::Auto,
            },
        };
        let challenge = match &login.challenge {
            Some(text) => Some(
                BASE64
                    .decode(text.as_bytes())
                    .map_err(|_| AdminError::Invalid("the challenge is not base64".to_owned()))?
                    .into(),
            ),
            None => None,
        };
        let trace = Trace::default();
        let request = Request {
            id: RequestId(random::bytes()?),
            asker: Asker::Console,
            client_revision: 0,
            policy,
            username: login.username.as_str().into(),
            credential: Credential::Typed(Zeroizing::new(login.credential.into_bytes())),
            attributes: Vec::new(),
            challenge,
            remote: "console".into(),
            patience: PATIENCE,
            trace: Some(trace.clone()),
        };
        let outcome = self.authenticator.authenticate(&request).await?;
        let (outcome, detail, challenge) = match outcome {
            Outcome::Accept { attempt, .. } => ("accept", format!("attempt {attempt}"), None),
            Outcome::Reject { reason, attempt, .. } => {
                ("reject", format!("{reason} (attempt {attempt})"), None)
            }
            Outcome::Challenge { token, prompt, .. } => {
                ("challenge", prompt.to_owned(), Some(BASE64.encode(&token)))
            }
            Outcome::Asks { token, said } => {
                let asked = said.map(|said| said.message()).unwrap_or_default();
                ("challenge", asked, Some(BASE64.encode(&token)))
            }
        };
        Ok(TestReport { steps: trace.steps(), outcome: outcome.to_owned(), detail, challenge })
    }
}

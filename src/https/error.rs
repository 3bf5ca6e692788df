//! The one mapping from what went wrong to an HTTP answer.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use watchword_core::Refusal;

use crate::admin::AdminError;
use crate::error_chain::chain;

/// Body of every answer that is not a success.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ErrorBody {
    /// For programs.
    pub(crate) error: String,
    /// For people, one line.
    pub(crate) message: String,
}

/// An error of a handler.
pub(super) struct ApiError(AdminError);

impl From<AdminError> for ApiError {
    fn from(error: AdminError) -> Self {
        Self(error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = classify(&self.0);
        let message = chain(&self.0);
        if status.is_server_error() {
            tracing::error!(code, error = message, "administration failed");
        }
        (status, Json(ErrorBody { error: code.to_owned(), message })).into_response()
    }
}

fn classify(error: &AdminError) -> (StatusCode, &'static str) {
    match error {
        AdminError::Refused(refusal) => match refusal {
            Refusal::UserUnknown
            | Refusal::DeviceUnknown
            | Refusal::ClientUnknown
            | Refusal::DirectoryUnknown
            | Refusal::NodeUnknown(_)
            | Refusal::TokenUnknown => (StatusCode::NOT_FOUND, "not_found"),
            Refusal::UserExists(_)
            | Refusal::ClientExists(_)
            | Refusal::DirectoryExists(_)
            | Refusal::DirectoryInUse(_)
            | Refusal::AddressTaken { .. }
            | Refusal::IdTaken
            | Refusal::RevisionPassed(_)
            | Refusal::ResyncBehind
            | Refusal::ResyncTooFar
            | Refusal::TooMany { .. }
            | Refusal::FoundedAlready
            | Refusal::TokenExpired
            | Refusal::TokenUsed
            | Refusal::NodeRemoved(_)
            | Refusal::NodeAddressTaken { .. }
            | Refusal::LastVoter(_)
            | Refusal::DataKeyReplaced
            | Refusal::RotationUnfinished
            | Refusal::NodesChanged(_)
            | Refusal::SealedOtherwise(_)
            | Refusal::NodeAdmittedOtherwise(_)
            | Refusal::FeatureDisabled(_) => (StatusCode::CONFLICT, "conflict"),
            Refusal::DeviceMalformed
            | Refusal::KeyMalformed
            | Refusal::TokenMalformed
            | Refusal::ClientMalformed
            | Refusal::DirectoryMalformed
            | Refusal::DirectoryNameReserved
            | Refusal::ReplyMalformed
            | Refusal::Setting(_)
            | Refusal::TextMalformed(_) => (StatusCode::BAD_REQUEST, "invalid"),
        },
        AdminError::NotFound { .. } => (StatusCode::NOT_FOUND, "not_found"),
        AdminError::Invalid(_) | AdminError::Name(_) | AdminError::Hash(_) => {
            (StatusCode::BAD_REQUEST, "invalid")
        }
        AdminError::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
        AdminError::NotFounded
        | AdminError::Propose(_)
        | AdminError::Read(_)
        | AdminError::Authenticate(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        AdminError::Key(_) | AdminError::Random(_) | AdminError::UnexpectedResult => {
            (StatusCode::INTERNAL_SERVER_ERROR, "internal")
        }
    }
}

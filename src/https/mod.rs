//! What the node says over HTTP: administration, metrics and health.
//!
//! Handlers translate and decide nothing: each calls one function of [`crate::admin`] and maps its
//! error in `error.rs`.

mod api;
mod error;
mod health;
mod server;

pub use api::{Caller, router as admin_router};
pub(crate) use error::ErrorBody;
pub use health::router as health_router;
pub use server::serve;

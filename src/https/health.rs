//! Metrics for Prometheus and health for load balancers, on a port of their own.
//!
//! `live` says that the process answers. `ready` says that it can commit, which is what a client
//! needs; its body names what is missing.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::admin::Admin;
use crate::metrics;

#[derive(Clone)]
struct Parts {
    admin: Admin,
    recorder: PrometheusHandle,
}

/// The routes `/metrics`, `/health/live` and `/health/ready`.
pub fn router(admin: Admin, recorder: PrometheusHandle) -> Router {
    Router::new()
        .route("/metrics", get(render))
        .route("/health/live", get(async || "live\n"))
        .route("/health/ready", get(ready))
        .with_state(Parts { admin, recorder })
}

async fn render(State(parts): State<Parts>) -> impl IntoResponse {
    metrics::record_status(&parts.admin.status());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], parts.recorder.render())
}

async fn ready(State(parts): State<Parts>) -> (StatusCode, String) {
    let status = parts.admin.status();
    match (status.ready, status.fault) {
        (true, _) => (StatusCode::OK, "ready\n".to_owned()),
        (false, Some(fault)) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {fault}\n")),
        (false, None) => (StatusCode::SERVICE_UNAVAILABLE, "not ready: no leader\n".to_owned()),
    }
}

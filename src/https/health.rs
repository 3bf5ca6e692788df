//! Metrics for Prometheus and health for load balancers, on a port of their own.
//!
//! `live` says that the process answers. `ready` says that it can commit, which is what a client
//! needs; its body names what is missing.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::admin::{Admin, StatusView};

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
    record_status(&parts.admin.status());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], parts.recorder.render())
}

async fn ready(State(parts): State<Parts>) -> (StatusCode, String) {
    let status = parts.admin.status();
    match status.not_ready {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

/// Records what is read off the node at each scrape.
fn record_status(status: &StatusView) {
    let number = |value: u64| value as f64;
    gauge!("watchword_ready").set(f64::from(u8::from(status.ready)));
    gauge!("watchword_is_leader").set(f64::from(u8::from(status.leader == Some(status.node))));
    gauge!("watchword_failure_tolerance").set(number(status.failure_tolerance as u64));
    gauge!("watchword_states_differ").set(f64::from(u8::from(status.states_differ_at.is_some())));
    gauge!("watchword_states_equal_index").set(number(status.states_equal_at.unwrap_or(0)));
    if let Some(error) = status.clock_error_ms {
        gauge!("watchword_clock_error_seconds").set(error as f64 / 1000.0);
    }
    gauge!("watchword_raft_term").set(number(status.term));
    gauge!("watchword_raft_last_log_index").set(number(status.last_log));
    gauge!("watchword_raft_applied_index").set(number(status.applied));
    gauge!("watchword_raft_snapshot_index").set(number(status.snapshot));
    gauge!("watchword_users").set(number(status.users as u64));
    gauge!("watchword_devices").set(number(status.devices as u64));
    gauge!("watchword_clients").set(number(status.clients as u64));
}

//! The names of all metrics, and the process-wide recorder.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::admin::StatusView;

/// Packets received by the RADIUS front.
pub const RADIUS_REQUESTS: &str = "watchword_radius_requests_total";
/// Replies sent, by `code`.
pub const RADIUS_REPLIES: &str = "watchword_radius_replies_total";
/// Packets dropped, by `cause`.
pub const RADIUS_DROPPED: &str = "watchword_radius_dropped_total";
/// Copies of requests, by `handled`: `resent` or `joined`.
pub const RADIUS_DUPLICATES: &str = "watchword_radius_duplicates_total";
/// Requests under way.
pub const RADIUS_IN_FLIGHT: &str = "watchword_radius_in_flight";
/// Seconds from request to reply.
pub const RADIUS_SECONDS: &str = "watchword_radius_reply_seconds";
/// Decided attempts, by `verdict` and `reason`.
pub const ATTEMPTS: &str = "watchword_attempts_total";

/// Bounds of the latency histogram, in seconds.
const SECONDS: [f64; 12] =
    [0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0];

/// Installs the recorder. Once per process.
///
/// # Errors
/// When there is one already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(RADIUS_SECONDS.to_owned()), &SECONDS)?
        .install_recorder()?;
    describe_counter!(RADIUS_REQUESTS, "Packets received by the RADIUS front.");
    describe_counter!(RADIUS_REPLIES, "RADIUS replies sent, by code.");
    describe_counter!(RADIUS_DROPPED, "RADIUS packets dropped, by cause.");
    describe_counter!(RADIUS_DUPLICATES, "Copies of RADIUS requests, by how they were handled.");
    describe_gauge!(RADIUS_IN_FLIGHT, "RADIUS requests under way.");
    describe_histogram!(RADIUS_SECONDS, Unit::Seconds, "From RADIUS request to reply.");
    describe_counter!(ATTEMPTS, "Decided attempts, by verdict and reason.");
    Ok(recorder)
}

/// Records what is read off the node at each scrape.
pub fn record_status(status: &StatusView) {
    let number = |value: u64| value as f64;
    gauge!("watchword_ready").set(f64::from(u8::from(status.ready)));
    gauge!("watchword_is_leader").set(f64::from(u8::from(status.leader == Some(status.node))));
    gauge!("watchword_failure_tolerance").set(number(status.failure_tolerance as u64));
    gauge!("watchword_raft_term").set(number(status.term));
    gauge!("watchword_raft_last_log_index").set(number(status.last_log));
    gauge!("watchword_raft_applied_index").set(number(status.applied));
    gauge!("watchword_raft_snapshot_index").set(number(status.snapshot));
    gauge!("watchword_users").set(number(status.users as u64));
    gauge!("watchword_devices").set(number(status.devices as u64));
    gauge!("watchword_clients").set(number(status.clients as u64));
}

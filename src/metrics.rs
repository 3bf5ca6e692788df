//! The names of what is counted as it happens, and the process-wide recorder.
//!
//! What is read off the node at each scrape is named where that is done, in [`crate::https`].

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

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

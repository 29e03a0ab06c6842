//! Names of metrics.

use metrics::{counter, gauge};

use crate::kubernetes::ApiError;

/// Requests to the API server, by verb and outcome.
pub const API_REQUESTS: &str = "windlass_executor_api_requests_total";
/// Attempts whose pods live.
pub const LIVE: &str = "windlass_executor_live_pods";
/// Launches that wait to be posted.
pub const QUEUED: &str = "windlass_executor_queued_launches";
/// Creates in flight.
pub const IN_FLIGHT: &str = "windlass_executor_creates_in_flight";
/// Observations that are not acknowledged.
pub const UNACKNOWLEDGED: &str = "windlass_executor_unacknowledged_observations";
/// Whether a session with the scheduler stands.
pub const CONNECTED: &str = "windlass_executor_connected";
/// Whether the API server answers.
pub const CLUSTER_VISIBLE: &str = "windlass_executor_cluster_visible";
/// Finalizers that were removed without a scheduler: their evidence may be lost.
pub const STRIPPED: &str = "windlass_executor_stripped_finalizers_total";
/// Log streams that are open.
pub const LOG_STREAMS: &str = "windlass_executor_log_streams";
/// Log lines sent.
pub const LOG_LINES: &str = "windlass_executor_log_lines_total";
/// Gaps in logs.
pub const LOG_GAPS: &str = "windlass_executor_log_gaps_total";
/// Reads of Secrets that failed for good: their values are not masked in logs.
pub const LOG_UNMASKED: &str = "windlass_executor_log_unmasked_secrets_total";

pub(crate) fn api_request(verb: &'static str, error: Option<&ApiError>) {
    let outcome = match error {
        None => "ok".to_owned(),
        Some(error) => error
            .code()
            .map_or_else(|| "no_answer".to_owned(), |code| code.to_string()),
    };
    counter!(API_REQUESTS, "verb" => verb, "outcome" => outcome).increment(1);
}

#[expect(clippy::cast_precision_loss, reason = "a count of live things is exact in a double")]
pub(crate) fn set(name: &'static str, value: usize) {
    gauge!(name).set(value as f64);
}

pub(crate) fn set_flag(name: &'static str, value: bool) {
    gauge!(name).set(if value { 1.0 } else { 0.0 });
}

//! Times as Kubernetes writes them.

use jiff::Timestamp;

/// Whole seconds, as in `creationTimestamp`.
pub(crate) fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Nanoseconds, as in container logs.
pub(crate) fn nanoseconds(at: Timestamp) -> String {
    format!("{}.{:09}Z", at.strftime("%Y-%m-%dT%H:%M:%S"), at.subsec_nanosecond())
}

/// Now, in whole seconds.
pub(crate) fn now() -> String {
    seconds(timestamp())
}

/// Now. Leases, deadlines and logs of a Kubernetes are wall-clock times; tests of this crate wait for conditions.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where this crate reads the clock"
)]
pub(crate) fn timestamp() -> Timestamp {
    Timestamp::now()
}

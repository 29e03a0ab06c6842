//! Names of the relay's metrics, and how they are counted.

use metrics::{counter, gauge};

const LINES_STORED: &str = "windlass_relay_lines_stored_total";
const BYTES_STORED: &str = "windlass_relay_bytes_stored_total";
const LINES_REPEATED: &str = "windlass_relay_lines_repeated_total";
const LINES_SENT: &str = "windlass_relay_lines_sent_total";
const LOST_MARKS: &str = "windlass_relay_lost_marks_total";
const FEEDS_OPENED: &str = "windlass_relay_feeds_opened_total";
const FEED_SESSIONS: &str = "windlass_relay_feed_sessions";
const READERS: &str = "windlass_relay_readers";
const READERS_REFUSED: &str = "windlass_relay_readers_refused_total";
const WRITE_FAILURES: &str = "windlass_relay_write_failures_total";
const STORAGE_FULL: &str = "windlass_relay_storage_full";
const SEALED: &str = "windlass_relay_sealed_attempts_total";
const SEAL_FAILURES: &str = "windlass_relay_seal_failures_total";
const SEGMENT_READS: &str = "windlass_relay_archive_segment_reads_total";
const ARCHIVE_REACHED: &str = "windlass_relay_archive_reached";
const ARCHIVE_FAILURES: &str = "windlass_relay_archive_failures_total";
const PROXIED: &str = "windlass_relay_proxied_sources";
const FALLEN_BACK: &str = "windlass_relay_reads_from_disk_total";
const SCHEDULER_CONNECTED: &str = "windlass_relay_scheduler_connected";
const ATTEMPTS: &str = "windlass_relay_assigned_attempts";

pub(crate) fn stored(lines: u64, bytes: u64, repeated: u64) {
    counter!(LINES_STORED).increment(lines);
    counter!(BYTES_STORED).increment(bytes);
    if repeated > 0 {
        counter!(LINES_REPEATED).increment(repeated);
    }
}

pub(crate) fn lost_mark() {
    counter!(LOST_MARKS).increment(1);
}

pub(crate) fn lines_sent(lines: u64) {
    counter!(LINES_SENT).increment(lines);
}

pub(crate) fn feed_opened() {
    counter!(FEEDS_OPENED).increment(1);
}

pub(crate) fn feed_sessions(change: f64) {
    gauge!(FEED_SESSIONS).increment(change);
}

pub(crate) fn readers(change: f64) {
    gauge!(READERS).increment(change);
}

pub(crate) fn reader_refused() {
    counter!(READERS_REFUSED).increment(1);
}

pub(crate) fn write_failed() {
    counter!(WRITE_FAILURES).increment(1);
}

pub(crate) fn storage_full(full: bool) {
    gauge!(STORAGE_FULL).set(if full { 1.0 } else { 0.0 });
}

pub(crate) fn sealed() {
    counter!(SEALED).increment(1);
}

pub(crate) fn seal_failed() {
    counter!(SEAL_FAILURES).increment(1);
}

pub(crate) fn archive_segment_read() {
    counter!(SEGMENT_READS).increment(1);
}

/// Whether the store of the archive answered the last time.
pub(crate) fn archive_reached(reached: bool) {
    gauge!(ARCHIVE_REACHED).set(if reached { 1.0 } else { 0.0 });
}

/// A request of the archive failed: the store refused it, or it cannot be reached or is in trouble.
pub(crate) fn archive_failed(operation: &'static str, refused: bool) {
    let reason = if refused { "refused" } else { "unavailable" };
    counter!(ARCHIVE_FAILURES, "operation" => operation, "reason" => reason).increment(1);
}

/// Sources that readers of this relay read through others.
pub(crate) fn proxied(change: f64) {
    gauge!(PROXIED).increment(change);
}

pub(crate) fn read_from_disk() {
    counter!(FALLEN_BACK).increment(1);
}

pub(crate) fn scheduler_connected(connected: bool) {
    gauge!(SCHEDULER_CONNECTED).set(if connected { 1.0 } else { 0.0 });
}

pub(crate) fn assigned_attempts(attempts: usize) {
    gauge!(ATTEMPTS).set(attempts as f64);
}

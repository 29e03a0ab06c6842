//! Waiting for conditions, bounded.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::Instant;

/// How long a condition may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks `attempt` until it answers with a value, at most [`PATIENCE`].
///
/// # Panics
/// When that passes, with `what` and the last reason.
pub async fn until<T, E: Display>(what: &str, attempt: impl AsyncFnMut() -> Result<T, E>) -> T {
    until_within(PATIENCE, what, attempt).await
}

/// Asks `attempt` until it answers with a value, at most `patience`.
///
/// # Panics
/// When that passes, with `what` and the last reason.
pub async fn until_within<T, E: Display>(
    patience: Duration,
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let end = Instant::now() + patience;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(reason) if Instant::now() > end => panic!("{what}: not within {patience:?}: {reason}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Whether a process runs.
pub fn is_alive(pid: u32) -> bool {
    // A zombie is dead: its state is the first letter after the name.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

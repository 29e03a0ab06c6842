//! Calls that are tried again while the server is away.

use std::error::Error;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use windlass_service::{Backoff, BackoffSettings};

use crate::errors::{CliError, Exit, Result};
use crate::output;

/// How long a call is repeated while the server does not answer.
#[derive(Clone, Copy, Debug)]
pub struct Patience(Duration);

impl Patience {
    /// What a user waits before believing that a server is gone for good.
    pub const USUAL: Self = Self(Duration::from_secs(60));
    /// What a user waits where nothing was promised yet.
    pub const SHORT: Self = Self(Duration::from_secs(10));
}

/// The innermost reason of a failed call, for people.
pub(crate) fn cause(status: &Status) -> String {
    let mut cause: &dyn Error = status;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if let Some(io) = cause.downcast_ref::<std::io::Error>() {
        return match io.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            std::io::ErrorKind::ConnectionReset => "the connection was reset".to_owned(),
            std::io::ErrorKind::TimedOut => "it does not answer".to_owned(),
            _ => io.to_string(),
        };
    }
    match cause.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => cause.to_string(),
    }
}

/// True when the same call may succeed later: nobody answered, or the server said so.
pub(crate) fn is_retryable(status: &Status) -> bool {
    let broken = || {
        let transport = matches!(status.code(), Code::Unknown | Code::Internal | Code::Cancelled);
        transport && (status.source().is_some() || status.message().contains("h2 protocol error"))
    };
    status.code() == Code::Unavailable || broken()
}

/// Calls `once` until it succeeds, fails for good, or patience ends; says so once when the server is away.
pub(crate) async fn retrying<T, Fut>(address: &str, patience: Patience, once: impl Fn() -> Fut) -> Result<T>
where
    Fut: Future<Output = std::result::Result<tonic::Response<T>, Status>>,
{
    let deadline = tokio::time::Instant::now() + patience.0;
    let mut delays = Delays::new();
    let mut told = false;
    loop {
        let status = match once().await {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) => status,
        };
        if !is_retryable(&status) {
            return Err(CliError::from_status(&status));
        }
        let delay = delays.next(&status);
        if tokio::time::Instant::now() + delay > deadline {
            return Err(if is_answer(&status) {
                CliError::from_status(&status)
            } else {
                unreachable(address, &status)
            });
        }
        if !told {
            told = true;
            output::note(if is_answer(&status) {
                format!("{}; trying again", status.message())
            } else {
                format!("{address} does not answer ({}), trying again", cause(&status))
            });
        }
        tokio::time::sleep(delay).await;
    }
}

/// Whether the server itself says why it cannot do it now.
fn is_answer(status: &Status) -> bool {
    status.get_error_details().error_info().is_some()
}

/// Waits that grow between tries.
#[derive(Debug)]
pub(crate) struct Delays(Backoff);

impl Delays {
    pub(crate) fn new() -> Self {
        Self(Backoff::new(BackoffSettings {
            initial: Duration::from_millis(100),
            factor: 2.0,
            max: Duration::from_secs(5),
        }))
    }

    pub(crate) fn next(&mut self, status: &Status) -> Duration {
        let asked = status
            .get_error_details()
            .retry_info()
            .and_then(|info| info.retry_delay);
        self.0.next_delay(&mut rand::rng()).max(asked.unwrap_or_default())
    }

    pub(crate) fn reset(&mut self) {
        self.0.reset();
    }
}

/// The error of a server that does not answer.
pub(crate) fn unreachable(address: &str, status: &Status) -> CliError {
    CliError::new(
        Exit::Unreachable,
        format!("no answer from the server at {address}: {}", cause(status)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_final_and_silence_is_not() {
        assert!(is_retryable(&Status::unavailable("restarting")));
        assert!(!is_retryable(&Status::not_found("no run")));
        assert!(!is_retryable(&Status::internal("a bug")));
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(cause(&Status::from_error(Box::new(refused))), "connection refused");
    }
}

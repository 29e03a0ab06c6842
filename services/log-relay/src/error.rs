//! Why a log stream is refused or cut off, and how a client is told.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use windlass_service::Missing;

use crate::cursor::CursorError;

const DOMAIN: &str = "log-relay.windlass";

/// An error with its causes, for a log line. Some errors say their causes themselves.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

/// Why a log stream is refused or cut off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TailError {
    #[error("{field}: {problem}")]
    Invalid { field: Cow<'static, str>, problem: String },
    #[error("{0}")]
    Cursor(#[from] CursorError),
    #[error("the cursor is of run {cursor}, not of run {run}")]
    ForeignCursor { cursor: String, run: String },
    #[error("no selected step of run {run} had an attempt before its newest one")]
    NoPreviousAttempt { run: String },
    #[error("{message}")]
    RunRefused { code: u32, message: String },
    #[error("run {run} has no step {step:?}{hint}")]
    UnknownStep {
        run: String,
        step: String,
        hint: String,
        field: String,
    },
    #[error("no selected step of run {run} has a container {container:?}{hint}")]
    UnknownContainer {
        run: String,
        container: String,
        hint: String,
    },
    #[error("the scheduler cannot be reached, so the run is not known here; try again")]
    SchedulerUnreachable,
    #[error("the logs of step {step} are with another relay: {address}")]
    OtherRelay { step: String, address: String },
    #[error("the relay serves {limit} log streams already; try again later")]
    TooManyReaders { limit: usize },
    #[error(transparent)]
    RoleMissing(#[from] Missing),
    #[error("stored logs cannot be read at present; resume with the cursor")]
    Storage,
    #[error("the relay is going away; resume with the cursor")]
    ShuttingDown,
}

impl TailError {
    /// Machine-readable.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "INVALID_ARGUMENT",
            Self::Cursor(_) => "CURSOR_INVALID",
            Self::ForeignCursor { .. } => "CURSOR_OF_OTHER_RUN",
            Self::RunRefused { .. } => "RUN_REFUSED",
            Self::UnknownStep { .. } => "STEP_NOT_FOUND",
            Self::UnknownContainer { .. } => "CONTAINER_NOT_FOUND",
            Self::NoPreviousAttempt { .. } => "PREVIOUS_ATTEMPT_NOT_FOUND",
            Self::SchedulerUnreachable => "SCHEDULER_UNREACHABLE",
            Self::OtherRelay { .. } => "LOGS_ON_OTHER_RELAY",
            Self::TooManyReaders { .. } => "TOO_MANY_READERS",
            Self::RoleMissing(_) => "ROLE_MISSING",
            Self::Storage => "STORAGE_UNAVAILABLE",
            Self::ShuttingDown => "SHUTTING_DOWN",
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Invalid { .. } | Self::Cursor(_) | Self::ForeignCursor { .. } => Code::InvalidArgument,
            Self::RunRefused { code, .. } => Code::from_i32(i32::try_from(*code).unwrap_or_default()),
            Self::UnknownStep { .. } | Self::UnknownContainer { .. } | Self::NoPreviousAttempt { .. } => Code::NotFound,
            Self::TooManyReaders { .. } => Code::ResourceExhausted,
            Self::RoleMissing(_) => Code::PermissionDenied,
            Self::SchedulerUnreachable | Self::OtherRelay { .. } | Self::Storage | Self::ShuttingDown => {
                Code::Unavailable
            }
        }
    }

    fn field(&self) -> Option<&str> {
        match self {
            Self::Invalid { field, .. } => Some(field),
            Self::Cursor(_) | Self::ForeignCursor { .. } => Some("cursor"),
            Self::UnknownStep { field, .. } => Some(field),
            Self::UnknownContainer { .. } => Some("container"),
            Self::NoPreviousAttempt { .. } => Some("previous"),
            Self::RunRefused { .. }
            | Self::SchedulerUnreachable
            | Self::OtherRelay { .. }
            | Self::TooManyReaders { .. }
            | Self::RoleMissing(_)
            | Self::Storage
            | Self::ShuttingDown => None,
        }
    }
}

impl From<TailError> for Status {
    fn from(error: TailError) -> Self {
        let mut metadata = HashMap::new();
        if let TailError::OtherRelay { address, .. } = &error {
            metadata.insert("address".to_owned(), address.clone());
        }
        if let TailError::RoleMissing(missing) = &error {
            metadata.insert("role".to_owned(), missing.role.to_owned());
            metadata.insert("namespace".to_owned(), missing.namespace.clone());
        }
        let mut details = ErrorDetails::with_error_info(error.reason(), DOMAIN, metadata);
        if let Some(field) = error.field() {
            details.add_bad_request_violation(field, error.to_string());
        }
        if matches!(error.code(), Code::Unavailable | Code::ResourceExhausted) {
            details.set_retry_info(Some(Duration::from_secs(1)));
        }
        Status::with_error_details(error.code(), error.to_string(), details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_code_and_reason() {
        let text = String::new;
        let table = [
            (
                TailError::Invalid {
                    field: "run".into(),
                    problem: text(),
                },
                Code::InvalidArgument,
                "INVALID_ARGUMENT",
            ),
            (
                TailError::Cursor(CursorError::Malformed),
                Code::InvalidArgument,
                "CURSOR_INVALID",
            ),
            (
                TailError::ForeignCursor {
                    cursor: text(),
                    run: text(),
                },
                Code::InvalidArgument,
                "CURSOR_OF_OTHER_RUN",
            ),
            (
                TailError::RunRefused {
                    code: 5,
                    message: text(),
                },
                Code::NotFound,
                "RUN_REFUSED",
            ),
            (
                TailError::UnknownStep {
                    run: text(),
                    step: text(),
                    hint: text(),
                    field: text(),
                },
                Code::NotFound,
                "STEP_NOT_FOUND",
            ),
            (
                TailError::NoPreviousAttempt { run: text() },
                Code::NotFound,
                "PREVIOUS_ATTEMPT_NOT_FOUND",
            ),
            (
                TailError::UnknownContainer {
                    run: text(),
                    container: text(),
                    hint: text(),
                },
                Code::NotFound,
                "CONTAINER_NOT_FOUND",
            ),
            (
                TailError::SchedulerUnreachable,
                Code::Unavailable,
                "SCHEDULER_UNREACHABLE",
            ),
            (
                TailError::OtherRelay {
                    step: text(),
                    address: text(),
                },
                Code::Unavailable,
                "LOGS_ON_OTHER_RELAY",
            ),
            (
                TailError::TooManyReaders { limit: 1 },
                Code::ResourceExhausted,
                "TOO_MANY_READERS",
            ),
            (
                TailError::RoleMissing(Missing {
                    role: "viewer",
                    namespace: text(),
                }),
                Code::PermissionDenied,
                "ROLE_MISSING",
            ),
            (TailError::Storage, Code::Unavailable, "STORAGE_UNAVAILABLE"),
            (TailError::ShuttingDown, Code::Unavailable, "SHUTTING_DOWN"),
        ];
        for (error, code, reason) in table {
            let status = Status::from(error);
            assert_eq!(status.code(), code);
            assert_eq!(status.get_details_error_info().expect("details").reason, reason);
        }
    }
}

//! What can go wrong, and the exit status that says so.

use std::fmt;
use std::process::ExitCode;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Exit status of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// All went well.
    Succeeded,
    /// The run failed.
    Failed,
    /// Bad input.
    BadInput,
    /// The server was not reached.
    Unreachable,
    /// The time given was over first.
    Timeout,
    /// The run was cancelled.
    Cancelled,
    /// The user interrupted it.
    Interrupted,
    /// Whoever read our output went away.
    BrokenPipe,
}

impl Exit {
    /// The number that the shell sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::Succeeded => 0,
            Self::Failed => 1,
            Self::BadInput => 2,
            Self::Unreachable => 3,
            Self::Timeout => 4,
            Self::Cancelled => 5,
            Self::Interrupted => 130,
            Self::BrokenPipe => 141,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error as the user sees it: what is wrong, the places, what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CliError {
    /// Exit status.
    pub exit: Exit,
    /// Whether a server has no such thing.
    pub not_found: bool,
    /// What is wrong, one line.
    pub message: String,
    /// Places or causes, a line each.
    pub details: Vec<String>,
    /// Fields of the request that the server refused, each with what is wrong about it.
    pub fields: Vec<(String, String)>,
    /// What to do about it.
    pub hint: Option<String>,
    /// The server's machine-readable reason.
    pub reason: Option<Box<str>>,
}

/// Result of a command.
pub type Result<T, E = CliError> = std::result::Result<T, E>;

impl CliError {
    /// An error with an exit status.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self {
            exit,
            not_found: false,
            message: one_line(&message.to_string()),
            details: Vec::new(),
            fields: Vec::new(),
            hint: None,
            reason: None,
        }
    }

    /// Bad input.
    pub fn bad_input(message: impl fmt::Display) -> Self {
        Self::new(Exit::BadInput, message)
    }

    /// Something failed here or at the server that is not the input's fault.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With one more place or cause.
    #[must_use]
    pub fn details(mut self, details: impl IntoIterator<Item = String>) -> Self {
        self.details.extend(details);
        self
    }

    /// The text for standard error.
    pub fn render(&self) -> String {
        let mut text = format!("error: {}", self.message);
        for detail in &self.details {
            text.push_str("\n  ");
            text.push_str(detail);
        }
        for (field, wrong) in &self.fields {
            text.push_str("\n  ");
            if !field.is_empty() {
                text.push_str(&format!("{field}: "));
            }
            text.push_str(wrong);
        }
        if let Some(hint) = &self.hint {
            for line in hint.lines() {
                text.push_str("\n  ");
                text.push_str(line);
            }
        }
        text
    }

    /// From a server's answer. Transport errors are told apart by the caller, which knows the address.
    pub fn from_status(status: &Status) -> Self {
        let exit = match status.code() {
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unauthenticated
            | Code::PermissionDenied => Exit::BadInput,
            Code::Unavailable => Exit::Unreachable,
            Code::DeadlineExceeded => Exit::Timeout,
            Code::Cancelled => Exit::Cancelled,
            Code::Ok
            | Code::Unknown
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss => Exit::Failed,
        };
        let details = status.get_error_details();
        let violations = details.bad_request().map_or(&[][..], |bad| &bad.field_violations);
        let fields = violations
            .iter()
            .filter(|violation| violation.description != status.message());
        let fields = fields.map(|violation| (violation.field.clone(), violation.description.clone()));
        let mut error = Self::new(exit, status.message());
        error.fields = fields.collect();
        error.reason = details.error_info().map(|info| info.reason.as_str().into());
        error.not_found = status.code() == Code::NotFound;
        match (status.code(), details.error_info().map(|info| info.reason.as_str())) {
            (Code::Unauthenticated, _) => {
                error.hint("name the file that holds the server's token with --token-file, or set WINDLASS_TOKEN")
            }
            (Code::NotFound, Some("RUN_NOT_FOUND")) => {
                error.hint("`windlass list` shows the runs; -n names another namespace")
            }
            (Code::NotFound, Some("RUN_EXPIRED")) => {
                error.hint("the server's --run-retention says how long ended runs are kept")
            }
            (Code::NotFound, Some("SCHEDULE_NOT_FOUND")) => {
                error.hint("`windlass schedule list` shows the schedules; -n names another namespace")
            }
            (_, Some("REQUEST_ID_REUSED")) => {
                error.hint("use another --request-id, or submit the same pipeline and parameters with it")
            }
            (_, Some("STORE_FULL")) => {
                error.hint("free some space on the scheduler's disk; what it accepted goes on meanwhile")
            }
            (_, Some("SECRET_NOT_FOUND")) => {
                error.hint("`windlass secret list` shows those that Windlass manages; -n names another namespace")
            }
            (_, Some("SECRET_EXISTS")) => error.hint("without --create-only its keys are set and the others stay"),
            (_, Some("CLUSTER_AMBIGUOUS")) => error.hint("--cluster names one"),
            (_, Some("NO_EXECUTOR")) => {
                error.hint("`windlass cluster list` shows the clusters with a connected executor")
            }
            (_, Some("QUEUE_FULL")) => error.hint("try again in a moment"),
            _ => error,
        }
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::new(Exit::BrokenPipe, "nobody reads the output any more"),
            _ => Self::failed(format!("cannot write the output: {error}")),
        }
    }
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn what_is_wrong_comes_first_then_the_places_then_what_to_do() {
        let error = CliError::bad_input("the pipeline has 1 problem")
            .details(["p.yaml:1:2: name: must not be empty".to_owned()])
            .hint("see `windlass reference`");
        assert_eq!(
            error.render(),
            "error: the pipeline has 1 problem\n  p.yaml:1:2: name: must not be empty\n  see `windlass reference`"
        );
    }

    #[test]
    fn a_bad_request_lists_its_fields() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("steps[0].name", "must be a DNS label");
        let status = Status::with_error_details(Code::InvalidArgument, "the pipeline is not valid", details);
        let error = CliError::from_status(&status);
        assert_eq!(error.exit, Exit::BadInput);
        assert!(
            error.render().ends_with("\n  steps[0].name: must be a DNS label"),
            "{}",
            error.render()
        );
    }

    #[test]
    fn a_broken_pipe_is_no_failure_of_ours() {
        let error = CliError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!(error.exit.code(), 141);
    }
}

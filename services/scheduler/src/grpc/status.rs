//! The only place where errors become statuses: a code, a machine-readable reason and the standard details.
//!
//! Clients branch on code and reason, never on text.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::ErrorDetails;
use windlass_api::refusal;
use windlass_ids::Namespace;

use crate::errors::{
    CallError, ChangeError, CheckError, FieldProblem, FilterError, ListError, LookupError, PageTokenError, RenderError,
    RetryError, ScheduleError, SecretError, SessionError, SubmitError, Unavailable, WatchError,
};

/// The domain of our reasons.
const DOMAIN: &str = "windlass";
/// When a client may try again.
const RETRY_SOON: Duration = Duration::from_secs(1);
/// When a client may try again if the disk is full.
const RETRY_LATER: Duration = Duration::from_secs(30);

/// What a status says beyond its text.
struct Outline {
    code: Code,
    reason: &'static str,
    metadata: Vec<(&'static str, String)>,
    details: ErrorDetails,
}

impl Outline {
    fn new(code: Code, reason: &'static str) -> Self {
        Self {
            code,
            reason,
            metadata: Vec::new(),
            details: ErrorDetails::new(),
        }
    }

    fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.metadata.push((key, value.into()));
        self
    }

    fn retry(mut self, after: Duration) -> Self {
        self.details.set_retry_info(Some(after));
        self
    }

    fn field(mut self, field: &str, description: impl Into<String>) -> Self {
        let problem = (field.to_owned(), description.into());
        refusal::add_problems(&mut self.details, std::iter::once(problem), 1);
        self
    }

    fn fields(mut self, problems: &[FieldProblem]) -> Self {
        let described = problems.iter().map(|problem| {
            let description = format!("{} ({})", problem.message, problem.code);
            (problem.path.clone(), description)
        });
        refusal::add_problems(&mut self.details, described, problems.len());
        self
    }

    fn precondition(mut self, kind: &'static str, subject: impl Into<String>, text: impl Into<String>) -> Self {
        let (subject, text) = (cut(&subject.into()), cut(&text.into()));
        self.details.add_precondition_failure_violation(kind, subject, text);
        self
    }

    fn quota(mut self, subject: &'static str, text: impl Into<String>) -> Self {
        self.details.add_quota_failure_violation(subject, text);
        self
    }

    fn status(mut self, text: String) -> Status {
        let metadata: HashMap<String, String> = self
            .metadata
            .into_iter()
            .map(|(key, value)| (key.to_owned(), cut(&value)))
            .collect();
        self.details.set_error_info(self.reason, DOMAIN, metadata);
        refusal::status(self.code, &text, self.details)
    }
}

fn cut(text: &str) -> String {
    refusal::shorten(text, refusal::MAX_METADATA)
}

macro_rules! statuses {
    ($($error:ty => $outline:ident;)*) => {$(
        impl From<$error> for Status {
            fn from(error: $error) -> Self {
                $outline(&error).status(error.to_string())
            }
        }
    )*};
}

statuses! {
    Unavailable => of_unavailable;
    SubmitError => of_submit;
    RetryError => of_retry;
    LookupError => of_lookup;
    ChangeError => of_change;
    RenderError => of_render;
    SecretError => of_secret;
    CheckError => of_check;
    ListError => of_list;
    ScheduleError => of_schedule;
    WatchError => of_watch;
    SessionError => of_session;
}

fn of_unavailable(error: &Unavailable) -> Outline {
    let reason = match error {
        Unavailable::OutcomeUnknown => "OUTCOME_UNKNOWN",
        Unavailable::Recovering => "RECOVERING",
        Unavailable::ShuttingDown => "SHUTTING_DOWN",
    };
    Outline::new(Code::Unavailable, reason).retry(RETRY_SOON)
}

fn of_submit(error: &SubmitError) -> Outline {
    match error {
        SubmitError::Invalid(problems) => Outline::new(Code::InvalidArgument, "INVALID_PIPELINE").fields(problems),
        SubmitError::ReferencesMissing(problems) => {
            Outline::new(Code::FailedPrecondition, "REFERENCES_MISSING").fields(problems)
        }
        SubmitError::SecretUnknown { secret, .. } => Outline::new(Code::Unavailable, "SECRET_UNKNOWN")
            .with("secret", secret)
            .retry(RETRY_SOON),
        SubmitError::RequestIdReused {
            run,
            stored_hash,
            offered_hash,
        } => Outline::new(Code::AlreadyExists, "REQUEST_ID_REUSED")
            .with("run", run.as_str())
            .with("stored_hash", stored_hash)
            .with("offered_hash", offered_hash),
        SubmitError::RunDeleted { run } => {
            Outline::new(Code::FailedPrecondition, "RUN_DELETED").with("run", run.to_string())
        }
        SubmitError::NameTaken { name, namespace } => Outline::new(Code::AlreadyExists, "NAME_TAKEN")
            .with("run", name.as_str())
            .with("namespace", namespace.as_str()),
        SubmitError::Overlapped { run } => {
            Outline::new(Code::FailedPrecondition, "OVERLAPPED").with("run", run.to_string())
        }
        SubmitError::StoreFull => Outline::new(Code::ResourceExhausted, "STORE_FULL")
            .retry(RETRY_LATER)
            .quota("store", "free space is below the reserved mark"),
        SubmitError::SecretsNotMade { run, error } => match run {
            Some(run) => of_secret(error).with("run", run.as_str()),
            None => of_secret(error),
        },
        SubmitError::SecretsReplaced { schedule } => Outline::new(Code::Unavailable, "SECRETS_REPLACED")
            .with("schedule", schedule)
            .retry(RETRY_SOON),
        SubmitError::QueueFull => Outline::new(Code::ResourceExhausted, "QUEUE_FULL")
            .retry(RETRY_SOON)
            .quota("submissions", "the queue of submissions is full"),
        SubmitError::Unavailable(error) => of_unavailable(error),
    }
}

fn of_retry(error: &RetryError) -> Outline {
    match error {
        RetryError::Invalid(problems) => Outline::new(Code::InvalidArgument, "INVALID_REQUEST").fields(problems),
        RetryError::Lookup(error) => of_lookup(error),
        RetryError::RunNotEnded { run, state } => Outline::new(Code::FailedPrecondition, "RUN_NOT_ENDED")
            .with("state", state)
            .precondition("RUN_STATE", run.as_str(), error.to_string()),
        RetryError::NothingToRetry { run } => Outline::new(Code::FailedPrecondition, "NOTHING_TO_RETRY").precondition(
            "RUN_STATE",
            run.as_str(),
            error.to_string(),
        ),
        RetryError::Submit(error) => of_submit(error),
    }
}

fn of_lookup(error: &LookupError) -> Outline {
    match error {
        LookupError::BadNamespace(_) => {
            Outline::new(Code::InvalidArgument, "BAD_NAMESPACE").field("namespace", error.to_string())
        }
        LookupError::EmptyRun => Outline::new(Code::InvalidArgument, "EMPTY_RUN").field("run", error.to_string()),
        LookupError::UnknownRun { namespace, run } => Outline::new(Code::NotFound, "RUN_NOT_FOUND")
            .with("namespace", namespace.as_str())
            .with("run", run),
        LookupError::RunDeleted { namespace, run, .. } => Outline::new(Code::NotFound, "RUN_DELETED")
            .with("namespace", namespace.as_str())
            .with("run", run.as_str()),
        LookupError::RunExpired { namespace, run, .. } => Outline::new(Code::NotFound, "RUN_EXPIRED")
            .with("namespace", namespace.as_str())
            .with("run", run.as_str()),
        LookupError::Ambiguous { candidates, .. } => {
            Outline::new(Code::InvalidArgument, "AMBIGUOUS_RUN").with("candidates", candidates.join(","))
        }
        LookupError::UnknownStep { run, step } => Outline::new(Code::NotFound, "STEP_NOT_FOUND")
            .with("run", run.as_str())
            .with("step", step),
        LookupError::HistoryGone { run } => Outline::new(Code::NotFound, "HISTORY_GONE").with("run", run.as_str()),
        LookupError::StoreFailed => Outline::new(Code::Unavailable, "STORE_FAILED").retry(RETRY_SOON),
    }
}

fn of_change(error: &ChangeError) -> Outline {
    match error {
        ChangeError::Invalid(problems) => Outline::new(Code::InvalidArgument, "INVALID_REQUEST").fields(problems),
        ChangeError::Lookup(error) => of_lookup(error),
        ChangeError::RequestIdReused {
            run,
            stored_hash,
            offered_hash,
        } => Outline::new(Code::AlreadyExists, "REQUEST_ID_REUSED")
            .with("run", run)
            .with("stored_hash", stored_hash)
            .with("offered_hash", offered_hash),
        ChangeError::RunEnded { run, state } => Outline::new(Code::FailedPrecondition, "RUN_ENDED")
            .with("state", state)
            .precondition("RUN_STATE", run.as_str(), error.to_string()),
        ChangeError::RunNotEnded { run, state } => Outline::new(Code::FailedPrecondition, "RUN_NOT_ENDED")
            .with("state", state)
            .precondition("RUN_STATE", run.as_str(), error.to_string()),
        ChangeError::NotLostContact { step, state } => Outline::new(Code::FailedPrecondition, "NOT_LOST_CONTACT")
            .with("state", state)
            .precondition("STEP_STATE", step, error.to_string()),
        ChangeError::Unavailable(error) => of_unavailable(error),
    }
}

fn of_render(error: &RenderError) -> Outline {
    match error {
        RenderError::Invalid(problems) => Outline::new(Code::InvalidArgument, "INVALID_PIPELINE").fields(problems),
        RenderError::Lookup(error) => of_lookup(error),
        RenderError::TooMany => Outline::new(Code::ResourceExhausted, "TOO_MANY_RENDERS")
            .retry(RETRY_LATER)
            .quota("renders", "the bound on rendered pipelines is reached"),
        RenderError::TooSlow => Outline::new(Code::ResourceExhausted, "RENDER_TOO_SLOW"),
        RenderError::Broken => Outline::new(Code::Internal, "RENDER_FAILED"),
    }
}

fn of_secret(error: &SecretError) -> Outline {
    match error {
        SecretError::Invalid(problems) => Outline::new(Code::InvalidArgument, "INVALID_REQUEST").fields(problems),
        SecretError::Lookup(error) => of_lookup(error),
        SecretError::PageToken(error) => of_page_token(*error),
        SecretError::Call(error) => of_call(error),
        SecretError::ClusterUnreachable { .. } => {
            Outline::new(Code::Unavailable, "CLUSTER_UNREACHABLE").retry(RETRY_SOON)
        }
        SecretError::Exists { name, namespace } => of_named(Code::AlreadyExists, "SECRET_EXISTS", name, namespace),
        SecretError::NotFound { name, namespace } => of_named(Code::NotFound, "SECRET_NOT_FOUND", name, namespace),
        SecretError::NamespaceNotFound(namespace) => {
            Outline::new(Code::NotFound, "NAMESPACE_NOT_FOUND").with("namespace", namespace.as_str())
        }
        SecretError::NotManaged { name, namespace } => {
            of_named(Code::FailedPrecondition, "SECRET_NOT_MANAGED", name, namespace)
        }
        SecretError::RightMissing { right, namespace } => Outline::new(Code::FailedPrecondition, "RIGHT_MISSING")
            .with("right", right)
            .with("namespace", namespace.as_str()),
        SecretError::Quota(text) => {
            Outline::new(Code::ResourceExhausted, "QUOTA_EXCEEDED").quota("namespace", cut(text))
        }
        SecretError::Denied(_) => Outline::new(Code::FailedPrecondition, "POLICY_DENIED"),
        SecretError::Refused { fields, message } => fields.iter().fold(
            Outline::new(Code::InvalidArgument, "SECRET_INVALID"),
            |outline, field| outline.field(field, message),
        ),
        SecretError::Changed(name) => Outline::new(Code::Aborted, "SECRET_CHANGED").with("secret", name),
        SecretError::PageExpired => Outline::new(Code::OutOfRange, "PAGE_TOKEN_EXPIRED"),
        SecretError::OwnNamespace(namespace) => {
            Outline::new(Code::FailedPrecondition, "EXECUTOR_NAMESPACE").with("namespace", namespace.as_str())
        }
    }
}

fn of_check(error: &CheckError) -> Outline {
    match error {
        CheckError::Invalid(problems) => Outline::new(Code::InvalidArgument, "INVALID_REQUEST").fields(problems),
        CheckError::Lookup(error) => of_lookup(error),
        CheckError::Call(error) => of_call(error),
    }
}

fn of_call(error: &CallError) -> Outline {
    match error {
        CallError::NoExecutor { cluster } => Outline::new(Code::Unavailable, "NO_EXECUTOR")
            .with("cluster", cluster)
            .retry(RETRY_SOON),
        CallError::ClusterAmbiguous { clusters } => Outline::new(Code::InvalidArgument, "CLUSTER_AMBIGUOUS")
            .with("clusters", clusters.join(","))
            .field("cluster", error.to_string()),
        CallError::ExecutorTooOld { cluster } => {
            Outline::new(Code::FailedPrecondition, "EXECUTOR_TOO_OLD").with("cluster", cluster)
        }
        CallError::TooMany => Outline::new(Code::ResourceExhausted, "TOO_MANY_CALLS")
            .retry(RETRY_SOON)
            .quota("calls", "the bound on calls that wait for an executor is reached"),
        CallError::ExecutorLost => Outline::new(Code::Unavailable, "EXECUTOR_LOST").retry(RETRY_SOON),
    }
}

fn of_named(code: Code, reason: &'static str, secret: &str, namespace: &Namespace) -> Outline {
    Outline::new(code, reason)
        .with("secret", secret)
        .with("namespace", namespace.as_str())
}

fn of_page_token(error: PageTokenError) -> Outline {
    match error {
        PageTokenError::Malformed | PageTokenError::OtherRequest => {
            Outline::new(Code::InvalidArgument, "BAD_PAGE_TOKEN").field("pageToken", error.to_string())
        }
    }
}

fn of_list(error: &ListError) -> Outline {
    match error {
        ListError::Lookup(error) => of_lookup(error),
        ListError::Filter(
            error @ (FilterError::NotATerm { .. }
            | FilterError::UnknownKey { .. }
            | FilterError::UnknownState { .. }
            | FilterError::BadPattern { .. }
            | FilterError::BadTime { .. }
            | FilterError::RepeatedKey { .. }),
        ) => Outline::new(Code::InvalidArgument, "BAD_FILTER").field("filter", error.to_string()),
        ListError::PageToken(error) => of_page_token(*error),
    }
}

fn of_schedule(error: &ScheduleError) -> Outline {
    match error {
        ScheduleError::Invalid(problems) => Outline::new(Code::InvalidArgument, "INVALID_SCHEDULE").fields(problems),
        ScheduleError::Lookup(error) => of_lookup(error),
        ScheduleError::Unknown { namespace, schedule } => Outline::new(Code::NotFound, "SCHEDULE_NOT_FOUND")
            .with("namespace", namespace.as_str())
            .with("schedule", schedule),
        ScheduleError::Exists { namespace, schedule } => Outline::new(Code::AlreadyExists, "SCHEDULE_EXISTS")
            .with("namespace", namespace.as_str())
            .with("schedule", schedule),
        ScheduleError::TooMany { namespace, .. } => Outline::new(Code::ResourceExhausted, "TOO_MANY_SCHEDULES")
            .with("namespace", namespace.as_str())
            .quota("schedules", "the bound on schedules of a namespace is reached"),
        ScheduleError::RequestIdReused {
            stored_hash,
            offered_hash,
        } => Outline::new(Code::AlreadyExists, "REQUEST_ID_REUSED")
            .with("stored_hash", stored_hash)
            .with("offered_hash", offered_hash),
        ScheduleError::Overlapped { schedule, run } => Outline::new(Code::FailedPrecondition, "OVERLAPPED")
            .with("schedule", schedule)
            .with("run", run.as_str()),
        ScheduleError::InvalidExport(problems) => {
            Outline::new(Code::InvalidArgument, "INVALID_EXPORT").fields(problems)
        }
        ScheduleError::NotExportable { schedule, problems } => Outline::new(Code::FailedPrecondition, "NOT_EXPORTABLE")
            .with("schedule", schedule)
            .fields(problems),
        ScheduleError::StoreFull => Outline::new(Code::ResourceExhausted, "STORE_FULL")
            .retry(RETRY_LATER)
            .quota("store", "free space is below the reserved mark"),
        ScheduleError::Submit(error) => of_submit(error),
        ScheduleError::PageToken(error) => of_page_token(*error),
        ScheduleError::Unavailable(error) => of_unavailable(error),
    }
}

fn of_watch(error: &WatchError) -> Outline {
    match error {
        WatchError::Lookup(error) => of_lookup(error),
        WatchError::BadToken => {
            Outline::new(Code::InvalidArgument, "BAD_RESUME_TOKEN").field("resumeToken", error.to_string())
        }
        WatchError::TokenTooOld => Outline::new(Code::OutOfRange, "TOKEN_TOO_OLD"),
        WatchError::TooSlow { resume_token } => {
            Outline::new(Code::ResourceExhausted, "WATCHER_TOO_SLOW").with("resume_token", resume_token)
        }
        WatchError::TooMany => Outline::new(Code::ResourceExhausted, "TOO_MANY_WATCHERS")
            .retry(RETRY_LATER)
            .quota("watchers", "the bound on watchers is reached"),
    }
}

fn of_session(error: &SessionError) -> Outline {
    match error {
        SessionError::NoHello => Outline::new(Code::InvalidArgument, "NO_HELLO"),
        SessionError::BadHello { field, fault } => Outline::new(Code::InvalidArgument, "BAD_HELLO").field(field, fault),
        SessionError::ProtocolMismatch { .. } => Outline::new(Code::FailedPrecondition, "PROTOCOL_MISMATCH"),
        SessionError::AliasTaken { alias, known, .. } => Outline::new(Code::AlreadyExists, "CLUSTER_ALIAS_TAKEN")
            .with("alias", alias)
            .with("cluster_uid", known),
        SessionError::BadMessage { .. } => Outline::new(Code::InvalidArgument, "BAD_MESSAGE"),
        SessionError::Replaced => Outline::new(Code::Aborted, "REPLACED"),
        SessionError::Unavailable(error) => of_unavailable(error),
    }
}

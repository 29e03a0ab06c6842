//! The only place where errors become statuses: a code, a machine-readable reason and the standard details.
//!
//! Clients branch on code and reason, never on text.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::ErrorDetails;
use windlass_api::refusal;
use windlass_ids::Namespace;

use crate::errors::{
    ChangeError, CheckError, FieldProblem, FilterError, ListError, LookupError, PageTokenError, RenderError,
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
        SubmitError::StoreFull => Outline::new(Code::ResourceExhausted, "STORE_FULL")
            .retry(RETRY_LATER)
            .quota("store", "free space is below the reserved mark"),
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
        SecretError::NoExecutor { cluster } => Outline::new(Code::Unavailable, "NO_EXECUTOR")
            .with("cluster", cluster)
            .retry(RETRY_SOON),
        SecretError::ClusterAmbiguous { clusters } => Outline::new(Code::InvalidArgument, "CLUSTER_AMBIGUOUS")
            .with("clusters", clusters.join(","))
            .field("cluster", error.to_string()),
        SecretError::ExecutorTooOld { cluster } => {
            Outline::new(Code::FailedPrecondition, "EXECUTOR_TOO_OLD").with("cluster", cluster)
        }
        SecretError::TooManyCalls => Outline::new(Code::ResourceExhausted, "TOO_MANY_SECRET_CALLS")
            .retry(RETRY_SOON)
            .quota("secret_calls", "the bound on waiting calls is reached"),
        SecretError::ExecutorLost => Outline::new(Code::Unavailable, "EXECUTOR_LOST").retry(RETRY_SOON),
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
        CheckError::NoExecutor { cluster } => Outline::new(Code::Unavailable, "NO_EXECUTOR")
            .with("cluster", cluster)
            .retry(RETRY_SOON),
        CheckError::ClusterAmbiguous { clusters } => Outline::new(Code::InvalidArgument, "CLUSTER_AMBIGUOUS")
            .with("clusters", clusters.join(","))
            .field("cluster", error.to_string()),
        CheckError::ExecutorTooOld { cluster } => {
            Outline::new(Code::FailedPrecondition, "EXECUTOR_TOO_OLD").with("cluster", cluster)
        }
        CheckError::TooManyCalls => Outline::new(Code::ResourceExhausted, "TOO_MANY_CHECKS")
            .retry(RETRY_SOON)
            .quota("checks", "the bound on waiting checks is reached"),
        CheckError::ExecutorLost => Outline::new(Code::Unavailable, "EXECUTOR_LOST").retry(RETRY_SOON),
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

#[cfg(test)]
mod tests {
    use windlass_ids::RunName;

    use tonic_types::StatusExt as _;

    use super::*;

    fn line(status: Status) -> String {
        let details = status.get_error_details();
        let reason = details.error_info().expect("every status has a reason").reason.clone();
        let mut parts = vec![format!("{:?} {reason}", status.code())];
        parts.extend(details.retry_info().map(|_| "retry".to_owned()));
        parts.extend(
            details
                .bad_request()
                .map(|bad| format!("fields={}", bad.field_violations.len())),
        );
        parts.extend(details.precondition_failure().map(|_| "precondition".to_owned()));
        parts.extend(details.quota_failure().map(|_| "quota".to_owned()));
        parts.join(" ")
    }

    fn all() -> Vec<Status> {
        let (run, namespace) = (RunName::from("churn-7k2m"), Namespace::from("ml"));
        let (state, text) = ("RUNNING".to_owned(), "x".to_owned());
        let problem = FieldProblem::new("steps[0].image", "MISSING", "an image is needed");
        let lookup = || LookupError::EmptyRun;
        vec![
            Unavailable::OutcomeUnknown.into(),
            Unavailable::Recovering.into(),
            Unavailable::ShuttingDown.into(),
            SubmitError::Invalid(vec![problem.clone()]).into(),
            SubmitError::RequestIdReused {
                run: run.clone(),
                stored_hash: "a".to_owned(),
                offered_hash: "b".to_owned(),
            }
            .into(),
            SubmitError::RunDeleted {
                run: windlass_ids::RunId::from_bytes([7; 16]),
            }
            .into(),
            SubmitError::NameTaken {
                name: run.clone(),
                namespace: namespace.clone(),
            }
            .into(),
            SubmitError::StoreFull.into(),
            SubmitError::QueueFull.into(),
            SubmitError::Unavailable(Unavailable::OutcomeUnknown).into(),
            RetryError::Invalid(vec![problem.clone()]).into(),
            RetryError::Lookup(lookup()).into(),
            RetryError::RunNotEnded {
                run: run.clone(),
                state: state.clone(),
            }
            .into(),
            RetryError::NothingToRetry { run: run.clone() }.into(),
            RetryError::Submit(SubmitError::QueueFull).into(),
            LookupError::BadNamespace("A".to_owned()).into(),
            LookupError::EmptyRun.into(),
            LookupError::UnknownRun {
                namespace,
                run: text.clone(),
            }
            .into(),
            LookupError::Ambiguous {
                prefix: text.clone(),
                candidates: vec![text.clone()],
            }
            .into(),
            LookupError::UnknownStep {
                run: run.clone(),
                step: text.clone(),
            }
            .into(),
            LookupError::HistoryGone { run: run.clone() }.into(),
            LookupError::StoreFailed.into(),
            ChangeError::Invalid(vec![problem.clone()]).into(),
            ChangeError::Lookup(lookup()).into(),
            ChangeError::RequestIdReused {
                run: text.clone(),
                stored_hash: text.clone(),
                offered_hash: text.clone(),
            }
            .into(),
            ChangeError::RunEnded {
                run: run.clone(),
                state: state.clone(),
            }
            .into(),
            ChangeError::RunNotEnded {
                run,
                state: state.clone(),
            }
            .into(),
            ChangeError::NotLostContact {
                step: text.clone(),
                state,
            }
            .into(),
            ChangeError::Unavailable(Unavailable::ShuttingDown).into(),
            RenderError::Invalid(vec![problem]).into(),
            RenderError::Lookup(lookup()).into(),
            RenderError::TooMany.into(),
            RenderError::TooSlow.into(),
            RenderError::Broken.into(),
            SecretError::Invalid(vec![FieldProblem::new("data", "MISSING", "values are needed")]).into(),
            SecretError::Lookup(lookup()).into(),
            SecretError::PageToken(PageTokenError::OtherRequest).into(),
            SecretError::NoExecutor { cluster: text.clone() }.into(),
            SecretError::ClusterAmbiguous {
                clusters: vec![text.clone()],
            }
            .into(),
            SecretError::ExecutorTooOld { cluster: text.clone() }.into(),
            SecretError::TooManyCalls.into(),
            SecretError::ExecutorLost.into(),
            SecretError::ClusterUnreachable { message: text.clone() }.into(),
            SecretError::Exists {
                name: text.clone(),
                namespace: "ml".into(),
            }
            .into(),
            SecretError::NotFound {
                name: text.clone(),
                namespace: "ml".into(),
            }
            .into(),
            SecretError::NamespaceNotFound("ml".into()).into(),
            SecretError::NotManaged {
                name: text.clone(),
                namespace: "ml".into(),
            }
            .into(),
            SecretError::RightMissing {
                right: text.clone(),
                namespace: "ml".into(),
            }
            .into(),
            SecretError::Quota(text.clone()).into(),
            SecretError::Denied(text.clone()).into(),
            SecretError::Refused {
                fields: vec!["data".to_owned()],
                message: text.clone(),
            }
            .into(),
            SecretError::Changed(text.clone()).into(),
            SecretError::PageExpired.into(),
            SecretError::OwnNamespace("ml".into()).into(),
            CheckError::Invalid(vec![FieldProblem::new("cluster", "BAD_VALUE", "is too long")]).into(),
            CheckError::Lookup(lookup()).into(),
            CheckError::NoExecutor { cluster: text.clone() }.into(),
            CheckError::ClusterAmbiguous {
                clusters: vec![text.clone()],
            }
            .into(),
            CheckError::ExecutorTooOld { cluster: text.clone() }.into(),
            CheckError::TooManyCalls.into(),
            CheckError::ExecutorLost.into(),
            ListError::Lookup(lookup()).into(),
            ListError::Filter(FilterError::NotATerm {
                term: text.clone(),
                known: "state",
            })
            .into(),
            ListError::PageToken(PageTokenError::Malformed).into(),
            ScheduleError::Invalid(vec![FieldProblem::new("spec.cron", "BAD_CRON", "has 4 fields")]).into(),
            ScheduleError::Lookup(lookup()).into(),
            ScheduleError::Unknown {
                namespace: Namespace::from("ml"),
                schedule: text.clone(),
            }
            .into(),
            ScheduleError::Exists {
                namespace: Namespace::from("ml"),
                schedule: text.clone(),
            }
            .into(),
            ScheduleError::TooMany {
                namespace: Namespace::from("ml"),
                most: 1_000,
            }
            .into(),
            ScheduleError::RequestIdReused {
                stored_hash: text.clone(),
                offered_hash: text.clone(),
            }
            .into(),
            ScheduleError::StoreFull.into(),
            ScheduleError::Submit(SubmitError::QueueFull).into(),
            ScheduleError::PageToken(PageTokenError::OtherRequest).into(),
            ScheduleError::Unavailable(Unavailable::Recovering).into(),
            WatchError::Lookup(lookup()).into(),
            WatchError::BadToken.into(),
            WatchError::TokenTooOld.into(),
            WatchError::TooSlow {
                resume_token: text.clone(),
            }
            .into(),
            WatchError::TooMany.into(),
            SessionError::NoHello.into(),
            SessionError::BadHello {
                field: "hello.incarnation",
                fault: text.clone(),
            }
            .into(),
            SessionError::ProtocolMismatch {
                peer_min: 2,
                peer_max: 3,
                own_min: 1,
                own_max: 1,
            }
            .into(),
            SessionError::AliasTaken {
                alias: text.clone(),
                known: text.clone(),
                offered: text.clone(),
            }
            .into(),
            SessionError::BadMessage {
                sequence: 7,
                fault: text,
            }
            .into(),
            SessionError::Replaced.into(),
            SessionError::Unavailable(Unavailable::Recovering).into(),
        ]
    }

    #[test]
    fn every_error_has_its_code_reason_and_details() {
        let lines: Vec<String> = all().into_iter().map(line).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        Unavailable OUTCOME_UNKNOWN retry
        Unavailable RECOVERING retry
        Unavailable SHUTTING_DOWN retry
        InvalidArgument INVALID_PIPELINE fields=1
        AlreadyExists REQUEST_ID_REUSED
        FailedPrecondition RUN_DELETED
        AlreadyExists NAME_TAKEN
        ResourceExhausted STORE_FULL retry quota
        ResourceExhausted QUEUE_FULL retry quota
        Unavailable OUTCOME_UNKNOWN retry
        InvalidArgument INVALID_REQUEST fields=1
        InvalidArgument EMPTY_RUN fields=1
        FailedPrecondition RUN_NOT_ENDED precondition
        FailedPrecondition NOTHING_TO_RETRY precondition
        ResourceExhausted QUEUE_FULL retry quota
        InvalidArgument BAD_NAMESPACE fields=1
        InvalidArgument EMPTY_RUN fields=1
        NotFound RUN_NOT_FOUND
        InvalidArgument AMBIGUOUS_RUN
        NotFound STEP_NOT_FOUND
        NotFound HISTORY_GONE
        Unavailable STORE_FAILED retry
        InvalidArgument INVALID_REQUEST fields=1
        InvalidArgument EMPTY_RUN fields=1
        AlreadyExists REQUEST_ID_REUSED
        FailedPrecondition RUN_ENDED precondition
        FailedPrecondition RUN_NOT_ENDED precondition
        FailedPrecondition NOT_LOST_CONTACT precondition
        Unavailable SHUTTING_DOWN retry
        InvalidArgument INVALID_PIPELINE fields=1
        InvalidArgument EMPTY_RUN fields=1
        ResourceExhausted TOO_MANY_RENDERS retry quota
        ResourceExhausted RENDER_TOO_SLOW
        Internal RENDER_FAILED
        InvalidArgument INVALID_REQUEST fields=1
        InvalidArgument EMPTY_RUN fields=1
        InvalidArgument BAD_PAGE_TOKEN fields=1
        Unavailable NO_EXECUTOR retry
        InvalidArgument CLUSTER_AMBIGUOUS fields=1
        FailedPrecondition EXECUTOR_TOO_OLD
        ResourceExhausted TOO_MANY_SECRET_CALLS retry quota
        Unavailable EXECUTOR_LOST retry
        Unavailable CLUSTER_UNREACHABLE retry
        AlreadyExists SECRET_EXISTS
        NotFound SECRET_NOT_FOUND
        NotFound NAMESPACE_NOT_FOUND
        FailedPrecondition SECRET_NOT_MANAGED
        FailedPrecondition RIGHT_MISSING
        ResourceExhausted QUOTA_EXCEEDED quota
        FailedPrecondition POLICY_DENIED
        InvalidArgument SECRET_INVALID fields=1
        Aborted SECRET_CHANGED
        OutOfRange PAGE_TOKEN_EXPIRED
        FailedPrecondition EXECUTOR_NAMESPACE
        InvalidArgument INVALID_REQUEST fields=1
        InvalidArgument EMPTY_RUN fields=1
        Unavailable NO_EXECUTOR retry
        InvalidArgument CLUSTER_AMBIGUOUS fields=1
        FailedPrecondition EXECUTOR_TOO_OLD
        ResourceExhausted TOO_MANY_CHECKS retry quota
        Unavailable EXECUTOR_LOST retry
        InvalidArgument EMPTY_RUN fields=1
        InvalidArgument BAD_FILTER fields=1
        InvalidArgument BAD_PAGE_TOKEN fields=1
        InvalidArgument INVALID_SCHEDULE fields=1
        InvalidArgument EMPTY_RUN fields=1
        NotFound SCHEDULE_NOT_FOUND
        AlreadyExists SCHEDULE_EXISTS
        ResourceExhausted TOO_MANY_SCHEDULES quota
        AlreadyExists REQUEST_ID_REUSED
        ResourceExhausted STORE_FULL retry quota
        ResourceExhausted QUEUE_FULL retry quota
        InvalidArgument BAD_PAGE_TOKEN fields=1
        Unavailable RECOVERING retry
        InvalidArgument EMPTY_RUN fields=1
        InvalidArgument BAD_RESUME_TOKEN fields=1
        OutOfRange TOKEN_TOO_OLD
        ResourceExhausted WATCHER_TOO_SLOW
        ResourceExhausted TOO_MANY_WATCHERS retry quota
        InvalidArgument NO_HELLO
        InvalidArgument BAD_HELLO fields=1
        FailedPrecondition PROTOCOL_MISMATCH
        AlreadyExists CLUSTER_ALIAS_TAKEN
        InvalidArgument BAD_MESSAGE
        Aborted REPLACED
        Unavailable RECOVERING retry
        ");
    }

    #[test]
    fn i11_details_stay_below_what_clients_accept_in_headers() {
        let problems = (0..5_000)
            .map(|index| {
                FieldProblem::new(
                    format!("pipeline.steps[{index}].image"),
                    "MISSING",
                    "an image is needed",
                )
            })
            .collect();
        let status = Status::from(SubmitError::Invalid(problems));
        assert!(status.details().len() < 5_000, "{}", status.details().len());
        assert!(status.message().len() < 1_250);
        let fields = status.get_details_bad_request().expect("fields").field_violations;
        let last = fields.last().expect("some");
        assert!(last.description.starts_with("and 49"), "{}", last.description);

        let long = "x".repeat(1 << 20);
        let problem = FieldProblem::new(long.clone(), "BAD_VALUE", long.clone());
        let status = Status::from(SubmitError::Invalid(vec![problem; 3]));
        assert!(status.details().len() < 5_000, "{}", status.details().len());
        assert!(status.message().starts_with("3 problems:\nxxx"), "{}", status.message());
        let status = Status::from(LookupError::BadNamespace(long.clone()));
        assert!(status.details().len() < 5_000, "{}", status.details().len());
        let run = RunName(long.clone());
        let status = Status::from(LookupError::UnknownStep { run, step: long });
        assert!(status.details().len() < 5_000, "{}", status.details().len());
    }
}

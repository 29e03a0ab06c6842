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
        SubmitError::ReferencesMissing(vec![problem.clone()]).into(),
        SubmitError::SecretUnknown {
            secret: "warehouse".to_owned(),
            why: "nobody is there".to_owned(),
        }
        .into(),
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
        SubmitError::Overlapped {
            run: windlass_ids::RunId::from_bytes([7; 16]),
        }
        .into(),
        SubmitError::SecretsReplaced {
            schedule: "nightly".to_owned(),
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
        LookupError::RunDeleted {
            namespace: namespace.clone(),
            run: run.clone(),
            time: windlass_ids::Timestamp::from_millis(0),
        }
        .into(),
        LookupError::RunExpired {
            namespace: namespace.clone(),
            run: run.clone(),
            time: windlass_ids::Timestamp::from_millis(0),
        }
        .into(),
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
        SecretError::from(CallError::NoExecutor { cluster: text.clone() }).into(),
        SecretError::from(CallError::ClusterAmbiguous {
            clusters: vec![text.clone()],
        })
        .into(),
        SecretError::from(CallError::ExecutorTooOld { cluster: text.clone() }).into(),
        SecretError::from(CallError::TooMany).into(),
        SecretError::from(CallError::ExecutorLost).into(),
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
        CheckError::from(CallError::ExecutorLost).into(),
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
        ScheduleError::Overlapped {
            schedule: text.clone(),
            run: "churn-7k2m".into(),
        }
        .into(),
        ScheduleError::InvalidExport(vec![FieldProblem::new("image", "BAD_VALUE", "must name an image")]).into(),
        ScheduleError::NotExportable {
            schedule: text.clone(),
            problems: vec![FieldProblem::new("spec.interval", "NOT_EXPORTABLE", "no intervals")],
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
    FailedPrecondition REFERENCES_MISSING fields=1
    Unavailable SECRET_UNKNOWN retry
    AlreadyExists REQUEST_ID_REUSED
    FailedPrecondition RUN_DELETED
    AlreadyExists NAME_TAKEN
    FailedPrecondition OVERLAPPED
    Unavailable SECRETS_REPLACED retry
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
    NotFound RUN_DELETED
    NotFound RUN_EXPIRED
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
    ResourceExhausted TOO_MANY_CALLS retry quota
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
    FailedPrecondition OVERLAPPED
    InvalidArgument INVALID_EXPORT fields=1
    FailedPrecondition NOT_EXPORTABLE fields=1
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

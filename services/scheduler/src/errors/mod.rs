//! What can go wrong with a request: one enum for each kind of operation, typed until `grpc::status` turns it into a status.

mod calls;

use windlass_api::refusal::shorten;
use windlass_ids::{Namespace, RunId, RunName, Timestamp};

pub use self::calls::{CallError, CheckError, SecretError};
pub use crate::grpc::filter::FilterError;
pub use crate::grpc::page::PageTokenError;

/// One problem of a request or of a pipeline in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldProblem {
    /// Path of the field, such as `pipeline.steps[2].pod.nodeSelector`.
    pub path: String,
    /// Machine-readable code, such as `UNKNOWN_FIELD`.
    pub code: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl FieldProblem {
    /// A problem of a field.
    pub fn new(path: impl Into<String>, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            code: code.into(),
            message: message.into(),
        }
    }
}

/// Why the scheduler could not take a command, whatever the command was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The commit failed: it may or may not have happened.
    #[error("the outcome is unknown because the store failed; repeat the request with the same request_id")]
    OutcomeUnknown,
    /// The state is being read back from the store.
    #[error("the scheduler is recovering its state; repeat the request in a moment")]
    Recovering,
    /// The process is about to end.
    #[error("the scheduler is shutting down; repeat the request in a moment")]
    ShuttingDown,
}

/// Why a submission was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The request or its pipeline is wrong; nothing was done.
    #[error("{}", summary(.0))]
    Invalid(Vec<FieldProblem>),
    /// Secrets, or keys of them, that the pipeline refers to are not there; nothing was done.
    #[error("{}", summary(.0))]
    ReferencesMissing(Vec<FieldProblem>),
    /// Whether a Secret may be used cannot be known now; nothing was done.
    #[error("whether Secret {secret} may be used is not known: {why}")]
    SecretUnknown {
        /// Its name.
        secret: String,
        /// Why not.
        why: String,
    },
    /// The request id was used for other content.
    #[error("request_id was used before for run {run} with other content")]
    RequestIdReused {
        /// The run that it made.
        run: RunName,
        /// Hash of what was submitted then.
        stored_hash: String,
        /// Hash of what was submitted now.
        offered_hash: String,
    },
    /// The run of this request id was deleted.
    #[error("this request_id made run {run}, which was deleted since; use a new one to run the pipeline again")]
    RunDeleted {
        /// Id of the run.
        run: RunId,
    },
    /// Another run has this name.
    #[error("run {name} exists already in namespace {namespace}; choose another name or none")]
    NameTaken {
        /// The name.
        name: RunName,
        /// Its namespace.
        namespace: Namespace,
    },
    /// A run of the schedule has not ended, and its overlap policy forbids another one.
    #[error("run {run} of the schedule has not ended, and its overlap policy is skip")]
    Overlapped {
        /// Id of the run.
        run: RunId,
    },
    /// Too little free space: running work goes on, new work is refused.
    #[error("the store is low on free space; what runs goes on, new runs are refused")]
    StoreFull,
    /// The secrets of the run could not be made. One that is named was taken in, and stays PREPARING for a while.
    #[error("{}", not_made(.run.as_ref(), .error))]
    SecretsNotMade {
        /// The run, when there is one already.
        run: Option<RunName>,
        /// Why.
        error: Box<SecretError>,
    },
    /// The secrets of the schedule have just been replaced; asked again, the run gets the new ones.
    #[error("the secrets of schedule {schedule} have just been replaced; repeat the request")]
    SecretsReplaced {
        /// The schedule.
        schedule: String,
    },
    /// Too many submissions wait.
    #[error("too many submissions are waiting")]
    QueueFull,
    /// See [`Unavailable`].
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why a run was not retried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetryError {
    /// The request is wrong; nothing was done.
    #[error("{}", summary(.0))]
    Invalid(Vec<FieldProblem>),
    /// See [`LookupError`].
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The run has not ended.
    #[error("run {run} is {state}; it can be retried once it has ended")]
    RunNotEnded {
        /// The run.
        run: RunName,
        /// Its state.
        state: String,
    },
    /// The run has succeeded.
    #[error("run {run} has succeeded: there is nothing to retry; submit its pipeline again to run all of it")]
    NothingToRetry {
        /// The run.
        run: RunName,
    },
    /// The new run was refused as a submission would be.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

impl From<Unavailable> for RetryError {
    fn from(error: Unavailable) -> Self {
        Self::Submit(error.into())
    }
}

/// Why a run or step was not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The text is no name of a namespace.
    #[error("namespace {0:?} is not a DNS label (lower-case letters, digits and dashes, at most 63)")]
    BadNamespace(String),
    /// The request names no run.
    #[error("run must be an id, a name, a unique prefix of either, or @latest")]
    EmptyRun,
    /// No run has this id, name or prefix.
    #[error("no run {run:?} in namespace {namespace}")]
    UnknownRun {
        /// The namespace.
        namespace: Namespace,
        /// What was asked for.
        run: String,
    },
    /// Somebody has deleted the run.
    #[error("run {run} of namespace {namespace} was deleted at {}", date(*.time))]
    RunDeleted {
        /// The namespace.
        namespace: Namespace,
        /// The run.
        run: RunName,
        /// When.
        time: Timestamp,
    },
    /// The run was deleted because it had ended long ago.
    #[error("run {run} of namespace {namespace} has expired: it was deleted at {}", date(*.time))]
    RunExpired {
        /// The namespace.
        namespace: Namespace,
        /// The run.
        run: RunName,
        /// When.
        time: Timestamp,
    },
    /// Several runs begin with it.
    #[error("{prefix:?} could be {}", .candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// Names of runs that begin with it, or have ids that do; at most 10.
        candidates: Vec<String>,
    },
    /// The run has no such step.
    #[error("run {run} has no step {step:?}")]
    UnknownStep {
        /// The run.
        run: RunName,
        /// What was asked for.
        step: String,
    },
    /// The run's history is kept no longer.
    #[error("the history of run {run} is kept no longer")]
    HistoryGone {
        /// The run.
        run: RunName,
    },
    /// The store could not be read.
    #[error("the store could not be read; repeat the request in a moment")]
    StoreFailed,
}

/// Why a change of a run was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The request is wrong; nothing was done.
    #[error("{}", summary(.0))]
    Invalid(Vec<FieldProblem>),
    /// See [`LookupError`].
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The request id was used for something else.
    #[error("request_id was used before for run {run} with other content")]
    RequestIdReused {
        /// The run that it was about.
        run: String,
        /// Hash of what was asked then.
        stored_hash: String,
        /// Hash of what was asked now.
        offered_hash: String,
    },
    /// The run has ended already.
    #[error("run {run} has ended: {state}")]
    RunEnded {
        /// The run.
        run: RunName,
        /// Its state.
        state: String,
    },
    /// The run has not ended.
    #[error("run {run} is {state}; cancel it first")]
    RunNotEnded {
        /// The run.
        run: RunName,
        /// Its state.
        state: String,
    },
    /// The attempt did not lose contact.
    #[error("step {step} is {state}, not LOST_CONTACT: there is nothing to confirm")]
    NotLostContact {
        /// The step.
        step: String,
        /// Its state.
        state: String,
    },
    /// See [`Unavailable`].
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why a request about a schedule was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The schedule or its pipeline is wrong; nothing was done.
    #[error("{}", summary(.0))]
    Invalid(Vec<FieldProblem>),
    /// See [`LookupError`].
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// No schedule has this name.
    #[error("no schedule {schedule:?} in namespace {namespace}")]
    Unknown {
        /// The namespace.
        namespace: Namespace,
        /// What was asked for.
        schedule: String,
    },
    /// Another schedule has this name.
    #[error("schedule {schedule} exists already in namespace {namespace}; choose another name, or update it")]
    Exists {
        /// The namespace.
        namespace: Namespace,
        /// The name.
        schedule: String,
    },
    /// The namespace has as many schedules as it may have.
    #[error("namespace {namespace} has {most} schedules already; delete some first")]
    TooMany {
        /// The namespace.
        namespace: Namespace,
        /// How many it may have.
        most: usize,
    },
    /// The request id was used for something else.
    #[error("request_id was used before with other content")]
    RequestIdReused {
        /// Hash of what was asked then.
        stored_hash: String,
        /// Hash of what was asked now.
        offered_hash: String,
    },
    /// A run has not ended, and the overlap policy forbids another one.
    #[error("run {run} of schedule {schedule} has not ended, and its overlap policy is skip")]
    Overlapped {
        /// The schedule.
        schedule: String,
        /// The run.
        run: RunName,
    },
    /// The request for a CronJob is wrong.
    #[error("{}", summary(.0))]
    InvalidExport(Vec<FieldProblem>),
    /// A CronJob cannot express the schedule.
    #[error("schedule {schedule} cannot be a CronJob: {}", summary(.problems))]
    NotExportable {
        /// The schedule.
        schedule: String,
        /// What cannot be expressed.
        problems: Vec<FieldProblem>,
    },
    /// The store is low on free space.
    #[error("the store is low on free space; what is scheduled goes on, schedules are not changed")]
    StoreFull,
    /// The run of a trigger was refused.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// See [`PageTokenError`].
    #[error(transparent)]
    PageToken(#[from] PageTokenError),
    /// See [`Unavailable`].
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why a pipeline was not rendered, or not to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The request or its pipeline is wrong.
    #[error("{}", summary(.0))]
    Invalid(Vec<FieldProblem>),
    /// See [`LookupError`].
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// Too many pipelines are being rendered.
    #[error("too many pipelines are being rendered")]
    TooMany,
    /// The client did not take the pods fast enough.
    #[error("the client was too slow to take the pods; ask for fewer steps")]
    TooSlow,
    /// The server is at fault.
    #[error("the pods could not be made; please report this with the pipeline")]
    Broken,
}

fn not_made(run: Option<&RunName>, error: &SecretError) -> String {
    match run {
        None => format!("the secrets cannot be made: {error}"),
        Some(run) => format!(
            "run {run} stays PREPARING, since its secrets could not be made: {error}; repeat the request with the same request_id, or cancel the run"
        ),
    }
}

/// Why a list was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// See [`LookupError`].
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// See [`FilterError`].
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// See [`PageTokenError`].
    #[error(transparent)]
    PageToken(#[from] PageTokenError),
}

/// Why a watch was refused or broken off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// See [`LookupError`].
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The token was not made for this run by this server.
    #[error("resume_token is not a token of this run; start without one")]
    BadToken,
    /// The events after the token are kept no longer.
    #[error("the events after resume_token are kept no longer; start without a token")]
    TokenTooOld,
    /// The watcher did not take its events fast enough.
    #[error("the watcher was too slow; resume with the token in this error, or start without one when it has none")]
    TooSlow {
        /// Where to go on; empty when it did not take the whole snapshot.
        resume_token: String,
    },
    /// Too many watchers.
    #[error("too many watchers are connected")]
    TooMany,
}

/// Why a session of an executor or a log relay was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The first message was not Hello.
    #[error("the first message must be Hello")]
    NoHello,
    /// Hello has a bad field.
    #[error("{field}: {fault}")]
    BadHello {
        /// The field.
        field: &'static str,
        /// What is wrong.
        fault: String,
    },
    /// No common protocol.
    #[error(
        "the peer speaks protocols {peer_min} to {peer_max}, this scheduler {own_min} to {own_max}: upgrade the older one"
    )]
    ProtocolMismatch {
        /// Oldest that the peer speaks.
        peer_min: u32,
        /// Newest that the peer speaks.
        peer_max: u32,
        /// Oldest that we speak.
        own_min: u32,
        /// Newest that we speak.
        own_max: u32,
    },
    /// The alias belongs to another cluster.
    #[error("alias {alias:?} belongs to cluster {known}; give cluster {offered} another alias")]
    AliasTaken {
        /// The alias.
        alias: String,
        /// Uid of the cluster that has it.
        known: String,
        /// Uid of the cluster that asked for it.
        offered: String,
    },
    /// A later message cannot be understood.
    #[error("message {sequence}: {fault}")]
    BadMessage {
        /// Its sequence number.
        sequence: u64,
        /// What is wrong.
        fault: String,
    },
    /// A newer stream of the same process took over.
    #[error("a newer stream of this process took over")]
    Replaced,
    /// See [`Unavailable`].
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A time to the second.
fn date(time: Timestamp) -> String {
    let time = jiff::Timestamp::from_millisecond(time.as_millis()).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The problems in one line each, as far as a status message can carry them.
fn summary(problems: &[FieldProblem]) -> String {
    const ROOM: usize = 1_100;
    const LINE: usize = 500;
    let mut text = match problems.len() {
        1 => "1 problem:".to_owned(),
        count => format!("{count} problems:"),
    };
    for (shown, problem) in problems.iter().enumerate() {
        let line = format!(
            "\n{}: {} ({})",
            shorten(&problem.path, LINE / 2),
            shorten(&problem.message, LINE),
            problem.code
        );
        if text.len() + line.len() > ROOM && shown > 0 {
            text.push_str(&format!("\nand {} more", problems.len() - shown));
            break;
        }
        text.push_str(&line);
    }
    text
}

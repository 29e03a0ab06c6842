//! Submitting a run: checked, named, and handed to the driver once for each request id.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use windlass_api::dispatch::v1 as dispatch;
use windlass_api::pipeline::v1::Pipeline as WirePipeline;
use windlass_api::run::v1::SubmitRunRequest;
use windlass_ids::{ClusterAlias, ClusterUid, Namespace, RequestId, RunId, RunName, Timestamp};
use windlass_pipeline::{Pipeline, ResolvedPipeline};
use windlass_scheduling::{Reused, RunState, StepState};

use super::check::{Checked, Checker, Unchecked, broken, no_pipeline};
use super::lanes::{Broken, Size};
use super::name::{name_fault, readable_name};
use super::secrets;
use crate::definition::RunDefinition;
use crate::driver::{Reservation, ReservedKey, Submission};
use crate::errors::{FieldProblem, SubmitError, Unavailable};
use crate::run_secrets::Values;
use crate::secrets::references;
use crate::shared::Shared;
use crate::store::{
    DefinitionKind, Lineage, NamePattern, Operation, PackedDefinition, RequestRecord, RunFilter, RunFixed, RunHeader,
    RunProgress, SharedSecret, Store, StoreError,
};

/// Bound on a request id.
pub(crate) const MAX_REQUEST_ID: usize = 128;
/// Bounds on a run's labels.
const MAX_LABELS: usize = 64;
const MAX_LABEL: usize = 253;
/// Random characters of a run's name, and how many are tried before there are more of them.
const SUFFIX: usize = 4;
const LONG_SUFFIX: usize = 8;
const TRIES: usize = 4;

/// Who submits, and where from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Submitter {
    pub(crate) user: String,
    pub(crate) traceparent: String,
}

/// What became of a submission.
#[derive(Debug)]
pub(crate) struct Submitted {
    pub(crate) header: RunHeader,
    pub(crate) created: bool,
}

/// Submits a run and waits until it is durable.
///
/// # Errors
/// See [`SubmitError`].
pub(crate) async fn submit(
    shared: &Shared,
    checker: Checker,
    submitter: Submitter,
    request: SubmitRunRequest,
) -> Result<Submitted, SubmitError> {
    let SubmitRunRequest {
        namespace,
        request_id,
        pipeline,
        parameters,
        name,
        labels,
        skip_reference_check,
        secrets,
    } = request;
    let checker = checker.with_references(!skip_reference_check);
    let secrets = Values(secrets);
    let mut problems = field_problems(&request_id, &name, &labels);
    problems.extend(secrets::form_problems(&secrets));
    let namespace = crate::lookup::namespace(&namespace).unwrap_or_else(|error| {
        problems.push(FieldProblem::new("namespace", "BAD_VALUE", error.to_string()));
        Namespace::default()
    });
    let Some(pipeline) = pipeline else {
        problems.extend(no_pipeline());
        return Err(SubmitError::Invalid(problems));
    };
    let request = Request {
        size: Size::of(&pipeline),
        operation: Operation::Submit,
        namespace,
        request_id,
        name,
        labels,
        secrets,
    };
    let (request, unchecked, digest) = request.read(shared, pipeline, parameters).await?;
    if problems.is_empty() && unchecked.is_whole() {
        return request.submit(shared, submitter, checker, unchecked, digest).await;
    }
    let checked = request.check(shared, checker, unchecked).await;
    problems.extend(checked.err().into_iter().flatten());
    Err(SubmitError::Invalid(problems))
}

pub(super) fn field_problems(request_id: &str, name: &str, labels: &BTreeMap<String, String>) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    let mut bad = |path: String, message: &str| problems.push(FieldProblem::new(path, "BAD_VALUE", message));
    if request_id.is_empty() || request_id.len() > MAX_REQUEST_ID {
        bad(
            "requestId".to_owned(),
            "must have 1 to 128 characters, new for each submission",
        );
    }
    if let Some(fault) = name_fault(name).filter(|_| !name.is_empty()) {
        bad("name".to_owned(), fault);
    }
    problems.extend(label_problems("labels", labels));
    problems
}

/// What is wrong with labels of runs, which stand at `path`.
pub(crate) fn label_problems(path: &str, labels: &BTreeMap<String, String>) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    let mut bad = |path: String, message: &str| problems.push(FieldProblem::new(path, "BAD_VALUE", message));
    if labels.len() > MAX_LABELS {
        bad(path.to_owned(), "may have at most 64 entries");
    }
    for (key, value) in labels {
        let plain = |text: &str| text.len() <= MAX_LABEL && !text.contains(char::is_whitespace);
        if key.is_empty() || key.contains('=') || !plain(key) || !plain(value) {
            bad(
                format!("{path}.{key}"),
                "keys and values have at most 253 characters without blanks, keys no `=`",
            );
        }
    }
    problems
}

/// A submission, or another request that makes a run, but for its pipeline.
#[derive(Debug)]
pub(super) struct Request {
    /// How much work its pipeline makes.
    pub(super) size: Size,
    pub(super) operation: Operation,
    pub(super) namespace: Namespace,
    pub(super) request_id: String,
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) secrets: Values,
}

/// What a new run is made of.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) resolved: ResolvedPipeline,
    /// Canonical YAML of the pipeline as it was submitted.
    pub(super) submitted: Vec<u8>,
    /// Where it comes from, and what it takes over; of a retried run.
    pub(super) retried: Option<(Lineage, Vec<Reused>)>,
    /// Secrets of a schedule that it uses in place of its own.
    pub(super) secret: Option<SharedSecret>,
}

impl Content {
    /// Of a pipeline that is run for the first time.
    pub(super) fn of(pipeline: &Pipeline, resolved: ResolvedPipeline) -> Self {
        Self {
            resolved,
            submitted: super::render::canonical(pipeline).into_bytes(),
            retried: None,
            secret: None,
        }
    }
}

/// A request id that nobody else uses until the run is durable, and the hash of what came with it.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) reservation: Reservation,
    pub(super) digest: [u8; 32],
}

/// A run that is ready to be handed over.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) header: RunHeader,
    pub(crate) definition: RunDefinition,
    pub(crate) packed: Vec<PackedDefinition>,
    pub(crate) reused: Vec<Reused>,
}

/// A request whose id was looked up.
#[derive(Debug)]
pub(super) enum Begun {
    /// It is new.
    Fresh(Fresh),
    /// It made this run before.
    Again(Box<RunHeader>),
}

impl Request {
    /// Reads the pipeline and hashes everything that makes two submissions the same.
    async fn read(
        self,
        shared: &Shared,
        pipeline: WirePipeline,
        parameters: BTreeMap<String, prost_types::Value>,
    ) -> Result<(Self, Unchecked, [u8; 32]), SubmitError> {
        let size = self.size;
        let work = move || {
            let unchecked = Unchecked::read(pipeline, parameters);
            let content = windlass_pipeline::content_hash(&unchecked.pipeline, &unchecked.parameters);
            // Maps are ordered, so equal content has equal bytes. Of secrets only the keys count: what follows from a value is not stored (I8).
            let content = match self.secrets.keys() {
                keys if keys.is_empty() => serde_json::to_vec(&(content, &self.name, &self.labels)),
                keys => serde_json::to_vec(&(content, &self.name, &self.labels, keys)),
            };
            let content = content.unwrap_or_default();
            (self, unchecked, Sha256::digest(content).into())
        };
        shared.lanes.run(size, work).await.map_err(is_broken)
    }

    pub(super) async fn check(
        &self,
        shared: &Shared,
        checker: Checker,
        unchecked: Unchecked,
    ) -> Result<Checked, Vec<FieldProblem>> {
        let namespace = self.namespace.clone();
        let work = move || checker.check(&namespace, unchecked);
        shared
            .lanes
            .run(self.size, work)
            .await
            .unwrap_or_else(|Broken| Err(broken()))
    }

    /// Submits what has no fault in its form. Whether the request is known is asked before its pipeline is checked: what was
    /// accepted once stays accepted.
    async fn submit(
        self,
        shared: &Shared,
        submitter: Submitter,
        checker: Checker,
        unchecked: Unchecked,
        digest: [u8; 32],
    ) -> Result<Submitted, SubmitError> {
        let store = shared.store().map_err(|_| Unavailable::Recovering)?;
        let fresh = match self.begin(shared, store.as_ref(), digest).await? {
            Begun::Fresh(fresh) => fresh,
            Begun::Again(header) => {
                let header = self.go_on(shared, store.as_ref(), *header).await?;
                return Ok(Submitted { header, created: false });
            }
        };
        let level = checker.check_references;
        let Checked {
            pipeline,
            mut resolved,
            references,
        } = self
            .check(shared, checker, unchecked)
            .await
            .map_err(SubmitError::Invalid)?;
        let problems = secrets::problems(&pipeline, &resolved, &self.secrets);
        if !problems.is_empty() {
            return Err(SubmitError::Invalid(problems));
        }
        references::check(&shared.executors, &self.namespace, level, &references).await?;
        let place_of = |alias: &str| shared.executors.place_of::<dispatch::RunSecretCall>(alias);
        let places = secrets::places(place_of, &mut resolved, &[])?;
        let content = Content::of(&pipeline, resolved);
        let header = self
            .enter(shared, store.as_ref(), submitter, fresh, (content, places))
            .await?;
        Ok(Submitted { header, created: true })
    }

    /// A run that the request made before; one that is still being prepared goes on.
    pub(super) async fn go_on(
        &self,
        shared: &Shared,
        store: &dyn Store,
        header: RunHeader,
    ) -> Result<RunHeader, SubmitError> {
        match header.progress.state {
            RunState::Preparing => secrets::prepare(shared, store, header, &self.secrets).await,
            _ => Ok(header),
        }
    }

    /// Whether the request was carried out before.
    pub(super) async fn begin(
        &self,
        shared: &Shared,
        store: &dyn Store,
        digest: [u8; 32],
    ) -> Result<Begun, SubmitError> {
        let key = ReservedKey::Request(self.namespace.clone(), self.request_id.clone());
        let reservation = shared.reservations.reserve(key).await;
        match self.known(store).await? {
            Some(record) => Ok(Begun::Again(Box::new(self.again(store, &record, digest).await?))),
            None => Ok(Begun::Fresh(Fresh { reservation, digest })),
        }
    }

    /// Names a run, hands it to the driver and waits until it is durable, and its secrets are in their clusters.
    pub(super) async fn enter(
        mut self,
        shared: &Shared,
        store: &dyn Store,
        submitter: Submitter,
        fresh: Fresh,
        (content, places): (Content, BTreeMap<ClusterUid, ClusterAlias>),
    ) -> Result<RunHeader, SubmitError> {
        store.admit().map_err(|error| match error {
            StoreError::LowSpace { .. } | StoreError::Full { .. } => SubmitError::StoreFull,
            _ => Unavailable::Recovering.into(),
        })?;
        let Fresh { reservation, digest } = fresh;
        let (name, named) = self.name(shared, store, &content.resolved.name).await?;
        let request = RequestRecord {
            namespace: self.namespace.clone(),
            request_id: RequestId(self.request_id.clone()),
            operation: self.operation,
            digest,
            run: None,
            outcome: Vec::new(),
            created: Timestamp::default(),
        };
        let (size, now) = (self.size, shared.clock.now());
        let secrets = std::mem::take(&mut self.secrets);
        let work = move || self.make(now, name, submitter, content);
        let made = shared.lanes.run(size, work).await.map_err(is_broken)??;
        let Made {
            mut header,
            definition,
            packed,
            reused,
        } = made;
        let prepares = !places.is_empty();
        if prepares {
            header.progress.state = RunState::Preparing;
        }
        let (reply, answer) = oneshot::channel();
        shared.inbox.submit(Box::new(Submission {
            header: header.clone(),
            definition: Arc::new(definition),
            packed,
            reused,
            secrets: places,
            request: Some(RequestRecord {
                run: Some(header.id),
                created: header.created,
                ..request
            }),
            obeys_overlap: false,
            reservations: vec![reservation, named],
            reply,
        }))?;
        answer.await.map_err(|_| Unavailable::OutcomeUnknown)??;
        match prepares {
            true => secrets::prepare(shared, store, header, &secrets).await,
            false => Ok(header),
        }
    }

    async fn known(&self, store: &dyn Store) -> Result<Option<RequestRecord>, SubmitError> {
        let key = (self.namespace.clone(), RequestId(self.request_id.clone()));
        let known = store.requests(&[key]).await.map_err(unread)?;
        Ok(known.into_iter().next().flatten())
    }

    async fn again(
        &self,
        store: &dyn Store,
        record: &RequestRecord,
        digest: [u8; 32],
    ) -> Result<RunHeader, SubmitError> {
        let header = match record.run {
            Some(run) => store.run(run).await.map_err(unread)?,
            None => None,
        };
        let is_same = record.operation == self.operation && record.digest == digest;
        match (header, record.run) {
            (Some(header), _) if is_same => Ok(header),
            (None, Some(run)) if is_same => Err(SubmitError::RunDeleted { run }),
            (header, run) => Err(SubmitError::RequestIdReused {
                run: header.map_or_else(
                    || RunName(run.map(|run| run.to_string()).unwrap_or_default()),
                    |header| header.name,
                ),
                stored_hash: hex::encode(record.digest),
                offered_hash: hex::encode(digest),
            }),
        }
    }

    /// The run's name, reserved: the client's, or a readable one that is free.
    pub(super) async fn name(
        &self,
        shared: &Shared,
        store: &dyn Store,
        pipeline: &str,
    ) -> Result<(RunName, Reservation), SubmitError> {
        if !self.name.is_empty() {
            let name = RunName(self.name.clone());
            let key = ReservedKey::Name(self.namespace.clone(), self.name.clone());
            let reservation = shared.reservations.reserve(key).await;
            return match self.is_taken(store, &name).await? {
                false => Ok((name, reservation)),
                true => Err(SubmitError::NameTaken {
                    name,
                    namespace: self.namespace.clone(),
                }),
            };
        }
        for attempt in 0.. {
            let suffix = if attempt < TRIES { SUFFIX } else { LONG_SUFFIX };
            let name = RunName(readable_name(pipeline, suffix, &mut rand::rng()));
            let key = ReservedKey::Name(self.namespace.clone(), name.0.clone());
            if let Ok(reservation) = shared.reservations.try_reserve(key)
                && !self.is_taken(store, &name).await?
            {
                return Ok((name, reservation));
            }
        }
        Err(Unavailable::Recovering.into())
    }

    async fn is_taken(&self, store: &dyn Store, name: &RunName) -> Result<bool, SubmitError> {
        let filter = RunFilter {
            namespace: Some(self.namespace.clone()),
            name: Some(NamePattern::Exact(name.0.clone())),
            ..RunFilter::default()
        };
        let page = store.list_runs(&filter, None, 1).await.map_err(unread)?;
        Ok(!page.runs.is_empty())
    }

    /// Builds and packs what is stored of the run.
    pub(super) fn make(
        self,
        now: Timestamp,
        name: RunName,
        submitter: Submitter,
        content: Content,
    ) -> Result<Made, SubmitError> {
        let Content {
            resolved,
            submitted,
            retried,
            secret,
        } = content;
        let (lineage, reused) = retried.map_or((None, Vec::new()), |(lineage, reused)| (Some(lineage), reused));
        let id = new_run_id(now);
        let stored = serde_json::to_vec(&resolved).unwrap_or_default();
        let packed = vec![
            PackedDefinition::pack(DefinitionKind::Submitted, submitted),
            PackedDefinition::pack(DefinitionKind::Resolved, stored),
        ];
        let parameters = resolved.parameters.iter();
        let header = RunHeader {
            id,
            namespace: self.namespace.clone(),
            name,
            pipeline: resolved.name.clone(),
            submitted_by: submitter.user,
            created: now,
            fixed: RunFixed {
                priority: resolved.priority,
                cluster: resolved.cluster.clone().unwrap_or_default(),
                labels: self.labels,
                parameters: parameters
                    .map(|(name, value)| (name.clone(), serde_json::to_value(value).unwrap_or_default()))
                    .collect(),
                traceparent: submitter.traceparent,
                lineage,
                schedule: None,
                secret,
            },
            progress: RunProgress {
                counts: counts(resolved.step_count(), &reused),
                ..RunProgress::new(RunState::Queued, 0)
            },
        };
        let definition = RunDefinition::build(id, &self.namespace, resolved).map_err(|error| {
            SubmitError::Invalid(vec![FieldProblem::new("pipeline", "BAD_VALUE", error.to_string())])
        })?;
        Ok(Made {
            header,
            definition,
            packed,
            reused,
        })
    }
}

/// Steps by state, before anything has happened.
fn counts(steps: u32, reused: &[Reused]) -> Vec<(StepState, u32)> {
    let cached = u32::try_from(reused.len()).unwrap_or(u32::MAX);
    let counts = [
        (StepState::Waiting, steps.saturating_sub(cached)),
        (StepState::Cached, cached),
    ];
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}

pub(super) fn is_broken(_: Broken) -> SubmitError {
    SubmitError::Invalid(broken())
}

pub(super) fn unread(error: StoreError) -> SubmitError {
    tracing::error!(%error, "store could not be read");
    Unavailable::Recovering.into()
}

/// A version 7 UUID: milliseconds, then random bits.
fn new_run_id(now: Timestamp) -> RunId {
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    let uuid = uuid::Builder::from_unix_timestamp_millis(millis, &rand::rng().random()).into_uuid();
    RunId::from_bytes(*uuid.as_bytes())
}

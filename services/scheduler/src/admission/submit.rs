//! Submitting a run: checked, named, and handed to the driver once for each request id.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use windlass_api::run::v1::SubmitRunRequest;
use windlass_ids::{Namespace, RequestId, RunId, RunName, Timestamp};
use windlass_scheduling::{RunState, StepState};

use super::check::{Checked, Checker, check};
use super::name::{name_fault, readable_name};
use crate::definition::RunDefinition;
use crate::driver::{Reservation, ReservedKey, Submission};
use crate::errors::{FieldProblem, SubmitError, Unavailable};
use crate::shared::Shared;
use crate::store::{
    DefinitionKind, NamePattern, Operation, PackedDefinition, RequestRecord, RunFilter, RunFixed, RunHeader,
    RunProgress, Store, StoreError,
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
    } = request;
    let mut problems = field_problems(&request_id, &name, &labels);
    let namespace = crate::lookup::namespace(&namespace).unwrap_or_else(|error| {
        problems.push(FieldProblem::new("namespace", "BAD_VALUE", error.to_string()));
        Namespace::default()
    });
    let checked = match check(checker, namespace.clone(), pipeline, parameters).await {
        Ok(checked) if problems.is_empty() => checked,
        Ok(_) => return Err(SubmitError::Invalid(problems)),
        Err(more) => {
            problems.extend(more);
            return Err(SubmitError::Invalid(problems));
        }
    };
    let offered = Offered {
        namespace,
        request_id,
        name,
        labels,
        checked,
    };
    offered.submit(shared, submitter).await
}

fn field_problems(request_id: &str, name: &str, labels: &BTreeMap<String, String>) -> Vec<FieldProblem> {
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
    if labels.len() > MAX_LABELS {
        bad("labels".to_owned(), "may have at most 64 entries");
    }
    for (key, value) in labels {
        let plain = |text: &str| text.len() <= MAX_LABEL && !text.contains(char::is_whitespace);
        if key.is_empty() || key.contains('=') || !plain(key) || !plain(value) {
            bad(
                format!("labels.{key}"),
                "keys and values have at most 253 characters without blanks, keys no `=`",
            );
        }
    }
    problems
}

/// A submission without a fault in its form.
struct Offered {
    namespace: Namespace,
    request_id: String,
    name: String,
    labels: BTreeMap<String, String>,
    checked: Checked,
}

impl Offered {
    async fn submit(self, shared: &Shared, submitter: Submitter) -> Result<Submitted, SubmitError> {
        let store = shared.store().map_err(|_| Unavailable::Recovering)?;
        let digest = self.digest();
        let key = ReservedKey::Request(self.namespace.clone(), self.request_id.clone());
        let reservation = shared.reservations.reserve(key).await;
        if let Some(record) = self.known(store.as_ref()).await? {
            return self.again(store.as_ref(), &record, digest).await;
        }
        store.admit().map_err(|error| match error {
            StoreError::LowSpace { .. } | StoreError::Full { .. } => SubmitError::StoreFull,
            _ => Unavailable::Recovering.into(),
        })?;
        let (name, named) = self.name(shared, store.as_ref()).await?;
        let (header, definition) = self.header(shared.clock.now(), name, submitter)?;
        let request = RequestRecord {
            namespace: self.namespace.clone(),
            request_id: RequestId(self.request_id.clone()),
            operation: Operation::Submit,
            digest,
            run: Some(header.id),
            outcome: Vec::new(),
            created: header.created,
        };
        let packed = self.packed();
        let (reply, answer) = oneshot::channel();
        shared.inbox.submit(Box::new(Submission {
            header: header.clone(),
            definition: Arc::new(definition),
            packed,
            request,
            reservations: vec![reservation, named],
            reply,
        }))?;
        answer.await.map_err(|_| Unavailable::OutcomeUnknown)??;
        Ok(Submitted { header, created: true })
    }

    /// Hash of everything that makes two submissions the same.
    fn digest(&self) -> [u8; 32] {
        let pipeline = windlass_pipeline::content_hash(&self.checked.pipeline, &self.checked.parameters);
        // Maps are ordered, so equal content has equal bytes.
        Sha256::digest(serde_json::to_vec(&(pipeline, &self.name, &self.labels)).unwrap_or_default()).into()
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
    ) -> Result<Submitted, SubmitError> {
        let header = match record.run {
            Some(run) => store.run(run).await.map_err(unread)?,
            None => None,
        };
        match header {
            Some(header) if record.operation == Operation::Submit && record.digest == digest => {
                Ok(Submitted { header, created: false })
            }
            header => Err(SubmitError::RequestIdReused {
                run: header.map_or_else(
                    || RunName(record.run.map(|run| run.to_string()).unwrap_or_default()),
                    |header| header.name,
                ),
                stored_hash: hex::encode(record.digest),
                offered_hash: hex::encode(digest),
            }),
        }
    }

    /// The run's name, reserved: the client's, or a readable one that is free.
    async fn name(&self, shared: &Shared, store: &dyn Store) -> Result<(RunName, Reservation), SubmitError> {
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
            let name = RunName(readable_name(&self.checked.resolved.name, suffix, &mut rand::rng()));
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

    fn header(
        &self,
        now: Timestamp,
        name: RunName,
        submitter: Submitter,
    ) -> Result<(RunHeader, RunDefinition), SubmitError> {
        let resolved = &self.checked.resolved;
        let id = new_run_id(now);
        let definition = RunDefinition::build(id, &self.namespace, resolved.clone()).map_err(|error| {
            SubmitError::Invalid(vec![FieldProblem::new("pipeline", "BAD_VALUE", error.to_string())])
        })?;
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
                labels: self.labels.clone(),
                parameters: parameters
                    .map(|(name, value)| (name.clone(), serde_json::to_value(value).unwrap_or_default()))
                    .collect(),
                traceparent: submitter.traceparent,
            },
            progress: RunProgress {
                counts: vec![(StepState::Waiting, resolved.step_count())],
                ..RunProgress::new(RunState::Queued, 0)
            },
        };
        Ok((header, definition))
    }

    fn packed(&self) -> Vec<PackedDefinition> {
        let submitted = super::render::canonical(&self.checked.pipeline);
        let resolved = serde_json::to_vec(&self.checked.resolved).unwrap_or_default();
        vec![
            PackedDefinition::pack(DefinitionKind::Submitted, submitted),
            PackedDefinition::pack(DefinitionKind::Resolved, resolved),
        ]
    }
}

fn unread(error: StoreError) -> SubmitError {
    tracing::error!(%error, "store could not be read");
    Unavailable::Recovering.into()
}

/// A version 7 UUID: milliseconds, then random bits.
fn new_run_id(now: Timestamp) -> RunId {
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    let uuid = uuid::Builder::from_unix_timestamp_millis(millis, &rand::rng().random()).into_uuid();
    RunId::from_bytes(*uuid.as_bytes())
}

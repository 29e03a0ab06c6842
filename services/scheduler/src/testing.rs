//! What unit tests of several modules need.

use std::sync::Arc;

use windlass_ids::{AttemptId, ClusterAlias, ClusterUid, Incarnation, PodUid, RunId, StepIndex, Timestamp};
use windlass_pipeline::{Environment, ParameterValues, resolve};
use windlass_scheduling::{Change, ChangeKind, ExecutorIdentity, RunState};

use crate::definition::RunDefinition;
use crate::read_model::RunMeta;
use crate::store::{RunFixed, RunHeader, RunProgress};

pub(crate) const RUN: RunId = RunId::from_bytes([7; 16]);

/// A run of a pipeline file.
pub(crate) fn meta(file: &str) -> RunMeta {
    let pipeline = windlass_pipeline::source::parse(file)
        .into_pipeline()
        .expect("a pipeline");
    let resolved = resolve(&pipeline, &ParameterValues::new(), &Environment::default()).expect("resolves");
    let header = RunHeader {
        id: RUN,
        namespace: "ml".into(),
        name: "churn-7k2m".into(),
        pipeline: resolved.name.clone(),
        submitted_by: "ana".to_owned(),
        created: at(0),
        fixed: RunFixed::default(),
        progress: RunProgress::new(RunState::Queued, 0),
    };
    let definition = RunDefinition::build(RUN, &header.namespace, resolved).expect("a graph");
    RunMeta {
        header,
        definition: Arc::new(definition),
    }
}

/// Seconds after the start of the test.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + seconds * 1_000)
}

pub(crate) fn attempt(step: u32, number: u32) -> AttemptId {
    AttemptId {
        run: RUN,
        step: StepIndex(step),
        number,
    }
}

pub(crate) fn executor() -> Arc<ExecutorIdentity> {
    Arc::new(ExecutorIdentity {
        incarnation: Incarnation::from_bytes([1; 16]),
        cluster: ClusterUid::from("uid"),
        alias: ClusterAlias::from("prod"),
    })
}

pub(crate) fn pod(number: u8) -> PodUid {
    PodUid::from_bytes([number; 16])
}

/// Changes with numbers from 1 on, a second apart.
pub(crate) fn changes(kinds: impl IntoIterator<Item = ChangeKind>) -> Vec<Change> {
    let numbered = (1_u64..).zip(kinds);
    numbered
        .map(|(sequence, kind)| Change {
            run: RUN,
            sequence,
            at: at(i64::try_from(sequence).expect("small")),
            kind,
        })
        .collect()
}

//! Pods without processes: Running and at once at their end. For tests of scale.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::Context;
use super::kubelet::bind_value;
use super::status::{self, Record, Role, State, Termination};
use crate::store::{Key, Object, Outcome};

/// Sets another exit code for one pod.
const EXIT_CODE: &str = "local-cluster.windlass.dev/exit-code";

/// Completes a pod in the background; as many at a time as there are slots.
pub(super) fn complete(context: &Arc<Context>, object: &Arc<Object>, exit_code: i32) {
    let (context, key) = (context.clone(), object.key.clone());
    tokio::spawn(async move {
        let Ok(_slot) = context.instants.acquire().await else {
            return;
        };
        let started = crate::clock::timestamp();
        for step in [Step::Run, Step::End(exit_code)] {
            if let Err(error) = advance(&context, &key, started, step).await {
                tracing::debug!(%error, pod = key.name, "pod not completed");
                return;
            }
        }
    });
}

#[derive(Clone, Copy)]
enum Step {
    Run,
    End(i32),
}

async fn advance(context: &Context, key: &Key, started: Timestamp, step: Step) -> Result<(), crate::ApiError> {
    let changed = context.store.update(key, |_, pod| {
        if crate::pods::is_terminal(pod) || pod["metadata"]["deletionTimestamp"].is_string() {
            return Ok(Outcome::Keep);
        }
        let state = match step {
            Step::Run => State::Running { since: started },
            Step::End(exit_code) => ended(pod, started, exit_code),
        };
        bind_value(pod);
        let records = records(pod, &state, started);
        let phase = status::phase(&records, "Never");
        status::write(pod, &records, phase, None, started);
        Ok(Outcome::Keep)
    });
    changed.await.map(|_| ())
}

fn ended(pod: &Value, started: Timestamp, exit_code: i32) -> State {
    let own = pod["metadata"]["annotations"][EXIT_CODE]
        .as_str()
        .and_then(|c| c.parse().ok());
    State::Terminated(termination(own.unwrap_or(exit_code), started))
}

fn termination(exit_code: i32, started: Timestamp) -> Termination {
    Termination {
        exit_code,
        reason: if exit_code == 0 { "Completed" } else { "Error" }.to_owned(),
        message: String::new(),
        started: Some(started),
        finished: Some(crate::clock::timestamp()),
    }
}

fn records(pod: &Value, state: &State, started: Timestamp) -> Vec<Record> {
    let record = |list: &'static str, role: Role, state: State| {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.map(move |container| Record {
            state: state.clone(),
            ..Record::new(container, role)
        })
    };
    let init = State::Terminated(termination(0, started));
    let mut all: Vec<Record> = record("initContainers", Role::Init, init).collect();
    all.extend(record("containers", Role::Main, state.clone()));
    all
}

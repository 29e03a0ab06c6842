//! What is told of a run: its public form in short, as `windlass get -o json` names it.

use serde_json::{Map, Value, json};
use windlass_ids::Timestamp;

use crate::read_model::render::run_resource;
use crate::store::{FailedStep, RunHeader};

/// The message about a run's end.
pub(super) fn run_ended(header: &RunHeader) -> Vec<u8> {
    let progress = &header.progress;
    let mut run = Map::new();
    let mut put = |name: &str, value: Value| {
        let empty = match &value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        };
        if !empty {
            run.insert(name.to_owned(), value);
        }
    };
    put(
        "resourceName",
        run_resource(header.namespace.as_str(), header.name.as_str()).into(),
    );
    put("id", header.id.to_string().into());
    put("name", header.name.as_str().into());
    put("namespace", header.namespace.as_str().into());
    put("pipeline", header.pipeline.as_str().into());
    put("state", progress.state.as_str().into());
    put("submittedBy", header.submitted_by.as_str().into());
    put("labels", json!(header.fixed.labels));
    put("createTime", time(header.created).into());
    put("startTime", progress.started.map(time).into());
    put("endTime", progress.ended.map(time).into());
    let counts = progress.counts.iter();
    let counts = counts.map(|(state, count)| json!({"state": state.as_str(), "count": count}));
    put("stepCounts", counts.collect());
    put("reason", progress.reason.as_str().into());
    put("message", progress.message.as_str().into());
    put("failedSteps", progress.failed_steps.iter().map(failed_step).collect());
    let ended = progress.ended.unwrap_or(header.created);
    let message = json!({"type": "run.ended", "timestamp": time(ended), "data": {"run": run}});
    message.to_string().into_bytes()
}

fn failed_step(failed: &FailedStep) -> Value {
    let mut step = Map::new();
    step.insert("step".to_owned(), failed.step.as_str().into());
    if let Some(class) = failed.class {
        step.insert("failureClass".to_owned(), class.as_str().into());
    }
    step.insert("reason".to_owned(), failed.reason.as_str().into());
    step.insert("message".to_owned(), failed.message.as_str().into());
    if let Some(code) = failed.exit_code {
        step.insert("exitCode".to_owned(), code.into());
    }
    step.insert("attempt".to_owned(), failed.attempt.into());
    Value::Object(step)
}

fn time(time: Timestamp) -> String {
    let time = jiff::Timestamp::from_millisecond(time.as_millis());
    time.unwrap_or_default().to_string()
}

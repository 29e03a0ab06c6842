//! What a client does with a run, in the words of the tests.

use std::collections::BTreeMap;

use tonic::Code;
use windlass_api::convert::pipeline_to_proto;
use windlass_api::log::v1::tail_logs_response::Message as LogMessage;
use windlass_api::log::v1::{EndReason, TailLogsRequest};
use windlass_api::run::v1::watch_run_response::Message as WatchMessage;
use windlass_api::run::v1::{GetRunRequest, ListStepsRequest, Run, RunState, Step, SubmitRunRequest, WatchRunRequest};
use windlass_pipeline::Pipeline;

use crate::deployment::Deployment;
use crate::wait::until;

/// Submits a pipeline; repeats it while the scheduler is away, as a client should, with the same request id.
///
/// # Panics
/// When it is refused.
pub async fn submit(deployment: &Deployment, pipeline: &Pipeline, request_id: &str) -> Run {
    let request = SubmitRunRequest {
        request_id: request_id.to_owned(),
        pipeline: Some(pipeline_to_proto(pipeline)),
        ..SubmitRunRequest::default()
    };
    submit_request(deployment, &request).await
}

/// As [`submit`], of any submission.
///
/// # Panics
/// When it is refused.
pub async fn submit_request(deployment: &Deployment, request: &SubmitRunRequest) -> Run {
    until("the run is accepted", async || {
        match deployment.runs().submit_run(request.clone()).await {
            Ok(response) => Ok(response.into_inner().run.expect("a run")),
            // A connection that breaks under a request is told as Unknown.
            Err(status) if matches!(status.code(), Code::Unavailable | Code::Unknown) => Err(status.to_string()),
            Err(status) => panic!("refused: {status:?}"),
        }
    })
    .await
}

/// Watches a run to its end, resuming whenever the stream breaks, and checks that no event is missing and none comes twice.
///
/// # Panics
/// When the sequence has a gap, or the run does not end in time.
pub async fn watch_to_end(deployment: &Deployment, run: &str) -> Run {
    watch_to_end_in(deployment, "", run).await
}

/// Like [`watch_to_end`], of a run in another namespace than the default one.
///
/// # Panics
/// Like it, and when there is no such run.
pub async fn watch_to_end_in(deployment: &Deployment, namespace: &str, run: &str) -> Run {
    let mut token = String::new();
    let mut last = None;
    crate::wait::until_within(std::time::Duration::from_secs(600), "the run ends", async || {
        let request = WatchRunRequest {
            namespace: namespace.to_owned(),
            run: run.to_owned(),
            resume_token: token.clone(),
        };
        let response = match deployment.runs().watch_run(request).await {
            Ok(response) => response,
            Err(status) if status.code() == Code::NotFound => panic!("no run {run}: {status:?}"),
            Err(status) => return Err(status.to_string()),
        };
        let mut stream = response.into_inner();
        while let Some(response) = stream.message().await.map_err(|status| status.to_string())? {
            match response.message {
                Some(WatchMessage::Synced(synced)) => token = synced.resume_token,
                Some(WatchMessage::Event(event)) => {
                    let sequence = event.event.as_ref().map(|event| event.sequence).expect("an event");
                    assert!(
                        last.is_none_or(|last| sequence == last + 1),
                        "event {sequence} after {last:?}"
                    );
                    (last, token) = (Some(sequence), event.resume_token);
                }
                Some(WatchMessage::End(end)) if end.run.as_ref().is_some_and(is_terminal) => {
                    return Ok(end.run.expect("a run"));
                }
                Some(WatchMessage::End(end)) => token = end.resume_token,
                Some(WatchMessage::Snapshot(_) | WatchMessage::KeepAlive(_)) | None => {}
            }
        }
        Err("the stream ended".to_owned())
    })
    .await
}

/// Whether a run has ended.
pub fn is_terminal(run: &Run) -> bool {
    matches!(
        run.state(),
        RunState::Succeeded | RunState::Failed | RunState::Cancelled
    )
}

/// The run as it is now.
///
/// # Panics
/// When it cannot be read.
pub async fn get(deployment: &Deployment, run: &str) -> Run {
    let request = GetRunRequest {
        run: run.to_owned(),
        ..GetRunRequest::default()
    };
    read("the run", async || deployment.runs().get_run(request.clone()).await)
        .await
        .run
        .expect("a run")
}

/// A read, repeated while the scheduler is away, as a client should.
async fn read<T>(what: &str, call: impl AsyncFn() -> Result<tonic::Response<T>, tonic::Status>) -> T {
    until(&format!("{what} can be read"), async || match call().await {
        Ok(response) => Ok(response.into_inner()),
        // A connection that breaks under a request is told as Unknown.
        Err(status) if matches!(status.code(), Code::Unavailable | Code::Unknown) => Err(status.to_string()),
        Err(status) => panic!("{what}: {status:?}"),
    })
    .await
}

/// All steps with their attempts.
///
/// # Panics
/// When they cannot be read.
pub async fn steps(deployment: &Deployment, run: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut request = ListStepsRequest {
        run: run.to_owned(),
        page_size: 1000,
        ..ListStepsRequest::default()
    };
    loop {
        let page = read("the steps", async || {
            deployment.runs().list_steps(request.clone()).await
        })
        .await;
        steps.extend(page.steps);
        if page.next_page_token.is_empty() {
            return steps;
        }
        request.page_token = page.next_page_token;
    }
}

/// All log lines of a run by `step/attempt`, read to the end, resuming whenever the stream breaks.
///
/// # Panics
/// When the stream does not end in time, or a line's number is not the next one of its source.
pub async fn logs(deployment: &Deployment, run: &str) -> BTreeMap<String, Vec<String>> {
    // What a dead relay owned moves to another one after half a minute.
    crate::wait::until_within(
        std::time::Duration::from_secs(180),
        "the logs are complete",
        async || {
            let request = TailLogsRequest {
                run: run.to_owned(),
                follow: true,
                ..TailLogsRequest::default()
            };
            let response = deployment
                .logs()
                .tail_logs(request)
                .await
                .map_err(|status| status.to_string())?;
            let mut stream = response.into_inner();
            let (mut names, mut lines) = (BTreeMap::new(), BTreeMap::<String, Vec<String>>::new());
            while let Some(response) = stream.message().await.map_err(|status| status.to_string())? {
                match response.message {
                    Some(LogMessage::Lines(batch)) => {
                        for source in batch.sources {
                            names.insert(source.id, format!("{}/{}", source.step, source.attempt));
                        }
                        for line in batch.lines {
                            let lines = lines.entry(names[&line.source].clone()).or_default();
                            let number = line.position.map(|position| position.line).expect("a position");
                            assert_eq!(
                                number,
                                lines.len() as u64,
                                "line numbers of {} have a gap",
                                names[&line.source]
                            );
                            lines.push(String::from_utf8_lossy(&line.content).into_owned());
                        }
                    }
                    Some(LogMessage::End(end)) if end.reason() == EndReason::Complete => return Ok(lines),
                    Some(LogMessage::End(end)) => return Err(format!("ended with {:?}", end.reason())),
                    Some(LogMessage::Mark(mark)) => {
                        if let Some(source) = mark.source_description {
                            names.insert(source.id, format!("{}/{}", source.step, source.attempt));
                        }
                    }
                    Some(LogMessage::Checkpoint(_) | LogMessage::KeepAlive(_)) | None => {}
                }
            }
            Err("the stream ended without an end".to_owned())
        },
    )
    .await
}

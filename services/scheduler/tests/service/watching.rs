//! WatchRun: snapshot, mark, events, end, and going on after a break.

use std::time::Duration;

use tonic::Code;
use windlass_api::run::v1 as run;
use windlass_api::run::v1::watch_run_response::Message;

use crate::executor::Play;
use crate::support::{Scheduler, Stage, config, pipeline, reason};

/// What a watch showed.
#[derive(Debug, Default)]
struct Shown {
    snapshot: Vec<run::Step>,
    run: Option<run::Run>,
    tokens: Vec<String>,
    events: Vec<run::RunEvent>,
    end: Option<run::WatchEnd>,
}

async fn watch(scheduler: &Scheduler, run: &run::Run, token: &str, most: usize) -> Shown {
    let request = run::WatchRunRequest {
        namespace: "ml".to_owned(),
        run: run.name.clone(),
        resume_token: token.to_owned(),
    };
    let mut stream = scheduler.runs().watch_run(request).await.expect("watched").into_inner();
    let mut shown = Shown::default();
    while shown.events.len() < most {
        let Some(message) = stream.message().await.expect("no error") else {
            break;
        };
        match message.message.expect("a message") {
            Message::Snapshot(chunk) => {
                shown.run = chunk.run.or(shown.run);
                shown.snapshot.extend(chunk.steps);
            }
            Message::Synced(synced) => shown.tokens.push(synced.resume_token),
            Message::Event(event) => {
                shown.tokens.push(event.resume_token);
                shown.events.push(event.event.expect("an event"));
            }
            Message::KeepAlive(_) => {}
            Message::End(end) => shown.end = Some(end),
        }
    }
    shown
}

#[tokio::test]
async fn i5_a_watch_begins_with_the_state_and_ends_with_the_run() {
    let stage = Stage::new(|step, _| if step == "b" { Play::Hold } else { Play::Succeed }).await;
    let run = stage.submit("r1", pipeline(&[("a", &[]), ("b", &["a"])])).await;
    stage.step_in(&run, "b", run::StepState::Running).await;
    let cancelling = async {
        let request = run::CancelRunRequest {
            namespace: "ml".to_owned(),
            run: run.name.clone(),
            reason: "enough".to_owned(),
            ..run::CancelRunRequest::default()
        };
        // The watch below begins before this is carried out or after it; it ends in the same state.
        stage.scheduler.runs().cancel_run(request).await.expect("cancelled");
    };
    let (shown, ()) = tokio::join!(watch(&stage.scheduler, &run, "", usize::MAX), cancelling);
    assert_eq!(shown.snapshot.len(), 2);
    assert_eq!(shown.snapshot[0].state(), run::StepState::Succeeded);
    let end = shown.end.expect("an end");
    assert_eq!(end.reason(), run::WatchEndReason::RunEnded);
    let last = end.run.expect("the run");
    assert_eq!(last.state(), run::RunState::Cancelled);
    assert_eq!(
        (last.reason.as_str(), last.message.as_str()),
        ("CANCELLED_BY_CLIENT", "cancelled by ana: enough")
    );
    let sequences: Vec<u64> = shown.events.iter().map(|event| event.sequence).collect();
    assert!(sequences.windows(2).all(|pair| pair[1] == pair[0] + 1), "{sequences:?}");
}

#[tokio::test]
async fn a_watch_goes_on_after_its_token_from_the_history() {
    let stage = Stage::new(|_, _| Play::Succeed).await;
    let run = stage
        .submit("r1", pipeline(&[("a", &[]), ("b", &["a"]), ("c", &["b"])]))
        .await;
    stage.ended(&run).await;
    // A token from the very beginning: everything is replayed from the store.
    let latest = watch(&stage.scheduler, &run, "", usize::MAX).await;
    assert_eq!(latest.run.as_ref().expect("the run").state(), run::RunState::Succeeded);
    assert!(latest.events.is_empty() && latest.end.is_some());
    let start = format!("{}{:016x}", run.id.replace('-', ""), 0);
    let all = watch(&stage.scheduler, &run, &start, usize::MAX).await;
    assert!(all.snapshot.is_empty(), "a resumed watch has no snapshot");
    let sequences: Vec<u64> = all.events.iter().map(|event| event.sequence).collect();
    let expected: Vec<u64> = (1..=sequences.len() as u64).collect();
    assert_eq!(sequences, expected);
    let types: Vec<&str> = all.events.iter().map(|event| event.r#type.as_str()).collect();
    assert_eq!(
        (types.first(), types.last()),
        (Some(&"RUN_ACCEPTED"), Some(&"RUN_ENDED"))
    );
    assert!(types.contains(&"STEP_SUCCEEDED"), "{types:?}");

    // Broken off in the middle, and taken up again: the same events, none twice, none lost.
    let first = watch(&stage.scheduler, &run, &start, 4).await;
    let rest = watch(
        &stage.scheduler,
        &run,
        first.tokens.last().expect("a token"),
        usize::MAX,
    )
    .await;
    let joined: Vec<u64> = first
        .events
        .iter()
        .chain(&rest.events)
        .map(|event| event.sequence)
        .collect();
    assert_eq!(joined, expected);
    assert_eq!(first.events[..], all.events[..4]);
}

#[tokio::test]
async fn i5_a_watch_of_a_run_that_ended_before_a_restart_ends() {
    let stage = Stage::new(|_, _| Play::Succeed).await;
    let run = stage.submit("r1", pipeline(&[("a", &[])])).await;
    let last = stage.ended(&run).await.last_sequence;
    let Stage { scheduler, data, .. } = stage;
    scheduler.stop().await;

    let scheduler = Scheduler::start(config(data.path())).await;
    let token = |sequence: u64| format!("{}{sequence:016x}", run.id.replace('-', ""));
    for (token, events) in [(String::new(), 0), (token(0), last), (token(last), 0)] {
        let watching = watch(&scheduler, &run, &token, usize::MAX);
        let shown = tokio::time::timeout(Duration::from_secs(20), watching).await;
        let shown = shown.expect("the watch ends");
        assert_eq!(shown.events.len() as u64, events, "after {token:?}");
        let end = shown.end.expect("an end");
        assert_eq!(end.reason(), run::WatchEndReason::RunEnded, "after {token:?}");
        assert_eq!(end.run.expect("the run").state(), run::RunState::Succeeded);
    }
}

#[tokio::test]
async fn a_token_of_another_run_is_refused() {
    let stage = Stage::new(|_, _| Play::Hold).await;
    let one = stage.submit("r1", pipeline(&[("a", &[])])).await;
    let two = stage.submit("r2", pipeline(&[("a", &[])])).await;
    let token = format!("{}{:016x}", one.id.replace('-', ""), 1);
    let request = |token: String| run::WatchRunRequest {
        namespace: "ml".to_owned(),
        run: two.name.clone(),
        resume_token: token,
    };
    let future = format!("{}{:016x}", two.id.replace('-', ""), 9_999);
    for token in [token, future, "nonsense".to_owned()] {
        let status = stage
            .scheduler
            .runs()
            .watch_run(request(token))
            .await
            .expect_err("refused");
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::InvalidArgument, "BAD_RESUME_TOKEN")
        );
    }
}

#[tokio::test]
async fn i11_many_watchers_share_a_run_and_all_see_its_end() {
    let stage = Stage::new(|_, _| Play::Succeed).await;
    let steps: Vec<String> = (0..50).map(|number| format!("s{number}")).collect();
    let names: Vec<(&str, &[&str])> = steps.iter().map(|name| (name.as_str(), &[][..])).collect();
    let run = stage.submit("r1", pipeline(&names)).await;
    let watches = (0..50).map(|_| watch(&stage.scheduler, &run, "", usize::MAX));
    for shown in futures::future::join_all(watches).await {
        let end = shown.end.expect("an end").run.expect("the run");
        assert_eq!(end.state(), run::RunState::Succeeded);
    }
}

#[tokio::test]
async fn a_snapshot_of_many_steps_comes_in_chunks_below_the_bound() {
    let stage = Stage::new(|_, _| Play::Silent).await;
    let mut large = pipeline(&[]);
    large.steps = vec![windlass_api::pipeline::v1::Step {
        name: "fold".to_owned(),
        matrix: vec![windlass_api::pipeline::v1::MatrixAxis {
            name: "FOLD".to_owned(),
            values: (0..20_000)
                .map(|number| prost_types::Value::from(f64::from(number)))
                .collect(),
        }],
        ..windlass_api::pipeline::v1::Step::default()
    }];
    let run = stage.submit("r1", large).await;
    let request = run::WatchRunRequest {
        namespace: "ml".to_owned(),
        run: run.name,
        resume_token: String::new(),
    };
    let mut stream = stage
        .scheduler
        .runs()
        .watch_run(request)
        .await
        .expect("watched")
        .into_inner();
    let (mut steps, mut chunks) = (0, 0);
    while let Some(message) = stream.message().await.expect("no error") {
        assert!(prost::Message::encoded_len(&message) < windlass_api::MAX_RESPONSE_BYTES);
        match message.message.expect("a message") {
            Message::Snapshot(chunk) => {
                chunks += 1;
                steps += chunk.steps.len();
            }
            Message::Synced(_) => break,
            other => panic!("a snapshot first, not {other:?}"),
        }
    }
    assert_eq!(steps, 20_000);
    assert!(chunks > 1, "{chunks}");
}

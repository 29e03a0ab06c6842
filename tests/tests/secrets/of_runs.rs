//! Secrets that are submitted with a run (behaviours E31, T7, O8, M12): they reach its steps and nothing else, and are gone after it, also
//! when everything dies in between.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::Secret;
use serde_json::json;
use windlass_api::convert::pipeline_to_proto;
use windlass_api::run::v1::{CancelRunRequest, ListRunsRequest, Run, RunState, StepState, SubmitRunRequest};
use windlass_local_cluster::Action;
use windlass_tests::binaries::binary;
use windlass_tests::client::{steps, submit_request, watch_to_end};
use windlass_tests::deployment::{Deployment, Options, Part};
use windlass_tests::pipelines::from_json;
use windlass_tests::wait::{is_alive, until};

use crate::support::{
    Canaries, Given, Said, checks, of_run, on_secrets, remain, secrets_with, set_faults, windlass, written,
};

/// More commits than the run can take.
const MOST_COMMITS: u64 = 100;

/// The Secrets of runs that are there.
async fn secrets(deployment: &Deployment) -> Vec<Secret> {
    secrets_with(deployment, "windlass.dev/run-id").await
}

/// Waits until none is there.
async fn gone(deployment: &Deployment) {
    remain(deployment, "windlass.dev/run-id", 0).await;
}

/// A step that is right when it has the value, and writes when it started; and clean-up after it.
fn submission(deployment: &Deployment, request_id: &str, value: &str) -> SubmitRunRequest {
    let go = deployment.folder().join("go");
    let mut step = checks("uses", "TOKEN", of_run("API_TOKEN"), value, &go);
    let command = step["command"][2].as_str().expect("a script").to_owned();
    let witness = deployment.folder().join("witness");
    step["command"][2] = json!(format!("echo $WINDLASS_STEP >> {}; {command}", witness.display()));
    let pipeline = from_json(json!({
        "name": "secretive",
        "defaults": {"image": "busybox"},
        "steps": [step, {"name": "after", "upstream": ["uses"], "command": ["true"]}],
    }));
    SubmitRunRequest {
        request_id: request_id.to_owned(),
        pipeline: Some(pipeline_to_proto(&pipeline)),
        secrets: [("API_TOKEN".to_owned(), value.as_bytes().to_vec())].into(),
        ..SubmitRunRequest::default()
    }
}

async fn only_run(deployment: &Deployment) -> Option<Run> {
    let listed = deployment.runs().list_runs(ListRunsRequest::default()).await;
    listed.ok()?.into_inner().runs.into_iter().next()
}

/// Waits until the Secret of the run was made, and the run waits for the answer.
async fn made(deployment: &Deployment) -> (Run, Secret) {
    until("the Secret is there", async || {
        let run = only_run(deployment).await.ok_or("no run")?;
        let secret = secrets(deployment).await.into_iter().next().ok_or("no secret")?;
        Ok::<_, &str>((run, secret))
    })
    .await
}

/// Submits with a scheduler that dies at one commit, and again to the next one; whether it died before the run was over.
async fn survive(moment: &str) -> bool {
    let mut deployment = Deployment::start(Options {
        scheduler: Some(binary("crashing-scheduler")),
        scheduler_env: BTreeMap::from([("WINDLASS_CRASH".to_owned(), moment.to_owned())]),
        without_relay: true,
        scheduler_args: vec!["--seal-deadline".to_owned(), "0s".to_owned()],
        ..Options::default()
    })
    .await;
    std::fs::write(deployment.folder().join("go"), "").expect("a file");
    let request = submission(&deployment, "r1", "hunter2");
    let died = {
        let outcome = async {
            let run = submit_request(&deployment, &request).await.name;
            watch_to_end(&deployment, &run).await;
            gone(&deployment).await;
        };
        let pid = deployment.pid(Part::Scheduler);
        let death = until("the scheduler dies or the run ends", async || {
            if is_alive(pid) { Err("alive") } else { Ok(()) }
        });
        tokio::select! {
            () = outcome => false,
            () = death => true,
        }
    };
    if died {
        deployment.become_ordinary();
        deployment.restart(Part::Scheduler);
    }
    let run = submit_request(&deployment, &request).await.name;
    let ended = watch_to_end(&deployment, &run).await;
    assert_eq!(
        ended.state(),
        RunState::Succeeded,
        "{moment}: {:?}",
        steps(&deployment, &run).await
    );
    gone(&deployment).await;
    let witness = std::fs::read_to_string(deployment.folder().join("witness")).expect("it wrote");
    assert_eq!(witness, "uses\n", "{moment}: it started once");
    died
}

async fn sweep(side: &str) {
    for number in 1..=MOST_COMMITS {
        if !survive(&format!("{side}:{number}")).await {
            println!("{side}: {} commits", number - 1);
            assert!(number > 5, "the run took only {number} commits");
            return;
        }
    }
    panic!("the run takes more than {MOST_COMMITS} commits");
}

/// Between the commit of PREPARING and the answer, too.
#[tokio::test(flavor = "multi_thread")]
async fn i1_i8_e31_the_scheduler_dies_before_every_commit_and_a_repeated_submission_goes_on() {
    sweep("before").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_i8_e31_the_scheduler_dies_after_every_commit_and_a_repeated_submission_goes_on() {
    sweep("after").await;
}

/// The Secret is made, and who made it dies before it says so.
#[tokio::test(flavor = "multi_thread")]
async fn i8_e31_the_executor_dies_with_the_answer_and_the_secret_that_is_there_is_used() {
    let mut deployment = Deployment::start(Options::default()).await;
    std::fs::write(deployment.folder().join("go"), "").expect("a file");
    set_faults(
        &deployment,
        vec![on_secrets("create", Action::LateReply { milliseconds: 60_000 })],
    )
    .await;
    let request = submission(&deployment, "r1", "hunter2");
    let mut client = deployment.runs();
    let first = request.clone();
    let asking = tokio::spawn(async move { client.submit_run(first).await });
    let (run, secret) = made(&deployment).await;
    assert_eq!(run.state(), RunState::Preparing);
    assert_eq!(steps(&deployment, &run.name).await[0].state(), StepState::Waiting);
    deployment.kill(Part::Executor);
    let lost = asking.await.expect("no panic").expect_err("nobody answers");
    assert_eq!(lost.code(), tonic::Code::Unavailable, "{lost:?}");
    set_faults(&deployment, Vec::new()).await;
    deployment.start_part(Part::Executor);

    let accepted = submit_request(&deployment, &request).await;
    assert_eq!(accepted.id, run.id);
    let (_, used) = made(&deployment).await;
    assert_eq!(used.metadata.uid, secret.metadata.uid);
    let ended = watch_to_end(&deployment, &run.name).await;
    assert_eq!(
        ended.state(),
        RunState::Succeeded,
        "{:?}",
        steps(&deployment, &run.name).await
    );
    gone(&deployment).await;
}

/// Nobody repeats the submission, and nobody who knew of the Secret lives.
#[tokio::test(flavor = "multi_thread")]
async fn i8_e31_everything_dies_before_the_answer_and_nothing_remains_of_a_run_that_is_given_up() {
    let mut deployment = Deployment::start(Options::default()).await;
    set_faults(
        &deployment,
        vec![on_secrets("create", Action::LateReply { milliseconds: 60_000 })],
    )
    .await;
    let mut client = deployment.runs();
    let request = submission(&deployment, "r1", "hunter2");
    let asking = tokio::spawn(async move { client.submit_run(request).await });
    let (run, _) = made(&deployment).await;
    deployment.kill_services();
    asking.await.expect("no panic").expect_err("nobody answers");
    set_faults(&deployment, Vec::new()).await;
    deployment.start_services();
    deployment.ready().await;
    assert_eq!(
        only_run(&deployment).await.expect("the run").state(),
        RunState::Preparing
    );
    assert_eq!(secrets(&deployment).await.len(), 1);
    let cancel = CancelRunRequest {
        run: run.name.clone(),
        request_id: "c1".to_owned(),
        ..CancelRunRequest::default()
    };
    deployment.runs().cancel_run(cancel).await.expect("cancelled");
    assert_eq!(watch_to_end(&deployment, &run.name).await.state(), RunState::Cancelled);
    gone(&deployment).await;
    assert!(!deployment.folder().join("witness").exists(), "nothing ran");
}

/// behaviours M12: not when the orchestrator is killed, and not when the deletion fails.
#[tokio::test(flavor = "multi_thread")]
async fn i8_e31_everything_dies_before_the_deletion_and_the_next_ones_delete() {
    let mut deployment = Deployment::start(Options::default()).await;
    std::fs::write(deployment.folder().join("go"), "").expect("a file");
    set_faults(&deployment, vec![on_secrets("delete", Action::Cut)]).await;
    let request = submission(&deployment, "r1", "hunter2");
    let run = submit_request(&deployment, &request).await;
    assert_eq!(watch_to_end(&deployment, &run.name).await.state(), RunState::Succeeded);
    until("a deletion has failed", async || {
        let log = deployment.log(Part::Scheduler);
        log.contains("secret that nothing needs is not deleted yet")
            .then_some(())
            .ok_or(log)
    })
    .await;
    deployment.kill_services();
    assert_eq!(secrets(&deployment).await.len(), 1);
    set_faults(&deployment, Vec::new()).await;
    deployment.start_services();
    gone(&deployment).await;
}

/// behaviours E31: the token in plain text in every pod.
#[tokio::test(flavor = "multi_thread")]
async fn i8_values_of_runs_that_went_through_every_path_are_nowhere_but_in_kubernetes() {
    let deployment = Deployment::start(Options {
        talkative: true,
        ..Options::default()
    })
    .await;
    let own = tempfile::tempdir().expect("a folder");
    let mut canaries = Canaries(Vec::new());
    let mut said: Vec<Said> = Vec::new();
    let given = Given::new(own.path(), &mut canaries);
    let [again, refused] = std::array::from_fn(|_| canaries.new_one());
    let go = own.path().join("go");
    let mut steps_of_it = given.steps(&go);
    steps_of_it.push(json!({
        "name": "fails", "upstream": ["file"], "command": ["sh", "-c", "exit 3"],
        "env": [{"name": "A", "valueFrom": of_run("FILE")}],
    }));
    let pipeline = json!({"name": "uses", "defaults": {"image": "busybox:1.36"}, "steps": steps_of_it});
    let pipeline = written(own.path(), "pipeline.json", &pipeline.to_string());
    let accepted = given.give(&deployment, &["run", &pipeline, "--name", "first", "--detach"]);
    assert_eq!((accepted.status, accepted.out.as_str()), (0, "first\n"), "{accepted:?}");
    said.push(accepted);
    until("the steps run", async || {
        let steps = steps(&deployment, "first").await;
        let running = steps.iter().filter(|step| step.state() == StepState::Running).count();
        (running == 4).then_some(()).ok_or_else(|| format!("{steps:?}"))
    })
    .await;
    assert_eq!(canaries.processes(&deployment), Vec::<String>::new());
    let there = secrets(&deployment).await;
    assert_eq!(there.len(), 1);
    let listed = windlass(&deployment, &["secret", "list"], b"");
    assert!(!listed.out.contains("first"), "a run's is not listed: {listed:?}");
    said.push(listed);
    std::fs::write(&go, "").expect("a file");
    assert_eq!(watch_to_end(&deployment, "first").await.state(), RunState::Failed);
    let printed = steps(&deployment, "first")
        .await
        .into_iter()
        .find(|step| step.name == "prints");
    let attempts = printed.expect("the step").attempts;
    assert_eq!(attempts[0].termination_message, "it was ***.\n", "{attempts:?}");
    gone(&deployment).await;

    // What is refused: by the command line, and by the scheduler.
    let bad = format!("FILE={}", written(own.path(), "bad", &refused));
    let spaced = format!("a b={}", written(own.path(), "spaced", &refused));
    let large = format!("FILE={}", written(own.path(), "large", &refused.repeat(30_000)));
    let broken = written(own.path(), "broken", &format!("A=1\n{refused}\n"));
    for (args, expected) in [
        (
            &["run", &pipeline, "--secret-file", &bad][..],
            "the run has no secret ENV_CANARY",
        ),
        (
            &["run", &pipeline, "--secret-file", "FILE"],
            "--secret-file takes KEY=PATH",
        ),
        (&["run", &pipeline, "--secret-file", &spaced], "is no key of a secret"),
        (&["run", &pipeline, "--secret-file", &large], "larger than 1 MiB"),
        (
            &["run", &pipeline, "--secret-env-file", &broken],
            ":2: is no KEY=VALUE line",
        ),
        (
            &["run", &pipeline, "--secret-env", "NOT_SET"],
            "no variable \"NOT_SET\"",
        ),
        (
            &["run", &pipeline, "--secret-file", &bad, "--secret-stdin", "FILE"],
            "key FILE is given twice",
        ),
        (&["run", "-", "--secret-stdin", "FILE"], "both read standard input"),
        (&["retry", "first"], "secrets[FILE]"),
        (
            &["run-step", "--image", "i", "--secret-stdin", "1A", "--", "true"],
            "no name of a variable",
        ),
        (
            &[
                "run-step",
                "--image",
                "i",
                "-n",
                "no-such-namespace",
                "--secret-stdin",
                "A",
                "--",
                "true",
            ],
            "no namespace no-such-namespace",
        ),
    ] {
        let refusal = windlass(&deployment, args, refused.as_bytes());
        assert!(refusal.notes.contains(expected), "{args:?}: {refusal:?}");
        assert!([2, 3].contains(&refusal.status), "{args:?}: {refusal:?}");
        said.push(refusal);
    }

    // A client that is not ours, and no executor of the cluster.
    let absent = SubmitRunRequest {
        pipeline: Some(pipeline_to_proto(&from_json(json!({
            "name": "absent",
            "cluster": "absent",
            "steps": [{"name": "a", "image": "i", "env": [{"name": "A", "valueFrom": of_run("A")}]}],
        })))),
        secrets: [("A".to_owned(), refused.clone().into_bytes())].into(),
        ..SubmitRunRequest::default()
    };
    let mut told = Vec::new();
    for request_id in ["", "r1"] {
        let request = SubmitRunRequest {
            request_id: request_id.to_owned(),
            ..absent.clone()
        };
        told.push(format!(
            "{:?}",
            deployment.runs().submit_run(request).await.expect_err("refused")
        ));
    }
    assert!(told[1].contains("no executor of cluster absent"), "{told:?}");

    // Another value for what runs again; and a command of one step.
    let retry_file = format!("FILE={}", written(own.path(), "again", &again));
    let retried = windlass(
        &deployment,
        &["retry", "first", "--name", "second", "--secret-file", &retry_file],
        b"",
    );
    assert_eq!(retried.status, 1, "it fails as before: {retried:?}");
    said.push(retried);
    let script = "[ ${#PIPED} -gt 20 ] && echo \"long: $PIPED.\"";
    let step = [
        "run-step",
        "--image",
        "i",
        "--name",
        "third",
        "--secret-stdin",
        "PIPED",
        "--",
        "sh",
        "-c",
        script,
    ];
    let stepped = windlass(&deployment, &step, given.piped.as_bytes());
    assert_eq!(
        (stepped.status, stepped.out.as_str()),
        (0, "long: ***.\n"),
        "{stepped:?}"
    );
    said.push(stepped);
    gone(&deployment).await;

    for args in [
        &["get", "first", "-o", "yaml"][..],
        &["get", "first", "file", "-o", "json"],
        &["get", "second", "--pipeline"],
        &["get", "third", "--pipeline"],
        &["logs", "first"],
        &["logs", "third"],
        &["explain", "first"],
        &["watch", "second"],
        &["list", "-o", "json"],
        &["render", &pipeline],
        &["validate", &pipeline],
    ] {
        said.push(windlass(&deployment, args, b""));
    }
    let printed = said.iter().find(|said| said.out.contains("| it is")).expect("the logs");
    let masked = printed.out.lines().filter(|line| line.contains("***")).count();
    assert_eq!(masked, 4, "every line with a value is there: {printed:?}");
    canaries.are_in_kubernetes_alone(&deployment).await;
    canaries.are_not_in(said.iter().map(|said| format!("{said:?}")).chain(told));
    let found: Vec<PathBuf> = canaries.files(own.path(), &[]);
    assert_eq!(found.len(), 7, "what the test itself wrote: {found:?}");
}

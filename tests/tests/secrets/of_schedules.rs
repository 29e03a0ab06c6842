//! Secrets that belong to a schedule (behaviours M12, E31): its runs share them, and they are gone after it, also when everything dies in
//! between.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tonic::Code;
use windlass_api::convert::pipeline_to_proto;
use windlass_api::run::v1::{RunState, StepState};
use windlass_api::schedule::v1 as wire;
use windlass_api::schedule::v1::schedule_service_client::ScheduleServiceClient;
use windlass_api::schedule::v1::schedule_spec::Timing;
use windlass_local_cluster::Action;
use windlass_service::AuthenticatedChannel;
use windlass_tests::binaries::binary;
use windlass_tests::client::{steps, watch_to_end};
use windlass_tests::deployment::{Deployment, Options, Part};
use windlass_tests::pipelines::from_json;
use windlass_tests::wait::{is_alive, until};

use crate::support::{
    Canaries, Given, Said, of_run, on_secrets, prints, remain, secrets_with, set_faults, windlass, written,
};

/// The label that only these have.
const LABEL: &str = "windlass.dev/secret-id";
/// More commits than all of it can take.
const MOST_COMMITS: u64 = 150;

fn client(deployment: &Deployment) -> ScheduleServiceClient<AuthenticatedChannel> {
    ScheduleServiceClient::new(deployment.channel(Part::Scheduler))
}

/// Of a step that writes a digest of the value that it got.
fn creation(witness: &Path, value: &str) -> wire::CreateScheduleRequest {
    let pipeline = from_json(json!({
        "name": "secretive",
        "defaults": {"image": "busybox"},
        "steps": [{
            "name": "uses",
            "script": format!("printf %s \"$TOKEN\" | sha256sum >> {}", witness.display()),
            "env": [{"name": "TOKEN", "valueFrom": of_run("API_TOKEN")}],
        }],
    }));
    wire::CreateScheduleRequest {
        request_id: "create".to_owned(),
        schedule: "nightly".to_owned(),
        spec: Some(wire::ScheduleSpec {
            timing: Some(Timing::Cron("0 4 1 1 *".to_owned())),
            ..wire::ScheduleSpec::default()
        }),
        pipeline: Some(pipeline_to_proto(&pipeline)),
        secrets: [("API_TOKEN".to_owned(), value.as_bytes().to_vec())].into(),
        ..wire::CreateScheduleRequest::default()
    }
}

fn rotation(value: &str) -> wire::UpdateScheduleRequest {
    wire::UpdateScheduleRequest {
        request_id: "rotate".to_owned(),
        schedule: "nightly".to_owned(),
        secrets: [("API_TOKEN".to_owned(), value.as_bytes().to_vec())].into(),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["secrets".to_owned()],
        }),
        ..wire::UpdateScheduleRequest::default()
    }
}

fn deletion() -> wire::DeleteScheduleRequest {
    wire::DeleteScheduleRequest {
        request_id: "delete".to_owned(),
        schedule: "nightly".to_owned(),
        ..wire::DeleteScheduleRequest::default()
    }
}

/// Repeats a request while the scheduler is away, as a client should.
async fn repeat<T>(what: &str, once: impl AsyncFn() -> Result<tonic::Response<T>, tonic::Status>) -> T {
    until(what, async || match once().await {
        Ok(response) => Ok(response.into_inner()),
        Err(status) if matches!(status.code(), Code::Unavailable | Code::Unknown) => Err(status.to_string()),
        Err(status) => panic!("{what}: refused: {status:?}"),
    })
    .await
}

async fn triggered(deployment: &Deployment, id: &str) {
    let request = wire::TriggerScheduleRequest {
        request_id: id.to_owned(),
        schedule: "nightly".to_owned(),
        ..wire::TriggerScheduleRequest::default()
    };
    let triggered = repeat("the trigger", async || {
        client(deployment).trigger_schedule(request.clone()).await
    });
    let run = triggered.await.run.expect("a run").name;
    let ended = watch_to_end(deployment, &run).await;
    let steps = steps(deployment, &run).await;
    assert_eq!(ended.state(), RunState::Succeeded, "{steps:?}");
}

/// A schedule's life: made, run, its values replaced, run again, deleted.
async fn live(deployment: &Deployment, witness: &Path) {
    let (create, rotate) = (creation(witness, "one"), rotation("two"));
    repeat("the schedule is made", async || {
        client(deployment).create_schedule(create.clone()).await
    })
    .await;
    remain(deployment, LABEL, 1).await;
    triggered(deployment, "t1").await;
    repeat("its values are replaced", async || {
        client(deployment).update_schedule(rotate.clone()).await
    })
    .await;
    remain(deployment, LABEL, 1).await;
    triggered(deployment, "t2").await;
    repeat("it is deleted", async || {
        client(deployment).delete_schedule(deletion()).await
    })
    .await;
    remain(deployment, LABEL, 0).await;
}

/// Its life with a scheduler that dies at one commit, and from the beginning again with the next one, by the same requests; whether it
/// died before the end.
async fn survive(moment: &str) -> bool {
    let mut deployment = Deployment::start(Options {
        scheduler: Some(binary("crashing-scheduler")),
        scheduler_env: BTreeMap::from([("WINDLASS_CRASH".to_owned(), moment.to_owned())]),
        without_relay: true,
        scheduler_args: vec!["--seal-deadline".to_owned(), "0s".to_owned()],
        ..Options::default()
    })
    .await;
    let witness = deployment.folder().join("witness");
    let pid = deployment.pid(Part::Scheduler);
    let died = {
        let death = until("the scheduler dies or the schedule has lived", async || {
            if is_alive(pid) { Err("alive") } else { Ok(()) }
        });
        tokio::select! {
            () = live(&deployment, &witness) => false,
            () = death => true,
        }
    };
    if died {
        deployment.become_ordinary();
        deployment.restart(Part::Scheduler);
        go_on(&deployment, &witness).await;
    }
    let digest = |value: &str| {
        let digest = Sha256::digest(value.as_bytes());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{digest}  -\n")
    };
    let written = std::fs::read_to_string(witness).expect("they wrote");
    assert_eq!(
        written,
        digest("one") + &digest("two"),
        "{moment}: each run had its values, once"
    );
    died
}

/// As [`live`], whatever of it was done.
async fn go_on(deployment: &Deployment, witness: &Path) {
    let is_there = repeat("the schedules are listed", async || {
        client(deployment)
            .list_schedules(wire::ListSchedulesRequest::default())
            .await
    });
    let is_there = !is_there.await.schedules.is_empty();
    let was_deleted = !is_there && witness.exists();
    if was_deleted {
        // Its deletion was committed, and may not have been answered.
        repeat("it is deleted", async || {
            client(deployment).delete_schedule(deletion()).await
        })
        .await;
        return remain(deployment, LABEL, 0).await;
    }
    live(deployment, witness).await;
}

async fn sweep(side: &str) {
    for number in 1..=MOST_COMMITS {
        if !survive(&format!("{side}:{number}")).await {
            println!("{side}: {} commits", number - 1);
            assert!(number > 10, "it took only {number} commits");
            return;
        }
    }
    panic!("it takes more than {MOST_COMMITS} commits");
}

/// Between the making of a Secret and the schedule that gets it, too.
#[tokio::test(flavor = "multi_thread")]
async fn i1_i8_e31_m12_the_scheduler_dies_before_every_commit_of_a_schedules_life_and_no_secret_stays() {
    sweep("before").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_i8_e31_m12_the_scheduler_dies_after_every_commit_of_a_schedules_life_and_no_secret_stays() {
    sweep("after").await;
}

/// Nobody repeats the request, and nobody who knew of the Secret lives.
#[tokio::test(flavor = "multi_thread")]
async fn i8_e31_everything_dies_before_a_schedule_is_made_and_nothing_of_it_remains() {
    let mut deployment = Deployment::start(Options::default()).await;
    set_faults(
        &deployment,
        vec![on_secrets("create", Action::LateReply { milliseconds: 60_000 })],
    )
    .await;
    let mut asking = client(&deployment);
    let request = creation(&deployment.folder().join("witness"), "one");
    let asking = tokio::spawn(async move { asking.create_schedule(request).await });
    remain(&deployment, LABEL, 1).await;
    deployment.kill_services();
    asking.await.expect("no panic").expect_err("nobody answers");
    assert_eq!(secrets_with(&deployment, LABEL).await.len(), 1);
    set_faults(&deployment, Vec::new()).await;
    deployment.start_services();
    remain(&deployment, LABEL, 0).await;
    let listed = repeat("the schedules are listed", async || {
        client(&deployment)
            .list_schedules(wire::ListSchedulesRequest::default())
            .await
    });
    assert_eq!(listed.await.schedules, []);
}

/// behaviours M12: never deleted for scheduled deployments.
#[tokio::test(flavor = "multi_thread")]
async fn i8_e31_m12_everything_dies_after_a_schedule_is_deleted_and_the_next_ones_delete_its_secret() {
    let mut deployment = Deployment::start(Options::default()).await;
    set_faults(&deployment, vec![on_secrets("delete", Action::Cut)]).await;
    let create = creation(&deployment.folder().join("witness"), "one");
    client(&deployment).create_schedule(create).await.expect("made");
    triggered(&deployment, "t1").await;
    client(&deployment).delete_schedule(deletion()).await.expect("deleted");
    until("a deletion has failed", async || {
        let log = deployment.log(Part::Scheduler);
        log.contains("secret that nothing needs is not deleted yet")
            .then_some(())
            .ok_or(log)
    })
    .await;
    deployment.kill_services();
    assert_eq!(secrets_with(&deployment, LABEL).await.len(), 1);
    set_faults(&deployment, Vec::new()).await;
    deployment.start_services();
    remain(&deployment, LABEL, 0).await;
}

/// behaviours E31: the token of a schedule in plain text in its CronJob, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn i8_values_of_schedules_that_went_through_every_path_are_nowhere_but_in_kubernetes() {
    let deployment = Deployment::start(Options {
        talkative: true,
        ..Options::default()
    })
    .await;
    let own = tempfile::tempdir().expect("a folder");
    let mut canaries = Canaries(Vec::new());
    let mut said: Vec<Said> = Vec::new();
    let given = Given::new(own.path(), &mut canaries);
    let [rotated, refused] = std::array::from_fn(|_| canaries.new_one());
    let go = own.path().join("go");
    let pipeline = json!({"name": "uses", "defaults": {"image": "busybox:1.36"}, "steps": given.steps(&go)});
    let pipeline = written(own.path(), "pipeline.json", &pipeline.to_string());
    let simple =
        json!({"name": "simple", "defaults": {"image": "busybox:1.36"}, "steps": [prints("prints", of_run("FILE"))]});
    let simple = written(own.path(), "simple.json", &simple.to_string());
    let create = ["schedule", "create", "nightly", &pipeline, "--cron", "0 4 1 1 *"];
    let made = given.give(&deployment, &create);
    assert!(made.out.starts_with("schedule nightly is made"), "{made:?}");
    said.push(made);
    let triggered = windlass(&deployment, &["schedule", "trigger", "nightly"], b"");
    let first = triggered.out.trim().to_owned();
    said.push(triggered);
    until("the steps run", async || {
        let steps = steps(&deployment, &first).await;
        let running = steps.iter().filter(|step| step.state() == StepState::Running).count();
        (running == 4).then_some(()).ok_or_else(|| format!("{steps:?}"))
    })
    .await;
    assert_eq!(canaries.processes(&deployment), Vec::<String>::new());
    let listed = windlass(&deployment, &["secret", "list"], b"");
    assert!(
        !listed.out.contains("nightly"),
        "a schedule's is not listed: {listed:?}"
    );
    said.push(listed);

    // Other values while it runs; what is refused, by the command line, the scheduler and Kubernetes.
    let bad = format!("FILE={}", written(own.path(), "bad", &refused));
    let large = format!("FILE={}", written(own.path(), "large", &refused.repeat(30_000)));
    for (args, expected) in [
        (
            &["schedule", "update", "nightly", "--secret-file", &bad][..],
            "the schedule has no secret ENV_CANARY",
        ),
        (
            &[
                "schedule",
                "create",
                "nightly",
                &simple,
                "--cron",
                "@daily",
                "--secret-file",
                &bad,
            ],
            "exists already",
        ),
        (
            &[
                "schedule",
                "create",
                "x",
                &simple,
                "--cron",
                "@daily",
                "--secret-file",
                &large,
            ],
            "larger than 1 MiB",
        ),
        (
            &["schedule", "create", "x", &simple, "--cron", "@daily"],
            "the schedule has no secret FILE",
        ),
        (
            &[
                "schedule",
                "create",
                "x",
                &simple,
                "--cron",
                "@daily",
                "-n",
                "no-such-namespace",
                "--secret-stdin",
                "FILE",
            ],
            "no namespace no-such-namespace",
        ),
        (
            &[
                "schedule",
                "create",
                "x",
                "-",
                "--cron",
                "@daily",
                "--secret-stdin",
                "FILE",
            ],
            "both read standard input",
        ),
        (
            &["schedule", "update", "nightly", "-", "--secret-stdin", "FILE"],
            "both read standard input",
        ),
    ] {
        let refusal = windlass(&deployment, args, refused.as_bytes());
        assert!(refusal.notes.contains(expected), "{args:?}: {refusal:?}");
        assert!([2, 3].contains(&refusal.status), "{args:?}: {refusal:?}");
        said.push(refusal);
    }
    let rotated_file = format!("FILE={}", written(own.path(), "rotated", &rotated));
    let update = ["schedule", "update", "nightly", &simple, "--secret-file", &rotated_file];
    let updated = windlass(&deployment, &update, b"");
    assert!(updated.out.starts_with("schedule nightly is changed"), "{updated:?}");
    said.push(updated);
    assert_eq!(
        secrets_with(&deployment, LABEL).await.len(),
        2,
        "the run goes on with its own"
    );
    std::fs::write(&go, "").expect("a file");
    let ended = watch_to_end(&deployment, &first).await;
    assert_eq!(
        ended.state(),
        RunState::Succeeded,
        "{:?}",
        steps(&deployment, &first).await
    );
    remain(&deployment, LABEL, 1).await;
    let second = windlass(&deployment, &["schedule", "trigger", "nightly", "--wait"], b"");
    assert_eq!(second.status, 0, "{second:?}");
    said.push(second);

    let export = [
        "schedule",
        "export",
        "nightly",
        "--image",
        "i",
        "--pod-server",
        "http://windlass.windlass.svc:7600",
    ];
    for args in [
        &["schedule", "get", "nightly"][..],
        &["schedule", "get", "nightly", "-o", "json"],
        &["schedule", "get", "nightly", "--pipeline"],
        &["schedule", "list", "-o", "yaml"],
        &export,
        &["get", &first, "-o", "yaml"],
        &["get", &first, "file", "-o", "json"],
        &["get", &first, "--pipeline"],
        &["logs", &first],
        &["explain", &first],
        &["logs", "@latest"],
        &["list", "-o", "json"],
        &["schedule", "delete", "nightly"],
    ] {
        said.push(windlass(&deployment, args, b""));
    }
    let shown = said.iter().find(|said| said.out.contains("secrets       FILE"));
    assert!(shown.is_some(), "its keys are shown");
    for said in said.iter().filter(|said| said.out.contains("| it is")) {
        let masked = said.out.lines().filter(|line| line.contains("***")).count();
        assert_eq!(masked, 4, "every line with a value is there: {said:?}");
    }
    remain(&deployment, LABEL, 0).await;
    canaries.are_in_kubernetes_alone(&deployment).await;
    canaries.are_not_in(said.iter().map(|said| format!("{said:?}")));
    let found: Vec<PathBuf> = canaries.files(own.path(), &[]);
    assert_eq!(found.len(), 5, "what the test itself wrote: {found:?}");
}

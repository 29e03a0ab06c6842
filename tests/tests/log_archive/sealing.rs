//! What happens while the store is away, when several relays seal, and when a run is deleted.

use std::process::{Child, Stdio};

use tonic::Code;
use tonic_types::StatusExt as _;
use windlass_api::feed::v1::FeedEndReason;
use windlass_api::run::v1::DeleteRunRequest;
use windlass_tests::ports::Port;

use super::support::executor::{Cluster, Executor};
use super::support::scheduler::{Scheduler, source};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn i7_a_store_that_is_away_while_logs_are_sealed_loses_none() {
    const STEPS: usize = 12;
    let mut store = ObjectStore::start().await;
    let mut deployment = Deployment::start(options(&store)).await;
    let before = submit(&deployment, &pipeline(1, ""), "before").await;
    watch_to_end(&deployment, &before.name).await;
    sealed(&store, &before.id, 1).await;

    store.kill();
    let run = submit(&deployment, &pipeline(STEPS, ""), "meanwhile").await;
    watch_to_end(&deployment, &run.name).await;
    until("sealing is tried", async || {
        let log = deployment.log(Part::Relay);
        if log.contains("log cannot be sealed; it is tried again") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    // What is on the disk is read from there.
    let client = read(&deployment, Part::Relay, whole(&run.name)).await;
    assert_eq!(client.received, 2 * STEPS);
    // A relay that has not read a sealed log yet cannot now; it says so, and when to try again.
    deployment.restart(Part::Relay);
    deployment.ready().await;
    let refusal = until("the relay knows the run", async || {
        let mut stream = match deployment.logs().tail_logs(whole(&before.name)).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => return Ok(status),
        };
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Err("it ended"),
                Err(status) => return Ok(status),
            }
        }
    })
    .await;
    let reason = refusal.get_details_error_info().map(|info| info.reason);
    assert_eq!(
        (refusal.code(), reason.as_deref()),
        (Code::Unavailable, Some("STORAGE_UNAVAILABLE"))
    );
    assert!(refusal.get_details_retry_info().is_some(), "{refusal:?}");

    store.revive().await;
    sealed(&store, &run.id, STEPS).await;
    deployment.kill(Part::Relay);
    deployment.start_part(Part::SecondRelay);
    deployment.ready().await;
    for (run, steps) in [(&before, 1), (&run, STEPS)] {
        let client = read(&deployment, Part::SecondRelay, whole(&run.name)).await;
        assert_eq!((client.received, client.count(MarkKind::Lost)), (2 * steps, 0));
    }
}

/// behaviours U13
#[tokio::test(flavor = "multi_thread")]
async fn logs_of_a_deleted_run_leave_the_store_also_when_it_was_away() {
    let mut store = ObjectStore::start().await;
    let deployment = Deployment::start(options(&store)).await;
    let (first, second) = (
        submit(&deployment, &pipeline(3, ""), "first").await,
        submit(&deployment, &pipeline(2, ""), "second").await,
    );
    for (run, attempts) in [(&first, 3), (&second, 2)] {
        watch_to_end(&deployment, &run.name).await;
        sealed(&store, &run.id, attempts).await;
    }
    store.kill();
    let request = DeleteRunRequest {
        request_id: "delete".to_owned(),
        run: first.id.clone(),
        ..DeleteRunRequest::default()
    };
    until("the run can be deleted", async || {
        deployment.runs().delete_run(request.clone()).await
    })
    .await;
    until("deleting is tried", async || {
        let log = deployment.log(Part::Relay);
        if log.contains("logs cannot be deleted; it is tried again") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    store.revive().await;
    until("the objects are deleted", async || {
        match store.objects(&format!("windlass/archive/{}", first.id)) {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        }
    })
    .await;
    assert_eq!(
        store.objects(&format!("windlass/archive/{}", second.id)).len(),
        4,
        "others stay"
    );
    let client = read(&deployment, Part::Relay, whole(&second.name)).await;
    assert_eq!(client.received, 4);
}

/// A relay process, killed in the end.
struct Process(Child, Port);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn relay(store: &ObjectStore, scheduler: &Scheduler, folder: &std::path::Path) -> Process {
    let port = Port::take();
    let child = Command::new(binary("windlass-log-relay"))
        .args(["--listen", &format!("127.0.0.1:{}", port.number())])
        .args([
            "--scheduler",
            &scheduler.address,
            "--archive",
            &store.url("windlass/archive"),
        ])
        .arg("--data-dir")
        .arg(folder)
        .envs(store.environment())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the relay starts");
    Process(child, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_relays_that_seal_the_same_log_at_once_keep_one() {
    const ATTEMPTS: u32 = 8;
    let store = ObjectStore::start().await;
    let cluster = Cluster::default();
    // The second takes lines in other portions, so that its blocks and its objects differ.
    let folders = [
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    ];
    let (schedulers, mut relays) = ([Scheduler::start().await, Scheduler::start().await], Vec::new());
    for (scheduler, folder) in schedulers.iter().zip(&folders) {
        let relay = relay(&store, scheduler, folder.path());
        let channel = support::channel(&format!("http://127.0.0.1:{}", relay.1.number()));
        for step in 0..ATTEMPTS {
            scheduler.assign(source(step, 1, "e1"));
        }
        until("the relay has its assignments", async || {
            match scheduler.state().hellos.len() {
                0 => Err("no hello"),
                _ => Ok(()),
            }
        })
        .await;
        Executor::new("e1", &cluster).connect(channel.clone());
        relays.push((relay, channel));
    }
    for step in 0..ATTEMPTS {
        let pod = format!("uid-{step}-1");
        cluster.write(&pod, (0..500).map(|line| format!("line {line} of {step}")));
        cluster.end(&pod, FeedEndReason::Complete);
    }
    schedulers.iter().for_each(Scheduler::end_run);
    let mut digests = Vec::new();
    for scheduler in &schedulers {
        let mut sealed = scheduler.sealed(ATTEMPTS as usize).await;
        sealed.sort_by_key(|sealed| sealed.step);
        assert!(sealed.iter().all(|sealed| sealed.complete && sealed.lines == 500));
        digests.push(sealed.into_iter().map(|sealed| sealed.digest).collect::<Vec<_>>());
    }
    assert_eq!(digests[0], digests[1], "both say the same of each log");
    let objects = store.objects("windlass/archive");
    let manifests = objects.iter().filter(|name| name.contains("/manifest-")).count();
    assert_eq!(manifests, ATTEMPTS as usize, "{objects:?}");
    // What the manifests name is whole, for a relay that has sealed none of them.
    let folder = tempfile::tempdir().expect("a folder");
    let third = relay(&store, &schedulers[0], folder.path());
    let channel = support::channel(&format!("http://127.0.0.1:{}", third.1.number()));
    let request = TailLogsRequest {
        run: "run-1".to_owned(),
        ..TailLogsRequest::default()
    };
    let client = until("the third relay reads", async || {
        let mut logs = windlass_api::log::v1::log_service_client::LogServiceClient::new(channel.clone());
        let mut stream = logs.tail_logs(request.clone()).await?.into_inner();
        let mut client = Client::default();
        while let Some(message) = stream.message().await? {
            client.take(message);
        }
        Ok::<_, tonic::Status>(client)
    })
    .await;
    assert_eq!(client.received, 500 * ATTEMPTS as usize);
}

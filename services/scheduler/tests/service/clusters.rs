//! ClusterService: which clusters are connected, and who looks at them (behaviours V1, V8).

use tonic::Code;
use tonic_types::StatusExt as _;
use windlass_api::cluster::v1 as wire;
use windlass_api::cluster::v1::cluster_service_client::ClusterServiceClient;
use windlass_api::dispatch::v1 as dispatch;
use windlass_api::dispatch::v1::connect_request::Message;
use windlass_service::AuthenticatedChannel;

use crate::executor::Executor;
use crate::support::{Scheduler, config, eventually, reason};

fn clusters(scheduler: &Scheduler) -> ClusterServiceClient<AuthenticatedChannel> {
    ClusterServiceClient::new(scheduler.channel())
}

fn request(cluster: &str, namespace: &str) -> wire::CheckClusterRequest {
    wire::CheckClusterRequest {
        namespace: namespace.to_owned(),
        cluster: cluster.to_owned(),
    }
}

/// Waits until the list is as wanted.
async fn listed(scheduler: &Scheduler, wanted: impl Fn(&[wire::Cluster]) -> bool) -> Vec<wire::Cluster> {
    eventually("the list", || async {
        let listed = clusters(scheduler).list_clusters(wire::ListClustersRequest {}).await;
        let found = listed.ok()?.into_inner().clusters;
        wanted(&found).then_some(found)
    })
    .await
}

fn executors(clusters: &[wire::Cluster]) -> Vec<&wire::ConnectedExecutor> {
    clusters.iter().flat_map(|cluster| &cluster.executors).collect()
}

/// behaviours V1
#[tokio::test]
async fn clusters_are_listed_with_their_executors_and_what_these_say_of_themselves() {
    let data = tempfile::tempdir().expect("a folder");
    let scheduler = Scheduler::start(config(data.path())).await;
    assert_eq!(listed(&scheduler, <[_]>::is_empty).await, []);
    let prod = Executor::of(1, "prod");
    let playing = prod.spawn(&scheduler);
    Executor::of(2, "prod").spawn(&scheduler);
    Executor::of(3, "dev").spawn(&scheduler);
    // The shards of a cluster are dealt out between its executors.
    let found = listed(&scheduler, |clusters| {
        let shards: Vec<_> = executors(clusters).iter().map(|one| one.leased_shards).collect();
        shards == [256, 128, 128]
    })
    .await;
    let aliases: Vec<_> = found
        .iter()
        .map(|cluster| (cluster.alias.as_str(), cluster.uid.as_str(), cluster.local))
        .collect();
    assert_eq!(aliases, [("dev", "uid-of-dev", false), ("prod", "uid-of-prod", false)]);
    let first = &found[1].executors[0];
    assert_eq!(first.incarnation, prod.identity.incarnation);
    assert_eq!((first.name.as_str(), first.credit), ("exec-1", 1_000));
    assert!(first.connect_time.is_some());

    prod.say(Message::Credit(dispatch::Credit { credit: 7 })).await;
    prod.say(Message::Sight(dispatch::ClusterSight {
        visible: false,
        since: None,
        message: "no answer".to_owned(),
    }))
    .await;
    let found = listed(&scheduler, |clusters| {
        let first = &clusters[1].executors[0];
        first.sight.as_ref().is_some_and(|sight| !sight.visible)
    })
    .await;
    let first = &found[1].executors[0];
    let sight = first.sight.as_ref().expect("a sight");
    assert_eq!(
        (first.credit, sight.visible, sight.message.as_str()),
        (7, false, "no answer")
    );

    playing.abort();
    prod.hang_up();
    let left = listed(&scheduler, |clusters| executors(clusters).len() == 2).await;
    assert_ne!(left[1].executors[0].incarnation, prod.identity.incarnation);
    scheduler.stop().await;
}

/// behaviours V8
#[tokio::test]
async fn an_executor_of_the_right_cluster_looks_at_it_or_nobody() {
    let data = tempfile::tempdir().expect("a folder");
    let scheduler = Scheduler::start(config(data.path())).await;
    let mut client = clusters(&scheduler);
    let nobody = client
        .check_cluster(request("", "ml"))
        .await
        .expect_err("nobody is there");
    assert_eq!(
        (nobody.code(), reason(&nobody).as_str()),
        (Code::Unavailable, "NO_EXECUTOR")
    );

    let mut old = Executor::of(1, "old");
    old.capabilities = vec![windlass_api::SECRETS_CAPABILITY.to_owned()];
    old.spawn(&scheduler);
    listed(&scheduler, |clusters| executors(clusters).len() == 1).await;
    let too_old = client.check_cluster(request("", "ml")).await.expect_err("too old");
    assert_eq!(
        (too_old.code(), reason(&too_old).as_str()),
        (Code::FailedPrecondition, "EXECUTOR_TOO_OLD")
    );

    let prod = Executor::of(2, "prod").with_checks(|call| {
        Some(wire::ClusterCheck {
            alias: "what it likes to be called".to_owned(),
            namespace: call.namespace.clone(),
            server_version: "v1.33.1".to_owned(),
            ..wire::ClusterCheck::default()
        })
    });
    prod.spawn(&scheduler);
    listed(&scheduler, |clusters| executors(clusters).len() == 2).await;
    let ambiguous = client.check_cluster(request("", "ml")).await.expect_err("two clusters");
    assert_eq!(
        (ambiguous.code(), reason(&ambiguous).as_str()),
        (Code::InvalidArgument, "CLUSTER_AMBIGUOUS")
    );
    let checked = client.check_cluster(request("prod", "")).await.expect("checked");
    let check = checked.into_inner().check.expect("a check");
    assert_eq!((check.alias.as_str(), check.uid.as_str()), ("prod", "uid-of-prod"));
    assert_eq!(
        (check.namespace.as_str(), check.server_version.as_str()),
        ("default", "v1.33.1")
    );
    assert_eq!(
        check.executor.expect("an executor").incarnation,
        prod.identity.incarnation
    );
    assert_eq!(prod.seen().cluster_calls.len(), 1);

    let long = "x".repeat(254);
    for (cluster, namespace, why, field) in [
        (long.as_str(), "ml", "INVALID_REQUEST", "cluster"),
        ("prod", "No_Name", "BAD_NAMESPACE", "namespace"),
    ] {
        let refused = client
            .check_cluster(request(cluster, namespace))
            .await
            .expect_err("refused");
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::InvalidArgument, why)
        );
        let fields = refused.get_details_bad_request().expect("fields").field_violations;
        assert_eq!(fields[0].field, field);
    }
    assert_eq!(prod.seen().cluster_calls.len(), 1, "a bad request reaches no executor");
    scheduler.stop().await;
}

#[tokio::test]
async fn a_look_ends_with_the_stream_of_its_executor() {
    let data = tempfile::tempdir().expect("a folder");
    let scheduler = Scheduler::start(config(data.path())).await;
    // It answers nothing.
    let executor = Executor::of(1, "prod");
    let playing = executor.spawn(&scheduler);
    listed(&scheduler, |clusters| executors(clusters).len() == 1).await;
    let mut client = clusters(&scheduler);
    let asked = tokio::spawn(async move { client.check_cluster(request("prod", "ml")).await });
    eventually("the call to arrive", || async {
        (!executor.seen().cluster_calls.is_empty()).then_some(())
    })
    .await;
    playing.abort();
    executor.hang_up();
    let lost = asked.await.expect("no panic").expect_err("nobody answers");
    assert_eq!(
        (lost.code(), reason(&lost).as_str()),
        (Code::Unavailable, "EXECUTOR_LOST")
    );
    scheduler.stop().await;
}

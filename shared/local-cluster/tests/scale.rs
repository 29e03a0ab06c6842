//! Many pods through the HTTP API, completed without processes.

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use support::{Cluster, shell_pod};
use windlass_local_cluster::Completion;

const PODS: usize = 1_000;
const CONNECTIONS: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_pods_complete_and_every_watcher_sees_each_end_once() {
    let cluster = Cluster::with(|c| c.completion = Completion::Instant { exit_code: 0 }).await;
    let pods = cluster.pods();
    let version = pods
        .list(&ListParams::default())
        .await
        .expect("listed")
        .metadata
        .resource_version
        .expect("version");
    let began = Instant::now();
    let watchers = (0..4).map(|_| {
        let (pods, version) = (pods.clone(), version.clone());
        tokio::spawn(async move {
            let mut events = pods
                .watch(&WatchParams::default(), &version)
                .await
                .expect("watch")
                .boxed();
            let mut phases: BTreeMap<String, Vec<String>> = BTreeMap::new();
            let mut ended = 0;
            while ended < PODS {
                let next = tokio::time::timeout(Duration::from_secs(60), events.try_next())
                    .await
                    .expect("in time");
                let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = next.expect("no error").expect("an event")
                else {
                    panic!("unexpected event");
                };
                let phase = pod.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
                ended += usize::from(phase == "Succeeded");
                phases.entry(pod.name_any()).or_default().push(phase);
            }
            phases
        })
    });
    let watchers: Vec<_> = watchers.collect();
    futures::stream::iter(0..PODS)
        .for_each_concurrent(CONNECTIONS, |n| {
            let pods = pods.clone();
            async move {
                let pod: Pod = serde_json::from_value(shell_pod(&format!("p{n}"), "true")).expect("a pod");
                pods.create(&PostParams::default(), &pod).await.expect("created");
            }
        })
        .await;
    let created = began.elapsed();
    for watcher in watchers {
        let phases = watcher.await.expect("watched");
        assert_eq!(phases.len(), PODS);
        for (name, seen) in phases {
            assert_eq!(seen, ["Pending", "Running", "Succeeded"], "{name}");
        }
    }
    let completed = began.elapsed();
    let deleted = pods
        .delete_collection(&DeleteParams::default(), &ListParams::default())
        .await
        .expect("deleted");
    assert_eq!(deleted.left().map(|list| list.items.len()), Some(PODS));
    assert!(
        pods.list(&ListParams::default())
            .await
            .expect("listed")
            .items
            .is_empty()
    );
    eprintln!(
        "{PODS} pods created in {created:?}, completed in {completed:?}, deleted in {:?}",
        began.elapsed() - completed
    );
}

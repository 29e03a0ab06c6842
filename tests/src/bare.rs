//! The least that pods cost an API server: create, hear of the end by a slim watch, release by a patch, delete by collection.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::Request;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

/// User agent of the loop.
pub const USER_AGENT: &str = "windlass-bare-loop";
const RELEASED: &str = "windlass.dev/released";

#[derive(Clone, Deserialize)]
struct SlimPod {
    metadata: SlimMetadata,
    #[serde(default)]
    status: SlimStatus,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimMetadata {
    #[serde(default)]
    name: String,
    resource_version: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct SlimStatus {
    phase: String,
}

/// Does it for `count` pods like `body`, `in_flight` at a time; how long it took.
///
/// # Panics
/// When the API server refuses something.
pub async fn run(client: kube::Client, namespace: &str, body: &Pod, count: usize, in_flight: usize) -> Duration {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let begun = Instant::now();
    let (ended, mut ends) = mpsc::unbounded_channel();
    let version = pods
        .list_metadata(&ListParams::default().limit(1))
        .await
        .expect("a list")
        .metadata
        .resource_version
        .expect("a version");
    let url = format!("/api/v1/namespaces/{namespace}/pods");
    let watching = tokio::spawn(watch(client, url, version, count, ended));
    let create = futures::stream::iter(0..count)
        .map(async |number| {
            let mut pod = body.clone();
            pod.metadata.name = Some(format!("bare-{number}"));
            pods.create(&PostParams::default(), &pod).await.expect("created");
        })
        .buffer_unordered(in_flight)
        .for_each(async |()| {});
    let released = ListParams::default().labels(RELEASED);
    let release = async {
        let free = json!({"metadata": {"labels": {RELEASED: "true"}, "finalizers": null}});
        let free = Patch::Merge(&free);
        let mut done = 0;
        let ends = futures::stream::poll_fn(|context| ends.poll_recv(context));
        let patched = ends.map(async |name: String| {
            pods.patch(&name, &PatchParams::default(), &free)
                .await
                .expect("patched");
        });
        let mut patched = std::pin::pin!(patched.buffer_unordered(in_flight));
        while let Some(()) = patched.next().await {
            done += 1;
            if done % 1000 == 0 || done == count {
                pods.delete_collection(&DeleteParams::default(), &released)
                    .await
                    .expect("deleted");
            }
        }
    };
    tokio::join!(create, release);
    watching.await.expect("the watch");
    begun.elapsed()
}

/// Says the name of each pod that has succeeded, until all have.
async fn watch(
    client: kube::Client,
    url: String,
    mut version: String,
    count: usize,
    ended: mpsc::UnboundedSender<String>,
) {
    let mut seen = std::collections::HashSet::new();
    while seen.len() < count {
        let request = Request::new(url.clone());
        let request = request
            .watch(&WatchParams::default().timeout(200), &version)
            .expect("a request");
        let events = client.request_events::<SlimPod>(request).await.expect("a watch");
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.try_next().await.expect("an event") {
            let (WatchEvent::Added(pod) | WatchEvent::Modified(pod) | WatchEvent::Deleted(pod)) = event else {
                continue;
            };
            version = pod.metadata.resource_version;
            if pod.status.phase == "Succeeded" && seen.insert(pod.metadata.name.clone()) {
                ended.send(pod.metadata.name).expect("somebody releases");
            }
            if seen.len() == count {
                return;
            }
        }
    }
}

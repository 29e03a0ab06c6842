//! A large run through the three services as processes, over the local cluster's HTTP API.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use windlass_api::run::v1::RunState;
use windlass_tests::client::{submit, watch_to_end};
use windlass_tests::deployment::{Deployment, Options};
use windlass_tests::pipelines::random_dag;
use windlass_tests::wait::until;

const STEPS: u64 = 10_000;

/// behaviours D6, U5
#[tokio::test(flavor = "multi_thread")]
async fn a_random_dag_of_10_000_steps_runs_to_its_end() {
    let deployment = Deployment::start(Options {
        instant_pods: true,
        ..Options::default()
    })
    .await;
    let run = submit(&deployment, &random_dag(10_000, 7), "large").await;
    let ended = watch_to_end(&deployment, &run.name).await;
    assert_eq!(ended.state(), RunState::Succeeded, "{ended:?}");
    assert_eq!(
        ended
            .step_counts
            .iter()
            .map(|count| u64::from(count.count))
            .sum::<u64>(),
        STEPS
    );

    let pods: Api<Pod> = Api::all(deployment.kube().await);
    until("all pods are deleted", async || {
        let left = pods
            .list(&ListParams::default().limit(1))
            .await
            .map_err(|error| error.to_string())?;
        left.items
            .is_empty()
            .then_some(())
            .ok_or_else(|| "pods are left".to_owned())
    })
    .await;
    let requests = deployment.requests().await;
    // Every pod was created once, let go by one patch and deleted by collection, and its end came from a watch (performance P4).
    assert_eq!(requests.of("POST pods"), STEPS, "{requests:?}");
    assert_eq!(requests.of("PATCH pods"), STEPS, "{requests:?}");
    assert_eq!(requests.of("DELETE pods"), 0, "{requests:?}");
    assert!(
        requests.of("WATCH pods") >= 1 && requests.of("DELETECOLLECTION pods") >= 1,
        "{requests:?}"
    );
    assert!(requests.writes() <= STEPS * 201 / 100 + 6, "{requests:?}");
    // One read a step at the most that the goal allows, and those of this test.
    assert!(requests.reads() <= STEPS / 100 + 60, "{requests:?}");
}

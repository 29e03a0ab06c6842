//! A large run through the three services as processes, over the local cluster's HTTP API.

use windlass_api::run::v1::RunState;
use windlass_tests::client::{submit, watch_to_end};
use windlass_tests::deployment::{Deployment, Options};
use windlass_tests::pipelines::random_dag;

#[tokio::test(flavor = "multi_thread")]
async fn a_random_dag_of_10_000_steps_runs_to_its_end() {
    let deployment = Deployment::start(Options {
        instant_pods: true,
        ..Options::default()
    })
    .await;
    let run = submit(&deployment, &random_dag(10_000, 7, None), "large").await;
    let ended = watch_to_end(&deployment, &run.name).await;
    assert_eq!(ended.state(), RunState::Succeeded, "{ended:?}");
    assert_eq!(ended.step_counts.iter().map(|count| count.count).sum::<u32>(), 10_000);
}

//! A large run through a real API server, counted by its audit log.

use windlass_tests::audit::{Audit, EXECUTOR};
use windlass_tests::real_cluster::RealCluster;
use windlass_tests::real_scale::{Scale, layered};

/// Steps of the short form; the long one has 5,000.
const STEPS: usize = 500;
/// Names another number of steps.
const STEPS_VARIABLE: &str = "WINDLASS_SCALE_STEPS";

#[tokio::test(flavor = "multi_thread")]
async fn p4_a_step_costs_two_writes_on_a_real_api_server() {
    let steps = std::env::var(STEPS_VARIABLE).map_or(STEPS, |text| text.parse().expect("a number of steps"));
    let cluster = RealCluster::of_environment();
    let scale = Scale::start(&cluster, &[]).await;
    let audit = Audit::begin(&cluster);
    let run = scale.submit(&layered(steps)).await;
    scale.succeed(&run).await;
    scale.all_gone().await;
    let requests = audit.asked(EXECUTOR).requests;
    println!(
        "{steps} steps: {} writes, {} reads: {requests:?}",
        requests.writes(),
        requests.reads()
    );
    // Created once, let go by one patch, deleted by collection, and heard of by a watch (performance P4).
    let all = u64::try_from(steps).expect("fewer");
    assert_eq!(requests.of("POST pods"), all, "{requests:?}");
    assert_eq!(requests.of("PATCH pods"), all, "{requests:?}");
    assert_eq!(requests.of("DELETE pods"), 0, "{requests:?}");
    assert!(requests.writes() <= all * 201 / 100 + 6, "{requests:?}");
    // What an executor reads when it starts, and one read in a hundred steps.
    assert!(requests.reads() <= all / 100 + 20, "{requests:?}");
    scale.end().await;
}

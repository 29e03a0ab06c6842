//! The kubelet rotates the log while it is followed.

use serde_json::json;
use windlass_api::run::v1::RunState;
use windlass_tests::deployment::Options;
use windlass_tests::scene::{Scene, Turn};

use super::support::{Rotations, write, written};

/// behaviours E10
#[tokio::test(flavor = "multi_thread")]
async fn i7_a_log_that_rotates_all_the_time_is_whole_while_it_can_be_followed() {
    let scene = Scene::new(Turn::shared().await, "rotation", Options::default()).await;
    let rotations = Rotations::watch(&scene);
    let steps = [
        ("many", "lines=20000 rate=1000 length=80"),
        ("long", "lines=2000 rate=100 length=1500"),
        ("few", "lines=100 rate=5"),
    ];
    let (run, reader) = write(&scene, json!({}), &steps).await;
    scene.ends(&run, RunState::Succeeded).await;
    let logs = reader.end().await;
    for (step, _) in steps {
        println!("{step}: {} rotations", rotations.of(step));
        logs.is_whole(&format!("{step}/1"), &written(&scene, step));
    }
    assert!(
        rotations.of("many") >= 4 && rotations.of("long") >= 4,
        "logs were rotated"
    );
    assert_eq!(rotations.of("few"), 0);
    scene.close().await;
}

/// behaviours E10
#[tokio::test(flavor = "multi_thread")]
async fn i7_what_is_rotated_away_before_it_is_read_has_a_mark_in_its_place() {
    let scene = Scene::new(Turn::shared().await, "flood", Options::default()).await;
    let rotations = Rotations::watch(&scene);
    let (run, reader) = write(&scene, json!({}), &[("flood", "lines=200000 rate=20000")]).await;
    scene.ends(&run, RunState::Succeeded).await;
    let logs = reader.end().await;
    let written = written(&scene, "flood");
    println!(
        "{} rotations, {} lines, gaps: {:?}",
        rotations.of("flood"),
        written.len(),
        logs.gaps("flood/1", &written)
    );
    scene.close().await;
}

//! Images that cannot be had.

use crate::support::scene::Scene;

/// A step whose image is pulled with this policy.
fn step(image: &str, policy: &str) -> String {
    format!(
        "- {{name: work, image: '{image}', command: ['true'], deadlines: {{pulling: 4s}}, pod: {{imagePullPolicy: {policy}}}}}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn x11_an_image_that_is_never_pulled_and_not_there_is_final() {
    let scene = Scene::new("never").await;
    let step = scene.run(&step("absent:1", "Never")).fails().await;
    step.failed_with("IMAGE", "ErrImageNeverPull")
        .exit_code(serde_json::Value::Null)
        .attempts(1)
        .never_started()
        .why(&["absent:1", "Never"])
        .evidence(&["ErrImageNeverPull"]);
    step.run_says(&["FAILED IMAGE", "absent:1"])
        .get_says(&["absent:1"])
        .explain_says(&["ErrImageNeverPull: ", "absent:1", "correct the image's name"]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn x11_a_name_that_is_no_image_is_final() {
    let scene = Scene::new("no-name").await;
    let step = scene.run(&step("NOT/an:image:name", "IfNotPresent")).fails().await;
    step.failed_with("IMAGE", "InvalidImageName")
        .attempts(1)
        .never_started()
        .why(&["NOT/an:image:name"])
        .explain_says(&["InvalidImageName: ", "NOT/an:image:name", "correct the image's name"]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn x11_a_registry_that_does_not_answer_is_waited_for_until_the_deadline() {
    let scene = Scene::new("registry").await;
    let run = scene.run(&step("127.0.0.1:9/absent:1", "IfNotPresent"));
    scene.explained("IMAGE", "connection refused").await.has(&[
        "until",
        "fails with IMAGE",
        "127.0.0.1:9/absent:1",
        "check the image's name and the pull secrets",
    ]);
    let step = run.fails().await;
    step.failed_with("IMAGE", "IMAGE_PULL")
        .attempts(1)
        .never_started()
        .why(&[
            "its image could not be pulled within 4s (deadlines.pulling)",
            "127.0.0.1:9/absent:1",
        ])
        .explain_says(&["its image could not be pulled within 4s", "correct the image's name"]);
    scene.close().await;
}

//! Images that cannot be had.

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use tokio::net::TcpListener;

use crate::support::scene::Scene;

/// A registry that has nothing, or wants to know who asks; its address.
async fn registry(status: StatusCode) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let answer = move || async move {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::WWW_AUTHENTICATE,
            "Basic realm=registry".parse().expect("a value"),
        );
        (status, headers)
    };
    tokio::spawn(async move {
        axum::serve(listener, Router::new().fallback(answer))
            .await
            .expect("it serves");
    });
    address.to_string()
}

/// A step with this image, for which it waits so long at most.
fn step(image: &str, policy: &str, pulling: &str) -> String {
    format!(
        "- {{name: work, image: '{image}', command: ['true'], deadlines: {{pulling: {pulling}}}, \
         pod: {{imagePullPolicy: {policy}}}}}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn x11_an_image_that_is_never_pulled_and_not_there_is_final() {
    let scene = Scene::new("never").await;
    let step = scene.run(&step("absent:1", "Never", "60s")).fails().await;
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
    let step = scene
        .run(&step("NOT/an:image:name", "IfNotPresent", "60s"))
        .fails()
        .await;
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
    let run = scene.run(&step("127.0.0.1:9/absent:1", "IfNotPresent", "4s"));
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

/// behaviours U9
#[tokio::test(flavor = "multi_thread")]
async fn x11_an_image_that_its_registry_does_not_have_is_final() {
    let scene = Scene::new("not-found").await;
    let image = format!("{}/team/absent:1", registry(StatusCode::NOT_FOUND).await);
    let step = scene.run(&step(&image, "IfNotPresent", "60s")).fails().await;
    step.failed_with_one_of("IMAGE", &["ErrImagePull", "ImagePullBackOff"])
        .attempts(1)
        .never_started()
        .why(&[&image, "not found"])
        .explain_says(&["not found", "correct the image's name"]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn x11_an_image_that_is_not_for_us_is_final() {
    let scene = Scene::new("denied-image").await;
    let image = format!("{}/team/private:1", registry(StatusCode::UNAUTHORIZED).await);
    let step = scene.run(&step(&image, "IfNotPresent", "60s")).fails().await;
    step.failed_with_one_of("IMAGE", &["ErrImagePull", "ImagePullBackOff"])
        .attempts(1)
        .never_started()
        .why(&[&image])
        .explain_says(&["correct the image's name", "pod.imagePullSecrets"]);
    scene.close().await;
}

//! Finding runs and steps.

use tonic::Code;
use windlass_api::run::v1 as run;

use crate::executor::Play;
use crate::support::{Stage, eventually, pipeline, reason};

fn get(reference: &str) -> run::GetRunRequest {
    run::GetRunRequest {
        namespace: "ml".to_owned(),
        run: reference.to_owned(),
    }
}

#[tokio::test]
async fn a_run_is_found_by_id_name_prefix_and_as_the_latest() {
    let stage = Stage::new(|_, _| Play::Hold).await;
    let first = stage.submit("r1", pipeline(&[("extract", &[])])).await;
    let second = stage.submit("r2", pipeline(&[("extract", &[])])).await;
    let mut runs = stage.scheduler.runs();
    let prefix = &first.name[..first.name.len() - 1];
    for reference in [first.id.as_str(), first.name.as_str(), prefix] {
        let found = runs
            .get_run(get(reference))
            .await
            .expect("found")
            .into_inner()
            .run
            .expect("a run");
        assert_eq!(found.id, first.id, "{reference}");
    }
    let latest = runs
        .get_run(get("@latest"))
        .await
        .expect("found")
        .into_inner()
        .run
        .expect("a run");
    assert_eq!(latest.id, second.id);

    let status = runs.get_run(get("churn-")).await.expect_err("ambiguous");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::InvalidArgument, "AMBIGUOUS_RUN")
    );
    assert!(status.message().contains(&first.name) && status.message().contains(&second.name));
    let status = runs.get_run(get("nothing")).await.expect_err("unknown");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "RUN_NOT_FOUND")
    );
    let elsewhere = run::GetRunRequest {
        namespace: "web".to_owned(),
        run: first.id.clone(),
    };
    assert_eq!(
        runs.get_run(elsewhere).await.expect_err("elsewhere").code(),
        Code::NotFound
    );
    assert_eq!(
        runs.get_run(get("")).await.expect_err("empty").code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn runs_are_paged_newest_first_under_a_filter() {
    let stage = Stage::new(|_, _| Play::Succeed).await;
    let mut names = Vec::new();
    for number in 0..5 {
        names.push(stage.submit(&format!("r{number}"), pipeline(&[("extract", &[])])).await);
    }
    for submitted in &names {
        stage.ended(submitted).await;
    }
    let mut runs = stage.scheduler.runs();
    let mut request = run::ListRunsRequest {
        namespace: "ml".to_owned(),
        page_size: 2,
        filter: "state=SUCCEEDED pipeline=churn submittedBy=ana name=churn-*".to_owned(),
        ..run::ListRunsRequest::default()
    };
    let mut found = Vec::new();
    loop {
        let page = runs.list_runs(request.clone()).await.expect("a page").into_inner();
        assert!(page.runs.len() <= 2);
        found.extend(page.runs.into_iter().map(|run| run.name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let newest_first: Vec<String> = names.iter().rev().map(|run| run.name.clone()).collect();
    assert_eq!(found, newest_first);

    request.filter = "state=FAILED".to_owned();
    let status = runs
        .list_runs(request.clone())
        .await
        .expect_err("the token is of another filter");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::InvalidArgument, "BAD_PAGE_TOKEN")
    );
    request.page_token.clear();
    assert!(
        runs.list_runs(request.clone())
            .await
            .expect("a page")
            .into_inner()
            .runs
            .is_empty()
    );
    request.filter = "color=red".to_owned();
    let status = runs.list_runs(request).await.expect_err("i9: unknown key");
    assert_eq!(reason(&status), "BAD_FILTER");
}

#[tokio::test]
async fn steps_are_paged_in_the_pipelines_order_while_the_run_runs_and_after_it() {
    let stage = Stage::new(|step, _| if step == "b" { Play::Fail(3) } else { Play::Succeed }).await;
    let run = stage
        .submit(
            "r1",
            pipeline(&[("a", &[]), ("b", &["a"]), ("c", &["b"]), ("d", &["a"])]),
        )
        .await;
    let ended = stage.ended(&run).await;
    assert_eq!(ended.state(), run::RunState::Failed);
    assert_eq!(
        (ended.reason.as_str(), ended.message.as_str()),
        ("STEP_FAILED", "failed: b")
    );
    assert_eq!(ended.failed_steps.len(), 1);
    let failed = &ended.failed_steps[0];
    assert_eq!(
        (failed.step.as_str(), failed.exit_code, failed.attempt),
        ("b", Some(3), 1)
    );
    assert_eq!(
        (failed.reason.as_str(), failed.message.as_str()),
        ("USER_ERROR", "exit code 3")
    );

    let steps = eventually("the history", || async {
        let steps = stage.steps(&run).await;
        (steps.len() == 4).then_some(steps)
    })
    .await;
    let states: Vec<_> = steps.iter().map(|step| (step.name.as_str(), step.state())).collect();
    assert_eq!(
        states,
        [
            ("a", run::StepState::Succeeded),
            ("b", run::StepState::Failed),
            ("c", run::StepState::Skipped),
            ("d", run::StepState::Succeeded)
        ]
    );
    assert_eq!(steps[1].upstream, ["a"]);
    assert_eq!(steps[2].reason, "UPSTREAM_NOT_SUCCEEDED");
    let attempt = &steps[1].attempts[0];
    assert_eq!(
        (attempt.exit_code, attempt.node.as_str(), attempt.cluster.as_str()),
        (Some(3), "node-1", "prod")
    );
    assert!(attempt.pod_name.contains('b') && !attempt.pod_uid.is_empty());

    let mut runs = stage.scheduler.runs();
    let mut request = run::ListStepsRequest {
        namespace: "ml".to_owned(),
        run: run.name.clone(),
        page_size: 1,
        filter: "state=SUCCEEDED".to_owned(),
        ..run::ListStepsRequest::default()
    };
    let first = runs.list_steps(request.clone()).await.expect("a page").into_inner();
    request.page_token = first.next_page_token;
    let second = runs.list_steps(request.clone()).await.expect("a page").into_inner();
    assert_eq!(
        (first.steps[0].name.as_str(), second.steps[0].name.as_str()),
        ("a", "d")
    );
    request.filter.clear();
    let status = runs.list_steps(request).await.expect_err("another filter");
    assert_eq!(reason(&status), "BAD_PAGE_TOKEN");
}

#[tokio::test]
async fn the_pipeline_comes_back_as_a_file_that_can_be_submitted_again() {
    let stage = Stage::new(|_, _| Play::Hold).await;
    let submitted = pipeline(&[("extract", &[]), ("train", &["extract"])]);
    let run = stage.submit("r1", submitted.clone()).await;
    let request = run::GetRunPipelineRequest {
        namespace: "ml".to_owned(),
        run: run.name,
    };
    let mut chunks = stage
        .scheduler
        .runs()
        .get_run_pipeline(request)
        .await
        .expect("kept")
        .into_inner();
    let mut file = Vec::new();
    while let Some(chunk) = chunks.message().await.expect("no error") {
        file.extend(chunk.chunk);
    }
    let file = String::from_utf8(file).expect("text");
    let parsed = windlass_pipeline::source::parse(&file)
        .into_pipeline()
        .expect("a pipeline");
    assert_eq!(windlass_api::convert::pipeline_to_proto(&parsed), submitted);
}

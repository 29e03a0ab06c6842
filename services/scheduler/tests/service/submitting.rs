//! SubmitRun: strict, and once for each request id.

use tonic::Code;
use tonic_types::StatusExt as _;
use windlass_api::pipeline::v1::{MatrixAxis, Parameter, Pipeline, Step, StepDefaults};
use windlass_api::run::v1 as run;

use crate::executor::Play;
use crate::support::{Stage, pipeline, reason, submission};

/// behaviours X13, T11
#[tokio::test]
async fn i1_a_repeated_request_gives_the_same_run() {
    let stage = Stage::new(|_, _| Play::Hold).await;
    let mut runs = stage.scheduler.runs();
    let request = submission("r1", pipeline(&[("extract", &[])]));
    let first = runs.submit_run(request.clone()).await.expect("accepted").into_inner();
    let again = runs.submit_run(request.clone()).await.expect("accepted").into_inner();
    assert!(first.created && !again.created);
    let first = first.run.expect("a run");
    assert_eq!(again.run.expect("a run").id, first.id);

    let other = submission("r1", pipeline(&[("extract", &[]), ("train", &["extract"])]));
    let status = runs.submit_run(other).await.expect_err("refused");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::AlreadyExists, "REQUEST_ID_REUSED")
    );
    let metadata = status.get_details_error_info().expect("details").metadata;
    assert_eq!(metadata["run"], first.name);
    assert_ne!(metadata["stored_hash"], metadata["offered_hash"]);
}

/// behaviours X13
#[tokio::test]
async fn i1_simultaneous_repetitions_make_one_run() {
    let stage = Stage::new(|_, _| Play::Hold).await;
    let answers = (0..20).map(|_| {
        let mut runs = stage.scheduler.runs();
        tokio::spawn(async move { runs.submit_run(submission("r1", pipeline(&[("extract", &[])]))).await })
    });
    let mut ids = std::collections::BTreeSet::new();
    let mut created = 0;
    for answer in answers.collect::<Vec<_>>() {
        let answer = answer.await.expect("no panic").expect("accepted").into_inner();
        created += u32::from(answer.created);
        ids.insert(answer.run.expect("a run").id);
    }
    assert_eq!((created, ids.len()), (1, 1));
}

#[tokio::test]
async fn i9_every_problem_is_found_at_once_with_its_path() {
    let stage = Stage::new(|_, _| Play::Hold).await;
    let mut bad = pipeline(&[("extract", &["nowhere"]), ("extract", &[])]);
    bad.steps[1].timeout = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    let request = run::SubmitRunRequest {
        namespace: "No Namespace".to_owned(),
        name: "Bad Name".to_owned(),
        parameters: [("RATE".to_owned(), prost_types::Value { kind: None })].into(),
        ..submission("", bad)
    };
    let status = stage.scheduler.runs().submit_run(request).await.expect_err("refused");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::InvalidArgument, "INVALID_PIPELINE")
    );
    let fields = status.get_details_bad_request().expect("fields").field_violations;
    let paths: Vec<&str> = fields.iter().map(|violation| violation.field.as_str()).collect();
    let expected = [
        "requestId",
        "name",
        "namespace",
        "parameters.RATE",
        "pipeline.steps[0].upstream[0]",
        "pipeline.steps[1].name",
        "pipeline.steps[1].timeout",
    ];
    for path in expected {
        assert!(paths.contains(&path), "{path} in {paths:?}");
    }
    assert_eq!(paths.len(), expected.len(), "{paths:?}");
    let missing = run::SubmitRunRequest {
        pipeline: None,
        ..submission("r1", pipeline(&[]))
    };
    let status = stage.scheduler.runs().submit_run(missing).await.expect_err("refused");
    assert!(
        status.message().contains("pipeline: a pipeline is needed (MISSING)"),
        "{}",
        status.message()
    );
}

#[tokio::test]
async fn a_name_is_unique_and_parameters_are_resolved() {
    let stage = Stage::new(|_, _| Play::Hold).await;
    let mut runs = stage.scheduler.runs();
    let mut with_parameter = pipeline(&[]);
    with_parameter.parameters = vec![Parameter {
        name: "RATE".to_owned(),
        ..Parameter::default()
    }];
    with_parameter.steps = vec![Step {
        name: "train".to_owned(),
        matrix: vec![MatrixAxis {
            name: "FOLD".to_owned(),
            values: vec![text("a"), text("b")],
        }],
        args: vec!["--rate=$(RATE)".to_owned()],
        ..Step::default()
    }];
    let mut request = run::SubmitRunRequest {
        name: "nightly".to_owned(),
        ..submission("r1", with_parameter)
    };
    let status = runs
        .submit_run(request.clone())
        .await
        .expect_err("the parameter is required");
    assert_eq!(reason(&status), "INVALID_PIPELINE");
    request.parameters.insert("RATE".to_owned(), text("0.1"));
    let run = runs
        .submit_run(request.clone())
        .await
        .expect("accepted")
        .into_inner()
        .run
        .expect("a run");
    assert_eq!(run.name, "nightly");
    assert_eq!(run.step_counts[0].count, 2);
    assert_eq!(run.parameters["RATE"], text("0.1"));

    request.request_id = "r2".to_owned();
    let status = runs.submit_run(request).await.expect_err("taken");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::AlreadyExists, "NAME_TAKEN")
    );
}

/// behaviours N1, T2, X16: long names of pipelines leave room for what tells their runs apart.
#[tokio::test]
async fn a_run_without_a_name_gets_a_readable_label_of_its_own() {
    let stage = Stage::new(|_, _| Play::Hold).await;
    for name in ["churn".to_owned(), "a".repeat(63), format!("{}-b", "a".repeat(57))] {
        let mut names = std::collections::BTreeSet::new();
        for number in 0..3 {
            let pipeline = Pipeline {
                name: name.clone(),
                ..pipeline(&[("extract", &[])])
            };
            names.insert(stage.submit(&format!("{name} {number}"), pipeline).await.name);
        }
        assert_eq!(names.len(), 3, "{names:?}");
        for made in names {
            assert!(made.len() <= 63, "{made}");
            let (prefix, suffix) = made.rsplit_once('-').expect("a dash");
            assert!(name.starts_with(prefix) && prefix.len() >= name.len().min(57), "{made}");
            let is_plain = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
            assert!(suffix.len() >= 4 && suffix.chars().all(is_plain), "{made}");
        }
    }
}

/// behaviours O10, T3
#[tokio::test]
async fn a_step_without_an_image_is_refused_where_images_are_used() {
    let stage = Stage::new(|_, _| Play::Hold).await;
    stage.submit("r0", pipeline(&[("warm-up", &[])])).await;
    crate::support::eventually("the executor", || async {
        (!stage.executor.seen().welcomes.is_empty()).then_some(())
    })
    .await;
    let mut imageless = pipeline(&[("extract", &[])]);
    imageless.defaults = Some(StepDefaults {
        command: vec!["true".to_owned()],
        ..StepDefaults::default()
    });
    let status = stage
        .scheduler
        .runs()
        .submit_run(submission("r1", imageless))
        .await
        .expect_err("refused");
    assert!(status.message().contains("image"), "{}", status.message());
}

#[tokio::test]
async fn i11_a_pod_that_kubernetes_would_not_take_is_refused() {
    let stage = Stage::new(|_, _| Play::Hold).await;
    let mut large = pipeline(&[("extract", &[]), ("train", &[])]);
    large.steps[1].args = vec!["x".repeat(1_500_000)];
    large.steps[0].matrix = vec![MatrixAxis {
        name: "A".to_owned(),
        values: vec![text("a"), text(&"x".repeat(20_000))],
    }];
    large.steps[0].args = vec!["$(A)".repeat(60)];
    let status = stage
        .scheduler
        .runs()
        .submit_run(submission("r1", large))
        .await
        .expect_err("refused");
    let fields = status.get_details_bad_request().expect("fields").field_violations;
    let paths: Vec<&str> = fields.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(
        paths,
        ["pipeline.steps[0]", "pipeline.steps[1]"],
        "{}",
        status.message()
    );
    assert!(status.message().contains("(LIMIT)"), "{}", status.message());
}

#[tokio::test]
async fn i11_a_few_bytes_that_would_expand_to_millions_are_refused_at_once() {
    let stage = Stage::new(|_, _| Play::Hold).await;
    let mut cube = pipeline(&[("train", &[])]);
    let values = (0..215).map(|number| text(&number.to_string()));
    let values: Vec<_> = values.collect();
    cube.steps[0].matrix = ["A", "B", "C"]
        .map(|name| MatrixAxis {
            name: name.to_owned(),
            values: values.clone(),
        })
        .into();
    cube.steps[0].image = Some("i:$(A)$(B)$(C)".to_owned());
    let mut runs = stage.scheduler.runs();
    let refusing = runs.submit_run(submission("r1", cube));
    let status = tokio::time::timeout(std::time::Duration::from_secs(20), refusing).await;
    let status = status.expect("in time").expect_err("refused");
    assert!(
        status.message().contains("9938375 steps after expansion"),
        "{}",
        status.message()
    );
}

fn text(value: &str) -> prost_types::Value {
    prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(value.to_owned())),
    }
}

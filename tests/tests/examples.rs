//! Every example runs, as a user runs it: one command, with nothing else started.

use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;
use windlass_tests::binaries::{binary, repository};
use windlass_tests::iris::{Parameters, cross_validate};

struct Local {
    data: TempDir,
}

impl Local {
    fn new() -> Self {
        Self {
            data: tempfile::tempdir().expect("a folder"),
        }
    }

    fn windlass(&self, args: &[&str]) -> Output {
        Command::new(binary("windlass"))
            .args(args)
            .args(["--local", "--data-dir"])
            .arg(self.data.path())
            .output()
            .expect("windlass runs")
    }
}

fn example(name: &str) -> String {
    let path: PathBuf = repository().join("examples").join(name).join("pipeline.yaml");
    path.to_str().expect("a readable path").to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// behaviours C4, U23
#[test]
fn iris_reaches_the_accuracy_that_is_computed_independently() {
    let csv = std::fs::read_to_string(repository().join("examples/iris/iris.csv")).expect("the table");
    let slow = Parameters {
        learning_rate: 0.01,
        epochs: 10,
        ..Parameters::default()
    };
    let runs: [(&[&str], Parameters); 2] = [
        (&[], Parameters::default()),
        (&["--param", "LEARNING_RATE=0.01", "--param", "EPOCHS=10"], slow),
    ];
    let local = Local::new();
    let mut accuracies = Vec::new();
    for (params, parameters) in runs {
        let run = local.windlass(&[&["run", &example("iris")], params].concat());
        assert!(run.status.success(), "{}\n{}", text(&run.stdout), text(&run.stderr));
        let report = local.windlass(&["logs", "@latest", "report", "--prefix", "never"]);
        let (right, total) = cross_validate(&csv, parameters);
        let expected = format!("accuracy {:.4} ({right} of {total})", right as f64 / total as f64);
        let printed = text(&report.stdout);
        assert_eq!(
            printed.lines().last(),
            Some(expected.as_str()),
            "{printed}\n{}",
            text(&report.stderr)
        );
        accuracies.push(right);
    }
    assert_ne!(accuracies[0], accuracies[1], "the parameters change the outcome");
}

#[test]
fn retries_fails_with_the_step_the_class_and_the_log() {
    let local = Local::new();
    let run = local.windlass(&["run", &example("retries")]);
    let printed = text(&run.stdout) + &text(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{printed}");
    for part in [
        "broken",
        "USER_ERROR",
        "exit 3",
        "table orders has no column total",
        "windlass logs",
        "windlass explain",
    ] {
        assert!(printed.contains(part), "{part:?} is missing in:\n{printed}");
    }
    let steps = local.windlass(&["get", "@latest", "-o", "json"]);
    let steps: serde_json::Value = serde_json::from_slice(&steps.stdout).expect("JSON");
    let state = |name: &str| {
        let steps = steps["steps"].as_array().expect("steps");
        let step = steps.iter().find(|step| step["name"] == name).expect("the step");
        (
            step["state"].as_str().expect("a state").to_owned(),
            step["attempts"].as_array().map_or(0, Vec::len),
        )
    };
    assert_eq!(state("flaky"), ("SUCCEEDED".to_owned(), 2));
    assert_eq!(state("broken"), ("FAILED".to_owned(), 1));
    assert_eq!(state("never"), ("SKIPPED".to_owned(), 0));
    assert_eq!(state("alarm"), ("SUCCEEDED".to_owned(), 1));
    assert_eq!(state("clean-up"), ("SUCCEEDED".to_owned(), 1));
}

#[test]
fn layers_runs_200_steps() {
    let local = Local::new();
    let run = local.windlass(&["run", &example("layers")]);
    assert!(run.status.success(), "{}\n{}", text(&run.stdout), text(&run.stderr));
    let logs = local.windlass(&["logs", "@latest", "--prefix", "never"]);
    assert_eq!(text(&logs.stdout).lines().count(), 200);
}

//! `windlass run-step`: a run of one step, made from arguments (behaviours Q4, Q5, SO1 to SO5).

use std::io::Read as _;
use std::path::Path;

use serde_json::{Map, Value, json};
use windlass_api::convert::pipeline_to_proto;
use windlass_api::run::v1::{FailureClass, SubmitRunRequest};
use windlass_pipeline::source::{Parsed, parse};
use windlass_pipeline::{Environment, ParameterValues, Violation, WorkspaceDefault};

use super::follow::{Follow, FollowOptions, OnInterrupt};
use super::run::{labels, submit};
use crate::args::{GlobalArgs, RunStepArgs};
use crate::client::Session;
use crate::errors::{CliError, Exit, Result};
use crate::output;

/// Name of the only step.
const STEP: &str = "step";

/// Bound on a file of pod settings, in bytes.
const MAX_POD: u64 = 1024 * 1024;

/// Bound on the name that is made from a command.
const MAX_NAME: usize = 40;

pub(super) async fn run(global: &GlobalArgs, args: &RunStepArgs) -> Result<Exit> {
    // Everything is checked before anything is started or reached.
    let is_stdin = args.pod.as_deref() == Some(Path::new("-"));
    super::secret::check_stdin(&args.secrets, is_stdin.then_some("--pod"))?;
    let secrets = super::secret::of_run(&args.secrets)?;
    let pipeline = pipeline(args, secrets.keys())?;
    check(args, &pipeline)?;
    let labels = labels(&args.labels)?;
    if global.local && args.detach {
        return Err(
            CliError::bad_input("--detach leaves nobody to run the command under --local")
                .hint("start `windlass dev` in another terminal, and leave --local out"),
        );
    }
    if global.local {
        output::note(super::LOCAL_STEPS);
    }
    super::with_session(global, async |session| {
        let request = SubmitRunRequest {
            namespace: session.namespace.clone(),
            request_id: args.request_id.clone().unwrap_or_else(super::request_id),
            pipeline: Some(pipeline_to_proto(&pipeline.pipeline)),
            name: args.name.clone().unwrap_or_default(),
            labels: labels.clone(),
            secrets: secrets.clone(),
            skip_reference_check: args.no_check_references,
            ..SubmitRunRequest::default()
        };
        submit_and_follow(session, global, args, request).await
    })
    .await
}

async fn submit_and_follow(
    session: &Session,
    global: &GlobalArgs,
    args: &RunStepArgs,
    request: SubmitRunRequest,
) -> Result<Exit> {
    let run = submit(session, request, |error| located(args, error)).await?;
    if args.detach {
        output::line(&run.name)?;
        return Ok(Exit::Succeeded);
    }
    let options = FollowOptions {
        logs: false,
        timeout: None,
        interrupt: if session.is_embedded() {
            OnInterrupt::Cancel
        } else {
            OnInterrupt::Detach
        },
        quiet: true,
        flags: super::same_server(global),
    };
    let id = run.id.clone();
    let exit = Follow::new(session, run, options).raw().run().await?;
    if exit != Exit::Failed || args.timeout.is_none() {
        return Ok(exit);
    }
    let run = session.get_run(&id).await?;
    let late = |step: &windlass_api::run::v1::FailedStep| step.failure_class() == FailureClass::Deadline;
    Ok(if run.failed_steps.iter().any(late) {
        Exit::Timeout
    } else {
        exit
    })
}

/// The pipeline that the arguments describe.
fn pipeline<'a>(args: &RunStepArgs, secrets: impl Iterator<Item = &'a String>) -> Result<Parsed> {
    let mut step = Map::from_iter([("name".to_owned(), json!(STEP))]);
    let mut set = |name: &str, value: Option<Value>| {
        step.extend(value.map(|value| (name.to_owned(), value)));
    };
    set("image", Some(json!(args.image)));
    set("timeout", args.timeout.as_ref().map(|timeout| json!(timeout)));
    set("command", (!args.command.is_empty()).then(|| json!(args.command)));
    let env = env(&args.env, secrets)?;
    set("env", (!env.is_empty()).then(|| json!(env)));
    set("pod", pod(args)?);
    let mut pipeline = json!({"name": name(args), "steps": [step]});
    if let Some(cluster) = &args.cluster {
        pipeline["cluster"] = json!(cluster);
    }
    // As text, so that what is misspelt in the file of pod settings is found as in a pipeline file.
    Ok(parse(&pipeline.to_string()))
}

fn env<'a>(given: &[String], secrets: impl Iterator<Item = &'a String>) -> Result<Vec<Value>> {
    let variable = |text: &String| {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| CliError::bad_input(format!("--env {text:?} is not NAME=VALUE")))?;
        Ok(json!({"name": name, "value": value}))
    };
    let secrets = secrets.map(|key| Ok(json!({"name": key, "valueFrom": {"runSecretKeyRef": {"key": key}}})));
    given.iter().map(variable).chain(secrets).collect()
}

fn pod(args: &RunStepArgs) -> Result<Option<Value>> {
    if let Some(path) = &args.pod {
        return read_pod(path).map(Some);
    }
    let mut resources = json!({});
    if let Some(cpu) = &args.cpu {
        resources["requests"]["cpu"] = json!(cpu);
    }
    if let Some(memory) = &args.memory {
        resources["requests"]["memory"] = json!(memory);
        resources["limits"]["memory"] = json!(memory);
    }
    let is_asked = args.cpu.is_some() || args.memory.is_some();
    Ok(is_asked.then(|| json!({"resources": resources})))
}

fn read_pod(path: &Path) -> Result<Value> {
    let shown = path.display();
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(MAX_POD + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_POD + 1).read_to_string(&mut text))
    };
    read.map_err(|error| CliError::bad_input(format!("cannot read --pod {shown}: {error}")))?;
    if text.len() as u64 > MAX_POD {
        return Err(CliError::bad_input(format!("--pod {shown} is larger than 1 MiB")));
    }
    let value: Value = serde_saphyr::from_str(&text)
        .map_err(|error| CliError::bad_input(format!("--pod {shown} is no YAML: {error}")))?;
    match value {
        Value::Object(_) => Ok(value),
        _ => Err(CliError::bad_input(format!("--pod {shown} is no mapping"))
            .hint("write what stands under `pod:` in a pipeline")),
    }
}

/// Name of the pipeline, and so the beginning of the run's: the command's, else the image's.
fn name(args: &RunStepArgs) -> String {
    let image = args.image.split('@').next().unwrap_or_default();
    let path = args.command.first().map_or(image, String::as_str);
    let base = path.rsplit('/').next().unwrap_or_default();
    let base = base.split(':').next().unwrap_or_default();
    let letters = base.chars().map(|letter| match letter.to_ascii_lowercase() {
        letter if letter.is_ascii_lowercase() || letter.is_ascii_digit() => letter,
        _ => '-',
    });
    let name: String = letters.take(MAX_NAME).collect();
    let name = name.trim_matches('-');
    if name.is_empty() {
        STEP.to_owned()
    } else {
        name.to_owned()
    }
}

/// Finds every problem that can be found here.
fn check(args: &RunStepArgs, parsed: &Parsed) -> Result<()> {
    let environment = Environment {
        workspace: WorkspaceDefault::RunFolder,
        ..Environment::default()
    };
    match parsed.resolve(&ParameterValues::new(), &environment) {
        Ok(_) => Ok(()),
        Err(violations) => Err(refused(args, &violations)),
    }
}

fn refused(args: &RunStepArgs, violations: &[Violation]) -> CliError {
    let mut lines: Vec<_> = violations
        .iter()
        .map(|violation| place(args, &violation.path, &violation.message))
        .collect();
    // One argument may stand in two fields.
    lines.dedup();
    CliError::bad_input("the command cannot be run").details(lines)
}

/// The server's refusal, with the arguments that it is about.
fn located(args: &RunStepArgs, mut error: CliError) -> CliError {
    let fields = std::mem::take(&mut error.fields);
    let lines: Vec<_> = fields
        .iter()
        .map(|(field, wrong)| place(args, field.strip_prefix("pipeline.").unwrap_or(field), wrong))
        .collect();
    error.details(lines)
}

/// What is wrong with which argument.
fn place(args: &RunStepArgs, path: &str, wrong: &str) -> String {
    let of_step = path.strip_prefix("steps[0].");
    let file = args.pod.as_deref().unwrap_or(Path::new("")).display();
    let flag = match of_step.map(|rest| rest.split_once('.').unwrap_or((rest, ""))) {
        Some(("image", _)) => "--image".to_owned(),
        Some(("timeout", _)) => "--timeout".to_owned(),
        Some(("pod", "")) => format!("--pod {file}"),
        Some(("pod", rest)) if args.pod.is_some() => format!("--pod {file}: {rest}"),
        Some(("pod", rest)) if rest.ends_with(".cpu") => "--cpu".to_owned(),
        Some(("pod", rest)) if rest.ends_with(".memory") => "--memory".to_owned(),
        Some((rest, _)) if rest.starts_with("env[") => {
            let index = rest.trim_start_matches("env[").trim_end_matches(']').parse::<usize>();
            let given = index.ok().and_then(|index| args.env.get(index));
            // What follows the variables are the secrets.
            given.map_or_else(
                || "--secret-…".to_owned(),
                |given| format!("--env {}", given.split('=').next().unwrap_or_default()),
            )
        }
        Some((rest, _)) if rest.starts_with("command") => "COMMAND".to_owned(),
        _ if path == "cluster" => "--cluster".to_owned(),
        _ => path.to_owned(),
    };
    format!("{flag}: {wrong}")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn args(given: &[&str]) -> RunStepArgs {
        let line = ["windlass", "run-step"].iter().chain(given);
        match Cli::try_parse_from(line).expect("arguments").command {
            Command::RunStep(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn arguments_are_a_pipeline_of_one_step() {
        // behaviours Q4: the command as it is given; SO1: no resources unless they are asked for.
        let of = |given: &[&str]| {
            let args = args(given);
            let parsed = pipeline(&args, [].iter()).expect("a pipeline");
            check(&args, &parsed).expect("without a fault");
            windlass_pipeline::render::to_yaml(&parsed.pipeline)
        };
        insta::assert_snapshot!(of(&["--image", "python:3.13", "--", "python", "-c", "print(6 * 7)"]), @r#"
        name: python
        steps:
          - name: step
            image: python:3.13
            command: [python, -c, "print(6 * 7)"]
        "#);
        let full = of(&[
            "--image",
            "ghcr.io/acme/trainer@sha256:11",
            "--env",
            "LEVEL=9",
            "--env",
            "EMPTY=",
            "--cpu",
            "500m",
            "--memory",
            "2Gi",
            "--timeout",
            "4h",
            "--cluster",
            "prod",
        ]);
        insta::assert_snapshot!(full, @r#"
        name: trainer
        cluster: prod
        steps:
          - name: step
            image: ghcr.io/acme/trainer@sha256:11
            env:
              - name: LEVEL
                value: "9"
              - name: EMPTY
                value: ""
            timeout: 4h
            pod:
              resources:
                requests:
                  cpu: 500m
                  memory: 2Gi
                limits:
                  memory: 2Gi
        "#);
    }

    #[test]
    fn problems_name_the_argument() {
        let wrong = |given: &[&str]| {
            let args = args(given);
            match pipeline(&args, [].iter()).and_then(|parsed| check(&args, &parsed)) {
                Err(error) => error.render(),
                Ok(()) => "nothing".to_owned(),
            }
        };
        let given = [
            "--image",
            "i",
            "--cpu",
            "lots",
            "--memory",
            "2Gb",
            "--timeout",
            "soon",
            "--env",
            "1=a",
        ];
        insta::assert_snapshot!(wrong(&given), @r"
        error: the command cannot be run
          --timeout: `soon` is no duration; write 90s, 45m or 1h30m
          --env 1: `1` is no name of a variable
          --cpu: `lots` is no quantity; write for example 500m, 2 or 4Gi
          --memory: `2Gb` is no quantity; write Gi or G
        ");
        insta::assert_snapshot!(wrong(&["--image", "i", "--env", "LEVEL"]), @r#"error: --env "LEVEL" is not NAME=VALUE"#);
        insta::assert_snapshot!(wrong(&["--image", "i", "--pod", "/nothing.yaml"]), @"error: cannot read --pod /nothing.yaml: No such file or directory (os error 2)");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pod.yaml");
        std::fs::write(&path, "nodeSelectr: {gpu: a100}\ntolerations: [{key: 5}]").expect("written");
        let pod = path.display().to_string();
        let said = wrong(&["--image", "i", "--pod", &pod]).replace(&pod, "pod.yaml");
        insta::assert_snapshot!(said, @r#"
        error: the command cannot be run
          --pod pod.yaml: nodeSelectr: unknown field, did you mean nodeSelector?
          --pod pod.yaml: tolerations[0].key: expected a string, found the number 5; put it in quotes: "5"
          --pod pod.yaml: tolerations[0].key: a toleration without a key tolerates all taints and needs operator: Exists
        "#);
        std::fs::write(&path, "- a").expect("written");
        let said = wrong(&["--image", "i", "--pod", &pod]).replace(&pod, "pod.yaml");
        insta::assert_snapshot!(said, @r"
        error: --pod pod.yaml is no mapping
          write what stands under `pod:` in a pipeline
        ");
    }

    #[test]
    fn a_run_is_named_after_its_command() {
        let name = |given: &[&str]| name(&args(given));
        assert_eq!(
            name(&["--image", "a/b:1", "--", "/usr/bin/Python3.13", "x"]),
            "python3-13"
        );
        assert_eq!(name(&["--image", "ghcr.io/acme/trainer@sha256:11"]), "trainer");
        assert_eq!(name(&["--image", "busybox:1.36"]), "busybox");
        assert_eq!(name(&["--image", "i", "--", "./…"]), "step");
    }
}

//! Tests of the whole way from a file to what a run executes.

mod kubernetes;
mod limits;
mod values;

use std::time::{Duration, Instant};

use super::{Environment, Limits, ParameterValues, WorkspaceDefault, resolve};
use crate::model::{MatrixAxis, Step, StepTemplate};
use crate::source::parse;
use crate::{Pipeline, ResolvedPipeline, Scalar, Violation};

/// The pipeline of the documentation.
const SAMPLE: &str = include_str!("../../tests/data/churn.yaml");

fn environment() -> Environment {
    Environment {
        workspace: WorkspaceDefault::RunFolder,
        ..Environment::default()
    }
}

fn accepted(text: &str) -> ResolvedPipeline {
    let resolved = parse(text).resolve(&ParameterValues::new(), &environment());
    resolved.unwrap_or_else(|violations| panic!("refused:\n{}", listed(&violations)))
}

fn refused(text: &str) -> String {
    let resolved = parse(text).resolve(&ParameterValues::new(), &environment());
    listed(&resolved.expect_err("accepted"))
}

fn listed(violations: &[Violation]) -> String {
    let lines = violations
        .iter()
        .map(|violation| format!("{} {violation}", violation.code));
    lines.collect::<Vec<_>>().join("\n")
}

/// Code and path of every problem.
fn problems(text: &str) -> Vec<String> {
    let resolved = parse(text).resolve(&ParameterValues::new(), &environment());
    let violations = resolved.expect_err("accepted");
    let lines = violations
        .iter()
        .map(|violation| format!("{} {}", violation.code, violation.path));
    lines.collect()
}

/// A sample whose only file has its content.
fn sample() -> crate::source::Parsed {
    let mut parsed = parse(SAMPLE);
    parsed.pipeline.files[0].set_bytes(b"print('trained')".to_vec());
    parsed
}

#[test]
fn the_sample_of_the_documentation_resolves() {
    let parameters = ParameterValues::from([("IMAGE_TAG".to_owned(), Scalar::from("v4"))]);
    let resolved = sample().resolve(&parameters, &environment());
    let resolved = resolved.unwrap_or_else(|violations| panic!("refused:\n{}", listed(&violations)));
    let names: Vec<String> = resolved.step_names().collect();
    assert_eq!(
        names,
        [
            "extract", "train.0", "train.1", "train.2", "train.3", "train.4", "report"
        ]
    );
    assert_eq!(resolved.upstream(6), [1, 2, 3, 4, 5]);
    assert_eq!(resolved.find_step("train.3"), Some(4));
    assert_eq!(resolved.find_step("train.5"), None);
    assert_eq!(resolved.templates.len(), 3);
    let spec = resolved.step_spec(4).expect("train.3");
    insta::assert_snapshot!(serde_json::to_string_pretty(&spec).expect("json"), @r#"
    {
      "name": "train.3",
      "step": "train",
      "matrix": [
        [
          "FOLD",
          "3"
        ]
      ],
      "image": "ghcr.io/acme/churn:v4",
      "command": [
        "python",
        "train.py",
        "--fold=3",
        "--lr=0.01"
      ],
      "args": [],
      "script": null,
      "env": [
        {
          "name": "PYTHONUNBUFFERED",
          "value": "1"
        }
      ],
      "workingDir": null,
      "cluster": "prod",
      "policy": {
        "runIf": "SUCCEEDED",
        "timeout": "45m",
        "userRetries": {
          "attempts": 2,
          "delay": "10s",
          "backoff": 2.0,
          "maxDelay": "5m",
          "exitCodes": [
            75
          ]
        },
        "infrastructureRetries": {
          "attempts": 5,
          "delay": "10s",
          "backoff": 2.0,
          "maxDelay": "5m"
        },
        "lostContactDeadline": "10m",
        "lostContactThen": "FAIL",
        "admittedDeadline": "24h",
        "createdDeadline": "5m",
        "scheduledDeadline": "10m",
        "pullingDeadline": "10m",
        "initialisingDeadline": "10m",
        "terminatingDeadline": "10m",
        "terminationGrace": "30s",
        "logFollow": "ALWAYS",
        "acceptExitZeroWhenTerminated": false
      },
      "pod": {
        "resources": {
          "requests": {
            "cpu": "500m",
            "memory": "1Gi"
          },
          "limits": {
            "memory": "2Gi",
            "nvidia.com/gpu": "1"
          }
        },
        "nodeSelector": {
          "gpu": "a100"
        },
        "tolerations": [
          {
            "key": "nvidia.com/gpu",
            "operator": "Exists"
          }
        ]
      }
    }
    "#);
}

#[test]
fn a_resolved_pipeline_can_be_stored() {
    let resolved = sample()
        .resolve(&ParameterValues::new(), &environment())
        .expect("resolved");
    let bytes = resolved.encode();
    assert_eq!(ResolvedPipeline::decode(&bytes).expect("decoded"), resolved);
}

#[test]
fn a_file_without_content_is_refused_until_the_client_has_read_it() {
    insta::assert_snapshot!(refused(SAMPLE), @r#"MISSING line 9, column 5: files[0]: the file train.py has no content"#);
}

#[test]
fn i9_every_problem_of_a_file_is_found_at_once_with_its_place() {
    let text = r#"
name: Bad_Name
colour: red
parameters:
  - {name: LR, type: NUMBER, default: high}
  - {name: WINDLASS_X, default: a}
maxParallelism: 0
labels: {run: mine, ok: "-"}
failureMode: STOP
timeout: 90
steps:
  - name: a
    image: img:$(TAG)
    upstream: [b, bb]
    command: echo
    retries: {user: {attempts: 0, backoff: 0.5}, infrastructure: {exitCodes: [1]}}
  - name: b
    image: img
    upstream: [a]
    script: "true"
    command: ["false"]
    env:
      - {name: DEBUG, value: on}
      - {name: LEVEL, value: 1}
      - {name: WINDLASS_STEP, value: x}
      - {name: KEY, valueFrom: {secretKeyRef: {name: s}}}
    pod:
      nodeSelectr: {gpu: a100}
      resources: {requests: {memory: 4Gi, cpu: lots}, limits: {memory: 2Gi}}
      volumes: [{name: data, hostpath: {path: /}}]
      volumeMounts: [{name: date, mountPath: /data}]
  - name: b
    args: [x]
"#;
    insta::assert_snapshot!(refused(text), @r#"
    BAD_VALUE line 2, column 1: name: `Bad_Name` is no name: at most 63 lower-case letters, digits and `-`, starting and ending with a letter or digit
    UNKNOWN_FIELD line 3, column 1: colour: unknown field; fields here are name, parameters, cluster, workspace, files, failureMode, maxParallelism, startInterval, timeout, priority, labels, annotations, defaults, steps
    WRONG_TYPE line 5, column 30: parameters[0].default: the default is a STRING, the parameter a NUMBER
    RESERVED line 6, column 6: parameters[1].name: names that start with WINDLASS_ are set by Windlass
    BAD_VALUE line 7, column 1: maxParallelism: must be at least 1; leave it out for no limit
    RESERVED line 8, column 10: labels.run: the label run is set by Windlass
    BAD_VALUE line 8, column 21: labels.ok: `-` is no label value: at most 63 letters, digits, `-`, `_` and `.`, starting and ending with a letter or digit
    BAD_VALUE line 9, column 1: failureMode: unknown value `STOP`; allowed are CONTINUE_ON_FAILURE, STOP_ON_FAILURE, FAIL_FAST
    BAD_VALUE line 10, column 1: timeout: `90` has no unit; write 90s for seconds, or use ms, m, h, d
    UNKNOWN_PARAMETER line 13, column 5: steps[0].image: $(TAG) is not declared as a parameter; write $$(TAG) for the text itself
    CYCLE line 14, column 5: steps[0].upstream: these steps wait for each other: a after b after a
    UNKNOWN_STEP line 14, column 19: steps[0].upstream[1]: there is no step bb, did you mean b?
    WRONG_TYPE line 15, column 5: steps[0].command: expected a list, found the string "echo"; write it as [a, b]
    BAD_VALUE line 16, column 22: steps[0].retries.user.attempts: must be at least 1, which means no retry
    BAD_VALUE line 16, column 35: steps[0].retries.user.backoff: must be between 1 and 1000
    BAD_VALUE line 16, column 67: steps[0].retries.infrastructure.exitCodes: exit codes say nothing about infrastructure; they can limit `user` only
    CONFLICT line 20, column 5: steps[1].script: a step has either a command or a script
    WRONG_TYPE line 24, column 23: steps[1].env[1].value: expected a string, found the number 1; put it in quotes: "1"
    RESERVED line 25, column 10: steps[1].env[2].name: names that start with WINDLASS_ are set by Windlass
    MISSING line 26, column 33: steps[1].env[3].valueFrom.secretKeyRef.key: is missing; wanted is a key: at most 253 letters, digits, `-`, `_` and `.`
    UNKNOWN_FIELD line 28, column 7: steps[1].pod.nodeSelectr: unknown field, did you mean nodeSelector?
    BAD_VALUE line 29, column 30: steps[1].pod.resources.requests.memory: the request 4Gi is above the limit 2Gi
    BAD_VALUE line 29, column 43: steps[1].pod.resources.requests.cpu: `lots` is no quantity; write for example 500m, 2 or 4Gi
    UNKNOWN_FIELD line 30, column 30: steps[1].pod.volumes[0].hostpath: unknown field, did you mean hostPath?
    BAD_VALUE line 31, column 7: steps[1].pod.volumeMounts: there is no volume date
    DUPLICATE line 32, column 5: steps[2].name: there are two steps b
    MISSING line 32, column 5: steps[2].image: the step has no image; set it here or in defaults
    "#);
}

/// behaviours D10, X9
#[test]
fn e41_cycles_are_named() {
    let text = "
name: a
defaults: {image: i}
steps:
  - {name: a, upstream: [c]}
  - {name: b, upstream: [a]}
  - {name: c, upstream: [b]}
  - {name: d, upstream: [c]}
  - {name: e, upstream: [e]}
  - {name: f, upstream: [g]}
  - {name: g, upstream: [f, h]}
  - {name: h}
";
    insta::assert_snapshot!(refused(text), @r#"
    CYCLE line 5, column 15: steps[0].upstream: these steps wait for each other: a after c after b after a
    CYCLE line 9, column 26: steps[4].upstream[0]: e needs itself
    CYCLE line 10, column 15: steps[5].upstream: these steps wait for each other: f after g after f
    "#);
}

#[test]
fn e41_an_unknown_upstream_step_is_refused_with_the_nearest_name() {
    let text = "
name: a
defaults: {image: i}
steps:
  - {name: train, matrix: [{name: I, values: [1, 2]}]}
  - {name: b, upstream: [trian, train.2, train.1, train.1]}
";
    insta::assert_snapshot!(refused(text), @r#"
    UNKNOWN_STEP line 6, column 26: steps[1].upstream[0]: there is no step trian, did you mean train?
    UNKNOWN_STEP line 6, column 33: steps[1].upstream[1]: there is no step train.2, did you mean train?
    DUPLICATE line 6, column 51: steps[1].upstream[3]: train.1 is given twice
    "#);
}

#[test]
fn syntax_errors_have_a_place() {
    insta::assert_snapshot!(refused("name: a\nsteps: [a"), @r#"SYNTAX line 2, column 8: unclosed bracket '['"#);
    insta::assert_snapshot!(refused("name: a\nname: b\nsteps:\n  - {name: a, image: i, image: j}"), @r#"
    DUPLICATE line 2, column 1: name: name is given twice
    DUPLICATE line 4, column 25: steps[0].image: image is given twice
    "#);
    insta::assert_snapshot!(refused("- a"), @r#"WRONG_TYPE line 1, column 1: a pipeline file is a map with name and steps"#);
    insta::assert_snapshot!(refused(""), @r#"WRONG_TYPE a pipeline file is a map with name and steps"#);
    insta::assert_snapshot!(refused("name: a\n---\nname: b"), @r#"SYNTAX line 3, column 1: a second document; a file holds one pipeline"#);
    insta::assert_snapshot!(refused("name: a\n\tsteps: []"), @r#"SYNTAX line 1, column 7: while scanning a plain scalar, found a tab"#);
    insta::assert_snapshot!(refused("name: a\nbase: &b {x: 1}\nsteps: [{<<: *b, name: s, image: i}]"), @r#"
    UNKNOWN_FIELD line 2, column 1: base: unknown field; fields here are name, parameters, cluster, workspace, files, failureMode, maxParallelism, startInterval, timeout, priority, labels, annotations, defaults, steps
    UNKNOWN_FIELD line 3, column 10: steps[0].<<: merge keys (<<) are not part of YAML 1.2; use defaults, or write the fields out
    "#);
}

/// behaviours U24
#[test]
fn wrong_types_are_explained() {
    let text = "
name: 5
steps:
  - name: a
    image: [i]
    command: [run, 5, null, true]
    upstream: b
    timeout: 1 hour
    retries: 3
    acceptExitZeroWhenTerminated: yes
    pod: {privileged: yes, tolerations: {a: b}, labels: {a: 1}, volumes: [{name: v, configMap: {name: c, defaultMode: 0644}}]}
  - b
";
    insta::assert_snapshot!(refused(text), @r#"
    WRONG_TYPE line 2, column 1: name: expected a string, found the number 5; put it in quotes: "5"
    WRONG_TYPE line 5, column 5: steps[0].image: expected a string, found a list
    WRONG_TYPE line 6, column 20: steps[0].command[1]: expected a string, found the number 5; put it in quotes: "5"
    WRONG_TYPE line 6, column 23: steps[0].command[2]: expected a value, found null
    WRONG_TYPE line 6, column 29: steps[0].command[3]: expected a string, found the boolean true; put it in quotes: "true"
    WRONG_TYPE line 7, column 5: steps[0].upstream: expected a list, found the string "b"; write it as [a, b]
    BAD_VALUE line 8, column 5: steps[0].timeout: `1 hour` is no duration; write 90s, 45m or 1h30m
    WRONG_TYPE line 9, column 5: steps[0].retries: expected a map, found the number 3
    WRONG_TYPE line 10, column 5: steps[0].acceptExitZeroWhenTerminated: expected true or false, found the string "yes"; yes, no, on and off are strings in YAML 1.2
    WRONG_TYPE line 11, column 11: steps[0].pod.privileged: expected true or false, found the string "yes"; yes, no, on and off are strings in YAML 1.2
    WRONG_TYPE line 11, column 28: steps[0].pod.tolerations: expected a list, found a map
    WRONG_TYPE line 11, column 58: steps[0].pod.labels.a: expected a string, found the number 1; put it in quotes: "1"
    BAD_VALUE line 11, column 119: steps[0].pod.volumes[0].configMap.defaultMode: 0644 is read as octal by some programs and as decimal by others; write 0o644 or 644, or put it in quotes
    WRONG_TYPE line 12, column 5: steps[1]: expected a map, found the string "b"
    "#);
}

#[test]
fn e14_misspelt_nested_keys_are_refused() {
    let text = "
name: a
steps:
  - {name: a, image: i, pod: {node_selectors: {a: b}, service_account_name: s, hostIPC: true}, Env: []}
";
    insta::assert_snapshot!(refused(text), @r#"
    UNKNOWN_FIELD line 4, column 31: steps[0].pod.node_selectors: unknown field, did you mean nodeSelector?
    UNKNOWN_FIELD line 4, column 80: steps[0].pod.hostIPC: unknown field, did you mean hostIpc?
    UNKNOWN_FIELD line 4, column 96: steps[0].Env: unknown field, did you mean env?
    "#);
}

#[test]
fn snake_case_and_prefixed_names_of_proto_json_are_taken() {
    let text = r#"{"name": "a", "failure_mode": "FAILURE_MODE_FAIL_FAST", "max_parallelism": 2.0, "timeout": "1.5s", "steps": [
        {"name": "a", "image": "i", "run_if": "RUN_IF_ALWAYS", "working_dir": "/w", "pod": {"node_selector": {"a": "b"}, "affinity": null}}]}"#;
    let resolved = accepted(text);
    assert_eq!(resolved.failure_mode, crate::FailureMode::FailFast);
    assert_eq!(resolved.timeout, Some(crate::Millis(1500)));
    let spec = resolved.step_spec(0).expect("a");
    assert_eq!(spec.working_dir.as_deref(), Some("/w"));
    assert_eq!(spec.pod.node_selector["a"], "b");
}

#[test]
fn parameters_are_checked() {
    let text = "
name: a
parameters:
  - {name: N, type: NUMBER}
  - {name: S, default: x}
steps: [{name: a, image: i, args: [$(N), $(S)]}]
";
    let resolve = |values: &[(&str, Scalar)]| {
        let values = values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        parse(text).resolve(&values, &environment())
    };
    let bad = resolve(&[("N", "5".into()), ("T", "x".into())]).expect_err("refused");
    insta::assert_snapshot!(listed(&bad), @r#"
    WRONG_TYPE line 3, column 1: parameters.N: the parameter N is a NUMBER, the given value a STRING
    UNKNOWN_PARAMETER line 3, column 1: parameters.T: the pipeline declares no parameter T
    "#);
    insta::assert_snapshot!(listed(&resolve(&[]).expect_err("refused")), @r#"MISSING line 4, column 5: parameters[0]: the parameter N has no default: a value must be given"#);
    let good = resolve(&[("N", Scalar::Number(5.into()))]).expect("resolved");
    assert_eq!(good.step_spec(0).expect("a").args, ["5", "x"]);
}

#[test]
fn references_are_refused_where_nobody_expands_them() {
    let text = "
name: a
parameters: [{name: TAG, default: v1}]
defaults: {image: 'i:$(TGA)', workingDir: /$(FOLD)}
steps:
  - {name: a, args: ['$(HOME)', '$(WINDLASS_WORKSPACE)'], pod: {labels: {a: $(WINDLASS_STEP)}}}
  - {name: b, matrix: [{name: FOLD, values: [a, b]}], pod: {annotations: {a: '$$(X)'}}}
";
    insta::assert_snapshot!(refused(text), @r#"
    UNKNOWN_PARAMETER line 4, column 12: defaults.image: $(TGA) is not declared as a parameter, did you mean TAG?; write $$(TGA) for the text itself
    UNKNOWN_PARAMETER line 6, column 5: steps[0]: defaults refer to $(FOLD), which this step has neither as axis nor as parameter
    BAD_VALUE line 6, column 33: steps[0].args[1]: the pipeline has no workspace; write workspace: {} to have one
    UNKNOWN_PARAMETER line 6, column 74: steps[0].pod.labels.a: $(WINDLASS_STEP) is known only while the step runs: use it in command, args, env or a script
    "#);
}

#[test]
fn values_are_checked_where_they_land_for_every_instance() {
    let text = "
name: a
steps:
  - name: a
    image: i
    matrix: [{name: MEM, values: [1Gi, 2GB, 8Gi]}, {name: I, values: [1, 2, 3]}]
    args: [$(I)]
    pod: {resources: {requests: {memory: $(MEM)}, limits: {memory: 4Gi}}}
";
    insta::assert_snapshot!(refused(text), @r#"
    BAD_VALUE line 8, column 34: steps[0].pod.resources.requests.memory: `2GB` is no quantity; write Gi or G
    BAD_VALUE line 8, column 34: steps[0].pod.resources.requests.memory: the request 8Gi is above the limit 4Gi
    "#);
}

#[test]
fn a_matrix_is_a_product_whose_last_axis_changes_fastest() {
    let text = "
name: a
steps:
  - name: a
    image: i
    matrix: [{name: X, values: [a, b]}, {name: Y, values: [1, true, 0.5]}]
    args: [$(X)-$(Y)]
";
    let resolved = accepted(text);
    let args: Vec<String> = (0..6)
        .map(|i| resolved.step_spec(i).expect("step").args[0].clone())
        .collect();
    assert_eq!(args, ["a-1", "a-true", "a-0.5", "b-1", "b-true", "b-0.5"]);
    assert_eq!(resolved.step_spec(6), None);
}

#[test]
fn names_that_expansion_makes_ambiguous_are_refused() {
    let text = "
name: a
defaults: {image: i}
steps:
  - {name: train, matrix: [{name: X, values: [1]}]}
  - {name: train.0}
  - {name: train.1}
";
    insta::assert_snapshot!(refused(text), @r#"DUPLICATE line 6, column 6: steps[1].name: train.0 is also an instance of the matrix step train"#);
}

#[test]
fn files_stay_in_their_folder_and_below_the_limit() {
    let text = "
name: a
files:
  - {path: ../a, content: x}
  - {path: a, content: x}
  - {path: a/b, content: x}
  - {path: a, content: x, contentBase64: eA==}
  - {path: c, contentBase64: '***'}
steps: [{name: a, image: i}]
";
    insta::assert_snapshot!(refused(text), @r#"
    BAD_VALUE line 4, column 6: files[0].path: the path must not have empty, `.` or `..` parts
    CONFLICT line 6, column 6: files[2].path: a is both a file and a folder
    CONFLICT line 7, column 5: files[3]: a file has either content or contentBase64
    DUPLICATE line 7, column 6: files[3].path: the file a is given twice
    BAD_VALUE line 8, column 15: files[4].contentBase64: not base64
    "#);
    let mut parsed = parse("name: a\nfiles: [{path: a, content: x}]\nsteps: [{name: a, image: i}]");
    parsed.pipeline.files[0].set_bytes(vec![b'x'; (1 << 20) + 1]);
    let refusal = parsed
        .resolve(&ParameterValues::new(), &environment())
        .expect_err("too large");
    insta::assert_snapshot!(listed(&refusal), @r#"LIMIT line 2, column 1: files: files and scripts have 1048577 bytes together, more than 1048576"#);
}

#[test]
fn a_workspace_needs_a_volume_where_there_is_no_default() {
    let text = "name: a\nworkspace: {}\nsteps: [{name: a, image: i}]";
    let refusal = parse(text)
        .resolve(&ParameterValues::new(), &Environment::default())
        .expect_err("no volume");
    insta::assert_snapshot!(listed(&refusal), @r#"MISSING line 2, column 1: workspace.volume: name a volume here, since this installation has no default (--workspace-volume)"#);
    let text = "name: a\nworkspace: {volume: {emptydir: {}, name: x}}\nsteps: [{name: a, image: i}]";
    insta::assert_snapshot!(refused(text), @r#"
    UNKNOWN_FIELD line 2, column 22: workspace.volume.emptydir: unknown field, did you mean emptyDir?
    UNKNOWN_FIELD line 2, column 36: workspace.volume.name: the volume's name is set by Windlass
    "#);
}

#[test]
fn steps_without_own_settings_share_a_template() {
    let resolved = accepted("name: a\ndefaults: {image: i}\nsteps: [{name: a}, {name: b}, {name: c, image: j}]");
    assert_eq!(resolved.templates.len(), 2);
}

#[test]
fn e16_a_request_above_the_limit_is_refused_at_submission() {
    let text = "
name: a
defaults: {image: i, pod: {resources: {requests: {memory: 400Mi}}}}
steps: [{name: a, pod: {resources: {limits: {memory: 200Mi}}}}]
";
    insta::assert_snapshot!(refused(text), @r#"BAD_VALUE line 4, column 25: steps[0].pod.resources.requests.memory: the request 400Mi is above the limit 200Mi"#);
}

#[test]
fn e27_names_that_differ_only_in_case_and_punctuation_are_different_steps() {
    let text = "
name: a
defaults: {image: i}
steps: [{name: train_model}, {name: train__Model}, {name: train-model, upstream: [train_model, train__Model]}]
";
    let resolved = accepted(text);
    assert_eq!(resolved.upstream(2), [0, 1]);
}

#[test]
fn a_step_that_could_never_run_is_refused() {
    let text = "name: a\nsteps: [{name: a, image: i, runIf: FAILED}]";
    insta::assert_snapshot!(refused(text), @r#"BAD_VALUE line 2, column 29: steps[0].runIf: a step without upstream steps would never run: nothing can fail before it"#);
}

#[test]
fn i11_too_many_steps_or_dependencies_are_refused() {
    let limits = Limits {
        steps: 10,
        edges: 20,
        ..Limits::default()
    };
    let environment = Environment {
        limits,
        ..environment()
    };
    let check = |text: &str| {
        let refusal = parse(text).resolve(&ParameterValues::new(), &environment);
        listed(&refusal.expect_err("refused"))
    };
    let many = "name: a\nsteps: [{name: a, image: i, matrix: [{name: X, values: [1, 2, 3, 4]}, {name: Y, values: [1, 2, 3]}]}]";
    insta::assert_snapshot!(check(many), @r#"LIMIT line 2, column 1: steps: 12 steps after expansion are more than 10"#);
    let dense = "
name: a
defaults: {image: i, matrix: []}
steps:
  - {name: a, matrix: [{name: X, values: [1, 2, 3, 4, 5]}]}
  - {name: b, matrix: [{name: X, values: [1, 2, 3, 4, 5]}], upstream: [a]}
";
    insta::assert_snapshot!(check(dense), @r#"
    UNKNOWN_FIELD line 3, column 22: defaults.matrix: unknown field; fields here are image, command, args, script, env, workingDir, runIf, timeout, retries, lostContact, deadlines, terminationGrace, cluster, logs, acceptExitZeroWhenTerminated, pod
    LIMIT line 4, column 1: steps: 25 dependencies after expansion are more than 20; a step between the two sides needs far fewer
    "#);
}

fn step(name: String) -> Step {
    Step {
        name,
        template: StepTemplate {
            image: Some("i".to_owned()),
            command: vec!["run".to_owned(), "$(I)".to_owned()],
            ..StepTemplate::default()
        },
        ..Step::default()
    }
}

fn timed(pipeline: &Pipeline) -> (ResolvedPipeline, Duration) {
    let start = Instant::now();
    let resolved = resolve(pipeline, &ParameterValues::new(), &environment()).expect("resolved");
    (resolved, start.elapsed())
}

/// The bound is many times what it takes, also without optimisation: it finds what is quadratic, not what is a bit slower.
#[test]
fn a_hundred_thousand_steps_resolve_without_quadratic_work() {
    let chain = (0..100_000).map(|i| Step {
        upstream: if i == 0 {
            Vec::new()
        } else {
            vec![format!("s{}", i - 1)]
        },
        ..step(format!("s{i}"))
    });
    let written = Pipeline {
        name: "chain".to_owned(),
        steps: chain.collect(),
        ..Pipeline::default()
    };
    let (resolved, took) = timed(&written);
    assert_eq!((resolved.step_count(), resolved.templates.len()), (100_000, 1));
    assert!(took < Duration::from_secs(120), "{took:?}");

    let values = (0..100_000).map(|i| Scalar::Number(i.into())).collect();
    let matrix = Pipeline {
        name: "matrix".to_owned(),
        steps: vec![Step {
            matrix: vec![MatrixAxis {
                name: "I".to_owned(),
                values,
            }],
            ..step("s".to_owned())
        }],
        ..Pipeline::default()
    };
    let (resolved, took) = timed(&matrix);
    assert_eq!(resolved.step_spec(99_999).expect("last").command, ["run", "99999"]);
    assert!(resolved.encode().len() < 2_000_000);
    assert!(took < Duration::from_secs(120), "{took:?}");
}

//! References to Secrets are looked at before a run starts, and those that may not be used are refused: behaviours R8, R10, R11, E18, U8.

use std::collections::BTreeMap;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use windlass_api::convert::pipeline_to_proto;
use windlass_api::dispatch::v1 as dispatch;
use windlass_api::dispatch::v1::secret_answer::Outcome;
use windlass_api::dispatch::v1::secret_call::CallKind;
use windlass_api::pipeline::v1 as wire;
use windlass_api::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use windlass_api::run::v1 as run;
use windlass_pipeline::source;
use windlass_scheduler::{Config, ReferenceCheck};

use crate::executor::{Executor, Identity, Play};
use crate::support::{Scheduler, Stage, config, eventually, reason, submission};

/// Secrets that `windlass secret` has made, and one that others have made; both with these keys.
const MANAGED: &str = "warehouse";
const OF_OTHERS: &str = "registry";
const KEYS: [&str; 2] = ["password", "user"];

fn found(wanted: &dispatch::SecretWanted) -> dispatch::SecretSeen {
    let found = [MANAGED, OF_OTHERS].contains(&wanted.name.as_str());
    let has = |key: &String| found && KEYS.contains(&key.as_str());
    let missing_keys: Vec<_> = wanted.keys.iter().filter(|key| !has(key)).cloned().collect();
    dispatch::SecretSeen {
        name: wanted.name.clone(),
        found,
        managed: wanted.name == MANAGED,
        keys: match missing_keys.is_empty() || !found {
            true => Vec::new(),
            false => KEYS.map(str::to_owned).to_vec(),
        },
        missing_keys,
    }
}

/// Answers what is there.
fn looking(call: &dispatch::SecretCall) -> Option<Outcome> {
    let Some(CallKind::Lookup(lookup)) = &call.call_kind else {
        return None;
    };
    Some(Outcome::Looked(dispatch::SecretLooked {
        secrets: lookup.secrets.iter().map(found).collect(),
    }))
}

fn refusing(fault: dispatch::SecretFault, right: &str) -> Outcome {
    Outcome::Refusal(dispatch::SecretRefusal {
        fault: fault.into(),
        right: right.to_owned(),
        ..dispatch::SecretRefusal::default()
    })
}

/// A scheduler with an executor that answers so; steps named `bad…` fail.
async fn stage_with(
    change: impl FnOnce(&mut Config),
    answer: impl Fn(&dispatch::SecretCall) -> Option<Outcome> + Send + Sync + 'static,
) -> Stage {
    let data = tempfile::tempdir().expect("a folder");
    let mut config = config(data.path());
    change(&mut config);
    let executor = Executor::new(Identity::new(1), |step, _| match step.starts_with("bad") {
        true => Play::Fail(1),
        false => Play::Succeed,
    });
    let stage = Stage::with_executor(data, config, executor.with_secrets(answer)).await;
    welcomed(&stage.executor).await;
    stage
}

async fn welcomed(executor: &Executor) {
    eventually("the executor", || async {
        (!executor.seen().welcomes.is_empty()).then_some(())
    })
    .await;
}

fn parsed(text: &str) -> wire::Pipeline {
    pipeline_to_proto(&source::parse(text).into_pipeline().expect("a pipeline"))
}

/// One step with this variable.
fn with_value(value: &str) -> wire::Pipeline {
    parsed(&format!(
        "name: churn\nsteps: [{{name: s, image: i, env: [{{name: A, value: '{value}'}}]}}]\n"
    ))
}

async fn submit(scheduler: &Scheduler, id: &str, pipeline: wire::Pipeline) -> Result<run::Run, Status> {
    let submitted = scheduler.runs().submit_run(submission(id, pipeline)).await?;
    Ok(submitted.into_inner().run.expect("a run"))
}

/// Fields and descriptions of a refusal.
fn violations(status: &Status) -> Vec<(String, String)> {
    let violations = status.get_details_bad_request().expect("violations").field_violations;
    violations.into_iter().map(|one| (one.field, one.description)).collect()
}

const PIPELINE: &str = "
name: churn
defaults: {image: i, env: [{name: A, value: '{{warehouse.password}}'}]}
steps:
  - name: good
    pod: {envFrom: [{secretRef: {name: later, optional: true}}], imagePullSecrets: [registry]}
  - name: key
    env: [{name: B, value: '{{ warehouse.passwd }}'}]
  - name: secret
    pod:
      volumes: [{name: v, secret: {secretName: absent, items: [{key: k, path: p}]}}]
";

/// behaviours R8, R10, R11, U8
#[tokio::test]
async fn r10_r11_what_a_run_refers_to_must_be_there_before_it_starts() {
    let stage = stage_with(|_| {}, looking).await;
    let refused = submit(&stage.scheduler, "r1", parsed(PIPELINE))
        .await
        .expect_err("refused");
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::FailedPrecondition, "REFERENCES_MISSING")
    );
    let found = violations(&refused);
    let paths: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "pipeline.steps[1].env[0].value",
            "pipeline.steps[2].pod.volumes[0].secret.secretName"
        ]
    );
    assert_eq!(
        found[0].1,
        "Secret warehouse in namespace ml has no key passwd; it has password, user. `windlass secret put warehouse` adds one, and \
         --no-check-references starts the run all the same (SECRET_KEY_NOT_FOUND)"
    );
    assert!(
        found[1].1.starts_with("there is no Secret absent in namespace ml; "),
        "{found:?}"
    );
    assert!(found[1].1.ends_with("(SECRET_NOT_FOUND)"), "{found:?}");

    // One call has all of them, each once; what is optional need not be there.
    let calls = stage.executor.seen().secret_calls.clone();
    let [call] = calls.as_slice() else { panic!("{calls:?}") };
    let Some(CallKind::Lookup(lookup)) = &call.call_kind else {
        panic!("{call:?}")
    };
    let wanted = lookup.secrets.iter().map(|one| (one.name.clone(), one.keys.join(" ")));
    let expected = [("absent", "k"), ("registry", ""), ("warehouse", "passwd password")];
    let expected: BTreeMap<_, _> = expected.map(|(name, keys)| (name.to_owned(), keys.to_owned())).into();
    assert_eq!(
        (call.namespace.as_str(), wanted.collect::<BTreeMap<_, _>>()),
        ("ml", expected)
    );

    // Nothing was kept: the same id can be used once it is there. Who asks for it gets the run all the same.
    let validated = validated(&stage.scheduler, parsed(PIPELINE)).await;
    let codes: Vec<_> = validated
        .iter()
        .map(|one| (one.code.as_str(), one.path.as_str()))
        .collect();
    assert_eq!(
        codes,
        [
            ("SECRET_KEY_NOT_FOUND", "steps[1].env[0].value"),
            ("SECRET_NOT_FOUND", "steps[2].pod.volumes[0].secret.secretName"),
        ]
    );
    let all_the_same = run::SubmitRunRequest {
        skip_reference_check: true,
        ..submission("r1", parsed(PIPELINE))
    };
    let made = stage
        .scheduler
        .runs()
        .submit_run(all_the_same)
        .await
        .expect("accepted")
        .into_inner();
    assert!(made.created);
    // What was accepted stays accepted, also without asking for it once more.
    let again = stage
        .scheduler
        .runs()
        .submit_run(submission("r1", parsed(PIPELINE)))
        .await;
    assert!(!again.expect("known").into_inner().created);
    assert_eq!(stage.executor.seen().secret_calls.len(), 2);
    submit(&stage.scheduler, "r2", with_value("{{warehouse.user}}"))
        .await
        .expect("accepted");
}

async fn validated(scheduler: &Scheduler, pipeline: wire::Pipeline) -> Vec<wire::Violation> {
    let request = wire::ValidatePipelineRequest {
        namespace: "ml".to_owned(),
        pipeline: Some(pipeline),
        ..wire::ValidatePipelineRequest::default()
    };
    let answer = PipelineServiceClient::new(scheduler.channel())
        .validate_pipeline(request)
        .await;
    answer.expect("answers").into_inner().violations
}

/// behaviours R11: each of its levels.
#[tokio::test]
async fn r11_an_operator_says_how_far_references_are_looked_at() {
    let stage = stage_with(|config| config.check_references = ReferenceCheck::Secrets, looking).await;
    submit(&stage.scheduler, "r1", with_value("{{warehouse.passwd}}"))
        .await
        .expect("accepted");
    let refused = submit(&stage.scheduler, "r2", with_value("{{absent.passwd}}"))
        .await
        .expect_err("refused");
    assert_eq!(violations(&refused)[0].0, "pipeline.steps[0].env[0].value");
    let stage = stage_with(|config| config.check_references = ReferenceCheck::None, looking).await;
    submit(&stage.scheduler, "r1", with_value("{{absent.passwd}}"))
        .await
        .expect("accepted");
    assert_eq!(stage.executor.seen().secret_calls.len(), 0);
}

/// behaviours R11: what cannot be seen stops no run; the kubelet finds out.
#[tokio::test]
async fn r11_i3_a_run_starts_where_nobody_can_tell() {
    let data = tempfile::tempdir().expect("a folder");
    let scheduler = Scheduler::start(config(data.path())).await;
    submit(&scheduler, "r1", with_value("{{absent.passwd}}"))
        .await
        .expect("accepted without an executor");
    for (fault, right) in [
        (dispatch::SecretFault::RightMissing, "get secrets"),
        // What an executor answers that does not know the question.
        (dispatch::SecretFault::Unreachable, ""),
    ] {
        let stage = stage_with(|_| {}, move |_| Some(refusing(fault, right))).await;
        submit(&stage.scheduler, "r1", with_value("{{absent.passwd}}"))
            .await
            .expect("accepted");
        assert_eq!(stage.executor.seen().secret_calls.len(), 1);
    }
}

#[tokio::test]
async fn r11_each_cluster_is_asked_for_the_secrets_of_its_steps() {
    let data = tempfile::tempdir().expect("a folder");
    let scheduler = Scheduler::start(config(data.path())).await;
    let executors = [(1, "prod"), (2, "edge")].map(|(number, alias)| {
        let identity = Identity {
            cluster_uid: format!("uid-of-{alias}"),
            alias: alias.to_owned(),
            ..Identity::new(number)
        };
        let executor = Executor::new(identity, |_, _| Play::Succeed).with_secrets(looking);
        executor.spawn(&scheduler);
        executor
    });
    for executor in &executors {
        welcomed(executor).await;
    }
    let text = "
name: churn
cluster: prod
defaults: {image: i}
steps:
  - {name: a, env: [{name: A, value: '{{warehouse.user}}'}]}
  - {name: b, cluster: edge, env: [{name: A, value: '{{absent.user}}'}]}
  - {name: c, cluster: edge, env: [{name: A, value: '{{registry.user}}'}]}
";
    let refused = submit(&scheduler, "r1", parsed(text)).await.expect_err("refused");
    let [(path, message)] = violations(&refused).try_into().expect("one problem");
    assert_eq!(path, "pipeline.steps[1].env[0].value");
    assert!(
        message.starts_with("there is no Secret absent in namespace ml of cluster edge;"),
        "{message}"
    );
    let asked = executors.each_ref().map(|executor| {
        let seen = executor.seen();
        let names = seen.secret_calls.iter().map(|call| match &call.call_kind {
            Some(CallKind::Lookup(lookup)) => {
                let names: Vec<_> = lookup.secrets.iter().map(|one| one.name.clone()).collect();
                names.join(" ")
            }
            other => panic!("{other:?}"),
        });
        names.collect::<Vec<_>>()
    });
    assert_eq!(
        asked,
        [vec!["warehouse".to_owned()], vec!["absent registry".to_owned()]]
    );
}

/// behaviours R11, U4
#[tokio::test]
async fn r11_a_retry_looks_for_what_runs_again() {
    let stage = stage_with(|_| {}, looking).await;
    let text = "
name: churn
defaults: {image: i}
steps:
  - {name: a, env: [{name: A, value: '{{once.user}}'}]}
  - {name: bad, upstream: [a], env: [{name: A, value: '{{warehouse.user}}'}]}
";
    let request = run::SubmitRunRequest {
        skip_reference_check: true,
        ..submission("r1", parsed(text))
    };
    let submitted = stage.scheduler.runs().submit_run(request).await.expect("accepted");
    let failed = stage.ended(&submitted.into_inner().run.expect("a run")).await;
    let retry = |id: &str, from: &[&str]| run::RetryRunRequest {
        namespace: "ml".to_owned(),
        run: failed.name.clone(),
        request_id: id.to_owned(),
        from_steps: from.iter().map(|step| (*step).to_owned()).collect(),
        ..run::RetryRunRequest::default()
    };
    stage
        .scheduler
        .runs()
        .retry_run(retry("again", &[]))
        .await
        .expect("a's Secret is needed no more");
    let refused = stage
        .scheduler
        .runs()
        .retry_run(retry("all", &["a"]))
        .await
        .expect_err("refused");
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::FailedPrecondition, "REFERENCES_MISSING")
    );
    assert_eq!(
        violations(&refused)[0].0,
        "pipeline.steps[0].env[0].valueFrom.secretKeyRef.name"
    );
    let all_the_same = run::RetryRunRequest {
        skip_reference_check: true,
        ..retry("all", &["a"])
    };
    stage.scheduler.runs().retry_run(all_the_same).await.expect("accepted");
}

fn with_policy(policy: &str) -> impl FnOnce(&mut Config) {
    let policy = policy.to_owned();
    move |config| {
        let file = config.data_dir.join("policy.yaml");
        std::fs::write(&file, policy).expect("a file");
        config.policy = Some(file);
    }
}

/// behaviours E18, U15: what others have made in a namespace is not for everybody who submits there.
#[tokio::test]
async fn e18_secrets_of_windlass_may_be_used_and_those_of_others_as_the_policy_says() {
    let stage = stage_with(with_policy("namespaces: {ops: {secrets: {names: [reg*]}}}"), looking).await;
    submit(&stage.scheduler, "r1", with_value("{{warehouse.user}}"))
        .await
        .expect("accepted");
    for (id, value) in [("r2", "{{registry.user}}"), ("r3", "{{absent.user}}")] {
        let refused = submit(&stage.scheduler, id, with_value(value))
            .await
            .expect_err("refused");
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::InvalidArgument, "INVALID_PIPELINE")
        );
        let [(path, message)] = violations(&refused).try_into().expect("one problem");
        assert_eq!(path, "pipeline.steps[0].env[0].value");
        // Whether there is such a Secret is not told.
        let name = value.trim_start_matches('{').split('.').next().expect("a name");
        let expected = format!(
            "Secret {name} is not allowed in namespace ml; allowed: those that `windlass secret` has made. An operator allows more with \
             secrets.names in the scheduler's policy file (--policy) (NOT_ALLOWED)"
        );
        assert_eq!(message, expected);
    }
    // Not to look whether it is there does not mean that it may be used; nor does it when it is optional.
    let optional = "
name: churn
steps: [{name: s, image: i, pod: {envFrom: [{secretRef: {name: registry, optional: true}}]}}]
";
    let skipping = run::SubmitRunRequest {
        skip_reference_check: true,
        ..submission("r4", parsed(optional))
    };
    let refused = stage.scheduler.runs().submit_run(skipping).await.expect_err("refused");
    assert_eq!(
        violations(&refused)[0].0,
        "pipeline.steps[0].pod.envFrom[0].secretRef.name"
    );
    let in_ops = run::SubmitRunRequest {
        namespace: "ops".to_owned(),
        ..submission("r5", with_value("{{registry.user}}"))
    };
    stage.scheduler.runs().submit_run(in_ops).await.expect("accepted");
}

/// behaviours E18
#[tokio::test]
async fn e18_what_cannot_be_told_to_be_of_windlass_is_not_used() {
    let data = tempfile::tempdir().expect("a folder");
    let mut settings = config(data.path());
    with_policy("{}")(&mut settings);
    let scheduler = Scheduler::start(settings).await;
    let unknown = submit(&scheduler, "r1", with_value("{{warehouse.user}}"))
        .await
        .expect_err("nobody can tell");
    assert_eq!(
        (unknown.code(), reason(&unknown).as_str()),
        (Code::Unavailable, "SECRET_UNKNOWN")
    );
    assert!(unknown.get_details_retry_info().is_some());
    let none = parsed("name: churn\nsteps: [{name: s, image: i}]\n");
    submit(&scheduler, "r2", none).await.expect("accepted");

    let answer = |_: &dispatch::SecretCall| Some(refusing(dispatch::SecretFault::RightMissing, "get secrets"));
    let stage = stage_with(with_policy("{}"), answer).await;
    let refused = submit(&stage.scheduler, "r1", with_value("{{warehouse.user}}"))
        .await
        .expect_err("refused");
    let message = &violations(&refused)[0].1;
    let expected = "Whether it is one of those cannot be seen: the executor has no right to get secrets (NOT_ALLOWED)";
    assert!(message.ends_with(expected), "{message}");
}

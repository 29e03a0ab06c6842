//! Secrets that are kept in a namespace, and I8: values that went through every path are nowhere but in Kubernetes and in the step's
//! environment.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use windlass_api::run::v1::{RunState, StepState};
use windlass_api::secret::v1::secret_service_client::SecretServiceClient;
use windlass_api::secret::v1::{PutSecretMode, PutSecretRequest};
use windlass_tests::client::{steps, submit, watch_to_end};
use windlass_tests::deployment::{Deployment, Options, Part};
use windlass_tests::pipelines::from_json;
use windlass_tests::wait::until;

use crate::support::{Canaries, Said, checks, prints, windlass};

/// A key of the Secret of the test.
fn kept(key: &str) -> Value {
    json!({"secretKeyRef": {"name": "warehouse", "key": key}})
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_values_that_went_through_every_path_are_nowhere_but_in_kubernetes() {
    let deployment = Deployment::start(Options {
        talkative: true,
        ..Options::default()
    })
    .await;
    let own = tempfile::tempdir().expect("a folder");
    let mut canaries = Canaries(Vec::new());
    let mut said: Vec<Said> = Vec::new();
    let write = |name: &str, content: &str| {
        let path = own.path().join(name);
        std::fs::write(&path, content).expect("a file");
        path.display().to_string()
    };

    // From a file, from standard input, from an env file; created, changed, created or changed.
    let (first, from_file) = (canaries.new_one(), canaries.new_one());
    let (piped, from_env) = (canaries.new_one(), canaries.new_one());
    let file = format!("password={}", write("first", &first));
    said.push(windlass(
        &deployment,
        &["secret", "put", "warehouse", "--create-only", "--from-file", &file],
        b"",
    ));
    let file = format!("password={}", write("second", &from_file));
    let update = [
        "secret",
        "put",
        "warehouse",
        "--update-only",
        "--from-file",
        &file,
        "--from-stdin",
        "pin",
        "-o",
        "json",
    ];
    said.push(windlass(&deployment, &update, piped.as_bytes()));
    let env = write("env", &format!("# {}\nUSER={from_env}\n", canaries.new_one()));
    said.push(windlass(
        &deployment,
        &["secret", "put", "warehouse", "--env-file", &env, "-o", "yaml"],
        b"",
    ));
    assert!(said.iter().all(|said| said.status == 0), "{said:#?}");
    assert_eq!(
        said[0].out,
        "secret warehouse in namespace default is created; its keys: password\n"
    );

    // What is refused: by the command line, by the scheduler, by Kubernetes before and after it has looked.
    let refused = canaries.new_one();
    let broken_env = write("broken", &format!("USER=ana\n{refused}\n"));
    let large = format!("large={}", write("large", &refused.repeat(24_000)));
    for (args, expected) in [
        (
            &[
                "secret",
                "put",
                "warehouse",
                "--create-only",
                "--from-stdin",
                "password",
            ][..],
            "exists already",
        ),
        (
            &["secret", "put", "nothing", "--update-only", "--from-stdin", "password"],
            "no secret nothing",
        ),
        (
            &["secret", "put", "Ware_House", "--from-stdin", "password"],
            "DNS subdomain",
        ),
        (
            &["secret", "put", "warehouse", "--from-stdin", "pass word"],
            "is no key",
        ),
        (
            &["secret", "put", "warehouse", "--env-file", &broken_env],
            ":2: is no KEY=VALUE line",
        ),
        (
            &["secret", "put", "warehouse", "--from-stdin", "x", "--cluster", "absent"],
            "cluster absent",
        ),
        (
            &[
                "secret",
                "put",
                "warehouse",
                "--from-stdin",
                "x",
                "-n",
                "no-such-namespace",
            ],
            "no namespace",
        ),
        (
            &["secret", "put", "warehouse", "--from-literal", "x=y"],
            "not taken from the command line",
        ),
        (
            &["secret", "put", "warehouse", "x=y"],
            "not taken from the command line",
        ),
    ] {
        let refusal = windlass(&deployment, args, refused.as_bytes());
        assert!(refusal.notes.contains(expected), "{args:?}: {refusal:?}");
        assert!([2, 3].contains(&refusal.status), "{args:?}: {refusal:?}");
        said.push(refusal);
    }
    let fills = windlass(&deployment, &["secret", "put", "large", "--from-file", &large], b"");
    assert_eq!(fills.status, 0, "{fills:?}");
    let overflow = ["secret", "put", "large", "--from-stdin", "more"];
    let overflow = windlass(&deployment, &overflow, refused.repeat(24_000).as_bytes());
    assert!(overflow.notes.contains("Too long"), "{overflow:?}");
    said.extend([fills, overflow]);
    // And by clients that are not ours.
    let mut client = SecretServiceClient::new(deployment.channel(Part::Scheduler));
    let mut told = Vec::new();
    for (name, key, mode) in [
        ("Ware_House", "a", PutSecretMode::Upsert),
        ("warehouse", "a b", PutSecretMode::Upsert),
        ("absent", "a", PutSecretMode::Update),
    ] {
        let request = PutSecretRequest {
            name: name.to_owned(),
            mode: mode.into(),
            data: BTreeMap::from([(key.to_owned(), refused.clone().into_bytes())]),
            ..PutSecretRequest::default()
        };
        told.push(format!("{:?}", client.put_secret(request).await.expect_err("refused")));
    }

    // A step gets them by reference.
    let go = own.path().join("go");
    let pipeline = from_json(json!({
        "name": "uses",
        "defaults": {"image": "busybox:1.36"},
        "steps": [
            checks("file", "DB_PASSWORD", kept("password"), &from_file, &go),
            checks("pipe", "PIN", kept("pin"), &piped, &go),
            checks("env", "DB_USER", kept("USER"), &from_env, &go),
            prints("prints", kept("password")),
        ],
    }));
    let run = submit(&deployment, &pipeline, "uses").await;
    until("the steps run", async || {
        let steps = steps(&deployment, &run.name).await;
        let running = steps.iter().filter(|step| step.state() == StepState::Running).count();
        (running == 3).then_some(()).ok_or_else(|| format!("{steps:?}"))
    })
    .await;
    assert_eq!(canaries.processes(&deployment), Vec::<String>::new());
    std::fs::write(&go, "").expect("a file");
    let ended = watch_to_end(&deployment, &run.name).await;
    assert_eq!(
        ended.state(),
        RunState::Succeeded,
        "{:?}",
        steps(&deployment, &run.name).await
    );
    told.push(format!("{ended:?}"));
    for args in [
        &["get", &run.name, "-o", "yaml"][..],
        &["get", &run.name, "file", "-o", "json"],
        &["get", &run.name, "--pipeline"],
        &["logs", &run.name],
        &["explain", &run.name],
        &["watch", &run.name],
        &["list", "-o", "json"],
        &["secret", "list"],
        &["secret", "list", "-o", "json"],
        &["secret", "delete", "warehouse"],
        &["secret", "delete", "warehouse"],
    ] {
        said.push(windlass(&deployment, args, b""));
    }
    let printed = said.iter().find(|said| said.out.contains("| it is")).expect("the logs");
    let lines: Vec<&str> = printed.out.lines().filter(|line| line.contains("***")).collect();
    assert_eq!(lines.len(), 4, "every line with a value is there: {printed:?}");
    assert!(lines.iter().any(|line| line.ends_with("| it is ***.")), "{lines:?}");
    assert!(lines.iter().any(|line| line.ends_with(" and more")), "{lines:?}");
    let listed = &said[said.len() - 4];
    assert!(listed.out.contains("USER, password, pin"), "{listed:?}");
    let [deleted, again] = &said[said.len() - 2..] else {
        panic!("the last two")
    };
    assert_eq!((deleted.status, again.status), (0, 2), "{deleted:?} {again:?}");
    assert!(again.notes.contains("no secret warehouse"), "{again:?}");

    canaries.are_in_kubernetes_alone(&deployment).await;
    assert!(
        deployment.log(Part::Executor).contains("call about a secret refused"),
        "secrets are logged about"
    );
    canaries.are_not_in(said.iter().map(|said| format!("{said:?}")).chain(told));
}

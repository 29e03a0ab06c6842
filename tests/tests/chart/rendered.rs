//! What the chart becomes is safe unless somebody asks for less, and a value that cannot work is refused with its path.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use windlass_executor::checks::rights::{RIGHTS, Scope};
use windlass_tests::chart;
use windlass_tests::real_cluster::RealCluster;

/// Namespaces of the rendered release and of its steps.
const HOME: &str = "windlass";
const STEPS: &str = "team";

/// A policy.
const POLICY: &str =
    r#"policy={"defaults":{"secrets":{"names":["team-*"]}},"namespaces":{"team":{"privileged":true}}}"#;

/// Value sets that people use, as arguments of helm.
const VARIANTS: &[&[&str]] = &[
    &[],
    &[
        "--set",
        "tls.source=secret,tls.secrets.scheduler=a,tls.secrets.executor=b,tls.secrets.logRelay=c",
    ],
    &[
        "--set",
        "access.source=secret,access.secrets.access=a,access.secrets.executor=b,access.secrets.logRelay=c",
    ],
    &["--set", "tls.source=certManager,tls.issuerRef.name=windlass"],
    &["--set", "tls.enabled=false,insecure=true"],
    &[
        "--set",
        "metrics.port=9090,metrics.annotations=true,metrics.podMonitor.enabled=true,networkPolicy.enabled=true",
    ],
    &[
        "--set",
        "networkPolicy.enabled=true",
        "--set-json",
        r#"networkPolicy.clients=[{"namespaceSelector":{}}]"#,
    ],
    &["--set", "hostNetwork.enabled=true,executor.replicas=1"],
    &["--set", "secrets.manage=false"],
    &[
        "--set",
        "logRelay.replicas=2,logRelay.archive.url=s3://logs/windlass,logRelay.archive.secret=store,logRelay.archive.env.AWS_REGION=eu-central-1",
        "--set-json",
        r#"logRelay.serviceAccount={"annotations":{"eks.amazonaws.com/role-arn":"arn:aws:iam::1:role/logs"}}"#,
    ],
    &[
        "--set",
        "logRelay.replicas=3,executor.replicas=5,executor.goneNodeIsDead=true,scheduler.namespaceLimit=10",
    ],
    &[
        "--set-json",
        r#"workspaceVolume={"persistentVolumeClaim":{"claimName":"team"}}"#,
    ],
    &["--set-json", POLICY],
    &[
        "--set",
        "scheduler.persistence.existingClaim=a,logRelay.persistence.existingClaim=b,scheduler.service.type=LoadBalancer",
    ],
    &[
        "--set",
        "image.digest=sha256:0000000000000000000000000000000000000000000000000000000000000000,serviceAccount.name=own",
    ],
];

fn render(args: &[&str]) -> Result<String, String> {
    let base = ["it", "--namespace", HOME, "--set", "stepNamespaces={team}"];
    let output = chart::template(&[&base, args].concat());
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).expect("manifests are text")),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn objects(manifests: &str) -> Vec<Value> {
    let documents = manifests.split("\n---").filter(|text| text.contains("kind:"));
    documents
        .map(|text| {
            serde_saphyr::from_str(text.trim_start_matches("---")).unwrap_or_else(|error| panic!("{error}\n{text}"))
        })
        .collect()
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().expect("a kind")
}

fn texts<'a>(value: &'a Value, of: &str) -> Vec<&'a str> {
    let list = value[of].as_array().unwrap_or_else(|| panic!("no {of}: {value}"));
    list.iter().map(|text| text.as_str().expect("a text")).collect()
}

/// Every string in a value.
fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(list) => list.iter().flat_map(strings).collect(),
        Value::Object(fields) => fields.values().flat_map(strings).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

#[test]
fn no_pod_runs_as_root_or_may_become_it() {
    for variant in VARIANTS {
        let objects = objects(&render(variant).expect("renders"));
        let pods: Vec<_> = objects
            .iter()
            .filter(|object| !object["spec"]["template"].is_null())
            .collect();
        assert_eq!(pods.len(), 3, "{variant:?}");
        for object in pods {
            let pod = &object["spec"]["template"]["spec"];
            let context = &pod["securityContext"];
            assert_eq!(context["runAsNonRoot"], json!(true), "{object}");
            assert_ne!(context["runAsUser"], json!(0), "{object}");
            assert_eq!(context["seccompProfile"], json!({"type": "RuntimeDefault"}), "{object}");
            let host = variant.iter().any(|values| values.contains("hostNetwork.enabled=true"));
            assert_eq!(pod["hostNetwork"] == json!(true), host, "{object}");
            assert!(pod["hostPID"].is_null() && pod["hostIPC"].is_null(), "{object}");
            let executor = object["metadata"]["name"] == json!("it-windlass-executor");
            assert_eq!(pod["automountServiceAccountToken"], json!(executor), "{object}");
            let identity = variant.iter().any(|values| values.contains("logRelay.serviceAccount"));
            let relay = identity && object["metadata"]["name"] == json!("it-windlass-log-relay");
            assert_eq!(pod["serviceAccountName"].is_null(), !executor && !relay, "{object}");
            for container in pod["containers"].as_array().expect("containers") {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], json!(false), "{object}");
                assert_eq!(context["readOnlyRootFilesystem"], json!(true), "{object}");
                assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}), "{object}");
                assert!(context["privileged"].is_null(), "{object}");
                for amount in ["requests", "limits"] {
                    assert!(!container["resources"][amount]["memory"].is_null(), "{object}");
                }
                for probe in ["readinessProbe", "livenessProbe"] {
                    assert!(!container[probe].is_null(), "{object}");
                }
            }
            for volume in pod["volumes"].as_array().expect("volumes") {
                assert!(volume["hostPath"].is_null(), "{object}");
            }
        }
    }
}

/// behaviours U15
#[test]
fn rights_name_what_they_are_for_and_only_the_executor_has_them() {
    for variant in VARIANTS {
        let objects = objects(&render(variant).expect("renders"));
        let account = match variant.iter().any(|values| values.contains("serviceAccount.name=own")) {
            true => "own",
            false => "it-windlass-executor",
        };
        let (mut roles, mut bindings, mut secret_rules) = (0, 0, 0);
        for object in &objects {
            match kind(object) {
                "ClusterRole" | "Role" => {
                    roles += 1;
                    for rule in object["rules"].as_array().expect("rules") {
                        let (verbs, resources) = (texts(rule, "verbs"), texts(rule, "resources"));
                        let all = [verbs.clone(), resources.clone(), texts(rule, "apiGroups")].concat();
                        assert!(all.iter().all(|text| !text.contains('*')), "{rule}");
                        assert_eq!(texts(rule, "apiGroups"), [""], "{rule}");
                        if resources.iter().any(|resource| resource.starts_with("secrets")) {
                            secret_rules += 1;
                            assert_eq!(kind(object), "Role", "{rule}");
                            assert_eq!(resources, ["secrets"], "{rule}");
                            assert_eq!(verbs, ["create", "get", "patch", "list", "delete"], "{rule}");
                        }
                        if kind(object) == "ClusterRole" {
                            assert!(
                                verbs.iter().all(|verb| ["get", "list", "watch"].contains(verb)),
                                "{rule}"
                            );
                        }
                    }
                }
                "ClusterRoleBinding" | "RoleBinding" => {
                    bindings += 1;
                    assert_ne!(object["roleRef"]["name"], json!("cluster-admin"), "{object}");
                    let expected = json!([{"kind": "ServiceAccount", "name": account, "namespace": HOME}]);
                    assert_eq!(object["subjects"], expected, "{object}");
                    let in_team = object["metadata"]["namespace"] == json!(STEPS);
                    assert_eq!(kind(object) == "RoleBinding", in_team, "{object}");
                }
                _ => {}
            }
        }
        assert_eq!((roles, bindings), (2, 2), "{variant:?}");
        let managed = !variant.iter().any(|values| values.contains("secrets.manage=false"));
        assert_eq!(secret_rules, usize::from(managed), "{variant:?}");
    }
}

/// behaviours V8
#[test]
fn the_rights_that_are_checked_are_those_that_the_chart_gives() {
    for variant in VARIANTS {
        let managed = !variant.iter().any(|values| values.contains("secrets.manage=false"));
        let objects = objects(&render(variant).expect("renders"));
        for (role, scope) in [("ClusterRole", Scope::Cluster), ("Role", Scope::Namespace)] {
            let given: BTreeSet<_> = objects
                .iter()
                .filter(|object| kind(object) == role)
                .flat_map(|object| object["rules"].as_array().expect("rules"))
                .flat_map(|rule| {
                    let resources = texts(rule, "resources").into_iter();
                    resources.flat_map(|resource| texts(rule, "verbs").into_iter().map(move |verb| (verb, resource)))
                })
                .collect();
            let rights = RIGHTS.iter().filter(|right| right.scope == scope);
            let checked: BTreeSet<_> = rights
                .filter(|right| managed || !right.optional)
                .map(|right| (right.verb, right.resource))
                .collect();
            assert_eq!(given, checked, "{role} of {variant:?}");
        }
    }
}

#[test]
fn i8_tokens_and_keys_are_in_secrets_and_nowhere_else() {
    let objects = objects(&render(&[]).expect("renders"));
    let secrets: Vec<_> = objects.iter().filter(|object| kind(object) == "Secret").collect();
    let values: Vec<&str> = secrets.iter().flat_map(|secret| strings(&secret["data"])).collect();
    assert_eq!(
        secrets.len(),
        8,
        "an authority, three certificates, three tokens, the access file"
    );
    for object in objects.iter().filter(|object| kind(object) != "Secret") {
        for text in strings(object) {
            assert!(!values.contains(&text), "{object}");
        }
    }
    // One service holds neither the other's key nor the authority's.
    for object in objects.iter().filter(|object| !object["spec"]["template"].is_null()) {
        let volumes = &object["spec"]["template"]["spec"]["volumes"];
        let named = |secret: &str| strings(volumes).contains(&secret);
        assert!(
            !named("it-windlass-ca") && !named("it-windlass-admin-token"),
            "{object}"
        );
        let name = object["metadata"]["name"].as_str().expect("a name");
        for other in ["scheduler", "executor", "log-relay"] {
            let own = name == format!("it-windlass-{other}");
            assert_eq!(named(&format!("it-windlass-{other}-tls")), own, "{object}");
        }
    }
}

/// behaviours E18, U15
#[test]
fn the_scheduler_is_given_the_policy_and_starts_anew_when_it_changes() {
    let scheduler = |values: &[&str]| {
        let objects = objects(&render(values).expect("renders"));
        let found = |wanted: &str| {
            objects
                .iter()
                .find(|object| kind(object) == wanted && object["metadata"]["name"] != "it")
                .cloned()
        };
        let named = objects
            .iter()
            .find(|object| kind(object) == "StatefulSet" && object["metadata"]["name"] == "it-windlass-scheduler");
        (named.expect("a scheduler").clone(), found("ConfigMap"))
    };
    let (plain, none) = scheduler(&[]);
    assert!(
        none.is_none() && !strings(&plain).iter().any(|text| text.contains("policy")),
        "{plain}"
    );
    let (with, map) = scheduler(&["--set-json", POLICY]);
    let map = map.expect("a config map");
    let text = map["data"]["policy.yaml"].as_str().expect("a text");
    let policy: Value = serde_saphyr::from_str(text).expect("yaml");
    assert_eq!(
        policy,
        serde_json::from_str::<Value>(POLICY.trim_start_matches("policy=")).expect("json")
    );
    let pod = &with["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert!(
        texts(container, "args").contains(&"--policy=/etc/windlass/policy/policy.yaml"),
        "{container}"
    );
    let mount = json!({"name": "policy", "mountPath": "/etc/windlass/policy", "readOnly": true});
    assert!(
        container["volumeMounts"].as_array().expect("mounts").contains(&mount),
        "{container}"
    );
    let volume = json!({"name": "policy", "configMap": {"name": map["metadata"]["name"]}});
    assert!(pod["volumes"].as_array().expect("volumes").contains(&volume), "{pod}");
    let mark = |object: &Value| object["spec"]["template"]["metadata"]["annotations"]["windlass.dev/policy"].clone();
    let (other, _) = scheduler(&["--set-json", r#"policy={"defaults":{"privileged":true}}"#]);
    assert!(mark(&plain).is_null() && !mark(&with).is_null() && mark(&with) != mark(&other));
}

/// behaviours U13
#[test]
fn retention_and_webhooks_reach_the_scheduler() {
    let container = |values: &[&str]| {
        let objects = objects(&render(values).expect("renders"));
        let named = objects
            .iter()
            .find(|object| kind(object) == "StatefulSet" && object["metadata"]["name"] == "it-windlass-scheduler");
        named.expect("a scheduler")["spec"]["template"]["spec"].clone()
    };
    let plain = container(&[]).to_string();
    assert!(
        !plain.contains("--run-retention") && !plain.contains("webhooks"),
        "{plain}"
    );
    let pod = container(&["--set", "scheduler.runRetention=12h,scheduler.webhooks.secret=ours"]);
    let scheduler = &pod["containers"][0];
    let args = texts(scheduler, "args");
    assert!(args.contains(&"--run-retention=12h"), "{args:?}");
    assert!(
        args.contains(&"--webhooks=/etc/windlass/webhooks/webhooks.yaml"),
        "{args:?}"
    );
    let mount = json!({"name": "webhooks", "mountPath": "/etc/windlass/webhooks", "readOnly": true});
    assert!(scheduler["volumeMounts"].as_array().expect("mounts").contains(&mount));
    let volumes = pod["volumes"].as_array().expect("volumes").iter();
    let secrets: Vec<_> = volumes
        .filter(|volume| volume["name"] == "webhooks")
        .map(|volume| volume["secret"]["secretName"].as_str())
        .collect();
    assert_eq!(secrets, [Some("ours")], "{pod}");
}

#[test]
fn the_relays_are_given_their_archive_and_its_secret_by_name_alone() {
    let identity = r#"logRelay.serviceAccount={"annotations":{"iam.gke.io/gcp-service-account":"logs"}}"#;
    let archive =
        "logRelay.archive.url=s3://logs/windlass,logRelay.archive.secret=store,logRelay.archive.env.AWS_REGION=eu";
    let objects = objects(&render(&["--set", archive, "--set-json", identity]).expect("renders"));
    let named = |of: &str| {
        let mut found = objects.iter().filter(|object| kind(object) == of);
        found
            .find(|object| object["metadata"]["name"] == "it-windlass-log-relay")
            .expect("there")
    };
    let pod = &named("StatefulSet")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert!(
        texts(container, "args").contains(&"--archive=s3://logs/windlass"),
        "{container}"
    );
    assert_eq!(
        container["envFrom"],
        json!([{"secretRef": {"name": "store"}}]),
        "{container}"
    );
    let region = json!({"name": "AWS_REGION", "value": "eu"});
    assert!(
        container["env"].as_array().expect("env").contains(&region),
        "{container}"
    );
    let account = named("ServiceAccount");
    assert_eq!(pod["serviceAccountName"], account["metadata"]["name"]);
    assert_eq!(
        account["metadata"]["annotations"]["iam.gke.io/gcp-service-account"],
        json!("logs")
    );
    assert_eq!(account["automountServiceAccountToken"], json!(false));
}

#[test]
fn i9_values_that_cannot_work_are_refused_with_their_path() {
    for (values, expected) in [
        (
            "executor.replica=2",
            "'/executor': additional properties 'replica' not allowed",
        ),
        ("stepNamespaces={A_}", "/stepNamespaces/0"),
        (
            "stepNamespaces={windlass}",
            "stepNamespaces: windlass is the release's own namespace",
        ),
        ("tls.source=own", "'generated', 'secret', 'certManager'"),
        ("tls.enabled=false", "tls.enabled: tokens would travel in plain text"),
        ("tls.source=secret", "tls.secrets.scheduler: with tls.source secret"),
        (
            "tls.source=certManager",
            "tls.issuerRef.name: with tls.source certManager",
        ),
        (
            "access.source=secret",
            "access.secrets.access: with access.source secret",
        ),
        ("executor.port=0", "/executor/port"),
        ("logRelay.archive.url=s3://logs?key=1", "/logRelay/archive/url"),
        ("logRelay.archive.url=ftp://logs", "/logRelay/archive/url"),
        (
            "hostNetwork.enabled=true",
            "executor.replicas: must be 1 with hostNetwork",
        ),
        ("metrics.podMonitor.enabled=true", "metrics.port: must not be 0"),
        ("access.entries[0].name=ana", "/access/entries/0"),
        ("logging.format=xml", "/logging/format"),
        ("scheduler.runRetention=long", "/scheduler/runRetention"),
        ("secrets.manage=maybe", "/secrets/manage"),
        (
            "policy.defaults.serviceAcounts={a}",
            "'/policy/defaults': additional properties 'serviceAcounts' not allowed",
        ),
        (
            "policy.namespaces.team.hostPaths[0].path=data",
            "/policy/namespaces/team/hostPaths/0/path",
        ),
    ] {
        let problem = render(&["--set", values]).expect_err(values);
        assert!(problem.contains(expected), "{values}: {problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_api_server_takes_what_is_rendered() {
    let cluster = RealCluster::of_environment();
    let (home, team) = (
        cluster.namespace("chart-home").await,
        cluster.namespace("chart-team").await,
    );
    let mut lint = chart::program("helm");
    let output = lint
        .args(["lint", "--strict"])
        .arg(chart::folder())
        .output()
        .expect("helm runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    for variant in VARIANTS {
        let manifests = render(variant).expect("renders");
        let known = |object: &Value| !["Certificate", "PodMonitor"].contains(&kind(object));
        let mut objects: Vec<_> = objects(&manifests).into_iter().filter(known).collect();
        for object in &mut objects {
            let namespace = match object["metadata"]["namespace"].as_str() {
                Some(HOME) => &home.name,
                Some(STEPS) => &team.name,
                Some(other) => panic!("{other}"),
                None => continue,
            };
            object["metadata"]["namespace"] = json!(namespace);
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        chart::try_on(&cluster.kubeconfig(), &list.to_string());
    }
    home.delete().await;
    team.delete().await;
}

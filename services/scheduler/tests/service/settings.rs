//! Pod settings from the pipeline file to the pod, at the public API: what is refused at submission, and the pods exactly as they would be
//! made.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use windlass_api::convert::pipeline_to_proto;
use windlass_api::pipeline::v1 as wire;
use windlass_api::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use windlass_pipeline::source;

use crate::executor::Play;
use crate::support::{Stage, config, eventually};

/// A pod as the API server would get it, and where its values came from.
pub(crate) struct Rendered {
    pub(crate) pod: Value,
    origins: BTreeMap<String, String>,
}

impl Rendered {
    pub(crate) fn spec(&self) -> &Value {
        &self.pod["spec"]
    }

    pub(crate) fn main(&self) -> &Value {
        let containers = self.spec()["containers"].as_array().expect("containers");
        containers.iter().find(|one| one["name"] == "main").expect("main")
    }

    pub(crate) fn origin(&self, path: &str) -> &str {
        self.origins.get(path).map_or("", String::as_str)
    }
}

/// A scheduler whose executor serves a cluster that uses images.
async fn stage() -> Stage {
    with_requests(&[]).await
}

pub(crate) async fn with_requests(requests: &[&str]) -> Stage {
    let data = tempfile::tempdir().expect("a folder");
    let config = windlass_scheduler::Config {
        default_requests: requests.iter().map(|text| (*text).to_owned()).collect(),
        ..config(data.path())
    };
    let stage = Stage::with(data, config, |_, _| Play::Hold).await;
    eventually("the executor", || async {
        (!stage.executor.seen().welcomes.is_empty()).then_some(())
    })
    .await;
    stage
}

/// A pipeline of one step `s` with these fields beside its name.
fn one(step: &str) -> wire::Pipeline {
    let text = format!("name: churn\ndefaults: {{image: churn:v3}}\nsteps:\n  - name: s\n{step}");
    let pipeline = source::parse(&text).into_pipeline();
    pipeline_to_proto(&pipeline.expect("a pipeline"))
}

pub(crate) async fn rendered(stage: &Stage, pipeline: wire::Pipeline) -> Rendered {
    let mut pipelines = PipelineServiceClient::new(stage.scheduler.channel());
    let request = wire::RenderPipelineRequest {
        namespace: "ml".to_owned(),
        pipeline: Some(pipeline),
        ..wire::RenderPipelineRequest::default()
    };
    let mut stream = pipelines.render_pipeline(request).await.expect("rendered").into_inner();
    let first = stream.message().await.expect("no error").expect("a pod");
    Rendered {
        pod: serde_json::from_str(&first.pod_json).expect("json"),
        origins: first.provenance.into_iter().map(|one| (one.path, one.origin)).collect(),
    }
}

/// Codes and paths of what is refused.
async fn refused(stage: &Stage, pipeline: wire::Pipeline) -> Vec<String> {
    let mut pipelines = PipelineServiceClient::new(stage.scheduler.channel());
    let request = wire::ValidatePipelineRequest {
        namespace: "ml".to_owned(),
        pipeline: Some(pipeline),
        ..wire::ValidatePipelineRequest::default()
    };
    let response = pipelines
        .validate_pipeline(request)
        .await
        .expect("answers")
        .into_inner();
    let lines = response
        .violations
        .iter()
        .map(|one| format!("{} {}", one.code, one.path));
    lines.collect()
}

/// behaviours S6, F3, U10
#[tokio::test]
async fn ps1_ps2_ps3_ps13_a_pod_is_placed_where_its_settings_say() {
    let stage = stage().await;
    let settings = "
    pod:
      nodeSelector: {gpu: a100}
      affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [
        {matchExpressions: [{key: zone, operator: In, values: [a, b]}]}]}}}
      tolerations: [{key: nvidia.com/gpu, operator: Exists}]
      schedulerName: volcano
      priorityClassName: high
      runtimeClassName: gvisor
";
    let made = rendered(&stage, one(settings)).await;
    let spec = made.spec();
    assert_eq!(spec["nodeSelector"], json!({"gpu": "a100"}));
    let terms =
        &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    assert_eq!(terms[0]["matchExpressions"][0]["values"], json!(["a", "b"]));
    assert_eq!(
        spec["tolerations"],
        json!([{"key": "nvidia.com/gpu", "operator": "Exists"}])
    );
    assert_eq!(spec["schedulerName"], "volcano");
    assert_eq!(spec["priorityClassName"], "high");
    assert_eq!(spec["runtimeClassName"], "gvisor");
    assert_eq!(made.origin("pod.nodeSelector.gpu"), "STEP");
    let wrong = "
    pod:
      nodeSelector: {gpu: 'a 100'}
      affinity: {nodeAffinity: {required: {}}}
      tolerations: [{operator: Equals}]
      schedulerName: My Scheduler
";
    let mut found = refused(&stage, one(wrong)).await;
    found.sort();
    assert_eq!(
        found,
        [
            "BAD_VALUE steps[0].pod.nodeSelector.gpu",
            "BAD_VALUE steps[0].pod.schedulerName",
            "BAD_VALUE steps[0].pod.tolerations[0].key",
            "BAD_VALUE steps[0].pod.tolerations[0].operator",
            "UNKNOWN_FIELD steps[0].pod.affinity.nodeAffinity.required",
        ]
    );
}

#[tokio::test]
async fn ps4_resources_take_numbers_and_either_half() {
    let stage = stage().await;
    let limits = rendered(
        &stage,
        one("    pod: {resources: {limits: {nvidia.com/gpu: 1, cpu: 0.5, memory: 2Gi}}}"),
    )
    .await;
    assert_eq!(
        limits.main()["resources"],
        json!({"limits": {"nvidia.com/gpu": "1", "cpu": "0.5", "memory": "2Gi"}})
    );
    let requests = rendered(&stage, one("    pod: {resources: {requests: {cpu: 1}}}")).await;
    assert_eq!(requests.main()["resources"], json!({"requests": {"cpu": "1"}}));
    let found = refused(
        &stage,
        one("    pod: {resources: {limits: {memory: 4GB, nvidia.com/gpu: 0.5}}}"),
    )
    .await;
    assert_eq!(
        found,
        [
            "BAD_VALUE steps[0].pod.resources.limits.memory",
            "BAD_VALUE steps[0].pod.resources.limits.nvidia.com/gpu",
        ]
        .map(|line| line.replace(".nvidia.com/gpu", "[\"nvidia.com/gpu\"]"))
    );
}

/// behaviours N9
#[tokio::test]
async fn ps5_ps10_labels_and_annotations_are_the_users_beside_those_of_the_system() {
    let stage = stage().await;
    let made = rendered(
        &stage,
        one("    pod: {labels: {team: ml, acme.com/cost: a_b}, annotations: {acme.com/note: 'any text'}}"),
    )
    .await;
    let metadata = &made.pod["metadata"];
    assert_eq!(metadata["labels"]["team"], "ml");
    assert_eq!(metadata["labels"]["acme.com/cost"], "a_b");
    assert_eq!(metadata["labels"]["windlass.dev/step"], "s");
    assert_eq!(metadata["annotations"]["acme.com/note"], "any text");
    assert_eq!(metadata["annotations"]["windlass.dev/pipeline"], "churn");
    let found = refused(
        &stage,
        one("    pod: {labels: {run: x, pipeline: x, windlass.dev/step: x}, annotations: {windlass.dev/run: x}}"),
    )
    .await;
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found.iter().all(|line| line.starts_with("RESERVED ")), "{found:?}");
}

#[tokio::test]
async fn ps6_ps7_volumes_are_added_and_mounted() {
    let stage = stage().await;
    let settings = "
    script: ls
    pod:
      volumes: [{name: data, persistentVolumeClaim: {claimName: team}}, {name: scratch, emptyDir: {sizeLimit: 1Gi}}]
      volumeMounts: [{name: data, mountPath: /data, readOnly: true}]
";
    let made = rendered(&stage, one(settings)).await;
    let names: Vec<&str> = made.spec()["volumes"]
        .as_array()
        .expect("volumes")
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    assert_eq!(names, ["data", "scratch", "windlass-files"]);
    assert_eq!(made.spec()["volumes"][1]["emptyDir"], json!({"sizeLimit": "1Gi"}));
    assert_eq!(
        made.main()["volumeMounts"][0],
        json!({"name": "data", "mountPath": "/data", "readOnly": true})
    );
    let found = refused(
        &stage,
        one("    pod: {volumeMounts: [{name: data, mountPath: /data}], volumes: [{name: x, hostpath: {path: /}}]}"),
    )
    .await;
    assert_eq!(
        found,
        [
            "UNKNOWN_FIELD steps[0].pod.volumes[0].hostpath",
            "BAD_VALUE steps[0].pod.volumeMounts",
        ]
    );
}

/// behaviours E42, X18: rights are given by name, in one spelling, and none by default.
#[tokio::test]
async fn s5_ps8_rights_of_a_pod_are_those_that_were_asked_for() {
    let stage = stage().await;
    let bare = rendered(&stage, one("    command: ['true']")).await;
    assert_eq!(
        bare.main()["securityContext"],
        json!({"allowPrivilegeEscalation": false})
    );
    assert_eq!(
        bare.spec()["securityContext"],
        json!({"seccompProfile": {"type": "RuntimeDefault"}})
    );
    assert_eq!(bare.spec().get("hostIPC"), None);
    assert_eq!(bare.origin("pod.privileged"), "BUILT_IN");
    let asked = rendered(&stage, one("    pod: {privileged: true, hostIpc: true}")).await;
    assert_eq!(asked.main()["securityContext"], json!({"privileged": true}));
    assert_eq!(asked.spec()["hostIPC"], true);
    let typed = rendered(
        &stage,
        one("    pod: {securityContext: {runAsUser: 1000, capabilities: {drop: [ALL]}}, podSecurityContext: {fsGroup: 5}}"),
    )
    .await;
    assert_eq!(
        typed.main()["securityContext"],
        json!({"runAsUser": 1000, "capabilities": {"drop": ["ALL"]}})
    );
    assert_eq!(typed.spec()["securityContext"], json!({"fsGroup": 5}));
    let found = refused(
        &stage,
        one("    pod: {privileged: true, securityContext: {run_as_user: 5, privileged: false}}"),
    )
    .await;
    assert_eq!(
        found,
        [
            "UNKNOWN_FIELD steps[0].pod.securityContext.run_as_user",
            "CONFLICT steps[0].pod.privileged",
        ]
    );
}

/// behaviours E18: a step's account is never that of a service, and its token is not mounted unless asked for.
#[tokio::test]
async fn s4_ps9_accounts_and_pull_secrets_are_named_or_left_to_the_namespace() {
    let stage = stage().await;
    let bare = rendered(&stage, one("    command: ['true']")).await;
    assert_eq!(bare.spec().get("serviceAccountName"), None);
    assert_eq!(bare.spec().get("imagePullSecrets"), None);
    assert_eq!(bare.spec()["automountServiceAccountToken"], false);
    let named = rendered(
        &stage,
        one("    pod: {serviceAccountName: trainer, automountServiceAccountToken: true, imagePullSecrets: [registry, other]}"),
    )
    .await;
    assert_eq!(named.spec()["serviceAccountName"], "trainer");
    assert_eq!(named.spec()["automountServiceAccountToken"], true);
    assert_eq!(
        named.spec()["imagePullSecrets"],
        json!([{"name": "registry"}, {"name": "other"}])
    );
    let found = refused(
        &stage,
        one("    pod: {serviceAccountName: '', imagePullSecrets: [My_Secret]}"),
    )
    .await;
    assert_eq!(
        found,
        [
            "BAD_VALUE steps[0].pod.serviceAccountName",
            "BAD_VALUE steps[0].pod.imagePullSecrets[0]",
        ]
    );
}

/// behaviours N6, N7, N11, O9: system first, then the axes, then the user; a name stands once, and nobody overrides the system.
#[tokio::test]
async fn ps11_ps12_the_environment_has_its_order() {
    let stage = stage().await;
    let text = "
name: churn
defaults: {image: i, env: [{name: A, value: defaults}, {name: FOLD, value: defaults}]}
steps:
  - name: s
    matrix: [{name: FOLD, values: [7]}]
    env: [{name: A, value: step}, {name: P, valueFrom: {secretKeyRef: {name: warehouse, key: password}}}]
    pod: {envFrom: [{secretRef: {name: all}}, {prefix: C_, configMapRef: {name: some, optional: true}}]}
";
    let parsed = source::parse(text).into_pipeline();
    let made = rendered(&stage, pipeline_to_proto(&parsed.expect("a pipeline"))).await;
    let env = made.main()["env"].as_array().expect("variables");
    let value = |name: &str| {
        let mut found = env.iter().filter(|variable| variable["name"] == name);
        let value = found.next().expect(name);
        assert_eq!(found.next(), None, "{name} stands once");
        value
    };
    let names: Vec<&str> = env.iter().filter_map(|variable| variable["name"].as_str()).collect();
    assert_eq!(names[0], "WINDLASS_RUN_ID");
    assert_eq!(names[names.len() - 3..], ["FOLD", "A", "P"]);
    assert_eq!(value("A")["value"], "step");
    assert_eq!(value("FOLD")["value"], "defaults", "the user's own wins over the axis");
    assert_eq!(
        value("P")["valueFrom"]["secretKeyRef"],
        json!({"name": "warehouse", "key": "password"})
    );
    assert_eq!(
        value("WINDLASS_RUN_ID")["value"],
        made.pod["metadata"]["labels"]["windlass.dev/run-id"]
    );
    assert_eq!(
        made.main()["envFrom"],
        json!([{"secretRef": {"name": "all"}}, {"prefix": "C_", "configMapRef": {"name": "some", "optional": true}}])
    );
    let found = refused(
        &stage,
        one("    env: [{name: WINDLASS_RUN, value: x}]\n    pod: {envFrom: [{secret: {name: a}}]}"),
    )
    .await;
    assert_eq!(
        found,
        [
            "RESERVED steps[0].env[0].name",
            "UNKNOWN_FIELD steps[0].pod.envFrom[0].secret",
        ]
    );
}

/// behaviours U10: what has no field of its own is in the overlay, which is checked like everything else.
#[tokio::test]
async fn ps14_an_overlay_is_merged_as_kubernetes_merges_patches() {
    let stage = stage().await;
    let text = "
name: churn
defaults: {image: churn:v3, pod: {volumes: [{name: v, emptyDir: {}}], nodeSelector: {gpu: a, zone: b}, sidecars: [{name: proxy, image: p}]}}
steps:
  - name: s
    env: [{name: A, value: '1'}, {name: B, value: '2'}]
    pod:
      initContainers: [{name: fetch, image: f}]
      overlay:
        dnsPolicy: Default
        enableServiceLinks: null
        nodeSelector: {gpu: null}
        securityContext: {$patch: replace, fsGroup: 5}
        topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]
        volumes: [{name: v, $patch: delete}]
        initContainers: [{name: proxy, image: mirror/p, resources: {limits: {cpu: 1}}}]
        containers:
          - {name: main, image: mirror/churn:v3, stdin: true, env: [{name: A, $patch: delete}]}
          - {name: beside, image: b}
";
    let parsed = source::parse(text).into_pipeline();
    let made = rendered(&stage, pipeline_to_proto(&parsed.expect("a pipeline"))).await;
    let spec = made.spec();
    assert_eq!(spec["dnsPolicy"], "Default");
    assert_eq!(spec.get("enableServiceLinks"), None);
    assert_eq!(spec["nodeSelector"], json!({"zone": "b"}));
    assert_eq!(spec["securityContext"], json!({"fsGroup": 5}));
    assert_eq!(spec["topologySpreadConstraints"][0]["topologyKey"], "zone");
    assert_eq!(spec["volumes"], json!([]));
    assert_eq!(
        spec["initContainers"],
        json!([
            {"name": "proxy", "image": "mirror/p", "restartPolicy": "Always", "resources": {"limits": {"cpu": "1"}}},
            {"name": "fetch", "image": "f"},
        ])
    );
    let main = made.main();
    assert_eq!(
        (&main["image"], &main["stdin"]),
        (&json!("mirror/churn:v3"), &json!(true))
    );
    let names: Vec<&Value> = main["env"]
        .as_array()
        .expect("variables")
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert!(
        names.contains(&&json!("B")) && !names.contains(&&json!("A")),
        "{names:?}"
    );
    assert_eq!(spec["containers"][1], json!({"name": "beside", "image": "b"}));
    assert_eq!(made.origin("pod.overlay.dnsPolicy"), "STEP");
    let wrong = "
    pod:
      overlay:
        restartPolicy: Always
        dnsPolcy: Default
        containers: [{name: main, $patch: delete}, {name: x, imag: i}]
";
    assert_eq!(
        refused(&stage, one(wrong)).await,
        [
            "UNKNOWN_FIELD steps[0].pod.overlay.containers[1].imag",
            "UNKNOWN_FIELD steps[0].pod.overlay.dnsPolcy",
            "RESERVED steps[0].pod.overlay.restartPolicy",
            "RESERVED steps[0].pod.overlay.containers[0].$patch",
        ]
    );
}

/// behaviours O7, E16, R2: the operator's requests fill gaps, stay below limits, and are said to be the operator's.
#[tokio::test]
async fn o7_e16_requests_of_the_operator_reach_the_pod() {
    let stage = with_requests(&["memory=400Mi"]).await;
    let bare = rendered(&stage, one("    command: ['true']")).await;
    assert_eq!(bare.main()["resources"], json!({"requests": {"memory": "400Mi"}}));
    assert_eq!(bare.origin("pod.resources.requests.memory"), "OPERATOR");
    let low = rendered(&stage, one("    pod: {resources: {limits: {memory: 200Mi}}}")).await;
    assert_eq!(
        low.main()["resources"],
        json!({"limits": {"memory": "200Mi"}, "requests": {"memory": "200Mi"}})
    );
    let own = rendered(&stage, one("    pod: {resources: {requests: {memory: 1Gi}}}")).await;
    assert_eq!(own.main()["resources"], json!({"requests": {"memory": "1Gi"}}));
    assert_eq!(own.origin("pod.resources.requests.memory"), "STEP");
}

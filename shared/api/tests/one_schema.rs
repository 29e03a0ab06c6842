//! The pipeline file and the API message are one schema: same fields, same names, nothing lost on the way.
#![recursion_limit = "512"]

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};
use serde_json::{Value, json};
use windlass_api::convert::{pipeline_from_proto, pipeline_to_proto};
use windlass_pipeline::Pipeline;

/// A pipeline in which every field is set.
fn everything() -> Value {
    let mut step = template();
    for (key, value) in [
        ("name", json!("train")),
        ("upstream", json!(["extract"])),
        ("matrix", json!([{"name": "FOLD", "values": [0, 1.5, "a", true]}])),
        ("unset", json!(["pod.tolerations"])),
    ] {
        step[key] = value;
    }
    json!({
        "name": "churn",
        "parameters": [{"name": "LR", "type": "NUMBER", "default": 0.01, "description": "rate"}],
        "cluster": "prod",
        "workspace": {"volume": {"persistentVolumeClaim": {"claimName": "team-rwx"}}, "mountPath": "/work"},
        "files": [{"path": "a.py", "content": "print()", "contentBase64": "AAE=", "executable": true}],
        "failureMode": "FAIL_FAST",
        "maxParallelism": 8,
        "startInterval": "500ms",
        "timeout": "2h",
        "priority": -3,
        "labels": {"team": "ml"},
        "annotations": {"note": "x"},
        "defaults": template(),
        "steps": [step],
    })
}

fn template() -> Value {
    let budget = json!({"attempts": 2, "delay": "10s", "backoff": 1.5, "maxDelay": "5m", "exitCodes": [75]});
    json!({
        "image": "busybox", "command": ["sh"], "args": ["-c", "true"], "script": "true",
        "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "valueFrom": {
                "secretKeyRef": {"name": "s", "key": "k", "optional": true},
                "configMapKeyRef": {"name": "c", "key": "k", "optional": false},
                "fieldRef": {"fieldPath": "metadata.name"},
                "resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"},
                "runSecretKeyRef": {"key": "k"},
            }},
        ],
        "workingDir": "/tmp", "runIf": "ALWAYS", "timeout": "45m",
        "retries": {"user": budget, "infrastructure": budget},
        "lostContact": {"deadline": "10m", "then": "WAIT"},
        "deadlines": {"admitted": "12h", "created": "1m", "scheduled": "2m", "pulling": "3m", "initialising": "4m", "terminating": "5m"},
        "terminationGrace": "30s", "cluster": "eu", "logs": {"follow": "ON_DEMAND"},
        "acceptExitZeroWhenTerminated": true,
        "pod": {
            "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "2Gi"}},
            "nodeSelector": {"gpu": "a100"},
            "affinity": {"nodeAffinity": {}},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "labels": {"a": "b"}, "annotations": {"c": "d"},
            "volumes": [{"emptyDir": {}, "name": "scratch"}],
            "volumeMounts": [{"mountPath": "/scratch", "name": "scratch"}],
            "envFrom": [{"configMapRef": {"name": "settings"}}],
            "imagePullSecrets": ["registry"], "imagePullPolicy": "Never",
            "serviceAccountName": "trainer", "automountServiceAccountToken": true,
            "securityContext": {"runAsUser": 420}, "podSecurityContext": {"fsGroup": 7},
            "privileged": true, "hostIpc": true, "priorityClassName": "high", "schedulerName": "mine",
            "runtimeClassName": "kata",
            "initContainers": [{"image": "busybox", "name": "fetch"}],
            "sidecars": [{"image": "busybox", "name": "proxy"}],
            "overlay": {"hostname": "h", "subdomain": null},
        },
    })
}

#[test]
fn the_model_knows_every_field_of_the_sample() {
    let pipeline: Pipeline = serde_json::from_value(everything()).expect("the model reads it");
    assert_eq!(serde_json::to_value(&pipeline).expect("printed"), everything());
}

#[test]
fn nothing_is_lost_between_file_and_message() {
    let pipeline: Pipeline = serde_json::from_value(everything()).expect("the model reads it");
    let message = pipeline_to_proto(&pipeline);
    let wire = windlass_api::pipeline::v1::Pipeline::decode(message.encode_to_vec().as_slice()).expect("decodes");
    let mut problems = windlass_pipeline::Violations::default();
    assert_eq!(pipeline_from_proto(wire, &mut problems), pipeline);
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn i9_the_sample_sets_every_field_of_the_message_and_no_other() {
    let set = FileDescriptorSet::decode(windlass_api::DESCRIPTORS).expect("descriptors");
    let messages: Vec<&DescriptorProto> = set
        .file
        .iter()
        .filter(|file| file.package() == "windlass.pipeline.v1")
        .flat_map(|file| &file.message_type)
        .collect();
    compare(&messages, "Pipeline", &everything(), "");
}

fn compare(messages: &[&DescriptorProto], name: &str, value: &Value, path: &str) {
    let message = messages
        .iter()
        .find(|message| message.name() == name)
        .expect("a message");
    let entries = value.as_object().unwrap_or_else(|| panic!("{path} is no object"));
    let mut known: Vec<&str> = message.field.iter().map(|field| field.json_name()).collect();
    let mut set: Vec<&str> = entries.keys().map(String::as_str).collect();
    known.sort_unstable();
    set.sort_unstable();
    if name == "EnvVar" {
        // `value` and `valueFrom` exclude each other in spirit: the sample has one entry for each.
        assert!(
            set.iter().all(|field| known.contains(field)),
            "{path}: {set:?} against {known:?}"
        );
    } else {
        assert_eq!(set, known, "{path}: file on the left, message on the right");
    }
    for field in &message.field {
        let Some(value) = entries.get(field.json_name()) else {
            continue;
        };
        let nested = field
            .type_name()
            .strip_prefix(".windlass.pipeline.v1.")
            .unwrap_or_default();
        let is_map = nested.contains('.');
        if field.r#type() != Type::Message || nested.is_empty() || is_map {
            continue;
        }
        let path = format!("{path}.{}", field.json_name());
        match value.as_array() {
            Some(items) if field.label() == Label::Repeated => {
                items.iter().for_each(|item| compare(messages, nested, item, &path));
            }
            _ => compare(messages, nested, value, &path),
        }
    }
}

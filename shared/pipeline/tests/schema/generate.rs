//! Pipelines from the table of all fields, so that a new field is in them by itself.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use windlass_pipeline::fields::{self, Kind};

/// A pipeline that is mostly right.
pub(crate) fn pipeline() -> BoxedStrategy<Value> {
    message("Pipeline", "")
}

fn message(name: &'static str, path: &str) -> BoxedStrategy<Value> {
    let known = fields::message(name).expect(name).fields;
    let each: Vec<_> = known
        .iter()
        .map(|field| {
            let path = format!("{path}.{}", field.name);
            let value = value(field.kind, &path).prop_map(|value| Some((field.name, value)));
            let likely = if path == ".defaults" || path.ends_with(".pod") {
                3
            } else {
                1
            };
            if field.required {
                value.boxed()
            } else {
                prop_oneof![6 => Just(None), likely => value].boxed()
            }
        })
        .collect();
    each.prop_map(|given| {
        let mut map: Map<String, Value> = given
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        repaired(&mut map);
        Value::Object(map)
    })
    .boxed()
}

/// What fields want of each other.
fn repaired(map: &mut Map<String, Value>) {
    for (one, other) in [
        ("script", "command"),
        ("script", "args"),
        ("content", "contentBase64"),
        ("valueFrom", "value"),
    ] {
        if map.contains_key(one) {
            map.shift_remove(other);
        }
    }
    if map.contains_key("path") && !map.contains_key("contentBase64") {
        map.entry("content").or_insert(json!("text"));
    }
    if map.contains_key("steps") {
        // Every step has an image: from the defaults.
        let defaults = map.entry("defaults").or_insert(json!({}));
        defaults["image"] = json!("i");
    }
}

fn one_of(values: Vec<Value>) -> BoxedStrategy<Value> {
    prop::sample::select(values).boxed()
}

/// Values of a field that are right, where its type alone does not say which; by the end of its path.
fn special(path: &str) -> Option<BoxedStrategy<Value>> {
    let text = |text: &str| Some(one_of(vec![json!(text)]));
    let ends = |end: &str| path.ends_with(end);
    match () {
        () if ends(".env.name") || ends(".matrix.name") || ends(".parameters.name") => text("A"),
        () if ends(".default") => text("x"),
        () if ends("parameters.type") => text("STRING"),
        () if ends(".name") => text("n"),
        () if ends(".upstream") || ends(".unset") => Some(one_of(vec![json!([])])),
        () if ends(".mountPath") || ends(".workingDir") => text("/work"),
        () if ends(".path") => text("a/b.txt"),
        () if ends(".fieldPath") => text("metadata.name"),
        () if ends(".resource") => text("limits.memory"),
        () if ends(".divisor") => text("1Mi"),
        () if ends(".retries.infrastructure.exitCodes") => Some(one_of(vec![json!([])])),
        () if ends(".delay") => Some(one_of(vec![json!("5s"), json!(0)])),
        () if ends(".maxDelay") => text("7m"),
        () if ends(".terminationGrace") => text("7s"),
        // Exactly one source.
        () if ends(".valueFrom") => Some(one_of(vec![
            json!({"secretKeyRef": {"name": "s", "key": "k", "optional": true}}),
            json!({"configMapKeyRef": {"name": "s", "key": "k"}}),
            json!({"fieldRef": {"fieldPath": "metadata.labels['a']"}}),
            json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}),
            json!({"runSecretKeyRef": {"key": "k"}}),
        ])),
        () if ends(".limits") => Some(one_of(vec![
            json!({"memory": "2Gi", "cpu": 2}),
            json!({"nvidia.com/gpu": 1}),
        ])),
        () if ends(".requests") => Some(one_of(vec![
            json!({"memory": "1Gi", "cpu": 0.5}),
            json!({"cpu": "500m"}),
        ])),
        () if ends(".volumeMounts") => Some(one_of(vec![json!([])])),
        () if ends(".annotations") || ends(".labels") || ends(".nodeSelector") => {
            Some(one_of(vec![json!({"a.b/c": "d"}), json!({"a": ""})]))
        }
        () => None,
    }
}

/// Right values of a type.
fn value(kind: Kind, path: &str) -> BoxedStrategy<Value> {
    if let Some(special) = special(path) {
        return special;
    }
    match kind {
        Kind::Text => one_of(vec![json!("a"), json!("b.c")]),
        Kind::Base64 => one_of(vec![json!("//4="), json!("__4")]),
        Kind::Integer(least, most) => prop_oneof![Just(least), least..=most].prop_map(Value::from).boxed(),
        Kind::Number(least, most) => (least..=most).prop_map(Value::from).boxed(),
        Kind::Boolean => any::<bool>().prop_map(Value::from).boxed(),
        Kind::Duration => one_of(vec![json!("90s"), json!("1h30m"), json!("1500ms"), json!("1.5h")]),
        Kind::Scalar => one_of(vec![json!("x"), json!(5), json!(0.5), json!(true)]),
        Kind::OneOf(prefix, names) => {
            let long = names.iter().map(|name| json!(format!("{prefix}{name}")));
            one_of(names.iter().map(|name| json!(name)).chain(long).collect())
        }
        Kind::TextMap => one_of(vec![json!({}), json!({"a": "b"})]),
        Kind::QuantityMap => one_of(vec![json!({"cpu": "500m"})]),
        Kind::Message(name) => message(name, path),
        Kind::Kubernetes(name) => kubernetes(name),
        Kind::List(Kind::Kubernetes(name)) => prop::collection::vec(kubernetes(name), 0..2)
            .prop_map(Value::from)
            .boxed(),
        // Elements need names of their own, and one has whatever they all have.
        Kind::List(inner) => value(*inner, path).prop_map(|element| json!([element])).boxed(),
    }
}

fn kubernetes(name: &str) -> BoxedStrategy<Value> {
    let container = || {
        vec![
            json!({"name": "c", "image": "i", "command": ["a"], "env": [{"name": "A", "value": "b"}]}),
            json!({"name": "c", "image": "i", "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
                "readinessProbe": {"httpGet": {"port": "web", "path": "/"}}}),
        ]
    };
    one_of(match name {
        "Affinity" => vec![
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}]
            }}}),
            json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 5, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}}}
            ]}}),
        ],
        "Toleration" => vec![
            json!({"operator": "Exists"}),
            json!({"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute", "tolerationSeconds": 5}),
        ],
        "Volume" => vec![
            json!({"name": "v", "emptyDir": {"sizeLimit": 1024}}),
            json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}}),
            json!({"name": "v", "projected": {"sources": [{"configMap": {"name": "a"}}], "defaultMode": 420}}),
        ],
        "VolumeSource" => vec![
            json!({"persistentVolumeClaim": {"claimName": "c"}}),
            json!({"nfs": {"server": "s", "path": "/"}}),
        ],
        "EnvFromSource" => vec![
            json!({"secretRef": {"name": "s"}}),
            json!({"prefix": "A_", "configMapRef": {"name": "s", "optional": true}}),
        ],
        "SecurityContext" => vec![
            json!({"runAsUser": 1000, "capabilities": {"drop": ["ALL"]}}),
            json!({"readOnlyRootFilesystem": true, "seccompProfile": {"type": "RuntimeDefault"}}),
        ],
        "PodSecurityContext" => vec![json!({"fsGroup": 5, "sysctls": [{"name": "a", "value": "b"}]})],
        "Container" => container(),
        "PodSpec" => vec![
            json!({"dnsPolicy": "Default", "containers": [{"name": "main", "stdin": true}]}),
            json!({"nodeSelector": {"a": null}, "volumes": [{"name": "v", "$patch": "delete"}],
                "securityContext": {"$patch": "replace", "fsGroup": 1}}),
            json!({"hostIPC": null, "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "z"}]}),
        ],
        other => panic!("there are no examples of {other}"),
    })
}

/// Something that goes wrong, or nearly, in a file.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A key gets another letter.
    Rename,
    /// A value becomes this one.
    Replace(Value),
    /// A value goes.
    Remove,
}

pub(crate) fn change() -> BoxedStrategy<Change> {
    let values = vec![
        json!(null),
        json!(true),
        json!("x"),
        json!(5),
        json!(0.5),
        json!([]),
        json!(["x"]),
        json!({}),
        json!({"x": 1}),
    ];
    prop_oneof![
        2 => Just(Change::Rename),
        3 => prop::sample::select(values).prop_map(Change::Replace),
        1 => Just(Change::Remove),
    ]
    .boxed()
}

/// `value` with one place changed.
pub(crate) fn changed(value: &Value, place: prop::sample::Index, change: &Change) -> Value {
    let mut places = Vec::new();
    walk(value, String::new(), &mut places);
    let pointer = place.get(&places);
    let (parent, key) = pointer.rsplit_once('/').expect("below the root");
    let key = key.replace("~1", "/").replace("~0", "~");
    let mut changed = value.clone();
    match (changed.pointer_mut(parent).expect("there"), change) {
        (Value::Object(entries), Change::Rename) => {
            let value = entries.shift_remove(&key).expect("there");
            entries.insert(format!("{key}x"), value);
        }
        (Value::Object(entries), Change::Remove) => drop(entries.shift_remove(&key)),
        (Value::Object(entries), Change::Replace(value)) => drop(entries.insert(key, value.clone())),
        (Value::Array(items), Change::Replace(value)) => items[key.parse::<usize>().expect("an index")] = value.clone(),
        (Value::Array(items), Change::Rename | Change::Remove) => items.clear(),
        (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_), _) => {}
    }
    changed
}

fn walk(value: &Value, pointer: String, places: &mut Vec<String>) {
    let mut below = |key: String, value: &Value| {
        let pointer = format!("{pointer}/{key}");
        places.push(pointer.clone());
        walk(value, pointer, places);
    };
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                below(key.replace('~', "~0").replace('/', "~1"), value);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                below(index.to_string(), value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

//! Fragments of Kubernetes objects are read into their types of k8s-openapi, with every unknown field found.

use k8s_openapi::api::core::v1::{
    Affinity, Container, EnvFromSource, PodSecurityContext, PodSpec, SecurityContext, Toleration, Volume, VolumeMount,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Fragment;
use crate::fragment::{DIRECTIVE, is_exact, merge_key};
use crate::model::PodSettings;
use crate::path::Path;
use crate::strict::Reader;
use crate::violation::{Code, Violations};

/// Fields of a pod spec that Windlass itself decides, each with what to use instead.
pub(crate) const OVERLAY_REFUSED: [(&str, &str); 5] = [
    ("restartPolicy", "retries are set with `retries`"),
    ("terminationGracePeriodSeconds", "use `terminationGrace`"),
    ("activeDeadlineSeconds", "use `timeout`"),
    ("nodeName", "use `nodeSelector`"),
    ("ephemeralContainers", "they cannot be part of a new pod"),
];

/// Checks every fragment of `pod`.
pub(crate) fn check_fragments(pod: &PodSettings, path: &Path<'_>, violations: &mut Violations) {
    let reader = Reader::default();
    one::<Affinity>(&reader, pod.affinity.as_ref(), &path.field("affinity"));
    one::<SecurityContext>(&reader, pod.security_context.as_ref(), &path.field("securityContext"));
    one::<PodSecurityContext>(
        &reader,
        pod.pod_security_context.as_ref(),
        &path.field("podSecurityContext"),
    );
    if let Some(overlay) = &pod.overlay {
        let path = path.field("overlay");
        reader.read::<PodSpec>(&without_patch(overlay.value()), &path);
        check_numbers(overlay.value(), &path, &reader);
        check_directives(overlay.value(), Place::Map, &path, violations);
    }
    many::<Toleration>(&reader, &pod.tolerations, &path.field("tolerations"));
    many::<Volume>(&reader, &pod.volumes, &path.field("volumes"));
    many::<VolumeMount>(&reader, &pod.volume_mounts, &path.field("volumeMounts"));
    many::<EnvFromSource>(&reader, &pod.env_from, &path.field("envFrom"));
    many::<Container>(&reader, &pod.init_containers, &path.field("initContainers"));
    many::<Container>(&reader, &pod.sidecars, &path.field("sidecars"));
    violations.extend(reader.into_violations().into_vec());
    overlay(pod, &path.field("overlay"), violations);
}

/// Required fields of volume sources, which the types fill with nothing.
pub(crate) const REQUIRED_OF_SOURCES: [(&str, &[&str]); 8] = [
    ("persistentVolumeClaim", &["claimName"]),
    ("hostPath", &["path"]),
    ("nfs", &["server", "path"]),
    ("secret", &["secretName"]),
    ("configMap", &["name"]),
    ("csi", &["driver"]),
    ("ephemeral", &["volumeClaimTemplate"]),
    ("projected", &["sources"]),
];

/// Checks that a volume has at most one source, with what the source needs. Without one, Kubernetes makes an empty folder.
pub(crate) fn check_source(volume: &Value, path: &Path<'_>, violations: &mut Violations) {
    let Some(fields) = volume.as_object() else {
        return;
    };
    let sources: Vec<&str> = fields.keys().map(String::as_str).filter(|key| *key != "name").collect();
    if sources.len() > 1 {
        let message = format!("a volume has one source, not {}", sources.join(" and "));
        violations.add(path.to_string(), Code::Conflict, message);
    }
    for (source, required) in REQUIRED_OF_SOURCES {
        let Some(given) = fields.get(source).and_then(Value::as_object) else {
            continue;
        };
        for field in required {
            if given.get(*field).is_none_or(|value| value.as_str() == Some("")) {
                let path = path.field(source).field(field).to_string();
                violations.add(path, Code::Missing, format!("a volume of this kind needs {field}"));
            }
        }
    }
}

/// Checks a volume source, which is a volume without its name.
pub(crate) fn check_volume_source(source: &Fragment, path: &Path<'_>, violations: &mut Violations) {
    let reader = Reader::default();
    one::<Volume>(&reader, Some(source), path);
    let found = reader.into_violations();
    let readable = found.is_empty();
    violations.extend(found.into_vec());
    let keys: Vec<&str> = source
        .value()
        .as_object()
        .map_or_else(Vec::new, |map| map.keys().map(String::as_str).collect());
    if keys.contains(&"name") {
        violations.add(
            path.field("name").to_string(),
            Code::UnknownField,
            "the volume's name is set by Windlass",
        );
    } else if readable && keys.len() != 1 {
        let message = "exactly one volume source is wanted, such as persistentVolumeClaim: {claimName: data}";
        violations.add(path.to_string(), Code::BadValue, message);
    } else if readable {
        check_source(source.value(), path, violations);
    }
}

/// Fields of a pod's spec whose keys are the user's: in these a null stands for a value, elsewhere for a field.
pub const FREE_MAPS: [&str; 9] = [
    "annotations",
    "labels",
    "limits",
    "matchLabels",
    "nodeSelector",
    "options",
    "overhead",
    "requests",
    "volumeAttributes",
];

/// A patch without what only patches hold: directives, and nulls in place of values. A null in place of a field stays, so that the
/// name of the field is looked at.
fn without_patch(value: &Value) -> Value {
    without_patch_in(value, false)
}

fn without_patch_in(value: &Value, is_free: bool) -> Value {
    match value {
        Value::Object(entries) => entries
            .iter()
            .filter(|(key, value)| *key != DIRECTIVE && !(is_free && value.is_null()))
            .map(|(key, value)| (key.clone(), without_patch_in(value, FREE_MAPS.contains(&key.as_str()))))
            .collect(),
        Value::Array(items) => items.iter().map(|item| without_patch_in(item, false)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// Where a map of a patch stands.
#[derive(Clone, Copy)]
enum Place {
    /// As a field.
    Map,
    /// In a list whose elements are merged by this key.
    Keyed(&'static str),
    /// In a list that is replaced.
    Listed,
}

/// Checks that every directive is one that is carried out where it stands.
fn check_directives(value: &Value, place: Place, path: &Path<'_>, violations: &mut Violations) {
    let Value::Object(entries) = value else {
        return;
    };
    if let Some(directive) = entries.get(DIRECTIVE) {
        let problem = match (place, directive.as_str()) {
            (Place::Map, Some("replace")) => None,
            (Place::Map, _) => Some("only replace can stand here; a null in place of the map removes it".to_owned()),
            (Place::Keyed(key), Some("delete")) if entries.contains_key(key) => None,
            (Place::Keyed(key), _) => Some(format!("only delete can stand here, in an element with its {key}")),
            (Place::Listed, _) => Some("this list is replaced, so that nothing of it can be patched".to_owned()),
        };
        if let Some(problem) = problem {
            violations.add(path.field(DIRECTIVE).to_string(), Code::BadValue, problem);
        }
    }
    for (key, value) in entries {
        let path = path.field(key);
        let Value::Array(items) = value else {
            check_directives(value, Place::Map, &path, violations);
            continue;
        };
        let place = merge_key(key).map_or(Place::Listed, Place::Keyed);
        for (index, item) in items.iter().enumerate() {
            check_directives(item, place, &path.index(index), violations);
        }
    }
}

fn one<T: DeserializeOwned>(reader: &Reader, fragment: Option<&Fragment>, path: &Path<'_>) {
    if let Some(fragment) = fragment {
        read::<T>(reader, fragment, path);
    }
}

fn many<T: DeserializeOwned>(reader: &Reader, fragments: &[Fragment], path: &Path<'_>) {
    for (index, fragment) in fragments.iter().enumerate() {
        read::<T>(reader, fragment, &path.index(index));
    }
}

fn read<T: DeserializeOwned>(reader: &Reader, fragment: &Fragment, path: &Path<'_>) {
    reader.read::<T>(fragment.value(), path);
    check_numbers(fragment.value(), path, reader);
}

/// Large whole numbers are rounded in API messages, so that the same pipeline would mean two things.
fn check_numbers(value: &Value, path: &Path<'_>, reader: &Reader) {
    match value {
        Value::Number(number) if !is_exact(number) => {
            reader.bad_value(path, format!("a whole number as large as {number} is not kept exactly"));
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check_numbers(item, &path.index(index), reader);
            }
        }
        Value::Object(entries) => {
            for (key, value) in entries {
                check_numbers(value, &path.field(key), reader);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn overlay(pod: &PodSettings, path: &Path<'_>, violations: &mut Violations) {
    let Some(overlay) = &pod.overlay else {
        return;
    };
    for (field, instead) in OVERLAY_REFUSED {
        if overlay.value().get(field).is_some() {
            let message = format!("Windlass sets {field} itself; {instead}");
            violations.add(path.field(field).to_string(), Code::Reserved, message);
        }
    }
}

/// Writes numbers as texts where a quantity is meant, as the API server does.
pub(crate) fn quantities_as_texts(pod: &mut PodSettings) {
    let containers = pod.init_containers.iter_mut().chain(&mut pod.sidecars);
    for container in containers {
        in_container(container.value_mut());
    }
    if let Some(overlay) = &mut pod.overlay {
        for key in ["containers", "initContainers"] {
            let containers = overlay.value_mut().get_mut(key).and_then(Value::as_array_mut);
            containers.into_iter().flatten().for_each(in_container);
        }
        for key in ["resources", "overhead"] {
            amounts(overlay.value_mut().get_mut(key));
        }
    }
    for volume in &mut pod.volumes {
        let limit = volume
            .value_mut()
            .get_mut("emptyDir")
            .and_then(|volume| volume.get_mut("sizeLimit"));
        amounts(limit);
    }
}

fn in_container(container: &mut Value) {
    let resources = container.get_mut("resources");
    let Some(resources) = resources else {
        return;
    };
    for key in ["requests", "limits"] {
        amounts(resources.get_mut(key));
    }
}

fn amounts(value: Option<&mut Value>) {
    match value {
        Some(Value::Object(entries)) => entries.iter_mut().for_each(|(_, value)| amounts(Some(value))),
        Some(value @ Value::Number(_)) => *value = json!(value.to_string()),
        Some(Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_)) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(pod: Value) -> String {
        let pod: PodSettings = serde_json::from_value(pod).expect("pod settings");
        let mut violations = Violations::default();
        check_fragments(&pod, &Path::root().field("pod"), &mut violations);
        let lines: Vec<String> = violations.into_vec().iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn i9_what_an_overlay_removes_has_a_name_that_is_known() {
        let pod = json!({"overlay": {
            "hostIPCx": null,
            "hostIPC": null,
            "nodeSelector": {"gpu": null},
            "securityContext": {"sysctl": null},
            "initContainers": [{"name": "a", "resources": {"limit": null, "limits": {"cpu": null}}}],
        }});
        insta::assert_snapshot!(problems(pod), @r"
        pod.overlay.hostIPCx: unknown field, did you mean hostIPC?
        pod.overlay.initContainers[0].resources.limit: unknown field, did you mean limits?
        pod.overlay.securityContext.sysctl: unknown field, did you mean sysctls?
        ");
    }

    /// behaviours Z2, E14, U11
    #[test]
    fn i9_unknown_keys_are_found_at_any_depth_of_a_fragment() {
        let pod = json!({
            "volumes": [{"name": "a", "hostpath": {"path": "/"}}, {"name": "b", "emptyDir": {"sizelimit": "1Gi"}}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpression": []}]
            }}},
            "securityContext": {"runAsUser": "root", "runAsNonroot": true},
            "sidecars": [{"name": "s", "image": "i", "resources": {"limits": {"memory": "1GB", "cpu": 1}}}],
            "tolerations": ["all", {"tolerationSeconds": 3.0}],
            "overlay": {"restartPolicy": "Always", "hostNetwork": "yes"},
        });
        insta::assert_snapshot!(problems(pod), @r#"
        pod.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpression: unknown field, did you mean matchExpressions?
        pod.securityContext.runAsNonroot: unknown field, did you mean runAsNonRoot?
        pod.securityContext.runAsUser: expected a whole number, found the string "root"
        pod.overlay.hostNetwork: expected true or false, found the string "yes"; yes, no, on and off are strings in YAML 1.2
        pod.tolerations[0]: expected a map, found the string "all"
        pod.volumes[0].hostpath: unknown field, did you mean hostPath?
        pod.volumes[1].emptyDir.sizelimit: unknown field, did you mean sizeLimit?
        pod.sidecars[0].resources.limits.memory: `1GB` is no quantity; write Gi or G
        pod.overlay.restartPolicy: Windlass sets restartPolicy itself; retries are set with `retries`
        "#);
    }

    #[test]
    fn numbers_become_quantities() {
        let mut pod: PodSettings = serde_json::from_value(json!({
            "sidecars": [{"resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}],
            "volumes": [{"emptyDir": {"sizeLimit": 1024}}],
        }))
        .expect("pod settings");
        quantities_as_texts(&mut pod);
        assert_eq!(
            pod.sidecars[0].value()["resources"]["limits"],
            json!({"cpu": "1", "memory": "1Gi"})
        );
        assert_eq!(pod.volumes[0].value()["emptyDir"]["sizeLimit"], json!("1024"));
    }
}

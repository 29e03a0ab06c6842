//! Whether the node can take a pod, in the words of kube-scheduler.

use std::collections::BTreeMap;

use serde_json::Value;

use super::volumes;
use crate::pods::{all_containers, quantity};

/// Resources whose amounts are not looked at: processes share the machine.
const SHARED: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Why the pod does not fit; `None` when it does.
pub(super) fn obstacle(pod: &Value, node: &Value) -> Option<String> {
    let spec = &pod["spec"];
    let why = claim(spec)
        .or_else(|| unserved_volume(spec))
        .map(Err)
        .or_else(|| mismatch(spec, node).map(Ok))?;
    Some(match why {
        Ok(node_reason) => format!("0/1 nodes are available: 1 {node_reason}."),
        Err(pod_reason) => format!("0/1 nodes are available: {pod_reason}."),
    })
}

fn claim(spec: &Value) -> Option<String> {
    let volumes = spec["volumes"].as_array()?;
    let name = volumes
        .iter()
        .find_map(|v| v["persistentVolumeClaim"]["claimName"].as_str())?;
    Some(format!("persistentvolumeclaim {name:?} not found"))
}

fn unserved_volume(spec: &Value) -> Option<String> {
    let volumes = spec["volumes"].as_array()?;
    let token = |v: &Value| {
        let sources = v["projected"]["sources"].as_array().into_iter().flatten();
        sources
            .into_iter()
            .any(|s| s.get("serviceAccountToken").is_some() || s.get("clusterTrustBundle").is_some())
    };
    let bad = volumes
        .iter()
        .find(|v| !volumes::SERVED.contains(&volumes::kind(v)) || token(v))?;
    let name = bad["name"].as_str().unwrap_or_default();
    Some(format!(
        "1 node(s) cannot serve the {} volume {name:?}",
        volumes::kind(bad)
    ))
}

fn mismatch(spec: &Value, node: &Value) -> Option<String> {
    if node["spec"]["unschedulable"] == true {
        return Some("node(s) were unschedulable".to_owned());
    }
    if let Some(taint) = untolerated(spec, node) {
        return Some(taint);
    }
    if !selected(spec, node) {
        return Some("node(s) didn't match Pod's node affinity/selector".to_owned());
    }
    let affinity = &spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    if affinity.as_array().is_some_and(|terms| !terms.is_empty()) {
        return Some("node(s) didn't match pod affinity rules".to_owned());
    }
    let missing = missing_resources(spec, node);
    (!missing.is_empty()).then(|| {
        let list: Vec<String> = missing.iter().map(|name| format!("Insufficient {name}")).collect();
        list.join(", 1 ")
    })
}

fn untolerated(spec: &Value, node: &Value) -> Option<String> {
    let tolerations = spec["tolerations"].as_array().map_or(&[][..], Vec::as_slice);
    let taints = node["spec"]["taints"].as_array()?;
    let taint = taints
        .iter()
        .filter(|t| matches!(t["effect"].as_str(), Some("NoSchedule" | "NoExecute")))
        .find(|taint| !tolerations.iter().any(|t| tolerates(t, taint)))?;
    let text = |field: &str| taint[field].as_str().unwrap_or_default();
    Some(format!(
        "node(s) had untolerated taint {{{}: {}}}",
        text("key"),
        text("value")
    ))
}

fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let text = |v: &Value, field: &str| v[field].as_str().unwrap_or_default().to_owned();
    let effect = text(toleration, "effect");
    let key = text(toleration, "key");
    (effect.is_empty() || effect == text(taint, "effect"))
        && (key.is_empty() || key == text(taint, "key"))
        && (toleration["operator"] == "Exists" || text(toleration, "value") == text(taint, "value"))
}

fn selected(spec: &Value, node: &Value) -> bool {
    let labels: BTreeMap<&str, &str> = node["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)))
        .collect();
    let simple = spec["nodeSelector"].as_object().into_iter().flatten();
    if simple
        .into_iter()
        .any(|(k, v)| labels.get(k.as_str()).copied() != v.as_str())
    {
        return false;
    }
    let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let Some(terms) = required["nodeSelectorTerms"].as_array() else {
        return true;
    };
    let name = node["metadata"]["name"].as_str().unwrap_or_default();
    terms.iter().any(|term| {
        let list = |field: &str| term[field].as_array().map_or(&[][..], Vec::as_slice);
        let (expressions, fields) = (list("matchExpressions"), list("matchFields"));
        let expression = |e: &Value| matches(e, labels.get(e["key"].as_str().unwrap_or_default()).copied());
        let field = |e: &Value| e["key"] == "metadata.name" && matches(e, Some(name));
        !(expressions.is_empty() && fields.is_empty()) && expressions.iter().all(expression) && fields.iter().all(field)
    })
}

fn matches(expression: &Value, found: Option<&str>) -> bool {
    let values: Vec<&str> = expression["values"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let compare = |greater: bool| {
        let pair = found
            .and_then(|f| f.parse::<i64>().ok())
            .zip(values.first().and_then(|v| v.parse().ok()));
        pair.is_some_and(|(have, want)| if greater { have > want } else { have < want })
    };
    match expression["operator"].as_str().unwrap_or_default() {
        "In" => found.is_some_and(|f| values.contains(&f)),
        "NotIn" => found.is_none_or(|f| !values.contains(&f)),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compare(true),
        "Lt" => compare(false),
        _ => false,
    }
}

fn missing_resources(spec: &Value, node: &Value) -> Vec<String> {
    let pod = serde_json::json!({"spec": {"containers": spec["containers"], "initContainers": spec["initContainers"]}});
    let mut wanted: BTreeMap<String, f64> = BTreeMap::new();
    for (list, _, container) in all_containers(&pod) {
        for (name, amount) in container["resources"]["requests"].as_object().into_iter().flatten() {
            let amount = amount.as_str().and_then(quantity).unwrap_or(0.0);
            let sum = wanted.entry(name.clone()).or_default();
            // Init containers run one after the other.
            *sum = if list == "containers" {
                *sum + amount
            } else {
                sum.max(amount)
            };
        }
    }
    let has = |name: &str| {
        node["status"]["allocatable"][name]
            .as_str()
            .and_then(quantity)
            .unwrap_or(0.0)
    };
    wanted
        .into_iter()
        .filter(|(name, amount)| !SHARED.contains(&name.as_str()) && *amount > has(name))
        .map(|(name, _)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn why(spec: Value) -> Option<String> {
        let node = json!({
            "metadata": {"name": "local", "labels": {"zone": "a", "size": "3"}},
            "spec": {"taints": [{"key": "team", "value": "ml", "effect": "NoSchedule"}]},
            "status": {"allocatable": {"cpu": "2"}},
        });
        let mut spec = spec;
        if spec["tolerations"].is_null() {
            spec["tolerations"] = json!([{"key": "team", "operator": "Exists"}]);
        }
        obstacle(&json!({"spec": spec}), &node)
    }

    #[test]
    fn what_the_node_cannot_serve_is_said_in_the_schedulers_words() {
        let gpu = json!({"containers": [{"resources": {"requests": {"nvidia.com/gpu": "1", "cpu": "64"}}}]});
        assert_eq!(
            why(gpu).as_deref(),
            Some("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
        );
        assert_eq!(
            why(json!({"nodeSelector": {"zone": "b"}})).as_deref(),
            Some("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.")
        );
        assert_eq!(
            why(json!({"tolerations": []})).as_deref(),
            Some("0/1 nodes are available: 1 node(s) had untolerated taint {team: ml}.")
        );
        assert_eq!(
            why(json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]})).as_deref(),
            Some("0/1 nodes are available: persistentvolumeclaim \"c\" not found.")
        );
        assert_eq!(
            why(json!({"volumes": [{"name": "v", "nfs": {"server": "s"}}]})).as_deref(),
            Some("0/1 nodes are available: 1 node(s) cannot serve the nfs volume \"v\".")
        );
    }

    #[test]
    fn affinity_terms_are_alternatives() {
        let required = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
        let zone = |zone: &str| json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]});
        assert!(why(required(json!([zone("a")]))).is_none());
        assert!(why(required(json!([zone("b"), zone("a")]))).is_none());
        assert!(why(required(json!([zone("b")]))).is_some());
        let size = json!({"matchExpressions": [{"key": "size", "operator": "Gt", "values": ["2"]}]});
        assert!(why(required(json!([size]))).is_none());
        assert!(why(json!({"nodeSelector": {"zone": "a"}})).is_none());
    }
}

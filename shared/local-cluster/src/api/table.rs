//! Tables, as `kubectl get` shows them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::view::{Include, metadata_of};
use crate::resources::Resource;

/// A table of rows.
pub(super) fn table(resource: &Resource, meta: &Value, rows: Vec<Value>, columns: bool) -> Value {
    let definitions: Vec<Value> = if columns {
        columns_of(resource)
            .iter()
            .map(|(name, priority)| {
                json!({"name": name, "type": "string", "format": if *name == "Name" { "name" } else { "" },
                       "description": "", "priority": priority})
            })
            .collect()
    } else {
        Vec::new()
    };
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

fn columns_of(resource: &Resource) -> &'static [(&'static str, u8)] {
    match resource.kind {
        "Pod" => &[
            ("Name", 0),
            ("Ready", 0),
            ("Status", 0),
            ("Restarts", 0),
            ("Age", 0),
            ("IP", 1),
            ("Node", 1),
        ],
        "Node" => &[("Name", 0), ("Status", 0), ("Roles", 0), ("Age", 0), ("Version", 0)],
        "Namespace" => &[("Name", 0), ("Status", 0), ("Age", 0)],
        "Event" => &[
            ("Last Seen", 0),
            ("Type", 0),
            ("Reason", 0),
            ("Object", 0),
            ("Message", 0),
            ("Name", 1),
        ],
        "ConfigMap" => &[("Name", 0), ("Data", 0), ("Age", 0)],
        "Secret" => &[("Name", 0), ("Type", 0), ("Data", 0), ("Age", 0)],
        "CronJob" => &[("Name", 0), ("Schedule", 0), ("Suspend", 0), ("Age", 0)],
        _ => &[("Name", 0), ("Age", 0)],
    }
}

/// One row.
pub(super) fn row(object: &Value, include: Include) -> Value {
    let name = || object["metadata"]["name"].clone();
    let age = || json!(age(&object["metadata"]["creationTimestamp"]));
    let count = |fields: &[&str]| {
        let entries: usize = fields
            .iter()
            .filter_map(|f| object[*f].as_object())
            .map(|m| m.len())
            .sum();
        json!(entries)
    };
    let cells = match object["kind"].as_str().unwrap_or_default() {
        "Pod" => {
            let (ready, status, restarts) = pod_summary(object);
            let shown = |v: &Value| json!(v.as_str().unwrap_or("<none>"));
            json!([
                name(),
                ready,
                status,
                restarts,
                age(),
                shown(&object["status"]["podIP"]),
                shown(&object["spec"]["nodeName"])
            ])
        }
        "Node" => {
            let version = object["status"]["nodeInfo"]["kubeletVersion"].clone();
            json!([name(), node_status(object), "<none>", age(), version])
        }
        "Namespace" => json!([name(), object["status"]["phase"], age()]),
        "Event" => json!([
            self::age(&object["lastTimestamp"]),
            object["type"],
            object["reason"],
            format!(
                "{}/{}",
                object["involvedObject"]["kind"]
                    .as_str()
                    .unwrap_or_default()
                    .to_lowercase(),
                object["involvedObject"]["name"].as_str().unwrap_or_default()
            ),
            object["message"],
            name(),
        ]),
        "ConfigMap" => json!([name(), count(&["data", "binaryData"]), age()]),
        "Secret" => json!([name(), object["type"], count(&["data"]), age()]),
        "CronJob" => json!([
            name(),
            object["spec"]["schedule"],
            object["spec"]["suspend"].to_string(),
            age()
        ]),
        _ => json!([name(), age()]),
    };
    let mut row = json!({"cells": cells});
    match include {
        Include::Nothing => {}
        Include::Metadata => row["object"] = metadata_of(object),
        Include::Object => row["object"] = object.clone(),
    }
    row
}

fn node_status(node: &Value) -> String {
    let ready = node["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Ready" && c["status"] == "True");
    let mut text = if ready { "Ready" } else { "NotReady" }.to_owned();
    if node["spec"]["unschedulable"] == true {
        text.push_str(",SchedulingDisabled");
    }
    text
}

/// Ready containers, the most telling reason, restarts.
fn pod_summary(pod: &Value) -> (String, String, String) {
    let status = &pod["status"];
    let list = |name: &str| status[name].as_array().map_or(&[][..], Vec::as_slice);
    let mut reason = status["reason"]
        .as_str()
        .or(status["phase"].as_str())
        .unwrap_or("Unknown")
        .to_owned();
    let inits = list("initContainerStatuses");
    let total_inits = pod["spec"]["initContainers"].as_array().map_or(0, Vec::len);
    let mut initialising = false;
    for (index, init) in inits.iter().enumerate() {
        let done = init["state"]["terminated"]["exitCode"] == 0 || init["started"] == true;
        if done {
            continue;
        }
        initialising = true;
        reason = match state_reason(&init["state"]) {
            Some(why) if why != "PodInitializing" => format!("Init:{why}"),
            _ => format!("Init:{index}/{total_inits}"),
        };
        break;
    }
    let main = list("containerStatuses");
    if !initialising {
        let mut running = false;
        for container in main.iter().rev() {
            if let Some(why) = state_reason(&container["state"]) {
                reason = why;
            } else if container["ready"] == true {
                running = true;
            }
        }
        if reason == "Completed" && running {
            reason = "Running".to_owned();
        }
    }
    if pod["metadata"]["deletionTimestamp"].is_string() {
        reason = if status["reason"] == "NodeLost" {
            "Unknown"
        } else {
            "Terminating"
        }
        .to_owned();
    }
    let ready = main.iter().filter(|c| c["ready"] == true).count();
    let total = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    let restarts: i64 = main.iter().filter_map(|c| c["restartCount"].as_i64()).sum();
    (format!("{ready}/{total}"), reason, restarts.to_string())
}

fn state_reason(state: &Value) -> Option<String> {
    if let Some(why) = state["waiting"]["reason"].as_str() {
        return Some(why.to_owned());
    }
    let ended = state.get("terminated").filter(|t| t.is_object())?;
    match (ended["reason"].as_str(), ended["signal"].as_i64()) {
        (Some(why), _) if !why.is_empty() => Some(why.to_owned()),
        (_, Some(signal)) if signal != 0 => Some(format!("Signal:{signal}")),
        _ => Some(format!("ExitCode:{}", ended["exitCode"])),
    }
}

/// How long ago, in one unit or two, as kubectl shows it.
fn age(since: &Value) -> String {
    let Some(since) = since.as_str().and_then(|t| t.parse::<Timestamp>().ok()) else {
        return "<unknown>".to_owned();
    };
    let seconds = crate::clock::timestamp().duration_since(since).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 if seconds % 60 != 0 => format!("{minutes}m{}s", seconds % 60),
        120..10_800 => format!("{minutes}m"),
        10_800..28_800 if minutes % 60 != 0 => format!("{hours}h{}m", minutes % 60),
        10_800..172_800 => format!("{hours}h"),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_row_says_what_matters_most() {
        let mut pod = json!({
            "kind": "Pod", "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "m"}]},
            "status": {"phase": "Pending", "containerStatuses": [
                {"ready": false, "restartCount": 2, "state": {"waiting": {"reason": "ImagePullBackOff"}}}]},
        });
        assert_eq!(pod_summary(&pod), ("0/1".into(), "ImagePullBackOff".into(), "2".into()));
        pod["status"]["containerStatuses"][0]["state"] = json!({"terminated": {"exitCode": 3, "reason": "Error"}});
        assert_eq!(pod_summary(&pod).1, "Error");
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(pod_summary(&pod).1, "Terminating");
    }

    #[test]
    fn ages_read_like_kubectl() {
        let ago = |seconds: i64| {
            age(&json!(
                (crate::clock::timestamp() - jiff::SignedDuration::from_secs(seconds)).to_string()
            ))
        };
        assert_eq!(ago(5), "5s");
        assert_eq!(ago(150), "2m30s");
        assert_eq!(ago(660), "11m");
        assert_eq!(ago(3 * 86_400), "3d");
    }
}

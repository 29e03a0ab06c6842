//! From a field of a pod to the field of the pipeline that asked for it.

use serde_json::Value;
use windlass_pipeline::fragment::merge_key;
use windlass_pipeline::{Pipeline, ResolvedPipeline};

use super::walk::{Place, Segment};

/// What is written of a step: its own fields and those that it starts from.
#[derive(Debug)]
pub(crate) struct Written {
    /// Path of the step.
    step: String,
    /// Fields with the path at which they stand, what counts more first.
    parts: Vec<(String, Value)>,
}

impl Written {
    /// The step at `index` of a pipeline.
    pub(crate) fn of(pipeline: &Pipeline, index: usize) -> Self {
        let step = format!("steps[{index}]");
        let own = pipeline.steps.get(index).map(serde_json::to_value);
        let defaults = pipeline.defaults.as_ref().map(serde_json::to_value);
        let workspace = pipeline.workspace.as_ref().map(serde_json::to_value);
        let pod = serde_json::json!({"pod": {"annotations": pipeline.annotations}});
        let parts = [
            (step.clone(), own),
            ("defaults".to_owned(), defaults),
            ("workspace".to_owned(), workspace),
            (String::new(), Some(Ok(pod))),
        ];
        let parts = parts.into_iter().filter_map(|(path, part)| Some((path, part?.ok()?)));
        Self {
            step,
            parts: parts.collect(),
        }
    }

    /// The same of a pipeline of which only the merged form is known.
    pub(crate) fn of_resolved(resolved: &ResolvedPipeline, index: usize) -> Self {
        let step = format!("steps[{index}]");
        let template = resolved.sources.get(index);
        let template = template.and_then(|source| resolved.templates.get(source.template as usize));
        let merged = template.and_then(|template| serde_json::to_value(&template.merged).ok());
        let workspace = resolved
            .workspace
            .as_ref()
            .and_then(|one| serde_json::to_value(one).ok());
        let parts = [(step.clone(), merged), ("workspace".to_owned(), workspace)];
        let parts = parts.into_iter().filter_map(|(path, part)| Some((path, part?)));
        Self {
            step,
            parts: parts.collect(),
        }
    }

    /// Path of the field that stands for the field of the pod at `place`, or of the nearest above it that is there.
    pub(crate) fn locate(&self, place: &Place) -> String {
        let mut nearest = (0, self.step.clone());
        for (base, part) in &self.parts {
            for way in ways(place, base) {
                let (missing, path) = follow(part, &way, base);
                if missing == 0 {
                    return path;
                }
                // That there is an overlay says nothing.
                let overlay = if is_overlay(&way) { 2 } else { 0 };
                let followed = (way.len() - missing).saturating_sub(overlay);
                if followed > nearest.0 && *base != "workspace" {
                    nearest = (followed, path);
                }
            }
        }
        nearest.1
    }
}

/// Where the part of a pipeline at `base` may have what stands at `place` of a pod's spec, the most telling first.
fn ways(place: &Place, base: &str) -> Vec<Vec<Segment>> {
    let segments = place.0.as_slice();
    if base == "workspace" {
        let is_own = is_item(segments, "volumes", "windlass-workspace");
        let rest = segments.get(2..).unwrap_or_default();
        return is_own.then(|| below(&["volume"], rest)).into_iter().collect();
    }
    let mut ways = vec![below(&["pod", "overlay"], segments)];
    match field(segments, 0) {
        Some("containers") if is_item(segments, "containers", "main") => {
            let rest = &segments[2..];
            match field(rest, 0) {
                Some("env") => ways.push(rest.to_vec()),
                Some("securityContext") if field(rest, 1) == Some("privileged") => {
                    ways.push(below(&["pod"], &rest[1..]));
                    ways.push(below(&["pod"], rest));
                }
                Some(_) | None => ways.push(below(&["pod"], rest)),
            }
        }
        Some("initContainers") => {
            ways.push(below(&["pod", "sidecars"], &segments[1..]));
            ways.push(below(&["pod"], segments));
        }
        Some("securityContext") => ways.push(below(&["pod", "podSecurityContext"], &segments[1..])),
        Some("hostIPC") => ways.push(below(&["pod", "hostIpc"], &[])),
        // The setting has names, the pod objects.
        Some("imagePullSecrets") => ways.push(below(&["pod"], &segments[..segments.len().min(2)])),
        Some(_) | None => ways.push(below(&["pod"], segments)),
    }
    ways
}

fn is_overlay(way: &[Segment]) -> bool {
    field(way, 0) == Some("pod") && field(way, 1) == Some("overlay")
}

fn below(fields: &[&str], rest: &[Segment]) -> Vec<Segment> {
    let fields = fields.iter().map(|name| Segment::Field((*name).to_owned()));
    fields.chain(rest.iter().cloned()).collect()
}

fn field(segments: &[Segment], at: usize) -> Option<&str> {
    match segments.get(at)? {
        Segment::Field(name) => Some(name),
        Segment::Item { .. } => None,
    }
}

fn is_item(segments: &[Segment], list: &str, wanted: &str) -> bool {
    let item = segments.get(1);
    field(segments, 0) == Some(list) && matches!(item, Some(Segment::Item { key: Some(key), .. }) if key == wanted)
}

/// How many segments could not be followed, and the path up to there.
fn follow(part: &Value, way: &[Segment], base: &str) -> (usize, String) {
    let (mut value, mut path, mut list) = (part, base.to_owned(), "");
    for (done, segment) in way.iter().enumerate() {
        let next = match segment {
            Segment::Field(name) => {
                list = name;
                value.get(name).map(|next| (next, with_field(&path, name)))
            }
            Segment::Item { index, key } => {
                let found = position(value, list, *index, key.as_deref());
                found.and_then(|index| Some((value.get(index)?, format!("{path}[{index}]"))))
            }
        };
        match next {
            Some((next, longer)) => (value, path) = (next, longer),
            // The short form of a reference is the whole value.
            None if *segment == Segment::Field("valueFrom".to_owned()) && value.get("value").is_some() => {
                return (0, with_field(&path, "value"));
            }
            None => return (way.len() - done, path),
        }
    }
    (0, path)
}

/// The element with the key, in lists that are merged by one; else that at the position.
fn position(list: &Value, name: &str, index: usize, key: Option<&str>) -> Option<usize> {
    let elements = list.as_array()?;
    let Some(key) = key else {
        return Some(index);
    };
    let key_field = match name {
        // In a pipeline they are a list of their own.
        "sidecars" => "name",
        name => merge_key(name)?,
    };
    elements.iter().position(|element| match element {
        Value::String(text) => text == key,
        element => element.get(key_field).and_then(Value::as_str) == Some(key),
    })
}

fn with_field(path: &str, name: &str) -> String {
    let is_plain = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    match (path.is_empty(), is_plain) {
        (_, false) => format!("{path}[{}]", Value::from(name)),
        (true, true) => name.to_owned(),
        (false, true) => format!("{path}.{name}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use windlass_pipeline::source;

    use super::*;

    const PIPELINE: &str = "
name: churn
workspace: {volume: {hostPath: {path: /data}}}
annotations: {example.com/a: b}
defaults:
  env: [{name: A, valueFrom: {secretKeyRef: {name: warehouse, key: a}}}, {name: E, value: '{{warehouse.e}}'}]
  pod:
    imagePullSecrets: [one, two]
    overlay: {hostNetwork: true}
steps:
  - name: first
  - name: second
    env: [{name: B, valueFrom: {secretKeyRef: {name: warehouse, key: b}}}]
    pod:
      privileged: true
      serviceAccountName: trainer
      volumes: [{name: sets, hostPath: {path: /sets}}, {name: all, projected: {sources: [{secret: {name: s}}]}}]
      sidecars: [{name: proxy, securityContext: {privileged: true}}]
      initContainers: [{name: init, env: [{name: C, value: c}]}]
      podSecurityContext: {seccompProfile: {type: Unconfined}}
      overlay:
        containers: [{name: extra}, {name: main, env: [{name: D, valueFrom: {secretKeyRef: {name: d, key: d}}}]}]
";

    /// A place by its fields; `list:key:index` is an element.
    fn place(way: &str) -> Place {
        let mut place = Place::default();
        for part in way.split(' ') {
            let parts: Vec<_> = part.split(':').collect();
            match parts.as_slice() {
                [list, key, index] => {
                    let element = json!({merge_key(list).unwrap_or("name"): key});
                    place = place.field(list).item(list, index.parse().expect("a number"), &element);
                }
                _ => place = place.field(part),
            }
        }
        place
    }

    #[test]
    fn i9_a_field_of_a_pod_leads_to_what_was_written() {
        let pipeline = source::parse(PIPELINE).into_pipeline().expect("a pipeline");
        let steps = [Written::of(&pipeline, 0), Written::of(&pipeline, 1)];
        for (step, way, expected) in [
            (
                0,
                "containers:main:0 env:E:4 valueFrom secretKeyRef name",
                "defaults.env[1].value",
            ),
            (
                0,
                "containers:main:0 env:A:3 valueFrom secretKeyRef name",
                "defaults.env[0].valueFrom.secretKeyRef.name",
            ),
            (
                1,
                "containers:main:0 env:B:9 valueFrom secretKeyRef name",
                "steps[1].env[0].valueFrom.secretKeyRef.name",
            ),
            (
                1,
                "containers:main:0 env:D:2 valueFrom secretKeyRef name",
                "steps[1].pod.overlay.containers[1].env[0].valueFrom.secretKeyRef.name",
            ),
            (
                1,
                "containers:main:0 securityContext privileged",
                "steps[1].pod.privileged",
            ),
            (
                1,
                "initContainers:proxy:0 securityContext privileged",
                "steps[1].pod.sidecars[0].securityContext.privileged",
            ),
            (
                1,
                "initContainers:init:1 env:C:0 value",
                "steps[1].pod.initContainers[0].env[0].value",
            ),
            (
                1,
                "initContainers:init:1 securityContext",
                "steps[1].pod.initContainers[0]",
            ),
            (
                1,
                "volumes:sets:0 hostPath path",
                "steps[1].pod.volumes[0].hostPath.path",
            ),
            (
                1,
                "volumes:windlass-workspace:2 hostPath path",
                "workspace.volume.hostPath.path",
            ),
            (
                1,
                "securityContext seccompProfile type",
                "steps[1].pod.podSecurityContext.seccompProfile.type",
            ),
            (0, "hostNetwork", "defaults.pod.overlay.hostNetwork"),
            (0, "imagePullSecrets:two:0 name", "defaults.pod.imagePullSecrets[1]"),
            (1, "serviceAccountName", "steps[1].pod.serviceAccountName"),
            (0, "serviceAccountName", "defaults.pod"),
            (0, "annotations example.com/a", "pod.annotations[\"example.com/a\"]"),
        ] {
            assert_eq!(steps[step].locate(&place(way)), expected, "{way}");
        }
    }
}

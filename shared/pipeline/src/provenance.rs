//! Where each value of a step came from.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::fields;
use crate::merge::Merge as _;
use crate::resolve::inherited_by;
use crate::secret_reference;
use crate::substitute::references;
use crate::{DefaultRequests, Pipeline};

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Nobody set it: the default of Windlass.
    BuiltIn,
    /// The operator of the server.
    Operator,
    /// The pipeline's defaults, labels, annotations or cluster.
    Defaults,
    /// The step itself.
    Step,
    /// A parameter or matrix value that is substituted in it.
    Parameter,
}

impl Origin {
    /// As it stands in API messages, such as `BUILT_IN`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BuiltIn => "BUILT_IN",
            Self::Operator => "OPERATOR",
            Self::Defaults => "DEFAULTS",
            Self::Step => "STEP",
            Self::Parameter => "PARAMETER",
        }
    }
}

/// Origin of one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// Path of the field in the step, such as `pod.resources.limits.memory`; elements of keyed lists by their key, `env.PASSWORD`.
    pub path: String,
    /// Where its value came from.
    pub origin: Origin,
}

/// Where each value of the step at `position` of `pipeline.steps` came from, by path, when the operator wants `default_requests`. Empty
/// when there is no such step.
pub fn provenance(pipeline: &Pipeline, position: usize, default_requests: &DefaultRequests) -> Vec<Provenance> {
    let Some(step) = pipeline.steps.get(position) else {
        return Vec::new();
    };
    let mut merged = inherited_by(pipeline, step);
    let mut own = step.template.clone();
    secret_reference::expand(&mut own);
    merged.merge(&own);
    let own = serde_json::to_value(&own).unwrap_or_default();
    let parameters = pipeline.parameters.iter().map(|parameter| parameter.name.as_str());
    let walk = Walk {
        names: parameters
            .chain(step.matrix.iter().map(|axis| axis.name.as_str()))
            .collect(),
    };
    let mut found = Vec::new();
    walk.value(
        &serde_json::to_value(&merged).unwrap_or_default(),
        Some(&own),
        "",
        &mut found,
    );
    let set: BTreeSet<String> = found.iter().map(|provenance| provenance.path.clone()).collect();
    let built_in = fields::flattened("StepDefaults")
        .into_iter()
        // The default of `attempts` depends on its budget, so that the table has none.
        .filter(|(_, field)| field.default.is_some() || field.name == "attempts")
        .filter(|(path, _)| !path.contains("[]") && !set.contains(path));
    found.extend(built_in.map(|(path, _)| Provenance {
        path,
        origin: Origin::BuiltIn,
    }));
    let requested = default_requests
        .keys()
        .map(|name| format!("pod.resources.requests.{name}"));
    found.extend(requested.filter(|path| !set.contains(path)).map(|path| Provenance {
        path,
        origin: Origin::Operator,
    }));
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

struct Walk<'p> {
    /// Names that are substituted in texts.
    names: BTreeSet<&'p str>,
}

impl Walk<'_> {
    fn value(&self, value: &Value, own: Option<&Value>, path: &str, found: &mut Vec<Provenance>) {
        let below = |key: &str| {
            if path.is_empty() {
                key.to_owned()
            } else {
                format!("{path}.{key}")
            }
        };
        match value {
            Value::Object(entries) if !entries.is_empty() => {
                for (key, value) in entries {
                    self.value(value, own.and_then(|own| own.get(key)), &below(key), found);
                }
            }
            Value::Array(items) if items.iter().all(|item| key_of(item).is_some()) && !items.is_empty() => {
                for item in items {
                    let key = key_of(item).unwrap_or_default();
                    let own = own.and_then(Value::as_array).into_iter().flatten();
                    let own = own.into_iter().find(|own| key_of(own) == Some(key));
                    found.push(self.leaf(item, own, below(key)));
                }
            }
            leaf => found.push(self.leaf(leaf, own, path.to_owned())),
        }
    }

    fn leaf(&self, value: &Value, own: Option<&Value>, path: String) -> Provenance {
        let origin = match own {
            _ if path != "script" && self.is_substituted(value) => Origin::Parameter,
            Some(_) => Origin::Step,
            None => Origin::Defaults,
        };
        Provenance { path, origin }
    }

    fn is_substituted(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => references(text).any(|name| self.names.contains(name)),
            Value::Array(items) => items.iter().any(|item| self.is_substituted(item)),
            Value::Object(entries) => Map::values(entries).any(|value| self.is_substituted(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
}

/// The key by which the elements of a list are merged.
fn key_of(item: &Value) -> Option<&str> {
    let key = item.get("mountPath").or_else(|| item.get("name"));
    key?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::parse;

    /// behaviours R2, T3
    #[test]
    fn every_value_says_where_it_came_from() {
        let text = "
name: a
labels: {team: ml}
parameters: [{name: TAG, default: v1}]
defaults:
  image: acme:$(TAG)
  env: [{name: A, value: x}, {name: B, value: x}]
  pod: {tolerations: [{operator: Exists}], resources: {limits: {memory: 1Gi, cpu: 1}}}
steps:
  - name: s
    command: [run]
    env: [{name: B, value: y}]
    unset: [pod.tolerations]
    timeout: 5m
    pod: {resources: {limits: {memory: 2Gi}}}
";
        let pipeline = parse(text).into_pipeline().expect("pipeline");
        let wanted = crate::parse_default_requests(["memory=400Mi"]).expect("requests");
        let lines: Vec<String> = provenance(&pipeline, 0, &wanted)
            .into_iter()
            .map(|provenance| format!("{} {}", provenance.path, provenance.origin.as_str()))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        acceptExitZeroWhenTerminated BUILT_IN
        command STEP
        deadlines.admitted BUILT_IN
        deadlines.created BUILT_IN
        deadlines.initialising BUILT_IN
        deadlines.pulling BUILT_IN
        deadlines.scheduled BUILT_IN
        deadlines.terminating BUILT_IN
        env.A DEFAULTS
        env.B STEP
        image PARAMETER
        logs.follow BUILT_IN
        lostContact.deadline BUILT_IN
        lostContact.then BUILT_IN
        pod.automountServiceAccountToken BUILT_IN
        pod.hostIpc BUILT_IN
        pod.labels.team DEFAULTS
        pod.privileged BUILT_IN
        pod.resources.limits.cpu DEFAULTS
        pod.resources.limits.memory STEP
        pod.resources.requests.memory OPERATOR
        retries.infrastructure.attempts BUILT_IN
        retries.infrastructure.backoff BUILT_IN
        retries.infrastructure.delay BUILT_IN
        retries.infrastructure.maxDelay BUILT_IN
        retries.user.attempts BUILT_IN
        retries.user.backoff BUILT_IN
        retries.user.delay BUILT_IN
        retries.user.maxDelay BUILT_IN
        runIf BUILT_IN
        terminationGrace BUILT_IN
        timeout STEP
        "#);
        assert_eq!(provenance(&pipeline, 1, &wanted), []);
    }
}

//! Merging of a step with the defaults: by presence, so that only what was set counts (behaviours E13).
//!
//! Scalars replace; maps merge key by key; `env` and `volumes` merge by name, `volumeMounts` by mountPath, other lists replace. What a
//! step runs is one thing: its `script` replaces an inherited `command` with its `args`, and the other way round.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Fragment;
use crate::model::{Deadlines, EnvVar, Logs, LostContact, PodSettings, Resources, Retries, RetryBudget, StepTemplate};

/// Something that can be laid over what is inherited.
pub(crate) trait Merge {
    /// Lays `over` on top.
    fn merge(&mut self, over: &Self);
}

macro_rules! merge_fields {
    ($($name:ident { $(replace: $($replace:ident)*;)? $(nest: $($nest:ident)*;)? $(list: $($list:ident)*;)? $(map: $($map:ident)*;)? })*) => {$(
        impl Merge for $name {
            fn merge(&mut self, over: &Self) {
                $($(replace(&mut self.$replace, &over.$replace);)*)?
                $($(nest(&mut self.$nest, &over.$nest);)*)?
                $($(replace_list(&mut self.$list, &over.$list);)*)?
                $($(merge_map(&mut self.$map, &over.$map);)*)?
            }
        }
    )*};
}

merge_fields! {
    Retries { nest: user infrastructure; }
    RetryBudget { replace: attempts delay backoff max_delay; list: exit_codes; }
    LostContact { replace: deadline then; }
    Deadlines { replace: admitted created scheduled pulling initialising terminating; }
    Logs { replace: follow; }
    Resources { map: requests limits; }
}

impl Merge for StepTemplate {
    fn merge(&mut self, over: &Self) {
        if over.script.is_some() {
            self.command.clear();
            self.args.clear();
        }
        if !over.command.is_empty() || !over.args.is_empty() {
            self.script = None;
        }
        replace(&mut self.image, &over.image);
        replace_list(&mut self.command, &over.command);
        replace_list(&mut self.args, &over.args);
        replace(&mut self.script, &over.script);
        merge_by(&mut self.env, &over.env, |variable: &EnvVar| {
            Some(variable.name.clone())
        });
        replace(&mut self.working_dir, &over.working_dir);
        replace(&mut self.run_if, &over.run_if);
        replace(&mut self.timeout, &over.timeout);
        nest(&mut self.retries, &over.retries);
        nest(&mut self.lost_contact, &over.lost_contact);
        nest(&mut self.deadlines, &over.deadlines);
        replace(&mut self.termination_grace, &over.termination_grace);
        replace(&mut self.cluster, &over.cluster);
        nest(&mut self.logs, &over.logs);
        replace(
            &mut self.accept_exit_zero_when_terminated,
            &over.accept_exit_zero_when_terminated,
        );
        nest(&mut self.pod, &over.pod);
    }
}

impl Merge for PodSettings {
    fn merge(&mut self, over: &Self) {
        nest(&mut self.resources, &over.resources);
        merge_map(&mut self.node_selector, &over.node_selector);
        nest(&mut self.affinity, &over.affinity);
        replace_list(&mut self.tolerations, &over.tolerations);
        merge_map(&mut self.labels, &over.labels);
        merge_map(&mut self.annotations, &over.annotations);
        merge_by(&mut self.volumes, &over.volumes, |volume| key_of(volume, "name"));
        merge_by(&mut self.volume_mounts, &over.volume_mounts, |mount| {
            key_of(mount, "mountPath")
        });
        replace_list(&mut self.env_from, &over.env_from);
        replace_list(&mut self.image_pull_secrets, &over.image_pull_secrets);
        replace(&mut self.image_pull_policy, &over.image_pull_policy);
        replace(&mut self.service_account_name, &over.service_account_name);
        replace(
            &mut self.automount_service_account_token,
            &over.automount_service_account_token,
        );
        self.clear_privileged(over);
        nest(&mut self.security_context, &over.security_context);
        nest(&mut self.pod_security_context, &over.pod_security_context);
        replace(&mut self.privileged, &over.privileged);
        replace(&mut self.host_ipc, &over.host_ipc);
        replace(&mut self.priority_class_name, &over.priority_class_name);
        replace(&mut self.scheduler_name, &over.scheduler_name);
        replace(&mut self.runtime_class_name, &over.runtime_class_name);
        merge_by(&mut self.init_containers, &over.init_containers, |container| {
            key_of(container, "name")
        });
        merge_by(&mut self.sidecars, &over.sidecars, |container| {
            key_of(container, "name")
        });
        nest(&mut self.overlay, &over.overlay);
    }
}

impl PodSettings {
    /// `privileged` and `securityContext.privileged` are one setting in two spellings: what is laid over replaces both.
    fn clear_privileged(&mut self, over: &Self) {
        const FIELD: &str = "privileged";
        let inner = over
            .security_context
            .as_ref()
            .and_then(|context| context.value().get(FIELD));
        if inner.is_none() && over.privileged.is_none() {
            return;
        }
        self.privileged = None;
        let Some(context) = self
            .security_context
            .as_mut()
            .and_then(|context| context.value_mut().as_object_mut())
        else {
            return;
        };
        context.shift_remove(FIELD);
        if context.is_empty() {
            // As without a context, nothing may gain rights.
            self.security_context = None;
        }
    }
}

impl Merge for Fragment {
    /// Maps merge, everything else replaces.
    fn merge(&mut self, over: &Self) {
        merge_value(self.value_mut(), over.value());
    }
}

fn merge_value(under: &mut Value, over: &Value) {
    let (Value::Object(under), Value::Object(over)) = (&mut *under, over) else {
        *under = over.clone();
        return;
    };
    for (key, value) in over {
        match under.get_mut(key) {
            Some(inherited) => merge_value(inherited, value),
            None => {
                under.insert(key.clone(), value.clone());
            }
        }
    }
    under.sort_keys();
}

fn replace<T: Clone>(under: &mut Option<T>, over: &Option<T>) {
    if over.is_some() {
        under.clone_from(over);
    }
}

fn nest<T: Clone + Merge>(under: &mut Option<T>, over: &Option<T>) {
    match (under, over) {
        (Some(under), Some(over)) => under.merge(over),
        (under, Some(_)) => under.clone_from(over),
        (_, None) => {}
    }
}

fn replace_list<T: Clone>(under: &mut Vec<T>, over: &Vec<T>) {
    if !over.is_empty() {
        under.clone_from(over);
    }
}

fn merge_map<T: Clone>(under: &mut BTreeMap<String, T>, over: &BTreeMap<String, T>) {
    for (key, value) in over {
        under.insert(key.clone(), value.clone());
    }
}

/// Elements with the key of an inherited one replace it in its place, others are appended.
fn merge_by<T: Clone>(under: &mut Vec<T>, over: &[T], key: impl Fn(&T) -> Option<String>) {
    for element in over {
        let wanted = key(element);
        let inherited = under
            .iter_mut()
            .find(|inherited| wanted.is_some() && key(inherited) == wanted);
        match inherited {
            Some(inherited) => *inherited = element.clone(),
            None => under.push(element.clone()),
        }
    }
}

fn key_of(fragment: &Fragment, key: &str) -> Option<String> {
    fragment.text(key).map(str::to_owned)
}

/// Why a path of `unset` drops nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnsetError {
    /// Nothing of that name is inherited.
    NotInherited,
}

/// Drops the field at `path`, such as `pod.tolerations`, `env.PASSWORD` or `pod.nodeSelector.gpu`, from what is inherited.
///
/// # Errors
/// Nothing at that path is inherited.
pub(crate) fn unset(defaults: &StepTemplate, path: &str) -> Result<StepTemplate, UnsetError> {
    let mut value = serde_json::to_value(defaults).map_err(|_| UnsetError::NotInherited)?;
    if !remove(&mut value, path) {
        return Err(UnsetError::NotInherited);
    }
    serde_json::from_value(value).map_err(|_| UnsetError::NotInherited)
}

fn remove(value: &mut Value, path: &str) -> bool {
    match value {
        Value::Object(entries) => {
            // Keys may hold dots: the whole rest is tried first.
            if entries.shift_remove(path).is_some() {
                return true;
            }
            let dots = path.match_indices('.').map(|(at, _)| at);
            dots.into_iter().any(|at| match entries.get_mut(&path[..at]) {
                Some(inner) => remove(inner, &path[at + 1..]),
                None => false,
            })
        }
        Value::Array(items) => {
            let before = items.len();
            let is_meant = |item: &Value| {
                let keys = ["name", "mountPath"].iter().filter_map(|key| item.get(key)?.as_str());
                keys.into_iter().any(|key| key == path)
            };
            items.retain(|item| !is_meant(item));
            items.len() < before
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(value: Value) -> StepTemplate {
        serde_json::from_value(value).expect("a template")
    }

    fn merged(defaults: Value, step: Value) -> Value {
        let mut under = template(defaults);
        under.merge(&template(step));
        serde_json::to_value(under).expect("json")
    }

    /// behaviours R4, R6, E19
    #[test]
    fn e13_a_step_resets_nothing_that_it_does_not_set() {
        let defaults =
            json!({"pod": {"privileged": true, "tolerations": [{"operator": "Exists"}], "labels": {"a": "1"}}});
        let step = json!({"pod": {"serviceAccountName": "builder", "labels": {"b": "2"}}});
        assert_eq!(
            merged(defaults, step),
            json!({"pod": {
                "tolerations": [{"operator": "Exists"}], "labels": {"a": "1", "b": "2"},
                "serviceAccountName": "builder", "privileged": true,
            }})
        );
    }

    #[test]
    fn e13_both_spellings_of_privileged_are_one_setting() {
        let pod = |defaults: Value, step: Value| merged(json!({"pod": defaults}), json!({"pod": step}))["pod"].clone();
        let inner = |privileged: bool| json!({"securityContext": {"privileged": privileged}});
        let outer = |privileged: bool| json!({"privileged": privileged});
        assert_eq!(pod(outer(true), inner(false)), inner(false));
        assert_eq!(pod(inner(true), outer(false)), outer(false));
        assert_eq!(
            pod(
                json!({"securityContext": {"privileged": true, "runAsUser": 1}}),
                outer(false)
            ),
            json!({"securityContext": {"runAsUser": 1}, "privileged": false})
        );
        assert_eq!(
            pod(outer(true), json!({"securityContext": {"runAsUser": 1}})),
            json!({"securityContext": {"runAsUser": 1}, "privileged": true})
        );
    }

    /// behaviours R3
    #[test]
    fn lists_merge_by_their_key_or_replace() {
        let defaults = json!({
            "args": ["a"],
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}],
            "pod": {"volumeMounts": [{"name": "v", "mountPath": "/v"}], "tolerations": [{"key": "a"}]},
        });
        let step = json!({
            "args": ["b"],
            "env": [{"name": "A", "value": "2"}, {"name": "C", "value": "2"}],
            "pod": {"volumeMounts": [{"name": "w", "mountPath": "/v"}], "tolerations": [{"key": "b"}]},
        });
        assert_eq!(
            merged(defaults, step),
            json!({
                "args": ["b"],
                "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "1"}, {"name": "C", "value": "2"}],
                "pod": {"tolerations": [{"key": "b"}], "volumeMounts": [{"name": "w", "mountPath": "/v"}]},
            })
        );
    }

    #[test]
    fn a_script_replaces_an_inherited_command() {
        let defaults = json!({"command": ["a"], "args": ["b"]});
        assert_eq!(merged(defaults, json!({"script": "c"})), json!({"script": "c"}));
        assert_eq!(
            merged(json!({"script": "c"}), json!({"args": ["b"]})),
            json!({"args": ["b"]})
        );
    }

    #[test]
    fn unset_drops_fields_elements_and_keys() {
        let defaults = template(json!({
            "image": "a", "env": [{"name": "A"}, {"name": "B"}],
            "pod": {"nodeSelector": {"cloud.google.com/gpu": "a"}, "resources": {"limits": {"memory": "1Gi"}}},
        }));
        let after = |path: &str| unset(&defaults, path).map(|left| serde_json::to_value(left).expect("json"));
        assert_eq!(after("image").expect("there").get("image"), None);
        assert_eq!(after("env.A").expect("there")["env"], json!([{"name": "B"}]));
        assert_eq!(
            after("pod.nodeSelector.cloud.google.com/gpu").expect("there")["pod"].get("nodeSelector"),
            None
        );
        assert_eq!(
            after("pod.resources.limits.memory").expect("there")["pod"]["resources"],
            json!({})
        );
        assert_eq!(after("pod.tolerations"), Err(UnsetError::NotInherited));
    }
}

//! Checks of what must fit together once defaults and step are merged.

use std::collections::{BTreeMap, HashSet};

use super::mount_place;
use super::step::is_delay_bounded;
use crate::Fragment;
use crate::model::{PodSettings, Quantity, Retries, RetryBudget, StepTemplate};
use crate::path::Path;
use crate::quantity;
use crate::violation::{Code, Violations};

/// What Windlass adds to the pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Provided<'a> {
    /// Where the workspace is mounted.
    pub(crate) workspace: Option<&'a str>,
    /// Whether there are files or a script.
    pub(crate) files: bool,
}

/// Checks the merged form of a step that says `own` itself.
pub(crate) fn check_fit(
    merged: &StepTemplate,
    own: &StepTemplate,
    provided: &Provided<'_>,
    path: &Path<'_>,
    violations: &mut Violations,
) {
    if merged.image.is_none() {
        let message = "the step has no image; set it here or in defaults";
        violations.add(path.field("image").to_string(), Code::Missing, message);
    }
    check_budgets(merged, own, path, violations);
    let Some(pod) = &merged.pod else {
        return;
    };
    let path = path.field("pod");
    if let Some(resources) = &pod.resources {
        let path = path.field("resources");
        check_requests(
            &resources.requests,
            &resources.limits,
            &path.field("requests"),
            violations,
        );
    }
    check_mounts(pod, provided, &path, violations);
    check_container_names(pod, &path, violations);
}

/// A delay and its bound may come from different layers.
fn check_budgets(merged: &StepTemplate, own: &StepTemplate, path: &Path<'_>, violations: &mut Violations) {
    let (Some(merged), Some(own)) = (&merged.retries, &own.retries) else {
        return;
    };
    let path = path.field("retries");
    let budgets = |retries: &Retries| [retries.user.clone(), retries.infrastructure.clone()];
    let both = budgets(merged).into_iter().zip(budgets(own));
    for (field, (merged, own)) in ["user", "infrastructure"].into_iter().zip(both) {
        let (
            Some(RetryBudget {
                delay: Some(delay),
                max_delay: Some(longest),
                ..
            }),
            Some(own),
        ) = (&merged, &own)
        else {
            continue;
        };
        if longest < delay && is_delay_bounded(own) && (own.delay.is_some() || own.max_delay.is_some()) {
            let message =
                format!("with what is inherited, maxDelay {longest} is shorter than delay {delay}; set both here");
            violations.add(path.field(field).field("maxDelay").to_string(), Code::BadValue, message);
        }
    }
}

fn check_requests(
    requests: &BTreeMap<String, Quantity>,
    limits: &BTreeMap<String, Quantity>,
    path: &Path<'_>,
    violations: &mut Violations,
) {
    for (name, request) in requests {
        let limit = limits.get(name);
        let amounts = limit.and_then(|limit| Some((quantity::parse(&request.0)?, quantity::parse(&limit.0)?)));
        if let (Some(limit), Some((wanted, bound))) = (limit, amounts)
            && wanted > bound
        {
            let message = format!("the request {request} is above the limit {limit}");
            violations.add(path.field(name).to_string(), Code::BadValue, message);
        }
    }
}

fn check_mounts(pod: &PodSettings, provided: &Provided<'_>, path: &Path<'_>, violations: &mut Violations) {
    // Merged mounts have other positions than written ones.
    let path = path.field("volumeMounts").to_string();
    let in_overlay = pod
        .overlay
        .as_ref()
        .and_then(|overlay| overlay.value().get("volumes")?.as_array());
    let overlaid = in_overlay
        .into_iter()
        .flatten()
        .filter_map(|volume| volume.get("name")?.as_str());
    let own = [
        ("windlass-workspace", provided.workspace.is_some()),
        ("windlass-files", provided.files),
    ];
    let own = own.into_iter().filter(|(_, there)| *there).map(|(name, _)| name);
    let volumes: HashSet<&str> = pod
        .volumes
        .iter()
        .filter_map(|volume| volume.text("name"))
        .chain(overlaid)
        .chain(own)
        .collect();
    let workspace = provided.workspace.and_then(mount_place);
    for mount in &pod.volume_mounts {
        if let Some(name) = mount
            .text("name")
            .filter(|name| !name.is_empty() && !volumes.contains(name))
        {
            violations.add(path.clone(), Code::BadValue, format!("there is no volume {name}"));
        }
        if let Some(place) = mount.text("mountPath")
            && workspace.is_some()
            && mount_place(place) == workspace
        {
            let message = format!("the workspace is mounted at {place}; choose another place for one of them");
            violations.add(path.clone(), Code::Conflict, message);
        }
    }
}

/// Sidecars are init containers that go on, so that all of them share their names.
fn check_container_names(pod: &PodSettings, path: &Path<'_>, violations: &mut Violations) {
    let names = |containers: &[Fragment]| -> HashSet<String> {
        let names = containers.iter().filter_map(|container| container.text("name"));
        names.map(str::to_owned).collect()
    };
    let sidecars = names(&pod.sidecars);
    let mut shared: Vec<_> = names(&pod.init_containers).intersection(&sidecars).cloned().collect();
    shared.sort_unstable();
    for name in shared {
        let message = format!("there is an init container {name}, too; containers of a pod have names of their own");
        violations.add(path.field("sidecars").to_string(), Code::Duplicate, message);
    }
}

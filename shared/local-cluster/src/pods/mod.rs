//! What is special about pods in the API: defaults, validation, what an update may change.

mod defaults;
mod update;
mod validate;

pub(crate) use defaults::apply as apply_defaults;
pub(crate) use update::check as check_update;
pub(crate) use validate::{problems, quantity};

use serde_json::Value;

/// Whether the pod's phase is final.
pub(crate) fn is_terminal(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// Containers of both lists with the path of each list.
pub(crate) fn all_containers(pod: &Value) -> impl Iterator<Item = (&'static str, usize, &Value)> {
    ["initContainers", "containers"].into_iter().flat_map(move |list| {
        pod["spec"][list]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
            .map(move |(index, container)| (list, index, container))
    })
}

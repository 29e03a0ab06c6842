//! Which Secrets a pod gets values from: what their values are must not be seen in its logs.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::wire::{Container, Spec, Text, Volume};

/// A Secret that a pod uses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretUse {
    /// Name of the Secret.
    pub name: Box<str>,
    /// The key; all of them when none.
    pub key: Option<Box<str>>,
}

/// The Secrets that a pod's containers get values from, as variables or as files; none for most pods. Those for pulling images are not
/// seen by containers.
pub(crate) fn secret_uses(spec: &Spec<'_>) -> Option<Arc<[SecretUse]>> {
    let mut uses = BTreeSet::new();
    let containers = read::<Container<'_>>(spec.containers);
    for container in containers.iter().chain(&spec.init_containers) {
        let keys = container
            .env
            .iter()
            .filter_map(|variable| variable.value_from.secret_key_ref.as_ref());
        uses.extend(keys.map(|key| of(&key.name, Some(&key.key))));
        let lots = container.env_from.iter().filter_map(|lot| lot.secret_ref.as_ref());
        uses.extend(lots.map(|secret| of(&secret.name, None)));
    }
    for volume in read::<Volume<'_>>(spec.volumes) {
        uses.extend(volume.secret.iter().map(|secret| of(&secret.secret_name, None)));
        let parts = volume.projected.sources.iter().filter_map(|part| part.secret.as_ref());
        uses.extend(parts.map(|secret| of(&secret.name, None)));
    }
    (!uses.is_empty()).then(|| uses.into_iter().collect())
}

/// The items of a list; the API server has checked what it serves.
fn read<'a, T: Deserialize<'a>>(list: Option<&'a RawValue>) -> Vec<T> {
    let read = list.map(|list| serde_json::from_str(list.get())).transpose();
    read.unwrap_or_else(|error| {
        tracing::error!(%error, "a part of a pod cannot be read; values of its Secrets are not masked");
        None
    })
    .unwrap_or_default()
}

fn of(name: &Text<'_>, key: Option<&Text<'_>>) -> SecretUse {
    SecretUse {
        name: name.as_str().into(),
        key: key.map(|key| key.as_str().into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_into_a_container_is_found() {
        let spec = json!({
            "containers": [{
                "name": "main",
                "env": [
                    {"name": "A", "value": "a"},
                    {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "C", "valueFrom": {"secretKeyRef": {"name": "one", "key": "c"}}},
                    {"name": "D", "valueFrom": {"secretKeyRef": {"name": "one", "key": "c"}}},
                ],
                "envFrom": [{"configMapRef": {"name": "no"}}, {"secretRef": {"name": "two"}}],
            }],
            "initContainers": [
                {"name": "init", "env": [{"name": "C", "valueFrom": {"secretKeyRef": {"name": "three", "key": "c"}}}]},
            ],
            "volumes": [
                {"name": "v", "emptyDir": {}},
                {"name": "w", "secret": {"secretName": "four"}},
                {"name": "x", "projected": {"sources": [{"serviceAccountToken": {}}, {"secret": {"name": "five"}}]}},
            ],
            "imagePullSecrets": [{"name": "no"}],
        })
        .to_string();
        let spec: Spec<'_> = serde_json::from_str(&spec).expect("a spec");
        let uses = secret_uses(&spec).expect("some");
        let found: Vec<_> = uses.iter().map(|one| (&*one.name, one.key.as_deref())).collect();
        let expected = [
            ("five", None),
            ("four", None),
            ("one", Some("c")),
            ("three", Some("c")),
            ("two", None),
        ];
        assert_eq!(found, expected);
        assert_eq!(secret_uses(&Spec::default()), None);
    }
}

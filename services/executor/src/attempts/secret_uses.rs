//! Which Secrets a pod gets values from: what their values are must not be seen in its logs.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::wire::{Spec, Text};

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
    let containers = || spec.containers.iter().chain(&spec.init_containers);
    let keys = containers()
        .flat_map(|container| &container.env)
        .filter_map(|variable| variable.value_from.secret_key_ref.as_ref())
        .map(|key| (&key.name, Some(&key.key)));
    let lots = containers()
        .flat_map(|container| &container.env_from)
        .filter_map(|lot| lot.secret_ref.as_ref())
        .map(|secret| (&secret.name, None));
    let volumes = spec
        .volumes
        .iter()
        .filter_map(|volume| volume.secret.as_ref())
        .map(|secret| (&secret.secret_name, None));
    let projections = spec
        .volumes
        .iter()
        .flat_map(|volume| &volume.projected.sources)
        .filter_map(|part| part.secret.as_ref())
        .map(|secret| (&secret.name, None));
    let uses: BTreeSet<SecretUse> = keys.chain(lots).chain(volumes).chain(projections).map(of).collect();
    (!uses.is_empty()).then(|| uses.into_iter().collect())
}

fn of((name, key): (&Text<'_>, Option<&Text<'_>>)) -> SecretUse {
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

//! Templates of steps and the concrete steps that are made from them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Policy;
use crate::model::{EnvVar, PodSettings, StepTemplate};
use crate::path::Path;
use crate::substitute::{escape, substitute};
use crate::texts::for_each_text;

/// Everything that the instances of a step, and equal steps, have in common; `$(NAME)` is not yet substituted in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedTemplate {
    /// Defaults and step, merged; labels and annotations of the pipeline are in `pod`.
    pub merged: StepTemplate,
    /// Values of the parameters that it refers to; of all parameters when it has a script.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
}

/// What distinguishes a step from others with the same template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StepOverlay {
    /// Name of the step in the file, before expansion.
    pub step: String,
    /// Values of its matrix axes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matrix: Vec<(String, String)>,
}

/// A concrete step: what becomes a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepSpec {
    /// Name after expansion.
    pub name: String,
    /// Name in the file.
    pub step: String,
    /// Values of its matrix axes.
    pub matrix: Vec<(String, String)>,
    /// Container image.
    pub image: String,
    /// Entrypoint; the image's own when empty. Kubernetes still expands `$(VAR)` and `$$` in it, as in `args` and `env`.
    pub command: Vec<String>,
    /// Arguments.
    pub args: Vec<String>,
    /// A shell script instead of a command; parameters and matrix values are in `env` for it.
    pub script: Option<String>,
    /// Environment variables; names are unique.
    pub env: Vec<EnvVar>,
    /// Working directory, when the step sets one.
    pub working_dir: Option<String>,
    /// Alias of the cluster, when the step, the defaults or the pipeline name one.
    pub cluster: Option<String>,
    /// Retries, deadlines and conditions.
    pub policy: Policy,
    /// Settings of the pod.
    pub pod: PodSettings,
}

impl StepTemplate {
    /// Keys of the run's secrets that it names, each with the position of its variable.
    pub fn run_secrets(&self) -> impl Iterator<Item = (usize, &str)> {
        let variables = self.env.iter().enumerate();
        variables.filter_map(|(index, variable)| {
            let selector = variable.value_from.as_ref()?.run_secret_key_ref.as_ref()?;
            Some((index, selector.key.as_str()))
        })
    }
}

impl ResolvedTemplate {
    /// Keys of the run's secrets that every step with this template uses.
    pub fn run_secrets(&self) -> impl Iterator<Item = &str> {
        self.merged.run_secrets().map(|(_, key)| key)
    }

    /// Retries, deadlines and conditions of every step with this template.
    pub fn policy(&self) -> Policy {
        Policy::of(&self.merged)
    }

    /// The concrete step with this name and overlay.
    pub fn spec(&self, name: &str, overlay: &StepOverlay) -> StepSpec {
        let policy = self.policy();
        let merged = self.substituted(overlay);
        let mut env = Vec::new();
        if merged.script.is_some() {
            env = self.script_env(overlay, &merged.env);
        }
        env.extend(merged.env);
        StepSpec {
            name: name.to_owned(),
            step: overlay.step.clone(),
            matrix: overlay.matrix.clone(),
            image: merged.image.unwrap_or_default(),
            command: merged.command,
            args: merged.args,
            script: merged.script,
            env,
            working_dir: merged.working_dir,
            cluster: merged.cluster,
            policy,
            pod: merged.pod.unwrap_or_default(),
        }
    }

    /// The merged template with parameters and matrix values in place.
    pub(crate) fn substituted(&self, overlay: &StepOverlay) -> StepTemplate {
        let mut merged = self.merged.clone();
        for_each_text(&mut merged, Path::root(), &mut |_, expansion, text| {
            if text.contains('$') {
                *text = substitute(text, expansion, |name| self.value(overlay, name));
            }
        });
        merged
    }

    fn value<'a>(&'a self, overlay: &'a StepOverlay, name: &str) -> Option<&'a str> {
        let axis = overlay.matrix.iter().find(|(axis, _)| axis == name);
        axis.map(|(_, value)| value.as_str())
            .or_else(|| self.variables.get(name).map(String::as_str))
    }

    /// Parameters and matrix values as variables; the step's own variables of the same name win.
    fn script_env(&self, overlay: &StepOverlay, own: &[EnvVar]) -> Vec<EnvVar> {
        let matrix = overlay.matrix.iter().map(|(name, value)| (name, value));
        self.variables
            .iter()
            .chain(matrix)
            .filter(|(name, _)| own.iter().all(|variable| variable.name != **name))
            .map(|(name, value)| EnvVar {
                name: name.clone(),
                value: Some(escape(value)),
                value_from: None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(merged: StepTemplate) -> ResolvedTemplate {
        let variables = [("LR", "0.01"), ("EVIL", "$(HOME); $$")];
        ResolvedTemplate {
            merged,
            variables: variables
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        }
    }

    fn overlay() -> StepOverlay {
        StepOverlay {
            step: "train".to_owned(),
            matrix: vec![("FOLD".to_owned(), "3".to_owned())],
        }
    }

    #[test]
    fn values_are_literal_wherever_they_land() {
        let merged = StepTemplate {
            image: Some("acme:$(LR)-$$(LR)".to_owned()),
            command: ["--lr=$(LR)", "--fold=$(FOLD)", "$(HOME)", "$$(LR)", "$(EVIL)"]
                .map(str::to_owned)
                .into(),
            working_dir: Some("/$(EVIL)".to_owned()),
            ..StepTemplate::default()
        };
        let spec = template(merged).spec("train.3", &overlay());
        assert_eq!(spec.image, "acme:0.01-$(LR)");
        // Kubernetes turns `$$` into `$` in commands, so that the value arrives as it was given.
        assert_eq!(
            spec.command,
            ["--lr=0.01", "--fold=3", "$(HOME)", "$$(LR)", "$$(HOME); $$$$"]
        );
        assert_eq!(spec.working_dir.as_deref(), Some("/$(HOME); $$"));
        assert_eq!(spec.env, []);
    }

    #[test]
    fn a_script_gets_its_values_from_the_environment_only() {
        let merged = StepTemplate {
            script: Some("echo $(LR) $FOLD".to_owned()),
            env: vec![EnvVar {
                name: "LR".to_owned(),
                value: Some("own".to_owned()),
                value_from: None,
            }],
            ..StepTemplate::default()
        };
        let spec = template(merged).spec("train.3", &overlay());
        assert_eq!(spec.script.as_deref(), Some("echo $(LR) $FOLD"));
        let env: Vec<_> = spec
            .env
            .iter()
            .map(|variable| (variable.name.as_str(), variable.value.as_deref().unwrap_or_default()))
            .collect();
        assert_eq!(env, [("EVIL", "$$(HOME); $$$$"), ("FOLD", "3"), ("LR", "own")]);
    }
}

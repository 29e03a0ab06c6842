//! The short form of a reference to a key of a Secret, `{{name.key}}`.

use std::collections::BTreeMap;

use crate::Pipeline;
use crate::check::{is_data_key, is_dns_subdomain};
use crate::model::{EnvVarSource, KeySelector, StepTemplate};
use crate::path::Path;
use crate::substitute::{Expansion, references};
use crate::texts::{for_each_text, fragment_texts};
use crate::violation::{Code, Violations};

/// Name and key, when the whole text is a reference: the first dot stands between them, and blanks within the braces count for nothing.
pub(crate) fn parse(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix("{{")?.strip_suffix("}}")?.trim();
    let (name, key) = inner.split_once('.')?;
    let is_one = !name.is_empty() && !key.is_empty() && !inner.contains(char::is_whitespace);
    is_one.then_some((name, key))
}

/// Puts Kubernetes' own form in the place of every reference that is the value of a variable. What is no reference yet because a
/// parameter would make it one is a plain text.
pub(crate) fn expand(template: &mut StepTemplate) {
    for variable in &mut template.env {
        if variable.value_from.is_some() {
            continue;
        }
        let Some((name, key)) = variable.value.as_deref().and_then(parse) else {
            continue;
        };
        if fault(name, key).is_some() {
            continue;
        }
        variable.value_from = Some(EnvVarSource {
            secret_key_ref: Some(KeySelector {
                name: name.to_owned(),
                key: key.to_owned(),
                optional: None,
            }),
            ..EnvVarSource::default()
        });
        variable.value = None;
    }
}

/// Checks references of a step or of the defaults: Kubernetes takes them as variables only.
pub(crate) fn check(template: &StepTemplate, path: &Path<'_>, violations: &mut Violations) {
    let mut template = template.clone();
    let list = path.field("env");
    for (index, variable) in template.env.iter().enumerate() {
        let reference = variable.value.as_deref().and_then(parse);
        if let Some(message) = reference.and_then(|(name, key)| fault(name, key)) {
            violations.add(list.index(index).field("value").to_string(), Code::BadValue, message);
        }
    }
    for variable in &mut template.env {
        variable.value = None;
    }
    for_each_text(&mut template, path, &mut |path, _, text| {
        check_text(text, path, violations);
    });
}

/// What Kubernetes would say of the name or the key. What still holds a reference to a parameter is checked where its value is known.
fn fault(name: &str, key: &str) -> Option<String> {
    let is_known = |text: &str| references(text).next().is_none();
    if is_known(name) && !is_dns_subdomain(name) {
        return Some(format!(
            "`{name}` is no name of a Secret: lower-case letters, digits, `-` and `.`"
        ));
    }
    let is_wrong = is_known(key) && !is_data_key(key);
    is_wrong.then(|| format!("`{key}` is no key of a Secret: at most 253 letters, digits, `-`, `_` and `.`"))
}

/// Checks the texts of a pipeline beside its steps.
pub(crate) fn check_header(pipeline: &Pipeline, violations: &mut Violations) {
    let root = Path::root();
    let mut maps = |field: &str, texts: &BTreeMap<String, String>| {
        let path = root.field(field);
        for (key, text) in texts {
            check_text(text, &path.field(key), violations);
        }
    };
    maps("labels", &pipeline.labels);
    maps("annotations", &pipeline.annotations);
    let Some(mut volume) = pipeline
        .workspace
        .as_ref()
        .and_then(|workspace| workspace.volume.clone())
    else {
        return;
    };
    let path = root.field("workspace");
    let path = path.field("volume");
    fragment_texts(volume.value_mut(), &path, Expansion::Final, &mut |path, _, text| {
        check_text(text, path, violations);
    });
}

fn check_text(text: &str, path: &Path<'_>, violations: &mut Violations) {
    let Some((name, key)) = parse(text) else {
        return;
    };
    let message = format!(
        "{text} refers to a Secret, which Kubernetes hands over in variables only: write \
         env: [{{name: NAME, valueFrom: {{secretKeyRef: {{name: {name}, key: {key}}}}}}}] and use $(NAME) here, where commands and \
         arguments are meant; as a plain text it can be the value of a parameter"
    );
    violations.add(path.to_string(), Code::BadValue, message);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source;

    /// behaviours R8
    #[test]
    fn r8_a_reference_is_a_whole_text_and_its_first_dot_splits_it() {
        for (text, expected) in [
            ("{{warehouse.password}}", Some(("warehouse", "password"))),
            ("{{  warehouse.password }}", Some(("warehouse", "password"))),
            ("{{a.b.c}}", Some(("a", "b.c"))),
            ("{{ab}}", None),
            ("x{{a.b}}", None),
            ("{{a.b}}x", None),
            ("{{a b.c}}", None),
            ("{{.b}}", None),
            ("{{a.}}", None),
            ("{{}}", None),
            ("{{}", None),
            ("{a.b}", None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    fn resolved(text: &str) -> Result<crate::StepSpec, String> {
        let parsed = source::parse(text);
        let resolved = parsed.resolve(&BTreeMap::new(), &crate::Environment::default());
        let lines = |violations: Vec<crate::Violation>| {
            let lines: Vec<_> = violations
                .iter()
                .map(|one| format!("{} {}", one.code, one.path))
                .collect();
            lines.join("\n")
        };
        resolved
            .map(|resolved| resolved.step_spec(0).expect("a step"))
            .map_err(lines)
    }

    /// behaviours R8, R9
    #[test]
    fn r8_r9_in_a_variable_it_becomes_the_reference_of_kubernetes() {
        let step = resolved(
            "
name: churn
parameters: [{name: DB, default: warehouse}, {name: PLAIN, default: '{{a.b}}'}]
defaults:
  image: i
  env: [{name: A, value: '{{warehouse.a}}'}, {name: B, value: b}, {name: C, value: c}]
steps:
  - name: s
    args: ['{{ item }}', '$(PLAIN)', 'x {{a.b}}']
    env: [{name: B, value: '{{ $(DB).user.name }}'}, {name: A, value: plain}, {name: D, value: '$(PLAIN)'}]
",
        )
        .expect("resolves");
        let variable = |name: &str| step.env.iter().find(|one| one.name == name).expect("a variable");
        let of = |name: &str| {
            let source = variable(name).value_from.as_ref()?.secret_key_ref.as_ref()?;
            Some((source.name.as_str(), source.key.as_str()))
        };
        assert_eq!(of("B"), Some(("warehouse", "user.name")));
        assert_eq!(variable("B").value, None);
        // What the step says replaces what it inherits, whichever form either has.
        assert_eq!((of("A"), variable("A").value.as_deref()), (None, Some("plain")));
        assert_eq!((of("D"), variable("D").value.as_deref()), (None, Some("{{a.b}}")));
        assert_eq!(step.args, ["{{ item }}", "{{a.b}}", "x {{a.b}}"]);
    }

    /// behaviours R9
    #[test]
    fn i8_r9_elsewhere_it_is_refused_with_the_form_that_works() {
        let text = "
name: churn
annotations: {note: '{{a.b}}'}
workspace: {volume: {csi: {driver: d, volumeAttributes: {password: '{{a.b}}'}}}}
defaults: {image: '{{a.b}}'}
steps:
  - name: s
    command: ['{{a.b}}']
    args: [--password, '{{warehouse.password}}']
    env:
      - {name: A, value: '{{Ware_House.password}}'}
      - {name: B, value: '{{warehouse.pass/word}}'}
      - {name: C, value: '{{a.b}}', valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    pod:
      annotations: {note: '{{a.b}}'}
      initContainers: [{name: i, image: i, env: [{name: X, value: '{{a.b}}'}]}]
      overlay: {containers: [{name: main, env: [{name: X, value: '{{a.b}}'}]}]}
";
        let mut found: Vec<_> = resolved(text)
            .expect_err("refused")
            .lines()
            .map(str::to_owned)
            .collect();
        found.sort();
        assert_eq!(
            found,
            [
                "BAD_VALUE annotations.note",
                "BAD_VALUE defaults.image",
                "BAD_VALUE steps[0].args[1]",
                "BAD_VALUE steps[0].command[0]",
                "BAD_VALUE steps[0].env[0].value",
                "BAD_VALUE steps[0].env[1].value",
                "BAD_VALUE steps[0].pod.annotations.note",
                "BAD_VALUE steps[0].pod.initContainers[0].env[0].value",
                "BAD_VALUE steps[0].pod.overlay.containers[0].env[0].value",
                "BAD_VALUE workspace.volume.csi.volumeAttributes.password",
                "CONFLICT steps[0].env[2]",
            ]
        );
        let text = "name: churn\nsteps: [{name: s, image: i, args: ['{{warehouse.password}}']}]";
        let parsed = source::parse(text);
        let problems = parsed
            .resolve(&BTreeMap::new(), &crate::Environment::default())
            .expect_err("refused");
        let form = "env: [{name: NAME, valueFrom: {secretKeyRef: {name: warehouse, key: password}}}]";
        assert!(problems[0].message.contains(form), "{problems:?}");
    }
}

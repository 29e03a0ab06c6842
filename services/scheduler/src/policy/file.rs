//! The policy file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use windlass_pipeline::violation::{Code, Violation};
use windlass_pipeline::{is_dns_subdomain, source};

use super::{HostNamespace, HostPath, Patterns, Policy, Rules, SecretRules};

/// A policy file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PolicyError {
    /// It cannot be read.
    #[error("cannot read the policy file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in it is wrong.
    #[error("the policy file {} cannot be used: {}", path.display(), listed(.problems))]
    Content {
        /// The file.
        path: PathBuf,
        /// Every problem.
        problems: Vec<Violation>,
    },
}

fn listed(problems: &[Violation]) -> String {
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    problems.join("; ")
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PolicyFile {
    defaults: Option<RulesFile>,
    namespaces: BTreeMap<String, Option<RulesFile>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RulesFile {
    service_accounts: Option<Vec<String>>,
    service_account_tokens: Option<bool>,
    secrets: Option<SecretsFile>,
    host_paths: Option<Vec<HostPathFile>>,
    privileged: Option<bool>,
    allow_privilege_escalation: Option<bool>,
    host_namespaces: Option<Vec<String>>,
    capabilities: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SecretsFile {
    managed: Option<bool>,
    names: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HostPathFile {
    path: String,
    read_only: bool,
}

impl Policy {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read or used.
    pub(crate) fn open(path: &Path) -> Result<Self, PolicyError> {
        let text = std::fs::read_to_string(path).map_err(|source| PolicyError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text).map_err(|problems| PolicyError::Content {
            path: path.to_owned(),
            problems,
        })
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// Every problem.
    pub(crate) fn parse(text: &str) -> Result<Self, Vec<Violation>> {
        let (file, tree) = source::read::<PolicyFile>(text)?;
        let mut problems = Problems::default();
        let defaults = merged(&Rules::default(), file.defaults, &mut problems.below("defaults"));
        let mut namespaces = BTreeMap::new();
        for (name, rules) in file.namespaces {
            let mut problems = problems.below(&format!("namespaces.{name}"));
            if !is_dns_subdomain(&name) || name.contains('.') {
                problems.add("", format!("`{name}` is no name of a namespace"));
            }
            namespaces.insert(name, merged(&defaults, rules, &mut problems));
        }
        match problems.found {
            found if found.is_empty() => Ok(Self { defaults, namespaces }),
            found => Err(tree.located(found)),
        }
    }
}

/// Problems of values, with their paths.
#[derive(Default)]
struct Problems {
    found: Vec<Violation>,
}

/// Those of one part of the file.
struct PartProblems<'a> {
    path: String,
    all: &'a mut Problems,
}

impl Problems {
    fn below(&mut self, path: &str) -> PartProblems<'_> {
        PartProblems {
            path: path.to_owned(),
            all: self,
        }
    }
}

impl PartProblems<'_> {
    fn add(&mut self, field: &str, message: String) {
        let path = match field {
            "" => self.path.clone(),
            field => format!("{}.{field}", self.path),
        };
        self.all.found.push(Violation::new(path, Code::BadValue, message));
    }
}

/// `rules` where they say something, else `base`.
fn merged(base: &Rules, rules: Option<RulesFile>, problems: &mut PartProblems<'_>) -> Rules {
    let rules = rules.unwrap_or_default();
    let names = |given: Option<Vec<String>>, field: &str, base: &Patterns, problems: &mut PartProblems<'_>| match given
    {
        Some(names) => patterns(names, field, problems),
        None => base.clone(),
    };
    let secrets = rules.secrets.unwrap_or_default();
    Rules {
        service_accounts: names(
            rules.service_accounts,
            "serviceAccounts",
            &base.service_accounts,
            problems,
        ),
        service_account_tokens: rules.service_account_tokens.unwrap_or(base.service_account_tokens),
        secrets: SecretRules {
            managed: secrets.managed.unwrap_or(base.secrets.managed),
            names: names(secrets.names, "secrets.names", &base.secrets.names, problems),
        },
        host_paths: match rules.host_paths {
            Some(paths) => host_paths(paths, problems),
            None => base.host_paths.clone(),
        },
        privileged: rules.privileged.unwrap_or(base.privileged),
        allow_privilege_escalation: rules
            .allow_privilege_escalation
            .unwrap_or(base.allow_privilege_escalation),
        host_namespaces: match rules.host_namespaces {
            Some(names) => host_namespaces(&names, problems),
            None => base.host_namespaces.clone(),
        },
        capabilities: match rules.capabilities {
            Some(names) => capabilities(names, problems),
            None => base.capabilities.clone(),
        },
    }
}

fn patterns(names: Vec<String>, field: &str, problems: &mut PartProblems<'_>) -> Patterns {
    for (index, name) in names.iter().enumerate() {
        // Whatever stands for the star, the rest must be able to be part of a name.
        if !is_dns_subdomain(&name.replace('*', "x")) {
            let message =
                format!("`{name}` is no name of a Kubernetes object, in which a `*` may stand for any characters");
            problems.add(&format!("{field}[{index}]"), message);
        }
    }
    Patterns(names)
}

fn host_paths(paths: Vec<HostPathFile>, problems: &mut PartProblems<'_>) -> Vec<HostPath> {
    for (index, HostPathFile { path, .. }) in paths.iter().enumerate() {
        if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
            let message = format!("`{path}` is no absolute path without `..`, such as /data");
            problems.add(&format!("hostPaths[{index}].path"), message);
        }
    }
    let paths = paths
        .into_iter()
        .map(|HostPathFile { path, read_only }| HostPath { path, read_only });
    paths.collect()
}

fn host_namespaces(names: &[String], problems: &mut PartProblems<'_>) -> Vec<HostNamespace> {
    let mut found = Vec::new();
    for (index, name) in names.iter().enumerate() {
        match HostNamespace::ALL.into_iter().find(|(known, _)| known == name) {
            Some((_, one)) => found.push(one),
            None => problems.add(
                &format!("hostNamespaces[{index}]"),
                format!("`{name}` is none of network, pid and ipc"),
            ),
        }
    }
    found
}

fn capabilities(names: Vec<String>, problems: &mut PartProblems<'_>) -> Vec<String> {
    let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    for (index, name) in names.iter().enumerate() {
        let is_name = !name.is_empty() && name.chars().all(plain) && !name.starts_with("CAP_");
        if name != "*" && !is_name {
            let message =
                format!("`{name}` is no capability as Kubernetes writes it, such as SYS_PTRACE; \"*\" is all of them");
            problems.add(&format!("capabilities[{index}]"), message);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use windlass_ids::Namespace;

    use super::*;

    fn problems(text: &str) -> String {
        let problems = Policy::parse(text).expect_err("refused");
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn a_namespace_has_what_it_says_then_the_defaults_then_what_is_built_in() {
        let policy = Policy::parse(
            "
defaults:
  serviceAccounts: [default, steps]
  privileged: true
namespaces:
  ml:
    secrets: {names: [team-*]}
    privileged: false
    hostPaths: [{path: /data, readOnly: true}]
  quiet:
",
        )
        .expect("a policy");
        let [ml, quiet, other] = ["ml", "quiet", "other"].map(|name| policy.rules(&Namespace::from(name)).clone());
        assert_eq!(quiet, other);
        assert!(other.privileged && !ml.privileged);
        assert!(ml.service_accounts.allow("steps") && other.service_accounts.allow("steps"));
        assert!(ml.secrets.names.allow("team-a") && !other.secrets.names.allow("team-a"));
        assert!(ml.secrets.managed && other.secrets.managed);
        assert!(ml.host_paths[0].read_only && ml.host_namespaces.is_empty());
        assert_eq!(ml.capabilities, Rules::default().capabilities);
    }

    #[test]
    fn i9_what_a_policy_file_does_not_know_is_refused_with_its_place() {
        let text = "
default: {}
defaults:
  serviceAcounts: [default]
  privileged: 'yes'
namespaces:
  ml: {hostPaths: [{path: /data, readonly: true}]}
";
        insta::assert_snapshot!(problems(text), @r#"
        line 2, column 1: default: unknown field, did you mean defaults?
        line 4, column 3: defaults.serviceAcounts: unknown field, did you mean serviceAccounts?
        line 5, column 3: defaults.privileged: expected true or false, found the string "yes"; yes, no, on and off are strings in YAML 1.2
        line 7, column 34: namespaces.ml.hostPaths[0].readonly: unknown field, did you mean readOnly?
        "#);
        let text = "
namespaces:
  Team_A: {}
  ml:
    serviceAccounts: [Default, '*']
    secrets: {names: ['team *']}
    hostPaths: [{path: data}, {path: /data/../etc}]
    hostNamespaces: [net]
    capabilities: [CAP_SYS_ADMIN, '*']
";
        insta::assert_snapshot!(problems(text), @r#"
        line 3, column 3: namespaces.Team_A: `Team_A` is no name of a namespace
        line 5, column 23: namespaces.ml.serviceAccounts[0]: `Default` is no name of a Kubernetes object, in which a `*` may stand for any characters
        line 6, column 23: namespaces.ml.secrets.names[0]: `team *` is no name of a Kubernetes object, in which a `*` may stand for any characters
        line 7, column 18: namespaces.ml.hostPaths[0].path: `data` is no absolute path without `..`, such as /data
        line 7, column 32: namespaces.ml.hostPaths[1].path: `/data/../etc` is no absolute path without `..`, such as /data
        line 8, column 22: namespaces.ml.hostNamespaces[0]: `net` is none of network, pid and ipc
        line 9, column 20: namespaces.ml.capabilities[0]: `CAP_SYS_ADMIN` is no capability as Kubernetes writes it, such as SYS_PTRACE; "*" is all of them
        "#);
    }
}

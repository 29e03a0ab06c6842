//! What the pods of a namespace may use, as the operator has decided: who submits must not borrow everything that a namespace and its
//! nodes hold.

mod check;
mod file;

use std::collections::BTreeMap;

use windlass_ids::Namespace;

pub(crate) use check::{Subject, check, unmanaged};
pub(crate) use file::PolicyError;

/// Rules by namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Policy {
    /// Of namespaces that are not named.
    defaults: Rules,
    namespaces: BTreeMap<String, Rules>,
}

impl Policy {
    /// The rules of a namespace.
    pub(crate) fn rules(&self, namespace: &Namespace) -> &Rules {
        self.namespaces.get(namespace.as_str()).unwrap_or(&self.defaults)
    }
}

/// What pods may use.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rules {
    /// Service accounts.
    pub(crate) service_accounts: Patterns,
    /// Whether pods may have tokens of their service account.
    pub(crate) service_account_tokens: bool,
    /// Secrets.
    pub(crate) secrets: SecretRules,
    /// Folders of the node.
    pub(crate) host_paths: Vec<HostPath>,
    /// Whether containers may be without the walls that the runtime puts up.
    pub(crate) privileged: bool,
    /// Whether processes may gain more rights than what started them has, as by setuid.
    pub(crate) allow_privilege_escalation: bool,
    /// Namespaces of the node that pods may be in.
    pub(crate) host_namespaces: Vec<HostNamespace>,
    /// Capabilities that may be added, without `CAP_`; `*` is all of them.
    pub(crate) capabilities: Vec<String>,
}

/// The capabilities that container runtimes give anyway: to add them gives nothing.
const RUNTIME_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

impl Default for Rules {
    /// Nothing of the node, no account but the namespace's default one, no Secret that others have made: as the Pod Security Standard `baseline` where that
    /// says something.
    fn default() -> Self {
        Self {
            service_accounts: Patterns(vec!["default".to_owned()]),
            service_account_tokens: true,
            secrets: SecretRules {
                managed: true,
                names: Patterns::default(),
            },
            host_paths: Vec::new(),
            privileged: false,
            allow_privilege_escalation: true,
            host_namespaces: Vec::new(),
            capabilities: RUNTIME_CAPABILITIES.map(str::to_owned).to_vec(),
        }
    }
}

/// Which Secrets pods may use.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SecretRules {
    /// Whether those of `windlass secret` are among them, whatever their names.
    pub(crate) managed: bool,
    /// Names of others.
    pub(crate) names: Patterns,
}

/// Names in which a `*` stands for any characters.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Patterns(Vec<String>);

impl Patterns {
    fn allow(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern, name))
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(tail) = name.strip_prefix(head) else {
        return false;
    };
    let mut starts = tail.char_indices().map(|(at, _)| at).chain([tail.len()]);
    starts.any(|at| matches(rest, &tail[at..]))
}

/// A folder of the node, with what is below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPath {
    path: String,
    read_only: bool,
}

impl HostPath {
    /// Whether `path` is this folder or below it.
    fn holds(&self, path: &str) -> bool {
        let below = path.strip_prefix(self.path.trim_end_matches('/'));
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) && !path.split('/').any(|part| part == "..")
    }
}

/// A namespace of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostNamespace {
    /// `hostNetwork`, and ports of the node.
    Network,
    /// `hostPID`.
    Pid,
    /// `hostIPC`.
    Ipc,
}

impl HostNamespace {
    const ALL: [(&'static str, Self); 3] = [("network", Self::Network), ("pid", Self::Pid), ("ipc", Self::Ipc)];

    fn name(self) -> &'static str {
        let all = Self::ALL.into_iter();
        all.filter(|(_, one)| *one == self)
            .map(|(name, _)| name)
            .next()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_and_everything_else_for_itself() {
        for (pattern, name, is_match) in [
            ("warehouse", "warehouse", true),
            ("warehouse", "warehouse2", false),
            ("team-*", "team-", true),
            ("team-*", "team-a", true),
            ("team-*", "my-team-a", false),
            ("*", "", true),
            ("*-ro", "db-ro", true),
            ("*-ro", "db-rw", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXc", false),
        ] {
            assert_eq!(matches(pattern, name), is_match, "{pattern} {name}");
        }
    }

    #[test]
    fn a_folder_holds_what_is_below_it_and_nothing_beside_it() {
        let folder = |path: &str| HostPath {
            path: path.to_owned(),
            read_only: false,
        };
        for (allowed, path, is_held) in [
            ("/data", "/data", true),
            ("/data", "/data/sets", true),
            ("/data/", "/data/sets", true),
            ("/data", "/database", false),
            ("/data", "/data/../etc", false),
            ("/data", "/", false),
            ("/", "/etc", true),
        ] {
            assert_eq!(folder(allowed).holds(path), is_held, "{allowed} {path}");
        }
    }
}

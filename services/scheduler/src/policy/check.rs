//! What a pod uses that the rules do not allow.

use serde_json::Value;
use windlass_ids::Namespace;

use super::{HostNamespace, Rules};
use crate::pods::{Place, SecretUse, each_field};

/// A pod as it would be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) namespace: &'a Namespace,
    /// Its spec.
    pub(crate) spec: &'a Value,
    /// Its annotations.
    pub(crate) annotations: Option<&'a Value>,
    /// The Secrets that it uses.
    pub(crate) secrets: &'a [SecretUse],
    /// The volume that the operator provides as its workspace, with its mount in the main container.
    pub(crate) workspace: Option<(&'a Value, &'a Value)>,
}

/// Something that is not allowed: where it stands, and what is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offence {
    pub(crate) place: Place,
    pub(crate) message: String,
}

/// Everything that the rules do not allow.
pub(crate) fn check(rules: &Rules, subject: Subject<'_>) -> Vec<Offence> {
    let mut check = Check {
        rules,
        subject,
        offences: Vec::new(),
    };
    check.service_account();
    check.secrets();
    check.host_paths();
    check.host_namespaces();
    check.walls();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (place, container) in elements(subject.spec, &Place::default(), list) {
            check.container(&place, container);
        }
    }
    check.offences
}

/// What is said of a Secret when it turns out to be none of those of `windlass secret`; nothing when it is allowed all the same.
pub(crate) fn unmanaged(rules: &Rules, namespace: &Namespace, secret: &str) -> Option<String> {
    if !rules.secrets.managed || rules.secrets.names.allow(secret) {
        return None;
    }
    let names = [
        rules.secrets.names.0.as_slice(),
        &["those that `windlass secret` has made".to_owned()],
    ]
    .concat();
    let what = format!("Secret {secret}");
    Some(refusal(namespace, &what, &listed(&names), "secrets.names"))
}

fn refusal(namespace: &Namespace, what: &str, allowed: &str, setting: &str) -> String {
    format!(
        "{what} is not allowed in namespace {namespace}; allowed: {allowed}. An operator allows more with {setting} in the \
         scheduler's policy file (--policy)"
    )
}

struct Check<'a> {
    rules: &'a Rules,
    subject: Subject<'a>,
    offences: Vec<Offence>,
}

impl Check<'_> {
    /// Says what is not allowed and which setting would allow it.
    fn add(&mut self, place: Place, what: &str, allowed: &str, setting: &str) {
        let message = refusal(self.subject.namespace, what, allowed, setting);
        self.offences.push(Offence { place, message });
    }

    /// Both names of the field: Kubernetes takes either.
    fn service_account(&mut self) {
        let mut named = false;
        for field in ["serviceAccountName", "serviceAccount"] {
            let name = self.subject.spec.get(field).and_then(Value::as_str);
            let Some(name) = name.filter(|name| !name.is_empty()) else {
                continue;
            };
            named = true;
            if !self.rules.service_accounts.allow(name) {
                self.account(field, &format!("service account {name}"));
            }
        }
        if !named && !self.rules.service_accounts.allow("default") {
            self.account(
                "serviceAccountName",
                "service account default, which is used where none is named,",
            );
        }
        if self.rules.service_account_tokens {
            return;
        }
        let what = "a token of the service account";
        let mut found = Vec::new();
        each_field(self.subject.spec, &mut |place, field, value| {
            let is_mounted = field == "automountServiceAccountToken" && value == &Value::Bool(true);
            // The source of a projected volume, not the account.
            if is_mounted || field == "serviceAccountToken" {
                found.push(place.clone());
            }
        });
        for place in found {
            self.add(place, what, "none", "serviceAccountTokens");
        }
    }

    fn account(&mut self, field: &str, what: &str) {
        let allowed = listed(&self.rules.service_accounts.0);
        self.add(Place::default().field(field), what, &allowed, "serviceAccounts");
    }

    /// Where those of `windlass secret` are allowed, it takes an executor to tell them: see [`unmanaged`].
    fn secrets(&mut self) {
        if self.rules.secrets.managed {
            return;
        }
        for secret in self.subject.secrets {
            if !self.rules.secrets.names.allow(&secret.name) {
                let allowed = listed(&self.rules.secrets.names.0);
                let what = format!("Secret {}", secret.name);
                self.add(secret.place.clone(), &what, &allowed, "secrets");
            }
        }
    }

    fn host_paths(&mut self) {
        for (place, volume) in elements(self.subject.spec, &Place::default(), "volumes") {
            let Some(host) = volume.get("hostPath") else {
                continue;
            };
            if let Some((own, mount)) = self.subject.workspace
                && own == volume
            {
                self.workspace_mounts(mount);
                continue;
            }
            let path = host.get("path").and_then(Value::as_str).unwrap_or_default();
            let holding = self.rules.host_paths.iter().filter(|allowed| allowed.holds(path));
            let modes: Vec<bool> = holding.map(|allowed| allowed.read_only).collect();
            if modes.is_empty() {
                let allowed = listed(&self.host_paths_allowed());
                let place = place.field("hostPath").field("path");
                self.add(place, &format!("the node's folder {path}"), &allowed, "hostPaths");
            } else if modes.iter().all(|read_only| *read_only) {
                self.read_only_mounts(volume, path);
            }
        }
    }

    fn host_paths_allowed(&self) -> Vec<String> {
        let paths = self.rules.host_paths.iter();
        let named = |read_only: bool| if read_only { " (read-only)" } else { "" };
        paths
            .map(|one| format!("{}{}", one.path, named(one.read_only)))
            .collect()
    }

    fn read_only_mounts(&mut self, volume: &Value, path: &str) {
        for (place, mount) in mounts_of(self.subject.spec, volume) {
            if mount.get("readOnly") != Some(&Value::Bool(true)) {
                let what = format!("the node's folder {path} without readOnly: true");
                let allowed = listed(&self.host_paths_allowed());
                self.add(place, &what, &allowed, "hostPaths");
            }
        }
    }

    /// A folder of the node that the operator gives for workspaces is open to a run in its own part only.
    fn workspace_mounts(&mut self, own: &Value) {
        let volume = self.subject.workspace.map(|(volume, _)| volume);
        for (place, mount) in volume
            .into_iter()
            .flat_map(|volume| mounts_of(self.subject.spec, volume))
        {
            if mount.get("subPath") != own.get("subPath") || mount.get("subPathExpr").is_some() {
                let what = "the operator's volume for workspaces outside the run's folder";
                self.add(place, what, "the workspace where Windlass mounts it", "hostPaths");
            }
        }
    }

    fn host_namespaces(&mut self) {
        for (field, namespace) in [
            ("hostNetwork", HostNamespace::Network),
            ("hostPID", HostNamespace::Pid),
            ("hostIPC", HostNamespace::Ipc),
        ] {
            if self.subject.spec.get(field) == Some(&Value::Bool(true)) {
                self.host_namespace(Place::default().field(field), namespace, field);
            }
        }
    }

    fn host_namespace(&mut self, place: Place, namespace: HostNamespace, what: &str) {
        if !self.rules.host_namespaces.contains(&namespace) {
            let names: Vec<_> = self
                .rules
                .host_namespaces
                .iter()
                .map(|one| one.name().to_owned())
                .collect();
            self.add(place, what, &listed(&names), "hostNamespaces");
        }
    }

    /// What takes the runtime's walls away, in the contexts of containers and of the pod.
    fn walls(&mut self) {
        if self.rules.privileged {
            return;
        }
        let mut found = Vec::new();
        each_field(self.subject.spec, &mut |place, field, value| {
            let is_true = value == &Value::Bool(true);
            let of_type = |wanted: &str| value.get("type").and_then(Value::as_str) == Some(wanted);
            let is_open = match field {
                "privileged" | "hostProcess" => is_true,
                "procMount" => value.as_str().is_some_and(|mount| mount != "Default"),
                "seccompProfile" | "appArmorProfile" => of_type("Unconfined"),
                "seLinuxOptions" => !is_confined(value),
                _ => false,
            };
            if is_open {
                let shown = if is_true { "true".to_owned() } else { value.to_string() };
                found.push((place.clone(), format!("{field}: {shown}")));
            }
        });
        let annotations = self.subject.annotations.and_then(Value::as_object);
        for (name, value) in annotations.into_iter().flatten() {
            if name.starts_with(APPARMOR_ANNOTATION) && value == "unconfined" {
                found.push((
                    Place::default().field("annotations").field(name),
                    format!("{name}: unconfined"),
                ));
            }
        }
        for (place, what) in found {
            self.add(place, &what, "what does without it", "privileged");
        }
    }

    fn container(&mut self, place: &Place, container: &Value) {
        let context = container.get("securityContext");
        let of_context = |field: &str| context.and_then(|context| context.get(field));
        if !self.rules.allow_privilege_escalation && of_context("allowPrivilegeEscalation") != Some(&Value::Bool(false))
        {
            let place = place.field("securityContext").field("allowPrivilegeEscalation");
            let what = "a container without securityContext.allowPrivilegeEscalation: false";
            self.add(place, what, "false", "allowPrivilegeEscalation");
        }
        let added = of_context("capabilities").and_then(|capabilities| capabilities.get("add"));
        let added = added
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        for (index, name) in added.enumerate() {
            let known = name.strip_prefix("CAP_").unwrap_or(name);
            let is_allowed = |allowed: &String| allowed == "*" || allowed == known;
            if !self.rules.capabilities.iter().any(is_allowed) {
                let list = place.field("securityContext").field("capabilities").field("add");
                let place = list.item("add", index, &Value::Null);
                let allowed = listed(&self.rules.capabilities);
                self.add(place, &format!("capability {name}"), &allowed, "capabilities");
            }
        }
        for (place, port) in elements(container, place, "ports") {
            if port
                .get("hostPort")
                .and_then(Value::as_i64)
                .is_some_and(|port| port != 0)
            {
                self.host_namespace(place.field("hostPort"), HostNamespace::Network, "a port of the node");
            }
        }
    }
}

/// Annotations that stood for appArmorProfile, and still do where they are given.
const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Whether SELinux confines a container as it does by default: the types of containers, and neither another user nor another role.
fn is_confined(options: &Value) -> bool {
    const TYPES: [&str; 5] = [
        "",
        "container_t",
        "container_init_t",
        "container_kvm_t",
        "container_engine_t",
    ];
    let text = |field: &str| options.get(field).and_then(Value::as_str).unwrap_or_default();
    TYPES.contains(&text("type")) && text("user").is_empty() && text("role").is_empty()
}

fn elements<'a>(of: &'a Value, place: &Place, list: &str) -> Vec<(Place, &'a Value)> {
    let place = place.field(list);
    let elements = of.get(list).and_then(Value::as_array).into_iter().flatten().enumerate();
    elements
        .map(|(index, element)| (place.item(list, index, element), element))
        .collect()
}

/// Where containers mount a volume.
fn mounts_of<'a>(spec: &'a Value, volume: &Value) -> Vec<(Place, &'a Value)> {
    let containers = ["initContainers", "containers", "ephemeralContainers"];
    let containers = containers
        .into_iter()
        .flat_map(|list| elements(spec, &Place::default(), list));
    let mounts = containers.flat_map(|(place, container)| elements(container, &place, "volumeMounts"));
    mounts
        .filter(|(_, mount)| mount.get("name") == volume.get("name"))
        .collect()
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

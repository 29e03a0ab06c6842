//! What an installation owns in a cluster, found by its label alone: for cleaning up after one that is gone.

use http::Method;
use serde::Deserialize;
use serde_json::json;
use windlass_ids::InstallationId;
use windlass_manifest::{Annotation, FINALIZER, Label};

use super::api::{Api, ApiError, Call};
use super::query::Query;
use super::requests::{JSON, PAGE, gone_is_fine};

/// How often a list begins anew whose continuation was compacted away.
const LISTS: usize = 5;

/// Pods first: what they use goes after them.
const KINDS: [Kind; 7] = [
    Kind::new("Pod", "/api/v1", "pods"),
    Kind::new("CronJob", "/apis/batch/v1", "cronjobs"),
    Kind::new("RoleBinding", "/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    Kind::new("Role", "/apis/rbac.authorization.k8s.io/v1", "roles"),
    Kind::new("ServiceAccount", "/api/v1", "serviceaccounts"),
    Kind::new("Secret", "/api/v1", "secrets"),
    Kind::new("ConfigMap", "/api/v1", "configmaps"),
];

#[derive(Debug)]
struct Kind {
    name: &'static str,
    group: &'static str,
    plural: &'static str,
}

impl Kind {
    const fn new(name: &'static str, group: &'static str, plural: &'static str) -> Self {
        Self { name, group, plural }
    }
}

/// An object that carries an installation's label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// Its kind, such as `Pod`.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The value of the installation's label.
    pub installation: String,
    /// The run that it was made for.
    pub run: Option<String>,
    /// The step that it was made for.
    pub step: Option<String>,
    /// When it was made, as the API server prints it.
    pub created: Option<String>,
    /// Phase of a pod.
    pub phase: Option<String>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Finalizers that are not ours: who set them takes them off.
    pub foreign_finalizers: Vec<String>,
    path: String,
    held: bool,
}

impl Owned {
    /// Whether it is a pod whose containers may run.
    pub fn may_live(&self) -> bool {
        let ended = |phase: &str| matches!(phase, "Succeeded" | "Failed");
        self.kind == "Pod" && !self.phase.as_deref().is_some_and(ended)
    }
}

/// A kind of objects that could not be listed.
#[derive(Clone, Debug)]
pub struct Unlisted {
    /// The kind, such as `Secret`.
    pub kind: &'static str,
    /// Why.
    pub error: ApiError,
}

impl Api {
    /// Everything that one installation owns, or with none named, everything that any installation owns; and what could not be
    /// listed. Kinds that the cluster does not have hold nothing.
    ///
    /// # Errors
    /// When not even pods can be listed; see [`ApiError`].
    pub async fn owned(&self, installation: Option<InstallationId>) -> Result<(Vec<Owned>, Vec<Unlisted>), ApiError> {
        let selector = match installation {
            Some(installation) => format!("{}={installation}", Label::INSTALLATION),
            None => Label::INSTALLATION.to_owned(),
        };
        let (mut found, mut unlisted) = (Vec::new(), Vec::new());
        for kind in &KINDS {
            match self.list_owned(kind, &selector).await {
                Ok(objects) => found.extend(objects),
                Err(error) if kind.name != "Pod" && error.code() == Some(404) => {}
                Err(error) if kind.name != "Pod" => unlisted.push(Unlisted { kind: kind.name, error }),
                Err(error) => return Err(error),
            }
        }
        Ok((found, unlisted))
    }

    async fn list_owned(&self, kind: &Kind, selector: &str) -> Result<Vec<Owned>, ApiError> {
        let (mut found, mut rest, mut lists) = (Vec::new(), String::new(), 1);
        loop {
            let mut path = Query::new(format!("{}/{}", kind.group, kind.plural))
                .with("labelSelector", selector)
                .with("limit", &PAGE.to_string());
            if !rest.is_empty() {
                path = path.with("continue", &rest);
            }
            let answer = match self.call(Call::new("list", Method::GET, path.build())).await {
                Err(error) if error.code() == Some(410) && lists < LISTS => {
                    found.clear();
                    rest.clear();
                    lists += 1;
                    continue;
                }
                answer => answer?,
            };
            let page: Page = serde_json::from_slice(&answer).map_err(|error| ApiError::Malformed(error.to_string()))?;
            found.extend(page.items.into_iter().map(|item| item.owned(kind)));
            rest = page.metadata.rest;
            if rest.is_empty() {
                return Ok(found);
            }
        }
    }

    /// Takes our finalizer off an object and deletes it, if it still is the one with this uid.
    ///
    /// # Errors
    /// See [`ApiError`]. That it is gone, or another one, is no error.
    pub async fn purge(&self, object: &Owned) -> Result<(), ApiError> {
        if object.held {
            self.strip_finalizer(&object.namespace, &object.name, &object.uid)
                .await?;
        }
        let body = json!({
            "kind": "DeleteOptions", "apiVersion": "v1",
            "preconditions": {"uid": object.uid}, "propagationPolicy": "Background",
        });
        let call = Call::new("delete", Method::DELETE, object.path.clone());
        gone_is_fine(self.call(call.body(JSON, body.to_string().into_bytes())).await)
    }
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMeta,
    // An API server may answer null for none.
    #[serde(default, deserialize_with = "null_is_empty")]
    items: Vec<Item>,
}

#[derive(Default, Deserialize)]
struct PageMeta {
    #[serde(default, rename = "continue")]
    rest: String,
}

#[derive(Deserialize)]
struct Item {
    metadata: Meta,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: String,
    namespace: String,
    uid: String,
    creation_timestamp: Option<String>,
    deletion_timestamp: Option<String>,
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    finalizers: Vec<String>,
}

#[derive(Default, Deserialize)]
struct Status {
    phase: Option<String>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Item>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Item {
    fn owned(self, kind: &Kind) -> Owned {
        let mut meta = self.metadata;
        let mut named = |annotation: &str, label: &str| {
            let label = meta.labels.remove(label);
            meta.annotations.remove(annotation).or(label)
        };
        let (run, step) = (named(Annotation::RUN, Label::RUN), named(Annotation::STEP, Label::STEP));
        let path = format!(
            "{}/namespaces/{}/{}/{}",
            kind.group, meta.namespace, kind.plural, meta.name
        );
        let is_ours = |finalizer: &String| finalizer == FINALIZER;
        Owned {
            kind: kind.name,
            path,
            uid: meta.uid,
            installation: meta.labels.remove(Label::INSTALLATION).unwrap_or_default(),
            run,
            step,
            created: meta.creation_timestamp,
            phase: self.status.phase,
            deleting: meta.deletion_timestamp.is_some(),
            held: kind.name == "Pod" && meta.finalizers.iter().any(is_ours),
            foreign_finalizers: meta.finalizers.into_iter().filter(|name| !is_ours(name)).collect(),
            namespace: meta.namespace,
            name: meta.name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i4_only_our_finalizer_is_ours_to_take_off_and_only_ended_pods_are_dead() {
        let page = json!({"metadata": {}, "items": [
            {"metadata": {"name": "a", "namespace": "ml", "uid": "1", "finalizers": [FINALIZER, "acme.com/keep"],
                "labels": {Label::INSTALLATION: "id", Label::RUN: "short"}, "annotations": {Annotation::RUN: "the full name"}},
             "status": {"phase": "Running"}},
            {"metadata": {"name": "b", "namespace": "ml", "uid": "2", "deletionTimestamp": "2026-01-31T12:00:00Z",
                "labels": {Label::INSTALLATION: "id"}}, "status": {"phase": "Failed"}},
        ]});
        let page: Page = serde_json::from_value(page).expect("a page");
        let pods: Vec<_> = page.items.into_iter().map(|item| item.owned(&KINDS[0])).collect();
        assert_eq!(pods[0].path, "/api/v1/namespaces/ml/pods/a");
        assert_eq!(pods[0].run.as_deref(), Some("the full name"));
        assert_eq!(pods[0].foreign_finalizers, ["acme.com/keep"]);
        assert!(pods[0].held && pods[0].may_live() && !pods[0].deleting);
        assert!(!pods[1].held && !pods[1].may_live() && pods[1].deleting);
    }

    #[test]
    fn a_list_of_nothing_may_be_null() {
        let page: Page = serde_json::from_str(r#"{"metadata":{},"items":null}"#).expect("a page");
        assert!(page.items.is_empty());
    }
}

//! The calls that the executor makes.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::json;
use windlass_ids::{InstallationId, RunId};
use windlass_manifest::{FINALIZER, Label};

use super::api::{Api, ApiError, Call, Refusal};
use super::query::Query;
use crate::attempts::wire::Metadata;

pub(super) const STRATEGIC_MERGE: &str = "application/strategic-merge-patch+json";
pub(super) const JSON: &str = "application/json";
/// Pods that one deletecollection or one page of a list takes.
pub const PAGE: u32 = 500;
/// How long one page of a sweep may take: the API server deletes serially.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(120);

impl Api {
    /// Posts a pod.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn create_pod(&self, namespace: &str, pod: Vec<u8>, timeout: Duration) -> Result<Bytes, ApiError> {
        let call = Call::new("create", Method::POST, format!("/api/v1/namespaces/{namespace}/pods"));
        self.call(call.body(JSON, pod).timeout(timeout)).await
    }

    /// Reads a pod, by quorum: a GET without a resource version.
    ///
    /// # Errors
    /// See [`ApiError`]; absence is `Ok(None)`.
    pub async fn get_pod(&self, namespace: &str, name: &str) -> Result<Option<Bytes>, ApiError> {
        let call = Call::new("get", Method::GET, pod_path(namespace, name));
        present(self.call(call).await)
    }

    /// Reads a node.
    ///
    /// # Errors
    /// See [`ApiError`]; absence is `Ok(None)`.
    pub async fn get_node(&self, name: &str) -> Result<Option<Bytes>, ApiError> {
        present(
            self.call(Call::new("get", Method::GET, format!("/api/v1/nodes/{name}")))
                .await,
        )
    }

    /// Deletes a pod, if it is the one with this uid.
    ///
    /// # Errors
    /// See [`ApiError`]. That it is gone, or another one, is no error.
    pub async fn delete_pod(&self, namespace: &str, name: &str, uid: &str, grace: Option<i64>) -> Result<(), ApiError> {
        let body = json!({
            "kind": "DeleteOptions", "apiVersion": "v1",
            "preconditions": {"uid": uid}, "gracePeriodSeconds": grace, "propagationPolicy": "Background",
        });
        let call = Call::new("delete", Method::DELETE, pod_path(namespace, name));
        gone_is_fine(self.call(call.body(JSON, body.to_string().into_bytes())).await)
    }

    /// Lets a pod go: our finalizer off and the label on, in one write. A merge patch would erase others' finalizers. Answers the
    /// resource version of that write; none when the pod is gone.
    ///
    /// # Errors
    /// See [`ApiError`]. That it is gone, or another one, is no error.
    pub async fn release_pod(&self, namespace: &str, name: &str, uid: &str) -> Result<Option<u64>, ApiError> {
        let body = json!({"metadata": {
            "uid": uid,
            "$deleteFromPrimitiveList/finalizers": [FINALIZER],
            "labels": {Label::RELEASED: "true"},
        }});
        let call = Call::new("patch", Method::PATCH, pod_path(namespace, name));
        let call = call.body(STRATEGIC_MERGE, body.to_string().into_bytes());
        match self.call(call).await {
            Ok(answer) => version_of(&answer).map(Some),
            Err(error) => gone_is_fine(Err(error)).map(|()| None),
        }
    }

    /// Takes only our finalizer off.
    ///
    /// # Errors
    /// See [`ApiError`]. That it is gone, or another one, is no error.
    pub async fn strip_finalizer(&self, namespace: &str, name: &str, uid: &str) -> Result<(), ApiError> {
        let body = json!({"metadata": {"uid": uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
        let call = Call::new("patch", Method::PATCH, pod_path(namespace, name));
        gone_is_fine(
            self.call(call.body(STRATEGIC_MERGE, body.to_string().into_bytes()))
                .await,
        )
    }

    /// Puts labels on a pod.
    ///
    /// # Errors
    /// See [`ApiError`]. That it is gone, or another one, is no error.
    pub async fn label_pod(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        labels: &[(&'static str, String)],
    ) -> Result<(), ApiError> {
        let labels: serde_json::Map<String, serde_json::Value> = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), json!(value)))
            .collect();
        let body = json!({"metadata": {"uid": uid, "labels": labels}});
        let call = Call::new("patch", Method::PATCH, pod_path(namespace, name));
        gone_is_fine(
            self.call(call.body(STRATEGIC_MERGE, body.to_string().into_bytes()))
                .await,
        )
    }

    /// The pod that a label selector finds, in any namespace, by quorum.
    ///
    /// # Errors
    /// See [`ApiError`]; absence is `Ok(None)`.
    pub async fn find_pod(&self, selector: &str) -> Result<Option<Bytes>, ApiError> {
        #[derive(Deserialize)]
        struct Items<'a> {
            #[serde(borrow, default)]
            items: Vec<&'a serde_json::value::RawValue>,
        }
        let path = Query::new("/api/v1/pods".to_owned())
            .with("labelSelector", selector)
            .build();
        let answer = self.call(Call::new("list", Method::GET, path)).await?;
        let found: Items<'_> =
            serde_json::from_slice(&answer).map_err(|error| ApiError::Malformed(error.to_string()))?;
        Ok(found
            .items
            .first()
            .map(|pod| Bytes::copy_from_slice(pod.get().as_bytes())))
    }

    /// How many released pods of this installation there are, by namespace; of many, those of the first page.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn released_pods(&self, installation: InstallationId) -> Result<BTreeMap<String, usize>, ApiError> {
        #[derive(Deserialize)]
        struct Items {
            #[serde(default)]
            items: Vec<Item>,
        }
        #[derive(Deserialize)]
        struct Item {
            metadata: Meta,
        }
        #[derive(Deserialize)]
        struct Meta {
            namespace: String,
        }
        let path = Query::new("/api/v1/pods".to_owned())
            .with(
                "labelSelector",
                &format!("{}={installation},{}", Label::INSTALLATION, Label::RELEASED),
            )
            .with("limit", &PAGE.to_string())
            .build();
        let answer = self.call(Call::new("list", Method::GET, path)).await?;
        let found: Items = serde_json::from_slice(&answer).map_err(|error| ApiError::Malformed(error.to_string()))?;
        let mut counts = BTreeMap::new();
        for item in found.items {
            *counts.entry(item.metadata.namespace).or_default() += 1;
        }
        Ok(counts)
    }

    /// Deletes the released pods of this installation in a namespace, page by page.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn sweep_pods(&self, namespace: &str, installation: InstallationId) -> Result<(), ApiError> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            metadata: PageMeta,
        }
        #[derive(Default, Deserialize)]
        struct PageMeta {
            #[serde(default, rename = "continue")]
            rest: String,
        }
        let selector = format!("{}={installation},{}", Label::INSTALLATION, Label::RELEASED);
        loop {
            let path = Query::new(format!("/api/v1/namespaces/{namespace}/pods"))
                .with("labelSelector", &selector)
                .with("limit", &PAGE.to_string())
                .build();
            let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
            let call = Call::new("deletecollection", Method::DELETE, path).timeout(SWEEP_TIMEOUT);
            let answer = self.call(call.body(JSON, body.to_string().into_bytes())).await?;
            // A page that was not the last one names what follows; what it had is gone, so the next begins anew.
            let page: Page = serde_json::from_slice(&answer).map_err(|error| ApiError::Malformed(error.to_string()))?;
            if page.metadata.rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Posts an owner object and answers its uid; the one that is there when it was made before.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn ensure_owner(&self, namespace: &str, name: &str, owner: Vec<u8>) -> Result<String, ApiError> {
        let collection = format!("/api/v1/namespaces/{namespace}/configmaps");
        let create = Call::new("create", Method::POST, collection.clone()).body(JSON, owner);
        match self.call(create).await {
            Ok(answer) => uid_of(&answer),
            Err(error) if error.code() == Some(409) || error.refusal().is_none() => {
                let read = self
                    .call(Call::new("get", Method::GET, format!("{collection}/{name}")))
                    .await;
                // Not found after a conflict or a lost reply: the caller tries again.
                read.map_err(|read| if read.code() == Some(404) { error } else { read })
                    .and_then(|answer| uid_of(&answer))
            }
            // Rights are asked before anything else: where there are none the namespace itself may be missing.
            Err(error) if error.code() == Some(403) => {
                let path = format!("/api/v1/namespaces/{namespace}");
                match self.call(Call::new("get", Method::GET, path)).await {
                    Err(missing) if missing.code() == Some(404) => Err(missing),
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Creates a namespace with the installation's label; one that is there stays as it is.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn ensure_namespace(&self, name: &str, installation: InstallationId) -> Result<(), ApiError> {
        let body = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {Label::INSTALLATION: installation.to_string()}},
        });
        let call = Call::new("create", Method::POST, "/api/v1/namespaces".to_owned());
        match self.call(call.body(JSON, body.to_string().into_bytes())).await {
            Err(error) if error.code() == Some(409) => Ok(()),
            created => created.map(drop),
        }
    }

    /// Deletes the owner objects of finished runs; garbage collection follows.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn delete_owners(
        &self,
        namespace: &str,
        installation: InstallationId,
        runs: &[RunId],
    ) -> Result<(), ApiError> {
        let runs: Vec<String> = runs.iter().map(ToString::to_string).collect();
        let selector = format!(
            "{}={installation},{} in ({})",
            Label::INSTALLATION,
            Label::RUN_ID,
            runs.join(",")
        );
        let path = Query::new(format!("/api/v1/namespaces/{namespace}/configmaps"))
            .with("labelSelector", &selector)
            .build();
        let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
        let call = Call::new("deletecollection", Method::DELETE, path).timeout(SWEEP_TIMEOUT);
        self.call(call.body(JSON, body.to_string().into_bytes()))
            .await
            .map(drop)
    }

    /// The identity of the cluster: the uid of its `kube-system` namespace.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn cluster_uid(&self) -> Result<String, ApiError> {
        let path = "/api/v1/namespaces/kube-system".to_owned();
        uid_of(&self.call(Call::new("get", Method::GET, path)).await?)
    }

    /// The newest warning about each pod of a namespace, by the pod's uid: its reason and message. Events have no watch cache, so this is for
    /// stuck pods only; of very many warnings it reads the first 5,000.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn newest_warnings(&self, namespace: &str) -> Result<HashMap<String, (String, String)>, ApiError> {
        let mut newest = Warnings::default();
        let mut next = String::new();
        for _ in 0..10 {
            let mut query = Query::new(format!("/api/v1/namespaces/{namespace}/events"))
                .with("fieldSelector", "involvedObject.kind=Pod,type=Warning")
                .with("limit", "500");
            if !next.is_empty() {
                query = query.with("continue", &next);
            }
            let answer = self.call(Call::new("list", Method::GET, query.build())).await?;
            next = newest.take(&answer)?;
            if next.is_empty() {
                break;
            }
        }
        Ok(newest.0.into_iter().map(|(uid, (_, text))| (uid, text)).collect())
    }
}

/// The newest warning by the uid of what it is about: its time, its reason and its message.
#[derive(Debug, Default)]
struct Warnings(HashMap<String, (Option<String>, (String, String))>);

/// Warnings that keep no pod from starting, or speak of the time before it had a node.
const NOISE: [&str; 4] = [
    "MissingClusterDNS",
    "DNSConfigForming",
    "CheckLimitsForResolvConf",
    "FailedScheduling",
];

impl Warnings {
    /// Takes a page of events; where the next one begins.
    fn take(&mut self, page: &[u8]) -> Result<String, ApiError> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Event {
            involved_object: Object,
            reason: String,
            message: String,
            last_timestamp: Option<String>,
            event_time: Option<String>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Object {
            uid: String,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Page {
            metadata: Metadata,
            items: Vec<Event>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Metadata {
            r#continue: String,
        }
        let page: Page = serde_json::from_slice(page).map_err(|error| ApiError::Malformed(error.to_string()))?;
        let telling = page.items.into_iter().filter(|event| !NOISE.contains(&&*event.reason));
        for event in telling {
            let time = event.last_timestamp.or(event.event_time);
            let text = (event.reason, event.message);
            match self.0.entry(event.involved_object.uid) {
                Entry::Occupied(known) if known.get().0 > time => {}
                Entry::Occupied(mut known) => drop(known.insert((time, text))),
                Entry::Vacant(none) => drop(none.insert((time, text))),
            }
        }
        Ok(page.metadata.r#continue)
    }
}

/// The path of a pod.
pub(crate) fn pod_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{name}")
}

fn version_of(answer: &[u8]) -> Result<u64, ApiError> {
    #[derive(Deserialize)]
    struct Object<'a> {
        #[serde(borrow)]
        metadata: Metadata<'a>,
    }
    let object: Object<'_> = serde_json::from_slice(answer).map_err(|error| ApiError::Malformed(error.to_string()))?;
    Ok(object.metadata.version())
}

fn uid_of(answer: &[u8]) -> Result<String, ApiError> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Meta,
    }
    #[derive(Deserialize)]
    struct Meta {
        uid: String,
    }
    let object: Object = serde_json::from_slice(answer).map_err(|error| ApiError::Malformed(error.to_string()))?;
    Ok(object.metadata.uid)
}

fn present(result: Result<Bytes, ApiError>) -> Result<Option<Bytes>, ApiError> {
    match result {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.code() == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether it is gone: 404, or another pod has its name.
pub(super) fn gone_is_fine(result: Result<Bytes, ApiError>) -> Result<(), ApiError> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(404) || error.refusal().is_some_and(is_other_uid) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether a refusal says that the uid is another one. Its text names the object, too, so that only whole phrases tell.
pub(crate) fn is_other_uid(refusal: &Refusal) -> bool {
    let message = refusal.message.to_ascii_lowercase();
    match refusal.code {
        // Of a delete, by an API server of 1.36 and by older ones.
        409 => message.contains("uid in the precondition") || message.contains("uid in precondition"),
        // A patch that would change the uid.
        422 => refusal.fields.iter().any(|field| field == "metadata.uid"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn the_newest_warning_that_tells_something_counts() {
        let event = |pod: &str, reason: &str, at: &str| json!({"involvedObject": {"uid": pod}, "reason": reason, "message": "why", "lastTimestamp": at, "eventTime": null});
        let pages = [
            json!({"metadata": {"continue": "more"}, "items": [
                event("a", "FailedScheduling", "2026-11-23T10:00:00Z"),
                event("a", "FailedMount", "2026-11-23T10:00:01Z"),
                event("b", "FailedMount", "2026-11-23T10:00:01Z"),
            ]}),
            json!({"metadata": {}, "items": [
                event("a", "MissingClusterDNS", "2026-11-23T10:00:09Z"),
                event("b", "FailedAttachVolume", "2026-11-23T10:00:02Z"),
                event("c", "FailedScheduling", "2026-11-23T10:00:02Z"),
            ]}),
        ];
        let mut warnings = Warnings::default();
        let next = pages.map(|page| warnings.take(page.to_string().as_bytes()).expect("a page"));
        assert_eq!(next, ["more", ""]);
        let mut reasons: Vec<_> = warnings
            .0
            .iter()
            .map(|(pod, (_, (reason, _)))| (&**pod, &**reason))
            .collect();
        reasons.sort_unstable();
        assert_eq!(reasons, [("a", "FailedMount"), ("b", "FailedAttachVolume")]);
    }

    #[test]
    fn i4_only_another_uid_means_that_a_pod_is_gone() {
        let uids = "(99999999-9999-4999-8999-999999999999) does not match the UID in record (82dc3916-c8bc-4538-9e25-b59b441bea50)";
        let of_delete = format!("Operation cannot be fulfilled on Pod \"p\": the UID in the precondition {uids}.");
        let older = "Operation cannot be fulfilled on pods \"p\": Precondition failed: UID in precondition: a, UID in object meta: b";
        let plain = "Operation cannot be fulfilled on pods \"fluid-sim-1\": the object has been modified; please apply your changes";
        let field =
            |field: &str| json!([{"reason": "FieldValueInvalid", "message": "field is immutable", "field": field}]);
        let table = [
            (404, "pods \"p\" not found", json!([]), true),
            (409, of_delete.as_str(), json!([]), true),
            (409, older, json!([]), true),
            (409, plain, json!([]), false),
            (422, "Pod \"p\" is invalid", field("metadata.uid"), true),
            (422, "Pod \"fluid-sim-1\" is invalid", field("spec.nodeName"), false),
            (500, "the uid is unknown", json!([]), false),
        ];
        for (code, message, causes, gone) in table {
            let status = json!({"message": message, "details": {"causes": causes}}).to_string();
            let code = StatusCode::from_u16(code).expect("a code");
            let refused = super::super::api::refusal(code, None, status.as_bytes());
            let result = gone_is_fine(Err(ApiError::Refused(Box::new(refused))));
            assert_eq!(result.is_ok(), gone, "{code} {message}");
        }
    }
}

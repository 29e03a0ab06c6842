//! The HTTP API.

mod body;
mod control;
mod discovery;
mod logs;
mod openapi;
mod requests;
mod route;
mod table;
mod view;
mod watch;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

pub(crate) use body::Cut;

use crate::error::ApiError;
use crate::faults::{Faults, Verdict};
use crate::node::Node;
use crate::objects::{self, DeleteOptions, PatchKind, Subresource};
use crate::resources::Resource;
use crate::selectors::{FieldSelector, LabelSelector};
use crate::store::{ListPage, ListRequest, Object, Store};
use crate::typed;
use body::Answer;
use route::{Query, Target};
use view::View;

/// As an API server's.
const LARGEST_BODY: usize = 3 * 1024 * 1024;

/// What requests work on.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) store: Store,
    pub(crate) faults: Faults,
    pub(crate) node: Node,
    pub(crate) stop: CancellationToken,
    token: [u8; 32],
    requests: requests::Requests,
}

/// A request without its body.
struct Head {
    method: Method,
    path: String,
    query: Query,
    headers: HeaderMap,
}

impl Api {
    pub(crate) fn new(store: Store, faults: Faults, node: Node, stop: CancellationToken, token: &str) -> Self {
        Self {
            store,
            faults,
            node,
            stop,
            token: Sha256::digest(token.as_bytes()).into(),
            requests: requests::Requests::default(),
        }
    }

    /// Answers a request; fails only where a fault cuts the connection.
    pub(crate) async fn serve(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Cut> {
        match self.answer(request).await {
            Ok(answer) => answer,
            Err(error) => Ok(body::refusal(&error)),
        }
    }

    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Result<Result<Answer, Cut>, ApiError> {
        let (parts, incoming) = request.into_parts();
        if !self.authorized(&parts.headers) {
            return Err(ApiError::unauthorized());
        }
        let head = Head {
            path: parts.uri.path().to_owned(),
            query: Query::parse(&parts.uri)?,
            method: parts.method,
            headers: parts.headers,
        };
        let content = read(incoming).await?;
        if let Some(answer) = self.fixed(&head) {
            return Ok(Ok(answer));
        }
        if head.path.starts_with("/local-cluster/") {
            return self.control(&head.method, &head.path, &content).await.map(Ok);
        }
        if head.path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" && head.method == Method::POST {
            return access_review(&head.headers, &content).map(Ok);
        }
        let target = route::target(&head.method, &head.path, &head.query)?;
        self.with_faults(head, target, content).await
    }

    fn authorized(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let token = given
            .and_then(|v| v.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        // Digests are compared, so that the time tells nothing about the token.
        token.is_some_and(|(_, token)| <[u8; 32]>::from(Sha256::digest(token.trim().as_bytes())) == self.token)
    }

    fn fixed(&self, head: &Head) -> Option<Answer> {
        if head.method != Method::GET {
            return None;
        }
        match head.path.as_str() {
            "/healthz" | "/livez" | "/readyz" => Some(body::text("ok")),
            "/metrics" => Some(body::text(self.requests.text())),
            path => discovery::document(path)
                .or_else(|| openapi::document(path))
                .map(|value| body::json(StatusCode::OK, &value)),
        }
    }

    async fn with_faults(
        self: &Arc<Self>,
        head: Head,
        target: Target,
        content: Bytes,
    ) -> Result<Result<Answer, Cut>, ApiError> {
        let name = match (&target.name, target.verb) {
            (None, "create") => name_in(&content),
            (name, _) => name.clone().unwrap_or_default(),
        };
        let verdict = self.faults.judge(target.verb, target.resource.plural, &name);
        let Some(delay) = verdict.delay else {
            return self.judged(verdict, &head, &target, content).await;
        };
        // A client that gives up takes nothing back: the request is carried out all the same.
        let api = self.clone();
        let late = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            api.judged(verdict, &head, &target, content).await
        });
        late.await.unwrap_or(Ok(Err(Cut)))
    }

    async fn judged(
        &self,
        verdict: Verdict,
        head: &Head,
        target: &Target,
        content: Bytes,
    ) -> Result<Result<Answer, Cut>, ApiError> {
        let answer = self.disturbed(verdict, head, target, content).await;
        let code = match &answer {
            Ok(Ok(answer)) => Some(answer.status()),
            Ok(Err(_)) => None,
            Err(error) => Some(error.code),
        };
        self.requests.count(target, code);
        answer
    }

    /// Carries a request out, unless or until a fault says otherwise.
    async fn disturbed(
        &self,
        verdict: Verdict,
        head: &Head,
        target: &Target,
        content: Bytes,
    ) -> Result<Result<Answer, Cut>, ApiError> {
        if verdict.cut {
            return Ok(Err(Cut));
        }
        if let Some(error) = verdict.refuse {
            return Err(error);
        }
        let answer = self.carry_out(head, target, content).await;
        if verdict.lose_reply {
            return Ok(Err(Cut));
        }
        if let Some(delay) = verdict.late_reply {
            tokio::time::sleep(delay).await;
        }
        answer.map(Ok)
    }

    async fn carry_out(&self, head: &Head, target: &Target, content: Bytes) -> Result<Answer, ApiError> {
        if !matches!(target.verb, "get" | "list" | "watch" | "log") && !head.query.text("dryRun").is_empty() {
            return Err(ApiError::bad_request("the local cluster does not cover dryRun"));
        }
        match target.verb {
            "get" => self.get(head, target).await,
            "list" => self.list(head, target).await,
            "watch" => self.watch(head, target).await,
            "log" => self.log(&head.query, target).await,
            "create" => self.create(head, target, &content).await,
            "update" => self.update(head, target, &content).await,
            "patch" => self.patch(head, target, &content).await,
            "delete" => self.delete(head, target, &content).await,
            "deletecollection" => self.delete_collection(head, target, &content).await,
            _ => self.evict(target, &content).await,
        }
    }

    async fn get(&self, head: &Head, target: &Target) -> Result<Answer, ApiError> {
        subresource(target)?;
        let view = View::of(&head.headers, &head.query)?;
        let found = self.store.get(&target.key()).await?;
        let object = found.ok_or_else(|| ApiError::not_found(target.resource, target.name()))?;
        Ok(body::json_bytes(StatusCode::OK, view.object(&object)))
    }

    async fn list(&self, head: &Head, target: &Target) -> Result<Answer, ApiError> {
        let view = View::of(&head.headers, &head.query)?;
        self.check_list_version(&head.query)?;
        let page = self.page(&head.query, target).await?;
        Ok(body::json_bytes(StatusCode::OK, view.list(target.resource, &page)))
    }

    async fn page(&self, query: &Query, target: &Target) -> Result<ListPage, ApiError> {
        let (labels, fields) = selectors(query, target)?;
        let limit = query.number("limit")?.unwrap_or(0);
        self.store
            .list(&ListRequest {
                resource: target.resource,
                namespace: target.namespace.as_deref(),
                labels: &labels,
                fields: &fields,
                limit: usize::try_from(limit).unwrap_or(0),
                token: query.text("continue"),
            })
            .await
    }

    /// Lists always show the newest state; what cannot be met by that is refused.
    fn check_list_version(&self, query: &Query) -> Result<(), ApiError> {
        let asked = query.text("resourceVersion");
        let matching = query.text("resourceVersionMatch");
        let number = match asked {
            "" if !matching.is_empty() => {
                return Err(ApiError::bad_request(
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            "" => return Ok(()),
            text => text
                .parse::<u64>()
                .map_err(|_| ApiError::bad_request(format!("Invalid value: {text:?}: invalid resource version")))?,
        };
        let current = self.store.committed();
        match matching {
            "Exact" if number != current => Err(ApiError::expired(format!(
                "The provided resource version is too old: {number}, current: {current}"
            ))),
            _ if number > current => Err(watch::too_new(number, current)),
            "" | "Exact" | "NotOlderThan" => Ok(()),
            other => Err(ApiError::bad_request(format!("unknown resourceVersionMatch {other:?}"))),
        }
    }

    async fn watch(&self, head: &Head, target: &Target) -> Result<Answer, ApiError> {
        let view = View::of(&head.headers, &head.query)?;
        let (labels, mut fields) = selectors(&head.query, target)?;
        if let Some(name) = &target.name {
            fields = FieldSelector::parse(&format!("metadata.name={name}"), target.resource)?;
        }
        let namespace = target.namespace.clone();
        let request = watch::WatchRequest::parse(target.resource, namespace, (labels, fields), view, &head.query)?;
        let chunks = watch::open(&self.store, &self.faults, self.stop.clone(), request, &head.query).await?;
        Ok(body::stream("application/json", chunks))
    }

    async fn create(&self, head: &Head, target: &Target, content: &Bytes) -> Result<Answer, ApiError> {
        let view = View::of(&head.headers, &head.query)?;
        if target.resource.namespaced && target.namespace.is_none() {
            return Err(ApiError::no_such_path());
        }
        let value = parse(&head.headers, content)?;
        check_fields(head, target.resource, &value)?;
        let object = objects::create(&self.store, target.resource, target.namespace(), value).await?;
        Ok(body::json_bytes(StatusCode::CREATED, view.object(&object)))
    }

    async fn update(&self, head: &Head, target: &Target, content: &Bytes) -> Result<Answer, ApiError> {
        let view = View::of(&head.headers, &head.query)?;
        let sub = subresource(target)?;
        let value = parse(&head.headers, content)?;
        check_fields(head, target.resource, &value)?;
        let object = objects::replace(&self.store, &target.key(), sub, value).await?;
        Ok(body::json_bytes(StatusCode::OK, view.object(&object)))
    }

    async fn patch(&self, head: &Head, target: &Target, content: &Bytes) -> Result<Answer, ApiError> {
        let view = View::of(&head.headers, &head.query)?;
        let sub = subresource(target)?;
        let kind = match media_type(&head.headers) {
            "application/strategic-merge-patch+json" => PatchKind::Strategic,
            "application/merge-patch+json" => PatchKind::Merge,
            other => {
                return Err(unsupported(other, "strategic merge patches and merge patches"));
            }
        };
        let patch = from_json(content)?;
        let object = objects::patch(&self.store, &target.key(), sub, kind, patch).await?;
        Ok(body::json_bytes(StatusCode::OK, view.object(&object)))
    }

    async fn delete(&self, head: &Head, target: &Target, content: &Bytes) -> Result<Answer, ApiError> {
        if !target.subresource.is_empty() {
            return Err(ApiError::no_such_path());
        }
        let options = delete_options(&head.query, content)?;
        let (object, removed) = objects::delete(&self.store, &target.key(), &options).await?;
        if removed && !matches!(target.resource.kind, "Pod" | "ServiceAccount" | "PersistentVolumeClaim") {
            return Ok(body::json(StatusCode::OK, &success(&object)));
        }
        Ok(body::json_bytes(StatusCode::OK, object.body.clone()))
    }

    async fn delete_collection(&self, head: &Head, target: &Target, content: &Bytes) -> Result<Answer, ApiError> {
        if target.resource.kind == "Namespace" || (target.resource.namespaced && target.namespace.is_none()) {
            return Err(ApiError::not_covered(
                "the server does not allow this method on the requested resource",
            ));
        }
        let options = delete_options(&head.query, content)?;
        let page = self.page(&head.query, target).await?;
        objects::delete_listed(&self.store, &page, &options).await?;
        Ok(body::json_bytes(
            StatusCode::OK,
            View::Whole.list(target.resource, &page),
        ))
    }

    /// Evicts a pod: it is marked as disrupted and then deleted.
    async fn evict(&self, target: &Target, content: &Bytes) -> Result<Answer, ApiError> {
        if target.resource.kind != "Pod" {
            return Err(ApiError::no_such_path());
        }
        let request = if content.is_empty() {
            json!({})
        } else {
            from_json(content)?
        };
        let options = DeleteOptions::parse(&request["deleteOptions"])?;
        self.node.evict(&target.key(), &options).await?;
        Ok(body::json(
            StatusCode::CREATED,
            &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
        ))
    }
}

/// With `fieldValidation=Strict` unknown fields are refused; otherwise they are dropped.
fn check_fields(head: &Head, resource: &'static Resource, value: &Value) -> Result<(), ApiError> {
    if head.query.text("fieldValidation") != "Strict" {
        return Ok(());
    }
    let unknown = typed::unknown_fields(resource, value)?;
    if unknown.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
    Err(ApiError::bad_request(format!(
        "strict decoding error: {}",
        list.join(", ")
    )))
}

fn subresource(target: &Target) -> Result<Subresource, ApiError> {
    match target.subresource.as_str() {
        "" => Ok(Subresource::Main),
        "status" if target.resource.status => Ok(Subresource::Status),
        _ => Err(ApiError::no_such_path()),
    }
}

fn selectors(query: &Query, target: &Target) -> Result<(LabelSelector, FieldSelector), ApiError> {
    Ok((
        LabelSelector::parse(query.text("labelSelector"))?,
        FieldSelector::parse(query.text("fieldSelector"), target.resource)?,
    ))
}

fn delete_options(query: &Query, content: &Bytes) -> Result<DeleteOptions, ApiError> {
    let request = if content.is_empty() {
        json!({})
    } else {
        from_json(content)?
    };
    let mut options = DeleteOptions::parse(&request)?;
    if let Some(seconds) = query.number("gracePeriodSeconds")? {
        options.grace_seconds = Some(seconds);
    }
    match query.text("propagationPolicy") {
        "" => {}
        policy => options.set_propagation(policy)?,
    }
    Ok(options)
}

fn success(object: &Object) -> Value {
    let mut details = json!({"name": object.key.name, "kind": object.key.resource.plural, "uid": object.uid});
    if !object.key.resource.group.is_empty() {
        details["group"] = json!(object.key.resource.group);
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// Whoever has the token may do everything.
fn access_review(headers: &HeaderMap, content: &Bytes) -> Result<Answer, ApiError> {
    let mut review = parse(headers, content)?;
    review["status"] = json!({"allowed": true, "reason": "the local cluster has one user"});
    Ok(body::json(StatusCode::CREATED, &review))
}

async fn read(incoming: Incoming) -> Result<Bytes, ApiError> {
    match Limited::new(incoming, LARGEST_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {LARGEST_BODY}"),
        )),
        Err(error) => Err(ApiError::bad_request(format!("the body cannot be read: {error}"))),
    }
}

fn parse(headers: &HeaderMap, content: &Bytes) -> Result<Value, ApiError> {
    match media_type(headers) {
        "" | "application/json" => from_json(content),
        other => Err(unsupported(other, "application/json")),
    }
}

fn from_json(content: &Bytes) -> Result<Value, ApiError> {
    serde_json::from_slice(content).map_err(|error| ApiError::bad_request(format!("the body is not JSON: {error}")))
}

fn unsupported(found: &str, covered: &str) -> ApiError {
    ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "UnsupportedMediaType",
        format!("the local cluster does not cover {found:?}; it takes {covered}"),
    )
}

fn media_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// The name in the body of a create, for faults that ask for it.
fn name_in(content: &Bytes) -> String {
    #[derive(serde::Deserialize)]
    struct Named {
        metadata: Meta,
    }
    #[derive(serde::Deserialize)]
    struct Meta {
        #[serde(default)]
        name: String,
    }
    serde_json::from_slice::<Named>(content).map_or_else(|_| String::new(), |n| n.metadata.name)
}

//! Watches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::Stream;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::body::Cut;
use super::route::Query;
use super::view::View;
use crate::error::ApiError;
use crate::faults::Faults;
use crate::resources::Resource;
use crate::selectors::{FieldSelector, LabelSelector};
use crate::store::{Change, Cursor, ListRequest, Object, Store};

/// Changes in one chunk of the stream.
const BATCH: usize = 128;
/// Kubernetes sends bookmarks about once a minute.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// An API server ends watches after 30 to 60 minutes when the client does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(45 * 60);

/// What is watched.
pub(super) struct WatchRequest {
    pub(super) resource: &'static Resource,
    pub(super) namespace: Option<String>,
    pub(super) labels: LabelSelector,
    pub(super) fields: FieldSelector,
    pub(super) view: View,
    bookmarks: bool,
    initial_end: bool,
    timeout: Duration,
}

impl WatchRequest {
    pub(super) fn parse(
        resource: &'static Resource,
        namespace: Option<String>,
        selectors: (LabelSelector, FieldSelector),
        view: View,
        query: &Query,
    ) -> Result<Self, ApiError> {
        let initial_end = query.flag("sendInitialEvents");
        let matching = query.text("resourceVersionMatch");
        if initial_end && matching != "NotOlderThan" {
            return Err(ApiError::bad_request(
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        if query.text("sendInitialEvents").is_empty() && !matching.is_empty() {
            return Err(ApiError::bad_request(
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        let timeout = query
            .number("timeoutSeconds")?
            .and_then(|s| u64::try_from(s).ok())
            .filter(|s| *s > 0)
            .map_or(DEFAULT_TIMEOUT, Duration::from_secs);
        Ok(Self {
            resource,
            namespace,
            labels: selectors.0,
            fields: selectors.1,
            view,
            bookmarks: query.flag("allowWatchBookmarks"),
            initial_end,
            timeout,
        })
    }

    fn selects(&self, object: &Object) -> bool {
        self.namespace.as_deref().is_none_or(|ns| ns == object.key.namespace)
            && object.selected(&self.labels, &self.fields)
    }
}

/// Opens a watch: the chunks of its stream. Without a version, or from version 0, it begins with what exists.
pub(super) async fn open(
    store: &Store,
    faults: &Faults,
    stop: CancellationToken,
    request: WatchRequest,
    query: &Query,
) -> Result<impl Stream<Item = Result<Bytes, Cut>> + use<>, ApiError> {
    let asked = match query.text("resourceVersion") {
        "" | "0" => None,
        text => Some(
            text.parse::<u64>()
                .map_err(|_| ApiError::bad_request(format!("Invalid value: {text:?}: invalid resource version")))?,
        ),
    };
    // A streaming list starts from now, not from the version that it may not be older than.
    let from_list = asked.is_none() || request.initial_end;
    let from_list = from_list && query.text("sendInitialEvents") != "false";
    let (initial, start) = if from_list {
        let page = store
            .list(&ListRequest {
                resource: request.resource,
                namespace: request.namespace.as_deref(),
                labels: &request.labels,
                fields: &request.fields,
                limit: 0,
                token: "",
            })
            .await?;
        if let Some(asked) = asked
            && asked > page.version
        {
            return Err(too_new(asked, page.version));
        }
        (page.items.into(), page.version)
    } else {
        let current = store.committed();
        if let Some(asked) = asked.filter(|asked| *asked > current) {
            return Err(too_new(asked, current));
        }
        (VecDeque::new(), asked.unwrap_or_else(|| store.committed()))
    };
    let watcher = Watcher {
        cursor: store.cursor(request.resource, start),
        breaks: faults.watch_breaks(),
        deadline: Instant::now() + request.timeout,
        next_bookmark: Instant::now() + BOOKMARK_PERIOD,
        initial,
        initial_end: request.initial_end.then_some(start),
        first: true,
        ended: false,
        request,
        stop,
    };
    Ok(futures::stream::unfold(watcher, |mut watcher| async move {
        let chunk = watcher.next().await?;
        Some((chunk, watcher))
    }))
}

/// The answer to a version from the future.
pub(super) fn too_new(asked: u64, current: u64) -> ApiError {
    ApiError::new(
        http::StatusCode::GATEWAY_TIMEOUT,
        "Timeout",
        format!("Too large resource version: {asked}, current: {current}"),
    )
}

struct Watcher {
    request: WatchRequest,
    cursor: Cursor,
    initial: VecDeque<Arc<Object>>,
    initial_end: Option<u64>,
    breaks: watch::Receiver<u64>,
    stop: CancellationToken,
    deadline: Instant,
    next_bookmark: Instant,
    first: bool,
    ended: bool,
}

enum Woken {
    Changes(Result<Vec<Arc<Change>>, ApiError>),
    Bookmark,
    Break,
    End,
}

impl Watcher {
    async fn next(&mut self) -> Option<Result<Bytes, Cut>> {
        if self.ended {
            return None;
        }
        if !self.initial.is_empty() {
            return Some(Ok(self.initial_chunk()));
        }
        if let Some(version) = self.initial_end.take() {
            return Some(Ok(self.bookmark(version, true)));
        }
        loop {
            match self.wake().await {
                Woken::End => return None,
                Woken::Break => {
                    self.ended = true;
                    return Some(Err(Cut));
                }
                Woken::Bookmark => {
                    self.next_bookmark = Instant::now() + BOOKMARK_PERIOD;
                    let version = self.cursor.position();
                    return Some(Ok(self.bookmark(version, false)));
                }
                Woken::Changes(Err(error)) => {
                    self.ended = true;
                    return Some(Ok(event("ERROR", error.to_value().to_string().as_bytes())));
                }
                Woken::Changes(Ok(changes)) => {
                    let chunk = self.changes_chunk(&changes);
                    if !chunk.is_empty() {
                        return Some(Ok(chunk));
                    }
                }
            }
        }
    }

    async fn wake(&mut self) -> Woken {
        let bookmark = if self.request.bookmarks {
            self.next_bookmark
        } else {
            self.deadline
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Woken::End,
            _ = self.breaks.changed() => Woken::Break,
            changes = self.cursor.next(BATCH) => Woken::Changes(changes),
            () = tokio::time::sleep_until(self.deadline) => Woken::End,
            () = tokio::time::sleep_until(bookmark) => Woken::Bookmark,
        }
    }

    fn initial_chunk(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        for _ in 0..BATCH {
            let Some(object) = self.initial.pop_front() else {
                break;
            };
            self.put(&mut out, "ADDED", &object);
        }
        out.freeze()
    }

    fn changes_chunk(&mut self, changes: &[Arc<Change>]) -> Bytes {
        let mut out = BytesMut::new();
        for change in changes {
            let now = !change.removed && self.request.selects(&change.object);
            let before = change.previous.as_deref().is_some_and(|p| self.request.selects(p));
            match (before, now) {
                (false, true) => self.put(&mut out, "ADDED", &change.object),
                (true, true) => self.put(&mut out, "MODIFIED", &change.object),
                (true, false) if change.removed => self.put(&mut out, "DELETED", &change.object),
                (true, false) => {
                    // It left the selector: its last selected state, at the version of the change.
                    if let Some(previous) = &change.previous {
                        self.put(&mut out, "DELETED", &previous.at_version(change.version));
                    }
                }
                (false, false) => {}
            }
        }
        out.freeze()
    }

    fn put(&mut self, out: &mut BytesMut, kind: &str, object: &Object) {
        let body = self.request.view.watched(object, self.first);
        self.first = false;
        put_event(out, kind, &body);
    }

    fn bookmark(&self, version: u64, initial_end: bool) -> Bytes {
        let mut meta = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
        if initial_end {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let resource = self.request.resource;
        let (kind, api_version) = match self.request.view {
            View::Whole => (resource.kind, resource.api_version()),
            View::Metadata => ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned()),
            View::Table(_) => ("Table", "meta.k8s.io/v1".to_owned()),
        };
        let mut object = json!({"kind": kind, "apiVersion": api_version, "metadata": meta});
        match kind {
            "Pod" => object["spec"] = json!({"containers": null}),
            "Table" => {
                object["columnDefinitions"] = json!([]);
                object["rows"] = json!([]);
            }
            _ => {}
        }
        event("BOOKMARK", object.to_string().as_bytes())
    }
}

fn event(kind: &str, body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    put_event(&mut out, kind, body);
    out.freeze()
}

fn put_event(out: &mut BytesMut, kind: &str, body: &[u8]) {
    out.reserve(body.len() + 40);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(body);
    out.put_slice(b"}\n");
}

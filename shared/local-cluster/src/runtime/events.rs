//! Kubernetes Events, best effort: repeated ones are counted, a flood is dropped, old ones go.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::error::ApiError;
use crate::objects;
use crate::resources::EVENTS;
use crate::store::{Key, Outcome, Store};

const QUEUE: usize = 1_024;
const MOST_REMEMBERED: usize = 4_096;
/// As an API server's `--event-ttl`.
const LIFETIME: Duration = Duration::from_secs(3_600);
const SWEEP: Duration = Duration::from_secs(300);

/// Something to tell about a pod.
#[derive(Debug)]
struct Happened {
    pod: Value,
    kind: &'static str,
    reason: &'static str,
    message: String,
    component: &'static str,
}

/// Where events are told; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Events(mpsc::Sender<Happened>);

impl Events {
    /// Starts the task that writes them.
    pub(super) fn start(store: Store, stop: CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(write_all(store, receiver, stop));
        Self(sender)
    }

    pub(super) fn normal(&self, pod: &Value, reason: &'static str, message: impl Into<String>) {
        self.tell(pod, "Normal", reason, message.into());
    }

    pub(super) fn warning(&self, pod: &Value, reason: &'static str, message: impl Into<String>) {
        self.tell(pod, "Warning", reason, message.into());
    }

    fn tell(&self, pod: &Value, kind: &'static str, reason: &'static str, message: String) {
        let component = match reason {
            "Scheduled" | "FailedScheduling" => "default-scheduler",
            _ => "kubelet",
        };
        let pod = json!({"metadata": {
            "name": pod["metadata"]["name"],
            "namespace": pod["metadata"]["namespace"],
            "uid": pod["metadata"]["uid"],
            "resourceVersion": pod["metadata"]["resourceVersion"],
        }});
        if self
            .0
            .try_send(Happened {
                pod,
                kind,
                reason,
                message,
                component,
            })
            .is_err()
        {
            tracing::debug!(reason, "event dropped");
        }
    }
}

async fn write_all(store: Store, mut queue: mpsc::Receiver<Happened>, stop: CancellationToken) {
    let mut known: HashMap<(String, &'static str, String), Key> = HashMap::new();
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = sweep.tick() => remove_old(&store).await,
            happened = queue.recv() => {
                let Some(happened) = happened else { return };
                if known.len() >= MOST_REMEMBERED {
                    known.clear();
                }
                if let Err(error) = write(&store, &mut known, happened).await {
                    tracing::debug!(%error, "event not stored");
                }
            }
        }
    }
}

async fn write(
    store: &Store,
    known: &mut HashMap<(String, &'static str, String), Key>,
    happened: Happened,
) -> Result<(), ApiError> {
    let meta = &happened.pod["metadata"];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let same = (text(&meta["uid"]), happened.reason, happened.message.clone());
    if let Some(key) = known.get(&same) {
        let counted = store
            .update(key, |_, event| {
                event["count"] = json!(event["count"].as_i64().unwrap_or(1) + 1);
                event["lastTimestamp"] = json!(clock::now());
                Ok(Outcome::Keep)
            })
            .await;
        if counted.is_ok() {
            return Ok(());
        }
    }
    let (namespace, now) = (text(&meta["namespace"]), clock::now());
    let name = format!("{}.{:016x}", text(&meta["name"]), rand::random::<u64>());
    let event = json!({
        "metadata": {"name": name},
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "name": meta["name"], "namespace": namespace, "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"],
        },
        "reason": happened.reason,
        "message": happened.message,
        "type": happened.kind,
        "source": {"component": happened.component},
        "reportingComponent": happened.component,
        "reportingInstance": "",
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
    });
    let created = objects::create(store, EVENTS, &namespace, event).await?;
    known.insert(same, created.key.clone());
    Ok(())
}

async fn remove_old(store: &Store) {
    let limit = crate::clock::timestamp() - jiff::SignedDuration::try_from(LIFETIME).unwrap_or_default();
    for event in store.peek_all(EVENTS, None) {
        let last = event.value()["lastTimestamp"]
            .as_str()
            .and_then(|t| t.parse::<Timestamp>().ok());
        if last.is_none_or(|t| t < limit)
            && let Err(error) = store.update(&event.key, |_, _| Ok(Outcome::Remove)).await
        {
            tracing::debug!(%error, "old event not removed");
        }
    }
}

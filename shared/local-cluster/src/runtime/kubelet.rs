//! The loop over all pods: scheduling onto the node, and a worker for every pod that is there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::worker::Worker;
use super::{Context, instant, scheduling, volumes};
use crate::config::Completion;
use crate::error::ApiError;
use crate::node::{NODE_NAME, set_condition};
use crate::objects::{self, DeleteOptions};
use crate::pods;
use crate::resources::{NODES, PODS};
use crate::selectors::{FieldSelector, LabelSelector};
use crate::store::{Cursor, Key, ListRequest, Object, Outcome};

const BATCH: usize = 256;
/// A deleted pod's logs are gone about a second after its end, as on a real node.
const CLEANUP_DELAY: Duration = Duration::from_secs(1);
/// Between tries to bind a pod.
const BIND_PAUSE: Duration = Duration::from_millis(500);
const FULL: &str = "0/1 nodes are available: 1 Too many pods.";

type Update = watch::Sender<Option<Arc<Object>>>;

pub(super) struct Kubelet {
    context: Arc<Context>,
    completion: Completion,
    most_pods: usize,
    /// Uids of the pods that take a slot: bound and not at their end.
    active: HashSet<String>,
    workers: HashMap<String, Update>,
    tasks: JoinSet<String>,
    /// Pods that only wait for a slot, oldest first.
    queue: BTreeMap<u64, Key>,
    queued: HashMap<String, u64>,
    /// Pods that the node as it is cannot serve.
    unschedulable: HashMap<String, Key>,
}

impl Kubelet {
    pub(super) fn new(context: Arc<Context>, completion: Completion, most_pods: u32) -> Self {
        let most_pods = match completion {
            Completion::Processes => usize::try_from(most_pods).unwrap_or(usize::MAX),
            Completion::Instant { .. } => usize::MAX,
        };
        Self {
            context,
            completion,
            most_pods,
            active: HashSet::new(),
            workers: HashMap::new(),
            tasks: JoinSet::new(),
            queue: BTreeMap::new(),
            queued: HashMap::new(),
            unschedulable: HashMap::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let mut nodes = self.context.store.cursor(NODES, self.context.store.committed());
        let mut pods = self.begin().await;
        loop {
            tokio::select! {
                () = self.context.stop.cancelled() => break,
                changes = pods.next(BATCH) => match changes {
                    Ok(changes) => {
                        for change in changes {
                            self.seen(&change.object, change.removed);
                        }
                        self.schedule();
                    }
                    // It fell out of the history: begin again with a list.
                    Err(_) => pods = self.begin().await,
                },
                changed = nodes.next(BATCH) => {
                    if changed.is_err() {
                        nodes = self.context.store.cursor(NODES, self.context.store.committed());
                    }
                    for (_, key) in std::mem::take(&mut self.unschedulable) {
                        if let Some(pod) = self.context.store.peek(&key) {
                            self.seen(&pod, false);
                        }
                    }
                    self.schedule();
                },
                Some(ended) = self.tasks.join_next() => {
                    match ended {
                        Ok(uid) => self.worker_ended(&uid),
                        Err(error) => tracing::error!(%error, "pod worker ended badly"),
                    }
                    self.schedule();
                },
            }
        }
        // Workers see the same stop; those that kill their containers take a moment.
        while self.tasks.join_next().await.is_some() {}
    }

    /// Lists all pods, and continues from there.
    async fn begin(&mut self) -> Cursor {
        loop {
            let (labels, fields) = (LabelSelector::default(), FieldSelector::default());
            let request = ListRequest {
                resource: PODS,
                namespace: None,
                labels: &labels,
                fields: &fields,
                limit: 0,
                token: "",
            };
            match self.context.store.list(&request).await {
                Ok(page) => {
                    self.adopt_list(&page.items);
                    return self.context.store.cursor(PODS, page.version);
                }
                Err(error) => {
                    tracing::warn!(%error, "pods cannot be listed");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    fn adopt_list(&mut self, items: &[Arc<Object>]) {
        let known: HashSet<&str> = items.iter().map(|o| o.uid.as_str()).collect();
        for (uid, update) in &self.workers {
            if !known.contains(uid.as_str()) {
                update.send_replace(None);
            }
        }
        super::remove_strays(&self.context, &known);
        for object in items {
            self.seen(object, false);
        }
        self.schedule();
    }

    fn seen(&mut self, object: &Arc<Object>, removed: bool) {
        let uid = &object.uid;
        if removed {
            self.forget(uid);
            match self.workers.get(uid) {
                Some(update) => {
                    update.send_replace(None);
                }
                None => self.clean_up(uid, Duration::ZERO),
            }
            return;
        }
        match object.field("spec.nodeName") {
            // Being deleted without a node means that it will never have run.
            "" if object.deleting => self.forget(uid),
            "" => self.enqueue(object),
            NODE_NAME => self.on_node(object),
            _ => {}
        }
    }

    fn forget(&mut self, uid: &str) {
        self.active.remove(uid);
        self.unschedulable.remove(uid);
        if let Some(version) = self.queued.remove(uid) {
            self.queue.remove(&version);
        }
    }

    fn on_node(&mut self, object: &Arc<Object>) {
        if let Some(update) = self.workers.get(&object.uid) {
            update.send_replace(Some(object.clone()));
            return;
        }
        // What is heard may be older than what a worker that is done has written: no worker begins from that.
        let Some(object) = &self.context.store.by_uid(&object.uid) else {
            return;
        };
        let terminal = matches!(object.field("status.phase"), "Succeeded" | "Failed");
        if terminal {
            self.active.remove(&object.uid);
            if object.deleting {
                self.finish_deletion(object);
                self.clean_up(&object.uid, CLEANUP_DELAY);
            }
            return;
        }
        let new = self.active.insert(object.uid.clone());
        match self.completion {
            Completion::Processes => self.start_worker(object),
            Completion::Instant { exit_code } if new => instant::complete(&self.context, object, exit_code),
            Completion::Instant { .. } => {}
        }
    }

    fn start_worker(&mut self, object: &Arc<Object>) {
        let (update, updates) = watch::channel(Some(object.clone()));
        let worker = Worker::new(self.context.clone(), object, updates);
        let uid = object.uid.clone();
        self.workers.insert(uid.clone(), update);
        self.tasks.spawn(async move {
            worker.run().await;
            uid
        });
    }

    fn worker_ended(&mut self, uid: &str) {
        self.workers.remove(uid);
        self.active.remove(uid);
        match self.context.store.by_uid(uid) {
            None => self.clean_up(uid, CLEANUP_DELAY),
            Some(object) if object.deleting => self.clean_up(uid, CLEANUP_DELAY),
            Some(_) => {}
        }
    }

    /// A pod that ended while its deletion was under way, and nobody finished it.
    fn finish_deletion(&self, object: &Arc<Object>) {
        if object.value()["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0)
            == 0
        {
            return;
        }
        let (context, object) = (self.context.clone(), object.clone());
        tokio::spawn(async move {
            let options = DeleteOptions {
                grace_seconds: Some(0),
                uid: Some(object.uid.clone()),
                ..DeleteOptions::default()
            };
            if let Err(error) = objects::delete(&context.store, &object.key, &options).await {
                tracing::debug!(%error, "deletion not finished");
            }
        });
    }

    fn clean_up(&self, uid: &str, delay: Duration) {
        if self.completion != Completion::Processes {
            return;
        }
        let folder = self.context.node.pod_folder(uid);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let removed = tokio::task::spawn_blocking(move || volumes::remove(&folder)).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(%error, "pod folder not removed");
            }
        });
    }

    fn enqueue(&mut self, object: &Arc<Object>) {
        let known = self.queued.contains_key(&object.uid) || self.active.contains(&object.uid);
        if known || self.unschedulable.contains_key(&object.uid) {
            return;
        }
        let terminal = matches!(object.field("status.phase"), "Succeeded" | "Failed");
        if terminal || object.field("spec.schedulerName") != "default-scheduler" {
            return;
        }
        self.queued.insert(object.uid.clone(), object.version);
        self.queue.insert(object.version, object.key.clone());
        if self.active.len() >= self.most_pods {
            self.refuse(object.key.clone(), FULL.to_owned());
        }
    }

    /// Gives free slots to the pods that wait longest.
    fn schedule(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        let node = self.context.store.peek(&self.context.node.key()).map(|n| n.value());
        let Some(node) = node else { return };
        while self.active.len() < self.most_pods {
            let Some((_, key)) = self.queue.pop_first() else { return };
            let Some(object) = self.context.store.peek(&key) else {
                continue;
            };
            self.queued.remove(&object.uid);
            if object.deleting {
                continue;
            }
            let pod = object.value();
            if pod["spec"]["schedulingGates"].as_array().is_some_and(|g| !g.is_empty()) {
                continue;
            }
            match scheduling::obstacle(&pod, &node) {
                Some(why) => {
                    self.unschedulable.insert(object.uid.clone(), key.clone());
                    self.refuse(key, why);
                }
                None => {
                    self.active.insert(object.uid.clone());
                    match self.completion {
                        Completion::Processes => self.bind(key, pod),
                        Completion::Instant { exit_code } => instant::complete(&self.context, &object, exit_code),
                    }
                }
            }
        }
    }

    /// Binds a pod. It holds its slot meanwhile, so this is tried, as through a full disk, until the pod is bound or gone.
    fn bind(&self, key: Key, pod: Value) {
        let context = self.context.clone();
        tokio::spawn(async move {
            loop {
                let bound = context.store.update(&key, |old, pod| {
                    if !old.deleting {
                        bind_value(pod);
                    }
                    Ok(Outcome::Keep)
                });
                match bound.await {
                    Ok(bound) if bound.field("spec.nodeName").is_empty() => return,
                    Ok(_) => {
                        let name = format!("{}/{}", key.namespace, key.name);
                        let text = format!("Successfully assigned {name} to {NODE_NAME}");
                        return context.events.normal(&pod, "Scheduled", text);
                    }
                    Err(error) if error.code == http::StatusCode::NOT_FOUND => return,
                    Err(error) => tracing::warn!(%error, pod = key.name, "pod is not bound yet"),
                }
                tokio::select! {
                    () = context.stop.cancelled() => return,
                    () = tokio::time::sleep(BIND_PAUSE) => {}
                }
            }
        });
    }

    fn refuse(&self, key: Key, why: String) {
        let context = self.context.clone();
        tokio::spawn(async move {
            let refused: Result<_, ApiError> = context
                .store
                .update(&key, |_, pod| {
                    if !pods::is_terminal(pod) && pod["spec"]["nodeName"].is_null() {
                        set_condition(pod, "PodScheduled", "False", "Unschedulable", &why);
                    }
                    Ok(Outcome::Keep)
                })
                .await;
            match refused {
                Ok(object) => context.events.warning(&object.value(), "FailedScheduling", why),
                Err(error) => tracing::debug!(%error, "pod not marked"),
            }
        });
    }
}

/// The pod belongs to the node from now on.
pub(super) fn bind_value(pod: &mut Value) {
    pod["spec"]["nodeName"] = Value::from(NODE_NAME);
    set_condition(pod, "PodScheduled", "True", "", "");
}

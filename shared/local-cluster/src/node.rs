//! The cluster's one node: its object, and what happens to it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::clock;
use crate::error::ApiError;
use crate::objects::{self, DeleteOptions};
use crate::pods;
use crate::resources::{NODES, PODS};
use crate::store::{Key, Object, Outcome, Store};

/// Name of the node.
pub const NODE_NAME: &str = "local";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// The node; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Node(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Store,
    folder: PathBuf,
    state: watch::Sender<NodeState>,
    orders: Mutex<Vec<Order>>,
    ordered: watch::Sender<u64>,
}

/// What the kubelet has to know of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeState {
    /// While it is false nothing that happens on the node reaches the API.
    pub(crate) reachable: bool,
    /// Changes with a reboot.
    pub(crate) boot: String,
    /// Counts the reboots that were asked for: containers of earlier boots are gone.
    pub(crate) reboots: u64,
}

/// What a test wants to happen to a running pod.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) uid: String,
    pub(crate) kind: OrderKind,
}

/// The kinds of orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OrderKind {
    /// The kubelet evicts the pod.
    Evict {
        /// Why, as in the pod's status.
        message: String,
    },
    /// The kernel kills a container that used too much memory.
    OutOfMemory {
        /// The container, the first one when empty.
        container: String,
    },
}

impl Node {
    pub(crate) fn new(store: Store, folder: &Path) -> Self {
        let state = NodeState {
            reachable: true,
            boot: machine_boot_id(),
            reboots: 0,
        };
        Self(Arc::new(Shared {
            store,
            folder: folder.join("pods"),
            state: watch::Sender::new(state),
            orders: Mutex::new(Vec::new()),
            ordered: watch::Sender::new(0),
        }))
    }

    /// Creates the node object, or brings it up to date after a restart.
    pub(crate) async fn register(&self, most_pods: u32) -> Result<(), ApiError> {
        let key = self.key();
        if self.0.store.peek(&key).is_none() {
            let node = json!({
                "metadata": {"name": NODE_NAME, "labels": {
                    "kubernetes.io/hostname": NODE_NAME,
                    "kubernetes.io/os": "linux",
                    "kubernetes.io/arch": architecture(),
                }},
                "spec": {},
            });
            objects::create(&self.0.store, NODES, "", node).await?;
        }
        let boot = machine_boot_id();
        self.change(|node| {
            node["status"] = status(most_pods, &boot);
            set_reachable(node, true);
        })
        .await
    }

    pub(crate) fn key(&self) -> Key {
        Key::new(NODES, "", NODE_NAME)
    }

    pub(crate) fn state(&self) -> watch::Receiver<NodeState> {
        self.0.state.subscribe()
    }

    /// The folder of a pod on this machine.
    pub(crate) fn pod_folder(&self, uid: &str) -> PathBuf {
        self.0.folder.join(uid)
    }

    /// The folder of all pods.
    pub(crate) fn pods_folder(&self) -> &Path {
        &self.0.folder
    }

    /// Orders that tests gave for a pod; taking them removes them.
    pub(crate) fn take_orders(&self, uid: &str) -> Vec<OrderKind> {
        let mut orders = self.0.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let (mine, others) = std::mem::take(&mut *orders)
            .into_iter()
            .partition(|o: &Order| o.uid == uid);
        *orders = others;
        mine.into_iter().map(|o: Order| o.kind).collect()
    }

    pub(crate) fn order_changes(&self) -> watch::Receiver<u64> {
        self.0.ordered.subscribe()
    }

    /// Gives an order for a pod.
    pub(crate) fn order(&self, pod: &Key, kind: OrderKind) -> Result<(), ApiError> {
        let object = self.pod(pod)?;
        let order = Order {
            uid: object.uid.clone(),
            kind,
        };
        self.0.orders.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        self.0.ordered.send_modify(|n| *n += 1);
        Ok(())
    }

    /// The eviction API: the pod learns why, and is deleted.
    pub(crate) async fn evict(&self, pod: &Key, options: &DeleteOptions) -> Result<(), ApiError> {
        self.pod(pod)?;
        self.0
            .store
            .update(pod, |_, value| {
                if !pods::is_terminal(value) {
                    let message = "Eviction API: evicting";
                    set_condition(value, "DisruptionTarget", "True", "EvictionByEvictionAPI", message);
                }
                Ok(Outcome::Keep)
            })
            .await?;
        objects::delete(&self.0.store, pod, options).await.map(|_| ())
    }

    /// The node stops answering: what happens on it is not seen any more.
    pub(crate) async fn lose(&self) -> Result<(), ApiError> {
        self.0.state.send_modify(|s| s.reachable = false);
        self.change(|node| set_reachable(node, false)).await?;
        for pod in self.pods_here() {
            self.0
                .store
                .update(&pod.key, |_, value| {
                    if !pods::is_terminal(value) {
                        set_condition(value, "Ready", "False", "", "");
                    }
                    Ok(Outcome::Keep)
                })
                .await?;
        }
        Ok(())
    }

    /// The node answers again, after a reboot its containers are gone.
    pub(crate) async fn come_back(&self, rebooted: bool) -> Result<(), ApiError> {
        let mut boot = self.0.state.borrow().boot.clone();
        if rebooted {
            boot = uuid::Uuid::new_v4().to_string();
        }
        self.change(|node| {
            set_reachable(node, true);
            node["status"]["nodeInfo"]["bootID"] = json!(boot);
        })
        .await?;
        self.0.state.send_modify(|s| {
            s.reachable = true;
            s.boot.clone_from(&boot);
            s.reboots += u64::from(rebooted);
        });
        Ok(())
    }

    fn pods_here(&self) -> Vec<Arc<Object>> {
        let mut all = self.0.store.peek_all(PODS, None);
        all.retain(|p| p.field("spec.nodeName") == NODE_NAME);
        all
    }

    fn pod(&self, key: &Key) -> Result<Arc<Object>, ApiError> {
        self.0
            .store
            .peek(key)
            .ok_or_else(|| ApiError::not_found(PODS, &key.name))
    }

    async fn change(&self, mut change: impl FnMut(&mut Value)) -> Result<(), ApiError> {
        let key = self.key();
        let changed = self.0.store.update(&key, |_, node| {
            change(node);
            Ok(Outcome::Keep)
        });
        changed.await.map(|_| ())
    }
}

/// Adds or changes a condition; the time of transition moves only with the status.
pub(crate) fn set_condition(object: &mut Value, kind: &str, status: &str, reason: &str, message: &str) {
    let mut condition =
        json!({"type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": clock::now()});
    for (field, text) in [("reason", reason), ("message", message)] {
        if !text.is_empty() {
            condition[field] = json!(text);
        }
    }
    if !object["status"]["conditions"].is_array() {
        object["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = object["status"]["conditions"].as_array_mut() else {
        return;
    };
    match conditions.iter_mut().find(|c| c["type"] == kind) {
        Some(old) => {
            if old["status"] == status {
                condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = condition;
        }
        None => conditions.push(condition),
    }
}

fn set_reachable(node: &mut Value, reachable: bool) {
    if reachable {
        set_condition(node, "Ready", "True", "KubeletReady", "kubelet is posting ready status");
    } else {
        set_condition(
            node,
            "Ready",
            "Unknown",
            "NodeStatusUnknown",
            "Kubelet stopped posting node status.",
        );
    }
    let mut taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    taints.retain(|t| t["key"] != UNREACHABLE);
    if !reachable {
        for effect in ["NoSchedule", "NoExecute"] {
            taints.push(json!({"key": UNREACHABLE, "effect": effect, "timeAdded": clock::now()}));
        }
    }
    if taints.is_empty() {
        if let Some(spec) = node["spec"].as_object_mut() {
            spec.shift_remove("taints");
        }
    } else {
        node["spec"]["taints"] = Value::Array(taints);
    }
}

fn status(most_pods: u32, boot: &str) -> Value {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let amounts = json!({
        "cpu": processors.to_string(),
        "memory": format!("{}Ki", memory_kib()),
        "pods": most_pods.to_string(),
    });
    json!({
        "capacity": amounts,
        "allocatable": amounts,
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": NODE_NAME}],
        "nodeInfo": {
            "architecture": architecture(),
            "bootID": boot,
            "containerRuntimeVersion": concat!("windlass://", env!("CARGO_PKG_VERSION")),
            "kernelVersion": read_trimmed("/proc/sys/kernel/osrelease"),
            "kubeProxyVersion": "",
            "kubeletVersion": concat!("v1.33.0+windlass-", env!("CARGO_PKG_VERSION")),
            "machineID": read_trimmed("/etc/machine-id"),
            "operatingSystem": "linux",
            "osImage": "the machine's own",
            "systemUUID": "",
        },
    })
}

/// Changes when the machine starts anew.
pub(crate) fn machine_boot_id() -> String {
    read_trimmed("/proc/sys/kernel/random/boot_id")
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn memory_kib() -> u64 {
    std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| text.lines().next()?.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

fn read_trimmed(path: &str) -> String {
    std::fs::read_to_string(path)
        .map(|t| t.trim().to_owned())
        .unwrap_or_default()
}

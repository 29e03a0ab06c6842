//! Control of faults over HTTP: `/local-cluster/faults` and `/local-cluster/actions`.

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::body::{self, Answer};
use super::{Api, from_json};
use crate::error::ApiError;
use crate::faults::FaultConfig;
use crate::node::OrderKind;
use crate::objects::{self, DeleteOptions};
use crate::resources::PODS;
use crate::store::Key;

/// Something that happens once.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum Happening {
    /// Every open watch breaks.
    BreakWatches,
    /// Watches and lists that are behind get 410.
    ForgetHistory,
    /// Somebody deletes a pod.
    #[serde(rename_all = "camelCase")]
    DeletePod {
        namespace: String,
        name: String,
        #[serde(default)]
        grace_period_seconds: Option<i64>,
    },
    /// The kubelet evicts a pod.
    Evict {
        namespace: String,
        name: String,
        #[serde(default = "low_memory")]
        message: String,
    },
    /// A container is killed for its memory.
    OutOfMemory {
        namespace: String,
        name: String,
        #[serde(default)]
        container: String,
    },
    /// The node is not heard of any more.
    LoseNode,
    /// The node is back.
    ReturnNode {
        #[serde(default)]
        rebooted: bool,
    },
}

fn low_memory() -> String {
    "The node was low on resource: memory.".to_owned()
}

impl Api {
    pub(super) async fn control(&self, method: &Method, path: &str, content: &Bytes) -> Result<Answer, ApiError> {
        let bad = |error: serde_json::Error| ApiError::bad_request(format!("not a fault: {error}"));
        match (method.as_str(), path) {
            ("GET", "/local-cluster/faults") => {}
            ("PUT", "/local-cluster/faults") => {
                let config: FaultConfig = serde_json::from_value(from_json(content)?).map_err(bad)?;
                self.faults.set(config);
            }
            ("DELETE", "/local-cluster/faults") => self.faults.set(FaultConfig::default()),
            ("POST", "/local-cluster/actions") => {
                let happening: Happening = serde_json::from_value(from_json(content)?).map_err(bad)?;
                self.happen(happening).await?;
            }
            _ => return Err(ApiError::no_such_path()),
        }
        Ok(body::json(StatusCode::OK, &json!(self.faults.current())))
    }

    pub(crate) async fn happen(&self, happening: Happening) -> Result<(), ApiError> {
        match happening {
            Happening::BreakWatches => {
                self.faults.break_watches();
                Ok(())
            }
            Happening::ForgetHistory => {
                self.store.forget_history();
                self.store.forget_snapshots();
                Ok(())
            }
            Happening::DeletePod {
                namespace,
                name,
                grace_period_seconds,
            } => {
                let options = DeleteOptions {
                    grace_seconds: grace_period_seconds,
                    ..DeleteOptions::default()
                };
                let key = Key::new(PODS, &namespace, &name);
                objects::delete(&self.store, &key, &options).await.map(|_| ())
            }
            Happening::Evict {
                namespace,
                name,
                message,
            } => self
                .node
                .order(&Key::new(PODS, &namespace, &name), OrderKind::Evict { message }),
            Happening::OutOfMemory {
                namespace,
                name,
                container,
            } => self
                .node
                .order(&Key::new(PODS, &namespace, &name), OrderKind::OutOfMemory { container }),
            Happening::LoseNode => self.node.lose().await,
            Happening::ReturnNode { rebooted } => self.node.come_back(rebooted).await,
        }
    }
}

//! Large runs on a real API server whose pods succeed at once: `tests/cluster/up.sh --fake-nodes`.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use serde_json::json;
use windlass_api::convert::pipeline_to_proto;
use windlass_api::run::v1::{Run, RunState, SubmitRunRequest};
use windlass_pipeline::Pipeline;

use crate::client::watch_to_end_in;
use crate::deployment::{Deployment, Options};
use crate::pipelines::from_json;
use crate::real_cluster::{RealCluster, TestNamespace};
use crate::wait::until_within;

/// Steps that depend on nothing.
pub fn fan(steps: usize) -> Pipeline {
    let steps: Vec<_> = (0..steps).map(|index| json!({"name": format!("s{index}")})).collect();
    from_json(json!({
        "name": "fan",
        "defaults": {"image": "busybox:1.36", "command": ["/bin/true"]},
        "steps": steps,
    }))
}

/// Steps in ten layers, each of which waits for two of the layer before.
pub fn layered(steps: usize) -> Pipeline {
    let width = steps.div_ceil(10);
    let name = |index: usize| format!("s{index}");
    let step = |index: usize| {
        let before = index.checked_sub(width);
        let mut upstream: Vec<_> = before
            .into_iter()
            .flat_map(|first| [first, first / width * width])
            .collect();
        upstream.dedup();
        json!({"name": name(index), "upstream": upstream.into_iter().map(name).collect::<Vec<_>>()})
    };
    from_json(json!({
        "name": "layered",
        "defaults": {"image": "busybox:1.36", "command": ["/bin/true"]},
        "steps": (0..steps).map(step).collect::<Vec<_>>(),
    }))
}

/// A scheduler and an executor on such a cluster; kwok's containers have no logs, so that no relay is there.
#[derive(Debug)]
pub struct Scale {
    /// The processes.
    pub deployment: Deployment,
    namespace: TestNamespace,
}

impl Scale {
    /// Starts them, with more arguments of the executor.
    pub async fn start(cluster: &RealCluster, executor_args: &[&str]) -> Self {
        let namespace = cluster.namespace("scale").await;
        let deployment = Deployment::start(Options {
            kubeconfig: Some(cluster.executor_kubeconfig().await),
            executor_args: executor_args.iter().map(|&word| word.to_owned()).collect(),
            scheduler_args: vec!["--seal-deadline".to_owned(), "0s".to_owned()],
            without_relay: true,
            ..Options::default()
        })
        .await;
        Self { deployment, namespace }
    }

    /// Name of its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace.name
    }

    /// Submits a run.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn submit(&self, pipeline: &Pipeline) -> Run {
        let request = SubmitRunRequest {
            namespace: self.namespace.name.clone(),
            request_id: uuid::Uuid::new_v4().to_string(),
            pipeline: Some(pipeline_to_proto(pipeline)),
            ..SubmitRunRequest::default()
        };
        let response = self.deployment.runs().submit_run(request).await.expect("accepted");
        response.into_inner().run.expect("a run")
    }

    /// Waits until a run has succeeded.
    ///
    /// # Panics
    /// When it has failed.
    pub async fn succeed(&self, run: &Run) {
        let ended = watch_to_end_in(&self.deployment, &self.namespace.name, &run.name).await;
        assert_eq!(ended.state(), RunState::Succeeded, "{ended:?}");
    }

    /// Waits until no pod is left.
    pub async fn all_gone(&self) {
        let pods: Api<Pod> = Api::namespaced(self.deployment.kube().await, &self.namespace.name);
        until_within(
            std::time::Duration::from_secs(300),
            "all pods are deleted",
            async || {
                let left = pods.list_metadata(&ListParams::default().limit(1)).await;
                let left = left.map_err(|error| error.to_string())?;
                left.items
                    .is_empty()
                    .then_some(())
                    .ok_or_else(|| "pods are left".to_owned())
            },
        )
        .await;
    }

    /// Ends the processes and gives the namespace up.
    pub async fn end(self) {
        drop(self.deployment);
        self.namespace.delete().await;
    }
}

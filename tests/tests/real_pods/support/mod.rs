//! One installation for all tests of this file, a namespace for each, and the command line as its only mouth.

pub(crate) mod said;
pub(crate) mod scene;
pub(crate) mod webhook;

use std::path::PathBuf;

use tokio::sync::OnceCell;
use windlass_tests::deployment::{Deployment, Options, Part};
use windlass_tests::real_cluster::RealCluster;

/// The three services, shared by all tests.
#[derive(Debug)]
pub(crate) struct Installation {
    deployment: &'static Deployment,
}

impl Installation {
    /// The one of this process, started when it is first needed.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<Installation> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    async fn start() -> Self {
        let cluster = RealCluster::of_environment();
        // What is hopeless is waited for in the tests, too, but not for half a minute.
        let patience = ["--image-tolerance=2s", "--config-tolerance=2s", "--stuck-after=1s"];
        let deployment = Deployment::start(Options {
            kubeconfig: Some(cluster.executor_kubeconfig().await),
            executor_args: patience.map(str::to_owned).to_vec(),
            // For pods in which a container goes on after the step has ended.
            scheduler_args: vec!["--seal-deadline=15s".to_owned()],
            ..Options::default()
        })
        .await;
        Self {
            deployment: deployment.until_exit(),
        }
    }

    /// Address of the scheduler.
    pub(crate) fn server(&self) -> String {
        format!("http://{}", self.deployment.address(Part::Scheduler))
    }

    /// File with the token.
    pub(crate) fn token_file(&self) -> PathBuf {
        self.deployment.folder().join("token")
    }
}

//! A scheduler on a real port, and an executor that plays a script over the real protocol.

use std::path::Path;
use std::time::Duration;

use crate::executor::{Executor, Identity, Play};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic_types::StatusExt as _;
use windlass_api::pipeline::v1::{Pipeline, Step, StepDefaults};
use windlass_api::run::v1 as run;
use windlass_api::run::v1::run_service_client::RunServiceClient;
use windlass_api::server::v1::GetServerInfoRequest;
use windlass_api::server::v1::server_service_client::ServerServiceClient;
use windlass_scheduler::{Config, server};
use windlass_service::{AuthenticatedChannel, ChannelSettings, connect_lazy};

/// A running scheduler.
pub(crate) struct Scheduler {
    pub(crate) address: String,
    shutdown: CancellationToken,
    serving: JoinHandle<anyhow::Result<()>>,
}

/// Settings that suit tests: pods are released at once.
pub(crate) fn config(data: &Path) -> Config {
    Config {
        seal_deadline: Duration::ZERO,
        reserve_bytes: 0,
        ..Config::new(data)
    }
}

impl Scheduler {
    /// Waits until so many executors are connected.
    pub(crate) async fn connected(&self, executors: u32) {
        eventually("the executors to be connected", || async {
            let mut client = ServerServiceClient::new(self.channel());
            let info = client.get_server_info(GetServerInfoRequest {}).await.ok()?.into_inner();
            let count: u32 = info.clusters.iter().map(|cluster| cluster.executors).sum();
            (count == executors).then_some(())
        })
        .await;
    }

    pub(crate) async fn start(config: Config) -> Self {
        Self::start_with(|listener, shutdown| server::run(config, listener, shutdown)).await
    }

    pub(crate) async fn start_with<F>(serve: impl FnOnce(TcpListener, CancellationToken) -> F) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, shutdown.clone()));
        Self {
            address,
            shutdown,
            serving,
        }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(20), self.serving).await;
        ended.expect("ends in time").expect("no panic").expect("ends well");
    }

    pub(crate) fn channel(&self) -> AuthenticatedChannel {
        self.channel_of("ana")
    }

    pub(crate) fn channel_of(&self, user: &str) -> AuthenticatedChannel {
        let settings = ChannelSettings {
            address: self.address.clone(),
            token: None,
            user: Some(user.to_owned()),
            ..ChannelSettings::default()
        };
        connect_lazy(&settings).expect("an address")
    }

    pub(crate) fn runs(&self) -> RunServiceClient<AuthenticatedChannel> {
        RunServiceClient::new(self.channel()).max_decoding_message_size(4 * 1024 * 1024)
    }
}

/// A pipeline of steps with the given upstream steps.
pub(crate) fn pipeline(steps: &[(&str, &[&str])]) -> Pipeline {
    Pipeline {
        name: "churn".to_owned(),
        defaults: Some(StepDefaults {
            image: Some("churn:v3".to_owned()),
            command: vec!["true".to_owned()],
            ..StepDefaults::default()
        }),
        steps: steps
            .iter()
            .map(|(name, upstream)| Step {
                name: (*name).to_owned(),
                upstream: upstream.iter().map(|name| (*name).to_owned()).collect(),
                ..Step::default()
            })
            .collect(),
        ..Pipeline::default()
    }
}

/// A submission of a pipeline.
pub(crate) fn submission(request_id: &str, pipeline: Pipeline) -> run::SubmitRunRequest {
    run::SubmitRunRequest {
        namespace: "ml".to_owned(),
        request_id: request_id.to_owned(),
        pipeline: Some(pipeline),
        ..run::SubmitRunRequest::default()
    }
}

/// Waits, for at most 20 s, until `condition` gives something.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut condition: impl FnMut() -> F) -> T {
    let waiting = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(20), waiting).await {
        Ok(value) => value,
        Err(_) => panic!("waited too long for {what}"),
    }
}

/// The run once it has ended.
pub(crate) async fn ended(client: &mut RunServiceClient<AuthenticatedChannel>, name: &str) -> run::Run {
    let client = &*client;
    eventually("the end of the run", || {
        let mut client = client.clone();
        let request = run::GetRunRequest {
            namespace: "ml".to_owned(),
            run: name.to_owned(),
        };
        async move {
            let run = client
                .get_run(request)
                .await
                .expect("answers")
                .into_inner()
                .run
                .expect("a run");
            run.end_time.is_some().then_some(run)
        }
    })
    .await
}

/// A scheduler in a folder of its own with one playing executor.
pub(crate) struct Stage {
    pub(crate) scheduler: Scheduler,
    pub(crate) executor: Executor,
    pub(crate) playing: JoinHandle<Result<(), tonic::Status>>,
    pub(crate) data: tempfile::TempDir,
}

impl Stage {
    pub(crate) async fn new(script: impl Fn(&str, u32) -> Play + Send + Sync + 'static) -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let config = config(data.path());
        Self::with(data, config, script).await
    }

    pub(crate) async fn with(
        data: tempfile::TempDir,
        config: Config,
        script: impl Fn(&str, u32) -> Play + Send + Sync + 'static,
    ) -> Self {
        Self::with_executor(data, config, Executor::new(Identity::new(1), script)).await
    }

    pub(crate) async fn with_executor(data: tempfile::TempDir, config: Config, executor: Executor) -> Self {
        let scheduler = Scheduler::start(config).await;
        let playing = executor.spawn(&scheduler);
        Self {
            scheduler,
            executor,
            playing,
            data,
        }
    }

    pub(crate) async fn submit(&self, request_id: &str, pipeline: Pipeline) -> run::Run {
        let submitted = self.scheduler.runs().submit_run(submission(request_id, pipeline)).await;
        submitted.expect("accepted").into_inner().run.expect("a run")
    }

    pub(crate) async fn ended(&self, run: &run::Run) -> run::Run {
        ended(&mut self.scheduler.runs(), &run.name).await
    }

    /// The step once it is in a state.
    pub(crate) async fn step_in(&self, run: &run::Run, step: &str, state: run::StepState) -> run::Step {
        eventually(&format!("{step} to be {state:?}"), || async {
            let steps = self.steps(run).await;
            steps
                .into_iter()
                .find(|found| found.name == step && found.state() == state)
        })
        .await
    }

    pub(crate) async fn steps(&self, run: &run::Run) -> Vec<run::Step> {
        let request = run::ListStepsRequest {
            namespace: "ml".to_owned(),
            run: run.id.clone(),
            ..run::ListStepsRequest::default()
        };
        let steps = self.scheduler.runs().list_steps(request).await;
        steps.expect("listed").into_inner().steps
    }
}

/// The machine-readable reason of a status.
pub(crate) fn reason(status: &tonic::Status) -> String {
    status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default()
}

//! A cluster, local or real, an executor, and a scheduler that does what the test says; all over real HTTP.
#![allow(unreachable_pub, reason = "shared between the tests")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::client::{Body, ClientBuilder};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use windlass_api::dispatch::v1::connect_request::Message as FromExecutor;
use windlass_api::dispatch::v1::connect_response::Message as ToExecutor;
use windlass_api::dispatch::v1::dispatch_service_server::{DispatchService, DispatchServiceServer};
use windlass_api::dispatch::v1::{self as dispatch, AttemptKey, AttemptPhase, Observation};
use windlass_executor::{Config, NamespacePolicy, server};
use windlass_local_cluster::{Completion, FaultConfig, Faults, Handle, LocalCluster};

#[path = "proxy.rs"]
mod proxy;
#[path = "real.rs"]
mod real;

/// Bound on every wait.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Names the kubeconfig of a real cluster, on which these tests then run instead of the local one.
pub const KUBECONFIG: &str = "WINDLASS_TEST_KUBECONFIG";
/// Image of all pods; the local cluster needs none.
pub const IMAGE: &str = "busybox:1.36";
pub const RUN: [u8; 16] = [7; 16];
pub const RUN_NAME: &str = "churn-7k2m";

/// Requests to the API server by method and kind of path.
#[derive(Clone, Debug, Default)]
pub struct Requests(Arc<Mutex<BTreeMap<String, usize>>>);

impl Requests {
    fn note(&self, request: &http::Request<Body>) {
        let path = request.uri().path();
        let query = request.uri().query().unwrap_or_default();
        let kind = ["pods", "configmaps", "nodes", "namespaces", "events"]
            .into_iter()
            .find(|kind| {
                path.contains(&format!("/{kind}")) && (*kind != "namespaces" || path.ends_with("kube-system"))
            });
        let log = if path.ends_with("/log") { "/log" } else { "" };
        let watch = if query.contains("watch=true") { "?watch" } else { "" };
        let key = format!("{} {}{log}{watch}", request.method(), kind.unwrap_or(path));
        *self.0.lock().expect("no panic").entry(key).or_default() += 1;
    }

    pub fn count(&self, key: &str) -> usize {
        self.0.lock().expect("no panic").get(key).copied().unwrap_or(0)
    }

    /// All calls that change something.
    pub fn writes(&self) -> usize {
        let requests = self.0.lock().expect("no panic");
        requests
            .iter()
            .filter(|(key, _)| !key.starts_with("GET"))
            .map(|(_, count)| count)
            .sum()
    }

    /// All reads but watches and logs.
    pub fn reads(&self) -> BTreeMap<String, usize> {
        let requests = self.0.lock().expect("no panic");
        let reads = requests
            .iter()
            .filter(|(key, _)| key.starts_with("GET") && !key.contains("?watch") && !key.contains("/log"));
        reads.map(|(key, count)| (key.clone(), *count)).collect()
    }
}

/// The cluster of a test.
enum Cluster {
    Local(Handle),
    /// With what leads to it without the proxy, and where that listens.
    Real(SocketAddr),
}

pub struct World {
    cluster: Cluster,
    faults: Faults,
    /// Namespace of the test's pods.
    pub namespace: String,
    /// Installation that the scheduler says it is.
    pub installation: String,
    pub kube: kube::Client,
    pub requests: Requests,
    pub config: Config,
    sessions: mpsc::Receiver<Session>,
    /// How many executors were started.
    started: usize,
    executor: Option<(JoinHandle<anyhow::Result<()>>, CancellationToken)>,
    shutdown: CancellationToken,
    _folder: TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if !self.is_local() {
            real::leave(self.namespace.clone());
        }
    }
}

impl World {
    pub async fn start() -> Self {
        Self::with(Completion::Instant { exit_code: 0 }, |_| {}, |_| {}).await
    }

    pub async fn with(
        completion: Completion,
        change: impl FnOnce(&mut Config),
        change_cluster: impl FnOnce(&mut windlass_local_cluster::Config),
    ) -> Self {
        tracing_subscriber_for_failures();
        let folder = TempDir::new().expect("a folder");
        let shutdown = CancellationToken::new();
        let installation = uuid::Uuid::new_v4().to_string();
        let (address, sessions) = scheduler(shutdown.clone()).await;
        let mut config = Config {
            scheduler: address,
            local_cluster: std::env::var_os(KUBECONFIG).is_none(),
            // Long enough for a busy machine: what a test waits for is never one of these bounds.
            create_timeout: PATIENCE,
            drain: PATIENCE,
            workspace_folder: Some(folder.path().join("workspaces")),
            api_timeout: Duration::from_secs(4),
            ..Config::default()
        };
        change(&mut config);
        let (cluster, faults, kube, namespace) = match std::env::var_os(KUBECONFIG) {
            None => {
                let mut cluster_config = windlass_local_cluster::Config::new(folder.path());
                cluster_config.tls = false;
                cluster_config.completion = completion;
                cluster_config.most_pods = 1000;
                change_cluster(&mut cluster_config);
                let cluster = LocalCluster::start(cluster_config, shutdown.clone())
                    .await
                    .expect("a cluster");
                let (faults, kube) = (
                    cluster.faults().clone(),
                    client(kubeconfig(&cluster.kubeconfig).await, None),
                );
                (Cluster::Local(cluster), faults, kube, "default".to_owned())
            }
            Some(path) => {
                let kube = client(kubeconfig(path.as_ref()).await, None);
                let faults = Faults::new(FaultConfig::default());
                let executor = match config.namespace_policy {
                    NamespacePolicy::MustExist => real::as_executor(kubeconfig(path.as_ref()).await),
                    // Who wants this gives more rights than the chart does.
                    NamespacePolicy::Create => kube.clone(),
                };
                let proxy = proxy::start(executor, faults.clone(), shutdown.clone()).await;
                let namespace = real::namespace(&kube).await;
                (Cluster::Real(proxy), faults, kube, namespace)
            }
        };
        let requests = Requests::default();
        let mut world = Self {
            cluster,
            faults,
            namespace,
            installation,
            kube,
            requests,
            config,
            sessions,
            started: 0,
            executor: None,
            shutdown,
            _folder: folder,
        };
        world.start_executor().await;
        world
    }

    /// What is done to the executor's requests.
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// The local cluster, for what only it can be told to do.
    #[allow(dead_code, reason = "used by the tests with processes only")]
    pub fn local(&self) -> &Handle {
        match &self.cluster {
            Cluster::Local(cluster) => cluster,
            Cluster::Real(_) => panic!("this test is of the local cluster"),
        }
    }

    /// Whether it is the local cluster.
    pub fn is_local(&self) -> bool {
        matches!(self.cluster, Cluster::Local(_))
    }

    pub async fn start_executor(&mut self) {
        let config = match &self.cluster {
            Cluster::Local(cluster) => kubeconfig(&cluster.kubeconfig).await,
            Cluster::Real(proxy) => kube::Config::new(format!("http://{proxy}").parse().expect("an address")),
        };
        let client = client(config, Some(self.requests.clone()));
        self.started += 1;
        self.config.name = Some(format!("executor-{}", self.started));
        let stop = self.shutdown.child_token();
        let task = tokio::spawn(server::run(self.config.clone(), client, None, stop.clone()));
        self.executor = Some((task, stop));
    }

    /// Ends the executor like a crash: nothing is drained.
    pub async fn kill_executor(&mut self) {
        let (task, _) = self.executor.take().expect("an executor");
        task.abort();
        drop(task.await);
    }

    /// Ends the executor in order.
    pub async fn stop_executor(&mut self) -> anyhow::Result<()> {
        let (task, stop) = self.executor.take().expect("an executor");
        stop.cancel();
        tokio::time::timeout(PATIENCE, task)
            .await
            .expect("it stops")
            .expect("no panic")
    }

    /// The executor's next stream, welcomed, with all shards and the run.
    pub async fn session(&mut self) -> Session {
        let mut session = self.stream().await;
        session.welcome(1, false, 0).await;
        session.lease().await;
        session.run().await;
        session
    }

    /// The executor's next stream, not yet welcomed.
    pub async fn stream(&mut self) -> Session {
        let own = self.config.name.clone().unwrap_or_default();
        let next = async {
            // One that was killed may have dialled before its end.
            loop {
                let session = self.sessions.recv().await.expect("a stream");
                if session.hello.name == own {
                    return session;
                }
            }
        };
        let mut session = tokio::time::timeout(PATIENCE, next).await.expect("a stream in time");
        (session.namespace, session.installation) = (self.namespace.clone(), self.installation.clone());
        session
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.kube.clone(), &self.namespace)
    }

    pub async fn pod_list(&self) -> Vec<Pod> {
        self.pods().list(&ListParams::default()).await.expect("pods").items
    }

    /// Writes a pod's status, as a kubelet would.
    pub async fn set_status(&self, name: &str, status: serde_json::Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.pods()
            .patch_status(name, &PatchParams::default(), &patch)
            .await
            .expect("a status");
    }

    pub async fn config_maps(&self) -> Vec<ConfigMap> {
        let api: Api<ConfigMap> = Api::namespaced(self.kube.clone(), &self.namespace);
        api.list(&ListParams::default().labels("windlass.dev/installation"))
            .await
            .expect("config maps")
            .items
    }

    /// Waits until what `probe` tells is as `wanted` says.
    pub async fn until<T: std::fmt::Debug>(
        &self,
        what: &str,
        mut probe: impl AsyncFnMut(&Self) -> T,
        wanted: impl Fn(&T) -> bool,
    ) -> T {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let seen = probe(self).await;
            if wanted(&seen) {
                return seen;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{what} did not come; last seen: {seen:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn tracing_subscriber_for_failures() {
    let telemetry = windlass_telemetry::TelemetryArgs {
        log: std::env::var("WINDLASS_LOG").unwrap_or_else(|_| "off".to_owned()),
        ..windlass_telemetry::TelemetryArgs::default()
    };
    // Set up by an earlier test of this process.
    drop(windlass_telemetry::init("test", &telemetry));
}

/// The configuration of a kubeconfig.
async fn kubeconfig(path: &Path) -> kube::Config {
    let kubeconfig = Kubeconfig::read_from(path).expect("a kubeconfig");
    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("a config")
}

fn client(mut config: kube::Config, requests: Option<Requests>) -> kube::Client {
    config.default_retry = false;
    let builder = ClientBuilder::try_from(config).expect("a client");
    let layer = tower::util::MapRequestLayer::new(move |request: http::Request<Body>| {
        if let Some(requests) = &requests {
            requests.note(&request);
        }
        request
    });
    builder.with_layer(&layer).build()
}

struct Scripted(mpsc::Sender<Session>);

#[tonic::async_trait]
impl DispatchService for Scripted {
    type ConnectStream = ReceiverStream<Result<dispatch::ConnectResponse, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<dispatch::ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.ok_or_else(|| Status::cancelled("gone"))?;
        let Some(FromExecutor::Hello(hello)) = first.message else {
            return Err(Status::invalid_argument("no hello"));
        };
        let (responses, out) = mpsc::channel(64);
        let session = Session {
            hello,
            requests,
            responses,
            sequence: 0,
            acknowledge: true,
            acknowledged: 0,
            heard_ms: 0,
            seen: Vec::new(),
            namespace: String::new(),
            installation: String::new(),
        };
        self.0
            .send(session)
            .await
            .map_err(|_| Status::unavailable("test is over"))?;
        Ok(Response::new(ReceiverStream::new(out)))
    }
}

async fn scheduler(shutdown: CancellationToken) -> (String, mpsc::Receiver<Session>) {
    let (send, sessions) = mpsc::channel(8);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let service = DispatchServiceServer::new(Scripted(send));
    tokio::spawn(async move {
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), shutdown.cancelled_owned())
            .await
    });
    (address, sessions)
}

/// Heartbeats of a stream for as long as it is held: a test that is busy elsewhere is no scheduler that fell silent.
async fn stay_heard(responses: mpsc::WeakSender<Result<dispatch::ConnectResponse, Status>>) {
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    loop {
        beat.tick().await;
        let Some(responses) = responses.upgrade() else { return };
        let heartbeat = dispatch::ConnectResponse {
            message: Some(ToExecutor::Heartbeat(dispatch::Heartbeat {})),
            ..dispatch::ConnectResponse::default()
        };
        if responses.send(Ok(heartbeat)).await.is_err() {
            return;
        }
    }
}

/// The scheduler's side of a stream.
pub struct Session {
    pub hello: dispatch::ExecutorHello,
    requests: Streaming<dispatch::ConnectRequest>,
    responses: mpsc::Sender<Result<dispatch::ConnectResponse, Status>>,
    pub sequence: u64,
    /// Whether what comes is acknowledged at once.
    pub acknowledge: bool,
    /// The last numbered message that came.
    pub acknowledged: u64,
    /// When the newest frame was sent, on the executor's clock.
    pub heard_ms: u64,
    /// Observations in the order of their coming.
    pub seen: Vec<Observation>,
    /// Namespace of the test's pods.
    pub namespace: String,
    installation: String,
}

impl Session {
    pub async fn welcome(&mut self, epoch: u64, resumed: bool, received: u64) {
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let welcome = dispatch::SchedulerWelcome {
            protocol: 1,
            installation: self.installation.clone(),
            epoch,
            // A create may take a third of it.
            lease: seconds(3 * PATIENCE.as_secs().cast_signed()),
            resumed,
            received_sequence: received,
            heartbeat_interval: seconds(1),
            ..dispatch::SchedulerWelcome::default()
        };
        self.respond(0, ToExecutor::Welcome(welcome)).await;
        tokio::spawn(stay_heard(self.responses.downgrade()));
    }

    pub async fn lease(&mut self) {
        self.send(ToExecutor::Lease(dispatch::ShardLease { shards: vec![0xff; 32] }))
            .await;
    }

    pub async fn run(&mut self) {
        let context = dispatch::RunContext {
            run_id: windlass_ids::RunId::from_bytes(RUN).to_string(),
            run_name: RUN_NAME.to_owned(),
            namespace: self.namespace.clone(),
            pipeline: "churn".to_owned(),
            context_json: b"{}".to_vec(),
        };
        self.send(ToExecutor::Run(context)).await;
        self.template(1, json!({"merged": {"image": IMAGE, "command": ["true"]}}))
            .await;
    }

    pub async fn template(&mut self, template: u64, json: serde_json::Value) {
        let template_json = json.to_string().into_bytes().into();
        self.send(ToExecutor::Template(dispatch::StepTemplate {
            template,
            template_json,
        }))
        .await;
    }

    pub async fn launch(&mut self, steps: impl IntoIterator<Item = u32>) {
        self.launch_with(1, steps).await;
    }

    pub async fn launch_with(&mut self, template: u64, steps: impl IntoIterator<Item = u32>) {
        let launches = steps.into_iter().map(|step| dispatch::Launch {
            attempt: Some(key(step)),
            grant: 5,
            template,
            step_name: format!("step-{step}"),
            overlay_json: Vec::new().into(),
        });
        let launches = launches.collect();
        self.send(ToExecutor::Launches(dispatch::Launches { launches })).await;
    }

    pub async fn stop(&mut self, step: u32, uid: &str) {
        let stop = dispatch::Stop {
            attempt: Some(key(step)),
            pod_uid: uid.to_owned(),
            grace: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            grant: 5,
            ..dispatch::Stop::default()
        };
        self.send(ToExecutor::Stops(dispatch::Stops { stops: vec![stop] }))
            .await;
    }

    pub async fn release(&mut self, observations: &[Observation]) {
        let releases = observations.iter().map(|observation| dispatch::Release {
            attempt: observation.attempt.clone(),
            pod_uid: observation.pod_uid.clone(),
            namespace: self.namespace.clone(),
            pod_name: observation.pod_name.clone(),
        });
        let releases = releases.collect();
        self.send(ToExecutor::Releases(dispatch::Releases { releases })).await;
    }

    pub async fn run_finished(&mut self) {
        let run = dispatch::FinishedRun {
            run_id: RUN.to_vec(),
            namespace: self.namespace.clone(),
        };
        self.send(ToExecutor::RunsFinished(dispatch::RunsFinished { runs: vec![run] }))
            .await;
    }

    pub async fn send(&mut self, message: ToExecutor) {
        self.sequence += 1;
        self.respond(self.sequence, message).await;
    }

    /// Says something with this number; 0 for what is not numbered.
    pub async fn respond(&mut self, sequence: u64, message: ToExecutor) {
        let acknowledged = if self.acknowledge { self.acknowledged } else { 0 };
        let response = dispatch::ConnectResponse {
            sequence,
            acknowledged,
            message: Some(message),
            heard_ms: self.heard_ms,
        };
        self.responses.send(Ok(response)).await.expect("the executor listens");
    }

    /// The next message that is not a heartbeat, with its number.
    pub async fn next(&mut self) -> (u64, FromExecutor) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        self.next_before(deadline).await.expect("a message in time")
    }

    async fn next_before(&mut self, deadline: tokio::time::Instant) -> Option<(u64, FromExecutor)> {
        loop {
            let next = tokio::time::timeout_at(deadline, self.requests.message()).await;
            let request = next.ok()?.expect("no error").expect("no end");
            self.heard_ms = request.sent_ms;
            if request.sequence > 0 {
                self.acknowledged = self.acknowledged.max(request.sequence);
            }
            // Every frame is a heartbeat.
            self.respond(0, ToExecutor::Heartbeat(dispatch::Heartbeat {})).await;
            match request.message {
                Some(FromExecutor::Heartbeat(_)) | None => {}
                Some(message) => return Some((request.sequence, message)),
            }
        }
    }

    /// Acknowledges what comes until the executor ends the stream.
    pub async fn until_its_end(&mut self) {
        while let Ok(Some(request)) = self.requests.message().await {
            self.acknowledged = self.acknowledged.max(request.sequence);
            let response = dispatch::ConnectResponse {
                acknowledged: self.acknowledged,
                message: Some(ToExecutor::Heartbeat(dispatch::Heartbeat {})),
                ..dispatch::ConnectResponse::default()
            };
            // The stream may end meanwhile.
            drop(self.responses.send(Ok(response)).await);
        }
    }

    /// Waits for an observation.
    pub async fn observe(&mut self, step: u32, wanted: impl Fn(&Observation) -> bool) -> Observation {
        let is_of_step = |one: &&Observation| one.attempt == Some(key(step));
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.seen.iter().filter(is_of_step).find(|one| wanted(one)) {
                return found.clone();
            }
            let Some((_, message)) = self.next_before(deadline).await else {
                let last = self.seen.iter().rfind(is_of_step);
                panic!("what was waited for of step {step} did not come; last seen: {last:?}");
            };
            match message {
                FromExecutor::Observations(observations) => self.seen.extend(observations.observations),
                // A list that begins while a pod is created may be the first to see it.
                FromExecutor::Inventory(part) => self.seen.extend(part.observations),
                _ => {}
            }
        }
    }

    pub async fn phase(&mut self, step: u32, phase: AttemptPhase) -> Observation {
        self.observe(step, |one| one.phase() == phase).await
    }

    pub async fn ended(&mut self, step: u32) -> Observation {
        self.phase(step, AttemptPhase::Ended).await
    }

    /// Waits for a complete inventory.
    pub async fn inventory(&mut self) -> dispatch::Inventory {
        let mut whole = dispatch::Inventory::default();
        loop {
            match self.next().await.1 {
                FromExecutor::Inventory(part) => {
                    whole.observations.extend(part.observations);
                    whole.in_flight.extend(part.in_flight);
                    whole.reflects_sequence = part.reflects_sequence;
                    if part.last {
                        whole.resource_version = part.resource_version;
                        return whole;
                    }
                }
                FromExecutor::Observations(observations) => self.seen.extend(observations.observations),
                _ => {}
            }
        }
    }
}

pub fn key(step: u32) -> AttemptKey {
    AttemptKey {
        run_id: RUN.to_vec().into(),
        step,
        attempt: 1,
    }
}

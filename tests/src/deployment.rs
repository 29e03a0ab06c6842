//! A whole installation as processes: a local cluster, a scheduler, an executor and a log relay, each of which can be killed and
//! started again on the same data.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tonic::Streaming;
use windlass_api::log::v1::log_service_client::LogServiceClient;
use windlass_api::log::v1::{TailLogsRequest, TailLogsResponse};
use windlass_api::run::v1::run_service_client::RunServiceClient;
use windlass_api::server::v1::GetServerInfoRequest;
use windlass_api::server::v1::server_service_client::ServerServiceClient;
use windlass_service::{AuthenticatedChannel, ChannelSettings, connect_lazy};

use crate::binaries::binary;
use crate::containers::end_containers;
pub use crate::options::{Options, Secured};
use crate::ports::Port;
use crate::wait::until;

/// Token of everything in a deployment.
pub const TOKEN: &str = "token-of-the-tests";

/// One of its processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The Kubernetes API whose pods are processes.
    Cluster,
    /// The scheduler.
    Scheduler,
    /// The executor.
    Executor,
    /// The log relay.
    Relay,
    /// Another executor of the same cluster.
    SecondExecutor,
    /// Another log relay, with a data folder of its own.
    SecondRelay,
}

impl Part {
    /// The three services.
    pub const SERVICES: [Self; 3] = [Self::Scheduler, Self::Executor, Self::Relay];

    fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Scheduler => "scheduler",
            Self::Executor => "executor",
            Self::Relay => "relay",
            Self::SecondExecutor => "second-executor",
            Self::SecondRelay => "second-relay",
        }
    }
}

/// The processes and their folder. They are killed and the folder is removed when it is dropped.
#[derive(Debug)]
pub struct Deployment {
    folder: TempDir,
    options: Options,
    ports: BTreeMap<Part, Port>,
    metrics_ports: BTreeMap<Part, Port>,
    processes: BTreeMap<Part, Child>,
    /// What stands in front of parts.
    fronts: BTreeMap<Part, SocketAddr>,
}

impl Deployment {
    /// Starts everything and waits until the scheduler answers, an executor is there, and a relay is there.
    pub async fn start(options: Options) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("token"), TOKEN).expect("a token file");
        let parts = [
            Part::Cluster,
            Part::Scheduler,
            Part::Executor,
            Part::Relay,
            Part::SecondExecutor,
            Part::SecondRelay,
        ];
        let ports = parts.map(|part| (part, Port::take()));
        let mut deployment = Self {
            folder,
            options,
            ports: BTreeMap::from(ports),
            metrics_ports: Part::SERVICES
                .into_iter()
                .chain([Part::SecondRelay])
                .map(|part| (part, Port::take()))
                .collect(),
            processes: BTreeMap::new(),
            fronts: BTreeMap::new(),
        };
        if deployment.options.kubeconfig.is_none() {
            deployment.start_part(Part::Cluster);
            deployment.cluster_ready().await;
        }
        for part in Part::SERVICES {
            if part != Part::Relay || !deployment.options.without_relay {
                deployment.start_part(part);
            }
        }
        if deployment.options.two_executors {
            deployment.start_part(Part::SecondExecutor);
        }
        if deployment.options.two_relays {
            deployment.start_part(Part::SecondRelay);
        }
        deployment.ready().await;
        deployment
    }

    /// The folder of the deployment.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Address of a part.
    pub fn address(&self, part: Part) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[&part].number()))
    }

    /// Where a service of a talkative deployment serves its metrics.
    ///
    /// # Panics
    /// When the part is no service.
    pub fn metrics_url(&self, part: Part) -> String {
        format!("http://127.0.0.1:{}/metrics", self.metrics_ports[&part].number())
    }

    /// The kubeconfig of its cluster.
    pub fn kubeconfig(&self) -> PathBuf {
        let local = || self.folder.path().join("cluster/kubeconfig");
        self.options.kubeconfig.clone().unwrap_or_else(local)
    }

    /// The same, with what stands in front of the cluster.
    fn executors_kubeconfig(&self) -> PathBuf {
        let Some(front) = self.fronts.get(&Part::Cluster) else {
            return self.kubeconfig();
        };
        let text = std::fs::read_to_string(self.kubeconfig()).expect("a kubeconfig");
        let server = format!("https://{}", self.address(Part::Cluster));
        assert!(text.contains(&server), "the server is in {text}");
        let path = self.folder.path().join("kubeconfig-of-executors");
        std::fs::write(&path, text.replace(&server, &format!("http://{front}"))).expect("a kubeconfig");
        path
    }

    /// From now on others reach the local cluster or the relay through a proxy; those that must know are started again.
    pub fn hide_behind(&mut self, part: Part, front: SocketAddr) {
        self.fronts.insert(part, front);
        match part {
            Part::Cluster => self.restart(Part::Executor),
            other => self.restart(other),
        }
    }

    /// What a part has logged.
    pub fn log(&self, part: Part) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("{}.log", part.name()))).unwrap_or_default()
    }

    /// Starts a part that does not run.
    pub fn start_part(&mut self, part: Part) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join(format!("{}.log", part.name())))
            .expect("a log file");
        let mut command = self.command(part);
        if let (true, Some(port)) = (self.options.talkative, self.metrics_ports.get(&part)) {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number())).to_string();
            command.args(["--log", "trace", "--log-format", "json", "--metrics-addr", &address]);
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{part:?} does not start: {error}"));
        self.processes.insert(part, child);
    }

    fn command(&self, part: Part) -> Command {
        let folder = self.folder.path();
        let (accepted, shown) = self.token_args(part);
        let listen = self.address(part).to_string();
        let scheduler = self.url(Part::Scheduler);
        match part {
            Part::Cluster => {
                let mut command = Command::new(binary("windlass"));
                command
                    .arg("local-cluster")
                    .arg("--data-dir")
                    .arg(folder)
                    .args(["--listen", &listen]);
                if self.options.instant_pods {
                    command.arg("--instant");
                }
                command
            }
            Part::Scheduler => {
                let program = self
                    .options
                    .scheduler
                    .clone()
                    .unwrap_or_else(|| binary("windlass-scheduler"));
                let mut command = Command::new(program);
                command.args(["--listen", &listen]).args(accepted);
                command
                    .arg("--data-dir")
                    .arg(folder.join("scheduler"))
                    .args(&self.options.scheduler_args);
                command.envs(&self.options.scheduler_env);
                command
            }
            Part::Executor | Part::SecondExecutor => {
                let mut command = Command::new(binary("windlass-executor"));
                command
                    .args(["--listen", &listen, "--scheduler", &scheduler])
                    .args(shown);
                if self.options.kubeconfig.is_none() {
                    command.arg("--local-cluster");
                }
                command.arg("--kubeconfig").arg(self.executors_kubeconfig());
                command.args(&self.options.executor_args);
                command
            }
            Part::Relay | Part::SecondRelay => {
                let mut command = Command::new(binary("windlass-log-relay"));
                command
                    .args(["--listen", &listen, "--scheduler", &scheduler])
                    .args(accepted)
                    .args(shown);
                command.arg("--data-dir").arg(folder.join(part.name()));
                command.args(&self.options.relay_args);
                command.envs(&self.options.relay_env);
                if let Some(front) = self.fronts.get(&part) {
                    command.args(["--advertised-address", &format!("http://{front}")]);
                }
                command
            }
        }
    }

    /// Arguments that say which tokens a part accepts, and which one it shows; those about certificates are with the first or, for
    /// executors, the second.
    fn token_args(&self, part: Part) -> (Vec<OsString>, Vec<OsString>) {
        let file = |flag: &str, path: &Path| vec![OsString::from(flag), path.as_os_str().to_owned()];
        let Some(secured) = &self.options.secured else {
            let plain = file("--token-file", &self.folder.path().join("token"));
            let accepted = if matches!(part, Part::Relay | Part::SecondRelay) {
                Vec::new()
            } else {
                plain.clone()
            };
            return (accepted, plain);
        };
        let certificates = secured.args.get(&part).into_iter().flatten().map(OsString::from);
        let shown = secured.service_token.as_deref().map(|path| file("--token-file", path));
        let (mut accepted, mut shown) = (file("--access-file", &secured.access_file), shown.unwrap_or_default());
        match part {
            Part::Executor | Part::SecondExecutor => shown.extend(certificates),
            Part::Cluster | Part::Scheduler | Part::Relay | Part::SecondRelay => accepted.extend(certificates),
        }
        (accepted, shown)
    }

    /// The address of a part, as it is dialled.
    pub fn url(&self, part: Part) -> String {
        let secured = self.options.secured.as_ref();
        let tls = secured.is_some_and(|secured| !secured.args.is_empty());
        // Certificates are for names.
        match tls {
            true => format!("https://localhost:{}", self.ports[&part].number()),
            false => format!("http://{}", self.address(part)),
        }
    }

    /// `kill -9`. Does nothing to a part that has already ended.
    pub fn kill(&mut self, part: Part) {
        if let Some(mut child) = self.processes.remove(&part) {
            child.kill().ok();
            child.wait().expect("a child can be waited for");
        }
    }

    /// For tests that share it: it lives as long as this process, and ends with it, however that ends.
    pub fn until_exit(self) -> &'static Self {
        let pids: Vec<String> = self.processes.values().map(|child| child.id().to_string()).collect();
        let guardian = Command::new("/bin/sh")
            .args([
                "-c",
                r#"folder=$1; shift; read -r line; kill -9 "$@"; rm -rf "$folder""#,
                "guardian",
            ])
            .arg(self.folder())
            .args(pids)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        // Its standard input is closed by the end of this process: then its `read` returns.
        std::mem::forget(guardian);
        Box::leak(Box::new(self))
    }

    /// SIGTERM, then waits for the end; whether it ended well.
    pub async fn stop(&mut self, part: Part) -> bool {
        let Some(mut child) = self.processes.remove(&part) else {
            return true;
        };
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        kill(pid, Signal::SIGTERM).expect("a child can be signalled");
        let status = until("the part ends after SIGTERM", async || {
            child
                .try_wait()
                .expect("a child can be waited for")
                .ok_or("still running")
        });
        status.await.success()
    }

    /// Pid of a part.
    pub fn pid(&self, part: Part) -> u32 {
        self.processes[&part].id()
    }

    /// Whether a part runs.
    pub fn is_running(&mut self, part: Part) -> bool {
        self.processes
            .get_mut(&part)
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Starts of the scheduler use the one that dies at a moment, such as `before:7`, from now on.
    pub fn become_crashing(&mut self, moment: &str) {
        self.options.scheduler = Some(binary("crashing-scheduler"));
        self.options.scheduler_env = BTreeMap::from([("WINDLASS_CRASH".to_owned(), moment.to_owned())]);
    }

    /// Starts of the scheduler use the ordinary program and environment from now on.
    pub fn become_ordinary(&mut self) {
        self.options.scheduler = None;
        self.options.scheduler_env.clear();
    }

    /// `kill -9` and a new start.
    pub fn restart(&mut self, part: Part) {
        self.kill(part);
        self.start_part(part);
    }

    /// Client of the scheduler.
    pub fn runs(&self) -> RunServiceClient<AuthenticatedChannel> {
        RunServiceClient::new(self.channel(Part::Scheduler)).max_decoding_message_size(64 << 20)
    }

    /// Client of the log relay.
    pub fn logs(&self) -> LogServiceClient<AuthenticatedChannel> {
        self.logs_at(Part::Relay)
    }

    /// Client of one of the log relays.
    pub fn logs_at(&self, relay: Part) -> LogServiceClient<AuthenticatedChannel> {
        LogServiceClient::new(self.channel(relay)).max_decoding_message_size(64 << 20)
    }

    /// A stream of logs at a relay.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn tail(&self, relay: Part, request: TailLogsRequest) -> Streaming<TailLogsResponse> {
        let response = self.logs_at(relay).tail_logs(request).await;
        response.expect("accepted").into_inner()
    }

    /// `kill -9` of the three services.
    pub fn kill_services(&mut self) {
        for part in Part::SERVICES {
            self.kill(part);
        }
    }

    /// Starts the three services, which do not run.
    pub fn start_services(&mut self) {
        for part in Part::SERVICES {
            self.start_part(part);
        }
    }

    /// A channel to a part.
    pub fn channel(&self, part: Part) -> AuthenticatedChannel {
        let token = match &self.options.secured {
            Some(secured) => &secured.token,
            None => TOKEN,
        };
        self.channel_with(part, Some(token))
    }

    /// A channel to a part with a token.
    pub fn channel_with(&self, part: Part, token: Option<&str>) -> AuthenticatedChannel {
        let tls = self.options.secured.as_ref().map(|secured| secured.tls.clone());
        let settings = ChannelSettings {
            address: self.url(part),
            token: token.map(str::to_owned),
            user: Some("tester".to_owned()),
            tls: tls.unwrap_or_default(),
        };
        connect_lazy(&settings).expect("a valid address")
    }

    async fn cluster_ready(&self) {
        let kubeconfig = self.kubeconfig();
        let address = self.address(Part::Cluster);
        until("the local cluster listens", async || {
            if !kubeconfig.exists() {
                return Err(format!("no kubeconfig; log: {}", self.log(Part::Cluster)));
            }
            tokio::net::TcpStream::connect(address)
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        })
        .await;
    }

    /// Waits until the scheduler answers and an executor and a relay are connected.
    pub async fn ready(&self) {
        let client = ServerServiceClient::new(self.channel(Part::Scheduler));
        let ended = |part: &Part| !std::path::Path::new(&format!("/proc/{}/fd/0", self.processes[part].id())).exists();
        until("all services are connected", async || {
            if let Some(part) = self.processes.keys().find(|part| ended(part)) {
                panic!("{part:?} has ended\n{}", self.all_logs());
            }
            let info = client
                .clone()
                .get_server_info(GetServerInfoRequest {})
                .await
                .map_err(|status| self.describe(&status))?;
            let info = info.into_inner();
            // A relay that was killed is named for a while, so that their number says nothing.
            let is_named = |part: Part| {
                let own = || SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[&part].number()));
                let port = self.fronts.get(&part).copied().unwrap_or_else(own).port();
                info.relay_addresses
                    .iter()
                    .any(|address| address.ends_with(&format!(":{port}")))
            };
            let mut relays = [Part::Relay, Part::SecondRelay].into_iter();
            if info.clusters.is_empty() || !relays.all(|part| !self.processes.contains_key(&part) || is_named(part)) {
                return Err(format!(
                    "clusters {:?}, relays {:?}\n{}",
                    info.clusters,
                    info.relay_addresses,
                    self.all_logs()
                ));
            }
            Ok(())
        })
        .await;
    }

    fn describe(&self, status: &tonic::Status) -> String {
        format!("{status}\n{}", self.all_logs())
    }

    fn all_logs(&self) -> String {
        let tail = |part| {
            let log: String = self.log(part);
            let lines: Vec<_> = log.lines().rev().take(15).collect();
            format!(
                "-- {part:?}\n{}\n",
                lines.into_iter().rev().collect::<Vec<_>>().join("\n")
            )
        };
        self.ports.keys().map(|part| tail(*part)).collect()
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        // The cluster goes last, in order, so that it starts nothing more.
        let others: Vec<_> = self
            .processes
            .keys()
            .copied()
            .filter(|part| *part != Part::Cluster)
            .collect();
        for part in others {
            self.kill(part);
        }
        if let Some(mut child) = self.processes.remove(&Part::Cluster) {
            let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
            kill(pid, Signal::SIGTERM).ok();
            let ended = (0..500).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(20));
                !matches!(child.try_wait(), Ok(None))
            });
            if !ended {
                child.kill().ok();
                child.wait().ok();
            }
        }
        end_containers(self.folder.path());
    }
}

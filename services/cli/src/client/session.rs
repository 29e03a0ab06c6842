//! A session with one server.

use std::time::Duration;

use tonic::{Code, Status};
use windlass_api::cluster::v1::cluster_service_client::ClusterServiceClient;
use windlass_api::log::v1::log_service_client::LogServiceClient;
use windlass_api::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use windlass_api::run::v1::run_service_client::RunServiceClient;
use windlass_api::run::v1::{GetRunRequest, ListRunsRequest, ListStepsRequest, Run, Step};
use windlass_api::schedule::v1::schedule_service_client::ScheduleServiceClient;
use windlass_api::secret::v1::secret_service_client::SecretServiceClient;
use windlass_api::server::v1::GetServerInfoRequest;
use windlass_api::server::v1::server_service_client::ServerServiceClient;
use windlass_service::{AuthenticatedChannel, ChannelSettings, Clock, connect_lazy};

use super::call::{Patience, cause, retrying};
use super::target::Target;
use crate::args::GlobalArgs;
use crate::embedded::Embedded;
use crate::errors::{CliError, Exit, Result};
use crate::output;

/// How long a relay may take to join a scheduler that was just started.
const RELAY_PATIENCE: Duration = Duration::from_secs(15);

/// Between looks for runs of others.
const OTHERS_PAUSE: Duration = Duration::from_millis(200);

/// Page size of lists.
const PAGE: u32 = 500;

/// A server that answered.
#[derive(Debug)]
pub struct Session {
    /// Namespace of all requests.
    pub namespace: String,
    /// The time.
    pub clock: Clock,
    settings: ChannelSettings,
    channel: AuthenticatedChannel,
    embedded: Option<Embedded>,
}

/// What a task needs to reach the same server.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    pub(crate) namespace: String,
    pub(crate) settings: ChannelSettings,
    pub(crate) channel: AuthenticatedChannel,
}

impl Session {
    /// Finds the server, or starts everything embedded under `--local`, and says hello.
    ///
    /// # Errors
    /// When nobody answers, or the token is not accepted.
    pub async fn open(args: &GlobalArgs) -> Result<Self> {
        if args.local {
            return Self::open_local(args).await;
        }
        let target = Target::find(args)?;
        Self::connect(args, target.settings, None, &target.hint).await
    }

    async fn open_local(args: &GlobalArgs) -> Result<Self> {
        let embedded = Embedded::start_or_join(args).await?;
        let settings = embedded.settings();
        Self::connect(args, settings, Some(embedded), "").await
    }

    async fn connect(
        args: &GlobalArgs,
        settings: ChannelSettings,
        embedded: Option<Embedded>,
        hint: &str,
    ) -> Result<Self> {
        let address = settings.address.clone();
        let channel = connect_lazy(&settings).map_err(|error| {
            CliError::bad_input(error).hint("--server takes an address such as http://127.0.0.1:7610")
        })?;
        let mut client = ServerServiceClient::new(channel.clone());
        let hello = client.get_server_info(GetServerInfoRequest {}).await;
        hello.map_err(|status| hello_error(&address, &status, hint))?;
        Ok(Self {
            namespace: args.namespace.clone(),
            clock: Clock::system(),
            settings,
            channel,
            embedded,
        })
    }

    /// Address of the server.
    pub fn address(&self) -> &str {
        &self.settings.address
    }

    /// The installation that it is, as the label of its objects says.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn installation(&self) -> Result<String> {
        let mut client = ServerServiceClient::new(self.channel.clone());
        let info = client.get_server_info(GetServerInfoRequest {}).await;
        Ok(info
            .map_err(|status| CliError::from_status(&status))?
            .into_inner()
            .installation)
    }

    /// True when this process is the server, too.
    pub fn is_embedded(&self) -> bool {
        self.embedded.as_ref().is_some_and(Embedded::is_ours)
    }

    /// Ends what was started for this session, in order; at once on Ctrl-C.
    ///
    /// # Errors
    /// When a part of it ended badly.
    pub async fn close(self) -> Result<()> {
        let interrupted = || CliError::new(Exit::Interrupted, "left before everything had ended in order");
        if self.is_embedded() {
            tokio::select! {
                () = self.wait_for_others() => {}
                _ = tokio::signal::ctrl_c() => {
                    self.abandon().await;
                    return Err(interrupted());
                }
            }
        }
        // Open connections would hold up the servers' drain.
        drop(self.channel);
        let Some(embedded) = self.embedded else {
            return Ok(());
        };
        tokio::select! {
            stopped = embedded.stop() => stopped,
            _ = tokio::signal::ctrl_c() => Err(interrupted()),
        }
    }

    /// Waits for runs that others, who found this server, have submitted: their steps are processes of this one.
    async fn wait_for_others(&self) {
        let mut told = String::new();
        while let Some(run) = self.active_run().await {
            if told != run.name {
                output::note(format!(
                    "run {} runs here, too: waiting for its end (Ctrl-C stops it)",
                    run.name
                ));
                told = run.name;
            }
            tokio::time::sleep(OTHERS_PAUSE).await;
        }
    }

    /// A run that has not ended, of any namespace; none when that cannot be told.
    async fn active_run(&self) -> Option<Run> {
        let request = ListRunsRequest {
            namespace: "*".to_owned(),
            page_size: 1,
            filter: "state=QUEUED,RUNNING,CANCELLING".to_owned(),
            ..ListRunsRequest::default()
        };
        let page = self.runs().list_runs(request).await.ok()?.into_inner();
        page.runs.into_iter().next()
    }

    /// Ends what was started for this session at once.
    pub async fn abandon(self) {
        if let Some(embedded) = self.embedded {
            embedded.abandon().await;
        }
    }

    /// Runs one call, again while the server is away.
    ///
    /// # Errors
    /// The server's refusal, or that it does not answer.
    pub async fn call<T, F, Fut>(&self, patience: Patience, once: F) -> Result<T>
    where
        F: Fn(RunServiceClient<AuthenticatedChannel>) -> Fut,
        Fut: Future<Output = std::result::Result<tonic::Response<T>, Status>>,
    {
        retrying(self.address(), patience, || once(self.runs())).await
    }

    /// The client of RunService.
    pub fn runs(&self) -> RunServiceClient<AuthenticatedChannel> {
        RunServiceClient::new(self.channel.clone())
    }

    /// The client of PipelineService.
    pub fn pipelines(&self) -> PipelineServiceClient<AuthenticatedChannel> {
        PipelineServiceClient::new(self.channel.clone())
    }

    /// The client of SecretService.
    pub fn secrets(&self) -> SecretServiceClient<AuthenticatedChannel> {
        SecretServiceClient::new(self.channel.clone())
    }

    /// The client of ClusterService.
    pub fn clusters(&self) -> ClusterServiceClient<AuthenticatedChannel> {
        ClusterServiceClient::new(self.channel.clone())
    }

    /// The client of ScheduleService.
    pub fn schedules(&self) -> ScheduleServiceClient<AuthenticatedChannel> {
        ScheduleServiceClient::new(self.channel.clone())
    }

    /// One run by name, id, prefix or `@latest`.
    ///
    /// # Errors
    /// When there is none.
    pub async fn get_run(&self, run: &str) -> Result<Run> {
        let request = GetRunRequest {
            namespace: self.namespace.clone(),
            run: run.to_owned(),
        };
        let response = self
            .call(Patience::USUAL, |mut client| {
                let request = request.clone();
                async move { client.get_run(request).await }
            })
            .await?;
        response
            .run
            .ok_or_else(|| CliError::failed("the server answered without the run"))
    }

    /// The steps of a run that fit a filter, at most `limit`.
    ///
    /// # Errors
    /// When the run is not there.
    pub async fn list_steps(&self, run: &str, filter: &str, limit: usize) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListStepsRequest {
                namespace: self.namespace.clone(),
                run: run.to_owned(),
                page_size: PAGE,
                page_token: page_token.clone(),
                filter: filter.to_owned(),
            };
            let page = self
                .call(Patience::USUAL, |mut client| {
                    let request = request.clone();
                    async move { client.list_steps(request).await }
                })
                .await?;
            steps.extend(page.steps);
            page_token = page.next_page_token;
            if page_token.is_empty() || steps.len() >= limit {
                steps.truncate(limit);
                return Ok(steps);
            }
        }
    }

    pub(crate) fn reach(&self) -> Reach {
        Reach {
            namespace: self.namespace.clone(),
            settings: self.settings.clone(),
            channel: self.channel.clone(),
        }
    }
}

impl Reach {
    /// A client of the log service of a relay that is connected now.
    pub(crate) async fn logs(&self) -> std::result::Result<LogServiceClient<AuthenticatedChannel>, Status> {
        let deadline = tokio::time::Instant::now() + RELAY_PATIENCE;
        loop {
            let mut server = ServerServiceClient::new(self.channel.clone());
            let info = server.get_server_info(GetServerInfoRequest {}).await?.into_inner();
            if let Some(address) = info.relay_addresses.first() {
                let settings = ChannelSettings {
                    address: address.clone(),
                    ..self.settings.clone()
                };
                let channel = connect_lazy(&settings).map_err(|error| Status::internal(error.to_string()))?;
                return Ok(LogServiceClient::new(channel));
            }
            if tokio::time::Instant::now() > deadline {
                return Err(Status::unavailable("no log relay is connected to the scheduler"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn hello_error(address: &str, status: &Status, hint: &str) -> CliError {
    match status.code() {
        // A refusal to speak plain text where TLS is spoken is one, too.
        Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition => {
            let mut error = CliError::from_status(status);
            error.message = format!("the server at {address} refused: {}", status.message());
            error
        }
        _ => CliError::new(
            Exit::Unreachable,
            format!("no Windlass server at {address}: {}", cause(status)),
        )
        .hint(hint),
    }
}

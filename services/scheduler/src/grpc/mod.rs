//! The gRPC services: they look up, check and hand over; what is decided is decided in the core.

mod changes;
mod clusters;
mod dispatch;
mod encoded;
mod explain;
pub(crate) mod filter;
mod follow;
mod lists;
pub(crate) mod page;
mod pipelines;
mod retry;
mod rights;
mod runs;
mod schedules;
mod secrets;
mod server_info;
mod status;
mod watch;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::service::Routes;
use windlass_api::cluster::v1::cluster_service_server::ClusterServiceServer;
use windlass_api::dispatch::v1::dispatch_service_server::DispatchServiceServer;
use windlass_api::follow::v1::follow_service_server::FollowServiceServer;
use windlass_api::pipeline::v1::pipeline_service_server::PipelineServiceServer;
use windlass_api::run::v1::run_service_server::RunServiceServer;
use windlass_api::schedule::v1::schedule_service_server::ScheduleServiceServer;
use windlass_api::secret::v1::secret_service_server::SecretServiceServer;
use windlass_api::server::v1::server_service_server::ServerServiceServer;
use windlass_pipeline::{DefaultRequests, Environment, WorkspaceDefault};
use windlass_service::Identity;

use self::encoded::EncodedWatch;
use crate::admission::Checker;
use crate::policy::Policy;
use crate::secrets::references::ReferenceCheck;
use crate::shared::Shared;

/// Full names of the services, for health.
pub(crate) const SERVICES: [&str; 8] = [
    "windlass.run.v1.RunService",
    "windlass.schedule.v1.ScheduleService",
    "windlass.pipeline.v1.PipelineService",
    "windlass.secret.v1.SecretService",
    "windlass.cluster.v1.ClusterService",
    "windlass.server.v1.ServerService",
    "windlass.dispatch.v1.DispatchService",
    "windlass.follow.v1.FollowService",
];

/// Most bytes of one message of an executor or log relay.
const MAX_INTERNAL_BYTES: usize = 64 * 1024 * 1024;

/// What the services share.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) shared: Arc<Shared>,
    provided: Provided,
    pub(crate) shutdown: CancellationToken,
}

/// What the operator provides for steps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Provided {
    /// What a workspace without a volume means, when the operator said it.
    pub(crate) workspace: Option<WorkspaceDefault>,
    /// What is requested where a step requests nothing.
    pub(crate) default_requests: DefaultRequests,
    /// What pods may use; everything without one.
    pub(crate) policy: Option<Arc<Policy>>,
    /// How far references to Secrets are looked at.
    pub(crate) check_references: ReferenceCheck,
}

/// All services.
pub(crate) fn routes(api: Api) -> Routes {
    let runs = RunServiceServer::new(api.clone()).max_decoding_message_size(windlass_api::MAX_SUBMIT_BYTES);
    let runs = EncodedWatch {
        inner: runs,
        api: api.clone(),
    };
    Routes::new(runs)
        .add_service(PipelineServiceServer::new(api.clone()).max_decoding_message_size(windlass_api::MAX_SUBMIT_BYTES))
        .add_service(SecretServiceServer::new(api.clone()))
        .add_service(ClusterServiceServer::new(api.clone()))
        .add_service(ScheduleServiceServer::new(api.clone()).max_decoding_message_size(windlass_api::MAX_SUBMIT_BYTES))
        .add_service(ServerServiceServer::new(api.clone()))
        .add_service(DispatchServiceServer::new(api.clone()).max_decoding_message_size(MAX_INTERNAL_BYTES))
        .add_service(FollowServiceServer::new(api).max_decoding_message_size(MAX_INTERNAL_BYTES))
}

impl Api {
    /// The services of one server.
    pub(crate) fn new(shared: Arc<Shared>, provided: Provided, shutdown: CancellationToken) -> Self {
        Self {
            shared,
            provided,
            shutdown,
        }
    }

    /// What pipelines are checked against now. Images and workspace volumes are not asked for as long as a local cluster, which
    /// uses neither, may run the steps.
    pub(crate) fn checker(&self) -> Checker {
        let local = self.shared.executors.may_be_local();
        let workspace = match &self.provided.workspace {
            Some(workspace) => workspace.clone(),
            None if local => WorkspaceDefault::RunFolder,
            None => WorkspaceDefault::Refused,
        };
        Checker {
            manifests: manifest_settings(&workspace, local),
            environment: Environment {
                workspace,
                default_requests: self.provided.default_requests.clone(),
                ..Environment::default()
            },
            installation: self.shared.partition().ok().map(|partition| partition.installation),
            policy: self.provided.policy.clone(),
            check_references: self.provided.check_references,
        }
    }
}

fn manifest_settings(workspace: &WorkspaceDefault, local: bool) -> windlass_manifest::Settings {
    let host_folder = || windlass_manifest::WorkspaceDefault::HostFolder("/var/lib/windlass".to_owned());
    windlass_manifest::Settings {
        // The pipeline's resolved workspace names the operator's volume itself.
        workspace: match workspace {
            WorkspaceDefault::RunFolder => host_folder(),
            WorkspaceDefault::Refused | WorkspaceDefault::Volume(_) => windlass_manifest::WorkspaceDefault::None,
        },
        default_image: local.then(|| "local".to_owned()),
    }
}

/// Who calls.
fn user<T>(request: &Request<T>) -> String {
    request
        .extensions()
        .get::<Identity>()
        .map(|identity| identity.user.clone())
        .unwrap_or_default()
}

/// The caller's trace context, when it is one.
fn traceparent<T>(request: &Request<T>) -> String {
    let header = request
        .metadata()
        .get("traceparent")
        .and_then(|value| value.to_str().ok());
    header
        .filter(|header| header.len() <= 128)
        .unwrap_or_default()
        .to_owned()
}

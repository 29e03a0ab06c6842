//! ServerService.

use std::sync::LazyLock;

use tonic::{Request, Response, Status};
use windlass_api::server::v1::server_service_server::ServerService;
use windlass_api::server::v1::{
    GetPipelineSchemaRequest, GetPipelineSchemaResponse, GetServerInfoRequest, GetServerInfoResponse,
};
use windlass_pipeline::schema::json_schema;

use super::Api;

/// What this server can do beyond protocol 1.
const CAPABILITIES: [&str; 11] = [
    "explain",
    "watch-resume",
    "confirm-dead",
    "matrix",
    "workspace",
    "pipeline-schema",
    "retry",
    "secrets",
    "schedules",
    "schedule-export",
    "clusters",
];

#[tonic::async_trait]
impl ServerService for Api {
    async fn get_server_info(
        &self,
        _request: Request<GetServerInfoRequest>,
    ) -> Result<Response<GetServerInfoResponse>, Status> {
        let partition = self.shared.partition()?;
        Ok(Response::new(GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: windlass_api::PUBLIC_PROTOCOL,
            capabilities: CAPABILITIES.map(str::to_owned).to_vec(),
            installation: partition.installation.to_string(),
            relay_addresses: self.shared.relays.addresses(),
            clusters: self.shared.executors.clusters(),
        }))
    }

    async fn get_pipeline_schema(
        &self,
        _request: Request<GetPipelineSchemaRequest>,
    ) -> Result<Response<GetPipelineSchemaResponse>, Status> {
        static SCHEMA: LazyLock<String> = LazyLock::new(|| json_schema().to_string());
        Ok(Response::new(GetPipelineSchemaResponse {
            json_schema: SCHEMA.clone(),
        }))
    }
}

//! ServerService.

use tonic::{Request, Response, Status};
use windlass_api::server::v1::server_service_server::ServerService;
use windlass_api::server::v1::{GetServerInfoRequest, GetServerInfoResponse};

use super::Api;

/// What this server can do beyond protocol 1.
const CAPABILITIES: [&str; 6] = [
    "explain",
    "watch-resume",
    "confirm-dead",
    "matrix",
    "workspace",
    "schedules",
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
}

//! ClusterService.

use tonic::{Request, Response, Status};
use windlass_api::cluster::v1 as wire;
use windlass_api::cluster::v1::cluster_service_server::ClusterService;

use super::Api;
use super::rights::permitted;
use crate::clusters;

#[tonic::async_trait]
impl ClusterService for Api {
    async fn list_clusters(
        &self,
        _request: Request<wire::ListClustersRequest>,
    ) -> Result<Response<wire::ListClustersResponse>, Status> {
        Ok(Response::new(clusters::list(&self.shared.executors)))
    }

    async fn check_cluster(
        &self,
        request: Request<wire::CheckClusterRequest>,
    ) -> Result<Response<wire::CheckClusterResponse>, Status> {
        let request = permitted(request)?;
        Ok(Response::new(clusters::check(&self.shared.executors, request).await?))
    }
}

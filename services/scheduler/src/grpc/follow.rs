//! FollowService: log relays dial in.

use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use windlass_api::follow::v1::follow_service_server::FollowService;
use windlass_api::follow::v1::{FollowRequest, FollowResponse};

use super::Api;
use crate::relays;

#[tonic::async_trait]
impl FollowService for Api {
    type FollowStream = ReceiverStream<Result<FollowResponse, Status>>;

    async fn follow(&self, request: Request<Streaming<FollowRequest>>) -> Result<Response<Self::FollowStream>, Status> {
        let outgoing = relays::follow(Arc::clone(&self.shared), request.into_inner(), self.shutdown.clone()).await?;
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

//! DispatchService: executors dial in.

use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use windlass_api::dispatch::v1::dispatch_service_server::DispatchService;
use windlass_api::dispatch::v1::{ConnectRequest, ConnectResponse};

use super::Api;
use crate::executors;

#[tonic::async_trait]
impl DispatchService for Api {
    type ConnectStream = ReceiverStream<Result<ConnectResponse, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let outgoing =
            executors::connect(Arc::clone(&self.shared), request.into_inner(), self.shutdown.clone()).await?;
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

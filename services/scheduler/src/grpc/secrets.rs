//! SecretService: what comes of it is up to an executor.

use tonic::{Request, Response, Status};
use windlass_api::secret::v1 as wire;
use windlass_api::secret::v1::secret_service_server::SecretService;

use super::Api;
use super::rights::permitted;
use crate::secrets;

#[tonic::async_trait]
impl SecretService for Api {
    async fn put_secret(
        &self,
        request: Request<wire::PutSecretRequest>,
    ) -> Result<Response<wire::PutSecretResponse>, Status> {
        let request = permitted(request)?;
        Ok(Response::new(secrets::put(&self.shared.executors, request).await?))
    }

    async fn list_secrets(
        &self,
        request: Request<wire::ListSecretsRequest>,
    ) -> Result<Response<wire::ListSecretsResponse>, Status> {
        let request = permitted(request)?;
        Ok(Response::new(secrets::list(&self.shared.executors, request).await?))
    }

    async fn delete_secret(
        &self,
        request: Request<wire::DeleteSecretRequest>,
    ) -> Result<Response<wire::DeleteSecretResponse>, Status> {
        let request = permitted(request)?;
        Ok(Response::new(secrets::delete(&self.shared.executors, request).await?))
    }
}

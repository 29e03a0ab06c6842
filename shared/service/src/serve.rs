//! Serving gRPC with tokens, health, reflection and an orderly end.

use std::net::IpAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_reflection::server::Builder as Reflection;
use tower_http::trace::TraceLayer;

use crate::auth::{AuthLayer, Tokens};

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeSettings {
    /// Full names of the served gRPC services, for health.
    pub services: Vec<&'static str>,
    /// Encoded descriptor set, for reflection.
    pub descriptors: &'static [u8],
    /// Tokens that are accepted; `None` lets everybody in.
    pub tokens: Option<Tokens>,
    /// Whether a listener off loopback may go without tokens.
    pub insecure: bool,
}

/// Why serving ended badly or never began.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Everybody on the network could start processes.
    #[error("{address} is not a loopback address: give --token-file, or say --insecure")]
    OpenListener {
        /// Where it would have listened.
        address: IpAddr,
    },
    /// The descriptor set is broken.
    #[error("the descriptor set cannot be served")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The listener has no address.
    #[error("the listener has no address")]
    Listener(#[from] std::io::Error),
    /// The transport failed.
    #[error("serving failed")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves `routes` until `shutdown`: health goes NOT_SERVING first, then open streams are expected to end by themselves.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(
    routes: Routes,
    settings: ServeSettings,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let address = listener.local_addr()?.ip();
    if settings.tokens.is_none() && !settings.insecure && !address.is_loopback() {
        return Err(ServeError::OpenListener { address });
    }
    let (health, health_service) = tonic_health::server::health_reporter();
    for service in &settings.services {
        health.set_service_status(*service, ServingStatus::Serving).await;
    }
    let reflection = || {
        Reflection::configure()
            .register_encoded_file_descriptor_set(settings.descriptors)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let stop = {
        let services = settings.services.clone();
        async move {
            shutdown.cancelled().await;
            for service in services.into_iter().chain([""]) {
                health.set_service_status(service, ServingStatus::NotServing).await;
            }
        }
    };
    Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .layer(TraceLayer::new_for_grpc())
        .layer(AuthLayer::new(settings.tokens))
        .add_routes(routes.prepare())
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        // Clients such as Python's grpcio-reflection still speak the alpha version.
        .add_service(reflection().build_v1alpha()?)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop)
        .await?;
    Ok(())
}

//! Serving gRPC with tokens, health, reflection and an orderly end.

use std::net::IpAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_reflection::server::Builder as Reflection;
use tower_http::trace::TraceLayer;

use crate::auth::{Access, AuthLayer};
use crate::tls::{ServerTls, incoming};

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeSettings {
    /// Full names of the served gRPC services, for health.
    pub services: Vec<&'static str>,
    /// Encoded descriptor set, for reflection.
    pub descriptors: &'static [u8],
    /// Which callers are known.
    pub access: Access,
    /// Certificate and authorities; plain text without.
    pub tls: Option<ServerTls>,
    /// Whether a listener off loopback may go without TLS or without knowing its callers.
    pub insecure: bool,
}

/// Why serving ended badly or never began.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Everybody on the network could start processes.
    #[error("{address} is not a loopback address: give {missing}, or say --insecure")]
    OpenListener {
        /// Where it would have listened.
        address: IpAddr,
        /// Flags that would close it.
        missing: &'static str,
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
    let missing = missing(&settings);
    if let Some(missing) = missing.filter(|_| !settings.insecure && !address.is_loopback()) {
        return Err(ServeError::OpenListener { address, missing });
    }
    let certificates = settings.tls.as_ref().is_some_and(ServerTls::wants_certificates);
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
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .layer(TraceLayer::new_for_grpc())
        .layer(AuthLayer::new(settings.access, certificates))
        .add_routes(routes.prepare())
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        // Clients such as Python's grpcio-reflection still speak the alpha version.
        .add_service(reflection().build_v1alpha()?)
        .serve_with_incoming_shutdown(incoming(listener, settings.tls), stop)
        .await?;
    Ok(())
}

/// What a listener that others reach needs and does not have.
fn missing(settings: &ServeSettings) -> Option<&'static str> {
    match (settings.tls.is_some(), !settings.access.is_open()) {
        (true, true) => None,
        (true, false) => Some("--access-file or --token-file"),
        (false, true) => Some("--tls-cert and --tls-key"),
        (false, false) => Some("--tls-cert and --tls-key, and --access-file or --token-file"),
    }
}

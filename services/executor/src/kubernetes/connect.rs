//! How the API server is reached.

use std::path::PathBuf;

use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};

/// No way to an API server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig cannot be used")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// Neither a kubeconfig nor the environment of a pod.
    #[error("no kubeconfig was found, and this is no pod")]
    Infer(#[from] kube::config::InferConfigError),
    /// The client cannot be made.
    #[error("no client can be made")]
    Client(#[from] kube::Error),
}

/// A client from a kubeconfig (with a context), else from where kubectl looks, else from the pod that this is.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(kubeconfig: Option<&PathBuf>, context: Option<&str>) -> Result<Client, ConnectError> {
    let options = KubeConfigOptions {
        context: context.map(str::to_owned),
        ..KubeConfigOptions::default()
    };
    let mut config = match kubeconfig {
        Some(path) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
        None if context.is_some() => Config::from_kubeconfig(&options).await?,
        None => Config::infer().await?,
    };
    // What a refusal means is decided here, call by call; a hidden retry would also be counted nowhere.
    config.default_retry = false;
    // Audit logs and metrics tell by it who asks.
    config.headers.push((
        http::header::USER_AGENT,
        http::HeaderValue::from_static(concat!("windlass-executor/", env!("CARGO_PKG_VERSION"))),
    ));
    Ok(Client::try_from(config)?)
}

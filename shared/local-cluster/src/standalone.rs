//! A local cluster as a process of its own.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use crate::cluster::{Handle, LocalCluster, StartError};
use crate::config::Config;
use crate::faults::FaultConfig;

/// Why a file of faults cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FaultFileError {
    /// It cannot be read.
    #[error("the file cannot be read")]
    Read(#[from] std::io::Error),
    /// It is not a [`FaultConfig`] in JSON.
    #[error("the file does not describe faults")]
    Parse(#[from] serde_json::Error),
}

impl FaultConfig {
    /// Reads faults from a JSON file.
    pub fn read(path: &Path) -> Result<Self, FaultFileError> {
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }
}

/// Serves until `shutdown`; `ready` is told where, once clients can come.
pub async fn run_standalone(
    config: Config,
    shutdown: CancellationToken,
    ready: impl FnOnce(&Handle),
) -> Result<(), StartError> {
    let handle = LocalCluster::start(config, shutdown).await?;
    ready(&handle);
    handle.join().await;
    Ok(())
}

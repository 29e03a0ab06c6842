//! Settings.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use windlass_ids::InstallationId;
use windlass_manifest::{Settings, WorkspaceDefault};
use windlass_service::{TlsArgs, Tokens, TokensError};
use windlass_telemetry::TelemetryArgs;

use crate::attempts::Policy;
use crate::kubernetes::{ApiServerArgs, ConnectError, connect, connect_to};

/// Where the namespace of a pod is found from inside.
const OWN_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// The Windlass executor: runs steps on one Kubernetes cluster.
#[derive(Clone, Debug, Parser)]
#[command(name = "windlass-executor", version)]
pub struct Config {
    /// Address of the scheduler.
    #[arg(
        long,
        env = "WINDLASS_SCHEDULER",
        default_value = "http://127.0.0.1:7610",
        value_name = "ADDRESS"
    )]
    pub scheduler: String,
    /// File with the bearer token for the scheduler and the log relays, `TOKEN` or `NAME:TOKEN`; its first one is shown.
    #[arg(long, env = "WINDLASS_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificates.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Address on which health and reflection are served; off when absent.
    #[arg(long, env = "WINDLASS_EXECUTOR_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Name of this executor, for people; the host's name when absent.
    #[arg(long, env = "WINDLASS_EXECUTOR_NAME", value_name = "NAME")]
    pub name: Option<String>,
    /// Kubeconfig of the cluster; where kubectl looks, or the pod that this is, when absent.
    #[arg(long, env = "WINDLASS_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, env = "WINDLASS_KUBE_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// An API server without a kubeconfig.
    #[command(flatten)]
    pub api: ApiServerArgs,
    /// Alias of the cluster, as pipelines name it.
    #[arg(long, env = "WINDLASS_CLUSTER", default_value = "default", value_name = "NAME")]
    pub cluster: String,
    /// Launches that are taken before their pods are acknowledged.
    #[arg(long, env = "WINDLASS_CREDIT", default_value_t = 2000, value_name = "COUNT")]
    pub credit: u32,
    /// Creates in flight at the API server.
    #[arg(long, env = "WINDLASS_CREATES_IN_FLIGHT", default_value_t = 32, value_name = "COUNT")]
    pub creates_in_flight: usize,
    /// Bound on one create; as much of the lease must be left when it begins.
    #[arg(long, env = "WINDLASS_CREATE_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub create_timeout: Duration,
    /// How long the API server may work on a request that was given up (its own --request-timeout): before that nobody concludes
    /// that a create without an answer made no pod.
    #[arg(long, env = "WINDLASS_API_TIMEOUT", default_value = "60s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub api_timeout: Duration,
    /// Volume of workspaces for pipelines that name none: a Kubernetes volume source in JSON, such as
    /// `{"persistentVolumeClaim":{"claimName":"team"}}`. Every run has a folder of its own in it.
    #[arg(
        long,
        env = "WINDLASS_WORKSPACE_VOLUME",
        value_name = "JSON",
        conflicts_with = "workspace_folder"
    )]
    pub workspace_volume: Option<String>,
    /// Folder of the host below which each run gets its workspace; for clusters of one machine.
    #[arg(long, env = "WINDLASS_WORKSPACE_FOLDER", value_name = "FOLDER")]
    pub workspace_folder: Option<PathBuf>,
    /// The cluster is the embedded local one, which uses no images.
    #[arg(long, env = "WINDLASS_LOCAL_CLUSTER")]
    pub local_cluster: bool,
    /// Namespace that this executor lives in, which steps may not use; found by itself inside a pod.
    #[arg(long, env = "WINDLASS_OWN_NAMESPACE", value_name = "NAMESPACE")]
    pub own_namespace: Option<String>,
    /// What becomes of a run in a namespace that the cluster does not have: it is refused, or the namespace is created, with the
    /// installation's label.
    #[arg(
        long,
        env = "WINDLASS_NAMESPACE_POLICY",
        value_name = "POLICY",
        value_enum,
        default_value_t
    )]
    pub namespace_policy: NamespacePolicy,
    /// A node that is gone is powered off: its steps may be replaced. True where deleting a machine deletes its node.
    #[arg(long, env = "WINDLASS_GONE_NODE_IS_DEAD")]
    pub gone_node_is_dead: bool,
    /// How long an image that certainly cannot be had (no such image, no access) is waited for. Other pull failures wait for the
    /// step's own deadline.
    #[arg(long, env = "WINDLASS_IMAGE_TOLERANCE", default_value = "30s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub image_tolerance: Duration,
    /// How long a container configuration that cannot work, such as a missing Secret, is waited for.
    #[arg(long, env = "WINDLASS_CONFIG_TOLERANCE", default_value = "30s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub config_tolerance: Duration,
    /// Time between two inventories.
    #[arg(long, env = "WINDLASS_INVENTORY_INTERVAL", default_value = "10m", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub inventory_interval: Duration,
    /// How long without a scheduler before deleted pods are let go, although nobody stored their end.
    #[arg(long, env = "WINDLASS_STRIP_AFTER", default_value = "10m", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub strip_after: Duration,
    /// Installation that this executor serves, as the label `windlass.dev/installation` of its pods says: it serves no other. With it,
    /// deleted pods are let go also when a scheduler was never heard since the start; without it they then wait for one.
    #[arg(long, env = "WINDLASS_INSTALLATION", value_name = "UUID")]
    pub installation: Option<InstallationId>,
    /// How long a pod may be starting without a reason before its events are read.
    #[arg(long, env = "WINDLASS_STUCK_AFTER", default_value = "20s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub stuck_after: Duration,
    /// How long a drain may take: creates under way end, reports are acknowledged.
    #[arg(long, env = "WINDLASS_DRAIN", default_value = "10s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub drain: Duration,
    /// Logging and metrics.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// What becomes of a run in a namespace that is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum NamespacePolicy {
    /// It is refused.
    #[default]
    MustExist,
    /// The namespace is created.
    Create,
}

/// Settings that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The token cannot be read.
    #[error("--token-file: {0}")]
    Token(#[source] TokensError),
    /// The volume is no volume.
    #[error("--workspace-volume: {0}")]
    Volume(#[source] serde_json::Error),
    /// The alias is no name.
    #[error("--cluster: must have 1 to 63 characters")]
    Cluster,
    /// Nothing could ever be created.
    #[error("{0}: must be at least 1")]
    Zero(&'static str),
}

impl Default for Config {
    fn default() -> Self {
        Self::parse_from(["windlass-executor"])
    }
}

impl Config {
    /// Checks what no parser checks.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.cluster.is_empty() || self.cluster.len() > 63 {
            return Err(ConfigError::Cluster);
        }
        for (flag, value) in [
            ("--credit", self.credit as usize),
            ("--creates-in-flight", self.creates_in_flight),
        ] {
            if value == 0 {
                return Err(ConfigError::Zero(flag));
            }
        }
        self.manifest_settings().map(drop)
    }

    /// What manifests need.
    ///
    /// # Errors
    /// When the workspace's volume does not parse.
    pub fn manifest_settings(&self) -> Result<Settings, ConfigError> {
        let workspace = match (&self.workspace_volume, &self.workspace_folder) {
            (Some(json), _) => {
                let volume = serde_json::from_str(json).map_err(ConfigError::Volume)?;
                WorkspaceDefault::Volume(Box::new(volume))
            }
            (None, Some(folder)) => WorkspaceDefault::HostFolder(folder.display().to_string()),
            (None, None) => WorkspaceDefault::None,
        };
        Ok(Settings {
            workspace,
            default_image: self.local_cluster.then(|| "windlass.dev/local".to_owned()),
        })
    }

    /// A client of the cluster.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn client(&self) -> Result<kube::Client, ConnectError> {
        match connect_to(&self.api).await? {
            Some(client) => Ok(client),
            None => connect(self.kubeconfig.as_ref(), self.context.as_deref()).await,
        }
    }

    /// What failures mean.
    pub(crate) fn policy(&self) -> Policy {
        Policy {
            gone_node_is_dead: self.gone_node_is_dead,
            image_tolerance: self.image_tolerance,
            config_tolerance: self.config_tolerance,
        }
    }

    /// The bearer token: the first of its file.
    ///
    /// # Errors
    /// When its file cannot be read or holds none.
    pub fn token(&self) -> Result<Option<String>, ConfigError> {
        let token = self.token_file.as_deref().map(Tokens::first_in_file);
        token.transpose().map_err(ConfigError::Token)
    }

    /// The namespace that this executor lives in.
    pub(crate) fn own_namespace(&self) -> Option<String> {
        let found = || {
            std::fs::read_to_string(OWN_NAMESPACE)
                .ok()
                .map(|text| text.trim().to_owned())
        };
        self.own_namespace.clone().or_else(found)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn flags_are_consistent_and_bad_ones_are_named() {
        Config::command().debug_assert();
        let parse = |flags: &[&str]| {
            let all = std::iter::once("windlass-executor").chain(flags.iter().copied());
            Config::try_parse_from(all).expect("parses")
        };
        assert!(parse(&[]).check().is_ok());
        let error = parse(&["--workspace-volume", "nonsense"]).check().expect_err("refused");
        assert!(error.to_string().starts_with("--workspace-volume"), "{error}");
        assert!(matches!(
            parse(&["--credit", "0"]).check(),
            Err(ConfigError::Zero("--credit"))
        ));
        let refused = |flags: &[&str]| {
            let all = std::iter::once("windlass-executor").chain(flags.iter().copied());
            Config::try_parse_from(all).is_err()
        };
        assert!(refused(&["--api-token-file", "token"]), "for which server?");
        assert!(
            refused(&["--api-server", "https://a", "--api-client-cert", "c"]),
            "without its key"
        );
        assert!(refused(&["--api-server", "https://a", "--context", "b"]));
        assert!(refused(&[
            "--api-server",
            "https://a",
            "--api-insecure",
            "--api-ca-file",
            "b"
        ]));
        assert!(matches!(parse(&["--cluster", ""]).check(), Err(ConfigError::Cluster)));
    }
}

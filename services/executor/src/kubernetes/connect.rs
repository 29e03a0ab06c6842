//! How the API server is reached.

use std::path::{Path, PathBuf};

use clap::Args;
use kube::Client;
use kube::client::AuthError;
use kube::config::{
    AuthInfo, Cluster, Config, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext,
};

use super::renewing;

/// No way to an API server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig cannot be used")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The kubeconfig has no such context.
    #[error("the kubeconfig has no context {context:?}; it has {}", contexts(.known, .current))]
    UnknownContext {
        /// What was asked for.
        context: String,
        /// Those that it has.
        known: Vec<String>,
        /// Its current one, if it has one.
        current: Option<String>,
    },
    /// Neither a kubeconfig nor the environment of a pod.
    #[error("no kubeconfig was found, and this is no pod")]
    Infer(#[from] kube::config::InferConfigError),
    /// A token would be sent to whoever listens.
    #[error("--api-server: {0} is not encrypted; use https://, or say --api-insecure")]
    Plain(String),
    /// The address or the files that go with it cannot be used.
    #[error("--api-server: cannot be used with what goes with it")]
    ApiServer(#[source] kube::config::KubeconfigError),
    /// Finding credentials takes too long.
    #[error("no credentials were found within {}", humantime::format_duration(*.0))]
    TooSlow(std::time::Duration),
    /// Finding credentials has panicked.
    #[error("finding credentials has failed")]
    Broken,
    /// A plugin has failed. What it wrote may be a credential, and stays where it is (I8).
    #[error("credential plugin {command} has failed with {status}")]
    Plugin {
        /// What was run.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// A plugin does not write a credential.
    #[error("what the credential plugin writes is no ExecCredential")]
    NoCredential,
    /// The client cannot be made.
    #[error("no client can be made")]
    Client(#[source] kube::Error),
}

impl From<kube::Error> for ConnectError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Auth(AuthError::AuthExecRun { cmd, out }) => {
                // With its arguments it may say more than its name.
                let command = cmd.split_whitespace().next().unwrap_or_default().trim_matches('"');
                Self::Plugin {
                    command: command.to_owned(),
                    status: out.status,
                }
            }
            kube::Error::Auth(AuthError::AuthExecParse(_)) => Self::NoCredential,
            other => Self::Client(other),
        }
    }
}

fn contexts(known: &[String], current: &Option<String>) -> String {
    let known = match known {
        [] => "none".to_owned(),
        known => known.join(", "),
    };
    match current {
        Some(current) => format!("{known}; its current one is {current}"),
        None => known,
    }
}

/// An API server that is named without a kubeconfig. Tokens and keys come from files and never from arguments, which every user of the
/// machine can read.
#[derive(Args, Clone, Debug, Default)]
pub struct ApiServerArgs {
    /// URL of the cluster's API server, in place of a kubeconfig.
    #[arg(
        long,
        env = "WINDLASS_API_SERVER",
        value_name = "URL",
        conflicts_with_all = ["kubeconfig", "context"]
    )]
    pub api_server: Option<String>,
    /// File with the bearer token for --api-server; it is read again while it runs.
    #[arg(long, env = "WINDLASS_API_TOKEN_FILE", value_name = "FILE", requires = "api_server")]
    pub api_token_file: Option<PathBuf>,
    /// Authority of --api-server, PEM; those that the system trusts when absent.
    #[arg(long, env = "WINDLASS_API_CA_FILE", value_name = "FILE", requires = "api_server")]
    pub api_ca_file: Option<PathBuf>,
    /// Does not check who answers at --api-server, and allows http://.
    #[arg(
        long,
        env = "WINDLASS_API_INSECURE",
        requires = "api_server",
        conflicts_with = "api_ca_file"
    )]
    pub api_insecure: bool,
    /// Client certificate for --api-server, PEM.
    #[arg(
        long,
        env = "WINDLASS_API_CLIENT_CERT",
        value_name = "FILE",
        requires_all = ["api_server", "api_client_key"]
    )]
    pub api_client_cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(
        long,
        env = "WINDLASS_API_CLIENT_KEY",
        value_name = "FILE",
        requires = "api_client_cert"
    )]
    pub api_client_key: Option<PathBuf>,
}

/// Where the way to an API server is found, again and again.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A kubeconfig (with a context), else where kubectl looks, else the pod that this is.
    Kubeconfig(Option<PathBuf>, Option<String>),
    /// An address, with files.
    Address(ApiServerArgs),
}

impl Source {
    /// The way as it is now.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(super) async fn config(&self) -> Result<Config, ConnectError> {
        let config = match self {
            Self::Kubeconfig(None, None) => Config::infer().await?,
            Self::Kubeconfig(path, context) => {
                let kubeconfig = path.as_ref().map_or_else(Kubeconfig::read, Kubeconfig::read_from)?;
                if let Some(context) = context {
                    know_context(&kubeconfig, context)?;
                }
                let options = KubeConfigOptions {
                    context: context.clone(),
                    ..KubeConfigOptions::default()
                };
                Config::from_custom_kubeconfig(kubeconfig, &options).await?
            }
            Self::Address(args) => of_address(args).await?,
        };
        Ok(as_executor(config))
    }
}

/// A client from a kubeconfig (with a context), else from where kubectl looks, else from the pod that this is. It finds its credentials
/// again when they are refused.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(kubeconfig: Option<&PathBuf>, context: Option<&str>) -> Result<Client, ConnectError> {
    renewing::client(Source::Kubeconfig(kubeconfig.cloned(), context.map(str::to_owned))).await
}

/// A client of the API server that the arguments name; nothing when they name none.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect_to(args: &ApiServerArgs) -> Result<Option<Client>, ConnectError> {
    let Some(server) = &args.api_server else {
        return Ok(None);
    };
    if !args.api_insecure && !server.starts_with("https://") {
        return Err(ConnectError::Plain(server.clone()));
    }
    renewing::client(Source::Address(args.clone())).await.map(Some)
}

async fn of_address(args: &ApiServerArgs) -> Result<Config, ConnectError> {
    let text = |path: &Option<PathBuf>| path.as_deref().map(Path::display).map(|path| path.to_string());
    let named = || "windlass".to_owned();
    // The same way as a kubeconfig, so that nothing is done twice: files are read by path, and the token's again and again.
    let kubeconfig = Kubeconfig {
        clusters: vec![NamedCluster {
            name: named(),
            cluster: Some(Cluster {
                server: args.api_server.clone(),
                insecure_skip_tls_verify: Some(args.api_insecure),
                certificate_authority: text(&args.api_ca_file),
                ..Cluster::default()
            }),
            ..NamedCluster::default()
        }],
        auth_infos: vec![NamedAuthInfo {
            name: named(),
            auth_info: Some(AuthInfo {
                token_file: text(&args.api_token_file),
                client_certificate: text(&args.api_client_cert),
                client_key: text(&args.api_client_key),
                ..AuthInfo::default()
            }),
            ..NamedAuthInfo::default()
        }],
        contexts: vec![NamedContext {
            name: named(),
            context: Some(Context {
                cluster: named(),
                user: Some(named()),
                ..Context::default()
            }),
            ..NamedContext::default()
        }],
        current_context: Some(named()),
        ..Kubeconfig::default()
    };
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    config.map_err(ConnectError::ApiServer)
}

fn know_context(kubeconfig: &Kubeconfig, context: &str) -> Result<(), ConnectError> {
    let mut known = kubeconfig.contexts.iter().map(|known| known.name.clone());
    if known.any(|known| known == context) {
        return Ok(());
    }
    Err(ConnectError::UnknownContext {
        context: context.to_owned(),
        known: kubeconfig.contexts.iter().map(|known| known.name.clone()).collect(),
        current: kubeconfig.current_context.clone().filter(|current| !current.is_empty()),
    })
}

fn as_executor(mut config: Config) -> Config {
    // What a refusal means is decided here, call by call; a hidden retry would also be counted nowhere.
    config.default_retry = false;
    // Audit logs and metrics tell by it who asks.
    config.headers.push((
        http::header::USER_AGENT,
        http::HeaderValue::from_static(concat!("windlass-executor/", env!("CARGO_PKG_VERSION"))),
    ));
    config
}

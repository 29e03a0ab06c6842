//! What differs between deployments.

use std::collections::BTreeMap;
use std::path::PathBuf;

use windlass_service::ClientTls;

use crate::deployment::Part;

/// What differs between deployments.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Two executors share the cluster.
    pub two_executors: bool,
    /// Pods end at once, without processes.
    pub instant_pods: bool,
    /// Program that is started as the scheduler; `windlass-scheduler` when absent.
    pub scheduler: Option<PathBuf>,
    /// More arguments of the scheduler.
    pub scheduler_args: Vec<String>,
    /// More environment of the scheduler.
    pub scheduler_env: BTreeMap<String, String>,
    /// Kubeconfig of a real cluster, which is used instead of a local one.
    pub kubeconfig: Option<PathBuf>,
    /// More arguments of the executors.
    pub executor_args: Vec<String>,
    /// More arguments of the log relays.
    pub relay_args: Vec<String>,
    /// More environment of the log relays.
    pub relay_env: BTreeMap<String, String>,
    /// Two log relays share the work.
    pub two_relays: bool,
    /// No log relay: the containers have no logs, or nobody wants them.
    pub without_relay: bool,
    /// Services log everything that they can, as JSON, and serve metrics.
    pub talkative: bool,
    /// Tokens with roles and TLS, instead of one token and plain text.
    pub secured: Option<Secured>,
}

/// How a deployment is secured.
#[derive(Clone, Debug)]
pub struct Secured {
    /// The access file of scheduler and relay.
    pub access_file: PathBuf,
    /// File with the token of executor and relay, where they show one.
    pub service_token: Option<PathBuf>,
    /// Token of the test's own client.
    pub token: String,
    /// Arguments about certificates, of each service.
    pub args: BTreeMap<Part, Vec<String>>,
    /// Whom the test's own client trusts and what it shows.
    pub tls: ClientTls,
}

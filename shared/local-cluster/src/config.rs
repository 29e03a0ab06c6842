//! Settings of a local cluster.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::faults::FaultConfig;

/// Settings of a local cluster.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder for objects, credentials, volumes and logs. One cluster at a time may use it.
    pub data_dir: PathBuf,
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether to serve TLS. `kubectl` sends no token without.
    pub tls: bool,
    /// The token that every request carries; the data folder's own when `None`.
    pub token: Option<String>,
    /// How pods run.
    pub completion: Completion,
    /// The command that runs one container and outlives this process: a program and its first arguments.
    /// It has to end up in [`shim_main`](crate::shim_main). When empty, this process's own executable is called with
    /// the argument [`SHIM_ARGUMENT`](crate::SHIM_ARGUMENT).
    pub shim: Vec<OsString>,
    /// What happens to running containers when the cluster is stopped in order.
    pub on_stop: OnStop,
    /// Pods that run at the same time; more stay Pending.
    pub most_pods: u32,
    /// Containers being started at the same time.
    pub most_starts: usize,
    /// Changes of each kind that watches can go back; older ones get 410.
    pub history: usize,
    /// Faults from the start.
    pub faults: FaultConfig,
}

/// How pods run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Completion {
    /// As processes of this machine.
    #[default]
    Processes,
    /// Not at all: they are Running and at once at their end, for tests of scale. The annotation
    /// `local-cluster.windlass.dev/exit-code` sets another exit code for a pod.
    Instant {
        /// Exit code of every container without the annotation.
        exit_code: i32,
    },
}

/// What happens to running containers when the cluster is stopped in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnStop {
    /// They run on, and the next start finds them, as after a crash.
    #[default]
    Leave,
    /// They are killed.
    Kill,
}

impl Config {
    /// The command that starts shims.
    pub(crate) fn shim_command(&self) -> Vec<OsString> {
        if !self.shim.is_empty() {
            return self.shim.clone();
        }
        let own = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("windlass"));
        vec![own.into(), crate::SHIM_ARGUMENT.into()]
    }

    /// A cluster on a free port of the loopback interface, with TLS, whose pods are processes.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
            tls: true,
            token: None,
            completion: Completion::default(),
            shim: Vec::new(),
            on_stop: OnStop::default(),
            most_pods: 110,
            most_starts: 8,
            history: 16_384,
            faults: FaultConfig::default(),
        }
    }
}

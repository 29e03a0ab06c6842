//! Start and stop.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::config::Config;
use crate::credentials::{self, CredentialsError};
use crate::error::ApiError;
use crate::faults::Faults;
use crate::node::{Node, OrderKind};
use crate::resources::PODS;
use crate::store::{Key, Store, StoreError};
use crate::{gc, objects, runtime, server};

/// Namespaces of every cluster. `kube-system`'s uid is the cluster's identity.
const NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "default"];

/// Why a local cluster does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used.
    #[error("the folder {path} cannot be used")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another cluster uses the data folder.
    #[error("the folder {path} is in use by another local cluster")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The address is taken or not ours.
    #[error("the local cluster cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Tokens would travel in the open.
    #[error("the local cluster does not listen on {address} without TLS: only loopback addresses may do without")]
    PlainText {
        /// The address.
        address: SocketAddr,
    },
    /// The objects cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Token, certificate or kubeconfig cannot be made.
    #[error("credentials of the local cluster")]
    Credentials(#[from] CredentialsError),
    /// The first objects cannot be stored.
    #[error("the local cluster's first objects cannot be stored")]
    FirstObjects(#[from] ApiError),
}

/// The local cluster.
#[derive(Debug)]
pub struct LocalCluster;

/// A running local cluster.
#[derive(Debug)]
pub struct Handle {
    /// The bound address.
    pub addr: SocketAddr,
    /// Address for clients on this machine.
    pub url: String,
    /// The certificate authority to trust, unless TLS is off.
    pub ca_pem: Option<String>,
    /// The bearer token.
    pub token: String,
    /// A kubeconfig with all of this.
    pub kubeconfig: PathBuf,
    /// The cluster's identity: uid of the namespace `kube-system`.
    pub cluster_uid: String,
    faults: Faults,
    api: Arc<Api>,
    task: JoinHandle<()>,
}

impl LocalCluster {
    /// Starts a cluster; it stops in order when `shutdown` is cancelled.
    pub async fn start(config: Config, shutdown: CancellationToken) -> Result<Handle, StartError> {
        if !config.tls && !config.listen.ip().is_loopback() {
            return Err(StartError::PlainText { address: config.listen });
        }
        let folder = prepare_folder(&config.data_dir)?;
        let lock = lock_folder(&folder)?;
        let token = credentials::token(&folder, config.token.as_deref())?;
        let tls = match config.tls {
            true => Some(credentials::tls(&folder, config.listen.ip())?),
            false => None,
        };
        let store = Store::open(&folder.join("objects.db"), config.history)?;
        for namespace in NAMESPACES {
            objects::ensure_namespace(&store, namespace).await?;
        }
        let cluster_uid = identity(&store);
        let node = Node::new(store.clone(), &folder);
        node.register(config.most_pods).await?;
        let listener = server::bind(config.listen).await.map_err(|source| StartError::Listen {
            address: config.listen,
            source,
        })?;
        let listen_error = |source| StartError::Listen {
            address: config.listen,
            source,
        };
        let addr = listener.local_addr().map_err(listen_error)?;
        let url = credentials::url(config.tls, addr);
        let ca_pem = tls.as_ref().map(|t| t.ca_pem.clone());
        let kubeconfig = credentials::write_kubeconfig(&folder, &url, ca_pem.as_deref(), &token)?;
        let faults = Faults::new(config.faults.clone());
        let api = Arc::new(Api::new(
            store.clone(),
            faults.clone(),
            node.clone(),
            shutdown.clone(),
            &token,
        ));
        let (pod_faults, handle_api) = (faults.clone(), api.clone());
        let acceptor = tls.map(|t| TlsAcceptor::from(t.config));
        tracing::info!(%addr, "local cluster listens");
        let task = tokio::spawn(async move {
            let collector = tokio::spawn(gc::run(store.clone(), shutdown.clone()));
            let pods = tokio::spawn(runtime::run(config, store, node, pod_faults, shutdown.clone()));
            server::serve(listener, acceptor, api, shutdown).await;
            for (part, task) in [("garbage collector", collector), ("pods", pods)] {
                if let Err(error) = task.await {
                    tracing::error!(%error, part, "task ended badly");
                }
            }
            drop(lock);
        });
        Ok(Handle {
            addr,
            url,
            ca_pem,
            token,
            kubeconfig,
            cluster_uid,
            faults,
            api: handle_api,
            task,
        })
    }
}

impl Handle {
    /// Control over the faults of this cluster.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Every open watch and list that is behind gets 410.
    pub fn forget_history(&self) {
        self.api.store.forget_history();
        self.api.store.forget_snapshots();
    }

    /// The kernel kills a container for its memory; with an empty name the first one.
    pub fn out_of_memory(&self, namespace: &str, pod: &str, container: &str) -> Result<(), ApiError> {
        let container = container.to_owned();
        self.api
            .node
            .order(&Key::new(PODS, namespace, pod), OrderKind::OutOfMemory { container })
    }

    /// The kubelet evicts a pod.
    pub fn evict(&self, namespace: &str, pod: &str, message: &str) -> Result<(), ApiError> {
        let message = message.to_owned();
        self.api
            .node
            .order(&Key::new(PODS, namespace, pod), OrderKind::Evict { message })
    }

    /// The node is not heard of any more; its containers run on unseen.
    pub async fn lose_node(&self) -> Result<(), ApiError> {
        self.api.node.lose().await
    }

    /// The node is back; after a reboot with another boot id and without its containers.
    pub async fn return_node(&self, rebooted: bool) -> Result<(), ApiError> {
        self.api.node.come_back(rebooted).await
    }

    /// Waits until the cluster has stopped.
    pub async fn join(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "local cluster ended badly");
        }
    }
}

fn prepare_folder(folder: &Path) -> Result<PathBuf, StartError> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |source| StartError::Folder {
        path: folder.to_owned(),
        source,
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    // Secrets and logs are in it.
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    // Processes of pods have other working folders.
    folder.canonicalize().map_err(failed)
}

fn lock_folder(folder: &Path) -> Result<Flock<File>, StartError> {
    let path = folder.join("lock");
    let failed = |source| StartError::Folder {
        path: folder.to_owned(),
        source,
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        Errno::EWOULDBLOCK => StartError::InUse {
            path: folder.to_owned(),
        },
        other => StartError::Folder {
            path: folder.to_owned(),
            source: other.into(),
        },
    })
}

fn identity(store: &Store) -> String {
    let key = crate::store::Key::new(crate::resources::NAMESPACES, "", "kube-system");
    store.peek(&key).map(|n| n.uid.clone()).unwrap_or_default()
}

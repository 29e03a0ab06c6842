//! The kubelet's part: pods as processes of this machine.

pub(crate) mod cri;
mod environment;
mod events;
mod expand;
pub(crate) mod folders;
mod instant;
mod kubelet;
mod launch;
mod message;
pub(crate) mod process;
mod scheduling;
mod status;
mod volumes;
mod worker;

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use nix::sys::signal::Signal;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, OnStop};
use crate::faults::Faults;
use crate::node::Node;
use crate::store::Store;
use events::Events;

/// Pods that are completed without processes at the same time.
const MOST_INSTANTS: usize = 256;

/// What all workers share.
#[derive(Debug)]
struct Context {
    store: Store,
    node: Node,
    faults: Faults,
    events: Events,
    shim: Vec<OsString>,
    on_stop: OnStop,
    starts: Semaphore,
    instants: Semaphore,
    stop: CancellationToken,
}

/// Runs pods until told to stop.
pub(crate) async fn run(config: Config, store: Store, node: Node, faults: Faults, stop: CancellationToken) {
    let context = Arc::new(Context {
        events: Events::start(store.clone(), stop.clone()),
        store,
        node,
        faults,
        shim: config.shim_command(),
        on_stop: config.on_stop,
        starts: Semaphore::new(config.most_starts.max(1)),
        instants: Semaphore::new(MOST_INSTANTS),
        stop,
    });
    kubelet::Kubelet::new(context, config.completion, config.most_pods)
        .run()
        .await;
}

/// Ends the processes, and removes the folders, of pods that are not there any more.
fn remove_strays(context: &Context, known: &HashSet<&str>) {
    let entries = std::fs::read_dir(context.node.pods_folder())
        .into_iter()
        .flatten()
        .flatten();
    for entry in entries {
        let name = entry.file_name();
        if name.to_str().is_some_and(|uid| known.contains(uid)) {
            continue;
        }
        let folder = entry.path();
        kill_containers(&folder);
        if let Err(error) = volumes::remove(&folder) {
            tracing::warn!(%error, "stray pod folder not removed");
        }
    }
}

fn kill_containers(pod_folder: &Path) {
    let containers = std::fs::read_dir(pod_folder.join("containers"))
        .into_iter()
        .flatten()
        .flatten();
    for container in containers {
        for start in std::fs::read_dir(container.path()).into_iter().flatten().flatten() {
            let run = folders::RunFolder(start.path());
            match process::read_record::<process::Identity>(&run.claim()) {
                Some(shim) if shim.alive() => shim.signal(Signal::SIGUSR1),
                _ => launch::clear_away(&run),
            }
        }
    }
}

//! Where things of a pod are on disk.
//!
//! ```text
//! pods/UID/volumes/NAME               the pod's volumes
//! pods/UID/containers/NAME/work       working folder of a container that sets none
//! pods/UID/containers/NAME/N/…        start N: shim.json, started.json, log, exit.json, termination-log
//! ```

use std::path::{Path, PathBuf};

/// The folder of one start of one container.
#[derive(Debug, Clone)]
pub(crate) struct RunFolder(pub(crate) PathBuf);

impl RunFolder {
    pub(crate) fn new(pod: &Path, container: &str, start: u32) -> Self {
        Self(container_folder(pod, container).join(start.to_string()))
    }

    /// Who runs the container: written once, with the shim's first breath.
    pub(crate) fn claim(&self) -> PathBuf {
        self.0.join("shim.json")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// When its first process was started, and which it is.
    pub(crate) fn started(&self) -> PathBuf {
        self.0.join("started.json")
    }

    /// How it ended: written once, at the very end.
    pub(crate) fn exit(&self) -> PathBuf {
        self.0.join("exit.json")
    }

    pub(crate) fn termination_message(&self) -> PathBuf {
        self.0.join("termination-log")
    }
}

pub(crate) fn container_folder(pod: &Path, container: &str) -> PathBuf {
    pod.join("containers").join(container)
}

pub(crate) fn volume_folder(pod: &Path, volume: &str) -> PathBuf {
    pod.join("volumes").join(volume)
}

/// The newest start of a container that left a folder.
pub(crate) fn last_start(pod: &Path, container: &str) -> Option<u32> {
    std::fs::read_dir(container_folder(pod, container))
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .max()
}

pub(crate) fn work_folder(pod: &Path, container: &str) -> PathBuf {
    container_folder(pod, container).join("work")
}

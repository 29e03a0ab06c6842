//! What pods of a local cluster leave behind.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Ends what still runs of the pods below a folder: containers outlive their cluster, which finds them when it starts again.
pub(crate) fn end_containers(folder: &Path) {
    let folder = folder.display().to_string();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let line = String::from_utf8_lossy(&read("cmdline")).into_owned();
        let mut arguments = line.split('\0').skip(1);
        if arguments.next() != Some("local-cluster-shim") || !arguments.any(|argument| argument.starts_with(&folder)) {
            continue;
        }
        let Ok(shim) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let children = String::from_utf8_lossy(&read(&format!("task/{shim}/children"))).into_owned();
        for pid in children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .chain([shim])
        {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
    }
}

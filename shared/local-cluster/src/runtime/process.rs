//! Processes of this machine: who they are, whether they live, and what they left behind.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::node::machine_boot_id;

/// A process that is told apart from a later one with the same number by when it started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// Clock ticks between boot and start.
    pub(crate) start: u64,
    pub(crate) boot: String,
}

/// What the shim is told on its standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub(crate) command: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) working_dir: String,
}

/// What the shim says on its standard output, once; also kept on disk for a later start of the cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Started {
    pub(crate) at: jiff::Timestamp,
    /// The container's first process, leader of its group; absent when it could not be started.
    pub(crate) child: Option<Identity>,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExitRecord {
    /// 128 + n after signal n.
    pub(crate) exit_code: i32,
    pub(crate) started_at: jiff::Timestamp,
    pub(crate) finished_at: jiff::Timestamp,
    /// Why it could not be started.
    pub(crate) start_error: Option<String>,
}

impl Identity {
    /// The process with this number, if it lives.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        (stat.state != 'Z').then(|| Self {
            pid,
            start: stat.start,
            boot: machine_boot_id(),
        })
    }

    pub(crate) fn alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends a signal to this very process.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.alive()
            && let Err(error) = kill(Pid::from_raw(self.pid), signal)
        {
            tracing::debug!(%error, pid = self.pid, "signal not delivered");
        }
    }
}

struct Stat {
    state: char,
    parent: i32,
    start: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may contain anything.
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
        })
    }
}

/// Living processes that were started with this variable, written `NAME=value`.
pub(crate) fn with_environment(variable: &str) -> Vec<Identity> {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let marked = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|v| v == variable.as_bytes())
    };
    pids.filter(marked).filter_map(Identity::of).collect()
}

/// Living processes below `root`, without it.
pub(crate) fn descendants(root: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        if let Some(stat) = Stat::read(pid).filter(|s| s.state != 'Z') {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        let below = children.remove(&pid).unwrap_or_default();
        found.extend(&below);
        open.extend(below);
    }
    found
}

/// Reads a record; `None` when it is not there (yet).
pub(crate) fn read_record<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Writes a record in one step.
pub(crate) fn write_record<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    std::fs::write(&temporary, serde_json::to_vec(record)?)?;
    std::fs::rename(temporary, path)
}

/// Writes a record unless there is one; says whether it did.
pub(crate) fn claim_record<T: Serialize>(path: &Path, record: &T) -> io::Result<bool> {
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    std::fs::write(&temporary, serde_json::to_vec(record)?)?;
    let linked = std::fs::hard_link(&temporary, path);
    std::fs::remove_file(temporary)?;
    match linked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_more_than_a_number() {
        let me = Identity::of(i32::try_from(std::process::id()).expect("pid")).expect("alive");
        assert!(me.alive());
        let other = Identity {
            start: me.start + 1,
            ..me
        };
        assert!(!other.alive());
    }

    #[test]
    fn only_one_claim_wins() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("claim.json");
        assert!(claim_record(&path, &1).expect("claims"));
        assert!(!claim_record(&path, &2).expect("comes late"));
        assert_eq!(read_record::<i32>(&path), Some(1));
    }
}

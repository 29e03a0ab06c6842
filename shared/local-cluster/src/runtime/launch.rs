//! Starting containers through their shims, finding them again, and waiting for their end.

use std::ffi::OsString;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

use super::environment::TERMINATION_LOG;
use super::folders::RunFolder;
use super::process::{ExitRecord, Identity, Launch, Started, read_record, with_environment};

/// Looks for processes that are left, at most.
const MOST_LOOKS: usize = 100;
/// How long a shim may take to start its command.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a container that another process has started is looked at.
const POLL: Duration = Duration::from_millis(100);
/// A shim that is gone may have left its record a moment ago.
const LAST_LOOK: Duration = Duration::from_millis(50);

/// A container that was started, by this cluster or an earlier one.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) folder: RunFolder,
    pub(super) started: Started,
    shim: Identity,
    child: Option<Child>,
}

/// Signals for a running container.
#[derive(Debug, Clone)]
pub(super) struct Signals(Identity);

impl Signals {
    /// Asks the container to end.
    pub(super) fn terminate(&self) {
        self.0.signal(Signal::SIGTERM);
    }

    /// Ends every process of it.
    pub(super) fn kill(&self) {
        self.0.signal(Signal::SIGUSR1);
    }
}

/// What an earlier cluster left of a container's start.
#[derive(Debug)]
pub(super) enum Found {
    /// It runs.
    Running(Box<Running>),
    /// It has ended.
    Ended(ExitRecord),
    /// It is gone and left no record.
    Lost,
    /// It was never started.
    Nothing,
}

impl Running {
    pub(super) fn signals(&self) -> Signals {
        Signals(self.shim.clone())
    }

    /// Waits for the end. `None` when the shim went without a record.
    pub(super) async fn ended(mut self) -> Option<ExitRecord> {
        match self.child.as_mut() {
            Some(child) => {
                if let Err(error) = child.wait().await {
                    tracing::warn!(%error, "shim cannot be waited for");
                }
            }
            None => {
                while !self.folder.exit().exists() && self.shim.alive() {
                    tokio::time::sleep(POLL).await;
                }
                tokio::time::sleep(LAST_LOOK).await;
            }
        }
        let record = read_record(&self.folder.exit());
        if record.is_none() {
            self.clear_away();
        }
        record
    }

    fn clear_away(&self) {
        clear_away(&self.folder);
    }
}

/// Without its shim a container is nobody's: all its processes go. They are known by their environment, since the shim may have died
/// before it could say which they are. One that forks meanwhile is found by the next look.
pub(super) fn clear_away(folder: &RunFolder) {
    let mark = format!("{TERMINATION_LOG}={}", folder.termination_message().display());
    for _ in 0..MOST_LOOKS {
        let left = with_environment(&mark);
        if left.is_empty() {
            return;
        }
        left.iter().for_each(|process| process.signal(Signal::SIGKILL));
    }
    tracing::warn!(folder = %folder.0.display(), "processes of a container without its shim cannot be ended");
}

/// Starts a container in a folder that no other start has used.
pub(super) async fn launch(shim: &[OsString], folder: RunFolder, order: &Launch) -> io::Result<Running> {
    tokio::fs::create_dir_all(&folder.0).await?;
    let (program, args) = shim
        .split_first()
        .ok_or_else(|| io::Error::other("no shim is configured"))?;
    let mut child = Command::new(program)
        .args(args)
        .arg(&folder.0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let order = serde_json::to_vec(order)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(&order).await?;
    }
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        let mut read = BufReader::new(output);
        tokio::time::timeout(START_TIMEOUT, read.read_line(&mut line))
            .await
            .map_err(|_| io::Error::other("the shim does not answer"))??;
    }
    let started: Started = match serde_json::from_str(&line) {
        Ok(started) => started,
        Err(_) => {
            child.wait().await?;
            return Err(io::Error::other("the shim ended before it started anything"));
        }
    };
    let shim: Identity = read_record(&folder.claim()).ok_or_else(|| io::Error::other("the shim left no claim"))?;
    Ok(Running {
        folder,
        started,
        shim,
        child: Some(child),
    })
}

/// What there is of a start. Reads the disk.
pub(super) fn find(folder: &RunFolder) -> Found {
    let Some(shim) = read_record::<Identity>(&folder.claim()) else {
        return Found::Nothing;
    };
    // In this order: the record is written before the shim goes.
    let alive = shim.alive();
    if let Some(record) = read_record(&folder.exit()) {
        return Found::Ended(record);
    }
    let now = Started {
        at: crate::clock::timestamp(),
        child: None,
    };
    let started = read_record(&folder.started()).unwrap_or(now);
    let running = Running {
        folder: folder.clone(),
        started,
        shim,
        child: None,
    };
    if alive {
        return Found::Running(Box::new(running));
    }
    running.clear_away();
    Found::Lost
}

//! One pod: a task that starts its containers in order, waits for their ends, ends them when asked, and tells the API.
//!
//! It is level-triggered: every round looks at the newest object and at what runs, does what is due, writes the status
//! if it changed, and waits for the next thing to happen.

mod ending;
mod publishing;
mod starting;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Context;
use super::folders::{RunFolder, last_start};
use super::launch::{Signals, find};
use super::process::ExitRecord;
use super::status::{PodFailure, Record, Role, State};
use crate::config::OnStop;
use crate::node::NodeState;
use crate::store::{Key, Object};

/// How soon something that could not be started is tried again.
const RETRY: Duration = Duration::from_millis(500);
const FIRST_RESTART: Duration = Duration::from_secs(10);
const LONGEST_RESTART: Duration = Duration::from_secs(300);
/// Nothing is due: the wait is for something to happen.
const IDLE: Duration = Duration::from_secs(3_600);
const GONE_MESSAGE: &str = "The container could not be located when the pod was terminated";

/// A container that runs.
struct Live {
    signals: Signals,
    start: u32,
    out_of_memory: bool,
}

/// An end that was reported by the task that waits for a container.
struct End {
    index: usize,
    start: u32,
    record: Option<ExitRecord>,
}

/// Why everything is being ended.
struct Ending {
    failure: Option<PodFailure>,
    kill_at: Instant,
    killed: bool,
}

pub(super) struct Worker {
    context: Arc<Context>,
    key: Key,
    folder: PathBuf,
    updates: watch::Receiver<Option<Arc<Object>>>,
    node: watch::Receiver<NodeState>,
    pod: Value,
    uid: String,
    gone: bool,
    records: Vec<Record>,
    live: HashMap<usize, Live>,
    retry: HashMap<usize, Instant>,
    ends: (mpsc::Sender<End>, mpsc::Receiver<End>),
    ending: Option<Ending>,
    started: Timestamp,
    reboots: u64,
    volumes_ready: bool,
    volumes_retry: Option<Instant>,
    written: Option<Value>,
    over: bool,
}

impl Worker {
    pub(super) fn new(context: Arc<Context>, object: &Object, updates: watch::Receiver<Option<Arc<Object>>>) -> Self {
        let pod = object.value();
        let containers = |list: &str| pod["spec"][list].as_array().cloned().unwrap_or_default();
        let init = containers("initContainers");
        let init = init.iter().map(|c| {
            let role = if c["restartPolicy"] == "Always" {
                Role::Sidecar
            } else {
                Role::Init
            };
            Record::new(c, role)
        });
        let main = containers("containers");
        let mut records: Vec<Record> = init.chain(main.iter().map(|c| Record::new(c, Role::Main))).collect();
        if records.iter().any(|r| r.role != Role::Main) {
            for record in &mut records {
                record.state = State::waiting("PodInitializing", "");
            }
        }
        let node = context.node.state();
        let reboots = node.borrow().reboots;
        let started = pod["status"]["startTime"].as_str().and_then(|t| t.parse().ok());
        Self {
            folder: context.node.pod_folder(&object.uid),
            key: object.key.clone(),
            uid: object.uid.clone(),
            updates,
            node,
            gone: false,
            // A pod has few containers; an end that has to wait for room waits in its own task.
            ends: mpsc::channel(8),
            live: HashMap::new(),
            retry: HashMap::new(),
            ending: None,
            started: started.unwrap_or_else(crate::clock::timestamp),
            reboots,
            volumes_ready: false,
            volumes_retry: None,
            written: None,
            over: false,
            records,
            pod,
            context,
        }
    }

    /// Runs the pod to its end, or until the cluster stops.
    pub(super) async fn run(mut self) {
        self.recover();
        let mut orders = self.context.node.order_changes();
        let mut faults = self.context.faults.changes();
        loop {
            self.take_update();
            if self.node.borrow_and_update().reachable {
                self.advance().await;
                if self.publish().await {
                    return;
                }
            }
            let due = self.next_due();
            tokio::select! {
                () = self.context.stop.cancelled() => return self.stop().await,
                end = self.ends.1.recv() => {
                    if let Some(end) = end {
                        self.ended(end);
                    }
                }
                _ = self.updates.changed(), if !self.gone => {}
                _ = self.node.changed() => {}
                _ = orders.changed() => {}
                _ = faults.changed() => self.retry.clear(),
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    /// What an earlier cluster left: containers that run on, and ends that nobody has told.
    fn recover(&mut self) {
        for index in 0..self.records.len() {
            let name = self.records[index].name.clone();
            let Some(start) = last_start(&self.folder, &name) else {
                self.records[index].recall(&self.pod);
                continue;
            };
            let folder = RunFolder::new(&self.folder, &name, start);
            self.records[index].start = start;
            self.take_found(index, find(&folder));
        }
    }

    fn take_update(&mut self) {
        let newest = self.updates.borrow_and_update().clone();
        match newest {
            None => self.gone = true,
            Some(object) if object.uid != self.uid => self.gone = true,
            Some(object) => self.pod = object.value(),
        }
    }

    async fn advance(&mut self) {
        self.notice_reboot();
        self.take_orders().await;
        self.notice_endings();
        if self.ending.is_some() {
            self.end_containers();
        } else if self.make_volumes() {
            self.start_what_is_due().await;
        }
    }

    fn policy(&self) -> String {
        self.pod["spec"]["restartPolicy"]
            .as_str()
            .unwrap_or("Always")
            .to_owned()
    }

    fn next_due(&self) -> Instant {
        let now = Instant::now();
        if !self.node.borrow().reachable {
            return now + IDLE;
        }
        let mut due = vec![now + IDLE];
        if self.over {
            due.push(now + RETRY);
        }
        match &self.ending {
            Some(ending) if !ending.killed => due.push(ending.kill_at),
            Some(_) => due.push(now + RETRY),
            None => {
                due.extend(self.retry.values());
                due.extend(self.volumes_retry);
                if let Some(deadline) = self.deadline() {
                    let left = deadline
                        .duration_since(crate::clock::timestamp())
                        .max(jiff::SignedDuration::ZERO);
                    due.push(now + Duration::try_from(left).unwrap_or_default());
                }
            }
        }
        due.into_iter().min().unwrap_or(now)
    }

    /// The cluster stops in order.
    async fn stop(mut self) {
        if self.context.on_stop == OnStop::Leave {
            return;
        }
        for live in self.live.values() {
            live.signals.kill();
        }
        while !self.live.is_empty() {
            let Some(end) = self.ends.1.recv().await else { return };
            self.ended(end);
        }
    }
}

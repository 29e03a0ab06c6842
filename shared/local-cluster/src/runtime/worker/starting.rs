//! Volumes, init containers, sidecars, main containers: what starts when, and what is made of each end.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::super::environment::{CannotStart, launch_order};
use super::super::folders::RunFolder;
use super::super::launch::{Found, Running, find, launch};
use super::super::message::termination_message;
use super::super::process::ExitRecord;
use super::super::status::{self, Role, State, Termination, restarts};
use super::super::volumes;
use super::{End, FIRST_RESTART, GONE_MESSAGE, IDLE, LONGEST_RESTART, Live, RETRY, Worker};

impl Worker {
    pub(super) fn make_volumes(&mut self) -> bool {
        if self.volumes_ready || self.volumes_retry.is_some_and(|at| Instant::now() < at) {
            return self.volumes_ready;
        }
        match volumes::prepare(&self.context.store, &self.folder, &self.pod) {
            Ok(()) => {
                self.volumes_ready = true;
                self.volumes_retry = None;
            }
            Err(error) => {
                self.context.events.warning(&self.pod, "FailedMount", error.to_string());
                self.volumes_retry = Some(Instant::now() + RETRY);
            }
        }
        self.volumes_ready
    }

    pub(super) async fn start_what_is_due(&mut self) {
        let policy = self.policy();
        for index in 0..self.records.len() {
            self.restart_if_due(index, &policy);
            let waiting = matches!(self.records[index].state, State::Waiting { .. });
            if waiting && self.retry.get(&index).is_none_or(|at| Instant::now() >= *at) {
                self.retry.remove(&index);
                self.start(index).await;
            }
            let record = &self.records[index];
            let passed = match record.role {
                Role::Init => record.ended().is_some_and(|e| e.exit_code == 0),
                Role::Sidecar => record.runs() || record.last.is_some(),
                Role::Main => true,
            };
            if !passed {
                break;
            }
        }
        let phase = status::phase(&self.records, &policy);
        if matches!(phase, "Succeeded" | "Failed") && !self.live.is_empty() {
            // What is left are sidecars.
            let grace = self.pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
            self.begin_ending(None, Duration::from_secs(grace));
        }
    }

    /// Turns an end after which the container is started again into a wait.
    pub(super) fn restart_if_due(&mut self, index: usize, policy: &str) {
        let over = matches!(status::phase(&self.records, policy), "Succeeded" | "Failed");
        let record = &mut self.records[index];
        let State::Terminated(end) = &record.state else { return };
        if over || !restarts(policy, record.role, end) {
            return;
        }
        let doubled = FIRST_RESTART.saturating_mul(1 << record.start.min(8));
        let pause = if record.start == 0 {
            Duration::ZERO
        } else {
            doubled.min(LONGEST_RESTART)
        };
        let text = format!(
            "back-off {}s restarting failed container={}",
            pause.as_secs(),
            record.name
        );
        record.last = Some(end.clone());
        record.start += 1;
        record.state = State::waiting("CrashLoopBackOff", text);
        self.retry.insert(index, Instant::now() + pause);
    }

    pub(super) async fn start(&mut self, index: usize) {
        let image = self.records[index].image.clone();
        if let Some(error) = self.context.faults.pull_error(&image) {
            self.fail_pull(index, &image, &error);
            return;
        }
        let container = self.container(index);
        let run = RunFolder::new(&self.folder, &self.records[index].name, self.records[index].start);
        let order = match launch_order(&self.context.store, &self.folder, &run, &self.pod, &container) {
            Ok(order) => order,
            Err(CannotStart::Config(why)) => {
                self.context
                    .events
                    .warning(&self.pod, "Failed", format!("Error: {why}"));
                return self.wait_with(index, "CreateContainerConfigError", why, RETRY);
            }
            Err(CannotStart::NoCommand) => {
                let why = "no command specified: pods of the local cluster are processes, without an image to take a command from";
                self.context
                    .events
                    .warning(&self.pod, "Failed", format!("Error: {why}"));
                return self.wait_with(index, "CreateContainerError", why.to_owned(), IDLE);
            }
        };
        let Ok(slot) = self.context.starts.acquire().await else {
            return;
        };
        let launched = launch(&self.context.shim, run.clone(), &order).await;
        drop(slot);
        match launched {
            // Nothing of it ever ran: as with a real kubelet, it goes from waiting to its end.
            Ok(running) if running.started.child.is_none() => {
                let end = match running.ended().await {
                    Some(record) => self.termination(index, &record),
                    None => Termination::lost(GONE_MESSAGE),
                };
                self.context
                    .events
                    .warning(&self.pod, "Failed", format!("Error: {}", end.message));
                self.records[index].state = State::Terminated(end);
            }
            Ok(running) => {
                let text = format!("Started container {}", self.records[index].name);
                self.context.events.normal(&self.pod, "Started", text);
                self.watch(index, running);
            }
            Err(error) => {
                tracing::warn!(%error, pod = self.key.name, "container does not start");
                // A start that was claimed is never tried again in the same folder: it may have done something.
                if !self.take_found(index, find(&run)) {
                    self.wait_with(index, "RunContainerError", error.to_string(), RETRY);
                }
            }
        }
    }

    /// Goes on from what a start left on disk; `false` when it left nothing.
    pub(super) fn take_found(&mut self, index: usize, found: Found) -> bool {
        match found {
            Found::Nothing => return false,
            Found::Running(running) => self.watch(index, *running),
            Found::Ended(record) => {
                let end = self.termination(index, &record);
                self.records[index].state = State::Terminated(end);
            }
            Found::Lost => self.records[index].state = State::Terminated(Termination::lost(GONE_MESSAGE)),
        }
        true
    }

    pub(super) fn container(&self, index: usize) -> Value {
        let inits = self.pod["spec"]["initContainers"].as_array().map_or(0, Vec::len);
        match index.checked_sub(inits) {
            None => self.pod["spec"]["initContainers"][index].clone(),
            Some(main) => self.pod["spec"]["containers"][main].clone(),
        }
    }

    pub(super) fn wait_with(&mut self, index: usize, reason: &str, message: String, pause: Duration) {
        self.records[index].state = State::waiting(reason, message);
        self.retry.insert(index, Instant::now() + pause);
    }

    /// As the kubelet alternates: first the error, then the wait for another try.
    pub(super) fn fail_pull(&mut self, index: usize, image: &str, error: &str) {
        let failed_before = matches!(&self.records[index].state,
            State::Waiting { reason, .. } if reason == "ErrImagePull" || reason == "ImagePullBackOff");
        if failed_before {
            let text = format!("Back-off pulling image {image:?}: ErrImagePull: {error}");
            self.context
                .events
                .normal(&self.pod, "BackOff", format!("Back-off pulling image {image:?}"));
            self.wait_with(index, "ImagePullBackOff", text, FIRST_RESTART);
        } else {
            let text = format!("failed to pull and unpack image {image:?}: {error}");
            self.context
                .events
                .warning(&self.pod, "Failed", format!("Failed to pull image {image:?}: {error}"));
            self.wait_with(index, "ErrImagePull", text, RETRY);
        }
    }

    pub(super) fn watch(&mut self, index: usize, running: Running) {
        let start = self.records[index].start;
        self.records[index].state = State::Running {
            since: running.started.at,
        };
        let live = Live {
            signals: running.signals(),
            start,
            out_of_memory: false,
        };
        if self.ending.is_some() {
            live.signals.terminate();
        }
        self.live.insert(index, live);
        let ends = self.ends.0.clone();
        tokio::spawn(async move {
            let record = running.ended().await;
            if ends.send(End { index, start, record }).await.is_err() {
                // The cluster stops; the record on disk stays.
            }
        });
    }

    pub(super) fn ended(&mut self, End { index, start, record }: End) {
        if self.live.get(&index).is_none_or(|live| live.start != start) {
            return;
        }
        let out_of_memory = self.live.remove(&index).is_some_and(|live| live.out_of_memory);
        let mut end = match &record {
            Some(record) => self.termination(index, record),
            None => Termination::lost(GONE_MESSAGE),
        };
        if out_of_memory {
            end.reason = "OOMKilled".to_owned();
            end.exit_code = 137;
        }
        self.records[index].state = State::Terminated(end);
    }

    pub(super) fn termination(&self, index: usize, record: &ExitRecord) -> Termination {
        let name = &self.records[index].name;
        let run = RunFolder::new(&self.folder, name, self.records[index].start);
        Termination::of(
            record,
            termination_message(&run, &self.container(index), record.exit_code),
        )
    }
}

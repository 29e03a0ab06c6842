//! What the scheduler says.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;
use windlass_api::cluster::v1::ExecutorLoad;
use windlass_api::dispatch::v1 as dispatch;
use windlass_api::dispatch::v1::connect_request::Message as Request;
use windlass_api::dispatch::v1::connect_response::Message as Response;
use windlass_ids::RunId;
use windlass_manifest::{Run, RunContext};

use super::launcher::Queued;
use super::launching::RunEntry;
use super::{Agent, Shards};
use crate::attempts::{End, FailureClass, Fleet, Phase};
use crate::checks::Checker;
use crate::connect::{Welcome, convert, deadline, duration};
use crate::secrets::Secrets;

impl Agent {
    pub(super) fn up(&mut self, welcome: &Welcome) {
        self.connected = true;
        if self.installation != Some(welcome.installation) {
            self.installation = Some(welcome.installation);
            self.fleet = Some(Fleet::new(welcome.installation, self.settings.policy));
            self.runs.clear();
            self.stop_watching();
        }
        if !welcome.resumed {
            // Commands are sent anew; what is in flight is answered by its own result.
            self.processed = 0;
            self.templates = HashMap::new();
            self.stopping.clear();
            self.launcher.retain(|_| false);
            self.drop_parked(|_| true);
            self.drop_inventory();
            self.outbox.forget_session();
            self.last_words.forget();
            self.want_inventory();
        }
        self.launcher.open();
        self.tell_sight();
    }

    pub(super) fn down(&mut self) {
        self.connected = false;
        self.disconnected_since = Instant::now();
    }

    pub(super) fn command(&mut self, message: Response) {
        match message {
            Response::Lease(lease) => self.leased(Shards::from_bytes(&lease.shards)),
            Response::Run(context) => self.run_context(&context),
            Response::Template(template) => self.template(&template),
            Response::Launches(launches) => launches
                .launches
                .into_iter()
                .for_each(|launch| self.launch_command(launch)),
            Response::Stops(stops) => stops.stops.iter().for_each(|stop| self.stop_command(stop)),
            Response::Releases(releases) => releases.releases.into_iter().for_each(|release| self.release(release)),
            Response::RunsFinished(finished) => finished.runs.iter().for_each(|run| self.run_finished(run)),
            Response::Relays(relays) => drop(self.relays.send_replace(relays.relays)),
            Response::InventoryRequest(_) => {
                self.want_inventory();
                self.take_inventory(Instant::now());
            }
            Response::Probes(probes) => probes.probes.iter().for_each(|probe| self.probe_command(probe)),
            // Calls have no number, and come by themselves.
            Response::Welcome(_)
            | Response::Heartbeat(_)
            | Response::SecretCall(_)
            | Response::RunSecretCall(_)
            | Response::ScheduleSecretCall(_)
            | Response::ClusterCall(_) => {}
        }
    }

    /// Carries out what a client waits for, beside everything else.
    pub(super) fn secret_call(&self, stream: u64, call: dispatch::SecretCall) {
        let until = deadline(call.timeout);
        self.about_secrets(stream, move |keeper| async move {
            Request::SecretAnswer(keeper.answer(call, until).await)
        });
    }

    /// As [`Agent::secret_call`].
    pub(super) fn run_secret_call(&self, stream: u64, call: dispatch::RunSecretCall) {
        let until = deadline(call.timeout);
        self.about_secrets(stream, move |keeper| async move {
            Request::RunSecretAnswer(keeper.answer_run(call, until).await)
        });
    }

    /// As [`Agent::secret_call`].
    pub(super) fn schedule_secret_call(&self, stream: u64, call: dispatch::ScheduleSecretCall) {
        let until = deadline(call.timeout);
        self.about_secrets(stream, move |keeper| async move {
            Request::ScheduleSecretAnswer(keeper.answer_schedule(call, until).await)
        });
    }

    fn about_secrets<F: Future<Output = Request> + Send + 'static>(
        &self,
        stream: u64,
        answer: impl FnOnce(Secrets) -> F + Send + 'static,
    ) {
        let Some(installation) = self.installation else {
            return;
        };
        let keeper = Secrets {
            api: self.api.clone(),
            installation,
            own_namespace: self.settings.own_namespace.clone(),
        };
        let (outbox, calls) = (Arc::clone(&self.outbox), Arc::clone(&self.secret_calls));
        self.spawn(async move {
            // Never closed.
            let permit = calls.acquire().await.ok();
            outbox.answer(stream, answer(keeper).await);
            drop(permit);
        });
    }

    /// Looks at the cluster for a client that waits, beside everything else.
    pub(super) fn cluster_call(&self, stream: u64, call: dispatch::ClusterCall) {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let checker = Checker {
            api: self.api.clone(),
            own_namespace: self.settings.own_namespace.clone(),
            load: ExecutorLoad {
                pods: count(self.fleet.as_ref().map_or(0, Fleet::len)),
                queued: count(self.launcher.queued()),
                creates_in_flight: count(self.launcher.in_flight()),
                draining: self.draining.is_some(),
            },
        };
        let (outbox, checks) = (Arc::clone(&self.outbox), Arc::clone(&self.checks));
        let until = deadline(call.timeout);
        self.spawn(async move {
            // Never closed.
            let permit = checks.acquire().await.ok();
            let answer = checker.answer(call, until).await;
            outbox.answer(stream, Request::ClusterAnswer(answer));
            drop(permit);
        });
    }

    fn run_context(&mut self, message: &dispatch::RunContext) {
        let (Ok(id), Some(installation)) = (message.run_id.parse::<RunId>(), self.installation) else {
            tracing::error!(run_id = %message.run_id, "run context without a valid id");
            return;
        };
        let context: RunContext = match serde_json::from_slice(&message.context_json) {
            Ok(context) => context,
            Err(error) => {
                tracing::error!(run_id = %id, %error, "run context does not parse");
                return;
            }
        };
        let run = Arc::new(Run {
            id,
            name: message.run_name.clone(),
            namespace: message.namespace.clone(),
            pipeline: message.pipeline.clone(),
            installation,
            context,
        });
        match self.runs.get_mut(&id) {
            Some(entry) => entry.run = run,
            None => drop(self.runs.insert(id, RunEntry::new(run))),
        }
    }

    fn template(&mut self, message: &dispatch::StepTemplate) {
        match serde_json::from_slice(&message.template_json) {
            Ok(template) => drop(self.templates.insert(message.template, Arc::new(template))),
            Err(error) => tracing::error!(template = message.template, %error, "template does not parse"),
        }
    }

    fn launch_command(&mut self, message: dispatch::Launch) {
        let Some(attempt) = convert::attempt_id(message.attempt.as_ref()) else {
            tracing::error!("launch without a valid attempt");
            return;
        };
        let launch = Queued {
            attempt,
            grant: message.grant,
            template: message.template,
            step_name: message.step_name,
            overlay: message.overlay_json.into(),
            refused: None,
        };
        if self.is_under_way(&launch) || self.draining.is_some() {
            return;
        }
        let Some(entry) = self.runs.get(&attempt.run) else {
            self.reject(
                &launch,
                "UnknownRun",
                "the scheduler did not describe the run".to_owned(),
            );
            return;
        };
        let namespace = entry.run.namespace.clone();
        if self.settings.own_namespace.as_deref() == Some(&*namespace) {
            // Deleting that namespace would kill the only one who can let its pods go (I4).
            let message = format!("namespace {namespace} is the executor's own; steps need another one");
            self.reject(&launch, "ExecutorNamespace", message);
            return;
        }
        self.launcher.push(&namespace, launch);
    }

    /// Whether a launch that is said again needs nothing more than another grant.
    fn is_under_way(&mut self, launch: &Queued) -> bool {
        if let Some(in_flight) = self.launcher.in_flight_mut(launch.attempt) {
            in_flight.ask(launch.grant);
            return true;
        }
        if let Some(queued) = self.launcher.queued_mut(launch.attempt) {
            *queued = launch.clone();
            return true;
        }
        let Some(fleet) = &mut self.fleet else { return false };
        fleet.granted(launch.attempt, launch.grant);
        let Some(sight) = fleet.current(launch.attempt) else {
            return false;
        };
        self.observe(sight);
        true
    }

    /// Reports that an attempt can never have a pod.
    pub(super) fn reject(&mut self, launch: &Queued, reason: &str, message: String) {
        if let Some(fleet) = &mut self.fleet {
            fleet.expect_no_more(launch.attempt);
        }
        let mut sight = self.without_pod(launch, Phase::Ended, "", String::new());
        sight.end = Some(End {
            class: Some(FailureClass::Rejected),
            exit_code: None,
            reason: reason.to_owned(),
            evidence: vec![message.clone()],
            message,
            termination_message: String::new(),
            end_time: Some(self.clock.now()),
            proof_of_death: true,
        });
        self.observe(sight);
    }

    fn stop_command(&mut self, stop: &dispatch::Stop) {
        let Some(attempt) = convert::attempt_id(stop.attempt.as_ref()) else {
            tracing::error!("stop without a valid attempt");
            return;
        };
        let grace = stop.grace.map(|grace| {
            let whole = duration(grace).map_or(0, |grace| grace.as_secs_f64().ceil() as u64);
            i64::try_from(whole).unwrap_or(i64::MAX)
        });
        self.stop_attempt(attempt, stop.into(), stop.grant, grace);
    }

    fn probe_command(&mut self, probe: &dispatch::Probe) {
        let Some(attempt) = convert::attempt_id(probe.attempt.as_ref()) else {
            tracing::error!("probe without a valid attempt");
            return;
        };
        self.probe(attempt, probe.into(), probe.grant);
    }

    fn run_finished(&mut self, finished: &dispatch::FinishedRun) {
        let Some(run) = RunId::from_slice(&finished.run_id) else {
            tracing::error!("finished run without a valid id");
            return;
        };
        self.drop_parked(|attempt| attempt.run == run);
        self.runs.remove(&run);
        self.sweeps.finished(run, &finished.namespace);
    }
}

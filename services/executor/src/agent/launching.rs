//! Owner objects and creates.

use std::sync::Arc;

use tokio::time::Instant;
use windlass_ids::{AttemptId, RunId};
use windlass_manifest::{Run, owner, owner_name};

use super::launcher::Queued;
use super::post::{Outcome, Post};
use super::searching::Place;
use super::{Agent, Event};
use crate::attempts::Phase;
use crate::attempts::fleet::Change;
use crate::attempts::wire::SlimPod;
use crate::config::NamespacePolicy;
use crate::kubernetes::refusal::{Verdict, judge};
use crate::kubernetes::{Api, ApiError};

/// A run whose launches are taken.
#[derive(Debug)]
pub(super) struct RunEntry {
    pub(super) run: Arc<Run>,
    pub(super) owner: Owner,
    /// Launches that wait for the owner object.
    pub(super) parked: Vec<Queued>,
}

/// The object that owns the pods of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Missing,
    BeingMade,
    Made(String),
}

impl RunEntry {
    pub(super) fn new(run: Arc<Run>) -> Self {
        Self {
            run,
            owner: Owner::Missing,
            parked: Vec::new(),
        }
    }
}

impl Agent {
    /// Starts as many creates as there is room for.
    pub(super) fn launch(&mut self, now: Instant) {
        while let Some((namespace, launch)) = self.launcher.next(now) {
            self.launch_one(namespace, launch);
        }
    }

    fn launch_one(&mut self, namespace: String, launch: Queued) {
        let attempt = launch.attempt;
        let template = self.templates.get(&launch.template).cloned();
        let (Some(entry), Some(template)) = (self.runs.get_mut(&attempt.run), template) else {
            self.launcher.done(attempt);
            self.reject(
                &launch,
                "UnknownTemplate",
                "the scheduler did not describe the step".to_owned(),
            );
            return;
        };
        let owner = match &entry.owner {
            Owner::Made(uid) => uid.clone(),
            Owner::BeingMade => return entry.parked.push(launch),
            Owner::Missing => {
                entry.owner = Owner::BeingMade;
                entry.parked.push(launch);
                let run = entry.run.clone();
                return self.make_owner(run);
            }
        };
        let post = Post {
            api: self.api.clone(),
            lease: self.lease.clone(),
            settings: self.settings.manifest.clone(),
            run: entry.run.clone(),
            owner,
            template,
            launch,
            timeout: self.lease.bound(self.settings.create_timeout),
        };
        if let Some(fleet) = &mut self.fleet {
            fleet.expect(attempt, post.launch.grant);
        }
        let events = self.events.clone();
        self.spawn(async move {
            let outcome = post.run().await;
            let launch = post.launch;
            drop(
                events
                    .send(Event::Posted {
                        namespace,
                        launch,
                        outcome,
                    })
                    .await,
            );
        });
    }

    /// Drops launches that wait for their run's owner object.
    pub(super) fn drop_parked(&mut self, which: impl Fn(AttemptId) -> bool) {
        for entry in self.runs.values_mut() {
            for launch in entry.parked.extract_if(.., |launch| which(launch.attempt)) {
                self.launcher.done(launch.attempt);
            }
        }
    }

    /// Somebody deletes a pod: perhaps the garbage collector, because its owner is gone. The next create makes sure that there is one.
    pub(super) fn doubt_owner(&mut self, run: RunId) {
        if let Some(entry) = self.runs.get_mut(&run)
            && matches!(entry.owner, Owner::Made(_))
        {
            entry.owner = Owner::Missing;
        }
    }

    fn make_owner(&self, run: Arc<Run>) {
        let (api, events) = (self.api.clone(), self.events.clone());
        let policy = self.settings.namespace_policy;
        self.spawn(async move {
            let name = owner_name(&run.name, run.id);
            let manifest = owner(&run).map_err(|error| error.to_string());
            let body = manifest.and_then(|owner| serde_json::to_vec(&owner).map_err(|error| error.to_string()));
            let result = match body {
                Ok(body) => owner_in(&api, policy, &run, &name, body).await,
                Err(error) => Err(ApiError::Malformed(error)),
            };
            drop(events.send(Event::OwnerMade { run: run.id, result }).await);
        });
    }

    pub(super) fn owner_made(&mut self, run: RunId, result: Result<String, ApiError>) {
        let Some(entry) = self.runs.get_mut(&run) else { return };
        let parked = std::mem::take(&mut entry.parked);
        let namespace = entry.run.namespace.clone();
        match result {
            Ok(uid) => {
                entry.owner = Owner::Made(uid);
                // In flight while they waited; now they get their own turn, in order.
                for launch in parked.into_iter().rev() {
                    let in_flight = self.launcher.in_flight_mut(launch.attempt);
                    match in_flight.and_then(|in_flight| in_flight.stop) {
                        Some(grace) => {
                            self.launcher.done(launch.attempt);
                            self.search(namespace.clone(), &launch, grace);
                        }
                        None => self.launcher.put_back(launch, None),
                    }
                }
            }
            Err(error) => {
                entry.owner = Owner::Missing;
                let outcome = |error: &ApiError| match judge(error) {
                    Verdict::Wait(reason) => Outcome::Refused {
                        reason,
                        message: format!("the run's ConfigMap: {error}"),
                        retry_after: error.retry_after(),
                        // Of the pod nothing was sent.
                        is_open: false,
                    },
                    Verdict::Reject(reason) => Outcome::Rejected {
                        reason,
                        message: format!("the run's ConfigMap: {error}"),
                    },
                };
                for launch in parked {
                    self.posted(&namespace, launch, outcome(&error));
                }
            }
        }
    }

    pub(super) fn posted(&mut self, namespace: &str, mut launch: Queued, outcome: Outcome) {
        let mut stop = None;
        if let Some(in_flight) = self.launcher.in_flight_mut(launch.attempt) {
            stop = in_flight.stop;
            launch.grant = launch.grant.max(in_flight.grant);
            if in_flight.asked {
                launch.ask(in_flight.grant);
            }
        }
        if matches!(outcome, Outcome::Refused { is_open: true, .. }) {
            let until = Instant::now() + self.settings.api_timeout;
            self.late.unanswered(launch.attempt, until);
        }
        match outcome {
            Outcome::Exists(pod) => self.exists(&launch, &pod),
            Outcome::Rejected { reason, message } => {
                self.launcher.done(launch.attempt);
                tracing::warn!(attempt_id = %launch.attempt, reason, "launch rejected");
                self.reject(&launch, reason, message);
            }
            // A stop that came meanwhile: nothing is posted any more, and a read tells what is there.
            Outcome::Refused { .. } | Outcome::LeaseTooShort if stop.is_some() => {
                self.launcher.done(launch.attempt);
                return self.search(namespace.to_owned(), &launch, stop.flatten());
            }
            Outcome::LeaseTooShort => {
                let again = Instant::now() + std::time::Duration::from_millis(500);
                self.launcher.put_back(launch, Some(again));
                return;
            }
            Outcome::Refused {
                reason,
                message,
                retry_after,
                ..
            } => {
                return self.refused(launch, reason, message, retry_after);
            }
        }
        if let Some(grace) = stop {
            self.stop_attempt(launch.attempt, Place::default(), launch.grant, grace);
        }
    }

    fn refused(
        &mut self,
        mut launch: Queued,
        reason: &'static str,
        message: String,
        wait: Option<std::time::Duration>,
    ) {
        if launch.refused != Some(reason) {
            tracing::warn!(attempt_id = %launch.attempt, reason, %message, "launch refused for the time being");
            launch.refused = Some(reason);
            let sight = self.without_pod(&launch, Phase::Refused, reason, message);
            self.observe(sight);
        }
        let all = matches!(reason, "TooManyRequests" | "ApiUnavailable");
        self.launcher
            .refused(launch, wait, all, Instant::now(), &mut rand::rng());
        if self.draining.is_some() {
            self.launcher.retain(|_| false);
        }
    }

    fn exists(&mut self, launch: &Queued, pod: &[u8]) {
        let grant = launch.grant;
        let asked = self
            .launcher
            .done(launch.attempt)
            .is_some_and(|in_flight| in_flight.asked);
        let Some(fleet) = &mut self.fleet else { return };
        fleet.expect(launch.attempt, grant);
        match serde_json::from_slice::<SlimPod<'_>>(pod) {
            Ok(slim) => {
                if let Change::Report(sight) = fleet.saw(&slim, self.clock.now()) {
                    self.observe(*sight);
                }
                let uid = slim.metadata.uid.as_str().to_owned();
                self.tell_followers(&uid, &slim);
            }
            Err(error) => tracing::error!(attempt_id = %launch.attempt, %error, "created pod does not parse"),
        }
        // The watch may have told of it, up to its end, before the create's own answer came.
        if asked {
            self.report(self.fleet.as_ref().and_then(|fleet| fleet.current(launch.attempt)));
        }
    }
}

/// Makes the owner object of a run, and its namespace where that is not there and may be made (behaviours K6).
async fn owner_in(
    api: &Api,
    policy: NamespacePolicy,
    run: &Run,
    name: &str,
    body: Vec<u8>,
) -> Result<String, ApiError> {
    let made = api.ensure_owner(&run.namespace, name, body.clone()).await;
    let absent = made.as_ref().is_err_and(|error| error.code() == Some(404));
    if policy == NamespacePolicy::MustExist || !absent {
        return made;
    }
    api.ensure_namespace(&run.namespace, run.installation).await?;
    tracing::info!(namespace = run.namespace, run_id = %run.id, "namespace made");
    api.ensure_owner(&run.namespace, name, body).await
}

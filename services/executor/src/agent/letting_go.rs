//! Stops, releases, sweeps, and the finalizers of deleted pods when there is no scheduler.

use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use windlass_api::dispatch::v1 as dispatch;
use windlass_ids::{AttemptId, Timestamp};
use windlass_manifest::{Label, pod_name};
use windlass_service::{Backoff, BackoffSettings};

use super::launcher::Queued;
use super::searching::{Place, Search};
use super::sweeps::Sweep;
use super::{Agent, Event, Purpose};
use crate::attempts::fleet::{Change, PodKey};
use crate::attempts::wire::SlimPod;
use crate::attempts::{Phase, Sight};
use crate::connect::convert;
use crate::kubernetes::ApiError;
use crate::metrics;

const BACKOFF: BackoffSettings = BackoffSettings {
    initial: Duration::from_millis(200),
    factor: 2.0,
    max: Duration::from_secs(30),
};
const SWEEP_RETRY: Duration = Duration::from_secs(5);
/// Time between two looks for released pods that nobody has deleted.
const LEFTOVERS: Duration = Duration::from_secs(3600);

/// Repeats a call until it succeeds, as slowly as it must. What is wanted is a state, so that repeating is harmless.
///
/// `calls` bounds how many of them are under way; one that waits for its next try is not.
pub(super) async fn until_done<T, F>(what: &'static str, calls: &Semaphore, mut call: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, ApiError>>,
{
    let mut backoff = Backoff::new(BACKOFF);
    let mut random = StdRng::from_rng(&mut rand::rng());
    loop {
        // Never closed.
        let permit = calls.acquire().await.ok();
        let result = call().await;
        drop(permit);
        match result {
            Ok(value) => return value,
            Err(error) => {
                let delay = backoff.next_delay(&mut random);
                let delay = error.retry_after().map_or(delay, |least| least.max(delay));
                tracing::debug!(what, %error, retry_in = ?delay, "call is repeated");
                tokio::time::sleep(delay).await;
            }
        }
    }
}

impl Agent {
    /// Stops an attempt wherever it is: queued, in flight, or in the cluster.
    pub(super) fn stop_attempt(&mut self, attempt: AttemptId, place: Place, grant: u64, grace: Option<i64>) {
        if let Some((namespace, launch)) = self.launcher.remove(attempt) {
            return self.search(namespace, &launch, grace);
        }
        if let Some(in_flight) = self.launcher.in_flight_mut(attempt) {
            in_flight.stop = Some(grace);
            in_flight.ask(grant);
            return;
        }
        let key = self.fleet.as_ref().and_then(|fleet| fleet.key(attempt));
        match key {
            Some(key) if place.uid.is_empty() || *key.uid == *place.uid => self.stop_pod(key, grace),
            Some(_) => {}
            None => self.look_for(attempt, Search::new(grant, Purpose::Stop(grace), place)),
        }
    }

    /// Deletes a pod, unless nothing of it lives any more: then its log is what is left to be kept.
    fn stop_pod(&mut self, key: PodKey, grace: Option<i64>) {
        match &self.fleet {
            Some(fleet) if fleet.is_dead(key.attempt) => self.report(fleet.current(key.attempt)),
            _ => self.delete(key, grace),
        }
    }

    fn delete(&mut self, key: PodKey, grace: Option<i64>) {
        if self.stopping.get(&key.attempt) == Some(&grace) {
            return;
        }
        self.stopping.insert(key.attempt, grace);
        let (api, calls) = (self.api.clone(), self.calls.clone());
        self.spawn(async move {
            until_done("stop", &calls, || {
                api.delete_pod(&key.namespace, &key.name, &key.uid, grace)
            })
            .await;
        });
    }

    /// A launch that was not posted: an earlier incarnation may have posted it, so a quorum read tells.
    pub(super) fn search(&mut self, namespace: String, launch: &Queued, grace: Option<i64>) {
        let Some(entry) = self.runs.get(&launch.attempt.run) else {
            return;
        };
        let place = Place {
            namespace,
            name: pod_name(&entry.run.name, &launch.step_name, launch.attempt),
            uid: String::new(),
        };
        let search = Search::new(launch.grant, Purpose::Stop(grace), place);
        self.look_for(launch.attempt, search);
    }

    /// Looks at an attempt's pod and says what is there; of a create that is still under way its answer tells.
    pub(super) fn probe(&mut self, attempt: AttemptId, mut place: Place, grant: u64) {
        if let Some(in_flight) = self.launcher.in_flight_mut(attempt) {
            return in_flight.ask(grant);
        }
        if let Some(queued) = self.launcher.queued_mut(attempt) {
            return queued.ask(grant);
        }
        if let Some(key) = self.fleet.as_ref().and_then(|fleet| fleet.key(attempt)) {
            (place.namespace, place.name) = (key.namespace.to_string(), key.name.into());
        }
        self.look_for(attempt, Search::new(grant, Purpose::Probe, place));
    }

    /// Reads an attempt's pod, by its name where that is known.
    fn look_for(&mut self, attempt: AttemptId, search: Search) {
        let Some(installation) = self.installation else { return };
        let place = search.place.clone();
        if !self.searches.begin(attempt, search) {
            return;
        }
        // An attempt of which nothing is known: its labels find its pod.
        let selector = format!(
            "{}={installation},{}={},{}={},{}={}",
            Label::INSTALLATION,
            Label::RUN_ID,
            attempt.run,
            Label::STEP_INDEX,
            attempt.step,
            Label::ATTEMPT,
            attempt.number
        );
        let (api, events, calls) = (self.api.clone(), self.events.clone(), self.calls.clone());
        self.spawn(async move {
            let found = if place.name.is_empty() {
                until_done("find", &calls, || api.find_pod(&selector)).await
            } else {
                until_done("read", &calls, || api.get_pod(&place.namespace, &place.name)).await
            };
            drop(events.send(Event::Searched { attempt, found }).await);
        });
    }

    pub(super) fn searched(&mut self, attempt: AttemptId, found: Option<bytes::Bytes>) {
        let Some((search, fresh)) = self.searches.done(attempt) else {
            return;
        };
        if !fresh {
            return self.look_for(attempt, search);
        }
        let Search {
            grant, purpose, place, ..
        } = search;
        let Some(fleet) = &mut self.fleet else { return };
        let pod = found
            .as_deref()
            .and_then(|found| serde_json::from_slice::<SlimPod<'_>>(found).ok());
        // Whatever became of its labels, the uid tells whose it is.
        let is_it = |pod: &SlimPod<'_>| {
            let uid = pod.metadata.uid.as_str();
            fleet.attempt_of(pod) == Some(attempt) || !place.uid.is_empty() && place.uid == uid
        };
        let Some(pod) = pod.filter(is_it) else {
            return self.not_there(attempt, grant, purpose);
        };
        fleet.expect(attempt, grant);
        // Said also when it was said before: somebody asked.
        let sight = match fleet.saw_of(attempt, &pod, self.clock.now()) {
            Change::Report(sight) => Some(*sight),
            Change::None => fleet.current(attempt),
        };
        let key = fleet.key(attempt);
        self.report(sight);
        self.label_again(attempt, &pod);
        if let (Purpose::Stop(grace), Some(key)) = (purpose, key) {
            self.stop_pod(key, grace);
        }
    }

    fn not_there(&mut self, attempt: AttemptId, grant: u64, purpose: Purpose) {
        let key = self.fleet.as_ref().and_then(|fleet| fleet.key(attempt));
        if self.fleet.as_ref().is_some_and(|fleet| fleet.has_ended(attempt)) {
            // Its end is known and was reported: that says more.
            return self.gone(attempt);
        }
        if key.is_none() && self.late.defers(attempt, grant, purpose, Instant::now()) {
            return;
        }
        let mut sight = Sight::without_pod(attempt, grant, "", Phase::Absent);
        if let Some(key) = key {
            sight.pod_uid = key.uid.to_string();
            sight.pod_name = key.name.to_string();
        }
        let (reason, message) = match purpose {
            Purpose::Stop(_) => ("NotCreated", "stopped before its pod was created"),
            Purpose::Probe => ("NotFound", "a quorum read found no pod"),
        };
        reason.clone_into(&mut sight.reason);
        message.clone_into(&mut sight.message);
        self.observe(sight);
        self.gone(attempt);
    }

    /// Looks again for pods of creates that can no longer be carried out.
    pub(super) fn look_again(&mut self, now: Instant) {
        for (attempt, grant, purpose) in self.late.due(now) {
            self.look_for(attempt, Search::new(grant, purpose, Place::default()));
        }
    }

    /// Lets a pod go: its end is stored and its log is kept.
    pub(super) fn release(&mut self, mut release: dispatch::Release) {
        let Some(attempt) = convert::attempt_id(release.attempt.as_ref()) else {
            tracing::error!("release without a valid attempt");
            return;
        };
        // Of a run that was deleted only the pod itself knows where it is.
        if release.namespace.is_empty() {
            let Some(key) = self.fleet.as_ref().and_then(|fleet| fleet.key(attempt)) else {
                return;
            };
            release.namespace = key.namespace.to_string();
            release.pod_name = key.name.into();
        }
        if let Some(fleet) = &mut self.fleet {
            if fleet.is_asked_to_go(attempt) || fleet.was_let_go(&release.pod_uid) {
                return;
            }
            fleet.releasing(attempt);
        }
        self.stopping.remove(&attempt);
        self.sweeps.releasing(attempt.run);
        let (api, events, calls) = (self.api.clone(), self.events.clone(), self.calls.clone());
        self.spawn(async move {
            let dispatch::Release {
                namespace,
                pod_name,
                pod_uid,
                ..
            } = release;
            let version = until_done("release", &calls, || api.release_pod(&namespace, &pod_name, &pod_uid)).await;
            let released = Event::Released {
                attempt,
                namespace,
                uid: pod_uid,
                version,
            };
            drop(events.send(released).await);
        });
    }

    pub(super) fn released(&mut self, attempt: AttemptId, namespace: &str, uid: &str, version: Option<u64>) {
        self.sweeps.released(attempt.run, namespace, Instant::now());
        let Some(fleet) = &mut self.fleet else { return };
        let key = fleet.key(attempt);
        fleet.released(attempt, uid, version);
        if let Some(key) = key {
            self.tell_gone(&key.uid);
        }
        self.stuck.remove(attempt);
    }

    /// Forgets a pod, and says so to those who follow it.
    pub(super) fn gone(&mut self, attempt: AttemptId) {
        let Some(fleet) = &mut self.fleet else { return };
        let key = fleet.key(attempt);
        fleet.forget(attempt);
        if let Some(key) = key {
            self.tell_gone(&key.uid);
        }
        self.stopping.remove(&attempt);
        self.stuck.remove(attempt);
    }

    /// Starts the sweeps that are due.
    pub(super) fn sweep(&mut self, now: Instant) {
        if self.sweep_retry.is_some_and(|retry| now < retry) {
            return;
        }
        self.sweep_retry = None;
        let Some(installation) = self.installation else { return };
        while let Some(sweep) = self.sweeps.next(now) {
            let (api, events) = (self.api.clone(), self.events.clone());
            self.spawn(async move {
                let result = async {
                    if sweep.pods > 0 {
                        api.sweep_pods(&sweep.namespace, installation).await?;
                    }
                    if !sweep.runs.is_empty() {
                        // Last: an owner that goes first takes pods with it that nobody has looked at.
                        api.delete_owners(&sweep.namespace, installation, &sweep.runs).await?;
                    }
                    Ok::<(), ApiError>(())
                };
                let result = result.await;
                if let Err(error) = &result {
                    tracing::warn!(namespace = %sweep.namespace, %error, "sweep is repeated");
                }
                drop(
                    events
                        .send(Event::Swept {
                            sweep,
                            succeeded: result.is_ok(),
                        })
                        .await,
                );
            });
        }
    }

    /// Once after a start, and then rarely, asks for released pods: who let them go may have died before their sweep (I6).
    pub(super) fn look_for_leftovers(&mut self, now: Instant) {
        let Some(installation) = self.installation else { return };
        if self.next_leftovers.is_some_and(|next| now < next) {
            return;
        }
        self.next_leftovers = Some(now + LEFTOVERS);
        let (api, events, calls) = (self.api.clone(), self.events.clone(), self.calls.clone());
        self.spawn(async move {
            let found = until_done("leftovers", &calls, || api.released_pods(installation)).await;
            drop(events.send(Event::Leftovers(found)).await);
        });
    }

    pub(super) fn swept(&mut self, sweep: Sweep, succeeded: bool) {
        let now = Instant::now();
        if !succeeded {
            self.sweep_retry = Some(now + SWEEP_RETRY);
        }
        self.sweeps.swept(sweep, succeeded, now);
    }

    /// A deleted pod must not stay for ever because nobody can store its end (I4).
    pub(super) fn strip_finalizers(&mut self, now: Instant) {
        if self.connected || now < self.disconnected_since + self.settings.strip_after {
            return;
        }
        self.watch_without_session();
        let Some(fleet) = &mut self.fleet else { return };
        // Another executor may hear a scheduler: what it can let go is gone by then.
        let bound = i64::try_from(self.settings.strip_after.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp::from_millis(self.clock.now().as_millis().saturating_sub(bound));
        for key in fleet.terminating_since(before) {
            if fleet.is_releasing(key.attempt) {
                continue;
            }
            fleet.releasing(key.attempt);
            let (api, events, calls) = (self.api.clone(), self.events.clone(), self.calls.clone());
            self.tasks.spawn(async move {
                until_done("strip", &calls, || {
                    api.strip_finalizer(&key.namespace, &key.name, &key.uid)
                })
                .await;
                drop(events.send(Event::Stripped(key)).await);
            });
        }
    }

    /// The outbox still holds what was seen of the attempt; only if this process ends first is it lost.
    pub(super) fn stripped(&mut self, key: &PodKey) {
        ::metrics::counter!(metrics::STRIPPED).increment(1);
        tracing::warn!(attempt_id = %key.attempt, pod = %key.name, "finalizer removed without a scheduler; evidence may be lost");
        let known = self.fleet.as_ref().is_some_and(|fleet| fleet.has_ended(key.attempt));
        if !known {
            let mut sight = Sight::without_pod(key.attempt, 0, &key.name, Phase::Absent);
            sight.pod_uid = key.uid.to_string();
            "EvidenceLost".clone_into(&mut sight.reason);
            // Nothing was seen to end, so this proves nothing.
            "the pod was deleted while no scheduler was in reach".clone_into(&mut sight.message);
            self.observe(sight);
        }
        self.gone(key.attempt);
    }
}

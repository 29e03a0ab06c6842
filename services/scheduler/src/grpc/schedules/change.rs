//! CreateSchedule, UpdateSchedule, PauseSchedule, ResumeSchedule, DeleteSchedule.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message as _;
use rand::Rng as _;
use tokio::sync::oneshot;
use windlass_api::convert::pipeline_to_proto;
use windlass_api::journal::v1::ScheduledPipeline;
use windlass_api::pipeline::v1::Pipeline as WirePipeline;
use windlass_api::schedule::v1 as wire;
use windlass_ids::{Namespace, ScheduleId, Timestamp};

use super::mask::{Mask, merged};
use super::read::{Detail, resource_name};
use super::{Fresh, invalid};
use crate::admission::{self, Checked, Size, Wanted, name_fault};
use crate::driver::{Command, Reservation, ScheduleChange, ScheduleOrder, ScheduleRefusal};
use crate::errors::{FieldProblem, ScheduleError, SubmitError, Unavailable};
use crate::grpc::Api;
use crate::lookup;
use crate::run_secrets::Values;
use crate::schedules::{Calendar, Changed, MAX_SCHEDULES, settings_from_proto};
use crate::store::{
    DefinitionKind, Operation, PackedDefinition, RequestRecord, Schedule, ScheduleProgress, ScheduleSecret,
    ScheduleSettings, StoreError,
};

/// How often a change is tried anew because somebody else's came first.
const TRIES: usize = 5;

impl Api {
    pub(super) async fn create(
        &self,
        user: String,
        mut request: wire::CreateScheduleRequest,
    ) -> Result<wire::CreateScheduleResponse, ScheduleError> {
        let mut problems = Vec::new();
        if let Some(fault) = name_fault(&request.schedule) {
            problems.push(FieldProblem::new("schedule", "BAD_VALUE", fault));
        }
        let namespace = lookup::namespace(&request.namespace)?;
        let secrets = take_values(&mut request.secrets);
        problems.extend(admission::form_problems(&secrets));
        let (request, content) = self
            .content(request, |request| std::mem::take(&mut request.request_id))
            .await?;
        let (mut request, request_id) = request;
        let fresh = self
            .fresh_change(&namespace, &request_id, Operation::ChangeSchedule, &content)
            .await?;
        let (record, reservation) = match fresh {
            Fresh::New(record, reservation) => (record, reservation),
            Fresh::Known(_) => {
                let schedule = self.find(&namespace, &request.schedule)?;
                let schedule = Some(self.shown(&schedule, Detail::FULL).await?);
                return Ok(wire::CreateScheduleResponse {
                    schedule,
                    created: false,
                });
            }
        };
        let now = self.shared.clock.now();
        let settings = settings_from_proto(request.spec.as_ref(), now, None).map_err(|found| problems.extend(found));
        let parameters = std::mem::take(&mut request.parameters);
        let checked = self
            .checked(&namespace, request.pipeline.take(), parameters.clone())
            .await
            .map_err(|found| problems.extend(found));
        let (Ok(settings), Ok(mut checked), true) = (settings, checked, problems.is_empty()) else {
            return Err(ScheduleError::Invalid(problems));
        };
        self.room()?;
        let wanted = admission::wanted_secret(&self.shared, &mut checked, Some(&secrets), None).map_err(refused)?;
        // Before anything is made for it. That the name is free counts when it is taken.
        if self.find(&namespace, &request.schedule).is_ok() {
            return Err(ScheduleError::Exists {
                namespace,
                schedule: request.schedule,
            });
        }
        let pipeline = checked.resolved.name.clone();
        let definition = self.packed(checked, parameters).await?;
        let id = new_id(now);
        let secret = self
            .secret((&namespace, &request.schedule, id), wanted, &secrets)
            .await?;
        let schedule = Schedule {
            id,
            namespace: namespace.clone(),
            name: request.schedule,
            version: 1,
            generation: 1,
            created: now,
            created_by: user.clone(),
            updated: now,
            updated_by: user,
            pipeline,
            paused: request.paused,
            secret,
            progress: progress(&settings, now),
            settings,
        };
        let change = ScheduleChange::Create {
            schedule: Box::new(schedule.clone()),
            definition,
        };
        let made = self.hand_over(change, record, reservation).await?;
        let made = made.map_err(|refused| refusal(refused, &schedule))?;
        let schedule = Some(self.shown(&made, Detail::FULL).await?);
        Ok(wire::CreateScheduleResponse {
            schedule,
            created: true,
        })
    }

    pub(super) async fn update(
        &self,
        user: String,
        mut request: wire::UpdateScheduleRequest,
    ) -> Result<wire::Schedule, ScheduleError> {
        let mask = Mask::of(&request).map_err(ScheduleError::Invalid)?;
        let namespace = lookup::namespace(&request.namespace)?;
        let secrets = take_values(&mut request.secrets);
        let problems = admission::form_problems(&secrets);
        if !problems.is_empty() {
            return Err(ScheduleError::Invalid(problems));
        }
        let (request, content) = self
            .content(request, |request| std::mem::take(&mut request.request_id))
            .await?;
        let (request, request_id) = request;
        for _ in 0..TRIES {
            let fresh = self
                .fresh_change(&namespace, &request_id, Operation::ChangeSchedule, &content)
                .await?;
            let current = self.find(&namespace, &request.schedule)?;
            let Fresh::New(record, reservation) = fresh else {
                return self.shown(&current, Detail::FULL).await;
            };
            let change = self.update_of(&current, &user, (&request, &secrets), &mask).await?;
            match self.hand_over(change, record, reservation).await? {
                Ok(changed) => return self.shown(&changed, Detail::FULL).await,
                // The request id is free again, so that it is asked for anew.
                Err(Changed::Meanwhile) => {}
                Err(refused) => return Err(refusal(refused, &current)),
            }
        }
        Err(Unavailable::OutcomeUnknown.into())
    }

    /// What an update makes of a schedule.
    async fn update_of(
        &self,
        current: &Schedule,
        user: &str,
        (request, secrets): (&wire::UpdateScheduleRequest, &Values),
        mask: &Mask,
    ) -> Result<ScheduleChange, ScheduleError> {
        let mut problems = Vec::new();
        let now = self.shared.clock.now();
        let (mut settings, mut retimed) = (current.settings.clone(), false);
        if mask.spec() {
            let spec = merged(&current.settings, request.spec.as_ref(), mask);
            match settings_from_proto(Some(&spec), now, Some(&current.settings)) {
                Ok(asked) => {
                    retimed = is_retimed(&current.settings, &asked);
                    settings = asked;
                }
                Err(found) => problems.extend(found),
            }
        }
        let mut definition = None;
        let mut pipeline = current.pipeline.clone();
        let mut wanted = Wanted::Present(current.secret.clone());
        if mask.pipeline || mask.parameters || mask.secrets {
            let stored = self.stored_pipeline(current.id).await?;
            let new = if mask.pipeline {
                request.pipeline.clone()
            } else {
                stored.pipeline
            };
            let parameters = if mask.parameters {
                request.parameters.clone()
            } else {
                stored.parameters
            };
            match self.checked(&current.namespace, new, parameters.clone()).await {
                Ok(mut checked) => {
                    let given = mask.secrets.then_some(secrets);
                    match admission::wanted_secret(&self.shared, &mut checked, given, current.secret.as_ref()) {
                        Ok(found) => wanted = found,
                        Err(SubmitError::Invalid(found)) => problems.extend(found),
                        Err(error) => return Err(error.into()),
                    }
                    pipeline.clone_from(&checked.resolved.name);
                    if mask.pipeline || mask.parameters {
                        definition = Some(self.packed(checked, parameters).await?);
                    }
                }
                Err(found) => problems.extend(found),
            }
        }
        if !problems.is_empty() {
            return Err(ScheduleError::Invalid(problems));
        }
        self.room()?;
        let of = (&current.namespace, current.name.as_str(), current.id);
        let secret = self.secret(of, wanted, secrets).await?;
        let paused = if mask.paused { request.paused } else { current.paused };
        // What came due while it was paused is not caught up.
        retimed |= current.paused && !paused;
        let schedule = Schedule {
            generation: current.generation + 1,
            updated: now,
            updated_by: user.to_owned(),
            pipeline,
            paused,
            secret,
            progress: progress(&settings, now),
            settings,
            ..current.clone()
        };
        Ok(ScheduleChange::Update {
            schedule: Box::new(schedule),
            definition,
            retimed,
        })
    }

    pub(super) async fn set_paused(
        &self,
        user: String,
        namespace: &str,
        request_id: &str,
        name: &str,
        paused: bool,
    ) -> Result<wire::Schedule, ScheduleError> {
        let namespace = lookup::namespace(namespace)?;
        let content = format!("{}\n{name}", if paused { "pause" } else { "resume" });
        for _ in 0..TRIES {
            let fresh = self
                .fresh_change(&namespace, request_id, Operation::ChangeSchedule, content.as_bytes())
                .await?;
            let current = self.find(&namespace, name)?;
            let Fresh::New(record, reservation) = fresh else {
                return self.shown(&current, Detail::FULL).await;
            };
            let now = self.shared.clock.now();
            let schedule = Schedule {
                generation: current.generation + 1,
                updated: now,
                updated_by: user.clone(),
                paused,
                progress: progress(&current.settings, now),
                ..Schedule::clone(&current)
            };
            let change = ScheduleChange::Update {
                schedule: Box::new(schedule),
                definition: None,
                retimed: current.paused && !paused,
            };
            match self.hand_over(change, record, reservation).await? {
                Ok(changed) => return self.shown(&changed, Detail::FULL).await,
                Err(Changed::Meanwhile) => {}
                Err(refused) => return Err(refusal(refused, &current)),
            }
        }
        Err(Unavailable::OutcomeUnknown.into())
    }

    pub(super) async fn remove(
        &self,
        request: wire::DeleteScheduleRequest,
    ) -> Result<wire::DeleteScheduleResponse, ScheduleError> {
        let namespace = lookup::namespace(&request.namespace)?;
        let content = format!("delete\n{}", request.schedule);
        let fresh = self
            .fresh_change(
                &namespace,
                &request.request_id,
                Operation::ChangeSchedule,
                content.as_bytes(),
            )
            .await?;
        let deleted = wire::DeleteScheduleResponse {
            resource_name: resource_name(&namespace, &request.schedule),
        };
        let Fresh::New(record, reservation) = fresh else {
            return Ok(deleted);
        };
        let current = self.find(&namespace, &request.schedule)?;
        let change = ScheduleChange::Delete { id: current.id };
        match self.hand_over(change, record, reservation).await? {
            Ok(_) => Ok(deleted),
            // Somebody else was faster.
            Err(_) => Err(ScheduleError::Unknown {
                namespace,
                schedule: request.schedule,
            }),
        }
    }

    /// Hands a change to the driver and waits until it is durable.
    async fn hand_over(
        &self,
        change: ScheduleChange,
        request: Option<RequestRecord>,
        reservation: Option<Reservation>,
    ) -> Result<Result<Arc<Schedule>, Changed>, ScheduleError> {
        let (reply, answer) = oneshot::channel();
        let order = ScheduleOrder {
            change,
            request,
            reservation,
            reply,
        };
        self.shared.inbox.send(Command::Schedule(Box::new(order))).await?;
        match answer.await.map_err(|_| Unavailable::OutcomeUnknown)? {
            Ok(schedule) => Ok(Ok(schedule)),
            Err(ScheduleRefusal::Refused(refused)) => Ok(Err(refused)),
            Err(ScheduleRefusal::Unavailable(error)) => Err(error.into()),
        }
    }

    /// A request without its id, and the bytes of it, by which a repetition is known.
    async fn content<T: prost::Message + Clone + 'static>(
        &self,
        mut request: T,
        take_id: impl FnOnce(&mut T) -> String,
    ) -> Result<((T, String), Vec<u8>), ScheduleError> {
        let id = take_id(&mut request);
        let size = if request.encoded_len() > 64 * 1024 {
            Size::Large
        } else {
            Size::Small
        };
        let work = move || {
            let bytes = request.encode_to_vec();
            ((request, id), bytes)
        };
        let done = self.shared.lanes.run(size, work).await;
        done.map_err(|_| invalid("pipeline", "could not be read"))
    }

    /// Checks a pipeline as its runs will be.
    async fn checked(
        &self,
        namespace: &Namespace,
        pipeline: Option<WirePipeline>,
        parameters: BTreeMap<String, prost_types::Value>,
    ) -> Result<Checked, Vec<FieldProblem>> {
        admission::check(
            &self.shared.lanes,
            self.checker(),
            namespace.clone(),
            pipeline,
            parameters,
        )
        .await
    }

    /// The secrets that a schedule is to have; new ones are made.
    async fn secret(
        &self,
        of: (&Namespace, &str, ScheduleId),
        wanted: Wanted,
        given: &Values,
    ) -> Result<Option<ScheduleSecret>, ScheduleError> {
        match wanted {
            Wanted::Present(secret) => Ok(secret),
            Wanted::New(clusters) => Ok(Some(admission::make_secret(&self.shared, of, given, clusters).await?)),
        }
    }

    async fn packed(
        &self,
        checked: Checked,
        parameters: BTreeMap<String, prost_types::Value>,
    ) -> Result<PackedDefinition, ScheduleError> {
        let work = move || {
            let stored = ScheduledPipeline {
                pipeline: Some(pipeline_to_proto(&checked.pipeline)),
                parameters,
            };
            PackedDefinition::pack(DefinitionKind::Scheduled, stored.encode_to_vec())
        };
        let packed = self.shared.lanes.run(Size::Large, work).await;
        packed.map_err(|_| invalid("pipeline", "could not be stored"))
    }

    /// Whether the store has room for changes.
    fn room(&self) -> Result<(), ScheduleError> {
        self.shared.store()?.admit().map_err(|error| match error {
            StoreError::LowSpace { .. } | StoreError::Full { .. } => ScheduleError::StoreFull,
            _ => Unavailable::Recovering.into(),
        })
    }
}

/// Where fires begin to count.
fn progress(settings: &ScheduleSettings, now: Timestamp) -> ScheduleProgress {
    let next = Calendar::of(settings)
        .ok()
        .and_then(|calendar| calendar.next_after(now));
    ScheduleProgress::new(now, next)
}

/// Whether other times follow from it.
fn is_retimed(before: &ScheduleSettings, after: &ScheduleSettings) -> bool {
    (&before.timing, &before.time_zone, before.start, before.end)
        != (&after.timing, &after.time_zone, after.start, after.end)
}

fn refusal(refused: Changed, schedule: &Schedule) -> ScheduleError {
    let (namespace, name) = (schedule.namespace.clone(), schedule.name.clone());
    match refused {
        Changed::NameTaken => ScheduleError::Exists {
            namespace,
            schedule: name,
        },
        Changed::TooMany => ScheduleError::TooMany {
            namespace,
            most: MAX_SCHEDULES,
        },
        Changed::Meanwhile => ScheduleError::Unknown {
            namespace,
            schedule: name,
        },
        Changed::SecretGone => Unavailable::OutcomeUnknown.into(),
    }
}

/// What is wrong with secrets is wrong with the schedule.
fn refused(error: SubmitError) -> ScheduleError {
    match error {
        SubmitError::Invalid(problems) => ScheduleError::Invalid(problems),
        error => error.into(),
    }
}

/// The values of a request, of which the keys stay in it: nothing that follows from a value is stored, the hash of the request included (I8).
fn take_values(secrets: &mut BTreeMap<String, Vec<u8>>) -> Values {
    let taken = secrets.iter_mut();
    Values(taken.map(|(key, value)| (key.clone(), std::mem::take(value))).collect())
}

/// A version 7 UUID: milliseconds, then random bits.
fn new_id(now: Timestamp) -> ScheduleId {
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    let uuid = uuid::Builder::from_unix_timestamp_millis(millis, &rand::rng().random()).into_uuid();
    ScheduleId::from_bytes(*uuid.as_bytes())
}

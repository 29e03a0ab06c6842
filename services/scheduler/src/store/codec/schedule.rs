//! Schedules.

use std::time::Duration;

use prost::Message as _;
use windlass_api::journal::v1 as stored;
use windlass_api::journal::v1::stored_schedule::Timing as StoredTiming;
use windlass_ids::{ClusterAlias, ClusterUid, Namespace, RunId, RunName, ScheduleId, ScheduleSecretId, Timestamp};

use super::CodecError;
use super::change::code;
use crate::store::{
    CatchUp, FireOutcome, FireRecord, Overlap, Schedule, ScheduleProgress, ScheduleSecret, ScheduleSettings, Timing,
};

/// What has no column of its own.
pub(crate) fn encode_schedule(schedule: &Schedule) -> Vec<u8> {
    let (settings, progress) = (&schedule.settings, &schedule.progress);
    let (timing, anchor) = match &settings.timing {
        Timing::Cron(pattern) => (StoredTiming::Cron(pattern.clone()), 0),
        Timing::Interval { anchor, every } => (StoredTiming::Interval(to_millis(*every)), anchor.as_millis()),
        Timing::Once(time) => (StoredTiming::Once(time.as_millis()), 0),
    };
    stored::StoredSchedule {
        generation: schedule.generation,
        create_time: schedule.created.as_millis(),
        created_by: schedule.created_by.clone(),
        update_time: schedule.updated.as_millis(),
        updated_by: schedule.updated_by.clone(),
        pipeline: schedule.pipeline.clone(),
        paused: schedule.paused,
        timing: Some(timing),
        anchor,
        time_zone: settings.time_zone.clone(),
        start_time: settings.start.map(Timestamp::as_millis),
        end_time: settings.end.map(Timestamp::as_millis),
        overlap_code: (settings.overlap as u8).into(),
        start_deadline: to_millis(settings.start_deadline),
        catch_up_code: (settings.catch_up as u8).into(),
        catch_up_window: to_millis(settings.catch_up_window),
        labels: settings.labels.clone(),
        position: progress.position.as_millis(),
        next: progress.next.map(Timestamp::as_millis),
        fires: progress.fires.iter().map(encode_fire).collect(),
        started: progress.started,
        skipped: progress.skipped,
        secret: schedule.secret.as_ref().map(encode_secret),
    }
    .encode_to_vec()
}

fn encode_secret(secret: &ScheduleSecret) -> stored::ScheduleSecret {
    let clusters = secret.clusters.iter();
    stored::ScheduleSecret {
        id: secret.id.as_bytes().to_vec(),
        keys: secret.keys.iter().cloned().collect(),
        clusters: clusters.map(|(uid, alias)| (uid.0.clone(), alias.0.clone())).collect(),
    }
}

fn decode_secret(secret: stored::ScheduleSecret) -> Result<ScheduleSecret, CodecError> {
    let clusters = secret.clusters.into_iter();
    Ok(ScheduleSecret {
        id: ScheduleSecretId::from_slice(&secret.id).ok_or(CodecError::Missing("id of secrets"))?,
        keys: secret.keys.into_iter().collect(),
        clusters: clusters
            .map(|(uid, alias)| (ClusterUid(uid), ClusterAlias(alias)))
            .collect(),
    })
}

fn encode_fire(fire: &FireRecord) -> stored::StoredFire {
    let (run, run_name) = match &fire.run {
        Some((id, name)) => (id.as_bytes().to_vec(), name.0.clone()),
        None => (Vec::new(), String::new()),
    };
    stored::StoredFire {
        time: fire.time.as_millis(),
        last: fire.last.as_millis(),
        count: fire.count,
        outcome_code: (fire.outcome as u8).into(),
        run,
        run_name,
        message: fire.message.clone(),
        recorded: fire.recorded.as_millis(),
    }
}

/// A schedule from its row.
pub(crate) fn decode_schedule(
    id: ScheduleId,
    namespace: Namespace,
    name: String,
    version: u64,
    bytes: &[u8],
) -> Result<Schedule, CodecError> {
    let found = stored::StoredSchedule::decode(bytes)?;
    let time = Timestamp::from_millis;
    let timing = match found.timing.ok_or(CodecError::Missing("timing of a schedule"))? {
        StoredTiming::Cron(pattern) => Timing::Cron(pattern),
        StoredTiming::Interval(every) => Timing::Interval {
            anchor: time(found.anchor),
            every: from_millis(every),
        },
        StoredTiming::Once(once) => Timing::Once(time(once)),
    };
    let settings = ScheduleSettings {
        timing,
        time_zone: found.time_zone,
        start: found.start_time.map(time),
        end: found.end_time.map(time),
        overlap: code("Overlap", found.overlap_code, Overlap::from_code)?,
        start_deadline: from_millis(found.start_deadline),
        catch_up: code("CatchUp", found.catch_up_code, CatchUp::from_code)?,
        catch_up_window: from_millis(found.catch_up_window),
        labels: found.labels,
    };
    let fires: Result<_, _> = found.fires.into_iter().map(decode_fire).collect();
    Ok(Schedule {
        id,
        namespace,
        name,
        version,
        generation: found.generation,
        created: time(found.create_time),
        created_by: found.created_by,
        updated: time(found.update_time),
        updated_by: found.updated_by,
        pipeline: found.pipeline,
        paused: found.paused,
        secret: found.secret.map(decode_secret).transpose()?,
        settings,
        progress: ScheduleProgress {
            position: time(found.position),
            next: found.next.map(time),
            fires: fires?,
            started: found.started,
            skipped: found.skipped,
        },
    })
}

fn decode_fire(fire: stored::StoredFire) -> Result<FireRecord, CodecError> {
    let run = match fire.run.as_slice() {
        [] => None,
        bytes => {
            let id = RunId::from_slice(bytes).ok_or(CodecError::Missing("id of a run"))?;
            Some((id, RunName(fire.run_name)))
        }
    };
    Ok(FireRecord {
        time: Timestamp::from_millis(fire.time),
        last: Timestamp::from_millis(fire.last),
        count: fire.count,
        outcome: code("FireOutcome", fire.outcome_code, FireOutcome::from_code)?,
        run,
        message: fire.message,
        recorded: Timestamp::from_millis(fire.recorded),
    })
}

fn to_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn from_millis(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

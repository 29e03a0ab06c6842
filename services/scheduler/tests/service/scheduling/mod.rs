//! ScheduleService over the wire: behaviours H1 to H5, F4, E5, E30, E38, X13, X17, U7; roadmap 24.

mod exporting;
mod firing;
mod managing;
mod references;
mod secrets;

use std::time::Duration;

use prost_types::FieldMask;
use windlass_api::convert::timestamp_from_proto;
use windlass_api::run::v1 as run;
use windlass_api::run::v1::RunState;
use windlass_api::schedule::v1 as wire;
use windlass_api::schedule::v1::schedule_service_client::ScheduleServiceClient;
use windlass_api::schedule::v1::schedule_spec::Timing;
use windlass_ids::Timestamp;
use windlass_scheduler::{Config, server};
use windlass_service::{AuthenticatedChannel, Clock};

use crate::support::{Scheduler, pipeline};

type Client = ScheduleServiceClient<AuthenticatedChannel>;

const MINUTE: i64 = 60_000;
/// A minute that begins: 2026-11-30T12:00:00Z.
const NOON: i64 = 1_796_040_000_000;

fn minute(number: i64) -> Timestamp {
    Timestamp::from_millis(NOON + number * MINUTE)
}

impl Scheduler {
    /// A scheduler whose day is as far as `now`.
    pub(crate) async fn start_at(config: Config, now: Timestamp) -> (Self, Clock) {
        let clock = Clock::starting_at(now);
        let (given, open) = (clock.clone(), server::opener(&config));
        let scheduler = Self::start_with(|listener, shutdown| async move {
            server::run_at(config, open, given, listener, shutdown).await
        })
        .await;
        (scheduler, clock)
    }

    fn schedules(&self) -> Client {
        ScheduleServiceClient::new(self.channel())
    }

    async fn schedule(&self, name: &str) -> wire::Schedule {
        let got = self.schedules().get_schedule(named(name)).await;
        got.expect("found").into_inner().schedule.expect("a schedule")
    }

    /// Runs of a schedule by when their fires were due, in minutes after noon, each with its state.
    async fn runs_of(&self, name: &str) -> Vec<(i64, RunState)> {
        let (mut found, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = run::ListRunsRequest {
                namespace: "ml".to_owned(),
                page_size: 500,
                page_token,
                filter: format!("schedule={name}"),
            };
            let page = self.runs().list_runs(request).await.expect("listed").into_inner();
            found.extend(page.runs.iter().map(|run| {
                assert_eq!(run.schedule, name);
                let due = run.scheduled_time.as_ref().map(timestamp_from_proto);
                (due.map_or(-1, |due| (due.as_millis() - NOON) / MINUTE), run.state())
            }));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                found.sort_by_key(|(due, _)| *due);
                return found;
            }
        }
    }

    /// The only run that a filter finds.
    async fn found(&self, filter: &str) -> run::Run {
        let request = run::ListRunsRequest {
            namespace: "ml".to_owned(),
            filter: filter.to_owned(),
            ..run::ListRunsRequest::default()
        };
        let page = self.runs().list_runs(request).await.expect("listed").into_inner();
        assert_eq!(page.runs.len(), 1, "{filter}");
        page.runs.into_iter().next().expect("a run")
    }

    /// The times of runs once so many were started, within two minutes.
    async fn times_of(&self, name: &str, count: usize) -> Vec<i64> {
        let started = async {
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            while self.schedule(name).await.started_count < count as u64 {
                tick.tick().await;
            }
        };
        let started = tokio::time::timeout(Duration::from_secs(120), started).await;
        started.unwrap_or_else(|_| panic!("waited too long for {count} runs of {name}"));
        let runs = self.runs_of(name).await;
        runs.into_iter().map(|(due, _)| due).collect()
    }
}

fn named(name: &str) -> wire::GetScheduleRequest {
    wire::GetScheduleRequest {
        namespace: "ml".to_owned(),
        schedule: name.to_owned(),
        next_count: 0,
    }
}

fn spec(cron: &str) -> wire::ScheduleSpec {
    wire::ScheduleSpec {
        timing: Some(Timing::Cron(cron.to_owned())),
        ..wire::ScheduleSpec::default()
    }
}

fn creation(name: &str, spec: wire::ScheduleSpec) -> wire::CreateScheduleRequest {
    wire::CreateScheduleRequest {
        namespace: "ml".to_owned(),
        request_id: format!("create-{name}"),
        schedule: name.to_owned(),
        spec: Some(spec),
        pipeline: Some(pipeline(&[("extract", &[])])),
        ..wire::CreateScheduleRequest::default()
    }
}

fn update(name: &str, paths: &[&str], spec: Option<wire::ScheduleSpec>) -> wire::UpdateScheduleRequest {
    wire::UpdateScheduleRequest {
        namespace: "ml".to_owned(),
        schedule: name.to_owned(),
        spec,
        update_mask: Some(FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        }),
        ..wire::UpdateScheduleRequest::default()
    }
}

fn trigger(name: &str, id: &str) -> wire::TriggerScheduleRequest {
    wire::TriggerScheduleRequest {
        namespace: "ml".to_owned(),
        request_id: id.to_owned(),
        schedule: name.to_owned(),
        obey_overlap_policy: false,
    }
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

/// Outcomes of fires, oldest first, each with how many fires it stands for.
fn outcomes(schedule: &wire::Schedule) -> Vec<(wire::FireOutcome, u64)> {
    schedule
        .fires
        .iter()
        .rev()
        .map(|fire| (fire.outcome(), fire.count))
        .collect()
}

//! ExportSchedule: a schedule as a CronJob.

use std::time::Duration;

use windlass_api::convert::std_duration_from_proto;
use windlass_api::schedule::v1 as wire;
use windlass_ids::Timestamp;
use windlass_manifest::{ClientSecret, Trigger, cron_job, cron_job_pattern};
use windlass_pipeline::is_dns_subdomain;

use super::read::state;
use crate::errors::{FieldProblem, ScheduleError, Unavailable};
use crate::grpc::Api;
use crate::lookup;
use crate::store::{CatchUp, Schedule, Timing};

const DEFAULT_HISTORY: u32 = 3;
const MAX_HISTORY: u32 = 1_000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const DEFAULT_TTL: Duration = DAY.saturating_mul(7);
const MAX_TTL: Duration = DAY.saturating_mul(366);
/// The controller of CronJobs looks every ten seconds: it may miss all Jobs with a shorter deadline.
const LEAST_DEADLINE: Duration = Duration::from_secs(10);
const MAX_IMAGE: usize = 1_024;

impl Api {
    pub(super) fn export(
        &self,
        request: &wire::ExportScheduleRequest,
    ) -> Result<wire::ExportScheduleResponse, ScheduleError> {
        let namespace = lookup::namespace(&request.namespace)?;
        let schedule = self.find(&namespace, &request.schedule)?;
        let problems = request_problems(request);
        if !problems.is_empty() {
            return Err(ScheduleError::InvalidExport(problems));
        }
        let installation = self.shared.partition()?.installation;
        let Expressed { pattern, deadline } =
            expressed(&schedule, self.shared.clock.now()).map_err(|problems| ScheduleError::NotExportable {
                schedule: schedule.name.clone(),
                problems,
            })?;
        let history = |given: Option<u32>| i32::try_from(given.unwrap_or(DEFAULT_HISTORY)).unwrap_or(i32::MAX);
        let trigger = Trigger {
            installation,
            namespace: namespace.0,
            schedule: schedule.name.clone(),
            schedule_id: schedule.id,
            pattern,
            time_zone: schedule.settings.time_zone.clone(),
            starting_deadline: deadline,
            suspend: request.suspend.unwrap_or(schedule.paused),
            wait: !request.detach,
            image: request.image.clone(),
            server: request.server.clone(),
            secret: (!request.secret.is_empty()).then(|| ClientSecret {
                name: request.secret.clone(),
                authority: request.secret_has_ca,
                certificate: request.secret_has_certificate,
            }),
            service_account: (!request.service_account.is_empty()).then(|| request.service_account.clone()),
            successful_history: history(request.successful_jobs_history_limit),
            failed_history: history(request.failed_jobs_history_limit),
            ttl: ttl(request).unwrap_or(DEFAULT_TTL),
        };
        let json = serde_json::to_string(&cron_job(&trigger)).map_err(|_| Unavailable::Recovering)?;
        Ok(wire::ExportScheduleResponse {
            cron_job_json: json,
            state: state(&schedule).into(),
        })
    }
}

/// The part of a schedule that a CronJob says otherwise.
struct Expressed {
    pattern: String,
    deadline: Duration,
}

/// What a CronJob makes of a schedule, or all that it cannot express.
fn expressed(schedule: &Schedule, now: Timestamp) -> Result<Expressed, Vec<FieldProblem>> {
    let settings = &schedule.settings;
    let mut problems = Vec::new();
    let mut cannot = |field: &str, message: String| {
        problems.push(FieldProblem::new(format!("spec.{field}"), "NOT_EXPORTABLE", message));
    };
    let pattern = match &settings.timing {
        Timing::Cron(pattern) => cron_job_pattern(pattern).map_err(|error| cannot("cron", error)).ok(),
        Timing::Interval { .. } => {
            let message =
                "a CronJob has no intervals; give the schedule a cron pattern, such as `0 */6 * * *` for every 6h";
            cannot("interval", message.to_owned());
            None
        }
        Timing::Once(_) => {
            let message = "a CronJob does not run once; let the schedule fire by itself, or give it a cron pattern";
            cannot("runOnceTime", message.to_owned());
            None
        }
    };
    if settings.start.is_some_and(|start| start > now) {
        cannot(
            "startTime",
            "a CronJob has no start: take it back, or export when it has come".to_owned(),
        );
    }
    if settings.end.is_some() {
        cannot(
            "endTime",
            "a CronJob has no end: take it back, and delete the CronJob then".to_owned(),
        );
    }
    // A CronJob starts the newest of the Jobs that it has missed within its deadline.
    let (field, deadline) = match settings.catch_up {
        CatchUp::None => ("startDeadline", settings.start_deadline),
        CatchUp::Last => ("catchUpWindow", settings.catch_up_window),
        CatchUp::All => {
            let message = "a CronJob catches up the newest missed time alone; set LAST or NONE";
            cannot("catchUp", message.to_owned());
            ("startDeadline", LEAST_DEADLINE)
        }
    };
    if deadline < LEAST_DEADLINE {
        cannot(
            field,
            "must be at least 10s: the controller of CronJobs looks every ten seconds".to_owned(),
        );
    }
    match pattern {
        Some(pattern) if problems.is_empty() => Ok(Expressed { pattern, deadline }),
        _ => Err(problems),
    }
}

fn request_problems(request: &wire::ExportScheduleRequest) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    let mut wrong = |field: &str, message: &str| problems.push(FieldProblem::new(field, "BAD_VALUE", message));
    let image = &request.image;
    if image.is_empty() || image.len() > MAX_IMAGE || image.chars().any(|character| !character.is_ascii_graphic()) {
        wrong(
            "image",
            "must name an image that has `windlass`, such as ghcr.io/acme/windlass:1.2",
        );
    }
    let is_tls = request.server.starts_with("https://");
    if !is_address(&request.server) {
        let message =
            "must be the scheduler's address as pods reach it, such as https://windlass-scheduler.windlass.svc:7600";
        wrong("server", message);
    }
    for (field, name) in [
        ("secret", &request.secret),
        ("serviceAccount", &request.service_account),
    ] {
        if !name.is_empty() && !is_dns_subdomain(name) {
            wrong(
                field,
                "must be a Kubernetes name: lower-case letters, digits, dashes and dots",
            );
        }
    }
    for (field, set) in [
        ("secretHasCa", request.secret_has_ca),
        ("secretHasCertificate", request.secret_has_certificate),
    ] {
        if set && request.secret.is_empty() {
            wrong(field, "needs the name of the Secret");
        } else if set && !is_tls {
            wrong(field, "means nothing without https:// in the server's address");
        }
    }
    for (field, limit) in [
        ("successfulJobsHistoryLimit", request.successful_jobs_history_limit),
        ("failedJobsHistoryLimit", request.failed_jobs_history_limit),
    ] {
        if limit.is_some_and(|limit| limit > MAX_HISTORY) {
            wrong(field, "must be at most 1000");
        }
    }
    if request.ttl_after_finished.is_some() && ttl(request).is_none() {
        wrong("ttlAfterFinished", "must be from 0s to 366 days, in whole seconds");
    }
    problems
}

fn ttl(request: &wire::ExportScheduleRequest) -> Option<Duration> {
    let given = std_duration_from_proto(request.ttl_after_finished.as_ref()?)?;
    (given <= MAX_TTL && given.subsec_nanos() == 0).then_some(given)
}

/// Whether it is `http://` or `https://` with a host, an optional port, and nothing else.
fn is_address(text: &str) -> bool {
    let Some((_, rest)) = text
        .split_once("://")
        .filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
    else {
        return false;
    };
    let rest = rest.trim_end_matches('/');
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().is_ok_and(|port| port > 0)),
        _ => (rest, true),
    };
    let is_host =
        |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | ':' | '[' | ']');
    port && !host.is_empty() && host.len() <= 253 && host.chars().all(is_host)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schedules::{Calendar, testing};

    fn upcoming(pattern: &str) -> Vec<Timestamp> {
        let settings = testing::settings(Timing::Cron(pattern.to_owned()));
        let calendar = Calendar::of(&settings).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        calendar.upcoming(Timestamp::from_millis(1_796_040_000_000), 40)
    }

    proptest! {
        /// behaviours F4: what a CronJob is given means the same times.
        #[test]
        fn f4_a_translated_pattern_has_the_times_of_the_one_that_was_given(
            hour in "\\*/[1-9]|[0-9]-1[0-9](/[1-4])?|\\*",
            day in "\\*|\\?|\\*/[1-9]|1,15|[1-9]-2[0-9]/[1-5]",
            month in "\\*|JAN-jun|[1-4],1[0-2]|\\*/2",
            week in "\\*|\\?|[0-7]|[0-3]-[4-7](/[1-3])?|\\*/[1-7]|(MON|tue)-(sat|SUN)|7,1|SUN",
        ) {
            let given = format!("0 {hour} {day} {month} {week}");
            let translated = cron_job_pattern(&given).expect("no modifiers");
            prop_assert_eq!(upcoming(&translated), upcoming(&given), "{} is {}", given, translated);
        }
    }

    #[test]
    fn an_address_is_a_scheme_with_a_host_and_a_port() {
        for right in [
            "http://a",
            "https://windlass-scheduler.windlass.svc:7600",
            "https://[::1]:7600/",
            "http://[::1]",
        ] {
            assert!(is_address(right), "{right}");
        }
        for wrong in [
            "",
            "a:7600",
            "ftp://a",
            "https://",
            "https://a:0",
            "https://a:x",
            "https://a/b",
            "https://u@a",
        ] {
            assert!(!is_address(wrong), "{wrong}");
        }
    }
}

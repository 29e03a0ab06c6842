//! Schedules for people.

use jiff::tz::TimeZone;
use windlass_api::convert::std_duration_from_proto;
use windlass_api::run::v1::RunState;
use windlass_api::schedule::v1 as wire;
use windlass_api::schedule::v1::schedule_spec::Timing;
use windlass_ids::Timestamp;

use crate::commands::get::field_lines;
use crate::output::{Table, age, millis};
use crate::progress::model::run_state_name;

/// One line about what was done, with what comes next.
pub(super) fn line(schedule: &wire::Schedule, did: &str) -> String {
    let next = match schedule.next_times.first() {
        Some(next) => format!(", next at {}", time(schedule, *next)),
        None if schedule.state() == wire::ScheduleState::Ended => ", nothing is left to fire".to_owned(),
        None => String::new(),
    };
    let did = match schedule.state() {
        wire::ScheduleState::Paused if did != "is paused" => format!("{did}, and is paused"),
        _ => did.to_owned(),
    };
    format!("schedule {} {did}{next}", schedule.name)
}

/// A table of schedules.
pub(super) fn table(schedules: &[wire::Schedule], namespaces: bool) -> String {
    let mut header = vec!["SCHEDULE", "WHEN", "STATE", "NEXT", "LAST FIRE", "PIPELINE", "BY"];
    if namespaces {
        header.insert(0, "NAMESPACE");
    }
    let mut table = Table::new(&header);
    for schedule in schedules {
        let next = schedule.next_times.first().map(|next| time(schedule, *next));
        let last = schedule.fires.first().map(outcome);
        let mut row = vec![
            schedule.name.clone(),
            when(schedule),
            state(schedule).to_owned(),
            next.unwrap_or_else(|| "-".to_owned()),
            last.unwrap_or_else(|| "-".to_owned()),
            schedule.pipeline.clone(),
            schedule.updated_by.clone(),
        ];
        if namespaces {
            row.insert(0, schedule.namespace.clone());
        }
        table.row(row);
    }
    table.render()
}

/// Everything about a schedule.
pub(super) fn all(schedule: &wire::Schedule, now: Timestamp) -> String {
    let spec = schedule.spec.clone().unwrap_or_default();
    let shown = |given: Option<prost_types::Timestamp>| given.map(|given| time(schedule, given));
    let labels = spec.labels.iter().map(|(key, value)| format!("{key}={value}"));
    let counts = format!("{} started, {} skipped", schedule.started_count, schedule.skipped_count);
    let next: Vec<_> = schedule.next_times.iter().map(|next| time(schedule, *next)).collect();
    let fields = [
        ("schedule", Some(schedule.name.clone())),
        ("namespace", Some(schedule.namespace.clone())),
        ("pipeline", Some(schedule.pipeline.clone())),
        ("state", Some(state(schedule).to_owned())),
        ("when", Some(when(schedule))),
        ("not before", shown(spec.start_time)),
        ("not after", shown(spec.end_time)),
        ("overlap", Some(word(spec.overlap_policy().as_str_name()))),
        ("late after", duration(spec.start_deadline)),
        ("catch up", Some(catch_up(&spec))),
        ("secrets", Some(schedule.secret_keys.join(" "))),
        ("labels", Some(labels.collect::<Vec<_>>().join(" "))),
        ("by", Some(schedule.updated_by.clone())),
        ("fires", Some(counts)),
        ("running", Some(schedule.active_runs.join(" "))),
        ("next", Some(next.join("\n"))),
    ];
    let mut text = field_lines(fields);
    if schedule.fires.is_empty() {
        return text.trim_end().to_owned();
    }
    text.push('\n');
    let mut table = Table::new(&["DUE", "FIRES", "OUTCOME", "RUN", "AGE", "WHY"]);
    for fire in &schedule.fires {
        let due = fire.scheduled_time.map(|due| time(schedule, due)).unwrap_or_default();
        let dealt = fire.time.map_or(now, millis);
        table.row([
            due,
            fire.count.to_string(),
            outcome(fire),
            fire.run.clone(),
            age(now.since(dealt)),
            fire.message.replace('\n', " "),
        ]);
    }
    text.push_str(&table.render());
    text
}

/// `30 2 * * * Europe/Berlin`, `every 6h`, `once 2026-12-24T18:00:00Z`.
fn when(schedule: &wire::Schedule) -> String {
    let spec = schedule.spec.clone().unwrap_or_default();
    match spec.timing {
        Some(Timing::Cron(pattern)) => format!("{pattern} {}", spec.time_zone),
        Some(Timing::Interval(every)) => format!("every {}", duration(Some(every)).unwrap_or_default()),
        Some(Timing::RunOnceTime(at)) => format!("once {}", time(schedule, at)),
        None => String::new(),
    }
}

fn state(schedule: &wire::Schedule) -> &'static str {
    match schedule.state() {
        wire::ScheduleState::Unspecified => "UNKNOWN",
        wire::ScheduleState::Active => "ACTIVE",
        wire::ScheduleState::Paused => "PAUSED",
        wire::ScheduleState::Ended => "ENDED",
    }
}

/// What became of a fire: the state of its run, or why it has none.
fn outcome(fire: &wire::Fire) -> String {
    let run = match fire.run_state() {
        RunState::Unspecified => String::new(),
        state => format!(" {}", run_state_name(state)),
    };
    format!("{}{run}", word(fire.outcome().as_str_name()))
}

fn catch_up(spec: &wire::ScheduleSpec) -> String {
    let policy = word(spec.catch_up().as_str_name());
    match duration(spec.catch_up_window) {
        Some(window) => format!("{policy} within {window}"),
        None => policy,
    }
}

fn duration(given: Option<prost_types::Duration>) -> Option<String> {
    let duration = std_duration_from_proto(&given?)?;
    Some(humantime::format_duration(duration).to_string())
}

/// The last word of an enum's value, in small letters: `skip` of OVERLAP_POLICY_SKIP.
fn word(name: &str) -> String {
    name.rsplit('_').next().unwrap_or_default().to_lowercase()
}

/// A time as clocks in the schedule's time zone show it.
fn time(schedule: &wire::Schedule, given: prost_types::Timestamp) -> String {
    let zone = schedule.spec.as_ref().map_or("", |spec| spec.time_zone.as_str());
    let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
    let instant = jiff::Timestamp::from_millisecond(millis(given).as_millis()).unwrap_or_default();
    let zoned = instant.to_zoned(zone);
    if zoned.offset() == jiff::tz::Offset::UTC {
        zoned.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    } else {
        zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }
}

//! What a person sets, from its message and back. Whatever cannot be right is refused with the path of the field.

use std::time::Duration;

use windlass_api::convert::{duration_to_proto, std_duration_from_proto, timestamp_from_proto, timestamp_to_proto};
use windlass_api::schedule::v1 as wire;
use windlass_api::schedule::v1::schedule_spec::Timing as WireTiming;
use windlass_ids::Timestamp;

use super::calendar::{Calendar, CalendarError, check_pattern, zone};
use crate::admission::{SCHEDULE_LABEL, label_problems};
use crate::errors::FieldProblem;
use crate::store::{CatchUp, Overlap, ScheduleSettings, Timing};

const DEFAULT_DEADLINE: Duration = Duration::from_secs(5 * 60);
const DEFAULT_WINDOW: Duration = Duration::from_secs(60 * 60);
const SECOND: Duration = Duration::from_secs(1);
const MONTH: Duration = Duration::from_secs(31 * 24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Problems that are being collected.
struct Problems(Vec<FieldProblem>);

impl Problems {
    fn add(&mut self, field: &str, code: &str, message: impl Into<String>) {
        self.0.push(FieldProblem::new(format!("spec.{field}"), code, message));
    }

    /// A duration in its bounds; nothing when it is not given or wrong.
    fn duration(
        &mut self,
        field: &str,
        given: Option<&prost_types::Duration>,
        (least, most): (Duration, Duration),
    ) -> Option<Duration> {
        let duration = std_duration_from_proto(given?);
        let fits =
            duration.filter(|duration| (least..=most).contains(duration) && duration.subsec_nanos() % 1_000_000 == 0);
        if fits.is_none() {
            let (least, most) = (in_words(least), in_words(most));
            self.add(
                field,
                "BAD_VALUE",
                format!("must be from {least} to {most}, in whole milliseconds"),
            );
        }
        fits
    }

    fn time(&mut self, field: &str, given: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
        let time = timestamp_from_proto(given?);
        // What calendars know: years 1 to 9999.
        let known = jiff::Timestamp::from_millisecond(time.as_millis());
        if known.is_err() || given.is_some_and(|given| !(0..1_000_000_000).contains(&given.nanos)) {
            self.add(field, "BAD_VALUE", "must be a time of the years 1 to 9999");
            return None;
        }
        Some(time)
    }
}

/// A bound, without months of thirty and a bit days.
fn in_words(duration: Duration) -> String {
    const DAY: u64 = 24 * 60 * 60;
    match duration.as_secs() {
        seconds if seconds > 0 && seconds % DAY == 0 => format!("{} days", seconds / DAY),
        _ => humantime::format_duration(duration).to_string(),
    }
}

/// Reads settings. `now` is when an interval without a start begins, and after which there has to be a fire; `anchor` is what an interval was
/// counted from before.
///
/// # Errors
/// Every problem that was found.
pub(crate) fn settings_from_proto(
    spec: Option<&wire::ScheduleSpec>,
    now: Timestamp,
    before: Option<&ScheduleSettings>,
) -> Result<ScheduleSettings, Vec<FieldProblem>> {
    let Some(spec) = spec else {
        return Err(vec![FieldProblem::new(
            "spec",
            "MISSING",
            "a timing is needed: cron, interval or runOnceTime",
        )]);
    };
    let mut problems = Problems(Vec::new());
    let start = problems.time("startTime", spec.start_time.as_ref());
    let end = problems.time("endTime", spec.end_time.as_ref());
    let timing = timing(spec, start, now, before, &mut problems);
    let time_zone = time_zone(spec, &mut problems);
    if let (Some(start), Some(end)) = (start, end)
        && end < start
    {
        problems.add("endTime", "BAD_VALUE", "must not be before startTime");
    }
    let settings = ScheduleSettings {
        time_zone: time_zone.unwrap_or_default(),
        start,
        end,
        overlap: overlap(spec, &mut problems),
        start_deadline: problems
            .duration("startDeadline", spec.start_deadline.as_ref(), (SECOND, MONTH))
            .unwrap_or(DEFAULT_DEADLINE),
        catch_up: catch_up(spec, &mut problems),
        catch_up_window: problems
            .duration("catchUpWindow", spec.catch_up_window.as_ref(), (SECOND, MONTH))
            .unwrap_or(DEFAULT_WINDOW),
        labels: spec.labels.clone(),
        timing: timing.clone().unwrap_or(Timing::Once(now)),
    };
    if settings.catch_up == CatchUp::None && spec.catch_up_window.is_some() {
        problems.add(
            "catchUpWindow",
            "BAD_VALUE",
            "means nothing with catchUp NONE; set LAST or ALL, or leave it out",
        );
    }
    problems.0.extend(label_problems("spec.labels", &spec.labels));
    if spec.labels.contains_key(SCHEDULE_LABEL) {
        problems.add(&format!("labels.{SCHEDULE_LABEL}"), "RESERVED", "is set by Windlass");
    }
    if timing.is_some() && problems.0.is_empty() {
        check_calendar(&settings, now, &mut problems);
    }
    if problems.0.is_empty() {
        Ok(settings)
    } else {
        Err(problems.0)
    }
}

fn timing(
    spec: &wire::ScheduleSpec,
    start: Option<Timestamp>,
    now: Timestamp,
    before: Option<&ScheduleSettings>,
    problems: &mut Problems,
) -> Option<Timing> {
    match &spec.timing {
        None => {
            problems.0.push(FieldProblem::new(
                "spec",
                "MISSING",
                "a timing is needed: cron, interval or runOnceTime",
            ));
            None
        }
        Some(WireTiming::Cron(pattern)) => {
            if let Err(error) = check_pattern(pattern) {
                problems.add("cron", "BAD_CRON", error.to_string());
                return None;
            }
            Some(Timing::Cron(pattern.trim().to_owned()))
        }
        Some(WireTiming::Interval(interval)) => {
            let every = problems.duration("interval", Some(interval), (SECOND, YEAR))?;
            // An interval that is not changed goes on in its steps.
            let same = before.and_then(|before| match before.timing {
                Timing::Interval { anchor, every: was } if was == every => Some(anchor),
                _ => None,
            });
            let anchor = start.or(same).unwrap_or(now);
            Some(Timing::Interval { anchor, every })
        }
        Some(WireTiming::RunOnceTime(time)) => problems.time("runOnceTime", Some(time)).map(Timing::Once),
    }
}

/// The zone by its proper name.
fn time_zone(spec: &wire::ScheduleSpec, problems: &mut Problems) -> Option<String> {
    let is_cron = matches!(spec.timing, Some(WireTiming::Cron(_)));
    if !is_cron && spec.timing.is_some() && !spec.time_zone.is_empty() {
        problems.add(
            "timeZone",
            "BAD_VALUE",
            "only a cron pattern is read in a time zone; leave it out",
        );
        return None;
    }
    let name = match spec.time_zone.as_str() {
        "" => "UTC",
        name => name,
    };
    match zone(name) {
        Ok(zone) => Some(zone.iana_name().unwrap_or(name).to_owned()),
        Err(error) => {
            problems.add("timeZone", "UNKNOWN_TIME_ZONE", error.to_string());
            None
        }
    }
}

fn overlap(spec: &wire::ScheduleSpec, problems: &mut Problems) -> Overlap {
    match wire::OverlapPolicy::try_from(spec.overlap_policy) {
        Ok(wire::OverlapPolicy::Allow) => Overlap::Allow,
        Ok(wire::OverlapPolicy::Unspecified | wire::OverlapPolicy::Skip) => Overlap::Skip,
        Ok(wire::OverlapPolicy::Replace) => Overlap::Replace,
        Err(_) => {
            problems.add("overlapPolicy", "BAD_VALUE", "must be ALLOW, SKIP or REPLACE");
            Overlap::Skip
        }
    }
}

fn catch_up(spec: &wire::ScheduleSpec, problems: &mut Problems) -> CatchUp {
    match wire::CatchUp::try_from(spec.catch_up) {
        Ok(wire::CatchUp::Unspecified | wire::CatchUp::None) => CatchUp::None,
        Ok(wire::CatchUp::Last) => CatchUp::Last,
        Ok(wire::CatchUp::All) => CatchUp::All,
        Err(_) => {
            problems.add("catchUp", "BAD_VALUE", "must be NONE, LAST or ALL");
            CatchUp::None
        }
    }
}

/// A schedule that would never fire is a mistake.
fn check_calendar(settings: &ScheduleSettings, now: Timestamp, problems: &mut Problems) {
    let calendar = match Calendar::of(settings) {
        Ok(calendar) => calendar,
        Err(error @ CalendarError::Pattern(_)) => return problems.add("cron", "BAD_CRON", error.to_string()),
        Err(error @ CalendarError::Zone { .. }) => {
            return problems.add("timeZone", "UNKNOWN_TIME_ZONE", error.to_string());
        }
    };
    if calendar.next_after(now).is_some() {
        return;
    }
    let (field, message) = match &settings.timing {
        Timing::Once(time) if *time <= now => ("runOnceTime", "has passed; give a time that is to come"),
        _ if settings.end.is_some_and(|end| end <= now) => ("endTime", "has passed; give a time that is to come"),
        Timing::Once(_) => ("runOnceTime", "does not lie between startTime and endTime"),
        Timing::Cron(_) if settings.end.is_none() => ("cron", "never fires: there is no such day"),
        Timing::Cron(_) | Timing::Interval { .. } => ("endTime", "leaves no fire: the first one would come after it"),
    };
    problems.add(field, "NEVER_FIRES", message);
}

/// Settings as a message.
pub(crate) fn settings_to_proto(settings: &ScheduleSettings) -> wire::ScheduleSpec {
    let (timing, is_cron) = match &settings.timing {
        Timing::Cron(pattern) => (WireTiming::Cron(pattern.clone()), true),
        Timing::Interval { every, .. } => (WireTiming::Interval(duration_to_proto(*every)), false),
        Timing::Once(time) => (WireTiming::RunOnceTime(timestamp_to_proto(*time)), false),
    };
    wire::ScheduleSpec {
        timing: Some(timing),
        time_zone: if is_cron {
            settings.time_zone.clone()
        } else {
            String::new()
        },
        start_time: settings.start.map(timestamp_to_proto),
        end_time: settings.end.map(timestamp_to_proto),
        overlap_policy: match settings.overlap {
            Overlap::Allow => wire::OverlapPolicy::Allow,
            Overlap::Skip => wire::OverlapPolicy::Skip,
            Overlap::Replace => wire::OverlapPolicy::Replace,
        }
        .into(),
        start_deadline: Some(duration_to_proto(settings.start_deadline)),
        catch_up: match settings.catch_up {
            CatchUp::None => wire::CatchUp::None,
            CatchUp::Last => wire::CatchUp::Last,
            CatchUp::All => wire::CatchUp::All,
        }
        .into(),
        catch_up_window: (settings.catch_up != CatchUp::None).then(|| duration_to_proto(settings.catch_up_window)),
        labels: settings.labels.clone(),
    }
}

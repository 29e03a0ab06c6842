//! When a schedule fires.
//!
//! Patterns are matched by `croner`; which instant a local time means is decided here, by the rule that the documents state: a *fixed*
//! pattern, whose minute and hour do not begin with `*`, fires once for each of its local times, right after the gap when clocks skip it,
//! and at the first of two instants when clocks repeat it. Any other pattern follows the clock on the wall.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use windlass_ids::Timestamp;

use crate::store::{ScheduleSettings, Timing};

/// Nicknames and what they stand for.
const NICKNAMES: [(&str, &str); 6] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * SUN"),
    ("@daily", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// The fields of a pattern, each with what is allowed in it.
const FIELDS: [(&str, &str); 5] = [
    ("minute", "0-59"),
    ("hour", "0-23"),
    (
        "day of month",
        "1-31, L for the last day, 15W for the weekday nearest to the 15th",
    ),
    ("month", "1-12 or JAN-DEC"),
    (
        "day of week",
        "0-7 or SUN-SAT, 5#2 for the second Friday, 5L for the last one",
    ),
];

/// Most bytes of a pattern.
const MAX_PATTERN: usize = 256;

/// Why a timing cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CalendarError {
    /// The pattern is none.
    #[error("{0}")]
    Pattern(String),
    /// There is no such time zone.
    #[error("unknown time zone {name:?}; give an IANA name such as {nearest}")]
    Zone {
        /// What was given.
        name: String,
        /// The nearest one that is known.
        nearest: String,
    },
}

/// The times of a schedule; see the module.
#[derive(Clone, Debug)]
pub(crate) struct Calendar {
    times: Times,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
}

#[derive(Clone, Debug)]
enum Times {
    /// Local times.
    Fixed {
        cron: Box<Cron>,
        zone: TimeZone,
    },
    /// What the clock on the wall shows.
    Wall {
        cron: Box<Cron>,
        zone: TimeZone,
    },
    Interval {
        anchor: i64,
        every: i64,
    },
    Once(Timestamp),
}

impl Calendar {
    /// The times that settings mean.
    ///
    /// # Errors
    /// When the pattern or the time zone is none.
    pub(crate) fn of(settings: &ScheduleSettings) -> Result<Self, CalendarError> {
        let times = match &settings.timing {
            Timing::Cron(pattern) => {
                let (cron, is_fixed) = parse(pattern)?;
                let (cron, zone) = (Box::new(cron), zone(&settings.time_zone)?);
                if is_fixed {
                    Times::Fixed { cron, zone }
                } else {
                    Times::Wall { cron, zone }
                }
            }
            Timing::Interval { anchor, every } => Times::Interval {
                anchor: anchor.as_millis(),
                every: i64::try_from(every.as_millis()).unwrap_or(i64::MAX).max(1),
            },
            Timing::Once(time) => Times::Once(*time),
        };
        Ok(Self {
            times,
            start: settings.start,
            end: settings.end,
        })
    }

    /// The first fire after `time`; none when there is none.
    pub(crate) fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        let before_start = self
            .start
            .map(|start| Timestamp::from_millis(start.as_millis().saturating_sub(1)));
        let after = before_start.map_or(time, |before| before.max(time));
        let next = match &self.times {
            Times::Fixed { cron, zone } => next_fixed(cron, zone, after),
            Times::Wall { cron, zone } => next_on_the_wall(cron, zone, after),
            Times::Interval { anchor, every } => next_of_interval(*anchor, *every, after),
            Times::Once(once) => Some(*once).filter(|once| *once > after),
        }?;
        (next > after && self.end.is_none_or(|end| next <= end)).then_some(next)
    }

    /// The least time between two fires, in milliseconds.
    pub(crate) fn least_gap(&self) -> i64 {
        match &self.times {
            Times::Fixed { .. } | Times::Wall { .. } => 60_000,
            Times::Interval { every, .. } => *every,
            Times::Once(_) => i64::MAX,
        }
    }

    /// The first fires after `time`, at most `count`.
    pub(crate) fn upcoming(&self, time: Timestamp, count: usize) -> Vec<Timestamp> {
        let times = std::iter::successors(self.next_after(time), |last| self.next_after(*last));
        times.take(count).collect()
    }
}

/// The time zone of a name.
///
/// # Errors
/// When there is none; the nearest name is in the error.
pub(crate) fn zone(name: &str) -> Result<TimeZone, CalendarError> {
    TimeZone::get(name).map_err(|_| {
        let known: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        let likeness = |known: &str| strsim::jaro_winkler(&known.to_lowercase(), &name.to_lowercase());
        let near = known.iter().map(|known| (likeness(known), known));
        let near = near.filter(|(likeness, _)| *likeness > 0.85);
        let nearest = near
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, name)| name.clone());
        CalendarError::Zone {
            name: name.chars().take(64).collect(),
            nearest: nearest.unwrap_or_else(|| "Europe/Berlin".to_owned()),
        }
    })
}

/// Looks at a pattern alone.
///
/// # Errors
/// When it is none.
pub(crate) fn check_pattern(pattern: &str) -> Result<(), CalendarError> {
    parse(pattern).map(drop)
}

/// A pattern, and whether it is fixed.
fn parse(pattern: &str) -> Result<(Cron, bool), CalendarError> {
    let wrong = |text: String| Err(CalendarError::Pattern(text));
    if pattern.len() > MAX_PATTERN {
        return wrong(format!("must have at most {MAX_PATTERN} characters"));
    }
    let pattern = pattern.trim();
    let known = NICKNAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(pattern));
    if pattern.starts_with('@') && known.is_none() {
        let names: Vec<_> = NICKNAMES.iter().map(|(name, _)| *name).collect();
        return wrong(format!(
            "{pattern:?} is unknown; known are {}; every so often is what `interval` is for",
            names.join(", ")
        ));
    }
    let pattern = known.map_or(pattern, |(_, fields)| fields);
    let fields: Vec<&str> = pattern.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let count = match fields.len() {
            1 => "1 field".to_owned(),
            count => format!("{count} fields"),
        };
        return wrong(format!(
            "has {count} instead of 5: minute, hour, day of month, month, day of week, such as `30 2 * * MON-FRI`"
        ));
    }
    for (index, field) in fields.iter().enumerate() {
        let mut alone = ["*"; 5];
        alone[index] = field;
        if five_fields(&alone.join(" ")).is_err() {
            let (name, allowed) = FIELDS[index];
            return wrong(format!(
                "field {} ({name}) is {field:?}; allowed are {allowed}, lists 1,2, ranges 1-5, steps */15, and *",
                index + 1
            ));
        }
    }
    match five_fields(pattern) {
        Ok(cron) => Ok((cron, !fields[0].starts_with('*') && !fields[1].starts_with('*'))),
        Err(error) => wrong(error.to_string()),
    }
}

fn five_fields(pattern: &str) -> Result<Cron, croner::errors::CronError> {
    let parser = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed);
    parser.build().parse(pattern)
}

fn instant(time: Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(time.as_millis()).ok()
}

fn timestamp(time: jiff::Timestamp) -> Timestamp {
    Timestamp::from_millis(time.as_millisecond())
}

/// Every local time of the pattern is one instant, and they come in the same order.
fn next_fixed(cron: &Cron, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let mut local: DateTime = zone.to_datetime(instant(after)?);
    loop {
        local = cron.find_next_occurrence(&local, false).ok()?;
        let ambiguous = zone.to_ambiguous_timestamp(local);
        let meant = match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => ambiguous.unambiguous().ok()?,
            AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok()?,
            // The earlier reading of a skipped time lies before the transition, by less than a day.
            AmbiguousOffset::Gap { .. } => {
                let before = ambiguous.earlier().ok()?;
                zone.following(before).next()?.timestamp()
            }
        };
        // In the second pass of a repeated hour, the times of the first one have gone by.
        if timestamp(meant) > after {
            return Some(timestamp(meant));
        }
    }
}

fn next_on_the_wall(cron: &Cron, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let from = instant(after)?.to_zoned(zone.clone());
    let next = cron.find_next_occurrence(&from, false).ok()?;
    // Patterns know no parts of seconds, but the time that was searched from may have some.
    let whole = next.timestamp().as_second();
    Some(Timestamp::from_millis(whole.saturating_mul(1_000)))
}

fn next_of_interval(anchor: i64, every: i64, after: Timestamp) -> Option<Timestamp> {
    let passed = after.as_millis().saturating_sub(anchor);
    let count = if passed < 0 { 0 } else { passed / every + 1 };
    let next = count.checked_mul(every)?.checked_add(anchor)?;
    Some(Timestamp::from_millis(next))
}

#[cfg(test)]
#[path = "calendar_tests.rs"]
mod tests;

//! Times of schedules: behaviours H1, H2, H3, F4, E38, U7; the rule about clocks that change, both ways.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::schedules::testing::settings;

const MINUTE: i64 = 60_000;

fn cron(pattern: &str, zone: &str) -> Calendar {
    let settings = ScheduleSettings {
        time_zone: zone.to_owned(),
        ..settings(Timing::Cron(pattern.to_owned()))
    };
    Calendar::of(&settings).expect("a calendar")
}

fn at(text: &str) -> Timestamp {
    timestamp(text.parse().expect("a time"))
}

/// The fires after a time, each with the local time and offset that a clock on the wall shows.
fn fires(pattern: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let local = TimeZone::get(zone).expect("a zone");
    let shown = |time: Timestamp| {
        let zoned = instant(time).expect("a time").to_zoned(local.clone());
        zoned.strftime("%m-%d %H:%M%:z").to_string()
    };
    cron(pattern, zone)
        .upcoming(at(after), count)
        .into_iter()
        .map(shown)
        .collect()
}

/// behaviours E38, U7
#[test]
fn a_fixed_time_in_the_skipped_hour_fires_right_after_it() {
    // 02:00 to 03:00 is skipped on 29 March 2026 in Berlin, and on 8 March 2026 in New York.
    let berlin = |pattern| fires(pattern, "Europe/Berlin", "2026-03-27T12:00:00Z", 3);
    assert_eq!(
        berlin("30 2 * * *"),
        ["03-28 02:30+01:00", "03-29 03:00+02:00", "03-30 02:30+02:00"]
    );
    assert_eq!(
        berlin("0 2 * * *"),
        ["03-28 02:00+01:00", "03-29 03:00+02:00", "03-30 02:00+02:00"]
    );
    // Several times in the gap fire once, and a time right after it is the same instant.
    let several = fires("0,30 2,3 29 3 *", "Europe/Berlin", "2026-03-28T12:00:00Z", 3);
    assert_eq!(several[..2], ["03-29 03:00+02:00", "03-29 03:30+02:00"]);
    let york = |pattern| fires(pattern, "America/New_York", "2026-03-07T12:00:00Z", 2);
    assert_eq!(york("15 2 * * *"), ["03-08 03:00-04:00", "03-09 02:15-04:00"]);
    // Half an hour, from 02:00 to 02:30, on 4 October 2026.
    let howe = |pattern| fires(pattern, "Australia/Lord_Howe", "2026-10-03T00:00:00Z", 2);
    assert_eq!(howe("10 2 * * *"), ["10-04 02:30+11:00", "10-05 02:10+11:00"]);
    assert_eq!(howe("45 2 * * *"), ["10-04 02:45+11:00", "10-05 02:45+11:00"]);
}

/// behaviours E38, U7
#[test]
fn a_fixed_time_in_the_repeated_hour_fires_once_the_first_time() {
    // 02:00 to 03:00 is repeated on 25 October 2026 in Berlin, 01:00 to 02:00 on 1 November 2026 in New York.
    let berlin = |pattern| fires(pattern, "Europe/Berlin", "2026-10-24T12:00:00Z", 2);
    assert_eq!(berlin("30 2 * * *"), ["10-25 02:30+02:00", "10-26 02:30+01:00"]);
    assert_eq!(berlin("0,30 2 * * *"), ["10-25 02:00+02:00", "10-25 02:30+02:00"]);
    let york = |pattern| fires(pattern, "America/New_York", "2026-10-31T12:00:00Z", 2);
    assert_eq!(york("30 1 * * *"), ["11-01 01:30-04:00", "11-02 01:30-05:00"]);
    // 01:30 to 02:00 is repeated on 5 April 2026.
    let howe = |pattern| fires(pattern, "Australia/Lord_Howe", "2026-04-04T00:00:00Z", 2);
    assert_eq!(howe("45 1 * * *"), ["04-05 01:45+11:00", "04-06 01:45+10:30"]);
    // Asked in the second pass, the first one has gone by.
    assert_eq!(
        fires("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1),
        ["10-26 02:30+01:00"]
    );
}

#[test]
fn a_pattern_with_a_star_follows_the_clock_on_the_wall() {
    // Nothing in the skipped hour, none doubled after it.
    assert_eq!(
        fires("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 3),
        ["03-29 01:30+01:00", "03-29 03:00+02:00", "03-29 03:30+02:00"]
    );
    assert_eq!(
        fires("*/20 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 1),
        ["03-30 02:00+02:00"]
    );
    // Twice in the repeated one.
    assert_eq!(
        fires("0 * * * *", "America/New_York", "2026-11-01T04:30:00Z", 3),
        ["11-01 01:00-04:00", "11-01 01:00-05:00", "11-01 02:00-05:00"]
    );
    assert_eq!(
        fires("*/15 * * * *", "Australia/Lord_Howe", "2026-04-04T14:40:00Z", 4),
        [
            "04-05 01:45+11:00",
            "04-05 01:30+10:30",
            "04-05 01:45+10:30",
            "04-05 02:00+10:30"
        ]
    );
}

/// behaviours H3
#[test]
fn patterns_know_what_cron_knows() {
    let utc = |pattern, after| fires(pattern, "UTC", after, 2);
    assert_eq!(
        utc("@daily", "2026-01-01T00:00:00Z"),
        ["01-02 00:00+00:00", "01-03 00:00+00:00"]
    );
    assert_eq!(
        utc("0 0 29 2 *", "2026-01-01T00:00:00Z"),
        ["02-29 00:00+00:00", "02-29 00:00+00:00"]
    );
    assert_eq!(utc("0 9 * * MON-FRI", "2026-01-02T10:00:00Z")[0], "01-05 09:00+00:00");
    assert_eq!(utc("0 0 L * *", "2026-02-01T00:00:00Z")[0], "02-28 00:00+00:00");
    // Both kinds of days restricted: either suffices.
    assert_eq!(
        utc("0 0 13 * FRI", "2026-01-01T12:00:00Z"),
        ["01-02 00:00+00:00", "01-09 00:00+00:00"]
    );
    // A time between two seconds is before the second one.
    let before = Timestamp::from_millis(at("2026-01-01T00:00:00Z").as_millis() - 1);
    assert_eq!(
        cron("* * * * *", "UTC").next_after(before),
        Some(at("2026-01-01T00:00:00Z"))
    );
}

/// behaviours H2, H3
#[test]
fn i9_what_is_no_pattern_is_refused_with_its_field_and_what_is_allowed() {
    let refused = |pattern: &str, zone: &str| {
        let settings = ScheduleSettings {
            time_zone: zone.to_owned(),
            ..settings(Timing::Cron(pattern.to_owned()))
        };
        Calendar::of(&settings).expect_err("refused").to_string()
    };
    let cases = [
        ("", "has 0 fields instead of 5"),
        ("* * * *", "has 4 fields instead of 5"),
        ("0 0 2 * * *", "has 6 fields instead of 5"),
        ("60 * * * *", "field 1 (minute) is \"60\"; allowed are 0-59"),
        ("0 24 * * *", "field 2 (hour) is \"24\"; allowed are 0-23"),
        ("0 0 32 * *", "field 3 (day of month)"),
        ("0 0 * 13 *", "field 4 (month) is \"13\"; allowed are 1-12 or JAN-DEC"),
        ("0 0 * * FUNDAY", "field 5 (day of week)"),
        ("5-1 * * * *", "field 1 (minute)"),
        (
            "@reboot",
            "known are @yearly, @annually, @monthly, @weekly, @daily, @hourly",
        ),
        ("@every 5m", "every so often is what `interval` is for"),
    ];
    for (pattern, expected) in cases {
        let text = refused(pattern, "UTC");
        assert!(text.contains(expected), "{pattern:?}: {text}");
    }
    assert!(refused(&"1,".repeat(200), "UTC").contains("at most 256 characters"));
    let zone = refused("* * * * *", "Europe/Berln");
    assert_eq!(
        zone,
        "unknown time zone \"Europe/Berln\"; give an IANA name such as Europe/Berlin"
    );
}

#[test]
fn a_day_that_does_not_exist_never_comes_and_is_found_out_in_a_moment() {
    assert_eq!(
        cron("0 0 30 2 *", "Europe/Berlin").next_after(at("2026-01-01T00:00:00Z")),
        None
    );
    assert_eq!(
        cron("*/5 * 31 4,6 *", "Europe/Berlin").next_after(at("2026-01-01T00:00:00Z")),
        None
    );
}

/// behaviours H1
#[test]
fn intervals_and_single_times_keep_their_bounds() {
    let (minute, start) = (Duration::from_secs(60), Timestamp::from_millis(1_000));
    let interval = ScheduleSettings {
        start: Some(start),
        end: Some(Timestamp::from_millis(1_000 + 2 * MINUTE)),
        ..settings(Timing::Interval {
            anchor: start,
            every: minute,
        })
    };
    let calendar = Calendar::of(&interval).expect("a calendar");
    let millis = |times: Vec<Timestamp>| times.into_iter().map(Timestamp::as_millis).collect::<Vec<_>>();
    assert_eq!(
        millis(calendar.upcoming(Timestamp::from_millis(-5 * MINUTE), 9)),
        [1_000, 1_000 + MINUTE, 1_000 + 2 * MINUTE]
    );
    assert_eq!(calendar.next_after(start), Some(Timestamp::from_millis(1_000 + MINUTE)));
    let once = Calendar::of(&settings(Timing::Once(start))).expect("a calendar");
    assert_eq!(once.next_after(Timestamp::from_millis(999)), Some(start));
    assert_eq!(once.next_after(start), None);
    let bounded = ScheduleSettings {
        start: Some(at("2026-06-01T00:00:00Z")),
        end: Some(at("2026-06-02T12:00:00Z")),
        ..settings(Timing::Cron("0 0 * * *".to_owned()))
    };
    let calendar = Calendar::of(&bounded).expect("a calendar");
    let times = calendar.upcoming(at("2026-01-01T00:00:00Z"), 9);
    assert_eq!(
        times,
        [at("2026-06-01T00:00:00Z"), at("2026-06-02T00:00:00Z")],
        "both ends belong to it"
    );
}

/// A pattern as a person would check it: minute by minute, field by field. Only lists and steps; days by `dom` alone.
#[derive(Clone, Debug)]
struct Naive {
    minutes: Vec<i8>,
    hours: Vec<i8>,
    is_fixed: bool,
}

impl Naive {
    fn shows(&self, local: DateTime) -> bool {
        self.minutes.contains(&local.minute()) && self.hours.contains(&local.hour())
    }

    /// Every instant of a span at which it fires.
    fn fires(&self, zone: &TimeZone, from: i64, to: i64) -> Vec<i64> {
        let mut fires = Vec::new();
        let local = |millis: i64| zone.to_datetime(jiff::Timestamp::from_millisecond(millis).expect("a time"));
        let mut furthest = local(from - MINUTE);
        for millis in (from..=to).step_by(usize::try_from(MINUTE).expect("small")) {
            let shown = local(millis);
            if !self.is_fixed {
                if self.shows(shown) {
                    fires.push(millis);
                }
                continue;
            }
            // Every local minute that the clock on the wall passes for the first time, those that it jumps over included.
            let mut passes = false;
            while furthest < shown {
                furthest = furthest
                    .checked_add(jiff::SignedDuration::from_mins(1))
                    .expect("a time");
                passes |= self.shows(furthest);
            }
            if passes {
                fires.push(millis);
            }
        }
        fires
    }
}

fn field(most: i8) -> impl Strategy<Value = (String, Vec<i8>)> {
    let list = proptest::collection::btree_set(0..most, 1..4).prop_map(|values| {
        let texts: Vec<_> = values.iter().map(ToString::to_string).collect();
        (texts.join(","), values.into_iter().collect())
    });
    let step = (1..most).prop_map(move |step| {
        let values = (0..most).filter(|value| value % step == 0).collect();
        (if step == 1 { "*".to_owned() } else { format!("*/{step}") }, values)
    });
    prop_oneof![list, step]
}

/// Transitions of the zones in both directions, and an ordinary day.
const SPANS: [(&str, &str); 8] = [
    ("Europe/Berlin", "2026-03-29T01:00:00Z"),
    ("Europe/Berlin", "2026-10-25T01:00:00Z"),
    ("America/New_York", "2026-03-08T07:00:00Z"),
    ("America/New_York", "2026-11-01T06:00:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
    ("Asia/Kathmandu", "2026-06-01T00:00:00Z"),
    ("UTC", "2026-02-28T12:00:00Z"),
];

proptest! {
    #[test]
    fn fires_are_those_of_a_naive_clock_and_strictly_increase(
        (minute, minutes) in field(60),
        (hour, hours) in field(24),
        (zone, around) in proptest::sample::select(&SPANS[..]),
        offset in -600_i64..600,
    ) {
        let is_fixed = !minute.starts_with('*') && !hour.starts_with('*');
        let naive = Naive { minutes, hours, is_fixed };
        let pattern = format!("{minute} {hour} * * *");
        let calendar = cron(&pattern, zone);
        let local = TimeZone::get(zone).expect("a zone");
        let (from, to) = (at(around).as_millis() + (offset - 1_440) * MINUTE, at(around).as_millis() + (offset + 1_440) * MINUTE);
        let mut found = Vec::new();
        let mut cursor = Timestamp::from_millis(from - 1);
        while let Some(next) = calendar.next_after(cursor).filter(|next| next.as_millis() <= to) {
            prop_assert!(next > cursor, "{pattern} in {zone}: {next} after {cursor}");
            found.push(next.as_millis());
            cursor = next;
        }
        // What a fixed pattern has fired before the span is not known to the oracle: it begins a day earlier.
        let expected: Vec<i64> = naive
            .fires(&local, from - 1_440 * MINUTE, to)
            .into_iter()
            .filter(|millis| *millis >= from)
            .collect();
        prop_assert_eq!(found, expected, "{} in {}", pattern, zone);
    }

    #[test]
    fn the_next_fire_does_not_depend_on_where_the_search_began(
        (minute, _) in field(60),
        (hour, _) in field(24),
        (zone, around) in proptest::sample::select(&SPANS[..]),
        gap in 1_i64..600_000,
    ) {
        let calendar = cron(&format!("{minute} {hour} * * *"), zone);
        let start = Timestamp::from_millis(at(around).as_millis() - 90 * MINUTE);
        let fires = calendar.upcoming(start, 6);
        for pair in fires.windows(2) {
            // From anywhere between two fires, the second one is next.
            let between = Timestamp::from_millis((pair[0].as_millis() + gap).min(pair[1].as_millis() - 1));
            prop_assert_eq!(calendar.next_after(between), Some(pair[1]));
        }
    }
}

#[test]
fn a_zone_that_skipped_a_day_has_its_times() {
    // Samoa had no 30 December 2011.
    assert_eq!(
        fires("0 12 * * *", "Pacific/Apia", "2011-12-29T10:00:00Z", 3),
        ["12-29 12:00-10:00", "12-31 00:00+14:00", "12-31 12:00+14:00"]
    );
}

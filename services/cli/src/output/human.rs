//! Durations and times for people.

use std::time::Duration;

use jiff::tz::TimeZone;
use windlass_ids::Timestamp;

/// A proto timestamp in the core's form.
pub fn millis(time: prost_types::Timestamp) -> Timestamp {
    Timestamp::from_millis(
        time.seconds
            .saturating_mul(1000)
            .saturating_add(i64::from(time.nanos) / 1_000_000),
    )
}

/// The time of a log line: RFC 3339, as exact as it is known.
pub fn log_time(time: prost_types::Timestamp) -> String {
    let time = jiff::Timestamp::new(time.seconds, time.nanos).unwrap_or_default();
    format!("{time:.9}")
}

/// A duration in at most two units: `<1s`, `0.4s`, `41s`, `3m12s`, `1h04m`, `2d03h`.
///
/// Kubernetes' times are whole seconds: they get no tenths that nobody measured.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if duration.is_zero() => "<1s".to_owned(),
        0..10 if duration.subsec_millis() == 0 => format!("{seconds}s"),
        0..10 => {
            let tenths = duration.as_millis() / 100;
            format!("{}.{}s", tenths / 10, tenths % 10)
        }
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

/// How long ago something was, coarsely: `now`, `41s`, `3m`, `5h`, `12d`.
pub fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0 => "now".to_owned(),
        1..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// The local time of day, `23:10:04`.
pub fn clock_time(time: Timestamp) -> String {
    zoned(time).strftime("%H:%M:%S").to_string()
}

/// The time in UTC with milliseconds, `2026-11-23T23:10:04.123Z`.
pub fn time_rfc3339(time: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(time.as_millis())
        .unwrap_or_default()
        .strftime("%Y-%m-%dT%H:%M:%S.%3fZ")
        .to_string()
}

fn zoned(time: Timestamp) -> jiff::Zoned {
    jiff::Timestamp::from_millisecond(time.as_millis())
        .unwrap_or_default()
        .to_zoned(TimeZone::system())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_at_most_two_units() {
        let cases = [
            (0, "<1s"),
            (2_000, "2s"),
            (450, "0.4s"),
            (9_990, "9.9s"),
            (41_000, "41s"),
            (64_000, "1m04s"),
            (192_000, "3m12s"),
            (3_840_000, "1h04m"),
            (183_600_000, "2d03h"),
        ];
        for (millis, text) in cases {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(age(Duration::from_secs(119)), "119s");
        assert_eq!(age(Duration::from_secs(120)), "2m");
    }

    #[test]
    fn times_are_printed_in_utc_for_programs() {
        assert_eq!(
            time_rfc3339(Timestamp::from_millis(1_700_000_000_123)),
            "2023-11-14T22:13:20.123Z"
        );
    }
}

//! Durations of the file format: `500ms`, `90s`, `45m`, `1h30m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// The longest duration of the format: ten years.
    pub const MAX: Self = Self(10 * 366 * 24 * 3_600_000);

    /// From whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds * 1000)
    }

    /// From whole minutes.
    pub const fn from_mins(minutes: u64) -> Self {
        Self::from_secs(minutes * 60)
    }

    /// Milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// As a standard duration.
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseDurationError {
    /// Nothing, or something that does not start with a number.
    #[error("`{0}` is no duration; write 90s, 45m or 1h30m")]
    Malformed(String),
    /// A number without a unit.
    #[error("`{0}` has no unit; write {0}s for seconds, or use ms, m, h, d")]
    NoUnit(String),
    /// An unknown unit.
    #[error("`{0}` is no unit of time; units are ms, s, m, h, d")]
    Unit(String),
    /// Fractions of milliseconds.
    #[error("`{0}` is finer than a millisecond")]
    TooFine(String),
    /// More than [`Millis::MAX`].
    #[error("`{0}` is longer than ten years")]
    TooLong(String),
}

impl FromStr for Millis {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ParseDurationError::Malformed(text.to_owned());
        if text == "0" {
            return Ok(Self(0));
        }
        let mut rest = text;
        let mut total = 0_u64;
        while !rest.is_empty() || total == 0 && text.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(rest.len());
            let (number, tail) = rest.split_at(digits);
            if number.is_empty() {
                return Err(malformed());
            }
            let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, next) = tail.split_at(letters);
            let part = part(text, number, unit)?;
            total = total
                .checked_add(part)
                .filter(|sum| *sum <= Self::MAX.0)
                .ok_or_else(|| ParseDurationError::TooLong(text.to_owned()))?;
            rest = next;
        }
        Ok(Self(total))
    }
}

/// Milliseconds of one number with its unit.
fn part(text: &str, number: &str, unit: &str) -> Result<u64, ParseDurationError> {
    let malformed = || ParseDurationError::Malformed(text.to_owned());
    let scale: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if text == number => return Err(ParseDurationError::NoUnit(text.to_owned())),
        "" => return Err(malformed()),
        other => return Err(ParseDurationError::Unit(other.to_owned())),
    };
    let too_long = || ParseDurationError::TooLong(text.to_owned());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || number.ends_with('.') || fraction.contains('.') {
        return Err(malformed());
    }
    let whole: u64 = whole.parse().map_err(|_| too_long())?;
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 {
        return Err(ParseDurationError::TooFine(text.to_owned()));
    }
    let digits: u64 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().map_err(|_| malformed())?
    };
    let divisor = 10_u64.pow(u32::try_from(fraction.len()).unwrap_or(9));
    let scaled = digits * scale;
    if !scaled.is_multiple_of(divisor) {
        return Err(ParseDurationError::TooFine(text.to_owned()));
    }
    whole
        .checked_mul(scale)
        .and_then(|whole| whole.checked_add(scaled / divisor))
        .ok_or_else(too_long)
}

impl fmt::Display for Millis {
    /// The shortest exact form: `0s`, `1500ms`, `90s`, `45m`, `2h`, `1h30m`, `1h5s`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(millis) = *self;
        if !millis.is_multiple_of(1000) {
            return write!(formatter, "{millis}ms");
        }
        let seconds = millis / 1000;
        if seconds == 0 || seconds < 3600 && !seconds.is_multiple_of(60) {
            return write!(formatter, "{seconds}s");
        }
        let parts = [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
        for (number, unit) in parts.into_iter().filter(|(number, _)| *number > 0) {
            write!(formatter, "{number}{unit}")?;
        }
        Ok(())
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MillisVisitor;

        impl Visitor<'_> for MillisVisitor {
            type Value = Millis;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a duration with a unit, such as 90s, 45m or 1h30m")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Millis, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Millis, E> {
                number.to_string().parse().map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Millis, E> {
                number.to_string().parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(MillisVisitor).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read() {
        let cases = [
            ("500ms", 500),
            ("90s", 90_000),
            ("45m", 2_700_000),
            ("2h", 7_200_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1500),
            ("0", 0),
            ("0s", 0),
            ("1d", 86_400_000),
        ];
        for (text, millis) in cases {
            assert_eq!(text.parse(), Ok(Millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_a_reason() {
        let message = |text: &str| text.parse::<Millis>().expect_err(text).to_string();
        insta::assert_snapshot!(message("90"), @"`90` has no unit; write 90s for seconds, or use ms, m, h, d");
        insta::assert_snapshot!(message("5 minutes"), @"`5 minutes` is no duration; write 90s, 45m or 1h30m");
        insta::assert_snapshot!(message("5min"), @"`min` is no unit of time; units are ms, s, m, h, d");
        insta::assert_snapshot!(message(""), @"`` is no duration; write 90s, 45m or 1h30m");
        insta::assert_snapshot!(message("-5s"), @"`-5s` is no duration; write 90s, 45m or 1h30m");
        insta::assert_snapshot!(message("0.1ms"), @"`0.1ms` is finer than a millisecond");
        insta::assert_snapshot!(message("999999999999h"), @"`999999999999h` is longer than ten years");
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(millis in 0..=Millis::MAX.0) {
            let printed = Millis(millis).to_string();
            prop_assert_eq!(printed.parse(), Ok(Millis(millis)));
        }

        #[test]
        fn no_text_panics(text in ".{0,20}") {
            text.parse::<Millis>().ok();
        }
    }
}

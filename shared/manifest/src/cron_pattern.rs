//! Cron patterns as a CronJob's controller reads them.
//!
//! It has the five fields, lists, ranges, steps and names of everybody, but neither Sunday as 7 nor a range that ends with Sunday, and no
//! `L`, `W` and `#`. Days that are `*/1` restrict nothing there, while here they do: what they mean is written so that both read the same.

use std::collections::BTreeSet;

/// A field: its name, its bounds, and names of its values from the least one on.
struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const fn field(name: &'static str, least: u32, most: u32, names: &'static [&'static str]) -> Field {
    Field {
        name,
        least,
        most,
        names,
    }
}

const FIELDS: [Field; 5] = [
    field("minute", 0, 59, &[]),
    field("hour", 0, 23, &[]),
    field("day of month", 1, 31, &[]),
    field("month", 1, 12, &MONTHS),
    field("day of week", 0, 6, &DAYS),
];

const NICKNAMES: [&str; 6] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@hourly"];

/// A pattern of a schedule as a CronJob needs it: itself, where both mean the same by it.
///
/// # Errors
/// What a CronJob cannot express.
pub fn cron_job_pattern(pattern: &str) -> Result<String, String> {
    let pattern = pattern.trim();
    if pattern.starts_with('@') {
        let nickname = pattern.to_ascii_lowercase();
        let known = NICKNAMES.contains(&nickname.as_str());
        return known
            .then_some(nickname)
            .ok_or_else(|| format!("a CronJob does not know {pattern:?}"));
    }
    let parts: Vec<&str> = pattern.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Err(format!("a CronJob needs five fields, not {}", parts.len()));
    }
    let fields = FIELDS.iter().zip(parts).map(|(field, part)| field.translate(part));
    Ok(fields.collect::<Result<Vec<_>, _>>()?.join(" "))
}

impl Field {
    /// Whether either of two fields suffices when both restrict.
    fn is_of_days(&self) -> bool {
        self.name.starts_with("day")
    }

    fn translate(&self, part: &str) -> Result<String, String> {
        if part == "*" || part == "?" {
            return Ok("*".to_owned());
        }
        let (mut values, mut rewrite) = (BTreeSet::new(), false);
        for item in part.split(',').filter(|item| !item.is_empty()) {
            let (first, last, step) = self.range(item).ok_or_else(|| {
                format!(
                    "a CronJob has no {item:?} in its {}; it knows numbers, names, lists 1,2, ranges 1-5, steps */15, and *",
                    self.name
                )
            })?;
            rewrite |= last > self.most || (self.is_of_days() && item.starts_with(['*', '?']) && step == 1);
            let size = self.most - self.least + 1;
            let range = (first..=last).step_by(step as usize);
            values.extend(range.map(|value| (value - self.least) % size + self.least));
        }
        if !rewrite {
            return Ok(part.to_owned());
        }
        if values.len() as u32 == self.most - self.least + 1 {
            return Ok(format!("{}-{}", self.least, self.most));
        }
        let values: Vec<String> = values.iter().map(u32::to_string).collect();
        Ok(values.join(","))
    }

    /// First, last and step of an item of a list. Sunday, as the end of a range or as a number, may be 7.
    fn range(&self, item: &str) -> Option<(u32, u32, u32)> {
        let (base, step) = match item.split_once('/') {
            Some((base, step)) => (base, number(step).filter(|step| *step > 0)?),
            None => (item, 1),
        };
        let (first, last) = match base.split_once('-') {
            _ if base == "*" || base == "?" => (self.least, self.most),
            Some((first, last)) if last.eq_ignore_ascii_case("sun") => (self.value(first)?, self.most + 1),
            Some((first, last)) => (self.value(first)?, self.value(last)?),
            // Here a single number has no step.
            None if item.contains('/') => return None,
            None => (self.value(base)?, self.value(base)?),
        };
        (first <= last).then_some((first, last, step))
    }

    fn value(&self, text: &str) -> Option<u32> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let value = match named {
            Some(position) => u32::try_from(position).ok()? + self.least,
            None => number(text)?,
        };
        let most = if self.most == 6 { 7 } else { self.most };
        (self.least..=most).contains(&value).then_some(value)
    }
}

fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn translated(pattern: &str) -> String {
        cron_job_pattern(pattern).expect("a CronJob has it")
    }

    /// behaviours F4
    #[test]
    fn a_pattern_that_both_read_alike_stays_as_it_is() {
        for pattern in [
            "30 2 * * MON-FRI",
            "*/15 8-18/2 1,15 jan-MAR *",
            "@daily",
            "0 0 */2 * mon,3",
        ] {
            assert_eq!(translated(pattern), pattern);
        }
        assert_eq!(translated("@Weekly"), "@weekly");
    }

    #[test]
    fn sunday_is_zero_there() {
        for (here, there) in [
            ("0 3 * * 7", "0 3 * * 0"),
            ("0 3 * * 5-7", "0 3 * * 0,5,6"),
            ("0 3 * * FRI-SUN", "0 3 * * 0,5,6"),
            ("0 3 * * MON-SUN", "0 3 * * 0-6"),
            ("0 3 * * 1-7/3", "0 3 * * 0,1,4"),
            ("0 3 * * SUN-TUE", "0 3 * * SUN-TUE"),
        ] {
            assert_eq!(translated(here), there);
        }
    }

    #[test]
    fn a_star_with_a_step_of_one_restricts_as_it_does_here() {
        // With both days restricted either suffices: every day here, and Mondays alone there if it stayed as it is.
        assert_eq!(translated("0 3 */1 * MON"), "0 3 1-31 * MON");
        assert_eq!(translated("0 3 1 * */1"), "0 3 1 * 0-6");
        assert_eq!(translated("0 3 ? * 1"), "0 3 * * 1");
    }

    #[test]
    fn what_a_cron_job_cannot_express_is_told_with_its_field() {
        for (pattern, field) in [
            ("0 3 L * *", "day of month"),
            ("0 3 15W * *", "day of month"),
            ("0 3 * * 5#2", "day of week"),
            ("0 3 * * 5L", "day of week"),
            ("0 3 * * +5", "day of week"),
            ("MON 3 * * *", "minute"),
            ("5/10 3 * * *", "minute"),
        ] {
            let wrong = cron_job_pattern(pattern).expect_err(pattern);
            assert!(wrong.contains(field), "{pattern}: {wrong}");
        }
        assert!(cron_job_pattern("@every 1h").is_err());
    }

    proptest! {
        /// What is written anew has only numbers that a CronJob knows.
        #[test]
        fn a_translated_pattern_is_its_own_translation(
            day in "[0-7]|[0-3]-[4-7]|\\*/[1-7]|(MON|TUE)-(SAT|SUN)|[0-7],[0-7]",
        ) {
            let once = translated(&format!("0 0 * * {day}"));
            prop_assert!(!once.replace("/7", "").contains('7'), "{}", once);
            prop_assert_eq!(translated(&once), once);
        }
    }
}

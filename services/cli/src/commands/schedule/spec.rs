//! From flags to a schedule's spec, and from the paths of the server's refusals back to flags.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use windlass_api::convert::{duration_to_proto, timestamp_to_proto};
use windlass_api::schedule::v1 as wire;
use windlass_api::schedule::v1::schedule_spec::Timing;
use windlass_ids::Timestamp;

use super::is_of_pipeline;
use crate::args::{CatchUpChoice, OverlapChoice, ScheduleUpdateArgs, TimingArgs};
use crate::errors::{CliError, Result};
use crate::pipeline_file::PipelineFile;

/// Flags by the fields that they set.
const FLAGS: [(&str, &str); 11] = [
    ("cron", "--cron"),
    ("interval", "--every"),
    ("runOnceTime", "--at"),
    ("timeZone", "--time-zone"),
    ("startTime", "--start"),
    ("endTime", "--end"),
    ("overlapPolicy", "--overlap"),
    ("startDeadline", "--start-deadline"),
    ("catchUpWindow", "--catch-up-window"),
    ("catchUp", "--catch-up"),
    ("labels", "--label"),
];

/// The spec that flags mean.
///
/// # Errors
/// When a time or a label is none.
pub(super) fn of(args: &TimingArgs) -> Result<wire::ScheduleSpec> {
    let time = |flag: &str, given: &Option<String>| {
        let read = given.as_ref().map(|text| time(flag, text, args.time_zone.as_deref()));
        read.transpose()
    };
    let timing = match (&args.cron, args.every, time("--at", &args.at)?) {
        (Some(pattern), ..) => Some(Timing::Cron(pattern.clone())),
        (None, Some(every), _) => Some(Timing::Interval(duration_to_proto(every))),
        (None, None, at) => at.map(Timing::RunOnceTime),
    };
    // For other timings it only says how the times here are read.
    let is_cron = matches!(timing, Some(Timing::Cron(_)) | None);
    Ok(wire::ScheduleSpec {
        timing,
        time_zone: args.time_zone.clone().filter(|_| is_cron).unwrap_or_default(),
        start_time: time("--start", &args.start)?,
        end_time: time("--end", &args.end)?,
        overlap_policy: args.overlap.map_or(wire::OverlapPolicy::Unspecified, overlap).into(),
        start_deadline: args.start_deadline.map(duration_to_proto),
        catch_up: args.catch_up.map_or(wire::CatchUp::Unspecified, catch_up).into(),
        catch_up_window: args.catch_up_window.map(duration_to_proto),
        labels: super::super::run::labels(&args.labels)?,
    })
}

/// The spec of an update, and which fields change.
///
/// # Errors
/// As [`of`].
pub(super) fn changes(args: &ScheduleUpdateArgs) -> Result<(wire::ScheduleSpec, Vec<String>)> {
    let spec = of(&args.timing)?;
    let timing = spec.timing.as_ref().map(|timing| match timing {
        Timing::Cron(_) => "spec.cron",
        Timing::Interval(_) => "spec.interval",
        Timing::RunOnceTime(_) => "spec.run_once_time",
    });
    let rest = [
        ("spec.time_zone", !spec.time_zone.is_empty()),
        ("spec.start_time", spec.start_time.is_some() || args.no_start),
        ("spec.end_time", spec.end_time.is_some() || args.no_end),
        ("spec.overlap_policy", args.timing.overlap.is_some()),
        ("spec.start_deadline", spec.start_deadline.is_some()),
        ("spec.catch_up", args.timing.catch_up.is_some()),
        ("spec.catch_up_window", spec.catch_up_window.is_some()),
        ("spec.labels", !spec.labels.is_empty() || args.no_labels),
        ("pipeline", args.file.is_some()),
        ("parameters", args.file.is_some()),
        ("secrets", args.secrets.any()),
    ];
    let rest = rest.into_iter().filter(|(_, changes)| *changes).map(|(path, _)| path);
    let paths = timing.into_iter().chain(rest).map(str::to_owned).collect();
    Ok((spec, paths))
}

fn overlap(choice: OverlapChoice) -> wire::OverlapPolicy {
    match choice {
        OverlapChoice::Allow => wire::OverlapPolicy::Allow,
        OverlapChoice::Skip => wire::OverlapPolicy::Skip,
        OverlapChoice::Replace => wire::OverlapPolicy::Replace,
    }
}

fn catch_up(choice: CatchUpChoice) -> wire::CatchUp {
    match choice {
        CatchUpChoice::None => wire::CatchUp::None,
        CatchUpChoice::Last => wire::CatchUp::Last,
        CatchUpChoice::All => wire::CatchUp::All,
    }
}

/// A time with its offset, or without one in the time zone that was given.
fn time(flag: &str, text: &str, zone: Option<&str>) -> Result<prost_types::Timestamp> {
    let millis = |time: jiff::Timestamp| timestamp_to_proto(Timestamp::from_millis(time.as_millisecond()));
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(millis(time));
    }
    let Ok(local) = text.parse::<DateTime>() else {
        return Err(CliError::bad_input(format!("{flag} {text:?} is no time")).hint(
            "write it such as 2026-12-01T09:00:00Z, 2026-12-01T09:00:00+01:00, or with --time-zone 2026-12-01T09:00",
        ));
    };
    let Some(zone) = zone else {
        return Err(CliError::bad_input(format!("{flag} {text:?} could be anywhere"))
            .hint("add its offset, such as Z or +01:00, or give --time-zone"));
    };
    let zone =
        TimeZone::get(zone).map_err(|_| CliError::bad_input(format!("--time-zone {zone:?} is not known here")))?;
    zone.to_ambiguous_timestamp(local)
        .unambiguous()
        .map(millis)
        .map_err(|_| {
            CliError::bad_input(format!("{flag} {text:?} is skipped or repeated by the clocks there"))
                .hint("add the offset that is meant, such as +01:00")
        })
}

/// A refusal of the server with the places in the file and the flags.
pub(super) fn locate(mut error: CliError, file: Option<&PipelineFile>) -> CliError {
    let fields = std::mem::take(&mut error.fields);
    let (of_pipeline, others): (Vec<_>, Vec<_>) = fields.into_iter().partition(|(path, _)| is_of_pipeline(path));
    error.fields = of_pipeline;
    if let Some(file) = file {
        error = file.locate(error);
    }
    error.fields.extend(
        others
            .into_iter()
            .map(|(path, wrong)| (flag(&path), with_flags(&wrong))),
    );
    // The message repeats what stands in the fields.
    if !error.fields.is_empty() || !error.details.is_empty() {
        "the schedule was refused".clone_into(&mut error.message);
    }
    error
}

pub(super) fn flag(path: &str) -> String {
    let Some(field) = path.strip_prefix("spec.") else {
        return path.to_owned();
    };
    let found = FLAGS.iter().find(|(known, _)| {
        let rest = field.strip_prefix(known);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    });
    match found {
        Some((known, flag)) => format!("{flag}{}", field[known.len()..].replacen('.', " ", 1)),
        None => path.to_owned(),
    }
}

/// A message with the flags for the fields that it names.
pub(super) fn with_flags(message: &str) -> String {
    FLAGS.iter().fold(message.to_owned(), |message, (field, flag)| {
        let message = message.replace(&format!("`{field}`"), flag);
        // The others are ordinary words, too.
        match field.contains(char::is_uppercase) {
            true => message.replace(field, flag),
            false => message,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::RunSecretArgs;

    fn millis(text: &str, zone: Option<&str>) -> Result<i64> {
        let time = time("--at", text, zone)?;
        Ok(time.seconds * 1_000)
    }

    #[test]
    fn a_time_has_an_offset_or_a_zone() {
        let noon = 1_796_040_000_000;
        assert_eq!(millis("2026-11-30T12:00:00Z", None), Ok(noon));
        assert_eq!(millis("2026-11-30T13:00:00+01:00", Some("UTC")), Ok(noon));
        assert_eq!(millis("2026-11-30T13:00", Some("Europe/Berlin")), Ok(noon));
        let wrong = |text, zone| millis(text, zone).expect_err("refused").message;
        assert!(wrong("2026-11-30T13:00", None).contains("could be anywhere"));
        assert!(wrong("tomorrow", None).contains("is no time"));
        assert!(wrong("2026-10-25T02:30", Some("Europe/Berlin")).contains("skipped or repeated"));
        assert!(wrong("2026-11-30T13:00", Some("Europe/Berln")).contains("not known here"));
    }

    #[test]
    fn an_update_names_what_it_changes() {
        let args = ScheduleUpdateArgs {
            name: "nightly".to_owned(),
            file: None,
            params: Vec::new(),
            timing: TimingArgs {
                every: Some(std::time::Duration::from_secs(60)),
                time_zone: Some("Europe/Berlin".to_owned()),
                end: Some("2027-01-01T00:00".to_owned()),
                overlap: Some(OverlapChoice::Allow),
                ..TimingArgs::default()
            },
            secrets: RunSecretArgs {
                secret_stdin: Some("API_TOKEN".to_owned()),
                ..RunSecretArgs::default()
            },
            no_start: true,
            no_end: false,
            no_labels: false,
            output: crate::args::OutputArgs {
                output: crate::args::Format::Table,
            },
        };
        let (spec, paths) = changes(&args).expect("a spec");
        assert_eq!(
            paths,
            [
                "spec.interval",
                "spec.start_time",
                "spec.end_time",
                "spec.overlap_policy",
                "secrets"
            ]
        );
        assert_eq!(spec.time_zone, "", "it only says how --end is read");
    }

    #[test]
    fn paths_become_flags() {
        assert_eq!(flag("spec.catchUpWindow"), "--catch-up-window");
        assert_eq!(flag("spec.labels.team"), "--label team");
        assert_eq!(flag("schedule"), "schedule");
        assert_eq!(with_flags("must not be before startTime"), "must not be before --start");
        let window = "means nothing with catchUp NONE";
        assert_eq!(with_flags(window), "means nothing with --catch-up NONE");
        assert_eq!(
            with_flags("`interval` is no cron pattern"),
            "--every is no cron pattern"
        );
    }
}

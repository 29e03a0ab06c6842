//! What is said of an attempt that ended because it was stopped: why it was, and what it had been waiting for. The deletion that carried
//! the stop out explains nothing.

use std::fmt::Write as _;
use std::time::Duration;

use crate::attempt::Attempt;
use crate::change::AttemptEnd;
use crate::policy::StepPolicy;
use crate::state::{AttemptPhase, FailureClass, StopCause};

/// The class of an end that was caused by a stop of the attempt itself; none for the other causes.
pub(crate) fn class_of(cause: StopCause) -> Option<FailureClass> {
    Some(match cause {
        StopCause::Timeout => FailureClass::Deadline,
        StopCause::ImagePull => FailureClass::Image,
        StopCause::NotCreated | StopCause::NotScheduled | StopCause::NotPulled | StopCause::NotInitialised => {
            FailureClass::StartupTimeout
        }
        StopCause::RunCancelled
        | StopCause::RunTimeout
        | StopCause::FailFast
        | StopCause::NotPrepared
        | StopCause::Ended => return None,
    })
}

/// Puts reason and message of an end into the words of the stop that caused it.
pub(crate) fn tell(end: &mut AttemptEnd, cause: StopCause, policy: &StepPolicy, attempt: &Attempt) {
    let deadlines = &policy.deadlines;
    let (what, bound, field) = match cause {
        StopCause::Timeout => {
            let bound = policy.timeout.unwrap_or_default();
            ("it ran longer than its timeout of", bound, "")
        }
        StopCause::NotCreated => ("its pod was not created within", deadlines.created, "created"),
        StopCause::NotScheduled => ("its pod got no node within", deadlines.scheduled, "scheduled"),
        StopCause::NotPulled if attempt.phase == AttemptPhase::Scheduled => {
            ("its pod was not set up within", deadlines.pulling, "pulling")
        }
        StopCause::NotPulled => ("its image was not there within", deadlines.pulling, "pulling"),
        StopCause::ImagePull => ("its image could not be pulled within", deadlines.pulling, "pulling"),
        StopCause::NotInitialised => (
            "its init containers did not end within",
            deadlines.initialising,
            "initialising",
        ),
        StopCause::RunCancelled
        | StopCause::RunTimeout
        | StopCause::FailFast
        | StopCause::NotPrepared
        | StopCause::Ended => return,
    };
    let mut message = format!("{what} {}", words(bound));
    if !field.is_empty() {
        push(&mut message, format_args!(" (deadlines.{field})"));
    }
    match (end.exit_code, &attempt.detail) {
        (Some(code), _) => push(
            &mut message,
            format_args!("; told to stop, it ended with exit code {code}"),
        ),
        (None, Some(waiting)) => {
            for text in [&waiting.reason, &waiting.message] {
                if !text.is_empty() {
                    push(&mut message, format_args!(": {text}"));
                }
            }
        }
        (None, None) => {}
    }
    let detail = end.detail.get_or_insert_default();
    detail.reason = cause.as_str().into();
    detail.message = message.into();
}

/// Texts in memory take everything.
fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).ok();
}

/// `45m`, `1h30m`, `90s` as people write them in a pipeline.
fn words(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    if seconds == 0 {
        return format!("{millis}ms");
    }
    let units = [("h", seconds / 3600), ("m", seconds / 60 % 60), ("s", seconds % 60)];
    let present = units.into_iter().filter(|(_, count)| *count > 0);
    present.map(|(unit, count)| format!("{count}{unit}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        let table = [(250, "250ms"), (3_000, "3s"), (90_000, "1m30s"), (7_200_000, "2h")];
        for (millis, text) in table {
            assert_eq!(words(Duration::from_millis(millis)), text);
        }
    }
}

//! Which fields an update changes. What is named is set, and what is set must be named: nothing is passed over (I9, behaviours X17).

use std::collections::BTreeSet;

use windlass_api::schedule::v1 as wire;
use windlass_api::schedule::v1::schedule_spec::Timing;

use crate::errors::FieldProblem;
use crate::schedules::settings_to_proto;
use crate::store::ScheduleSettings;

/// Fields of the spec.
const SPEC: [&str; 11] = [
    "cron",
    "interval",
    "run_once_time",
    "time_zone",
    "start_time",
    "end_time",
    "overlap_policy",
    "start_deadline",
    "catch_up",
    "catch_up_window",
    "labels",
];

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mask {
    fields: BTreeSet<&'static str>,
    whole: bool,
    pub(super) pipeline: bool,
    pub(super) parameters: bool,
    pub(super) paused: bool,
    pub(super) secrets: bool,
}

impl Mask {
    /// Reads the mask of a request.
    ///
    /// # Errors
    /// Paths that are unknown, fields that are set and not named, timings that are named and not set.
    pub(super) fn of(request: &wire::UpdateScheduleRequest) -> Result<Self, Vec<FieldProblem>> {
        let paths = request.update_mask.as_ref().map_or(&[][..], |mask| &mask.paths);
        let mut problems = Vec::new();
        let mut mask = Self::default();
        if paths.is_empty() {
            let text = "names no field; name those that are to change, such as spec.cron or paused";
            problems.push(FieldProblem::new("updateMask", "MISSING", text));
            return Err(problems);
        }
        for path in paths {
            let known = path
                .strip_prefix("spec.")
                .and_then(|field| SPEC.iter().find(|known| **known == field));
            match (path.as_str(), known) {
                ("spec", _) => mask.whole = true,
                ("pipeline", _) => mask.pipeline = true,
                ("parameters", _) => mask.parameters = true,
                ("paused", _) => mask.paused = true,
                ("secrets", _) => mask.secrets = true,
                (_, Some(field)) => drop(mask.fields.insert(field)),
                (path, None) => problems.push(unknown(path)),
            }
        }
        mask.check(request, &mut problems);
        if problems.is_empty() { Ok(mask) } else { Err(problems) }
    }

    fn check(&self, request: &wire::UpdateScheduleRequest, problems: &mut Vec<FieldProblem>) {
        let spec = request.spec.clone().unwrap_or_default();
        let set = set_fields(&spec);
        let timings = ["cron", "interval", "run_once_time"];
        for field in &set {
            if !self.whole && !self.fields.contains(field) {
                problems.push(not_named(&format!("spec.{field}")));
            }
        }
        for timing in timings
            .iter()
            .filter(|timing| self.fields.contains(*timing) && !set.contains(*timing))
        {
            let text = "is named in updateMask, but not set: a schedule needs a timing";
            problems.push(FieldProblem::new(format!("spec.{}", camel(timing)), "MISSING", text));
        }
        let others = [
            ("pipeline", request.pipeline.is_some(), self.pipeline),
            ("parameters", !request.parameters.is_empty(), self.parameters),
            ("paused", request.paused, self.paused),
            ("secrets", !request.secrets.is_empty(), self.secrets),
        ];
        for (field, is_set, is_named) in others {
            if is_set && !is_named {
                problems.push(not_named(field));
            }
        }
    }

    /// Whether anything of the spec changes.
    pub(super) fn spec(&self) -> bool {
        self.whole || !self.fields.is_empty()
    }
}

/// The spec of a schedule with the named fields changed.
pub(super) fn merged(before: &ScheduleSettings, new: Option<&wire::ScheduleSpec>, mask: &Mask) -> wire::ScheduleSpec {
    let new = new.cloned().unwrap_or_default();
    if mask.whole {
        return new;
    }
    let mut spec = settings_to_proto(before);
    let timed = mask
        .fields
        .iter()
        .any(|field| matches!(*field, "cron" | "interval" | "run_once_time"));
    if timed {
        // What means nothing for another timing goes with the old one.
        if !matches!(new.timing, Some(Timing::Cron(_))) {
            spec.time_zone.clear();
        }
        spec.timing.clone_from(&new.timing);
    }
    if mask.fields.contains("catch_up") && !matches!(new.catch_up(), wire::CatchUp::Last | wire::CatchUp::All) {
        spec.catch_up_window = None;
    }
    for field in &mask.fields {
        match *field {
            "time_zone" => spec.time_zone.clone_from(&new.time_zone),
            "start_time" => spec.start_time = new.start_time,
            "end_time" => spec.end_time = new.end_time,
            "overlap_policy" => spec.overlap_policy = new.overlap_policy,
            "start_deadline" => spec.start_deadline = new.start_deadline,
            "catch_up" => spec.catch_up = new.catch_up,
            "catch_up_window" => spec.catch_up_window = new.catch_up_window,
            "labels" => spec.labels.clone_from(&new.labels),
            _ => {}
        }
    }
    spec
}

fn set_fields(spec: &wire::ScheduleSpec) -> BTreeSet<&'static str> {
    let timing = match &spec.timing {
        Some(Timing::Cron(_)) => Some("cron"),
        Some(Timing::Interval(_)) => Some("interval"),
        Some(Timing::RunOnceTime(_)) => Some("run_once_time"),
        None => None,
    };
    let others = [
        ("time_zone", !spec.time_zone.is_empty()),
        ("start_time", spec.start_time.is_some()),
        ("end_time", spec.end_time.is_some()),
        ("overlap_policy", spec.overlap_policy != 0),
        ("start_deadline", spec.start_deadline.is_some()),
        ("catch_up", spec.catch_up != 0),
        ("catch_up_window", spec.catch_up_window.is_some()),
        ("labels", !spec.labels.is_empty()),
    ];
    let set = others.into_iter().filter(|(_, is_set)| *is_set).map(|(field, _)| field);
    timing.into_iter().chain(set).collect()
}

fn unknown(path: &str) -> FieldProblem {
    let path: String = path.chars().take(64).collect();
    let known: Vec<_> = SPEC.iter().map(|field| format!("spec.{field}")).collect();
    let text = format!(
        "unknown path {path:?}; known are spec, {}, pipeline, parameters, paused, secrets",
        known.join(", ")
    );
    FieldProblem::new("updateMask", "UNKNOWN_FIELD", text)
}

fn not_named(path: &str) -> FieldProblem {
    let text = format!("is set, but {path} is not in updateMask");
    FieldProblem::new(camel(path), "NOT_IN_MASK", text)
}

/// A path as JSON has it.
fn camel(path: &str) -> String {
    let mut parts = path.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |mut whole, part| {
        let mut letters = part.chars();
        whole.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        whole.extend(letters);
        whole
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prost_types::FieldMask;

    use super::*;
    use crate::schedules::testing::settings;
    use crate::store::{CatchUp, Timing as StoredTiming};

    fn request(paths: &[&str], spec: wire::ScheduleSpec) -> wire::UpdateScheduleRequest {
        wire::UpdateScheduleRequest {
            spec: Some(spec),
            update_mask: Some(FieldMask {
                paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            }),
            ..wire::UpdateScheduleRequest::default()
        }
    }

    fn paths(problems: Vec<FieldProblem>) -> Vec<String> {
        problems.into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn i9_x17_what_is_set_and_not_named_is_refused_and_the_other_way_round() {
        let cron = wire::ScheduleSpec {
            timing: Some(Timing::Cron("0 * * * *".to_owned())),
            overlap_policy: wire::OverlapPolicy::Allow.into(),
            ..wire::ScheduleSpec::default()
        };
        let refused = |request: &wire::UpdateScheduleRequest| paths(Mask::of(request).expect_err("refused"));
        assert_eq!(refused(&request(&[], cron.clone())), ["updateMask"]);
        assert_eq!(
            refused(&request(&["paused"], cron.clone())),
            ["spec.cron", "spec.overlapPolicy"]
        );
        assert_eq!(
            refused(&request(
                &["spec.run_once_time", "spec.colour"],
                wire::ScheduleSpec::default()
            )),
            ["updateMask", "spec.runOnceTime"]
        );
        let unnamed = wire::UpdateScheduleRequest {
            paused: true,
            ..request(&["spec"], cron.clone())
        };
        assert_eq!(refused(&unnamed), ["paused"]);
        assert!(Mask::of(&request(&["spec.cron", "spec.overlap_policy", "paused"], cron)).is_ok());
    }

    #[test]
    fn the_named_fields_change_and_the_others_stay() {
        let before = ScheduleSettings {
            time_zone: "Europe/Berlin".to_owned(),
            catch_up: CatchUp::Last,
            ..settings(StoredTiming::Cron("0 2 * * *".to_owned()))
        };
        let change = |paths: &[&str], spec: wire::ScheduleSpec| {
            let request = request(paths, spec.clone());
            merged(&before, Some(&spec), &Mask::of(&request).expect("a mask"))
        };
        let whole = settings_to_proto(&before);
        let interval = wire::ScheduleSpec {
            timing: Some(Timing::Interval(prost_types::Duration { seconds: 60, nanos: 0 })),
            ..wire::ScheduleSpec::default()
        };
        let changed = change(&["spec.interval"], interval.clone());
        assert_eq!(
            (changed.timing, changed.time_zone.as_str()),
            (interval.timing.clone(), "")
        );
        assert_eq!(changed.catch_up_window, whole.catch_up_window);
        let changed = change(&["spec.catch_up"], wire::ScheduleSpec::default());
        assert_eq!((changed.catch_up, changed.catch_up_window), (0, None));
        assert_eq!(changed.time_zone, "Europe/Berlin");
        let window = wire::ScheduleSpec {
            catch_up_window: Some(windlass_api::convert::duration_to_proto(Duration::from_secs(7))),
            ..wire::ScheduleSpec::default()
        };
        let changed = change(&["spec.catch_up_window"], window.clone());
        assert_eq!(changed.catch_up_window, window.catch_up_window);
        assert_eq!(changed.timing, whole.timing);
        assert_eq!(change(&["spec"], interval.clone()), interval, "all of it");
    }
}

//! Settings for the tests.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::store::{CatchUp, Overlap, ScheduleSettings, Timing};

/// The defaults, in UTC.
pub(crate) fn settings(timing: Timing) -> ScheduleSettings {
    ScheduleSettings {
        timing,
        time_zone: "UTC".to_owned(),
        start: None,
        end: None,
        overlap: Overlap::Skip,
        start_deadline: Duration::from_secs(300),
        catch_up: CatchUp::None,
        catch_up_window: Duration::from_secs(3_600),
        labels: BTreeMap::new(),
    }
}

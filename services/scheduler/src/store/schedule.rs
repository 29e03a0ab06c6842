//! Schedules as they are stored: what a person set, and how far their fires have come.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use windlass_ids::{Namespace, RunId, RunName, ScheduleId, Timestamp};

use super::{PackedDefinition, ScheduleSecret};

/// Most fires that a schedule remembers.
pub const MAX_FIRES: usize = 20;

/// A schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Id.
    pub id: ScheduleId,
    /// Namespace of its runs.
    pub namespace: Namespace,
    /// Name, unique in the namespace.
    pub name: String,
    /// Grows by one with every write; a write is refused unless it follows the stored one.
    pub version: u64,
    /// Grows by one with every change by a person.
    pub generation: u64,
    /// When it was made.
    pub created: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// When a person changed it last.
    pub updated: Timestamp,
    /// Who changed it last.
    pub updated_by: String,
    /// Name of the pipeline.
    pub pipeline: String,
    /// Whether it does not fire.
    pub paused: bool,
    /// Its secrets.
    pub secret: Option<ScheduleSecret>,
    /// When it fires, and what is done about late fires.
    pub settings: ScheduleSettings,
    /// How far its fires have come.
    pub progress: ScheduleProgress,
}

/// What a person sets.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleSettings {
    /// When it fires.
    pub timing: Timing,
    /// IANA name of the zone that patterns are read in.
    pub time_zone: String,
    /// Nothing fires before it.
    pub start: Option<Timestamp>,
    /// Nothing fires after it.
    pub end: Option<Timestamp>,
    /// What is done when a run has not ended at the next fire.
    pub overlap: Overlap,
    /// A fire that is later than this is missed.
    pub start_deadline: Duration,
    /// What is done about missed fires.
    pub catch_up: CatchUp,
    /// How far back they are caught up.
    pub catch_up_window: Duration,
    /// Labels of the runs.
    pub labels: BTreeMap<String, String>,
}

/// When a schedule fires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Timing {
    /// At the times of a pattern of five fields.
    Cron(String),
    /// At `anchor` and every so often after it.
    Interval {
        /// What it is counted from.
        anchor: Timestamp,
        /// From one fire to the next.
        every: Duration,
    },
    /// Once.
    Once(Timestamp),
}

macro_rules! coded {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $code,)*
        }

        impl $name {
            /// The value of a stored code.
            pub fn from_code(code: u8) -> Option<Self> {
                [$(Self::$variant),*].into_iter().find(|value| *value as u8 == code)
            }
        }
    };
}

coded! {
    /// What is done when a run of the schedule has not ended at the next fire. The numbers are stored: never reuse one.
    Overlap {
        /// Both run.
        Allow = 1,
        /// The fire is skipped.
        Skip = 2,
        /// What runs is cancelled.
        Replace = 3,
    }
}

coded! {
    /// What is done about missed fires. The numbers are stored: never reuse one.
    CatchUp {
        /// They are skipped.
        None = 1,
        /// The newest one runs.
        Last = 2,
        /// All run.
        All = 3,
    }
}

coded! {
    /// What became of a fire. The numbers are stored: never reuse one.
    FireOutcome {
        /// It has a run.
        Started = 1,
        /// It has a run that a person asked for.
        Triggered = 2,
        /// Skipped: missed, and not caught up.
        Missed = 3,
        /// Skipped: a run had not ended.
        Overlapped = 4,
        /// Its pipeline was refused.
        Refused = 5,
    }
}

/// How far the fires of a schedule have come.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleProgress {
    /// Every fire up to this time is dealt with.
    pub position: Timestamp,
    /// The first fire after it; none when there is none.
    pub next: Option<Timestamp>,
    /// The newest fires, oldest first, at most [`MAX_FIRES`].
    pub fires: VecDeque<FireRecord>,
    /// Runs that it started.
    pub started: u64,
    /// Fires that were skipped or refused.
    pub skipped: u64,
}

/// A fire, or several that were skipped one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FireRecord {
    /// When the first one was due.
    pub time: Timestamp,
    /// When the last one was due.
    pub last: Timestamp,
    /// How many.
    pub count: u64,
    /// What became of it.
    pub outcome: FireOutcome,
    /// Its run.
    pub run: Option<(RunId, RunName)>,
    /// Why, for people.
    pub message: String,
    /// When it was dealt with.
    pub recorded: Timestamp,
}

impl ScheduleProgress {
    /// Of a new schedule, whose fires after `position` count.
    pub fn new(position: Timestamp, next: Option<Timestamp>) -> Self {
        Self {
            position,
            next,
            fires: VecDeque::new(),
            started: 0,
            skipped: 0,
        }
    }

    /// Remembers a fire; the oldest one goes when there are too many, and what was skipped for the same reason right before becomes one
    /// with it.
    pub fn record(&mut self, fire: FireRecord) {
        match fire.run {
            Some(_) => self.started += 1,
            None => self.skipped += fire.count,
        }
        if let Some(newest) = self.fires.back_mut()
            && newest.run.is_none()
            && fire.run.is_none()
            && (newest.outcome, &newest.message) == (fire.outcome, &fire.message)
        {
            newest.last = fire.last;
            newest.count += fire.count;
            newest.recorded = fire.recorded;
            return;
        }
        self.fires.push_back(fire);
        while self.fires.len() > MAX_FIRES {
            self.fires.pop_front();
        }
    }
}

/// What becomes of a schedule in a commit.
#[derive(Clone, Debug)]
pub enum ScheduleWrite {
    /// It is new (version 1), or has changed by one version.
    Put {
        /// The schedule.
        schedule: Arc<Schedule>,
        /// What it runs, when that is new.
        definition: Option<PackedDefinition>,
    },
    /// It is gone.
    Delete {
        /// The schedule.
        schedule: ScheduleId,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(minute: i64, outcome: FireOutcome) -> FireRecord {
        let time = Timestamp::from_millis(minute * 60_000);
        FireRecord {
            time,
            last: time,
            count: 1,
            outcome,
            run: None,
            message: String::new(),
            recorded: time,
        }
    }

    #[test]
    fn i11_fires_that_are_skipped_in_a_row_are_one_entry_and_the_oldest_go() {
        let mut progress = ScheduleProgress::new(Timestamp::default(), None);
        for minute in 0..1_000 {
            progress.record(skipped(minute, FireOutcome::Overlapped));
        }
        assert_eq!(progress.fires.len(), 1);
        assert_eq!(progress.fires[0].count, 1_000);
        assert_eq!(progress.fires[0].last.as_millis(), 999 * 60_000);
        for minute in 1_000..1_100 {
            let outcome = [FireOutcome::Missed, FireOutcome::Overlapped][(minute % 2) as usize];
            progress.record(skipped(minute, outcome));
        }
        assert_eq!(progress.fires.len(), MAX_FIRES);
        assert_eq!(progress.skipped, 1_100);
        assert_eq!(progress.fires[0].time.as_millis(), 1_080 * 60_000);
    }

    #[test]
    fn codes_are_read_back() {
        for code in 0..=u8::MAX {
            assert_eq!(
                Overlap::from_code(code).map_or(0, |value| value as u8),
                if code <= 3 { code } else { 0 }
            );
            assert_eq!(
                CatchUp::from_code(code).map_or(0, |value| value as u8),
                if code <= 3 { code } else { 0 }
            );
            assert_eq!(
                FireOutcome::from_code(code).map_or(0, |value| value as u8),
                if code <= 5 { code } else { 0 }
            );
        }
    }
}

//! What is done about the fires that are due: which one starts, and which are skipped.

use std::collections::VecDeque;

use windlass_ids::Timestamp;

use super::calendar::Calendar;
use crate::store::{CatchUp, ScheduleSettings};

/// Most missed fires that are caught up one by one; of more, the newest.
pub(crate) const MAX_CAUGHT_UP: usize = 1_000;

/// Most missed fires that are counted; beyond, a schedule jumps to where catching up begins.
const MAX_COUNTED: u64 = 100_000;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Fires before `start` that are skipped.
    pub(crate) skipped: Option<Skipped>,
    /// The fire that starts.
    pub(crate) start: Option<Timestamp>,
    /// Up to here every fire is dealt with once this is done.
    pub(crate) position: Timestamp,
    /// The first fire after `position`.
    pub(crate) next: Option<Timestamp>,
}

/// Fires that are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Skipped {
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    pub(crate) count: u64,
}

/// Plans what is due at `now`, after `position`. Nothing is due when there is neither a start nor anything skipped.
pub(crate) fn plan(calendar: &Calendar, settings: &ScheduleSettings, position: Timestamp, now: Timestamp) -> Plan {
    let (reach, most) = match settings.catch_up {
        CatchUp::None => (settings.start_deadline, 1),
        CatchUp::Last => (settings.start_deadline.max(settings.catch_up_window), 1),
        CatchUp::All => (settings.start_deadline.max(settings.catch_up_window), MAX_CAUGHT_UP),
    };
    let reach = i64::try_from(reach.as_millis()).unwrap_or(i64::MAX);
    let oldest = Timestamp::from_millis(now.as_millis().saturating_sub(reach));
    let mut walk = Walk {
        skipped: None,
        kept: VecDeque::new(),
        most,
    };
    let mut cursor = position;
    while let Some(fire) = calendar.next_after(cursor).filter(|fire| *fire <= now) {
        cursor = fire;
        if fire < oldest {
            walk.skip(fire);
            if walk.skipped.is_some_and(|skipped| skipped.count >= MAX_COUNTED) {
                cursor = Timestamp::from_millis(oldest.as_millis().saturating_sub(1)).max(fire);
            }
            continue;
        }
        walk.keep(fire);
        // With so many at most, none of those that follow takes its place: they are looked at when their turn comes.
        let most_after = (now.as_millis() - fire.as_millis()) / calendar.least_gap();
        if walk.kept.len() == 1 && most_after < i64::try_from(most).unwrap_or(i64::MAX) {
            break;
        }
    }
    let start = walk.kept.front().copied();
    let position = start.unwrap_or(cursor);
    Plan {
        skipped: walk.skipped,
        start,
        position,
        next: calendar.next_after(position),
    }
}

struct Walk {
    skipped: Option<Skipped>,
    kept: VecDeque<Timestamp>,
    most: usize,
}

impl Walk {
    fn keep(&mut self, fire: Timestamp) {
        self.kept.push_back(fire);
        if self.kept.len() > self.most
            && let Some(overtaken) = self.kept.pop_front()
        {
            self.skip(overtaken);
        }
    }

    fn skip(&mut self, fire: Timestamp) {
        let skipped = self.skipped.get_or_insert(Skipped {
            first: fire,
            last: fire,
            count: 0,
        });
        skipped.last = fire;
        skipped.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::schedules::testing::settings;
    use crate::store::Timing;

    const MINUTE: i64 = 60_000;

    fn minute(number: i64) -> Timestamp {
        Timestamp::from_millis(number * MINUTE)
    }

    fn every_minute(catch_up: CatchUp, window: Duration) -> ScheduleSettings {
        ScheduleSettings {
            catch_up,
            catch_up_window: window,
            ..settings(Timing::Cron("* * * * *".to_owned()))
        }
    }

    /// Plans until nothing is due: what was started, and what was skipped.
    fn drain(settings: &ScheduleSettings, from: Timestamp, now: Timestamp) -> (Vec<i64>, u64, Timestamp) {
        let calendar = Calendar::of(settings).expect("a calendar");
        let (mut started, mut skipped, mut position) = (Vec::new(), 0, from);
        loop {
            let plan = plan(&calendar, settings, position, now);
            assert!(plan.position >= position, "{plan:?}");
            assert!(plan.next.is_none_or(|next| next > plan.position), "{plan:?}");
            if plan.start.is_none() && plan.skipped.is_none() {
                return (started, skipped, position);
            }
            position = plan.position;
            skipped += plan.skipped.map_or(0, |skipped| skipped.count);
            started.extend(plan.start.map(|start| start.as_millis() / MINUTE));
        }
    }

    #[test]
    fn down_over_a_thousand_fires_each_policy_does_what_it_says() {
        // Due at 1 to 1,200; it is half past 1,200.
        let now = Timestamp::from_millis(1_200 * MINUTE + MINUTE / 2);
        let day = Duration::from_secs(86_400);
        let with = |catch_up, window| drain(&every_minute(catch_up, window), minute(0), now);
        assert_eq!(with(CatchUp::None, day), (vec![1_200], 1_199, minute(1_200)));
        assert_eq!(with(CatchUp::Last, day), (vec![1_200], 1_199, minute(1_200)));
        let (started, skipped, position) = with(CatchUp::All, day);
        assert_eq!(started, (201..=1_200).collect::<Vec<_>>(), "the newest thousand");
        assert_eq!((skipped, position), (200, minute(1_200)));
        let (started, skipped, _) = with(CatchUp::All, Duration::from_secs(600));
        assert_eq!(started, (1_191..=1_200).collect::<Vec<_>>(), "those of ten minutes");
        assert_eq!(skipped, 1_190);
    }

    #[test]
    fn a_fire_that_is_later_than_its_deadline_is_missed() {
        let hourly = |catch_up| ScheduleSettings {
            timing: Timing::Cron("0 * * * *".to_owned()),
            ..every_minute(catch_up, Duration::from_secs(3_000))
        };
        // Due at minute 60. The deadline is five minutes, the window fifty.
        for (late, none, last) in [
            (0, true, true),
            (5, true, true),
            (6, false, true),
            (50, false, true),
            (51, false, false),
        ] {
            let started = |catch_up| !drain(&hourly(catch_up), minute(0), minute(60 + late)).0.is_empty();
            assert_eq!(started(CatchUp::None), none, "{late} minutes late");
            assert_eq!(started(CatchUp::Last), last, "{late} minutes late");
        }
    }

    #[test]
    fn i11_years_of_missed_fires_are_dealt_with_in_a_moment() {
        let settings = ScheduleSettings {
            timing: Timing::Interval {
                anchor: minute(0),
                every: Duration::from_secs(1),
            },
            ..every_minute(CatchUp::Last, Duration::from_secs(3_600))
        };
        let now = minute(525_600 * 5);
        let (started, skipped, position) = drain(&settings, minute(0), now);
        assert_eq!((started.len(), position), (1, now));
        assert!(skipped >= MAX_COUNTED);
    }

    #[test]
    fn nothing_due_is_nothing_done() {
        let settings = every_minute(CatchUp::All, Duration::from_secs(3_600));
        let calendar = Calendar::of(&settings).expect("a calendar");
        let plan = plan(&calendar, &settings, minute(7), minute(7));
        assert_eq!((plan.start, plan.skipped, plan.position), (None, None, minute(7)));
        assert_eq!(plan.next, Some(minute(8)));
    }
}

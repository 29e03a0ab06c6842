//! Schedules as readers see them: what is durable.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use windlass_ids::Namespace;

use crate::store::Schedule;

/// Namespace and name.
pub(crate) type ScheduleKey = (Namespace, String);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ScheduleModel(RwLock<BTreeMap<ScheduleKey, Arc<Schedule>>>);

impl ScheduleModel {
    /// A schedule that is durable.
    pub(crate) fn get(&self, namespace: &Namespace, name: &str) -> Option<Arc<Schedule>> {
        let schedules = self.0.read().unwrap_or_else(PoisonError::into_inner);
        schedules.get(&(namespace.clone(), name.to_owned())).cloned()
    }

    /// The schedules after `after`, of one namespace or of those for which `sees` holds, at most `limit`, in order.
    pub(crate) fn list(
        &self,
        namespace: Option<&Namespace>,
        sees: impl Fn(&Namespace) -> bool,
        after: Option<ScheduleKey>,
        limit: usize,
    ) -> Vec<Arc<Schedule>> {
        let first = match (after, namespace) {
            (Some(after), _) => Bound::Excluded(after),
            (None, Some(namespace)) => Bound::Included((namespace.clone(), String::new())),
            (None, None) => Bound::Unbounded,
        };
        let schedules = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let found = schedules
            .range((first, Bound::Unbounded))
            .take_while(|((of, _), _)| namespace.is_none_or(|namespace| namespace == of))
            .filter(|((of, _), _)| sees(of));
        found.take(limit).map(|(_, schedule)| Arc::clone(schedule)).collect()
    }

    /// Shows a schedule as it is now; `None` when it is gone.
    pub(crate) fn set(&self, key: ScheduleKey, schedule: Option<Arc<Schedule>>) {
        let mut schedules = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match schedule {
            Some(schedule) => drop(schedules.insert(key, schedule)),
            None => drop(schedules.remove(&key)),
        }
    }

    /// Forgets everything: the state is being read back.
    pub(crate) fn clear(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

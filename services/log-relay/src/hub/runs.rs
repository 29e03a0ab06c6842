//! What the scheduler says of the runs that somebody reads: their sources, steps and end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;
use windlass_api::follow::v1::{LogSource, RunUpdate, StepName, SubscribeRun};
use windlass_ids::RunId;

use crate::outbox::Outbox;

/// The subscribed runs.
#[derive(Debug)]
pub(crate) struct Runs {
    outbox: Arc<Outbox>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    by_number: BTreeMap<u64, Weak<RunWatch>>,
    by_name: BTreeMap<(String, String), Weak<RunWatch>>,
}

/// One subscribed run, shared by its readers; the last of them ends the subscription.
#[derive(Debug)]
pub(crate) struct RunWatch {
    subscription: u64,
    outbox: Arc<Outbox>,
    view: Mutex<RunView>,
    version: watch::Sender<u64>,
}

/// What is known of a run.
#[derive(Debug, Default)]
pub(crate) struct RunView {
    pub(crate) run: Option<RunId>,
    pub(crate) name: String,
    /// By (step, attempt); with the version of the last change.
    sources: BTreeMap<(u32, u32), (u64, Arc<LogSource>)>,
    changed: BTreeSet<(u64, u32, u32)>,
    pub(crate) steps: BTreeMap<u32, StepName>,
    /// Everything that was known at the subscription has come.
    pub(crate) synced: bool,
    /// Set when the run has ended.
    pub(crate) ended_state: Option<String>,
    /// Why the run cannot be read: a code and a text.
    pub(crate) refused: Option<(u32, String)>,
    version: u64,
}

impl Runs {
    pub(crate) fn new(outbox: Arc<Outbox>) -> Self {
        Self {
            outbox,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a run; all who ask for the same name share one subscription.
    pub(crate) fn watch(&self, namespace: &str, run: &str) -> Arc<RunWatch> {
        let name = (namespace.to_owned(), run.to_owned());
        let mut state = self.state();
        // A run that was refused may be there by now, and a name may mean another run after a while.
        if let Some(watch) = state.by_name.get(&name).and_then(Weak::upgrade)
            && watch.view().refused.is_none()
        {
            return watch;
        }
        state.last += 1;
        let watch = Arc::new(RunWatch {
            subscription: state.last,
            outbox: Arc::clone(&self.outbox),
            view: Mutex::default(),
            version: watch::Sender::new(0),
        });
        state.by_number.retain(|_, watch| watch.strong_count() > 0);
        state.by_name.retain(|_, watch| watch.strong_count() > 0);
        let number = state.last;
        state.by_number.insert(number, Arc::downgrade(&watch));
        state.by_name.insert(name, Arc::downgrade(&watch));
        drop(state);
        self.outbox.subscribe(SubscribeRun {
            subscription: watch.subscription,
            namespace: namespace.to_owned(),
            run: run.to_owned(),
        });
        watch
    }

    /// Takes over what the scheduler says.
    pub(crate) fn update(&self, update: RunUpdate) {
        let watch = self.state().by_number.get(&update.subscription).and_then(Weak::upgrade);
        if let Some(watch) = watch {
            let version = watch.view().take(update);
            watch.version.send_replace(version);
        }
    }
}

impl RunWatch {
    /// What is known.
    pub(crate) fn view(&self) -> MutexGuard<'_, RunView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes with every news.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

impl Drop for RunWatch {
    fn drop(&mut self) {
        self.outbox.unsubscribe(self.subscription);
    }
}

impl RunView {
    fn take(&mut self, update: RunUpdate) -> u64 {
        self.version += 1;
        if update.code != 0 {
            self.refused = Some((update.code, update.message));
            return self.version;
        }
        self.run = RunId::from_slice(&update.run_id).or(self.run);
        if !update.run_name.is_empty() {
            self.name = update.run_name;
        }
        for step in update.steps {
            self.steps.insert(step.index, step);
        }
        for source in update.sources {
            let key = (source.step, source.attempt);
            let entry = (self.version, Arc::new(source));
            if let Some((before, _)) = self.sources.insert(key, entry) {
                self.changed.remove(&(before, key.0, key.1));
            }
            self.changed.insert((self.version, key.0, key.1));
        }
        self.synced |= update.synced;
        if !update.ended_state.is_empty() {
            self.ended_state = Some(update.ended_state);
        }
        self.version
    }

    /// Number of a step's newest attempt.
    pub(crate) fn newest_attempt(&self, step: u32) -> Option<u32> {
        let attempts = self.sources.range((step, 0)..=(step, u32::MAX));
        attempts.map(|((_, attempt), _)| *attempt).next_back()
    }

    /// Sources that came or changed after a version, and the present version.
    pub(crate) fn news_since(&self, version: u64) -> (Vec<Arc<LogSource>>, u64) {
        let changed = self.changed.range((version + 1, 0, 0)..);
        let mut keys: Vec<(u32, u32)> = changed.map(|(_, step, attempt)| (*step, *attempt)).collect();
        keys.sort_unstable();
        let news = keys.iter().filter_map(|key| self.sources.get(key));
        (news.map(|(_, source)| Arc::clone(source)).collect(), self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(step: u32, attempt: u32, ended: bool) -> LogSource {
        LogSource {
            step,
            attempt,
            ended,
            ..LogSource::default()
        }
    }

    #[test]
    fn news_are_told_once_and_in_their_last_form() {
        let mut view = RunView::default();
        let sources = vec![source(0, 1, false), source(1, 1, false)];
        view.take(RunUpdate {
            sources,
            synced: true,
            ..RunUpdate::default()
        });
        let (news, version) = view.news_since(0);
        assert_eq!(news.len(), 2);
        view.take(RunUpdate {
            sources: vec![source(1, 1, true)],
            ..RunUpdate::default()
        });
        view.take(RunUpdate {
            sources: vec![source(1, 2, false)],
            ..RunUpdate::default()
        });
        let (news, version) = view.news_since(version);
        let news: Vec<_> = news
            .iter()
            .map(|source| (source.step, source.attempt, source.ended))
            .collect();
        assert_eq!(news, [(1, 1, true), (1, 2, false)]);
        assert!(view.news_since(version).0.is_empty());
    }
}

//! Who feeds what: containers are asked for from the executor that leases them, as soon as that is connected.

use std::sync::Arc;

use super::*;

impl Hub {
    /// An executor has connected.
    pub(crate) fn session_began(self: &Arc<Self>, incarnation: &str) -> Arc<Session> {
        let id = self.next_session.fetch_add(1, Ordering::Relaxed);
        let session = Arc::new(Session::new(id, incarnation.to_owned()));
        let keys: Vec<AttemptKey> = {
            let mut owned = self.owned();
            owned.sessions.insert(id, Arc::clone(&session));
            let fed = |attempt: &Attempt| attempt.source.executor == incarnation;
            owned
                .attempts
                .iter()
                .filter(|(_, attempt)| fed(attempt))
                .map(|(key, _)| key.clone())
                .collect()
        };
        keys.iter().for_each(|key| self.want_attempt(key));
        metrics::feed_sessions(1.0);
        session
    }

    /// An executor's session is over; what it fed is asked for elsewhere or again.
    pub(crate) async fn session_ended(&self, session: &Arc<Session>) {
        session.closed.cancel();
        self.owned().sessions.remove(&session.id);
        metrics::feed_sessions(-1.0);
        for container in session.containers() {
            let Some(feed) = container.link().feed.filter(|feed| feed.session == session.id) else {
                continue;
            };
            let then = Detached::SessionClosed;
            self.writer.send(Job::Detach { container, feed, then }).await;
        }
    }

    /// Asks for the containers of an attempt that are wanted and not asked for.
    pub(crate) fn want_attempt(self: &Arc<Self>, key: &AttemptKey) {
        let containers: Vec<Arc<Container>> = {
            let owned = self.owned();
            let Some(attempt) = owned.attempts.get(key) else { return };
            attempt.containers.values().cloned().collect()
        };
        containers.iter().for_each(|container| self.want(container));
    }

    /// Asks for a container, when it is wanted and not asked for yet.
    pub(crate) fn want(self: &Arc<Self>, container: &Arc<Container>) {
        if container.finished().is_some() {
            return;
        }
        let Some(session) = self.feeder(container) else { return };
        {
            let mut link = container.link();
            if link.asked == Some(session.id) || link.backing_off == Some(session.id) {
                return;
            }
            link.asked = Some(session.id);
        }
        let (hub, container) = (Arc::clone(self), Arc::clone(container));
        let open = async move {
            hub.writer.send(Job::Open { container, session }).await;
        };
        self.tasks.spawn_on(open, &self.runtime);
    }

    /// The newest session of the executor that leases a container's shard, when the container is wanted.
    fn feeder(&self, container: &Container) -> Option<Arc<Session>> {
        let owned = self.owned();
        let attempt = owned.attempts.get(&container.key.attempt)?;
        if attempt.source.on_demand && !container.is_watched() {
            return None;
        }
        let executor = &attempt.source.executor;
        let mut sessions = owned.sessions.values().rev();
        sessions.find(|session| session.incarnation == *executor).cloned()
    }

    /// Asks again after a while.
    pub(crate) fn retry_later(self: &Arc<Self>, container: Arc<Container>, failures: u32) {
        let hub = Arc::clone(self);
        let retry = async move {
            let delay = backoff_after(FEED_BACKOFF, failures);
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = hub.shutdown.cancelled() => return,
            }
            container.link().backing_off = None;
            hub.want(&container);
        };
        self.tasks.spawn_on(retry, &self.runtime);
    }

    /// Tells an executor that a stream is no longer wanted.
    pub(crate) fn close_feed(&self, feed: Option<FeedRef>) {
        let Some(feed) = feed else { return };
        let session = self.owned().sessions.get(&feed.session).cloned();
        if let Some(session) = session {
            session.close(feed.stream);
        }
    }
}

impl Hub {
    /// A reader has left: what is read only on demand is no longer read for nobody.
    pub(crate) async fn left(&self, container: &Arc<Container>, listener: &Listener) {
        container.leave(listener);
        let on_demand = self
            .source_of(&container.key.attempt)
            .is_some_and(|source| source.on_demand);
        if on_demand && !container.is_watched() {
            let container = Arc::clone(container);
            self.consider_sealing(&container.key.attempt);
            self.writer.send(Job::Revoke { container }).await;
        }
    }
}

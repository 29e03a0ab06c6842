//! How it stands with a container whose log is read: told by the agent as it happens, and by a read of the pod where that is not
//! enough.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use windlass_api::feed::v1::FeedOpen;
use windlass_service::Backoff;

use super::container::{BACKOFF, MAX_FAILURES, Sources, Stopped};
use crate::agent::{ContainerPhase, Containers, Event, FollowRequest, containers_of};
use crate::attempts::SecretUse;

/// A pod of which nothing was heard for so long is read: a missed notification costs time, nothing else (I6).
const TICK: Duration = Duration::from_secs(60);

/// How it stands with a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing is known: what reading gives will tell.
    Unknown,
    /// Not started.
    Waiting,
    /// Running.
    Running,
    /// Ended.
    Ended,
}

/// A container and what is known of it.
pub(super) struct Watched {
    sources: Sources,
    open: FeedOpen,
    news: watch::Receiver<Containers>,
    /// Secrets that the pod uses, once the pod was seen.
    secrets: Option<Option<Arc<[SecretUse]>>>,
}

impl Watched {
    /// Begins to hear of a container.
    pub(super) async fn begin(sources: &Sources, open: &FeedOpen) -> Result<Self, Stopped> {
        let (reply, answer) = oneshot::channel();
        let request = FollowRequest {
            uid: open.pod_uid.clone(),
            reply,
        };
        let sent = sources.agent.send(Event::Follow(request)).await;
        sent.map_err(|_| Stopped::Closed)?;
        Ok(Self {
            sources: sources.clone(),
            open: open.clone(),
            news: answer.await.map_err(|_| Stopped::Closed)?,
            secrets: None,
        })
    }

    /// The news, for those who wait for them beside something else.
    pub(super) fn news(&self) -> watch::Receiver<Containers> {
        self.news.clone()
    }

    /// What was heard of the container; an end when there is nothing to read, and never will be.
    fn heard(&mut self) -> Result<Standing, Stopped> {
        let known = self.news.borrow_and_update();
        if !known.phases.is_empty() {
            self.secrets = Some(known.secrets.clone());
        }
        standing(&known, &self.open.container)
    }

    /// Whether it is known that the container has ended.
    pub(super) fn has_ended(&mut self) -> Result<bool, Stopped> {
        Ok(self.heard()? == Standing::Ended)
    }

    /// Secrets that the pod uses, if any; nothing while the pod was not seen.
    pub(super) fn secrets(&self) -> Option<Option<Arc<[SecretUse]>>> {
        self.secrets.clone()
    }

    /// Reads the pod, for what stands there. An end when it is gone, or another one.
    pub(super) async fn look(&mut self) -> Result<Standing, Stopped> {
        tracing::debug!(pod = %self.open.pod_uid, known = ?*self.news.borrow(), "pod is read for its log");
        let mut backoff = Backoff::new(BACKOFF);
        for _ in 0..MAX_FAILURES {
            let api = &self.sources.api;
            match api.get_pod(&self.open.namespace, &self.open.pod_name).await {
                Ok(pod) => {
                    let found = pod.and_then(|pod| containers_of(&pod, &self.open.pod_uid));
                    let found = found.ok_or_else(Stopped::gone)?;
                    self.secrets = Some(found.secrets.clone());
                    return standing(&found, &self.open.container);
                }
                Err(_) => {
                    let delay = backoff.next_delay(&mut rand::rng());
                    tokio::time::sleep(delay).await;
                }
            }
        }
        // Not seeing is not knowing.
        Ok(Standing::Unknown)
    }

    /// Waits until the container has started; hardly anything is asked of the API server meanwhile.
    pub(super) async fn until_started(&mut self) -> Result<Standing, Stopped> {
        let mut standing = self.heard()?;
        loop {
            if standing == Standing::Unknown {
                standing = self.look().await?;
            }
            if standing != Standing::Waiting {
                return Ok(standing);
            }
            standing = match tokio::time::timeout(TICK, self.news.changed()).await {
                Ok(news) => news.map_err(|_| Stopped::Closed).and_then(|()| self.heard())?,
                Err(_) => Standing::Unknown,
            };
        }
    }

    /// Waits until the end of the container is known, for some time.
    pub(super) async fn until_ended(&mut self, most: Duration) -> Result<(), Stopped> {
        let container = self.open.container.clone();
        let over = |known: &Containers| !matches!(standing(known, &container), Ok(found) if found != Standing::Ended);
        match tokio::time::timeout(most, self.news.wait_for(over)).await {
            Ok(Err(_)) => Err(Stopped::Closed),
            Ok(Ok(_)) | Err(_) => Ok(()),
        }
    }

    /// Waits, unless there are news.
    pub(super) async fn pause(&mut self, most: Duration) -> Result<(), Stopped> {
        match tokio::time::timeout(most, self.news.changed()).await {
            Ok(Err(_)) => Err(Stopped::Closed),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }
}

/// How it stands with a container by what is known of its pod; an end when there is nothing to read, and never will be.
fn standing(known: &Containers, container: &str) -> Result<Standing, Stopped> {
    if known.gone {
        return Err(Stopped::gone());
    }
    if known.unborn {
        return Err(Stopped::complete());
    }
    match known.phases.get(container) {
        None => Ok(Standing::Unknown),
        Some(ContainerPhase::Waiting) => Ok(Standing::Waiting),
        Some(ContainerPhase::Running) => Ok(Standing::Running),
        Some(ContainerPhase::Ended) => Ok(Standing::Ended),
        // Nothing was ever written, so nothing is lost.
        Some(ContainerPhase::NeverStarted) => Err(Stopped::complete()),
    }
}

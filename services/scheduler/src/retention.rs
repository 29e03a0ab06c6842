//! Ended runs go when their time is over: found in the store, deleted by the driver, a few at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use windlass_ids::Timestamp;

use crate::driver::{Command, ExpireOrder};
use crate::metric;
use crate::shared::Shared;
use crate::store::{EndedRun, StoreError};

/// Runs of one commit, so that nobody waits long for it.
const AT_ONCE: usize = 64;
/// Runs whose logs relays have still to delete, from which no more are added.
const MOST_ORDERS: usize = 4_096;
/// Bounds on how often it is looked whose time is over.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
const MOST_PAUSE: Duration = Duration::from_secs(60);

/// How long ended runs are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunRetention(pub Option<Duration>);

impl RunRetention {
    /// 30 days.
    pub const DEFAULT: Self = Self(Some(Duration::from_secs(30 * 24 * 60 * 60)));
}

impl std::str::FromStr for RunRetention {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "never" | "0" => Ok(Self(None)),
            text => match humantime::parse_duration(text) {
                Ok(keep) if keep.is_zero() => Ok(Self(None)),
                Ok(keep) if keep >= LEAST_PAUSE => Ok(Self(Some(keep))),
                Ok(_) => Err("must be at least 1s, or `never`".to_owned()),
                Err(error) => Err(format!("{error}; such as `30d`, `12h` or `never`")),
            },
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Retention {
    pub(crate) shared: Arc<Shared>,
    pub(crate) keep: Duration,
}

impl Retention {
    /// Until shutdown. It begins after a pause, so that executors have said by then which pods there are.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let pause = (self.keep / 20).clamp(LEAST_PAUSE, MOST_PAUSE);
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return,
            }
            tokio::select! {
                passed = self.pass() => if let Err(error) = passed {
                    tracing::error!(%error, "store could not be read");
                },
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Deletes all whose time is over, the oldest first.
    async fn pass(&self) -> Result<(), StoreError> {
        let keep = i64::try_from(self.keep.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp::from_millis(self.shared.clock.now().as_millis().saturating_sub(keep));
        let mut after: Option<EndedRun> = None;
        let mut kept = 0;
        loop {
            while self.shared.relays.orders() > MOST_ORDERS {
                tokio::time::sleep(LEAST_PAUSE).await;
            }
            // The state is being read back: there is another pass.
            let Ok(store) = self.shared.store() else {
                return Ok(());
            };
            let page = store.ended_runs(before, after, AT_ONCE).await?;
            drop(store);
            let Some(last) = page.last().cloned() else { break };
            let count = page.len();
            let due: Vec<_> = page.into_iter().map(|run| run.id).collect();
            let due: Vec<_> = due.into_iter().filter(|run| !self.shared.relays.holds(*run)).collect();
            kept += count - due.len();
            if !due.is_empty() {
                let (reply, done) = oneshot::channel();
                let order = Command::Expire(ExpireOrder { runs: due, reply });
                if self.shared.inbox.send(order).await.is_err() || done.await.is_err() {
                    return Ok(());
                }
            }
            if count < AT_ONCE {
                break;
            }
            after = Some(last);
        }
        #[expect(clippy::cast_precision_loss, reason = "a statistic")]
        metrics::gauge!(metric::OVERDUE_RUNS).set(kept as f64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retention_is_a_duration_or_never() {
        let hours = |hours: u64| Ok(RunRetention(Some(Duration::from_secs(hours * 3_600))));
        assert_eq!("30d".parse(), hours(720));
        assert_eq!("12h".parse(), hours(12));
        for never in ["0", "0s", "never"] {
            assert_eq!(never.parse(), Ok(RunRetention(None)), "{never}");
        }
        let refused = |text: &str| text.parse::<RunRetention>().expect_err(text);
        assert_eq!(refused("10ms"), "must be at least 1s, or `never`");
        assert!(refused("often").ends_with("such as `30d`, `12h` or `never`"));
    }
}

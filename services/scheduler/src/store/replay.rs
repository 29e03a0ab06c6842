//! Snapshots by replaying a run through the core.

use std::fmt;
use std::sync::Arc;

use windlass_scheduling::{Change, Config, ReplayError, RunSnapshot, RunSpec, Scheduler};

use super::{RunHeader, Snapshots};

/// Restores a run in a core of its own, applies its changes and takes the snapshot; nothing is decided.
pub struct Replay<F> {
    spec: F,
}

impl<F> Replay<F>
where
    F: Fn(&RunHeader, &[u8]) -> Option<Arc<RunSpec>> + Send + Sync,
{
    /// `spec` builds the run's spec from its header and its resolved definition, as recovery does.
    pub fn new(spec: F) -> Self {
        Self { spec }
    }

    fn replay(
        spec: Arc<RunSpec>,
        base: Option<&RunSnapshot>,
        changes: &[Change],
    ) -> Result<Option<RunSnapshot>, ReplayError> {
        let run = spec.run();
        let mut core = Scheduler::new(Config::default());
        match base {
            Some(base) => core.restore(spec, base.clone())?,
            None => core.load(spec)?,
        }
        for change in changes {
            core.apply(change)?;
        }
        Ok(core.snapshot(run))
    }
}

impl<F> Snapshots for Replay<F>
where
    F: Fn(&RunHeader, &[u8]) -> Option<Arc<RunSpec>> + Send + Sync,
{
    fn snapshot(
        &self,
        header: &RunHeader,
        definition: &[u8],
        base: Option<&RunSnapshot>,
        changes: &[Change],
    ) -> Option<RunSnapshot> {
        let spec = (self.spec)(header, definition)?;
        Self::replay(spec, base, changes)
            .inspect_err(
                |error| tracing::warn!(run_id = %header.id, error = error as &dyn std::error::Error, "replay failed"),
            )
            .ok()
            .flatten()
    }
}

impl<F> fmt::Debug for Replay<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Replay").finish_non_exhaustive()
    }
}

//! Whose pod it is.

use windlass_ids::{AttemptId, InstallationId, Shard};
use windlass_manifest::{Identity, Label};

use super::wire::{Labels, Text};

/// The attempt of a pod of this installation; nothing for a pod of anybody else.
pub fn attempt_of(labels: &Labels<'_>, installation: InstallationId) -> Option<AttemptId> {
    let installed: InstallationId = labels.installation.as_ref()?.as_str().parse().ok()?;
    if installed != installation {
        return None;
    }
    let identity = Identity::from_labels(|key| {
        let label = match key {
            Label::RUN_ID => &labels.run_id,
            Label::STEP_INDEX => &labels.step_index,
            Label::ATTEMPT => &labels.attempt,
            Label::SHARD => &labels.shard,
            _ => return None,
        };
        label.as_ref().map(Text::as_str)
    })?;
    Some(identity.attempt)
}

/// The labels by which a pod is found and known.
pub fn identity_labels(attempt: AttemptId, installation: InstallationId) -> [(&'static str, String); 5] {
    [
        (Label::INSTALLATION, installation.to_string()),
        (Label::RUN_ID, attempt.run.to_string()),
        (Label::STEP_INDEX, attempt.step.to_string()),
        (Label::ATTEMPT, attempt.number.to_string()),
        (Label::SHARD, Shard::of(attempt).to_string()),
    ]
}

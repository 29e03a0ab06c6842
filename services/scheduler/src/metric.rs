//! Names of the metrics.

/// Commits that failed, each followed by a recovery.
pub(crate) const COMMIT_FAILURES: &str = "windlass_scheduler_commit_failures_total";
/// Commands that were applied in one batch.
pub(crate) const BATCH_COMMANDS: &str = "windlass_scheduler_batch_commands";
/// Commands that wait for the driver, by lane.
pub(crate) const WAITING_COMMANDS: &str = "windlass_scheduler_waiting_commands";
/// Batches that are being committed.
pub(crate) const HELD_BATCHES: &str = "windlass_scheduler_held_batches";
/// Executors with an open stream.
pub(crate) const EXECUTORS: &str = "windlass_scheduler_executors";
/// Log relays with an open stream.
pub(crate) const RELAYS: &str = "windlass_scheduler_relays";
/// Attempts whose pods wait to be released.
pub(crate) const LOG_SOURCES: &str = "windlass_scheduler_log_sources";
/// Pods that were released without a sealed log.
pub(crate) const UNSEALED_RELEASES: &str = "windlass_scheduler_unsealed_releases_total";
/// Watchers of runs.
pub(crate) const WATCHERS: &str = "windlass_scheduler_watchers";
/// Watchers that were sent away because they were too slow.
pub(crate) const SLOW_WATCHERS: &str = "windlass_scheduler_slow_watchers_total";
/// Runs that were deleted, by cause.
pub(crate) const DELETED_RUNS: &str = "windlass_scheduler_deleted_runs_total";
/// Runs whose time is over and that stay since their pods or logs are not settled, as of the last look.
pub(crate) const OVERDUE_RUNS: &str = "windlass_scheduler_overdue_runs";
/// Tries to deliver messages to other systems, by webhook and outcome (`taken`, `failed`, `refused`, `given_up`).
pub(crate) const WEBHOOK_MESSAGES: &str = "windlass_scheduler_webhook_messages_total";
/// Submissions that were refused, by reason.
pub(crate) const REFUSED_SUBMISSIONS: &str = "windlass_scheduler_refused_submissions_total";
/// Secrets of runs and schedules that nothing needs any more, and that are to be deleted.
pub(crate) const RUN_SECRETS_TO_DELETE: &str = "windlass_scheduler_run_secrets_to_delete";
/// Fires of schedules, by outcome.
pub(crate) const FIRES: &str = "windlass_scheduler_fires_total";
/// Seconds from when a fire was due to when its run was accepted.
pub(crate) const FIRE_DELAY_SECONDS: &str = "windlass_scheduler_fire_delay_seconds";

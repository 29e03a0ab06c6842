//! Names of the store's metrics.

/// Seconds a commit took, its wait for the fold included.
pub(super) const COMMIT_SECONDS: &str = "windlass_store_commit_seconds";
/// Batches that were committed together.
pub(super) const COMMIT_BATCHES: &str = "windlass_store_commit_batches";
/// Bytes of the journal that were not folded yet.
pub(super) const JOURNAL_BYTES: &str = "windlass_store_journal_bytes";
/// Bytes of the database that nothing uses, and that are used before it grows.
pub(super) const REUSABLE_BYTES: &str = "windlass_store_reusable_bytes";
/// Chunks of the journal that were folded.
pub(super) const FOLDS_TOTAL: &str = "windlass_store_folds_total";

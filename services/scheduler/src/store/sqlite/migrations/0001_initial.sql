-- Version 1. The same tables serve PostgreSQL: only types and the storage clauses (WITHOUT ROWID) differ.
--
-- Migrations run at start, in order, each in one transaction. A released migration is never edited. A change is spread over two
-- releases: the first EXPANDS (adds a table, or a column with a default, and writes both forms), a later one CONTRACTS (drops
-- the old form), so that a migration loses nothing that the release before it wrote. An older release refuses a migrated store all the
-- same: the way back is a copy.

-- One row: whose store this is.
CREATE TABLE meta (
    id             INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    schema_version INTEGER NOT NULL,
    installation   BLOB    NOT NULL CHECK (length(installation) = 16)
);

-- Who may commit, and how far commits and the fold have come. Every commit is conditional on epoch and commit_no.
CREATE TABLE partition (
    id               INTEGER NOT NULL PRIMARY KEY,
    epoch            INTEGER NOT NULL,
    commit_no        INTEGER NOT NULL,
    folded_commit_no INTEGER NOT NULL,
    last_time        INTEGER NOT NULL
);
INSERT INTO partition (id, epoch, commit_no, folded_commit_no, last_time) VALUES (0, 0, 0, 0, 0);

-- One row per commit: the packed changes of all runs (windlass.journal.v1.Commit behind a version byte). The fold empties it.
CREATE TABLE journal (
    partition INTEGER NOT NULL,
    commit_no INTEGER NOT NULL,
    epoch     INTEGER NOT NULL,
    bytes     BLOB    NOT NULL,
    PRIMARY KEY (partition, commit_no)
) WITHOUT ROWID;

-- Headers of runs, for lists. Ids sort by time, so that newest first is descending id.
CREATE TABLE run (
    id            BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    namespace     TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    pipeline      TEXT    NOT NULL,
    state         INTEGER NOT NULL,
    submitted_by  TEXT    NOT NULL,
    created       INTEGER NOT NULL,
    started       INTEGER,
    ended         INTEGER,
    last_sequence INTEGER NOT NULL,
    history_from  INTEGER NOT NULL,
    fixed         BLOB    NOT NULL,
    progress      BLOB    NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX run_by_name ON run (namespace, name);
CREATE INDEX run_by_namespace ON run (namespace, id);
CREATE INDEX run_by_state ON run (state, id);
CREATE INDEX run_by_pipeline ON run (pipeline, id);
CREATE INDEX run_by_submitter ON run (submitted_by, id);

CREATE TABLE run_label (
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    run   BLOB NOT NULL,
    PRIMARY KEY (key, value, run)
) WITHOUT ROWID;

-- Requests that were carried out. They outlive the history of their run, so that a late repetition is still recognised.
CREATE TABLE request_key (
    namespace  TEXT    NOT NULL,
    request_id TEXT    NOT NULL,
    operation  INTEGER NOT NULL,
    digest     BLOB    NOT NULL,
    run        BLOB,
    outcome    BLOB    NOT NULL,
    created    INTEGER NOT NULL,
    expires    INTEGER,
    PRIMARY KEY (namespace, request_id)
) WITHOUT ROWID;
CREATE INDEX request_key_by_run ON request_key (run) WHERE run IS NOT NULL;
CREATE INDEX request_key_by_expiry ON request_key (expires) WHERE expires IS NOT NULL;

-- What was submitted (kind 1, canonical YAML) and what it was resolved to (kind 2), in parts of at most 1 MiB.
CREATE TABLE definition (
    run      BLOB    NOT NULL,
    kind     INTEGER NOT NULL,
    part     INTEGER NOT NULL,
    encoding INTEGER NOT NULL,
    bytes    BLOB    NOT NULL,
    PRIMARY KEY (run, kind, part)
) WITHOUT ROWID;

-- The newest snapshot of an active run, so that recovery replays only what came after it.
CREATE TABLE snapshot (
    run       BLOB    NOT NULL PRIMARY KEY,
    commit_no INTEGER NOT NULL,
    sequence  INTEGER NOT NULL,
    bytes     BLOB    NOT NULL
) WITHOUT ROWID;

-- Folded changes of each run, in parts of at most 1 MiB.
CREATE TABLE run_history (
    run       BLOB    NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq  INTEGER NOT NULL,
    bytes     BLOB    NOT NULL,
    PRIMARY KEY (run, first_seq)
) WITHOUT ROWID;

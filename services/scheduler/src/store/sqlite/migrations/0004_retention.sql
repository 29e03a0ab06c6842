-- Version 4: runs expire, and others are told of their ends. It only adds.

-- Runs that are gone: what a reader is told of them, and which logs relays may delete that were away meanwhile. `swept` is 0 while
-- the fold has still to delete their histories and definitions, and nobody can read these any more.
CREATE TABLE deleted_run (
    run       BLOB    NOT NULL PRIMARY KEY CHECK (length(run) = 16),
    namespace TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    time      INTEGER NOT NULL,
    cause     INTEGER NOT NULL,
    swept     INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX deleted_run_by_name ON deleted_run (namespace, name, time);
CREATE INDEX deleted_run_by_time ON deleted_run (time);
CREATE INDEX deleted_run_unswept ON deleted_run (run) WHERE swept = 0;

-- Which runs have ended for how long.
CREATE INDEX run_by_end ON run (ended, id) WHERE ended IS NOT NULL;

-- Messages to other systems that are not delivered yet, with the bytes that are sent. They outlive their run.
CREATE TABLE delivery (
    id       TEXT    NOT NULL PRIMARY KEY,
    target   TEXT    NOT NULL,
    run      BLOB    NOT NULL,
    body     BLOB    NOT NULL,
    created  INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    due      INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX delivery_by_due ON delivery (target, due);

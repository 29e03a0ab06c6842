-- Version 3: secrets of runs. It only adds.

-- Where the Secret of a run may be: written with the run before it is made, deleted when it is known to be gone. It outlives the run, and
-- no value is in it.
CREATE TABLE run_secret (
    run       BLOB    NOT NULL CHECK (length(run) = 16),
    cluster   TEXT    NOT NULL,
    alias     TEXT    NOT NULL,
    namespace TEXT    NOT NULL,
    run_name  TEXT    NOT NULL,
    PRIMARY KEY (run, cluster)
) WITHOUT ROWID;

-- Version 2: schedules. It only adds: a program of version 1 refuses the database, and one of version 2 reads what version 1 wrote.

-- What a person set and how far the fires have come (windlass.journal.v1.StoredSchedule). Every write follows the stored version.
-- What a schedule runs is in `definition`, kind 3, under its own id.
CREATE TABLE schedule (
    id        BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    namespace TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    version   INTEGER NOT NULL,
    content   BLOB    NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX schedule_by_name ON schedule (namespace, name);

-- The fire that a run is the run of. A schedule has one run of a time; one that was triggered has no time.
ALTER TABLE run ADD COLUMN schedule BLOB;
ALTER TABLE run ADD COLUMN scheduled_time INTEGER;
CREATE UNIQUE INDEX run_by_fire ON run (schedule, scheduled_time) WHERE scheduled_time IS NOT NULL;

-- Version 5: secrets of schedules. It only adds.

-- The schedule whose Secret it is. Then `run` has the id of the values and `run_name` the name of the schedule: other values of it have
-- another row. Without one it is the Secret of a run.
ALTER TABLE run_secret ADD COLUMN schedule BLOB;

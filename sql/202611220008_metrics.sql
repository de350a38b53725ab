-- What attempts took, counted once and kept small, so that a day of ten million attempts is read in milliseconds.

-- When the attempt was due: its wait is leased_at less this. Null on attempts of workers of an earlier release.
ALTER TABLE job_attempts ADD COLUMN next_run_at timestamptz;
ALTER INDEX idx_job_attempts_finished SET (autosummarize = on);

-- Ended attempts by hours: how many for each name, measure and bucket of a logarithmic scale. The series any,
-- global and one for each organization count job types; worker counts workers. Filled by the reaper, off the path of jobs.
CREATE TABLE job_metrics_rollup (
    series text NOT NULL,
    slot timestamptz NOT NULL,
    name text NOT NULL,
    measure text NOT NULL, -- an outcome, WAIT or DURATION
    bucket smallint NOT NULL,
    attempts bigint NOT NULL,
    CONSTRAINT pk_job_metrics_rollup PRIMARY KEY (series, slot, name, measure, bucket),
    CONSTRAINT ck_job_metrics_rollup_attempts CHECK (attempts > 0)
) WITH (fillfactor = 70);

CREATE INDEX idx_job_metrics_rollup_slot ON job_metrics_rollup USING brin (slot) WITH (pages_per_range = 16);

-- One row: attempts that finished before counted_until are in the roll-up. It never passes safe_until, before which no
-- transaction can still write: every one that had an id at seen_at, which is all below seen_xid, has to have ended.
CREATE TABLE job_metrics_progress (
    id integer NOT NULL,
    counted_until timestamptz NOT NULL,
    safe_until timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    seen_xid bigint NOT NULL,
    CONSTRAINT pk_job_metrics_progress PRIMARY KEY (id),
    CONSTRAINT ck_job_metrics_progress_one_row CHECK (id = 1)
);

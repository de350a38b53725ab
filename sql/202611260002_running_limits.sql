-- How many jobs of a type may run at once, and how many may start in a span of time, over all hosts.

-- A claim counts the leases that count against a limit, and nothing is kept up to date: however an attempt ends, its
-- lease goes, and its place is free.
ALTER TABLE job_definitions
    ADD COLUMN max_running integer,
    ADD COLUMN rate_starts integer,
    ADD COLUMN rate_seconds integer,
    ADD CONSTRAINT ck_job_definitions_limits_positive CHECK (max_running > 0 AND rate_starts > 0 AND rate_seconds > 0),
    ADD CONSTRAINT ck_job_definitions_rate_whole CHECK ((rate_starts IS NULL) = (rate_seconds IS NULL));

ALTER TABLE job_leases ADD COLUMN is_limited boolean NOT NULL DEFAULT false;
CREATE INDEX idx_job_leases_limited ON job_leases (job_type) WHERE is_limited;

-- The starts that count against a rate, kept until they are too old to count.
CREATE TABLE job_starts (
    job_type text NOT NULL,
    started_at timestamptz NOT NULL,
    lease_token bigint NOT NULL,
    CONSTRAINT pk_job_starts PRIMARY KEY (job_type, started_at, lease_token)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_analyze_scale_factor = 0,
        autovacuum_analyze_threshold = 20000);

-- How many jobs of a type may run at once, over all hosts.

-- A claim counts the leases that count against a limit, and nothing is kept up to date: however an attempt ends, its
-- lease goes, and its place is free.
ALTER TABLE job_definitions
    ADD COLUMN max_running integer,
    ADD CONSTRAINT ck_job_definitions_max_running_positive CHECK (max_running > 0);

ALTER TABLE job_leases ADD COLUMN is_limited boolean NOT NULL DEFAULT false;
CREATE INDEX idx_job_leases_limited ON job_leases (job_type) WHERE is_limited;

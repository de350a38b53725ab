-- Which worker processes there are, as the keeper of each host says: for people who ask why nothing runs. Nothing that
-- claims, settles or recovers reads it, so a wrong row here can mislead a person and never a job.
-- A row ends with the host's clean stop; one that is not renewed until expires_at speaks of the dead, and stays a day.

CREATE TABLE job_workers (
    worker_id text PRIMARY KEY,
    host_id text NOT NULL,
    host_name text NOT NULL,
    pid integer NOT NULL,
    app text NOT NULL,
    version text NOT NULL,
    state text NOT NULL,
    job_types jsonb, -- an array of texts; null: not known
    queues text[], -- null: all
    started_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    running_token bigint,
    jobs_done bigint NOT NULL DEFAULT 0,
    rss_kb integer,
    CONSTRAINT ck_job_workers_state CHECK (state IN ('STARTING', 'IDLE', 'BUSY', 'QUIET', 'LEAVING')),
    CONSTRAINT ck_job_workers_job_types_array CHECK (jsonb_typeof(job_types) = 'array')
) WITH (fillfactor = 50);

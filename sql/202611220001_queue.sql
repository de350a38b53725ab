-- The job queue. A state of a job is a place: the record is written once and completed once, while the narrow rows
-- that a claim walks (ready), that wait for a time (scheduled) and that are in flight (leases) move between tables.
-- Nothing here names a schema: the migration runner sets the search path to the one that was chosen.

CREATE TYPE job_status AS ENUM ('PENDING', 'LEASED', 'SUCCEEDED', 'DEAD_LETTERED', 'CANCELED');
CREATE TYPE job_outcome AS ENUM (
    'SUCCEEDED', 'RETRYABLE', 'TERMINAL', 'PANICKED', 'TIMEOUT', 'LEASE_EXPIRED', 'CANCELED', 'SNOOZED', 'RELEASED'
);
CREATE TYPE job_event_type AS ENUM (
    'ENQUEUED', 'LEASED', 'SUCCEEDED', 'FAILED', 'RETRY_SCHEDULED', 'DEAD_LETTERED', 'CANCELED', 'REQUEUED',
    'RELEASED', 'RESCHEDULED', 'PRIORITY_CHANGED'
);
CREATE TYPE job_log_level AS ENUM ('DEBUG', 'INFO', 'WARNING', 'ERROR');

-- uuidv7() is built in from PostgreSQL 18 on; below, the same layout (RFC 9562: 48 bits of milliseconds, 12 bits of
-- the fraction, 62 random bits) in SQL. Statements always call ours, so they read alike on every version.
DO $$
BEGIN
    IF current_setting('server_version_num')::integer >= 180000 THEN
        CREATE FUNCTION uuidv7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE
            AS 'SELECT pg_catalog.uuidv7()';
    ELSE
        CREATE FUNCTION uuidv7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $function$
            SELECT pg_catalog.encode(
                pg_catalog.substr(pg_catalog.int8send(t.microseconds / 1000), 3)
                || pg_catalog.int2send((28672 | ((t.microseconds % 1000) * 4096 / 1000))::smallint)
                || pg_catalog.set_byte(r.bytes, 0, 128 | (pg_catalog.get_byte(r.bytes, 0) & 63)), 'hex')::uuid
            FROM (
                SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint AS microseconds
            ) AS t
            CROSS JOIN (
                SELECT pg_catalog.substr(pg_catalog.uuid_send(pg_catalog.gen_random_uuid()), 9) AS bytes
            ) AS r
        $function$;
    END IF;
END
$$;

-- A lease token only grows. Whoever names a job and its current token holds the lease; every older token is history.
CREATE SEQUENCE lease_token AS bigint CACHE 1;

CREATE TABLE job_definitions (
    job_type text PRIMARY KEY,
    version integer NOT NULL DEFAULT 1,
    max_attempts integer NOT NULL DEFAULT 3,
    default_timeout_seconds integer NOT NULL DEFAULT 300,
    default_priority integer NOT NULL DEFAULT 0,
    queue text NOT NULL DEFAULT 'default',
    retry_base_seconds double precision NOT NULL DEFAULT 5,
    retry_factor double precision NOT NULL DEFAULT 2,
    retry_cap_seconds double precision NOT NULL DEFAULT 300,
    retry_jitter boolean NOT NULL DEFAULT true,
    retry_delay_overrides jsonb NOT NULL DEFAULT '{}',
    crash_budget integer NOT NULL DEFAULT 3,
    dead_letter_job_type text,
    is_enabled boolean NOT NULL DEFAULT true,
    is_paused boolean NOT NULL DEFAULT false,
    changed_by text,
    change_reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ck_job_definitions_job_type_not_blank CHECK (length(btrim(job_type)) > 0),
    CONSTRAINT ck_job_definitions_version_positive CHECK (version > 0),
    CONSTRAINT ck_job_definitions_max_attempts_positive CHECK (max_attempts > 0),
    CONSTRAINT ck_job_definitions_timeout_positive CHECK (default_timeout_seconds > 0),
    CONSTRAINT ck_job_definitions_queue_not_blank CHECK (length(btrim(queue)) > 0),
    CONSTRAINT ck_job_definitions_retry_positive
        CHECK (retry_base_seconds > 0 AND retry_factor >= 1 AND retry_cap_seconds > 0),
    CONSTRAINT ck_job_definitions_crash_budget_positive CHECK (crash_budget > 0)
);

-- The record. Inserted once; updated once, when the job ends (and when a run number or a kept checkpoint changes).
-- No index covers a column that such an update touches, so it stays on its page: room for both versions of every row,
-- because a batch completes neighbours together (at 60 a third of the updates left their page).
CREATE TABLE job_queue (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    job_type text NOT NULL,
    organization_id uuid,
    payload jsonb NOT NULL DEFAULT '{}',
    priority integer NOT NULL,
    max_attempts integer NOT NULL,
    timeout_seconds integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    idempotency_key text,
    idempotency_expires_at timestamptz,
    enqueue_request jsonb,
    workflow_run_id uuid,
    workflow_step_id uuid,
    schedule_id uuid,
    scheduled_for timestamptz,
    parent_job_id uuid,
    expires_at timestamptz,
    tags text[],
    headers jsonb,
    run_number integer NOT NULL DEFAULT 1,
    attempt integer NOT NULL DEFAULT 0,
    final_status job_status,
    finished_at timestamptz,
    quiesces_at timestamptz,
    status_reason text,
    last_error_code text,
    last_error_message text,
    progress_done bigint,
    progress_total bigint,
    checkpoint jsonb,
    output jsonb,
    CONSTRAINT ck_job_queue_job_type_not_blank CHECK (length(btrim(job_type)) > 0),
    CONSTRAINT ck_job_queue_limits_positive
        CHECK (max_attempts > 0 AND timeout_seconds > 0 AND run_number > 0 AND attempt >= 0),
    CONSTRAINT ck_job_queue_idempotency_key_not_blank CHECK (length(btrim(idempotency_key)) > 0),
    CONSTRAINT ck_job_queue_idempotency_enqueue_request CHECK (idempotency_key IS NULL OR enqueue_request IS NOT NULL),
    CONSTRAINT ck_job_queue_progress
        CHECK (progress_done >= 0 AND progress_total >= 0 AND progress_done <= progress_total),
    CONSTRAINT ck_job_queue_final
        CHECK ((final_status IS NULL) = (finished_at IS NULL)
               AND final_status IN ('SUCCEEDED', 'DEAD_LETTERED', 'CANCELED'))
) WITH (fillfactor = 45, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.05);

CREATE UNIQUE INDEX uq_job_queue_type_idempotency_org ON job_queue (job_type, organization_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL AND organization_id IS NOT NULL;
CREATE UNIQUE INDEX uq_job_queue_type_idempotency_global ON job_queue (job_type, idempotency_key)
    WHERE idempotency_key IS NOT NULL AND organization_id IS NULL;
CREATE INDEX idx_job_queue_type_id ON job_queue (job_type, id);

-- Due now, in the order of the claim. Lives for milliseconds; vacuumed by count, not by share.
CREATE TABLE job_ready (
    job_id uuid NOT NULL,
    next_run_at timestamptz NOT NULL,
    workflow_run_id uuid,
    priority integer NOT NULL,
    run_number integer NOT NULL DEFAULT 1,
    attempt integer NOT NULL DEFAULT 0,
    job_type text NOT NULL,
    CONSTRAINT pk_job_ready PRIMARY KEY (job_id)
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000);

CREATE INDEX idx_job_ready_claim ON job_ready (job_type, priority DESC, next_run_at, job_id);

-- Due later: delayed, retried or snoozed. The keeper of every host moves what is due to job_ready.
CREATE TABLE job_scheduled (
    job_id uuid NOT NULL,
    next_run_at timestamptz NOT NULL,
    workflow_run_id uuid,
    priority integer NOT NULL,
    run_number integer NOT NULL DEFAULT 1,
    attempt integer NOT NULL DEFAULT 0,
    job_type text NOT NULL,
    CONSTRAINT pk_job_scheduled PRIMARY KEY (job_id)
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000);

CREATE INDEX idx_job_scheduled_due ON job_scheduled (next_run_at);

-- In flight: the right to run one attempt. Renewed in place; no index covers the end of a lease.
CREATE TABLE job_leases (
    job_id uuid NOT NULL,
    lease_token bigint NOT NULL,
    leased_at timestamptz NOT NULL,
    lease_expires_at timestamptz NOT NULL,
    renewed_at timestamptz,
    next_run_at timestamptz NOT NULL,
    workflow_run_id uuid,
    priority integer NOT NULL,
    run_number integer NOT NULL,
    attempt integer NOT NULL,
    job_type text NOT NULL,
    worker_id text NOT NULL,
    progress_done bigint,
    progress_total bigint,
    checkpoint jsonb,
    CONSTRAINT pk_job_leases PRIMARY KEY (job_id),
    CONSTRAINT ck_job_leases_worker_not_blank CHECK (length(btrim(worker_id)) > 0),
    CONSTRAINT ck_job_leases_attempt_positive CHECK (attempt > 0 AND run_number > 0),
    CONSTRAINT ck_job_leases_progress
        CHECK (progress_done >= 0 AND progress_total >= 0 AND progress_done <= progress_total)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000);

-- One row for each attempt that ended; append-only. The open attempt is the lease.
CREATE TABLE job_attempts (
    job_id uuid NOT NULL,
    lease_token bigint NOT NULL,
    run_number integer NOT NULL,
    attempt integer NOT NULL,
    leased_at timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz NOT NULL,
    retry_at timestamptz,
    outcome job_outcome NOT NULL,
    exit_signal smallint,
    cpu_ms integer,
    max_rss_kb integer,
    worker_id text NOT NULL,
    error_code text,
    error_message text,
    traceback text,
    CONSTRAINT pk_job_attempts PRIMARY KEY (job_id, run_number, attempt, lease_token)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.05);

CREATE INDEX idx_job_attempts_finished ON job_attempts USING brin (finished_at) WITH (pages_per_range = 32);

-- Transitions that have no other home: who cancelled, requeued, released or changed what, and why.
CREATE TABLE job_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id uuid NOT NULL,
    run_number integer NOT NULL,
    attempt integer,
    event_type job_event_type NOT NULL,
    occurred_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor text,
    reason text,
    detail jsonb NOT NULL DEFAULT '{}'
);

CREATE INDEX idx_job_events_job ON job_events (job_id, id);

-- Runs that ended without success, with payload and checkpoint as they were. A requeue keeps the row.
CREATE TABLE job_dead_letters (
    job_id uuid NOT NULL,
    run_number integer NOT NULL,
    attempt integer NOT NULL,
    job_type text NOT NULL,
    organization_id uuid,
    error_code text,
    error_message text,
    payload_snapshot jsonb NOT NULL,
    checkpoint_snapshot jsonb,
    failed_at timestamptz NOT NULL,
    CONSTRAINT pk_job_dead_letters PRIMARY KEY (job_id, run_number)
);

CREATE INDEX idx_job_dead_letters_failed_at ON job_dead_letters (failed_at DESC);

-- What handlers wrote down while they ran.
CREATE TABLE job_logs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id uuid NOT NULL,
    run_number integer NOT NULL,
    attempt integer,
    level job_log_level NOT NULL,
    message text NOT NULL,
    fields jsonb NOT NULL DEFAULT '{}',
    occurred_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX idx_job_logs_job ON job_logs (job_id, id);

-- A host whose workers are all idle says so here. Enqueue sends a notification only while such a row is live.
CREATE TABLE job_listeners (
    host_id text PRIMARY KEY,
    listening_until timestamptz NOT NULL
) WITH (fillfactor = 50);

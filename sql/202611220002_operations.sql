-- Schedules and runtime configs: what operators set, and what the scheduler and handlers read.
-- A slot is a moment that cron names; next_fire_at is that slot with jitter, or the next try of one that was put off.

CREATE TYPE schedule_missed_policy AS ENUM ('ONE', 'SKIP', 'ALL');
CREATE TYPE schedule_overlap_policy AS ENUM ('ALLOW', 'SKIP');

CREATE TABLE job_schedules (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    name text NOT NULL,
    job_type text NOT NULL REFERENCES job_definitions (job_type) ON DELETE RESTRICT,
    organization_id uuid,
    payload_template jsonb NOT NULL DEFAULT '{}',
    cron_expr text NOT NULL,
    timezone text NOT NULL DEFAULT 'UTC',
    missed schedule_missed_policy NOT NULL DEFAULT 'ONE',
    overlap schedule_overlap_policy NOT NULL DEFAULT 'ALLOW',
    max_jitter_seconds integer NOT NULL DEFAULT 0,
    is_active boolean NOT NULL DEFAULT true,
    next_slot_at timestamptz NOT NULL,
    next_fire_at timestamptz NOT NULL,
    last_fired_at timestamptz,
    last_job_id uuid,
    last_error_code text,
    last_error_message text,
    created_by_user_id uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT uq_job_schedules_name UNIQUE (name),
    CONSTRAINT ck_job_schedules_name_not_blank CHECK (length(btrim(name)) > 0),
    CONSTRAINT ck_job_schedules_cron_not_blank CHECK (length(btrim(cron_expr)) > 0),
    CONSTRAINT ck_job_schedules_timezone_not_blank CHECK (length(btrim(timezone)) > 0),
    CONSTRAINT ck_job_schedules_jitter CHECK (max_jitter_seconds BETWEEN 0 AND 86400)
);

CREATE INDEX idx_job_schedules_next_fire ON job_schedules (next_fire_at) WHERE is_active;

-- A firing has an identity: one job for each schedule and slot, whoever fires and however often the cursor moves.
CREATE UNIQUE INDEX uq_job_queue_schedule_slot ON job_queue (schedule_id, scheduled_for) WHERE schedule_id IS NOT NULL;

CREATE TABLE job_runtime_configs (
    job_type text PRIMARY KEY REFERENCES job_definitions (job_type) ON DELETE CASCADE,
    schema_version integer NOT NULL,
    config jsonb NOT NULL,
    updated_by_user_id uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ck_job_runtime_configs_version_positive CHECK (schema_version > 0),
    CONSTRAINT ck_job_runtime_configs_object CHECK (jsonb_typeof(config) = 'object')
);

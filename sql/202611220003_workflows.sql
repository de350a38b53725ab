-- Workflow graphs: runs, steps, edges and the mutations that were appended to a live run.

CREATE TYPE workflow_run_status AS ENUM (
    'RUNNING', 'WAITING_FOR_EXTERNAL', 'SUCCEEDED', 'COMPLETED_WITH_ERRORS', 'CANCELED'
);
CREATE TYPE workflow_step_status AS ENUM (
    'BLOCKED', 'WAITING_FOR_EXTERNAL', 'ENQUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELED'
);
CREATE TYPE workflow_step_kind AS ENUM ('JOB', 'EXTERNAL');
CREATE TYPE workflow_release_mode AS ENUM ('ON_TERMINAL', 'ON_SUCCESS');

-- The status of a run follows from its counts, which every statement that moves steps keeps in step with them, under
-- the lock of this row. The result is the output of the result step, and stands nowhere else.
CREATE TABLE workflow_runs (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    workflow_type text NOT NULL,
    organization_id uuid,
    status workflow_run_status NOT NULL DEFAULT 'RUNNING',
    metadata jsonb NOT NULL DEFAULT '{}',
    headers jsonb,
    idempotency_key text,
    enqueue_request jsonb,
    result_step_key text,
    step_count integer NOT NULL DEFAULT 0,
    unfinished_count integer NOT NULL DEFAULT 0,
    enqueued_count integer NOT NULL DEFAULT 0,
    waiting_count integer NOT NULL DEFAULT 0,
    failed_count integer NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    status_reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ck_workflow_runs_type_not_blank CHECK (length(btrim(workflow_type)) > 0),
    CONSTRAINT ck_workflow_runs_idempotency_key_not_blank CHECK (length(btrim(idempotency_key)) > 0),
    CONSTRAINT ck_workflow_runs_idempotency_enqueue_request
        CHECK (idempotency_key IS NULL OR enqueue_request IS NOT NULL),
    CONSTRAINT ck_workflow_runs_counts
        CHECK (enqueued_count >= 0 AND waiting_count >= 0 AND failed_count >= 0
               AND enqueued_count + waiting_count <= unfinished_count
               AND unfinished_count + failed_count <= step_count),
    CONSTRAINT ck_workflow_runs_final
        CHECK ((status IN ('SUCCEEDED', 'COMPLETED_WITH_ERRORS', 'CANCELED')) = (finished_at IS NOT NULL))
) WITH (fillfactor = 70);

CREATE UNIQUE INDEX uq_workflow_runs_type_idempotency_org
    ON workflow_runs (workflow_type, organization_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL AND organization_id IS NOT NULL;
CREATE UNIQUE INDEX uq_workflow_runs_type_idempotency_global ON workflow_runs (workflow_type, idempotency_key)
    WHERE idempotency_key IS NOT NULL AND organization_id IS NULL;
CREATE INDEX idx_workflow_runs_type_id ON workflow_runs (workflow_type, id);

-- payload_parts is a payload with holes for outputs: an array of texts and {step, path}, filled when the step is
-- released. Output and error of a job step are its job's; the columns here are for gates and for steps without a job.
CREATE TABLE workflow_steps (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    workflow_run_id uuid NOT NULL REFERENCES workflow_runs (id) ON DELETE CASCADE,
    step_key text NOT NULL,
    kind workflow_step_kind NOT NULL DEFAULT 'JOB',
    status workflow_step_status NOT NULL DEFAULT 'BLOCKED',
    job_type text,
    organization_id uuid,
    payload jsonb NOT NULL DEFAULT '{}',
    payload_parts jsonb,
    priority integer,
    max_attempts integer,
    timeout_seconds integer,
    job_id uuid,
    dependency_count_total integer NOT NULL DEFAULT 0,
    dependency_count_pending integer NOT NULL DEFAULT 0,
    dependency_count_unsatisfied integer NOT NULL DEFAULT 0,
    output jsonb,
    released_at timestamptz,
    finished_at timestamptz,
    status_reason text,
    last_error_code text,
    last_error_message text,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT uq_workflow_steps_run_key UNIQUE (workflow_run_id, step_key),
    CONSTRAINT ck_workflow_steps_key_not_blank CHECK (length(btrim(step_key)) > 0),
    CONSTRAINT ck_workflow_steps_counts
        CHECK (dependency_count_pending >= 0 AND dependency_count_unsatisfied >= 0
               AND dependency_count_pending <= dependency_count_total
               AND dependency_count_unsatisfied <= dependency_count_total),
    CONSTRAINT ck_workflow_steps_shape
        CHECK (CASE kind
                   WHEN 'JOB' THEN job_type IS NOT NULL
                   ELSE job_type IS NULL AND priority IS NULL AND max_attempts IS NULL
                        AND timeout_seconds IS NULL AND job_id IS NULL
               END)
) WITH (fillfactor = 55);

CREATE TABLE workflow_step_dependencies (
    workflow_run_id uuid NOT NULL REFERENCES workflow_runs (id) ON DELETE CASCADE,
    prerequisite_step_id uuid NOT NULL,
    dependent_step_id uuid NOT NULL,
    release_mode workflow_release_mode NOT NULL DEFAULT 'ON_TERMINAL',
    CONSTRAINT pk_workflow_step_dependencies PRIMARY KEY (prerequisite_step_id, dependent_step_id),
    CONSTRAINT ck_workflow_step_dependencies_no_self_edge CHECK (prerequisite_step_id <> dependent_step_id)
);

CREATE INDEX idx_workflow_step_dependencies_dependent ON workflow_step_dependencies (dependent_step_id);
CREATE INDEX idx_workflow_step_dependencies_run ON workflow_step_dependencies (workflow_run_id);

CREATE TABLE workflow_run_mutations (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    workflow_run_id uuid NOT NULL REFERENCES workflow_runs (id) ON DELETE CASCADE,
    mutation_key text NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    request jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT uq_workflow_run_mutations_key UNIQUE (workflow_run_id, mutation_key),
    CONSTRAINT ck_workflow_run_mutations_key_not_blank CHECK (length(btrim(mutation_key)) > 0)
);

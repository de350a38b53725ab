-- Keys that one live job at a time may hold.

-- The end of a job does not touch its key: whoever asks for a key that an ended job still has takes it over. So the
-- settle of jobs without a key, which are most, and of those with one costs what it did.
ALTER TABLE job_queue
    ADD COLUMN active_key text,
    ADD CONSTRAINT ck_job_queue_active_key_not_blank CHECK (length(btrim(active_key)) > 0);

CREATE UNIQUE INDEX uq_job_queue_active_key_org ON job_queue (job_type, organization_id, active_key)
    WHERE active_key IS NOT NULL AND organization_id IS NOT NULL;
CREATE UNIQUE INDEX uq_job_queue_active_key_global ON job_queue (job_type, active_key)
    WHERE active_key IS NOT NULL AND organization_id IS NULL;

-- The same view, with the key at its end.
CREATE OR REPLACE VIEW jobs AS
SELECT
    q.id,
    q.job_type,
    q.organization_id,
    CASE
        WHEN q.final_status IS NOT NULL THEN q.final_status
        WHEN l.job_id IS NOT NULL THEN 'LEASED'::job_status
        ELSE 'PENDING'::job_status
    END AS status,
    CASE
        WHEN q.final_status IS NOT NULL THEN 'completed'
        WHEN l.job_id IS NOT NULL THEN 'running'
        WHEN s.job_id IS NOT NULL THEN 'scheduled'
        ELSE 'queued'
    END AS stage,
    coalesce(l.priority, r.priority, s.priority, q.priority) AS priority,
    coalesce(l.run_number, r.run_number, s.run_number, q.run_number) AS run_number,
    coalesce(l.attempt, r.attempt, s.attempt, q.attempt) AS attempt,
    q.max_attempts,
    q.timeout_seconds,
    q.payload,
    q.output,
    coalesce(l.checkpoint, q.checkpoint) AS checkpoint,
    coalesce(l.progress_done, q.progress_done) AS progress_done,
    coalesce(l.progress_total, q.progress_total) AS progress_total,
    q.tags,
    q.idempotency_key,
    q.enqueue_request,
    q.workflow_run_id,
    q.workflow_step_id,
    q.schedule_id,
    q.scheduled_for,
    q.parent_job_id,
    q.created_at,
    coalesce(r.next_run_at, s.next_run_at, l.next_run_at) AS next_run_at,
    q.expires_at,
    l.leased_at,
    l.lease_expires_at,
    l.lease_token,
    l.worker_id,
    q.finished_at,
    q.quiesces_at,
    q.status_reason,
    coalesce(q.last_error_code, (
        SELECT a.error_code FROM job_attempts a
        WHERE q.final_status IS NULL AND a.job_id = q.id AND a.run_number = q.run_number
        ORDER BY a.attempt DESC, a.lease_token DESC LIMIT 1)) AS last_error_code,
    coalesce(q.last_error_message, (
        SELECT a.error_message FROM job_attempts a
        WHERE q.final_status IS NULL AND a.job_id = q.id AND a.run_number = q.run_number
        ORDER BY a.attempt DESC, a.lease_token DESC LIMIT 1)) AS last_error_message,
    q.active_key
FROM job_queue q
LEFT JOIN job_ready r ON r.job_id = q.id
LEFT JOIN job_scheduled s ON s.job_id = q.id
LEFT JOIN job_leases l ON l.job_id = q.id;

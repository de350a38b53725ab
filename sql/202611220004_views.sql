-- What people read. Every read goes through these views, so the shape of the hot tables stays free to change.

-- One row for each job with its status, which follows from where the job is.
CREATE VIEW jobs AS
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
        ORDER BY a.attempt DESC, a.lease_token DESC LIMIT 1)) AS last_error_message
FROM job_queue q
LEFT JOIN job_ready r ON r.job_id = q.id
LEFT JOIN job_scheduled s ON s.job_id = q.id
LEFT JOIN job_leases l ON l.job_id = q.id;

-- The whole trail of a job in order. What the record and its attempts already say is derived, the rest is stored;
-- so the trail cannot disagree with the state. Order by occurred_at, then position.
CREATE VIEW job_timeline AS
SELECT q.id AS job_id, 'ENQUEUED'::job_event_type AS event_type, 1 AS run_number, NULL::integer AS attempt,
       q.created_at AS occurred_at, 0::bigint AS position, NULL::text AS actor, NULL::text AS reason,
       jsonb_build_object('job_type', q.job_type) AS detail
FROM job_queue q
UNION ALL
SELECT a.job_id, 'LEASED', a.run_number, a.attempt, a.leased_at, a.lease_token * 4, a.worker_id, NULL,
       jsonb_build_object('lease_token', a.lease_token)
FROM job_attempts a
UNION ALL
SELECT l.job_id, 'LEASED', l.run_number, l.attempt, l.leased_at, l.lease_token * 4, l.worker_id, NULL,
       jsonb_build_object('lease_token', l.lease_token, 'lease_expires_at', l.lease_expires_at)
FROM job_leases l
UNION ALL -- a claim that ended before its handler began leaves no attempt, but it was a claim
SELECT e.job_id, 'LEASED', e.run_number, e.attempt, (e.detail ->> 'leased_at')::timestamptz,
       (e.detail ->> 'lease_token')::bigint * 4, e.actor, NULL,
       jsonb_build_object('lease_token', e.detail -> 'lease_token')
FROM job_events e
WHERE e.event_type IN ('RELEASED', 'CANCELED') AND e.detail ? 'leased_at'
UNION ALL
SELECT a.job_id,
       CASE
           WHEN a.outcome = 'SUCCEEDED' THEN 'SUCCEEDED'
           WHEN a.outcome = 'CANCELED' THEN 'CANCELED'
           WHEN a.outcome = 'RELEASED' THEN 'RELEASED'
           WHEN a.outcome = 'SNOOZED' THEN 'RETRY_SCHEDULED'
           ELSE 'FAILED'
       END::job_event_type,
       a.run_number, a.attempt, a.finished_at, a.lease_token * 4 + 1, a.worker_id, a.outcome::text,
       jsonb_strip_nulls(jsonb_build_object(
           'code', a.error_code, 'message', a.error_message, 'retry_at', a.retry_at, 'exit_signal', a.exit_signal,
           'cpu_ms', a.cpu_ms, 'max_rss_kb', a.max_rss_kb))
FROM job_attempts a
WHERE a.outcome <> 'CANCELED' OR NOT EXISTS ( -- who cancelled is told by the stored event, once
    SELECT FROM job_events e
    WHERE e.job_id = a.job_id AND e.event_type = 'CANCELED' AND e.run_number = a.run_number)
UNION ALL
SELECT a.job_id, 'RETRY_SCHEDULED', a.run_number, a.attempt, a.finished_at, a.lease_token * 4 + 2, NULL, NULL,
       jsonb_build_object('retry_at', a.retry_at)
FROM job_attempts a
WHERE a.retry_at IS NOT NULL AND a.outcome NOT IN ('SNOOZED', 'RELEASED', 'SUCCEEDED')
UNION ALL
SELECT d.job_id, 'DEAD_LETTERED', d.run_number, d.attempt, d.failed_at, 4611686018427387903, NULL, d.error_code,
       '{}'::jsonb
FROM job_dead_letters d
UNION ALL
SELECT e.job_id, e.event_type, e.run_number, e.attempt, e.occurred_at, 4611686018427387904 + e.id, e.actor, e.reason,
       e.detail
FROM job_events e;

"""The invariants of workflow runs: counts equal edges and steps, and steps agree with their jobs, in every snapshot."""

from runledger.postgres.checks.check import sql_check

REPORT = "report it with the output of `runledger workflow show ID`, and what was done to the database by hand"

WORKFLOW_INVARIANTS = (
    sql_check(
        "step-counts-its-edges",
        "the counts of a step equal its edges",
        REPORT,
        """
        SELECT format('step %s of run %s', s.step_key, s.workflow_run_id) FROM runledger.workflow_steps s
        LEFT JOIN (
            SELECT d.dependent_step_id AS id, count(*) AS total,
                   count(*) FILTER (WHERE p.status NOT IN ('SUCCEEDED', 'FAILED', 'CANCELED')) AS pending,
                   count(*) FILTER (WHERE d.release_mode = 'ON_SUCCESS'
                                    AND p.status IN ('FAILED', 'CANCELED')) AS unsatisfied
            FROM runledger.workflow_step_dependencies d
            JOIN runledger.workflow_steps p ON p.id = d.prerequisite_step_id GROUP BY 1
        ) c ON c.id = s.id
        WHERE (s.dependency_count_total, s.dependency_count_pending, s.dependency_count_unsatisfied)
            IS DISTINCT FROM (coalesce(c.total, 0), coalesce(c.pending, 0), coalesce(c.unsatisfied, 0))
        """,
    ),
    sql_check(
        "run-counts-its-steps",
        "the counts of a run equal its steps",
        REPORT,
        """
        SELECT format('run %s', r.id) FROM runledger.workflow_runs r LEFT JOIN (
            SELECT workflow_run_id, count(*) AS total,
                   count(*) FILTER (WHERE status NOT IN ('SUCCEEDED', 'FAILED', 'CANCELED')) AS unfinished,
                   count(*) FILTER (WHERE status = 'ENQUEUED') AS enqueued,
                   count(*) FILTER (WHERE status = 'WAITING_FOR_EXTERNAL') AS waiting,
                   count(*) FILTER (WHERE status IN ('FAILED', 'CANCELED')) AS failed
            FROM runledger.workflow_steps GROUP BY 1
        ) s ON s.workflow_run_id = r.id
        WHERE (r.step_count, r.unfinished_count, r.enqueued_count, r.waiting_count, r.failed_count)
            IS DISTINCT FROM (coalesce(s.total, 0), coalesce(s.unfinished, 0), coalesce(s.enqueued, 0),
                              coalesce(s.waiting, 0), coalesce(s.failed, 0))
        """,
    ),
    sql_check(
        "run-ends-with-its-steps",
        "a run has ended if and only if all its steps have",
        REPORT,
        """
        SELECT format('run %s is %s', r.id, r.status) FROM runledger.workflow_runs r
        WHERE (r.finished_at IS NOT NULL) = EXISTS (
            SELECT FROM runledger.workflow_steps s
            WHERE s.workflow_run_id = r.id AND s.status NOT IN ('SUCCEEDED', 'FAILED', 'CANCELED'))
        """,
    ),
    sql_check(
        "no-step-forgotten",
        "no step is blocked while nothing is in its way",
        REPORT,
        """
        SELECT format('step %s of run %s', step_key, workflow_run_id) FROM runledger.workflow_steps
        WHERE status = 'BLOCKED' AND dependency_count_pending = 0
        """,
    ),
    sql_check(
        "step-agrees-with-job",
        "the status of a step is that of its job",
        REPORT,
        """
        SELECT format('step %s of run %s is %s, its job %s', s.step_key, s.workflow_run_id, s.status,
                      coalesce(q.final_status::text, 'not finished'))
        FROM runledger.workflow_steps s JOIN runledger.job_queue q ON q.id = s.job_id
        WHERE s.status::text <> CASE q.final_status
            WHEN 'SUCCEEDED' THEN 'SUCCEEDED' WHEN 'DEAD_LETTERED' THEN 'FAILED' WHEN 'CANCELED' THEN 'CANCELED'
            ELSE 'ENQUEUED' END
        """,
    ),
    sql_check(
        "released-in-order",
        "a step is released only when its prerequisites allow it",
        REPORT,
        """
        SELECT format('step %s of run %s, before %s', s.step_key, s.workflow_run_id, p.step_key)
        FROM runledger.workflow_steps s
        JOIN runledger.workflow_step_dependencies d ON d.dependent_step_id = s.id
        JOIN runledger.workflow_steps p ON p.id = d.prerequisite_step_id
        WHERE s.released_at IS NOT NULL AND (p.finished_at IS NULL OR p.finished_at > s.released_at
              OR (d.release_mode = 'ON_SUCCESS' AND p.status <> 'SUCCEEDED'))
        """,
    ),
    sql_check(
        "released-step-has-job",
        "a step has one job of its own once it is released, and a gate has none",
        REPORT,
        """
        SELECT format('step %s of run %s', step_key, workflow_run_id) FROM runledger.workflow_steps
        WHERE (kind = 'JOB' AND released_at IS NOT NULL AND job_id IS NULL)
           OR (kind = 'EXTERNAL' AND job_id IS NOT NULL) OR (released_at IS NULL AND job_id IS NOT NULL)
        UNION ALL
        SELECT format('job %s is that of %s steps', job_id, count(*)) FROM runledger.workflow_steps
        WHERE job_id IS NOT NULL GROUP BY job_id HAVING count(*) > 1
        """,
    ),
    sql_check(
        "edges-stay-inside",
        "an edge joins two steps of its run",
        REPORT,
        """
        SELECT format('an edge of run %s, to step %s of run %s', d.workflow_run_id, b.step_key, b.workflow_run_id)
        FROM runledger.workflow_step_dependencies d
        JOIN runledger.workflow_steps a ON a.id = d.prerequisite_step_id
        JOIN runledger.workflow_steps b ON b.id = d.dependent_step_id
        WHERE a.workflow_run_id <> b.workflow_run_id OR a.workflow_run_id <> d.workflow_run_id
        """,
    ),
    sql_check(
        "cancelled-run-is-quiet",
        "no job of a cancelled run waits or runs",
        REPORT,
        """
        SELECT format('job %s of run %s', q.id, r.id) FROM runledger.workflow_runs r
        JOIN runledger.job_queue q ON q.workflow_run_id = r.id
        WHERE r.status = 'CANCELED' AND q.final_status IS NULL
        """,
    ),
)

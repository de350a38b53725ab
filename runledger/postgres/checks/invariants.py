"""The invariants of jobs: true in every snapshot, whatever runs. A broken one is a defect of ours, or of somebody who
wrote to the tables.
"""

from runledger.core.states import REFUNDED_OUTCOMES
from runledger.postgres.checks.check import sql_check

REPORT = "report it with the output of `runledger job events ID`, and what was done to the database by hand"
REFUNDED = "(" + ", ".join(f"'{outcome}'" for outcome in sorted(REFUNDED_OUTCOMES)) + ")"

JOB_INVARIANTS = (
    sql_check(
        "job-in-one-place",
        "every job is ready, scheduled, leased or finished, and only one of them",
        REPORT,
        """
        SELECT format('job %s is in %s places', coalesce(q.id, p.job_id),
                      count(p.place) FILTER (WHERE q.id IS NOT NULL))
        FROM runledger.job_queue q FULL JOIN (
            SELECT job_id, 'ready' AS place FROM runledger.job_ready
            UNION ALL SELECT job_id, 'scheduled' FROM runledger.job_scheduled
            UNION ALL SELECT job_id, 'leased' FROM runledger.job_leases
            UNION ALL SELECT id, 'final' FROM runledger.job_queue WHERE final_status IS NOT NULL
        ) p ON p.job_id = q.id
        GROUP BY coalesce(q.id, p.job_id) HAVING count(p.place) FILTER (WHERE q.id IS NOT NULL) <> 1
        """,
    ),
    sql_check(
        "run-succeeds-once",
        "no run of a job succeeded twice",
        REPORT,
        """
        SELECT format('job %s, run %s: %s times', job_id, run_number, count(*))
        FROM runledger.job_attempts WHERE outcome = 'SUCCEEDED' GROUP BY job_id, run_number HAVING count(*) > 1
        """,
    ),
    sql_check(
        "success-has-attempt",
        "a job that succeeded has an attempt that did",
        REPORT,
        """
        SELECT format('job %s', q.id) FROM runledger.job_queue q WHERE q.final_status = 'SUCCEEDED' AND NOT EXISTS (
            SELECT FROM runledger.job_attempts a
            WHERE a.job_id = q.id AND a.run_number = q.run_number AND a.outcome = 'SUCCEEDED')
        """,
    ),
    sql_check(
        "attempt-has-success",
        "a job with an attempt of its last run that succeeded has succeeded",
        REPORT,
        """
        SELECT format('job %s is %s', q.id, coalesce(q.final_status::text, 'not finished'))
        FROM runledger.job_queue q
        JOIN runledger.job_attempts a ON a.job_id = q.id AND a.run_number = q.run_number AND a.outcome = 'SUCCEEDED'
        WHERE q.final_status IS DISTINCT FROM 'SUCCEEDED'
        """,
    ),
    sql_check(
        "attempts-without-gaps",
        "counted attempts of a run are 1, 2, 3 in the order of their lease tokens",
        REPORT,
        f"""
        SELECT format('job %s, run %s: attempts %s', job_id, run_number, array_agg(attempt ORDER BY lease_token))
        FROM runledger.job_attempts WHERE outcome NOT IN {REFUNDED} GROUP BY job_id, run_number
        HAVING array_agg(attempt ORDER BY lease_token) <> array_agg(attempt ORDER BY attempt)
            OR count(DISTINCT attempt) <> count(*) OR max(attempt) <> count(*)
        """,  # noqa: S608 - all ours
    ),
    sql_check(
        "record-counts-attempts",
        "the record of a finished job counts the attempts that there were",
        REPORT,
        f"""
        SELECT format('job %s counts %s, there were %s', q.id, q.attempt, count(a.job_id)) FROM runledger.job_queue q
        LEFT JOIN runledger.job_attempts a
            ON a.job_id = q.id AND a.run_number = q.run_number AND a.outcome NOT IN {REFUNDED}
        WHERE q.final_status IS NOT NULL GROUP BY q.id HAVING q.attempt <> count(a.job_id)
        """,  # noqa: S608 - all ours
    ),
    sql_check(
        "attempts-within-budget",
        "no job has more attempts than it may have",
        REPORT,
        """
        SELECT format('job %s: attempt %s of %s', q.id, greatest(q.attempt, l.attempt), q.max_attempts)
        FROM runledger.job_queue q LEFT JOIN runledger.job_leases l ON l.job_id = q.id
        WHERE greatest(q.attempt, l.attempt) > q.max_attempts
        """,
    ),
    sql_check(
        "attempts-do-not-overlap",
        "an attempt begins after the one before it has ended",
        REPORT,
        """
        SELECT format('job %s, run %s, attempt %s', job_id, run_number, attempt) FROM (
            SELECT job_id, run_number, attempt, leased_at, lag(finished_at) OVER w AS before
            FROM runledger.job_attempts WINDOW w AS (PARTITION BY job_id ORDER BY lease_token)
        ) s WHERE before > leased_at
        """,
    ),
)

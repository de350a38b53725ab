"""Whether the processes do what only processes can do: reap, promote, fire, and claim."""

from runledger.postgres.checks.check import sql_check

START_A_HOST = "start a host: runledger worker --app MODULE:ATTR"

PROGRESS_CHECKS = (
    sql_check(
        "lapsed-leases",
        "lapsed leases are recovered within a minute",
        "start a reaper, with a host or by itself: runledger reaper",
        """
        SELECT format('job %s of worker %s lapsed %s ago', job_id, worker_id,
                      date_trunc('second', clock_timestamp() - lease_expires_at))
        FROM runledger.job_leases WHERE lease_expires_at < clock_timestamp() - interval '1 minute'
        """,
    ),
    sql_check(
        "due-jobs-promoted",
        "jobs whose time has come are ready within a minute",
        START_A_HOST,
        """
        SELECT format('job %s has been due for %s', job_id, date_trunc('second', clock_timestamp() - next_run_at))
        FROM runledger.job_scheduled WHERE next_run_at < statement_timestamp() - interval '1 minute'
        """,
    ),
    sql_check(
        "schedules-fire",
        "due schedules fire within five minutes",
        "start a scheduler: runledger scheduler; a schedule that fails says why: runledger schedule list",
        """
        SELECT format('schedule %s has been due for %s%s', name, date_trunc('second', clock_timestamp() - next_fire_at),
                      coalesce(' (' || last_error_code || ')', ''))
        FROM runledger.job_schedules WHERE is_active AND next_fire_at < clock_timestamp() - interval '5 minutes'
        """,
    ),
    sql_check(
        "ready-types-defined",
        "every waiting job has a definition",
        "runledger definition sync --app MODULE:ATTR",
        """
        SELECT format('type %s: %s jobs', p.job_type, count(*)) FROM (
            SELECT job_type FROM runledger.job_ready UNION ALL SELECT job_type FROM runledger.job_scheduled
        ) p WHERE NOT EXISTS (SELECT FROM runledger.job_definitions d WHERE d.job_type = p.job_type)
        GROUP BY p.job_type
        """,
    ),
    sql_check(
        "ready-types-served",
        "some live worker serves every type that has been ready for a minute",
        f"runledger workers; {START_A_HOST}",
        """
        SELECT format('type %s: %s jobs in queue %s', r.job_type, count(*), d.queue)
        FROM runledger.job_ready r JOIN runledger.job_definitions d ON d.job_type = r.job_type
        WHERE NOT d.is_paused AND r.next_run_at < clock_timestamp() - interval '1 minute' AND NOT EXISTS (
            SELECT FROM runledger.job_workers w WHERE w.expires_at > clock_timestamp()
                AND (w.job_types IS NULL OR w.job_types ? r.job_type)
                AND (w.queues IS NULL OR d.queue = ANY (w.queues)))
        GROUP BY r.job_type, d.queue
        """,
    ),
    sql_check(
        "paused-types",
        "no paused type has jobs that wait",
        "runledger definition resume TYPE, when the reason is gone",
        """
        SELECT format('type %s, paused by %s (%s): %s jobs', d.job_type, coalesce(d.changed_by, 'somebody'),
                      coalesce(d.change_reason, 'no reason'), count(*))
        FROM runledger.job_definitions d JOIN runledger.job_ready r ON r.job_type = d.job_type
        WHERE d.is_paused GROUP BY d.job_type
        """,
        is_advice=True,
    ),
    sql_check(
        "lost-workers",
        "every worker that did not stop cleanly has been heard of within a lease time",
        "look at the host; its row is forgotten after a day",
        """
        SELECT format('worker %s of host %s, last seen %s', worker_id, host_name, date_trunc('second', seen_at))
        FROM runledger.job_workers WHERE expires_at < clock_timestamp()
        """,
        is_advice=True,
    ),
)

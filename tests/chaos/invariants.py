"""What must be true whatever was killed: always, and when everything has healed and the queue is empty. Each rule names
its violations; none of them asks how the result came about.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg
from chaos.app import EFFECT, FAILING, GATED_EFFECT

from runledger.core.jobs import Scope
from runledger.core.states import JobEventType
from runledger.postgres.checks.invariants import JOB_INVARIANTS
from runledger.postgres.checks.workflow_invariants import WORKFLOW_INVARIANTS
from runledger.postgres.reads import list_job_events

Connection = psycopg.Connection[Any]
MOST_NAMED = 5
SAMPLED_JOBS = 200

EFFECT_TYPES = f"('{EFFECT}', '{GATED_EFFECT}')"

ALWAYS: dict[str, str] = {
    "a lease began before the attempt before it had ended": """
        SELECT l.job_id FROM runledger.job_leases l JOIN runledger.job_attempts a USING (job_id)
        WHERE a.finished_at > l.leased_at OR a.lease_token >= l.lease_token
    """,
    "a token was given twice": """
        SELECT lease_token FROM (SELECT lease_token FROM runledger.job_attempts
                                 UNION ALL SELECT lease_token FROM runledger.job_leases) AS given
        GROUP BY lease_token HAVING count(*) > 1
    """,
    "a dead letter is missing": """
        SELECT q.id FROM runledger.job_queue q WHERE q.final_status = 'DEAD_LETTERED' AND NOT EXISTS (
            SELECT FROM runledger.job_dead_letters d WHERE d.job_id = q.id AND d.run_number = q.run_number)
    """,
    "a dead letter belongs to a job that did not end so": """
        SELECT d.job_id FROM runledger.job_dead_letters d JOIN runledger.job_queue q ON q.id = d.job_id
        WHERE (q.run_number = d.run_number AND q.final_status IS DISTINCT FROM 'DEAD_LETTERED'
               AND NOT EXISTS (SELECT FROM runledger.job_events e
                               WHERE e.job_id = d.job_id AND e.event_type = 'REQUEUED'))
           OR q.run_number < d.run_number
    """,
    "a job was given up with attempts left and without a reason": """
        SELECT q.id FROM runledger.job_queue q
        JOIN runledger.job_attempts a USING (run_number, attempt)
        WHERE a.job_id = q.id AND q.final_status = 'DEAD_LETTERED' AND q.attempt < q.max_attempts
          AND a.outcome NOT IN ('TERMINAL', 'PANICKED', 'RELEASED', 'SNOOZED')
    """,
    "two jobs have one key": """
        SELECT idempotency_key FROM runledger.job_queue WHERE idempotency_key IS NOT NULL
        GROUP BY job_type, organization_id, idempotency_key HAVING count(*) > 1
    """,
    "a slot fired twice, or before its time": """
        SELECT schedule_id, scheduled_for FROM runledger.job_queue WHERE scheduled_for IS NOT NULL
        GROUP BY 1, 2 HAVING count(*) > 1 OR min(created_at) < scheduled_for
    """,
    "more jobs of a type ran at once than may": """
        SELECT job_type, at, running FROM (
            SELECT d.job_type, d.max_running, e.at, sum(e.step) OVER (PARTITION BY d.job_type ORDER BY e.at, e.step)
                AS running
            FROM runledger.job_definitions d JOIN runledger.job_queue q USING (job_type) CROSS JOIN LATERAL (
                SELECT a.leased_at, 1 FROM runledger.job_attempts a WHERE a.job_id = q.id
                UNION ALL SELECT a.finished_at, -1 FROM runledger.job_attempts a WHERE a.job_id = q.id
                UNION ALL SELECT l.leased_at, 1 FROM runledger.job_leases l WHERE l.job_id = q.id) AS e (at, step)
            WHERE d.max_running IS NOT NULL) AS history
        WHERE running > max_running
    """,
    "more jobs of a type started in a span than may": """
        SELECT job_type, at, before FROM (
            SELECT d.job_type, d.rate_starts, d.rate_seconds, a.leased_at AS at, lag(a.leased_at, d.rate_starts)
                OVER (PARTITION BY d.job_type ORDER BY a.leased_at) AS before
            FROM runledger.job_definitions d JOIN runledger.job_queue q USING (job_type)
            JOIN runledger.job_attempts a ON a.job_id = q.id
            WHERE d.rate_starts IS NOT NULL AND a.started_at IS NOT NULL) AS history
        WHERE at < before + rate_seconds * interval '1 second'
    """,
    "a job that succeeded has not exactly one effect": f"""
        SELECT q.id, count(e.job_id) FROM runledger.job_queue q LEFT JOIN chaos_effects e ON e.job_id = q.id
        WHERE q.job_type IN {EFFECT_TYPES} AND q.final_status = 'SUCCEEDED'
        GROUP BY q.id HAVING count(e.job_id) <> 1
    """,
    "an effect does not belong to an attempt that succeeded": """
        SELECT e.job_id, e.lease_token FROM chaos_effects e WHERE NOT EXISTS (
            SELECT FROM runledger.job_attempts a WHERE a.job_id = e.job_id AND a.lease_token = e.lease_token
            AND a.worker_id = e.worker_id AND a.outcome = 'SUCCEEDED')
    """,
}
ALWAYS |= {check.what: check.query for check in (*JOB_INVARIANTS, *WORKFLOW_INVARIANTS)}
"""Those that `runledger doctor` checks in production, and what only a soak can know."""

AT_THE_END: dict[str, str] = {
    "an acknowledged job is lost": """
        SELECT k.job_id FROM acknowledged k LEFT JOIN runledger.job_queue q ON q.id = k.job_id WHERE q.id IS NULL
    """,
    "a job has no end": "SELECT id FROM runledger.job_queue WHERE final_status IS NULL",
    "a run has no end": "SELECT id FROM runledger.workflow_runs WHERE finished_at IS NULL",
    "a job that can succeed was given up": f"""
        SELECT q.id, q.job_type, q.last_error_code FROM runledger.job_queue q
        WHERE q.final_status = 'DEAD_LETTERED' AND q.job_type NOT IN {FAILING}
          AND q.payload -> 'fails' IS DISTINCT FROM 'true'
    """,
    "a job that must fail has succeeded": f"""
        SELECT id, job_type FROM runledger.job_queue WHERE final_status = 'SUCCEEDED' AND job_type IN {FAILING}
    """,
    "a slot was left out by a schedule that fires all": """
        SELECT q.schedule_id, q.scheduled_for FROM (
            SELECT schedule_id, scheduled_for,
                   lead(scheduled_for) OVER (PARTITION BY schedule_id ORDER BY scheduled_for) AS following
            FROM runledger.job_queue WHERE schedule_id IS NOT NULL) AS q
        JOIN runledger.job_schedules s ON s.id = q.schedule_id AND s.missed = 'ALL'
        WHERE q.following <> q.scheduled_for + interval '5 seconds'
    """,
    "a lease is left": "SELECT job_id, worker_id, lease_expires_at FROM runledger.job_leases",
}
RULES = ALWAYS | AT_THE_END
"""A sentence about the rule, and the query that finds where the rule is broken."""

SAMPLE = """
    SELECT id::text FROM runledger.job_queue q WHERE final_status IS NOT NULL ORDER BY (
        SELECT count(*) FROM runledger.job_attempts a WHERE a.job_id = q.id) DESC, id LIMIT %s
"""
_E = JobEventType
_WAITING = frozenset({_E.LEASED, _E.CANCELED, _E.RESCHEDULED, _E.PRIORITY_CHANGED})
FOLLOWERS: dict[JobEventType, frozenset[JobEventType]] = {
    _E.ENQUEUED: _WAITING,
    _E.RESCHEDULED: _WAITING,
    _E.LEASED: frozenset({_E.SUCCEEDED, _E.FAILED, _E.RELEASED, _E.RETRY_SCHEDULED, _E.CANCELED}),
    _E.FAILED: frozenset({_E.RETRY_SCHEDULED, _E.DEAD_LETTERED}),
    _E.RETRY_SCHEDULED: _WAITING,
    _E.RELEASED: _WAITING,
    _E.REQUEUED: _WAITING,
    _E.SUCCEEDED: frozenset({_E.REQUEUED}),
    _E.DEAD_LETTERED: frozenset({_E.REQUEUED}),
    _E.CANCELED: frozenset({_E.REQUEUED}),
}
"""What may come next in the timeline of a job."""

ENDS = frozenset({_E.SUCCEEDED, _E.DEAD_LETTERED, _E.CANCELED})


def violations(connection: Connection, acknowledged: Iterable[str]) -> list[str]:
    """Every broken rule with its first cases; nothing when all is well. Leaves a temporary table behind."""
    _store_acknowledged(connection, acknowledged)
    found = broken(connection, RULES)
    disordered = _disordered_timelines(connection)
    return found + ([f"a timeline is out of order: {_name(disordered)}"] if disordered else [])


def broken(connection: Connection, rules: Mapping[str, str]) -> list[str]:
    """The rules of these that do not hold, each with its first cases."""
    found = {sentence: connection.execute(query).fetchall() for sentence, query in rules.items()}
    return [f"{sentence}: {len(cases)} × {_name(cases)}" for sentence, cases in found.items() if cases]


def _name(cases: Sequence[Any]) -> str:
    return "; ".join(" ".join(str(value) for value in case) for case in cases[:MOST_NAMED])


def _store_acknowledged(connection: Connection, acknowledged: Iterable[str]) -> None:
    connection.execute("CREATE TEMPORARY TABLE IF NOT EXISTS acknowledged (job_id uuid PRIMARY KEY)")
    connection.execute("TRUNCATE acknowledged")
    with connection.cursor() as cursor, cursor.copy("COPY acknowledged FROM STDIN") as copy:
        for job_id in acknowledged:
            copy.write_row((job_id,))


def _disordered_timelines(connection: Connection) -> list[tuple[str, str]]:
    """Among the jobs with the longest stories."""
    sampled = [job_id for (job_id,) in connection.execute(SAMPLE, (SAMPLED_JOBS,)).fetchall()]
    return [(job_id, reason) for job_id in sampled if (reason := _disorder(connection, job_id))]


def _disorder(connection: Connection, job_id: str) -> str | None:
    events = sorted_events(connection, job_id)
    kinds = [event_type for event_type, _ in events]
    if not kinds or kinds[0] is not _E.ENQUEUED or kinds[-1] not in ENDS:
        return f"does not go from ENQUEUED to an end: {kinds}"
    for (earlier, earlier_at), (later, later_at) in itertools.pairwise(events):
        if later not in FOLLOWERS[earlier]:
            return f"{later} after {earlier}: {kinds}"
        if later_at < earlier_at:
            return f"{later} before its {earlier}"
    return None


def sorted_events(connection: Connection, job_id: str) -> list[tuple[JobEventType, Any]]:
    """The timeline in the order in which the product shows it, the first first."""
    events = list_job_events(connection, job_id, scope=Scope.any(), limit=1_000)
    return [(event.event_type, event.occurred_at) for event in events]

"""What must be true when everything has healed and the queue is empty, whatever was killed. Each rule names its
violations; none of them asks how the result came about.
"""

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import psycopg
from chaos.app import EFFECT, GATED_EFFECT

from runledger.core.jobs import Scope
from runledger.core.states import JobEventType
from runledger.postgres.reads import list_job_events

Connection = psycopg.Connection[Any]
MOST_NAMED = 5
SAMPLED_JOBS = 200

EFFECT_TYPES = f"('{EFFECT}', '{GATED_EFFECT}')"
REFUNDED = "('RELEASED', 'SNOOZED')"

RULES: dict[str, str] = {
    "an acknowledged job is lost": """
        SELECT k.job_id FROM acknowledged k LEFT JOIN runledger.job_queue q ON q.id = k.job_id WHERE q.id IS NULL
    """,
    "a job has no end": "SELECT id FROM runledger.job_queue WHERE final_status IS NULL",
    "a run succeeded twice": """
        SELECT job_id, run_number, count(*) FROM runledger.job_attempts WHERE outcome = 'SUCCEEDED'
        GROUP BY job_id, run_number HAVING count(*) > 1
    """,
    "a job is called succeeded and no attempt of its last run was": """
        SELECT q.id FROM runledger.job_queue q WHERE q.final_status = 'SUCCEEDED' AND NOT EXISTS (
            SELECT FROM runledger.job_attempts a
            WHERE a.job_id = q.id AND a.run_number = q.run_number AND a.outcome = 'SUCCEEDED')
    """,
    "an attempt succeeded and its job is called otherwise": """
        SELECT q.id, q.final_status FROM runledger.job_queue q
        JOIN runledger.job_attempts a ON a.job_id = q.id AND a.run_number = q.run_number AND a.outcome = 'SUCCEEDED'
        WHERE q.final_status IS DISTINCT FROM 'SUCCEEDED'
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
    "counted attempts have a gap or a double": f"""
        SELECT job_id, run_number, array_agg(attempt ORDER BY lease_token) FROM runledger.job_attempts
        WHERE outcome NOT IN {REFUNDED} GROUP BY job_id, run_number
        HAVING array_agg(attempt ORDER BY lease_token) <> array_agg(attempt ORDER BY attempt)
            OR count(DISTINCT attempt) <> count(*) OR max(attempt) <> count(*)
    """,
    "the record counts other attempts than there were": f"""
        SELECT q.id, q.attempt, count(a.job_id) FROM runledger.job_queue q
        LEFT JOIN runledger.job_attempts a
            ON a.job_id = q.id AND a.run_number = q.run_number AND a.outcome NOT IN {REFUNDED}
        WHERE q.final_status IS NOT NULL GROUP BY q.id HAVING q.attempt <> count(a.job_id)
    """,
    "a lease is left": "SELECT job_id, worker_id, lease_expires_at FROM runledger.job_leases",
    "a job is in more than one place, or in none": """
        SELECT q.id, count(p.place) FROM runledger.job_queue q LEFT JOIN (
            SELECT job_id, 'ready' AS place FROM runledger.job_ready
            UNION ALL SELECT job_id, 'scheduled' FROM runledger.job_scheduled
            UNION ALL SELECT job_id, 'leased' FROM runledger.job_leases
            UNION ALL SELECT id, 'final' FROM runledger.job_queue WHERE final_status IS NOT NULL
        ) p ON p.job_id = q.id GROUP BY q.id HAVING count(p.place) <> 1
    """,
}
"""A sentence that must be false, and the query that finds where it is true."""

SAMPLE = """
    SELECT id::text FROM runledger.job_queue q WHERE final_status IS NOT NULL ORDER BY (
        SELECT count(*) FROM runledger.job_attempts a WHERE a.job_id = q.id) DESC, id LIMIT %s
"""
_E = JobEventType
FOLLOWERS: dict[JobEventType, frozenset[JobEventType]] = {
    _E.ENQUEUED: frozenset({_E.LEASED, _E.CANCELED}),
    _E.LEASED: frozenset({_E.SUCCEEDED, _E.FAILED, _E.RELEASED, _E.RETRY_SCHEDULED, _E.CANCELED}),
    _E.FAILED: frozenset({_E.RETRY_SCHEDULED, _E.DEAD_LETTERED}),
    _E.RETRY_SCHEDULED: frozenset({_E.LEASED, _E.CANCELED}),
    _E.RELEASED: frozenset({_E.LEASED, _E.CANCELED}),
    _E.SUCCEEDED: frozenset(),
    _E.DEAD_LETTERED: frozenset(),
}
"""What may come next in the timeline of a job that nobody requeued."""


def violations(connection: Connection, acknowledged: Iterable[str]) -> list[str]:
    """Every broken rule with its first cases; nothing when all is well. Leaves a temporary table behind."""
    _store_acknowledged(connection, acknowledged)
    checks: dict[str, Callable[[], list[Any]]] = {
        sentence: lambda query=query: connection.execute(query).fetchall()  # type: ignore[misc]
        for sentence, query in RULES.items()
    }
    checks["a timeline is out of order"] = lambda: _disordered_timelines(connection)
    found = {sentence: check() for sentence, check in checks.items()}
    return [f"{sentence}: {len(cases)} × {_name(cases)}" for sentence, cases in found.items() if cases]


def _name(cases: list[Any]) -> str:
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
    if not kinds or kinds[0] is not _E.ENQUEUED or FOLLOWERS.get(kinds[-1], frozenset()):
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

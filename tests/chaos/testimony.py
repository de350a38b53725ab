"""What people and programs were told, held against what the database says in the end."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
from chaos.told import Told, Witness

Connection = psycopg.Connection[Any]
MOST_NAMED = 5

BATCHES = """
    SELECT payload ->> 'batch', count(*) FROM runledger.job_queue WHERE payload ? 'batch' GROUP BY 1
"""
KEYS = "SELECT idempotency_key, id::text FROM runledger.job_queue WHERE idempotency_key IS NOT NULL"
RUNS = "SELECT idempotency_key, id::text FROM runledger.workflow_runs"
RUN_ENDS = "SELECT id::text, status::text FROM runledger.workflow_runs"
GATES = """
    SELECT workflow_run_id::text, step_key, status::text FROM runledger.workflow_steps WHERE kind = 'EXTERNAL'
"""
APPENDS = """
    SELECT m.workflow_run_id::text, m.mutation_key, count(s.id) FROM runledger.workflow_run_mutations m
    LEFT JOIN runledger.workflow_steps s ON s.workflow_run_id = m.workflow_run_id AND s.step_key LIKE 'more-%'
    GROUP BY 1, 2
"""
GIVEN = "SELECT job_id::text, lease_token FROM runledger.job_attempts"
CANCELED = "SELECT id::text FROM runledger.job_queue WHERE final_status = 'CANCELED' AND workflow_run_id IS NULL"


def contradictions(connection: Connection, witness: Witness) -> list[str]:
    """Every sentence that somebody was told and that is not so, with its first cases."""
    found: dict[str, list[Any]] = {}
    for sentence, case in (
        *_of_batches(connection, witness),
        *_of_keys(connection, witness),
        *_of_runs(connection, witness),
        *_of_cancels(connection, witness),
    ):
        found.setdefault(sentence, []).append(case)
    lines = [f"{sentence}: {len(cases)} × {cases[:MOST_NAMED]}" for sentence, cases in found.items()]
    if witness.surprises:
        lines.append(f"an error that nobody can act on: {len(witness.surprises)} × {witness.surprises[:MOST_NAMED]}")
    return lines


def begun_without_attempt(connection: Connection, begun: Path) -> list[str]:
    """Handlers that ran under a token which their job never had, and tokens under which two jobs ran: a lease that was
    told and is lost."""
    said = {(job_id, int(token)) for job_id, token in (line.split() for line in begun.read_text().splitlines())}
    unknown = said - set(connection.execute(GIVEN).fetchall())
    shared = [token for token, count in Counter(token for _, token in said).items() if count > 1]
    found: dict[str, Sequence[object]] = {
        "a handler ran under a lease that is not there": sorted(unknown),
        "two jobs ran under one token": shared,
    }
    return [f"{sentence}: {len(cases)} × {cases[:MOST_NAMED]}" for sentence, cases in found.items() if cases]


def applied_unknowns(connection: Connection, witness: Witness) -> int:
    """How many batches whose commit nobody confirmed are there all the same."""
    stored = dict(connection.execute(BATCHES).fetchall())
    return sum(name in stored for name, (_, told) in witness.batches.items() if told is Told.UNKNOWN)


def _of_batches(connection: Connection, witness: Witness) -> Iterator[tuple[str, Any]]:
    stored = dict(connection.execute(BATCHES).fetchall())
    for name, (size, told) in witness.batches.items():
        count = stored.get(name, 0)
        if told is Told.DONE and count != size:
            yield "a batch was acknowledged and is not there as it was", (name, size, count)
        if told is Told.NOT_DONE and count:
            yield "a batch was never committed and is there", (name, count)
        if told is Told.UNKNOWN and count not in (0, size):
            yield "a batch is there in part", (name, size, count)


def _of_keys(connection: Connection, witness: Witness) -> Iterator[tuple[str, Any]]:
    stored = dict(connection.execute(KEYS).fetchall())
    for key, job_ids in witness.keyed.items():
        if job_ids != {stored.get(key)}:
            yield "a key was answered with another job than it has", (key, sorted(job_ids), stored.get(key))
    runs = dict(connection.execute(RUNS).fetchall())
    for key, run_ids in witness.runs.items():
        if run_ids != {runs.get(key)}:
            yield "a key was answered with another run than it has", (key, sorted(run_ids), runs.get(key))


def _of_runs(connection: Connection, witness: Witness) -> Iterator[tuple[str, Any]]:
    ends = dict(connection.execute(RUN_ENDS).fetchall())
    for run_id, endings in witness.endings.items():
        if ends.get(run_id) not in endings:
            yield "a run ended as it cannot", (run_id, sorted(endings), ends.get(run_id))
    gates = {(run_id, key): status for run_id, key, status in connection.execute(GATES).fetchall()}
    for gate, status in witness.gates.items():
        if gates.get(gate) != status:
            yield "a gate was completed and ended otherwise", (gate, status, gates.get(gate))
    appends = {(run_id, key): count for run_id, key, count in connection.execute(APPENDS).fetchall()}
    for append, count in witness.appended.items():
        if appends.get(append) != count:
            yield "an append was acknowledged and is not there as it was", (append, count, appends.get(append))


def _of_cancels(connection: Connection, witness: Witness) -> Iterator[tuple[str, Any]]:
    cancelled = {job_id for (job_id,) in connection.execute(CANCELED).fetchall()}
    for job_id in witness.certainly_cancelled:
        if job_id not in cancelled:
            yield "a job was cancelled and ended otherwise", job_id
    for job_id in cancelled:
        if job_id not in witness.cancelled:
            yield "a job is cancelled and nobody asked for it", job_id

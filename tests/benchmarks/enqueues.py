"""What enqueueing costs: one job for each commit, a batch by arrays, ten thousand by COPY, beside hand SQL."""

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.synchronize import Barrier
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from benchmarks import framework
from benchmarks.app import JOB_TYPE, PAYLOAD
from benchmarks.floor import together
from benchmarks.ground import wal_position
from benchmarks.report import Contest
from runledger.core.requests import JobRequest
from runledger.postgres import copying
from runledger.postgres.enqueue import enqueue_job, enqueue_jobs

BARE = """
INSERT INTO runledger.job_queue (job_type, payload, priority, max_attempts, timeout_seconds)
VALUES (%s, %s, 0, 3, 300) RETURNING id::text
"""
BARE_BOTH = """
WITH recorded AS (
    INSERT INTO runledger.job_queue (job_type, payload, priority, max_attempts, timeout_seconds)
    VALUES (%s, %s, 0, 3, 300) RETURNING id, job_type
)
INSERT INTO runledger.job_ready (job_id, next_run_at, priority, job_type)
SELECT id, now(), 0, job_type FROM recorded RETURNING job_id::text
"""
UNNEST = """
WITH recorded AS (
    INSERT INTO runledger.job_queue (job_type, payload, priority, max_attempts, timeout_seconds)
    SELECT job_type, payload::jsonb, 0, 3, 300 FROM unnest(%s::text[], %s::text[]) AS wanted (job_type, payload)
    RETURNING id, job_type
)
INSERT INTO runledger.job_ready (job_id, next_run_at, priority, job_type)
SELECT id, now(), 0, job_type FROM recorded RETURNING job_id::text
"""
COPY_RECORDS = """
COPY runledger.job_queue (id, job_type, payload, priority, max_attempts, timeout_seconds) FROM STDIN
"""
COPY_READY = "COPY runledger.job_ready (job_id, next_run_at, priority, job_type) FROM STDIN"

SINGLE_JOBS = 300
ARRAY_JOBS = copying.MINIMUM_ROWS - 1
COPY_JOBS = 10_000
CLIENTS = 8
CLIENT_JOBS = 1_000

Connection = psycopg.Connection[tuple[Any, ...]]
Enqueue = Callable[[Connection, int], None]


def contests(url: str) -> list[Contest]:
    """One at a time, by arrays, by COPY."""
    return [
        _contest(
            url, "enqueue one", SINGLE_JOBS, {"bare INSERT": bare, "bare, both rows": bare_both, "enqueue_job": one}
        ),
        _contest(url, f"enqueue {ARRAY_JOBS}", ARRAY_JOBS, {"hand unnest": unnest, "enqueue_jobs": many}),
        _contest(url, f"enqueue {COPY_JOBS}", COPY_JOBS, {"hand COPY": copy, "enqueue_jobs": many}),
        Contest(
            f"enqueue one, {CLIENTS} clients",
            {"nobody listens": partial(at_once, url), "an idle host listens": partial(at_once_beside_a_host, url)},
        ),
    ]


def _contest(url: str, name: str, jobs: int, contenders: Mapping[str, Enqueue]) -> Contest:
    return Contest(name, {who: partial(measured, url, jobs, enqueue) for who, enqueue in contenders.items()})


def measured(url: str, jobs: int, enqueue: Enqueue) -> Mapping[str, float]:
    """Jobs a second over one warm connection, and what they wrote. Batches are repeated: one alone takes no longer than
    a stall of the disk."""
    batches = 1 if jobs < ARRAY_JOBS else max(3, COPY_JOBS // jobs)
    with psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection:
        enqueue(connection, jobs)
        wal, began = wal_position(url), time.monotonic()
        for _ in range(batches):
            enqueue(connection, jobs)
        seconds = time.monotonic() - began
        return {"jobs/s": batches * jobs / seconds, "WAL B/job": (wal_position(url) - wal) / (batches * jobs)}


def at_once(url: str) -> Mapping[str, float]:
    """Jobs a second that ``CLIENTS`` processes enqueue together, each in a commit of its own."""
    return {"jobs/s": CLIENTS * CLIENT_JOBS / together(_client, url, CLIENTS, CLIENT_JOBS)}


def at_once_beside_a_host(url: str) -> Mapping[str, float]:
    """The same while a host listens that serves other types: at first each of these jobs wakes it."""
    with framework.idle_worker(url, catalog="bystanders"), psycopg.connect(url, autocommit=True) as connection:
        framework.wait_until_listening(connection)
        return at_once(url)


def _client(url: str, jobs: int, barrier: Barrier) -> None:
    with psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection:
        one(connection, 1)
        barrier.wait(30)
        one(connection, jobs)


def one(connection: Connection, jobs: int) -> None:
    for _ in range(jobs):
        enqueue_job(connection, JobRequest(JOB_TYPE, PAYLOAD))


def bare(connection: Connection, jobs: int) -> None:
    for _ in range(jobs):
        connection.execute(BARE, (JOB_TYPE, Jsonb(PAYLOAD))).fetchone()


def bare_both(connection: Connection, jobs: int) -> None:
    for _ in range(jobs):
        connection.execute(BARE_BOTH, (JOB_TYPE, Jsonb(PAYLOAD))).fetchone()


def many(connection: Connection, jobs: int) -> None:
    with connection.transaction():
        enqueue_jobs(connection, [JobRequest(JOB_TYPE, PAYLOAD) for _ in range(jobs)])


def unnest(connection: Connection, jobs: int) -> None:
    connection.execute(UNNEST, ([JOB_TYPE] * jobs, [json.dumps(PAYLOAD) for _ in range(jobs)])).fetchall()


def copy(connection: Connection, jobs: int) -> None:
    with connection.transaction(), connection.cursor() as cursor:
        row = cursor.execute("SELECT now(), (extract(epoch FROM now()) * 1000)::bigint").fetchone()
        assert row is not None
        job_ids = [UUID(job_id) for job_id in copying.uuid7_series(row[1], jobs)]
        with cursor.copy(COPY_RECORDS) as records:
            for job_id in job_ids:
                records.write_row((job_id, JOB_TYPE, json.dumps(PAYLOAD), 0, 3, 300))
        with cursor.copy(COPY_READY) as ready:
            for job_id in job_ids:
                ready.write_row((job_id, row[0], 0, JOB_TYPE))

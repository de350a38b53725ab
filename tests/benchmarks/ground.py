"""The ground of every measurement: a durable server of our own, a database for each contender, the same backlog."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from benchmarks.app import JOB_TYPE, PAYLOAD, catalog
from runledger.database import migrate
from runledger.embedded import DURABLE_SETTINGS, running_server
from runledger.testing.databases import ephemeral_database

URL_VARIABLE = "RUNLEDGER_BENCH_DATABASE_URL"
SETTINGS = {**DURABLE_SETTINGS, "shared_buffers": "512MB", "max_wal_size": "4GB"}
STATISTICS = {"shared_preload_libraries": "pg_stat_statements"}

EMPTY = """
TRUNCATE runledger.job_queue, runledger.job_ready, runledger.job_scheduled, runledger.job_leases,
    runledger.job_attempts, runledger.job_events, runledger.job_starts
"""
FILL = """
WITH recorded AS (
    INSERT INTO runledger.job_queue (job_type, payload, priority, max_attempts, timeout_seconds)
    SELECT %s, %s, 0, 3, 300 FROM generate_series(1, %s)
    RETURNING id, job_type
)
INSERT INTO runledger.job_ready (job_id, next_run_at, priority, job_type) SELECT id, now(), 0, job_type FROM recorded
"""
CALLS = """
SELECT coalesce(sum(s.calls), 0) FROM pg_stat_statements AS s JOIN pg_database AS d ON d.oid = s.dbid
WHERE d.datname = current_database() AND s.toplevel
"""


@contextlib.contextmanager
def durable_server() -> Iterator[str]:
    """The URL of a server that keeps what it acknowledged: the given one, else an embedded one that is gone after."""
    given = os.environ.get(URL_VARIABLE)
    if given:
        yield given
        return
    with (
        tempfile.TemporaryDirectory(prefix="runledger-bench-") as home,
        running_server(Path(home), {**SETTINGS, **STATISTICS}) as server,
    ):
        yield server.url()


@contextlib.contextmanager
def ledger_database(server_url: str) -> Iterator[str]:
    """A migrated database that knows the job types of ``benchmarks.app``."""
    with ephemeral_database(server_url, prefix="bench") as url:
        migrate(url)
        with psycopg.connect(url) as connection:
            catalog.sync_definitions(connection)
            count_statements(connection)
        yield url


def fill(url: str, jobs: int, job_type: str = JOB_TYPE) -> None:
    """Exactly ``jobs`` due jobs of a type, statistics as after a while of work."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(EMPTY)
        connection.execute(FILL, (job_type, Jsonb(PAYLOAD), jobs))
        connection.execute("ANALYZE runledger.job_queue, runledger.job_ready, runledger.job_definitions")


def wal_position(url: str) -> int:
    """Bytes of WAL that the server has written so far."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").fetchone()
    assert row is not None
    return int(row[0])


def statement_calls(url: str) -> int | None:
    """Statements that this database has run so far; None when the server does not count them."""
    with psycopg.connect(url, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'pg_stat_statements'").fetchone():
            return None
        row = connection.execute(CALLS).fetchone()
    assert row is not None
    return int(row[0])


def count_succeeded(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT count(*) FROM runledger.job_queue WHERE final_status = 'SUCCEEDED'").fetchone()
    assert row is not None
    return int(row[0])


def count_statements(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """``statement_calls`` answers for this database from now on, where the server can count."""
    row = connection.execute("SELECT current_setting('shared_preload_libraries')").fetchone()
    if row is not None and "pg_stat_statements" in str(row[0]):
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")

"""What the tests look at: rows, places and locks; and ways to wait for them without sleeping."""

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg

from runledger.postgres.tables import metadata

Connection = psycopg.Connection[Any]
DEADLINE_SECONDS = 60.0


def until(condition: Callable[[], Any]) -> Any:
    """What ``condition`` answers as soon as it is true. Raises AssertionError after a minute."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    pause = threading.Event()
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        pause.wait(0.002)
    raise AssertionError("what the test waits for did not happen in time")


def until_blocked(observer: Connection, waiting: Connection) -> None:
    """Returns once the server says that ``waiting`` waits for a lock of somebody else."""
    pid = waiting.info.backend_pid
    until(lambda: scalar(observer, "SELECT cardinality(pg_blocking_pids(%s)) > 0", pid))


def scalar(connection: Connection, query: str, *parameters: object) -> Any:
    """The only value of the only row."""
    row = connection.execute(query, parameters).fetchone()
    assert row is not None
    return row[0]


def count(connection: Connection, table: str) -> int:
    return int(scalar(connection, f"SELECT count(*) FROM runledger.{table}"))


def place_of(connection: Connection, job_id: object) -> list[str]:
    """Every place that holds the job, of ready, scheduled and leases; a job in flight or waiting has exactly one."""
    places = ("job_ready", "job_scheduled", "job_leases")
    return [
        place
        for place in places
        if scalar(connection, f"SELECT count(*) FROM runledger.{place} WHERE job_id = %s", str(job_id))
    ]


def snapshot(connection: Connection) -> dict[str, list[Any]]:
    """All rows of all tables, to show that a refused call wrote nothing."""
    return {
        table.name: connection.execute(
            f"SELECT to_jsonb(t) FROM {table.fullname} t ORDER BY to_jsonb(t)::text"
        ).fetchall()
        for table in metadata.sorted_tables
        if not table.info.get("is_view")
    }

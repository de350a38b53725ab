"""What the planner makes of the processes' statements when statistics mislead it: every row is found by an index.

A vacuum that runs while nobody holds a lease and nothing is ready notes that the tables are empty. Beside a transaction
that stays open they are full of dead rows all the same, for hours, and a plan that begins with "the few rows there are"
reads all of them.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from postgres.observing import Connection

from runledger.database.database import SESSION_SETTINGS
from runledger.postgres.claim import CLAIM_JOBS, CLAIM_STEPS
from runledger.postgres.leases import SAVE_PROGRESS
from runledger.postgres.limits import LOCK_LIMITED_TYPES
from runledger.postgres.metrics_rollup import ALLOW_BRIN, ROLL_UP_METRICS
from runledger.postgres.promote import PROMOTE_DUE
from runledger.postgres.settle import SETTLE_ENDED, SETTLE_SUCCEEDED
from runledger.postgres.statements import SCHEMA, Statement

JOBS = 5_000
DEEP = ("job_queue", "job_ready", "job_scheduled", "job_leases", "job_attempts")
_PARAMETER = re.compile(r"%\((\w+)\)s")
_PLACE = "(job_id, next_run_at, priority, job_type)"


def plan_of(connection: Connection, statement: Statement) -> list[dict[str, Any]]:
    """All nodes of its generic plan."""
    names = list(dict.fromkeys(_PARAMETER.findall(statement.text(SCHEMA))))
    text = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", statement.text(SCHEMA)).replace("%%", "%")
    cursor = psycopg.ClientCursor(connection)
    cursor.execute(f"PREPARE planned AS {text}")  # type: ignore[arg-type]
    nothing = f"({', '.join(['NULL'] * len(names))})" if names else ""
    [(plan,)] = cursor.execute(f"EXPLAIN (FORMAT JSON) EXECUTE planned {nothing}").fetchall()  # type: ignore[arg-type]
    cursor.execute("DEALLOCATE planned")
    return list(_nodes((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]))


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def whole_scans(connection: Connection, statement: Statement) -> list[tuple[str, str]]:
    """Tables that grow and are read from one end to the other."""
    scans = [node for node in plan_of(connection, statement) if node.get("Relation Name") in DEEP]
    return [
        (node["Relation Name"], node["Node Type"])
        for node in scans
        if "Scan" in node["Node Type"]
        and not any(condition in node for condition in ("Index Cond", "TID Cond", "Recheck Cond"))
    ]


@pytest.fixture
def misled(connection: Connection) -> Iterator[Connection]:
    """A history, and places that have held as many jobs as it has, none now; statistics say so. Never committed."""
    with connection.transaction(force_rollback=True):
        for setting in SESSION_SETTINGS.split("; "):
            connection.execute(setting.replace("SET ", "SET LOCAL "))  # type: ignore[arg-type]
        connection.execute(
            "INSERT INTO runledger.job_queue (job_type, payload, priority, max_attempts, timeout_seconds)"
            " SELECT 't', '{}', 0, 3, 300 FROM generate_series(1, %s)",
            (JOBS,),
        )
        connection.execute(
            "INSERT INTO runledger.job_leases (job_id, lease_token, leased_at, lease_expires_at, next_run_at, priority,"
            " run_number, attempt, job_type, worker_id)"
            " SELECT id, row_number() OVER (), now(), now(), now(), 0, 1, 1, job_type, 'w' FROM runledger.job_queue"
        )
        connection.execute(
            "INSERT INTO runledger.job_attempts (job_id, lease_token, run_number, attempt, leased_at, finished_at,"
            " outcome, worker_id) SELECT job_id, lease_token, 1, 1, now(), now() + lease_token * interval '1 second',"
            " 'SUCCEEDED', 'w' FROM runledger.job_leases"
        )
        for place in ("job_ready", "job_scheduled"):
            connection.execute(
                f"INSERT INTO runledger.{place} {_PLACE} SELECT id, now(), 0, job_type FROM runledger.job_queue"  # type: ignore[arg-type]
            )
        for place in ("job_leases", "job_ready", "job_scheduled"):
            connection.execute(f"DELETE FROM runledger.{place}")  # type: ignore[arg-type]
        connection.execute("ANALYZE")
        yield connection


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(one, id=one.name)
        for one in (
            CLAIM_JOBS,
            CLAIM_STEPS,
            SETTLE_SUCCEEDED,
            SETTLE_ENDED,
            SAVE_PROGRESS,
            LOCK_LIMITED_TYPES,
            PROMOTE_DUE,
        )
    ],
)
def test_no_statement_of_every_exchange_reads_a_whole_table(misled: Connection, statement: Statement) -> None:
    assert whole_scans(misled, statement) == []


def test_the_roll_up_reads_the_attempts_of_its_step_only(misled: Connection) -> None:
    assert ("job_attempts", "Index Scan") in whole_scans(misled, ROLL_UP_METRICS)  # with what the processes have set

    misled.execute(ALLOW_BRIN.text(SCHEMA))  # type: ignore[arg-type]

    assert whole_scans(misled, ROLL_UP_METRICS) == []

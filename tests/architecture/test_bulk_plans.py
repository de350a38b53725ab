"""Plans of bulk operations and a preflight among 100,000 jobs, whatever the statistics say: by key."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from architecture.plans import nodes_of, whole_scans

from runledger.core.filters import JobFilter
from runledger.core.jobs import Scope
from runledger.postgres.arrays import plain_array
from runledger.postgres.bulk import (
    CANCEL_JOBS,
    FIND_CANCELED_JOBS,
    FIND_DEAD_LETTERED_JOBS,
    FIND_LEASED_JOBS,
    FIND_WAITING_JOBS,
    REQUEUE_JOBS,
)
from runledger.postgres.job_walks import walk_parameters
from runledger.postgres.preflight import LIST_LIVE_PAYLOADS
from runledger.postgres.priorities import REPRIORITISE_JOBS
from runledger.postgres.statements import Parameters, Statement

Connection = psycopg.Connection[tuple[Any, ...]]
PLACES = ("job_ready", "job_scheduled", "job_leases", "job_dead_letters", "job_events")
TABLES = ("job_queue", *PLACES)
BATCH = 1_000
EMPTY = f"TRUNCATE {', '.join(f'runledger.{table}' for table in TABLES)}"
HOLD_STILL = "ALTER TABLE runledger.{} SET (autovacuum_enabled = false)"
FILL = """
INSERT INTO runledger.job_definitions (job_type) VALUES ('plans') ON CONFLICT DO NOTHING;
INSERT INTO runledger.job_queue (job_type, priority, max_attempts, timeout_seconds, final_status, finished_at, tags)
SELECT 'plans', 0, 3, 300, status::runledger.job_status, CASE WHEN status IS NULL THEN NULL ELSE now() END, '{t}'
FROM generate_series(1, 20000), unnest(ARRAY['DEAD_LETTERED', 'CANCELED', NULL, NULL, NULL]) AS status;
INSERT INTO runledger.job_dead_letters (job_id, run_number, attempt, job_type, payload_snapshot, failed_at)
SELECT id, 1, 1, 'plans', '{}', now() FROM runledger.job_queue WHERE final_status = 'DEAD_LETTERED';
INSERT INTO runledger.job_events (job_id, run_number, event_type)
SELECT id, 1, 'CANCELED' FROM runledger.job_queue WHERE final_status = 'CANCELED';
WITH live AS (SELECT id, row_number() OVER () % 3 AS place FROM runledger.job_queue WHERE final_status IS NULL),
readied AS (
    INSERT INTO runledger.job_ready (job_id, next_run_at, priority, job_type)
    SELECT id, now(), 0, 'plans' FROM live WHERE place = 0
), later AS (
    INSERT INTO runledger.job_scheduled (job_id, next_run_at, priority, job_type)
    SELECT id, now() + interval '1 day', 0, 'plans' FROM live WHERE place = 1
)
INSERT INTO runledger.job_leases (job_id, lease_token, leased_at, lease_expires_at, next_run_at, priority, run_number,
    attempt, job_type, worker_id)
SELECT id, nextval('runledger.lease_token'), now(), now() + interval '1 day', now(), 0, 1, 1, 'plans', 'w'
FROM live WHERE place = 2
"""


def _analyse(connection: Connection) -> None:
    for table in TABLES:
        connection.execute(f"VACUUM ANALYZE runledger.{table}".encode())


def _filled_and_analysed(connection: Connection) -> None:
    connection.execute(FILL.encode())
    _analyse(connection)


def _filled_behind_the_statistics(connection: Connection) -> None:
    """Analysed when it was full, and when it was empty; full again."""
    _filled_and_analysed(connection)
    connection.execute(EMPTY.encode())
    _analyse(connection)
    connection.execute(FILL.encode())


STATES = [_filled_and_analysed, _filled_behind_the_statistics]
CHANGES = [
    (FIND_WAITING_JOBS, "PENDING", CANCEL_JOBS, {"is_leased": False}),
    (FIND_LEASED_JOBS, "LEASED", CANCEL_JOBS, {"is_leased": True}),
    (FIND_DEAD_LETTERED_JOBS, "DEAD_LETTERED", REQUEUE_JOBS, {"status": "DEAD_LETTERED"}),
    (FIND_CANCELED_JOBS, "CANCELED", REQUEUE_JOBS, {"status": "CANCELED"}),
    (FIND_WAITING_JOBS, "PENDING", REPRIORITISE_JOBS, {"priority": 7}),
]


@pytest.mark.parametrize("prepare", STATES)
def test_a_batch_is_found_and_changed_by_key(database: Connection, prepare: Callable[[Connection], None]) -> None:
    database.execute(EMPTY.encode())
    for table in TABLES:
        database.execute(HOLD_STILL.format(table).encode())
    prepare(database)

    for find, status, change, options in CHANGES:
        _check(database, find, status, change, options)


@pytest.mark.parametrize("prepare", STATES)
def test_a_page_of_a_preflight_is_found_by_key(database: Connection, prepare: Callable[[Connection], None]) -> None:
    database.execute(EMPTY.encode())
    for table in TABLES:
        database.execute(HOLD_STILL.format(table).encode())
    prepare(database)
    query = b"SELECT id FROM runledger.job_queue WHERE final_status IS NULL ORDER BY id OFFSET 30000 LIMIT 1"
    middle = database.execute(query).fetchone()
    assert middle is not None

    nodes = nodes_of(database, LIST_LIVE_PAYLOADS, {"after": middle[0], "limit": BATCH}, analyze=True)

    for table in TABLES:
        assert whole_scans(nodes, table) == [], table
    assert max(_rows(node) for node in nodes if node.get("Relation Name") in TABLES) == BATCH


def _check(database: Connection, find: Statement, status: str, change: Statement, options: Parameters) -> None:
    wanted = JobFilter("plans", status, tag="t")
    parameters = walk_parameters(wanted, Scope.any(), before=None, limit=BATCH)
    found = nodes_of(database, find, parameters, analyze=True)
    job_ids = [row[1] for row in database.execute(find.text("runledger").encode(), parameters).fetchall()]
    assert len(job_ids) == BATCH
    words = {"reason": None, "actor": None, "job_ids": plain_array(job_ids)}
    changed = nodes_of(database, change, words | options, analyze=True)

    for nodes in (found, changed):
        for table in TABLES:
            assert whole_scans(nodes, table) == [], (change.name, table)
        assert max(_rows(node) for node in nodes if node.get("Relation Name") in TABLES) <= 2 * BATCH + 1, change.name


def _rows(node: dict[str, Any]) -> float:
    return float((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])

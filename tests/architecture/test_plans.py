"""Plans of the hot path, whatever the statistics say: along the claim's index, never through a whole table."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from architecture.plans import nodes_of, whole_scans

from runledger.core.results import Succeeded
from runledger.postgres.claim import CLAIM_JOBS, claim_parameters
from runledger.postgres.leases import RENEW_LEASES
from runledger.postgres.outcomes import succeeded_parameters
from runledger.postgres.settle import SETTLE_SUCCEEDED
from runledger.postgres.statements import Parameters

Connection = psycopg.Connection[tuple[Any, ...]]

JOBS = 100_000
BATCH = 500
DEFINE = "INSERT INTO runledger.job_definitions (job_type) VALUES ('plans') ON CONFLICT DO NOTHING"
FILL = f"""
WITH recorded AS (
    INSERT INTO runledger.job_queue (job_type, priority, max_attempts, timeout_seconds)
    SELECT 'plans', 0, 3, 300 FROM generate_series(1, {JOBS}) RETURNING id
)
INSERT INTO runledger.job_ready (job_id, next_run_at, priority, job_type) SELECT id, now(), 0, 'plans' FROM recorded
"""
EMPTY = "TRUNCATE runledger.job_queue, runledger.job_ready, runledger.job_leases"
HOLD_STILL = "ALTER TABLE runledger.{} SET (autovacuum_enabled = false)"
HOT_TABLES = ("job_queue", "job_ready", "job_leases")


def _empty_and_analysed(connection: Connection) -> None:
    connection.execute("VACUUM ANALYZE runledger.job_queue, runledger.job_ready, runledger.job_leases")


def _filled_and_analysed(connection: Connection) -> None:
    connection.execute(FILL)
    _empty_and_analysed(connection)


def _filled_behind_the_statistics(connection: Connection) -> None:
    _empty_and_analysed(connection)
    connection.execute(FILL)


def _emptied_behind_the_statistics(connection: Connection) -> None:
    _filled_and_analysed(connection)
    connection.execute("DELETE FROM runledger.job_ready")


def _never_analysed(connection: Connection) -> None:
    connection.execute(FILL)
    connection.execute("DELETE FROM pg_statistic WHERE starelid = 'runledger.job_ready'::regclass")


FILLED = [_filled_and_analysed, _filled_behind_the_statistics, _never_analysed]
STATES = [_empty_and_analysed, *FILLED, _emptied_behind_the_statistics]
Prepare = Callable[[Connection], None]


@pytest.fixture
def ledger(database: Connection) -> Connection:
    database.execute(EMPTY)
    database.execute(DEFINE)
    for table in HOT_TABLES:
        database.execute(HOLD_STILL.format(table).encode())
    return database


@pytest.mark.parametrize("prepare", FILLED)
@pytest.mark.parametrize("job_types", [["plans"], ["plans", *(f"absent.{number}" for number in range(499))]])
def test_a_claim_walks_its_index_and_nothing_else(ledger: Connection, prepare: Prepare, job_types: list[str]) -> None:
    prepare(ledger)

    nodes = nodes_of(ledger, CLAIM_JOBS, _claim(job_types))

    on_ready = [
        node for node in nodes if node.get("Relation Name") == "job_ready" and node["Node Type"] != "ModifyTable"
    ]
    assert {node["Node Type"] for node in on_ready} <= {"Index Scan", "Index Only Scan", "Tid Scan"}
    assert {node["Index Name"] for node in on_ready if "Index Name" in node} == {"idx_job_ready_claim"}
    assert whole_scans(nodes, "job_queue") == []


@pytest.mark.parametrize("prepare", STATES)
def test_a_claim_reads_no_more_than_its_batch(ledger: Connection, prepare: Prepare) -> None:
    prepare(ledger)

    nodes = nodes_of(ledger, CLAIM_JOBS, _claim(["plans"]), analyze=True)

    on_ready = [node for node in nodes if node.get("Relation Name") == "job_ready"]
    assert max(node["Actual Rows"] * node["Actual Loops"] for node in on_ready) <= BATCH


@pytest.mark.parametrize("prepare", FILLED)
def test_a_settle_finds_its_records_by_key(ledger: Connection, prepare: Prepare) -> None:
    prepare(ledger)
    claimed = ledger.execute(CLAIM_JOBS.text("runledger").encode(), _claim(["plans"])).fetchall()

    nodes = nodes_of(
        ledger, SETTLE_SUCCEEDED, succeeded_parameters([Succeeded(row[0], row[1]) for row in claimed]), analyze=True
    )

    assert len(claimed) == BATCH
    assert whole_scans(nodes, "job_queue") == []


@pytest.mark.parametrize("prepare", FILLED)
def test_a_renewal_does_not_look_at_records(ledger: Connection, prepare: Prepare) -> None:
    prepare(ledger)

    nodes = nodes_of(
        ledger, RENEW_LEASES, {"worker_ids": ["w"], "overdue_tokens": [], "lease_ttl_seconds": 60.0}, analyze=True
    )

    assert {node.get("Relation Name") for node in nodes} <= {"job_leases", None}


def _claim(job_types: list[str]) -> Parameters:
    return claim_parameters(worker_id="w", job_types=job_types, limit=BATCH, lease_ttl_seconds=60, queues=None)

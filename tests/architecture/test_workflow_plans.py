"""Plans of workflows on filled tables, whatever the statistics say: no statement walks through steps or edges."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from architecture.plans import nodes_of, whole_scans

from runledger.core.results import Succeeded
from runledger.core.workflow_builder import WorkflowDagBuilder
from runledger.postgres.outcomes import succeeded_parameters
from runledger.postgres.settle import SETTLE_SUCCEEDED
from runledger.postgres.statements import Parameters, Statement
from runledger.postgres.workflow_cascade import SELECT_OPEN_EDGES
from runledger.postgres.workflow_explain import EXPLAIN_RUN, EXPLAIN_STEP
from runledger.postgres.workflow_gates import LIST_OPEN_GATES, SELECT_MISSING_PATH
from runledger.postgres.workflow_inputs import SELECT_INPUTS
from runledger.postgres.workflow_locks import LOCK_RUNS
from runledger.postgres.workflow_rerun import RERUN, SELECT_NAMED, SELECT_SOURCE
from runledger.postgres.workflow_runs import enqueue_workflow_run
from runledger.postgres.workflow_steps import ADVANCE_JOBS, ADVANCE_STEPS, RELEASE_FREE

Connection = psycopg.Connection[tuple[Any, ...]]
Prepare = Callable[[Connection], None]

CHAINS = 10_000
LENGTH = 10
EDGES = 10_000
TABLES = "runledger.workflow_runs, runledger.workflow_steps, runledger.workflow_step_dependencies, runledger.job_queue"
LARGE = ("workflow_steps", "workflow_step_dependencies", "job_queue", "workflow_runs")
DEFINE = "INSERT INTO runledger.job_definitions (job_type) VALUES ('plans') ON CONFLICT DO NOTHING"
FILL = f"""
WITH runs AS (
    INSERT INTO runledger.workflow_runs (workflow_type, step_count, unfinished_count, enqueued_count)
    SELECT 'plans', {LENGTH}, {LENGTH}, 1 FROM generate_series(1, {CHAINS})
    RETURNING id
), steps AS (
    INSERT INTO runledger.workflow_steps (workflow_run_id, step_key, job_type, status, job_id, priority,
                                          max_attempts, timeout_seconds, dependency_count_total,
                                          dependency_count_pending)
    SELECT id, n, 'plans', CASE n WHEN 1 THEN 'ENQUEUED' ELSE 'BLOCKED' END::runledger.workflow_step_status,
           CASE n WHEN 1 THEN gen_random_uuid() END, 0, 3, 300, (n > 1)::int, (n > 1)::int
    FROM runs, generate_series(1, {LENGTH}) AS n
    RETURNING id, workflow_run_id, step_key::int AS n, job_id
), jobs AS (
    INSERT INTO runledger.job_queue (id, job_type, priority, max_attempts, timeout_seconds, workflow_run_id,
                                     workflow_step_id, final_status, finished_at)
    SELECT job_id, 'plans', 0, 3, 300, workflow_run_id, id, 'SUCCEEDED', now() FROM steps WHERE n = 1
)
INSERT INTO runledger.workflow_step_dependencies (workflow_run_id, prerequisite_step_id, dependent_step_id)
SELECT a.workflow_run_id, a.id, b.id
FROM steps a JOIN steps b ON b.workflow_run_id = a.workflow_run_id AND b.n = a.n + 1
"""


def _analysed(connection: Connection) -> None:
    connection.execute(FILL)
    connection.execute(f"ANALYZE {TABLES}")


def _behind_the_statistics(connection: Connection) -> None:
    connection.execute(f"ANALYZE {TABLES}")
    connection.execute(FILL)


def _never_analysed(connection: Connection) -> None:
    connection.execute("DELETE FROM pg_statistic WHERE starelid::regclass::text LIKE 'runledger.%'")
    connection.execute(FILL)


@pytest.fixture(scope="module", params=[_analysed, _behind_the_statistics, _never_analysed])
def filled(request: pytest.FixtureRequest, database_url: str) -> Iterator[Connection]:
    """A hundred thousand steps and ninety thousand edges, analysed, filled since, or never analysed."""
    prepare: Prepare = request.param
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"TRUNCATE {TABLES} CASCADE".encode())
        connection.execute(DEFINE)
        for table in LARGE:
            connection.execute(f"ALTER TABLE runledger.{table} SET (autovacuum_enabled = false)".encode())
        prepare(connection)
        yield connection


def _ids(connection: Connection, query: str) -> list[str]:
    return [row[0] for row in connection.execute(query.encode()).fetchall()]


FIRST_RUN = "SELECT id::text FROM runledger.workflow_runs LIMIT 1"
LEASE = """
INSERT INTO runledger.job_leases (job_id, lease_token, leased_at, lease_expires_at, next_run_at, workflow_run_id,
                                  priority, run_number, attempt, job_type, worker_id)
SELECT id, 1, now(), now() + interval '1 hour', now(), workflow_run_id, 0, 1, 1, 'plans', 'w' FROM runledger.job_queue
"""
SOME_JOBS = "SELECT id::text FROM runledger.job_queue LIMIT 100"
A_STEP = "SELECT id::text FROM runledger.workflow_steps WHERE step_key = '1' LIMIT 1"
ANYWHERE = {"scope_kind": "any", "scope_organization_id": None}


def _parameters(connection: Connection, name: str) -> Parameters:
    run_id = _ids(connection, FIRST_RUN)[0]
    return {
        "jobs": {"job_ids": _ids(connection, SOME_JOBS), "schema": "runledger"},
        "steps": {"step_ids": _ids(connection, A_STEP), "schema": "runledger"},
        "free": {"run_id": run_id, "schema": "runledger"},
        "gate": {"step_id": _ids(connection, A_STEP)[0], "step_key": "1", "output": None},
        "run": {"run_id": run_id, "reason": None, "step_key": str(LENGTH), "also": ["1"]} | ANYWHERE,
    }[name]


@pytest.mark.parametrize("filled", [_analysed, _behind_the_statistics], indirect=True, scope="module")
@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        (ADVANCE_JOBS, "jobs"),
        (ADVANCE_STEPS, "steps"),
        (SELECT_INPUTS, "jobs"),
        (RELEASE_FREE, "free"),
        (SELECT_SOURCE, "run"),
        (RERUN, "run"),
        (SELECT_NAMED, "run"),
        (SELECT_MISSING_PATH, "gate"),
        (LIST_OPEN_GATES, "run"),
        (EXPLAIN_STEP, "run"),
        (EXPLAIN_RUN, "run"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_no_statement_walks_through_steps_or_edges(filled: Connection, statement: Statement, parameters: str) -> None:
    nodes = nodes_of(filled, statement, _parameters(filled, parameters), analyze=True)

    assert {table: whole_scans(nodes, table) for table in LARGE} == {table: [] for table in LARGE}


@pytest.mark.parametrize("ends", [1, 100, 500])
@pytest.mark.parametrize(
    "statement", [LOCK_RUNS, SETTLE_SUCCEEDED, ADVANCE_JOBS, ADVANCE_STEPS, SELECT_INPUTS], ids=lambda one: one.name
)
def test_an_end_looks_up_what_it_touches_in_as_many_runs(filled: Connection, statement: Statement, ends: int) -> None:
    """A batch of steps, each of another run."""
    rows = filled.execute(
        "SELECT job_id::text, id::text, workflow_run_id::text FROM runledger.workflow_steps WHERE step_key = '1' "
        "ORDER BY hashtext(id::text) LIMIT %s",
        [ends],
    ).fetchall()
    jobs, steps, runs = (list(column) for column in zip(*rows, strict=True))
    parameters = {"job_ids": jobs, "step_ids": steps, "run_ids": runs, "schema": "runledger"}
    if statement is SETTLE_SUCCEEDED:
        parameters = succeeded_parameters([Succeeded(job, 1) for job in jobs])

    with filled.transaction(force_rollback=True):
        filled.execute(LEASE)
        nodes = nodes_of(filled, statement, parameters, analyze=True)

    assert {table: whole_scans(nodes, table) for table in LARGE} == {table: [] for table in LARGE}


@pytest.mark.parametrize("filled", [_never_analysed], indirect=True, scope="module")
def test_what_stands_behind_a_hopeless_step_is_read_once(filled: Connection) -> None:
    """In tables of one graph: there the edges of the run looked as good to start from as those of a step."""
    builder = WorkflowDagBuilder("plans").job("0", "plans").job("1", "plans")
    for number in range(2, EDGES // 2 + 2):
        builder.job(str(number), "plans").after_success(str(number), [str(number - 1), str(number - 2)])
    with filled.transaction(force_rollback=True):
        filled.execute(f"TRUNCATE {TABLES} CASCADE".encode())
        run_id = enqueue_workflow_run(filled, builder.build()).run_id
        root = f"SELECT id::text FROM runledger.workflow_steps WHERE workflow_run_id = '{run_id}' AND step_key = '0'"

        nodes = nodes_of(filled, SELECT_OPEN_EDGES, {"step_ids": _ids(filled, root)}, analyze=True)

    assert max(node["Actual Rows"] * node["Actual Loops"] for node in nodes) == EDGES

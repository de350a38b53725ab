"""Runs for tests: made in a line, moved on by settling jobs, and looked at as the tables say."""

from typing import Any

import psycopg

from runledger.core.jobs import ClaimedJob, Scope
from runledger.core.workflow_builder import WorkflowDagBuilder
from runledger.core.workflows import EnqueuedWorkflowRun, WorkflowRun
from runledger.postgres.checks.workflow_invariants import WORKFLOW_INVARIANTS
from runledger.postgres.claim import claim_jobs
from runledger.postgres.connection import borrow
from runledger.postgres.settle import settle_jobs
from runledger.postgres.workflow_inputs import add_inputs
from runledger.postgres.workflow_reads import get_workflow_run, list_workflow_steps
from runledger.postgres.workflow_runs import enqueue_workflow_run
from runledger.testing.factories import a_definition, dead_lettered, succeeded

ANY = Scope.any()
TYPE = "step"
Connection = psycopg.Connection[Any]

INVARIANTS = {check.what: check.query for check in WORKFLOW_INVARIANTS}
"""Those that the doctor checks in production."""


def assert_invariants(connection: Connection) -> None:
    """Every invariant holds in one snapshot."""
    query = " UNION ALL ".join(
        f"SELECT '{name}' AS name, array_agg(id::text) AS ids FROM ({text}) AS found (id) HAVING count(*) > 0"
        for name, text in INVARIANTS.items()
    )
    assert connection.execute(query).fetchall() == []


def enqueue(connection: Connection, builder: WorkflowDagBuilder) -> EnqueuedWorkflowRun:
    with connection.transaction():
        return enqueue_workflow_run(connection, builder.build())


def a_workflow(connection: Connection, workflow_type: str = "test", **options: Any) -> WorkflowDagBuilder:
    """A builder whose job type ``step`` has a definition."""
    a_definition(connection, TYPE)
    return WorkflowDagBuilder(workflow_type, **options)


def statuses(connection: Connection, run_id: object) -> dict[str, str]:
    return {one.step_key: one.status.value for one in list_workflow_steps(connection, str(run_id), scope=ANY)}


def run_of(connection: Connection, run_id: object) -> WorkflowRun:
    return get_workflow_run(connection, str(run_id), scope=ANY)


def claim_steps(connection: Connection, limit: int = 100, worker_id: str = "w") -> dict[str, ClaimedJob]:
    """Everything that is due is leased; by step key."""
    jobs = claim_jobs(connection, worker_id=worker_id, job_types=[TYPE], limit=limit, lease_ttl_seconds=600)
    add_inputs(borrow(connection), jobs)
    return {str(job.step_key): job for job in jobs}


def succeed(connection: Connection, *jobs: ClaimedJob, output: Any = None) -> None:
    with connection.transaction():
        assert len(settle_jobs(connection, [succeeded(job, output) for job in jobs])) == len(jobs)


def fail(connection: Connection, *jobs: ClaimedJob) -> None:
    with connection.transaction():
        assert len(settle_jobs(connection, [dead_lettered(job) for job in jobs])) == len(jobs)

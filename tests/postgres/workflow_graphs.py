"""Runs for tests: made in a line, moved on by settling jobs, and looked at as the tables say."""

from typing import Any

import psycopg

from runledger.core.jobs import ClaimedJob, Scope
from runledger.core.workflow_builder import WorkflowDagBuilder
from runledger.core.workflows import EnqueuedWorkflowRun, WorkflowRun
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

INVARIANTS = {
    "I17 counters equal the edges": """
        SELECT s.id FROM runledger.workflow_steps s LEFT JOIN (
            SELECT d.dependent_step_id AS id, count(*) AS total,
                   count(*) FILTER (WHERE p.status NOT IN ('SUCCEEDED', 'FAILED', 'CANCELED')) AS pending,
                   count(*) FILTER (WHERE d.release_mode = 'ON_SUCCESS'
                                    AND p.status IN ('FAILED', 'CANCELED')) AS unsatisfied
            FROM runledger.workflow_step_dependencies d
            JOIN runledger.workflow_steps p ON p.id = d.prerequisite_step_id GROUP BY 1) c USING (id)
        WHERE (s.dependency_count_total, s.dependency_count_pending, s.dependency_count_unsatisfied)
              IS DISTINCT FROM (coalesce(c.total, 0), coalesce(c.pending, 0), coalesce(c.unsatisfied, 0))""",
    "I18 a run has ended exactly when all its steps have": """
        SELECT r.id FROM runledger.workflow_runs r
        WHERE (r.status IN ('SUCCEEDED', 'COMPLETED_WITH_ERRORS', 'CANCELED')) = EXISTS (
            SELECT FROM runledger.workflow_steps s
            WHERE s.workflow_run_id = r.id AND s.status NOT IN ('SUCCEEDED', 'FAILED', 'CANCELED'))""",
    "I19 nothing was released before its prerequisites allowed it": """
        SELECT s.id FROM runledger.workflow_steps s
        JOIN runledger.workflow_step_dependencies d ON d.dependent_step_id = s.id
        JOIN runledger.workflow_steps p ON p.id = d.prerequisite_step_id
        WHERE s.released_at IS NOT NULL AND (p.finished_at IS NULL OR p.finished_at > s.released_at
              OR (d.release_mode = 'ON_SUCCESS' AND p.status <> 'SUCCEEDED'))""",
    "I20 nothing is blocked that waits for nothing": """
        SELECT id FROM runledger.workflow_steps WHERE status = 'BLOCKED' AND dependency_count_pending = 0""",
    "I21 a step agrees with its job": """
        SELECT s.id FROM runledger.workflow_steps s JOIN runledger.jobs j ON j.id = s.job_id
        WHERE (s.status::text, j.status::text) NOT IN (('ENQUEUED', 'PENDING'), ('ENQUEUED', 'LEASED'),
              ('SUCCEEDED', 'SUCCEEDED'), ('FAILED', 'DEAD_LETTERED'), ('CANCELED', 'CANCELED'))""",
    "I22 released job steps have one job, gates none, and edges stay inside a run": """
        SELECT id FROM runledger.workflow_steps
        WHERE (kind = 'JOB' AND released_at IS NOT NULL AND job_id IS NULL)
           OR (kind = 'EXTERNAL' AND job_id IS NOT NULL) OR (released_at IS NULL AND job_id IS NOT NULL)
        UNION ALL SELECT job_id FROM runledger.workflow_steps WHERE job_id IS NOT NULL GROUP BY 1 HAVING count(*) > 1
        UNION ALL SELECT d.dependent_step_id FROM runledger.workflow_step_dependencies d
        JOIN runledger.workflow_steps a ON a.id = d.prerequisite_step_id
        JOIN runledger.workflow_steps b ON b.id = d.dependent_step_id
        WHERE a.workflow_run_id <> b.workflow_run_id OR a.workflow_run_id <> d.workflow_run_id""",
    "I23 a cancelled run has no live job": """
        SELECT r.id FROM runledger.workflow_runs r JOIN runledger.jobs j ON j.workflow_run_id = r.id
        WHERE r.status = 'CANCELED' AND j.status IN ('PENDING', 'LEASED')""",
    "the counts of a run are those of its steps": """
        SELECT r.id FROM runledger.workflow_runs r JOIN LATERAL (
            SELECT count(*) AS total, count(*) FILTER (WHERE status = 'ENQUEUED') AS enqueued,
                   count(*) FILTER (WHERE status = 'WAITING_FOR_EXTERNAL') AS waiting,
                   count(*) FILTER (WHERE status IN ('FAILED', 'CANCELED')) AS failed,
                   count(*) FILTER (WHERE status NOT IN ('SUCCEEDED', 'FAILED', 'CANCELED')) AS unfinished
            FROM runledger.workflow_steps s WHERE s.workflow_run_id = r.id) c ON true
        WHERE (r.step_count, r.enqueued_count, r.waiting_count, r.failed_count, r.unfinished_count)
              IS DISTINCT FROM (c.total, c.enqueued, c.waiting, c.failed, c.unfinished)""",
}


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

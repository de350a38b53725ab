"""Advance a run: steps have ended, so edges are consumed, steps released as jobs, hopeless ones cancelled.

One statement moves all dependents, whatever their number: the ends are written, the counters of all dependents go down
together, every step that is free now gets its job or opens its gate, and the counts and status of the runs follow.
Only steps that ended without ever running ask for more (``workflow_cascade.py``). The caller holds the runs.
"""

from collections.abc import Collection
from typing import Any

from sqlalchemy import CTE, Uuid, and_, case, func, insert, literal_column, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from runledger.core.states import JobStatus, ReleaseMode, StepKind
from runledger.core.workflow_errors import WorkflowInternalState
from runledger.core.workflows import DEPENDENCY_UNSATISFIED, INPUT_MISSING
from runledger.postgres import tables
from runledger.postgres.arrays import plain_array
from runledger.postgres.connection import LedgerConnection
from runledger.postgres.enqueue import WOKEN
from runledger.postgres.expressions import (
    CLOCK,
    ONE,
    TRUE,
    ZERO,
    as_text,
    constant,
    few_rows_of,
    literal,
    new_id,
    parameter,
    rows_of,
)
from runledger.postgres.statements import Call, Row, Statement
from runledger.postgres.tables import job_queue, job_ready, workflow_runs, workflow_step_dependencies, workflow_steps
from runledger.postgres.workflow_cascade import cancel_behind
from runledger.postgres.workflow_counts import (
    BLOCKED,
    CANCELED,
    ENQUEUED,
    FAILED,
    SUCCEEDED,
    WAITING,
    changes_of,
    counted,
)

MOST_ROUNDS = 1_000_000

_step, _edge = workflow_steps.c, workflow_step_dependencies.c
_IS_ON_SUCCESS = _edge.release_mode == literal(ReleaseMode.ON_SUCCESS, tables.workflow_release_mode)

_FILLED_PAYLOAD = """(
    SELECT CASE WHEN bool_and(texts.text IS NOT NULL)
           THEN array_to_string(array_agg(texts.text ORDER BY texts.ordinal), '')::jsonb END
    FROM (
        SELECT parts.ordinal,
               CASE WHEN jsonb_typeof(parts.part) = 'string' THEN parts.part #>> '{}'
               ELSE (
                   SELECT (CASE WHEN source.status = 'SUCCEEDED' OR source_job.final_status = 'SUCCEEDED'
                           THEN coalesce(source.output, source_job.output, 'null')
                                #> ARRAY(SELECT jsonb_array_elements_text(parts.part -> 'path')) END)::text
                   FROM runledger.workflow_steps AS source
                   LEFT JOIN runledger.job_queue AS source_job ON source_job.id = source.job_id
                   WHERE source.workflow_run_id = runledger.workflow_steps.workflow_run_id
                     AND source.step_key = parts.part ->> 'step'
               ) END AS text
        FROM jsonb_array_elements(runledger.workflow_steps.payload_parts) WITH ORDINALITY AS parts (part, ordinal)
    ) AS texts
)"""
"""The payload of a step with its holes filled; NULL when one leads nowhere. That a prerequisite has succeeded is seen
on its job, because the end of its step may be written by the same statement."""


def _weighed(source: Any, pending: Any, unsatisfied: Any) -> CTE:
    """The steps concerned, with their counters afterwards and, where they are free now, their payload."""
    is_free = and_(pending == ZERO, unsatisfied == ZERO)
    payload = case(
        (_step.payload_parts.is_(None), _step.payload), (is_free, literal_column(_FILLED_PAYLOAD, JSONB))
    ).label("payload")
    kept = [column for column in _step if column.name in _KEPT]
    return (
        select(*kept, pending.label("pending"), unsatisfied.label("unsatisfied"), payload)
        .select_from(source)
        .cte("weighed")
        .prefix_with("MATERIALIZED")
    )


_KEPT = {
    "id",
    "workflow_run_id",
    "kind",
    "status",
    "job_type",
    "organization_id",
    "payload_parts",
    "priority",
    "max_attempts",
    "timeout_seconds",
}


def _judged(weighed: CTE) -> CTE:
    """What becomes of each: it waits on, can never run, lacks an input, opens as a gate, or gets a job."""
    row = weighed.c
    is_gate = row.kind == literal(StepKind.EXTERNAL, tables.workflow_step_kind)
    verdict = case(
        (or_(row.status != BLOCKED, row.pending > ZERO), row.status),
        (row.unsatisfied > ZERO, CANCELED),
        (row.payload.is_(None), FAILED),
        (is_gate, WAITING),
        else_=ENQUEUED,
    )
    judged = select(weighed, verdict.label("verdict")).subquery("judged")
    return (
        select(judged, case((judged.c.verdict == ENQUEUED, new_id())).label("job_id"))
        .where(judged.c.status == BLOCKED)
        .cte("moved")
        .prefix_with("MATERIALIZED")
    )


def _written(moved: CTE) -> CTE:
    row = moved.c
    is_released, is_hopeless = row.verdict.in_((ENQUEUED, WAITING)), row.verdict.in_((CANCELED, FAILED))
    code = case(
        (row.verdict == CANCELED, constant(DEPENDENCY_UNSATISFIED)), (row.verdict == FAILED, constant(INPUT_MISSING))
    )
    return (
        update(workflow_steps)
        .where(_step.id == row.id)
        .values(
            status=row.verdict,
            dependency_count_pending=row.pending,
            dependency_count_unsatisfied=row.unsatisfied,
            job_id=row.job_id,
            payload=case((is_released, row.payload), else_=_step.payload),
            released_at=case((is_released, CLOCK)),
            finished_at=case((is_hopeless, CLOCK)),
            status_reason=code,
            last_error_code=code,
        )
        .cte("written")
    )


def _jobs(moved: CTE) -> tuple[CTE, CTE]:
    row = moved.c
    headers = select(workflow_runs.c.headers).where(workflow_runs.c.id == row.workflow_run_id).scalar_subquery()
    recorded = {
        "id": row.job_id,
        "job_type": row.job_type,
        "organization_id": row.organization_id,
        "payload": row.payload,
        "priority": row.priority,
        "max_attempts": row.max_attempts,
        "timeout_seconds": row.timeout_seconds,
        "workflow_run_id": row.workflow_run_id,
        "workflow_step_id": row.id,
        "headers": headers,
    }
    readied = {
        "job_id": row.job_id,
        "next_run_at": CLOCK,
        "workflow_run_id": row.workflow_run_id,
        "priority": row.priority,
        "run_number": ONE,
        "attempt": ZERO,
        "job_type": row.job_type,
    }
    has_job = row.job_id.is_not(None)
    return (
        insert(job_queue).from_select(list(recorded), select(*recorded.values()).where(has_job)).cte("recorded"),
        insert(job_ready).from_select(list(readied), select(*readied.values()).where(has_job)).cte("readied"),
    )


def _advanced(weighed: CTE, *ended: Any) -> Any:
    """One row: the ids of the steps that ended without running, joined by commas; and whether a host was woken."""
    moved = _judged(weighed)
    hopeless = select(func.string_agg(as_text(moved.c.id), constant(","))).where(
        moved.c.verdict.in_((CANCELED, FAILED))
    )
    has_jobs = select(moved.c.id).where(moved.c.job_id.is_not(None)).exists()
    return select(hopeless.scalar_subquery(), case((has_jobs, WOKEN))).add_cte(
        _written(moved), *_jobs(moved), counted(*ended, changes_of(moved, moved.c.status, moved.c.verdict))
    )


def _after(finished: CTE) -> CTE:
    """The dependents of finished steps, weighed: each edge counts once, whatever the number of its fellows."""
    is_broken = and_(_IS_ON_SUCCESS, finished.c.status != SUCCEEDED)
    edge = (
        select(_edge.dependent_step_id, is_broken.label("is_broken"))
        .where(_edge.prerequisite_step_id == finished.c.id)
        .offset(ZERO)
        .lateral("edge")
    )
    consumed = (
        select(
            edge.c.dependent_step_id,
            func.count().label("edges"),
            func.count().filter(edge.c.is_broken).label("broken"),
        )
        .select_from(finished.join(edge, TRUE))
        .group_by(edge.c.dependent_step_id)
        .cte("consumed")
    )
    return _weighed(
        consumed.join(workflow_steps, _step.id == consumed.c.dependent_step_id),
        _step.dependency_count_pending - consumed.c.edges,
        _step.dependency_count_unsatisfied + consumed.c.broken,
    )


def _ended_with_their_jobs() -> CTE:
    record = job_queue.c
    reported = rows_of("reported", job_id=Uuid)
    found = (
        select(record.id, record.workflow_step_id, record.final_status)
        .where(record.id == reported.c.job_id)
        .offset(ZERO)
        .lateral("found")
    )
    ended = (
        select(found)
        .select_from(reported.join(found, TRUE))
        .where(found.c.final_status.is_not(None))
        .cte("ended")
        .prefix_with("MATERIALIZED")
    )
    job = few_rows_of(ended).c
    status = case(
        (job.final_status == literal(JobStatus.SUCCEEDED, tables.job_status), SUCCEEDED),
        (job.final_status == literal(JobStatus.DEAD_LETTERED, tables.job_status), FAILED),
        else_=CANCELED,
    )
    return (
        update(workflow_steps)
        .where(_step.id == job.workflow_step_id)
        .where(_step.job_id == job.id)
        .where(_step.status == ENQUEUED)
        .values(status=status, finished_at=CLOCK)
        .returning(_step.id, _step.workflow_run_id, _step.status)
        .cte("finished")
    )


_finished_jobs = _ended_with_their_jobs()
ADVANCE_JOBS = Statement(
    "advance_workflows_after_jobs",
    _advanced(_after(_finished_jobs), changes_of(_finished_jobs, ENQUEUED, _finished_jobs.c.status)),
)
_finished_steps = (
    select(_step.id, _step.status).where(_step.id == func.any(parameter("step_ids", ARRAY(Uuid)))).cte("finished")
)
ADVANCE_STEPS = Statement("advance_workflows_after_steps", _advanced(_after(_finished_steps)))

_free = (
    workflow_steps.select()
    .with_only_columns(_step.id.label("free_id"))
    .where(_step.workflow_run_id == parameter("run_id", Uuid))
    .where(_step.status == BLOCKED)
    .where(_step.dependency_count_pending == ZERO)
    .cte("free")
)
RELEASE_FREE = Statement(
    "release_free_steps",
    _advanced(
        _weighed(
            _free.join(workflow_steps, _step.id == _free.c.free_id),
            _step.dependency_count_pending,
            _step.dependency_count_unsatisfied,
        )
    ),
)


def advance_after_jobs(ledger: LedgerConnection, job_ids: Collection[str]) -> None:
    """The steps of those of these jobs that have ended have ended too, and everything that follows has happened.

    Most often one statement; at most four when steps can never run any more, however many. The caller holds the runs
    and has written the ends of the jobs.
    """
    if job_ids:
        propagate(ledger, ledger.fetch(*advance_call(ledger, job_ids)))


def advance_call(ledger: LedgerConnection, job_ids: Collection[str]) -> Call:
    """The call of ``advance_after_jobs``, to be made together with others; its answer goes to ``propagate``. Jobs that
    have not ended, or whose steps have ended before, change nothing."""
    return ADVANCE_JOBS, {"job_ids": plain_array(job_ids), "schema": ledger.schema}


def advance_after_steps(ledger: LedgerConnection, step_ids: Collection[str]) -> None:
    """The same for steps whose end is written and counted."""
    if step_ids:
        propagate(ledger, ledger.fetch(ADVANCE_STEPS, {"step_ids": plain_array(step_ids), "schema": ledger.schema}))


def release_free_steps(ledger: LedgerConnection, run_id: str) -> None:
    """Every blocked step of the run that waits for nothing has been released, or cancelled when it never can be."""
    propagate(ledger, ledger.fetch(RELEASE_FREE, {"run_id": run_id, "schema": ledger.schema}))


def propagate(ledger: LedgerConnection, rows: list[Row]) -> None:
    """What ended without running is consumed by its dependents too. One round cancels all that is hopeless; a further
    one follows only when a step that was released by it lacks an input."""
    for _ in range(MOST_ROUNDS):
        ended = cancel_behind(ledger, rows[0][0].split(",")) if rows[0][0] else []
        if not ended:
            return
        rows = ledger.fetch(ADVANCE_STEPS, {"step_ids": plain_array(ended), "schema": ledger.schema})
    raise WorkflowInternalState("the graph of a run has no end")

"""The counts of a run, and the status that follows from them.

Every statement that moves steps says so here, under the lock of the run's row: the status costs the same whether a run
has three steps or ten thousand.
"""

from typing import Any

from sqlalchemy import CTE, ColumnElement, and_, case, func, or_, select, union_all, update

from runledger.core.states import WorkflowRunStatus, WorkflowStepStatus
from runledger.postgres import tables
from runledger.postgres.expressions import CLOCK, ZERO, few_rows_of, literal
from runledger.postgres.tables import workflow_runs

_run = workflow_runs.c


def step_status(status: WorkflowStepStatus) -> ColumnElement[Any]:
    return literal(status, tables.workflow_step_status)


def run_status(status: WorkflowRunStatus) -> ColumnElement[Any]:
    return literal(status, tables.workflow_run_status)


BLOCKED = step_status(WorkflowStepStatus.BLOCKED)
WAITING = step_status(WorkflowStepStatus.WAITING_FOR_EXTERNAL)
ENQUEUED = step_status(WorkflowStepStatus.ENQUEUED)
SUCCEEDED = step_status(WorkflowStepStatus.SUCCEEDED)
FAILED = step_status(WorkflowStepStatus.FAILED)
CANCELED = step_status(WorkflowStepStatus.CANCELED)
RUN_CANCELED = run_status(WorkflowRunStatus.CANCELED)


def changes_of(source: Any, old: ColumnElement[Any], new: ColumnElement[Any]) -> Any:
    """The steps of ``source`` with the status they had and the one they have now, for ``counted``."""
    return select(source.c.workflow_run_id, old.label("old"), new.label("new"))


def counted(*changes: Any) -> CTE:
    """The runs of these changes have their new counts, and the status and end that follow; a cancelled run stays so.

    RUNNING while some step has a job; else WAITING_FOR_EXTERNAL while a gate is open, whatever is blocked behind it.
    """
    change = union_all(*changes).subquery("changes")
    deltas = (
        select(
            change.c.workflow_run_id,
            _more(change, ENQUEUED).label("enqueued"),
            _more(change, WAITING).label("waiting"),
            _more(change, BLOCKED, WAITING, ENQUEUED).label("unfinished"),
            _more(change, FAILED, CANCELED).label("failed"),
        )
        .group_by(change.c.workflow_run_id)
        .cte("deltas")
        .prefix_with("MATERIALIZED")
    )
    delta = few_rows_of(deltas).c
    enqueued, waiting = _run.enqueued_count + delta.enqueued, _run.waiting_count + delta.waiting
    unfinished, failed = _run.unfinished_count + delta.unfinished, _run.failed_count + delta.failed
    status = case(
        (_run.status == RUN_CANCELED, RUN_CANCELED),
        (enqueued > ZERO, run_status(WorkflowRunStatus.RUNNING)),
        (waiting > ZERO, run_status(WorkflowRunStatus.WAITING_FOR_EXTERNAL)),
        (unfinished > ZERO, run_status(WorkflowRunStatus.RUNNING)),
        (failed > ZERO, run_status(WorkflowRunStatus.COMPLETED_WITH_ERRORS)),
        else_=run_status(WorkflowRunStatus.SUCCEEDED),
    )
    has_ended = or_(unfinished == ZERO, _run.status == RUN_CANCELED)
    return (
        update(workflow_runs)
        .where(_run.id == delta.workflow_run_id)
        .values(
            enqueued_count=enqueued,
            waiting_count=waiting,
            unfinished_count=unfinished,
            failed_count=failed,
            status=status,
            finished_at=case((has_ended, func.coalesce(_run.finished_at, CLOCK))),
            holds_active_key=and_(_run.holds_active_key, ~has_ended),
            updated_at=CLOCK,
        )
        .cte("counted")
    )


def _more(change: Any, *statuses: ColumnElement[Any]) -> ColumnElement[Any]:
    """How many more steps have one of these statuses than before."""
    return func.count().filter(change.c.new.in_(statuses)) - func.count().filter(change.c.old.in_(statuses))

"""Retention: finished jobs and runs leave with all that belongs to them, in small batches along their ids.

Nothing that lives is touched: no job that waits or runs, none whose cancelled attempt may still run, none of a run that
goes on, and none whose idempotency key still answers. Rows that somebody else holds are passed over.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Boolean, Integer, Text, Uuid, delete, func, or_, select

from runledger.core.errors import InvalidRequest
from runledger.core.filters import FIRST_ID, first_id_of
from runledger.core.jobs import Scope
from runledger.core.limits import check_seconds
from runledger.core.states import JobStatus, WorkflowRunStatus
from runledger.postgres.columns import decoded_uuid
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import CLOCK, ONE, as_text, parameter, seconds
from runledger.postgres.scopes import in_scope, scoped
from runledger.postgres.statements import Parameters, Statement
from runledger.postgres.tables import (
    job_attempts,
    job_dead_letters,
    job_events,
    job_logs,
    job_queue,
    workflow_runs,
    workflow_steps,
)

PRUNE_BATCH = 1_000
"""Records that one batch looks at, and deletes at most."""

PRUNE_RUN_BATCH = 100
PRUNED_BY_DEFAULT = (JobStatus.SUCCEEDED, JobStatus.CANCELED)
_SLACK = timedelta(days=1)
_RUN_STATUS = {
    JobStatus.SUCCEEDED: WorkflowRunStatus.SUCCEEDED,
    JobStatus.CANCELED: WorkflowRunStatus.CANCELED,
    JobStatus.DEAD_LETTERED: WorkflowRunStatus.COMPLETED_WITH_ERRORS,
}

_record, _run, _step = job_queue.c, workflow_runs.c, workflow_steps.c
_ended_long_ago = CLOCK - seconds("older_than_seconds")
_forgets_keys = parameter("forget_keys", Boolean)
_statuses = parameter("statuses", ARRAY(Text))


def _walked(table: Any) -> Any:
    return (
        select(table.c.id)
        .where(table.c.id > parameter("after", Uuid), table.c.id < parameter("until", Uuid))
        .order_by(table.c.id)
        .limit(parameter("walk", Integer))
        .cte("walked")
        .prefix_with("MATERIALIZED")
    )


def _prunable_jobs(walked: Any) -> Any:
    return (
        select(_record.id)
        .where(_record.id.in_(select(walked.c.id)))
        .where(as_text(_record.final_status) == func.any(_statuses))
        .where(_record.finished_at <= _ended_long_ago)
        .where(_record.workflow_run_id.is_(None))
        .where(or_(_record.quiesces_at.is_(None), _record.quiesces_at <= CLOCK))
        .where(
            or_(
                _record.idempotency_key.is_(None),
                _record.idempotency_expires_at <= CLOCK,
                _forgets_keys & _record.idempotency_expires_at.is_(None),
            )
        )
        .where(or_(parameter("job_type", Text).is_(None), _record.job_type == parameter("job_type", Text)))
        .where(in_scope(_record.organization_id))
    )


def _prunable_runs(walked: Any) -> Any:
    lives = (
        select(_step.id)
        .select_from(workflow_steps.join(job_queue, _record.id == _step.job_id))
        .where(_step.workflow_run_id == _run.id)
        .where(or_(_record.final_status.is_(None), _record.quiesces_at > CLOCK))
        .exists()
    )
    return (
        select(_run.id)
        .where(_run.id.in_(select(walked.c.id)))
        .where(as_text(_run.status) == func.any(_statuses))
        .where(_run.finished_at <= _ended_long_ago)
        .where(or_(_run.idempotency_key.is_(None), _forgets_keys))
        .where(in_scope(_run.organization_id))
        .where(~lives)
    )


def _last(walked: Any) -> Any:
    """Where the next batch begins; NULL when this one looked at the last row."""
    is_full = select(func.count()).select_from(walked).scalar_subquery() >= parameter("walk", Integer)
    return select(as_text(walked.c.id)).where(is_full).order_by(walked.c.id.desc()).limit(ONE).scalar_subquery()


def _count(of: Any) -> Any:
    return select(func.count()).select_from(of).scalar_subquery()


def _belongings(job_ids: Any) -> list[Any]:
    """All that belongs to these jobs, deleted; the records last."""
    belongings = [
        delete(table).where(table.c.job_id.in_(job_ids)).returning(table.c.job_id).cte(f"pruned_{table.name}")
        for table in (job_attempts, job_events, job_logs, job_dead_letters)
    ]
    return [delete(job_queue).where(_record.id.in_(job_ids)).returning(_record.id).cte("pruned_jobs"), *belongings]


def _locked(chosen: Any, job_id: Any) -> Any:
    return chosen.order_by(job_id).with_for_update(skip_locked=True).cte("doomed").prefix_with("MATERIALIZED")


def _prune_jobs() -> Any:
    walked = _walked(job_queue)
    doomed = _locked(_prunable_jobs(walked), _record.id)
    gone = _belongings(select(doomed.c.id))
    return select(_last(walked), *(_count(one) for one in gone)).add_cte(doomed, *gone)


def _prune_runs() -> Any:
    walked = _walked(workflow_runs)
    doomed = _locked(_prunable_runs(walked), _run.id)
    steps = select(_step.job_id).where(_step.workflow_run_id.in_(select(doomed.c.id))).where(_step.job_id.is_not(None))
    gone = _belongings(steps)
    runs = delete(workflow_runs).where(_run.id.in_(select(doomed.c.id))).returning(_run.id).cte("pruned_runs")
    return select(_last(walked), *(_count(one) for one in gone), _count(runs)).add_cte(doomed, *gone, runs)


def _counted(table: Any, prunable: Any) -> Any:
    walked = _walked(table)
    return select(_last(walked), _count(prunable(walked).cte("doomed")))


PRUNE_JOBS = Statement("prune_jobs", _prune_jobs())
PRUNE_RUNS = Statement("prune_workflow_runs", _prune_runs())
COUNT_PRUNABLE_JOBS = Statement("count_prunable_jobs", _counted(job_queue, _prunable_jobs))
COUNT_PRUNABLE_RUNS = Statement("count_prunable_workflow_runs", _counted(workflow_runs, _prunable_runs))


@dataclass(frozen=True, slots=True)
class Pruned:
    """What one batch deleted. ``next_after`` is where the next one begins; None when nothing is left to look at."""

    next_after: UUID | None
    jobs: int = 0
    attempts: int = 0
    events: int = 0
    logs: int = 0
    dead_letters: int = 0
    workflow_runs: int = 0


@dataclass(frozen=True, slots=True)
class Retention:
    """What may go: jobs and runs that ended at least ``older_than`` ago, in one of ``statuses``. ``forget_keys`` lets
    jobs and runs go whose key never expires: the same request would then make a new one. With a ``job_type``, runs
    stay."""

    older_than: timedelta
    statuses: Collection[JobStatus] = PRUNED_BY_DEFAULT
    job_type: str | None = None
    forget_keys: bool = False


def prune_jobs(connection: AnyConnection, retention: Retention, *, scope: Scope, after: UUID | None = None) -> Pruned:
    """One batch: of the 1,000 records after ``after``, those that may go are deleted, with attempts, events, logs and
    dead letters. Jobs of workflow runs go with their run. Locks the records; those that somebody holds are skipped.

    Raises InvalidRequest for a negative age, or a status that is not final.
    """
    [row] = borrow(connection).fetch(PRUNE_JOBS, _parameters(retention, scope, after, PRUNE_BATCH))
    return Pruned(decoded_uuid(row[0]), *row[1:])


def prune_workflow_runs(
    connection: AnyConnection, retention: Retention, *, scope: Scope, after: UUID | None = None
) -> Pruned:
    """The same for ended runs, 100 at a time, with their steps, edges and jobs. DEAD_LETTERED stands for runs that
    completed with errors. A run of which an attempt may still run stays."""
    if retention.job_type is not None:
        return Pruned(None)
    [row] = borrow(connection).fetch(PRUNE_RUNS, _of_runs(_parameters(retention, scope, after, PRUNE_RUN_BATCH)))
    return Pruned(decoded_uuid(row[0]), *row[1:])


def count_prunable(connection: AnyConnection, retention: Retention, *, scope: Scope) -> tuple[int, int]:
    """How many plain jobs and how many workflow runs may go now. Looks at every record that is old enough."""
    ledger = borrow(connection)
    jobs = runs = 0
    after: UUID | None = FIRST_ID
    while after is not None:
        [row] = ledger.fetch(COUNT_PRUNABLE_JOBS, _parameters(retention, scope, after, PRUNE_BATCH))
        after, jobs = decoded_uuid(row[0]), jobs + row[1]
    after = FIRST_ID if retention.job_type is None else None
    while after is not None:
        [row] = ledger.fetch(COUNT_PRUNABLE_RUNS, _of_runs(_parameters(retention, scope, after, PRUNE_BATCH)))
        after, runs = decoded_uuid(row[0]), runs + row[1]
    return jobs, runs


def _parameters(retention: Retention, scope: Scope, after: UUID | None, walk: int) -> Parameters:
    age = check_seconds(retention.older_than, field="older_than")
    statuses = [JobStatus(status) for status in retention.statuses]
    if not statuses or not all(status.is_final for status in statuses):
        raise InvalidRequest("statuses must be final ones, and at least one")
    until = datetime.now(UTC) - timedelta(seconds=age) + _SLACK  # bounds the walk; the database's clock judges
    return scoped(scope) | {
        "older_than_seconds": age,
        "statuses": [status.value for status in statuses],
        "job_type": retention.job_type,
        "forget_keys": retention.forget_keys,
        "after": str(after or FIRST_ID),
        "until": str(first_id_of(until, field="older_than")),
        "walk": walk,
    }


def _of_runs(parameters: Parameters) -> Parameters:
    statuses = [_RUN_STATUS[JobStatus(status)].value for status in parameters["statuses"]]
    return {key: value for key, value in parameters.items() if key != "job_type"} | {"statuses": statuses}

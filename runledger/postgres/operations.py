"""What people and programs do to single jobs: cancel, requeue, reschedule. Each says who and why in the timeline."""

import math
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Text, Uuid, and_, delete, func, insert, or_, select

from runledger.core import errors
from runledger.core.jobs import Scope
from runledger.core.limits import check_time
from runledger.core.operations import words_of
from runledger.core.states import JOB_TRANSITIONS, JobEventType, JobStatus
from runledger.core.workflow_errors import TerminalCompletionUnsupportedIsolation
from runledger.postgres import tables
from runledger.postgres.cancellation import canceled
from runledger.postgres.connection import AnyConnection, LedgerConnection, borrow
from runledger.postgres.expressions import CLOCK, as_text, constant, literal, parameter
from runledger.postgres.requeueing import requeued
from runledger.postgres.statements import Parameters, Statement
from runledger.postgres.tables import job_events, job_leases, job_queue, job_ready, job_scheduled, jobs
from runledger.postgres.workflow_locks import lock_runs
from runledger.postgres.workflow_steps import advance_after_jobs

TRIES = 10
"""How often an operation looks again when the job moved from one place to another under its eyes."""

_record = job_queue.c
_job_id = parameter("job_id", Uuid)
_IN_SCOPE = or_(
    parameter("scope_kind", Text) == constant("any"),
    and_(parameter("scope_kind", Text) == constant("global"), _record.organization_id.is_(None)),
    and_(
        parameter("scope_kind", Text) == constant("organization"),
        _record.organization_id == parameter("scope_organization_id", Uuid),
    ),
)
_reason = parameter("reason", Text)
_actor = parameter("actor", Text)


def _left(name: str, place: Any, condition: Any = None) -> Any:
    chosen = select(_record.id).where(_record.id == _job_id).where(_IN_SCOPE)
    if condition is not None:
        chosen = chosen.where(condition)
    return delete(place).where(place.c.job_id == chosen.scalar_subquery()).returning(*place.c).cte(name)


_IN_LOCKED_RUN = _record.workflow_run_id.is_not_distinct_from(parameter("locked_run_id", Uuid))
_ready, _scheduled, _leased = (
    _left(name, place, _IN_LOCKED_RUN)
    for name, place in (("ready", job_ready), ("scheduled", job_scheduled), ("leased", job_leases))
)
CANCEL_JOB = Statement("cancel_job", canceled(_ready, _scheduled, _leased))

SELECT_STATE = Statement(
    "select_state_for_operation",
    select(
        as_text(jobs.c.status),
        as_text(jobs.c.workflow_run_id),
        func.extract("epoch", jobs.c.quiesces_at - CLOCK),
    )
    .select_from(jobs.join(job_queue, _record.id == jobs.c.id))
    .where(jobs.c.id == _job_id)
    .where(_IN_SCOPE),
)

REQUEUE_JOB = Statement("requeue_job", requeued(_record.id == _job_id, _IN_SCOPE))

_next_run_at = parameter("next_run_at", tables.Timestamp)
_movable_ready, _movable_scheduled = _left("ready", job_ready), _left("scheduled", job_scheduled)
_moved = select(_movable_ready).union_all(select(_movable_scheduled)).cte("moved")


def _put(name: str, place: Any, condition: Any) -> Any:
    columns = [column.name for column in place.c]
    values = [_next_run_at if column == "next_run_at" else _moved.c[column] for column in columns]
    return insert(place).from_select(columns, select(*values).select_from(_moved).where(condition)).cte(name)


_reschedule_told = (
    insert(job_events)
    .from_select(
        ["job_id", "run_number", "event_type", "actor", "reason", "detail"],
        select(
            _moved.c.job_id,
            _moved.c.run_number,
            literal(JobEventType.RESCHEDULED, tables.job_event_type),
            _actor,
            _reason,
            func.jsonb_build_object(constant("from"), _moved.c.next_run_at, constant("to"), _next_run_at),
        ),
    )
    .cte("told")
)
RESCHEDULE_JOB = Statement(
    "reschedule_job",
    select(as_text(_moved.c.job_id)).add_cte(
        _put("put_ready", job_ready, _next_run_at <= CLOCK),
        _put("put_scheduled", job_scheduled, _next_run_at > CLOCK),
        _reschedule_told,
    ),
)


def cancel_job(
    connection: AnyConnection, job_id: UUID | str, *, scope: Scope, reason: str | None = None, actor: str | None = None
) -> None:
    """The job is CANCELED. A running attempt has lost its lease with the caller's commit and can write nothing more.

    Locks the row that says where the job is, then its record; for a job of a workflow run the row of the run first, and
    the run advances. Raises JobNotFound (also for a job outside ``scope``) or InvalidStateTransition when the job has
    already ended; for a workflow job also TransactionRequired, TerminalCompletionUnsupportedIsolation and
    WorkflowReleaseConflict.
    """
    ledger = borrow(connection)
    parameters = _parameters(job_id, scope, reason, actor)
    run_id: str | None = None
    for _ in range(TRIES):
        if ledger.fetch(CANCEL_JOB, parameters | {"locked_run_id": run_id}):
            if run_id is not None:
                advance_after_jobs(ledger, [parameters["job_id"]])
            return
        status, found_run_id, _is_running_out = _state(ledger, parameters)
        if status.is_final:
            raise errors.InvalidStateTransition(f"a job that is {status} cannot be cancelled")
        if run_id is None and found_run_id is not None:
            run_id = found_run_id
            lock_runs(ledger, [run_id], unsupported=TerminalCompletionUnsupportedIsolation)
    raise errors.StateChangedConcurrently("the job moved during every try; try again")


def requeue_job(
    connection: AnyConnection, job_id: UUID | str, *, scope: Scope, reason: str | None = None, actor: str | None = None
) -> int:
    """The job waits for its next run, from the start: no attempts, no checkpoint, no progress; history is kept.

    Answers with the new run number. Locks the record. Raises JobNotFound, InvalidStateTransition unless the job is
    DEAD_LETTERED or CANCELED, WorkflowRequeueNotSupported for a job of a workflow run, and CancellationNotQuiesced
    while the lease that a cancel took away has not ended, because its handler may still run.
    """
    ledger = borrow(connection)
    parameters = _parameters(job_id, scope, reason, actor)
    rows = ledger.fetch(REQUEUE_JOB, parameters)
    if rows:
        return int(rows[0][1])
    status, run_id, seconds = _state(ledger, parameters)
    if run_id is not None:
        raise errors.WorkflowRequeueNotSupported("a job of a workflow run is not requeued alone")
    if status not in JOB_TRANSITIONS["requeue"].sources:
        raise errors.InvalidStateTransition(f"a job that is {status} cannot be requeued")
    if seconds > 0:
        latest = f"in {math.ceil(seconds)} s at most"
        raise errors.CancellationNotQuiesced(
            f"the cancelled attempt may still be running; try again once it has ended, {latest}"
        )
    raise errors.StateChangedConcurrently("the job changed at the same moment; try again")


def reschedule_job(
    connection: AnyConnection,
    job_id: UUID | str,
    *,
    next_run_at: datetime,
    scope: Scope,
    reason: str | None = None,
    actor: str | None = None,
) -> None:
    """A waiting job is due at ``next_run_at`` instead.

    Raises InvalidRequest for a time that is naive, JobNotFound, or InvalidStateTransition unless the job is PENDING.
    """
    moment = check_time(next_run_at, field="next_run_at")
    ledger = borrow(connection)
    parameters = _parameters(job_id, scope, reason, actor)
    for _ in range(TRIES):
        if ledger.fetch(RESCHEDULE_JOB, parameters | {"next_run_at": moment}):
            return
        status = _state(ledger, parameters)[0]
        if status is not JobStatus.PENDING:
            raise errors.InvalidStateTransition(f"a job that is {status} cannot be rescheduled")
    raise errors.StateChangedConcurrently("the job moved during every try; try again")


def _parameters(job_id: UUID | str, scope: Scope, reason: str | None, actor: str | None) -> Parameters:
    try:
        identity = UUID(str(job_id))
    except ValueError:
        raise errors.JobNotFound("no such job: the id is not a UUID") from None
    return {
        "job_id": str(identity),
        "scope_kind": scope.kind.value,
        "scope_organization_id": None if scope.organization_id is None else str(scope.organization_id),
    } | words_of(reason, actor)


def _state(ledger: LedgerConnection, parameters: Parameters) -> tuple[JobStatus, str | None, float]:
    """Status, workflow run, and the seconds for which a cancelled attempt may still run: zero or less when none may."""
    rows = ledger.fetch(
        SELECT_STATE, {key: parameters[key] for key in ("job_id", "scope_kind", "scope_organization_id")}
    )
    if not rows:
        raise errors.JobNotFound("no such job in this scope")
    return JobStatus(rows[0][0]), rows[0][1], float(rows[0][2] or 0)

"""Run a run again: a new run of the same graph, in which everything that is still good is finished already.

What must run again is what did not succeed, and everything behind it. All other steps are copied with their output, so
the new run needs nothing of the old one, which stays as it is.
"""

import math
from collections.abc import Collection
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import CTE, Text, Uuid, case, func, insert, null, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert

from runledger.core import workflow_errors as errors
from runledger.core.errors import CancellationNotQuiesced, RunledgerError
from runledger.core.gate import REASON_LIMIT, clean_text
from runledger.core.jobs import Scope
from runledger.core.states import StepKind, WorkflowRunStatus
from runledger.core.workflows import STEP_REUSED, EnqueuedWorkflowRun
from runledger.postgres import tables
from runledger.postgres.arrays import text_array
from runledger.postgres.connection import AnyConnection, LedgerConnection, borrow
from runledger.postgres.expressions import CLOCK, ONE, TRUE, ZERO, as_text, constant, literal, new_id, parameter
from runledger.postgres.reads import in_scope, scoped
from runledger.postgres.statements import Parameters, Statement
from runledger.postgres.tables import (
    job_definitions,
    job_queue,
    workflow_run_mutations,
    workflow_runs,
    workflow_step_dependencies,
    workflow_steps,
)
from runledger.postgres.workflow_append import run_state
from runledger.postgres.workflow_counts import BLOCKED, RUN_CANCELED, SUCCEEDED, run_status
from runledger.postgres.workflow_gates import run_identity
from runledger.postgres.workflow_locks import lock_runs
from runledger.postgres.workflow_runs import definition_missing
from runledger.postgres.workflow_steps import release_free_steps

_run, _step, _edge, _mutation = (
    table.c for table in (workflow_runs, workflow_steps, workflow_step_dependencies, workflow_run_mutations)
)
_run_id = parameter("run_id", Uuid)
_successor = workflow_runs.alias("successor")
_successors = (
    select(_successor.c.id, _successor.c.status)
    .where(_successor.c.rerun_of_run_id == _run.id)
    .where(_successor.c.status.not_in((RUN_CANCELED, run_status(WorkflowRunStatus.COMPLETED_WITH_ERRORS))))
    .order_by(_successor.c.id)
    .limit(ONE)
    .lateral("successors")
)
_unquiet_seconds = (
    select(func.extract("epoch", func.max(job_queue.c.quiesces_at) - CLOCK))
    .select_from(workflow_steps.join(job_queue, job_queue.c.id == _step.job_id))
    .where(_step.workflow_run_id == _run.id)
    .where(job_queue.c.quiesces_at > CLOCK)
    .correlate(workflow_runs)
    .scalar_subquery()
)
SELECT_SOURCE = Statement(
    "select_rerun_source",
    select(as_text(_run.status), _unquiet_seconds, as_text(_successors.c.id), as_text(_successors.c.status))
    .select_from(workflow_runs.outerjoin(_successors, TRUE))
    .where(_run.id == _run_id)
    .where(in_scope(_run.organization_id)),
)


_is_named = _step.step_key == func.any(parameter("also", ARRAY(Text)))
SELECT_NAMED = Statement(
    "select_steps_to_run_again", select(_step.step_key).where(_step.workflow_run_id == _run_id).where(_is_named)
)


def _to_run_again() -> CTE:
    """What did not succeed or is named, and all that waits behind it. The lateral part with its offset keeps each turn
    of the recursion on the index of the edges, whatever the statistics say."""
    again = (
        select(_step.id)
        .where(_step.workflow_run_id == _run_id)
        .where(or_(_step.status != SUCCEEDED, _is_named))
        .cte("again", recursive=True)
    )
    behind = (
        select(_edge.dependent_step_id).where(_edge.prerequisite_step_id == again.c.id).offset(ZERO).lateral("behind")
    )
    return again.union(select(behind.c.dependent_step_id).select_from(again.join(behind, TRUE)))


_again = _to_run_again()
_is_again = _again.c.id.is_not(None)
_copied = (
    select(
        new_id().label("new_id"),
        *_step,
        _is_again.label("is_again"),
        func.coalesce(_step.output, job_queue.c.output).label("result"),
    )
    .select_from(
        workflow_steps.outerjoin(_again, _again.c.id == _step.id).outerjoin(
            job_queue, (job_queue.c.id == _step.job_id) & ~_is_again
        )
    )
    .where(_step.workflow_run_id == _run_id)
    .order_by(_step.id)
    .cte("copied")
    .prefix_with("MATERIALIZED")
)
_missing = (
    select(_copied.c.job_type)
    .select_from(
        _copied.outerjoin(
            job_definitions,
            (job_definitions.c.job_type == _copied.c.job_type) & job_definitions.c.is_enabled.is_(TRUE),
        )
    )
    .where(_copied.c.is_again)
    .where(_copied.c.kind == literal(StepKind.JOB, tables.workflow_step_kind))
    .where(job_definitions.c.job_type.is_(None))
)
_number_again = select(func.count()).select_from(_copied).where(_copied.c.is_again).scalar_subquery()
_values = {
    "workflow_type": _run.workflow_type,
    "organization_id": _run.organization_id,
    "metadata": _run.metadata,
    "headers": _run.headers,
    "result_step_key": _run.result_step_key,
    "active_key": _run.active_key,
    "holds_active_key": _run.active_key.is_not(None),
    "rerun_of_run_id": _run.id,
    "status_reason": parameter("reason", Text),
    "step_count": _run.step_count,
    "unfinished_count": _number_again,
}
_stored_run = (
    upsert(workflow_runs)
    .from_select(list(_values), select(*_values.values()).where(_run.id == _run_id).where(~_missing.exists()))
    .on_conflict_do_nothing()
    .returning(_run.id)
    .cte("run")
)
_open_edges = (
    select(_edge.dependent_step_id, func.count().label("pending"))
    .select_from(workflow_step_dependencies.join(_again, _again.c.id == _edge.prerequisite_step_id))
    .where(_edge.workflow_run_id == _run_id)
    .group_by(_edge.dependent_step_id)
    .cte("open_edges")
)
_AS_THEY_WERE = (
    *("step_key", "kind", "job_type", "organization_id", "payload", "payload_parts"),
    *("priority", "max_attempts", "timeout_seconds", "dependency_count_total"),
)


def _stored_steps() -> CTE:
    row = _copied.c
    values: dict[str, Any] = {name: row[name] for name in _AS_THEY_WERE} | {
        "id": row.new_id,
        "workflow_run_id": _stored_run.c.id,
        "status": case((row.is_again, BLOCKED), else_=SUCCEEDED),
        "dependency_count_pending": func.coalesce(_open_edges.c.pending, ZERO),
        "output": case((row.is_again, null()), else_=row.result),
        "finished_at": case((row.is_again, null()), else_=row.finished_at),
        "status_reason": case((row.is_again, null()), else_=constant(STEP_REUSED)),
    }
    source = _copied.join(_stored_run, TRUE).outerjoin(_open_edges, _open_edges.c.dependent_step_id == row.id)
    return (
        insert(workflow_steps)
        .from_select(list(values), select(*values.values()).select_from(source).order_by(row.new_id))
        .cte("stored_steps")
    )


def _stored_edges() -> CTE:
    before, behind = _copied.alias("before"), _copied.alias("behind")
    return (
        insert(workflow_step_dependencies)
        .from_select(
            ["workflow_run_id", "prerequisite_step_id", "dependent_step_id", "release_mode"],
            select(_stored_run.c.id, before.c.new_id, behind.c.new_id, _edge.release_mode)
            .select_from(
                workflow_step_dependencies.join(before, before.c.id == _edge.prerequisite_step_id)
                .join(behind, behind.c.id == _edge.dependent_step_id)
                .join(_stored_run, TRUE)
            )
            .where(_edge.workflow_run_id == _run_id),
        )
        .cte("stored_edges")
    )


_stored_mutations = (
    insert(workflow_run_mutations)
    .from_select(
        ["workflow_run_id", "mutation_key", "metadata", "request"],
        select(_stored_run.c.id, _mutation.mutation_key, _mutation.metadata, _mutation.request)
        .select_from(workflow_run_mutations.join(_stored_run, TRUE))
        .where(_mutation.workflow_run_id == _run_id),
    )
    .cte("stored_mutations")
)
RERUN = Statement(
    "rerun_workflow_run",
    select(as_text(_stored_run.c.id)).add_cte(_stored_steps(), _stored_edges(), _stored_mutations),
)
_holder = workflow_runs.alias("holder")
SELECT_OBSTACLE = Statement(
    "select_rerun_obstacle",
    select(select(func.min(_missing.subquery().c.job_type)).scalar_subquery(), as_text(_holder.c.id))
    .select_from(
        workflow_runs.outerjoin(
            _holder,
            _holder.c.holds_active_key
            & (_holder.c.workflow_type == _run.workflow_type)
            & (_holder.c.active_key == _run.active_key)
            & _holder.c.organization_id.is_not_distinct_from(_run.organization_id),
        )
    )
    .where(_run.id == _run_id),
)


class _Source(NamedTuple):
    status: str
    unquiet_seconds: float | None
    successor_id: str | None
    successor_status: str | None


def rerun_workflow_run(
    connection: AnyConnection,
    *,
    run_id: UUID | str,
    scope: Scope | None = None,
    reason: str | None = None,
    also: Collection[str] = (),
) -> EnqueuedWorkflowRun:
    """A new run of the same graph exists with the caller's commit, appended steps included: ``rerun_of_run_id`` names
    the old one, which stays as it is. Steps that did not succeed run again, with the payload and the queue settings
    they had, and so do those that ``also`` names, where a gate is opened anew, and whatever waits behind one of them;
    all other steps have succeeded already, with their output, and get no job. Appends that the old run knew are already
    applied. The idempotency key stays with the old run.

    A run is run again by one run at a time: while there is one that is live or has succeeded, that one is answered with
    ``is_new`` false. Locks the old run. Five statements, or six with ``also``, whatever the size of the graph.

    Raises InvalidRecoveryReason before any SQL; TransactionRequired, RecoveryUnsupportedIsolation,
    WorkflowReleaseConflict, RecoverySourceNotFound (also outside ``scope``), RecoverySourceNotTerminal,
    RecoverySourceSucceeded, WorkflowStepNotFound for a name in ``also``, CancellationNotQuiesced while a cancelled
    attempt may still be running, WorkflowDefinitionNotFoundOrDisabled, or RecoveryActiveConstraint, with nothing
    written.
    """
    if reason is not None and not reason.strip():
        raise errors.InvalidRecoveryReason("the reason is blank; leave it away instead")
    ledger = borrow(connection)
    run = run_identity(run_id, errors.RecoverySourceNotFound)
    lock_runs(ledger, [run], unsupported=errors.RecoveryUnsupportedIsolation)
    rows = ledger.fetch(SELECT_SOURCE, {"run_id": run} | scoped(Scope.any() if scope is None else scope))
    if not rows:
        raise errors.RecoverySourceNotFound("no such workflow run in this scope")
    source = _Source(*rows[0])
    _check_source(source)
    if source.successor_id is not None:
        return EnqueuedWorkflowRun(UUID(source.successor_id), False, WorkflowRunStatus(str(source.successor_status)))
    named = {"run_id": run, "also": text_array([str(key) for key in also])}
    _check_named(ledger, named, also)
    stored = ledger.fetch(RERUN, named | {"reason": None if reason is None else clean_text(reason, REASON_LIMIT)})
    if not stored:
        raise _obstacle(ledger, named)
    new_run = str(stored[0][0])
    release_free_steps(ledger, new_run)
    return EnqueuedWorkflowRun(UUID(new_run), True, WorkflowRunStatus(run_state(ledger, new_run, None).status))


def _check_source(source: _Source) -> None:
    status = WorkflowRunStatus(source.status)
    if not status.is_final:
        raise errors.RecoverySourceNotTerminal(f"the run is {status}; cancel it, or wait until it has ended")
    if status is WorkflowRunStatus.SUCCEEDED:
        raise errors.RecoverySourceSucceeded("the run succeeded; to do all of it once more, enqueue a new one")
    if source.unquiet_seconds is not None and source.successor_id is None:
        seconds = max(1, math.ceil(source.unquiet_seconds))
        raise CancellationNotQuiesced(
            f"a cancelled attempt of the run may still be running; try again once it has ended, in {seconds} s at most"
        )


def _check_named(ledger: LedgerConnection, named: Parameters, also: Collection[str]) -> None:
    """Raises WorkflowStepNotFound when the run lacks a step that is to run again."""
    unknown = set(also) - {row[0] for row in ledger.fetch(SELECT_NAMED, named)} if also else set()
    if unknown:
        raise errors.WorkflowStepNotFound(f"the run has no step {min(unknown)!r}")


def _obstacle(ledger: LedgerConnection, named: Parameters) -> RunledgerError:
    missing_type, holder = ledger.fetch(SELECT_OBSTACLE, named)[0]
    if missing_type is not None:
        return definition_missing(missing_type)
    whose = f"workflow run {holder}" if holder else "another workflow run"
    return errors.RecoveryActiveConstraint(f"{whose} holds the active key of this one and has not ended")

"""Enqueue a run: the graph in one statement, its first steps in a second, inside the caller's transaction.

A keyed retry is resolved by a statement of its own, because the run that made the insert give way may have been
committed while it waited, and only a new statement's snapshot sees it.
"""

from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, Integer, Text, Uuid, and_, case, cast, func, null, or_, select, union
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert

from runledger.core import workflow_errors as errors
from runledger.core.definitions import DEFINITION_MISSING_HINT
from runledger.core.errors import TransactionRequired
from runledger.core.middleware import announced_run
from runledger.core.states import WorkflowRunStatus
from runledger.core.workflow_builder import WorkflowDagBuilder
from runledger.core.workflow_requests import EncodedRun, encode_run, workflow_differences
from runledger.core.workflows import EnqueuedWorkflowRun, WorkflowRunRequest
from runledger.postgres.arrays import text_array
from runledger.postgres.connection import AnyConnection, LedgerConnection, borrow
from runledger.postgres.expressions import IN_THE_LOG, TRUE, as_text, parameter
from runledger.postgres.keys import IS_READ_COMMITTED
from runledger.postgres.statements import Parameters, Statement
from runledger.postgres.tables import job_definitions, workflow_runs
from runledger.postgres.workflow_graphs import MISSING_TYPES, graph_parameters, stored_graph
from runledger.postgres.workflow_steps import release_free_steps

KEYED_TRIES = 5
"""How often a keyed enqueue starts over when the run that held its key vanished between two statements."""

_run = workflow_runs.c
_key, _active_key = parameter("idempotency_key", Text), parameter("active_key", Text)
_stored_run = (
    upsert(workflow_runs)
    .from_select(
        [
            "workflow_type",
            "organization_id",
            "metadata",
            "headers",
            "idempotency_key",
            "enqueue_request",
            "active_key",
            "holds_active_key",
            "result_step_key",
            "step_count",
            "unfinished_count",
        ],
        select(
            parameter("workflow_type", Text),
            parameter("organization_id", Uuid),
            cast(parameter("metadata", Text), JSONB),
            cast(parameter("headers", Text), JSONB),
            _key,
            cast(parameter("snapshot", Text), JSONB),
            _active_key,
            _active_key.is_not(None),
            parameter("result_step_key", Text),
            parameter("step_count", Integer),
            parameter("step_count", Integer),
        )
        .where(~MISSING_TYPES.exists())
        .where(or_(and_(_key.is_(None), _active_key.is_(None)), IS_READ_COMMITTED)),
    )
    .on_conflict_do_nothing()
    .returning(_run.id)
    .cte("run")
)
_identified, *_stored = stored_graph(_stored_run)
ENQUEUE_RUN = Statement("enqueue_workflow_run", select(as_text(_stored_run.c.id)).add_cte(_identified, *_stored))

_asked = select(parameter("workflow_type", Text).label("workflow_type")).cte("asked")
_organization_id = parameter("organization_id", Uuid)


def _in_organization(found: Any, name: str) -> Any:
    """Two branches, one for each of the two indexes, because NULL equals nothing."""
    return union(
        found.where(_run.organization_id == _organization_id),
        found.where(_run.organization_id.is_(None)).where(_organization_id.is_(None)),
    ).subquery(name)


_of_type = select(_run.id, _run.status, _run.enqueue_request).where(
    _run.workflow_type == parameter("workflow_type", Text)
)
_holder = _in_organization(_of_type.where(_run.idempotency_key == _key), "holder")
_live = _in_organization(_of_type.where(_run.holds_active_key).where(_run.active_key == _active_key), "live")
_types = func.unnest(parameter("job_types", ARRAY(Text))).table_valued("job_type").render_derived(name="types")
_enabled = select(job_definitions.c.job_type).where(job_definitions.c.is_enabled)
RESOLVE_RUN = Statement(
    "resolve_workflow_run",
    select(
        IS_READ_COMMITTED,
        select(func.min(_types.c.job_type)).where(_types.c.job_type.not_in(_enabled)).scalar_subquery(),
        as_text(_holder.c.id),
        as_text(_holder.c.status),
        case(
            (_holder.c.enqueue_request.is_(None), null()),
            else_=_holder.c.enqueue_request == cast(parameter("snapshot", Text), JSONB),
        ),
        as_text(_holder.c.enqueue_request),
        as_text(_live.c.id),
        as_text(_live.c.status),
        case((func.coalesce(_holder.c.id, _live.c.id).is_not(None), IN_THE_LOG)),
    ).select_from(_asked.outerjoin(_holder, TRUE).outerjoin(_live, TRUE)),
)


class _Holder(NamedTuple):
    """Why the insert gave way."""

    is_read_committed: bool
    missing_type: str | None
    run_id: str | None
    status: str | None
    is_same: bool | None
    request: str | None
    live_run_id: str | None
    live_status: str | None
    log_position: str | None
    """The answer's commit waits until this is safe, and with it the run that was found."""


def enqueue_workflow_run(
    connection: AnyConnection, request: WorkflowRunRequest | WorkflowDagBuilder
) -> EnqueuedWorkflowRun:
    """The run is stored and its first steps are due as soon as the caller's transaction commits; on rollback it never
    was. A builder is built. Queue settings of the steps are frozen now. Two statements, whatever the size of the graph.

    With an idempotency key, the same graph answers with the run that already has it, whatever its status, even when a
    definition was disabled since. With an active key, the live run that holds it is answered, whatever its graph; the
    key is free again in the transaction in which that run ends. Locks nothing that exists.

    Raises what middleware and ``encode_run`` raise, before any SQL; TransactionRequired in autocommit;
    WorkflowEnqueueUnsupportedIsolation, WorkflowDefinitionNotFoundOrDisabled, EnqueueConflictingRetry (with the
    differences) or WorkflowSnapshotMissing, with nothing written.
    """
    if isinstance(request, WorkflowDagBuilder):
        request = request.build()
    run = encode_run(announced_run(request))
    ledger = borrow(connection)
    if ledger.is_autocommit:
        raise TransactionRequired("open a transaction around enqueue_workflow_run: all of the graph is stored, or none")
    parameters = _parameters(run)
    for _ in range(KEYED_TRIES):
        rows = ledger.fetch(ENQUEUE_RUN, parameters)
        if rows:
            release_free_steps(ledger, rows[0][0])
            return EnqueuedWorkflowRun(UUID(rows[0][0]), True, _first_status(run))
        holder = _find_holder(ledger, run)
        if holder.run_id is not None:
            return _answer(run, holder)
        if holder.live_run_id is not None:
            return EnqueuedWorkflowRun(UUID(holder.live_run_id), False, WorkflowRunStatus(str(holder.live_status)))
        if holder.missing_type is not None:
            raise definition_missing(holder.missing_type)
    raise errors.WorkflowInternalState("the key came and went during every try; try again")


def definition_missing(job_type: str) -> errors.WorkflowDefinitionNotFoundOrDisabled:
    """The error for a step whose job type has no enabled definition."""
    return errors.WorkflowDefinitionNotFoundOrDisabled(
        f"job type {job_type!r} has no enabled definition",
        hint=DEFINITION_MISSING_HINT,
    )


def _parameters(run: EncodedRun) -> Parameters:
    return {
        "workflow_type": run.workflow_type,
        "organization_id": run.organization_id,
        "metadata": run.metadata,
        "headers": run.headers,
        "idempotency_key": run.idempotency_key,
        "active_key": run.active_key,
        "snapshot": run.snapshot,
        "result_step_key": run.result_step_key,
        "step_count": len(run.steps),
    } | graph_parameters(run.steps)


def _first_status(run: EncodedRun) -> WorkflowRunStatus:
    """RUNNING, unless all that is free are gates."""
    roots = [step for step in run.steps if not step.dependencies]
    has_jobs = any(step.job_type is not None for step in roots)
    return WorkflowRunStatus.RUNNING if has_jobs else WorkflowRunStatus.WAITING_FOR_EXTERNAL


def _find_holder(ledger: LedgerConnection, run: EncodedRun) -> _Holder:
    job_types = sorted({step.job_type for step in run.steps if step.job_type is not None})
    parameters = {
        "workflow_type": run.workflow_type,
        "organization_id": run.organization_id,
        "idempotency_key": run.idempotency_key,
        "active_key": run.active_key,
        "snapshot": run.snapshot,
        "job_types": text_array(job_types),
    }
    holder = _Holder(*ledger.fetch(RESOLVE_RUN, parameters)[0])
    if (run.idempotency_key or run.active_key) is not None and not holder.is_read_committed:
        raise errors.WorkflowEnqueueUnsupportedIsolation("a keyed enqueue of a workflow run needs READ COMMITTED")
    return holder


def _answer(run: EncodedRun, holder: _Holder) -> EnqueuedWorkflowRun:
    if holder.is_same is None or holder.request is None:
        raise errors.WorkflowSnapshotMissing("the run that holds this key carries no snapshot of its request")
    if not holder.is_same:
        differences = workflow_differences(holder.request, run.snapshot or "{}")
        raise errors.EnqueueConflictingRetry("the idempotency key belongs to a different request", differences)
    return EnqueuedWorkflowRun(UUID(holder.run_id), False, WorkflowRunStatus(str(holder.status)))

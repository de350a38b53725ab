"""Append steps to a live run, while an open gate makes sure that the run cannot end meanwhile."""

from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, Text, Uuid, case, cast, func, insert, null, select, update
from sqlalchemy.dialects.postgresql import JSONB

from runledger.core import workflow_errors as errors
from runledger.core.dag import check_graph
from runledger.core.jobs import JsonValue, Scope
from runledger.core.states import StepKind, WorkflowRunStatus, WorkflowStepStatus
from runledger.core.workflow_requests import (
    EncodedAppend,
    adopt,
    append_snapshot,
    encode_append,
    workflow_differences,
)
from runledger.core.workflows import AppendedSteps, AppendOutcome, AppendRequest, StepRequest
from runledger.postgres.arrays import text_array
from runledger.postgres.connection import AnyConnection, LedgerConnection, borrow
from runledger.postgres.expressions import CLOCK, as_text, parameter
from runledger.postgres.reads import in_scope, scoped
from runledger.postgres.statements import Statement
from runledger.postgres.tables import workflow_run_mutations, workflow_runs, workflow_steps
from runledger.postgres.workflow_gates import run_identity
from runledger.postgres.workflow_graphs import MISSING_TYPES, Existing, graph_parameters, stored_graph
from runledger.postgres.workflow_locks import lock_runs
from runledger.postgres.workflow_runs import definition_missing
from runledger.postgres.workflow_steps import release_free_steps

_run, _step, _mutation = workflow_runs.c, workflow_steps.c, workflow_run_mutations.c
_run_id = parameter("run_id", Uuid)

SELECT_RUN_STATE = Statement(
    "select_workflow_run_state",
    select(as_text(_run.status), as_text(_run.organization_id), _run.enqueued_count)
    .where(_run.id == _run_id)
    .where(in_scope(_run.organization_id)),
)
SELECT_MUTATION = Statement(
    "select_workflow_mutation",
    select(
        case((_mutation.request.is_(None), null()), else_=_mutation.request == cast(parameter("request", Text), JSONB)),
        as_text(_mutation.request),
    )
    .where(_mutation.workflow_run_id == _run_id)
    .where(_mutation.mutation_key == parameter("mutation_key", Text)),
)
SELECT_STEP_STATES = Statement(
    "select_workflow_step_states",
    select(_step.step_key, as_text(_step.id), as_text(_step.kind), as_text(_step.status))
    .where(_step.workflow_run_id == _run_id)
    .where(_step.step_key == func.any(parameter("step_keys", ARRAY(Text)))),
)

_grown = (
    update(workflow_runs)
    .where(_run.id == _run_id)
    .where(~MISSING_TYPES.exists())
    .values(
        step_count=_run.step_count + func.cardinality(parameter("step_keys", ARRAY(Text))),
        unfinished_count=_run.unfinished_count + func.cardinality(parameter("step_keys", ARRAY(Text))),
        updated_at=CLOCK,
    )
    .returning(_run.id)
    .cte("run")
)
_identified, *_stored = stored_graph(_grown)
_noted = (
    insert(workflow_run_mutations)
    .from_select(
        ["workflow_run_id", "mutation_key", "metadata", "request"],
        select(
            _grown.c.id,
            parameter("mutation_key", Text),
            cast(parameter("metadata", Text), JSONB),
            cast(parameter("request", Text), JSONB),
        ),
    )
    .cte("noted")
)
APPEND_STEPS = Statement(
    "append_workflow_steps",
    select(_identified.c.step_key, as_text(_identified.c.id)).order_by(_identified.c.ordinal).add_cte(*_stored, _noted),
)
SELECT_MISSING = Statement("select_missing_step_types", select(func.min(MISSING_TYPES.subquery().c.job_type)))


class _State(NamedTuple):
    status: str
    organization_id: str | None
    enqueued_count: int


def append_workflow_steps(
    connection: AnyConnection,
    *,
    run_id: UUID | str,
    mutation_key: str,
    window_step_key: str,
    steps: list[StepRequest] | tuple[StepRequest, ...],
    metadata: JsonValue = None,
    scope: Scope | None = None,
) -> AppendedSteps:
    """The steps belong to the run with the caller's commit; those that wait for nothing are due. A step that can never
    run is cancelled at once. Existing steps get no new edges.

    The same request under the same mutation key is ALREADY_APPLIED, also after its window closed or the run ended. The
    gate ``window_step_key`` must be open. Locks the run. At most seven statements,
    and three more when steps are born hopeless.

    Raises AppendMutationKeyBlank and what is wrong with the steps by themselves before any SQL; then
    TransactionRequired, AppendUnsupportedIsolation, WorkflowReleaseConflict, WorkflowRunNotFound,
    AppendConflictingRetry, AppendWindowMissing, AppendWindowNotExternal, AppendWindowNotOpen, AppendTerminalRun, the
    errors of the graph, and WorkflowDefinitionNotFoundOrDisabled, in this order, with nothing written.
    """
    append = encode_append(AppendRequest(mutation_key, window_step_key, steps, metadata=metadata))
    ledger = borrow(connection)
    run = run_identity(run_id)
    lock_runs(ledger, [run], unsupported=errors.AppendUnsupportedIsolation)
    state = run_state(ledger, run, scope)
    adopt(append.steps, state.organization_id)
    request = append_snapshot(append)
    keys = {append.window_step_key, *(step.step_key for step in append.steps)}
    keys.update(key for step in append.steps for key in step.dependencies)
    rows = ledger.fetch(SELECT_STEP_STATES, {"run_id": run, "step_keys": text_array(sorted(keys))})
    if _is_applied(ledger, run, append, request):
        step_ids = {row[0]: UUID(row[1]) for row in rows}
        known = {step.step_key: step_ids[step.step_key] for step in append.steps}
        return AppendedSteps(UUID(run), AppendOutcome.ALREADY_APPLIED, WorkflowRunStatus(state.status), known)
    _check_window({row[0]: row for row in rows}.get(append.window_step_key), state.status)
    existing = {row[0]: (row[1], WorkflowStepStatus(row[3])) for row in rows}
    check_graph(append.steps, existing)
    stored = _store(ledger, run, append, request, existing)
    release_free_steps(ledger, run)
    status = WorkflowRunStatus(run_state(ledger, run, scope).status)
    return AppendedSteps(UUID(run), AppendOutcome.APPENDED, status, stored)


def run_state(ledger: LedgerConnection, run_id: str, scope: Scope | None) -> _State:
    """The run as it is under its lock. Raises WorkflowRunNotFound when it does not exist in ``scope``."""
    rows = ledger.fetch(SELECT_RUN_STATE, {"run_id": run_id} | scoped(Scope.any() if scope is None else scope))
    if not rows:
        raise errors.WorkflowRunNotFound("no such workflow run in this scope")
    return _State(*rows[0])


def _is_applied(ledger: LedgerConnection, run: str, append: EncodedAppend, request: str) -> bool:
    rows = ledger.fetch(SELECT_MUTATION, {"run_id": run, "mutation_key": append.mutation_key, "request": request})
    if not rows:
        return False
    is_same, stored = rows[0]
    if not is_same:
        differences = workflow_differences(stored, request)
        raise errors.AppendConflictingRetry("the mutation key belongs to a different append", differences)
    return True


def _check_window(window: Any, run_status: str) -> None:
    if window is None:
        raise errors.AppendWindowMissing("the run has no step with the key of the append window")
    _, _, kind, status = window
    if kind != StepKind.EXTERNAL:
        raise errors.AppendWindowNotExternal("the append window is a job; it must be a gate")
    if WorkflowRunStatus(run_status).is_final:
        raise errors.AppendTerminalRun(f"the run is {run_status}; nothing can be appended")
    if status != WorkflowStepStatus.WAITING_FOR_EXTERNAL:
        raise errors.AppendWindowNotOpen(f"the append window is {status}; it must be open")


def _store(
    ledger: LedgerConnection, run: str, append: EncodedAppend, request: str, existing: Existing
) -> dict[str, UUID]:
    graph = graph_parameters(append.steps, existing)
    place = {"run_id": run, "mutation_key": append.mutation_key, "request": request, "metadata": append.metadata}
    stored = {key: UUID(step_id) for key, step_id in ledger.fetch(APPEND_STEPS, place | graph)}
    if not stored:
        raise definition_missing(ledger.fetch(SELECT_MISSING, graph)[0][0])
    return stored

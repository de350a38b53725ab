"""Complete a gate from outside: once, idempotent for the same answer, a conflict for another one."""

import json
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Text, Uuid, and_, case, cast, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from runledger.core import workflow_errors as errors
from runledger.core.errors import InvalidOutput, NotFoundError
from runledger.core.gate import IDENTIFIER_LIMIT, MESSAGE_LIMIT, REASON_LIMIT, clean_text, encode_json
from runledger.core.jobs import Scope
from runledger.core.states import StepKind, WorkflowStepStatus
from runledger.core.workflows import Canceled, ExternalOutcome, Failed, Succeeded
from runledger.postgres import tables
from runledger.postgres.connection import AnyConnection, LedgerConnection, borrow
from runledger.postgres.expressions import CLOCK, ONE, TRUE, ZERO, as_text, constant, parameter
from runledger.postgres.reads import in_scope, scoped
from runledger.postgres.statements import Parameters, Statement
from runledger.postgres.tables import workflow_step_dependencies, workflow_steps
from runledger.postgres.workflow_counts import BLOCKED, WAITING, changes_of, counted
from runledger.postgres.workflow_locks import lock_runs
from runledger.postgres.workflow_steps import advance_after_steps

_STATUSES: dict[type, WorkflowStepStatus] = {
    Succeeded: WorkflowStepStatus.SUCCEEDED,
    Failed: WorkflowStepStatus.FAILED,
    Canceled: WorkflowStepStatus.CANCELED,
}

MOST_GATES_NAMED = 20

_step = workflow_steps.c
_status = cast(parameter("status", Text), tables.workflow_step_status)
_output = cast(parameter("output", Text), JSONB)
_reason, _code, _message = (parameter(name, Text) for name in ("reason", "error_code", "error_message"))

SELECT_GATE = Statement(
    "select_gate",
    select(
        as_text(_step.id),
        as_text(_step.kind),
        as_text(_step.status),
        _step.status == _status,
        _step.output.is_not_distinct_from(_output),
        and_(
            _step.status_reason.is_not_distinct_from(_reason),
            _step.last_error_code.is_not_distinct_from(_code),
            _step.last_error_message.is_not_distinct_from(_message),
        ),
    )
    .where(_step.workflow_run_id == parameter("run_id", Uuid))
    .where(_step.step_key == parameter("step_key", Text))
    .where(in_scope(_step.organization_id)),
)

LIST_OPEN_GATES = Statement(
    "list_open_gates",
    select(_step.step_key)
    .where(_step.workflow_run_id == parameter("run_id", Uuid))
    .where(_step.status == WAITING)
    .where(in_scope(_step.organization_id))
    .order_by(_step.id)
    .limit(literal_column(str(MOST_GATES_NAMED))),
)

_edge = workflow_step_dependencies.c
_part = (
    func.jsonb_array_elements(_step.payload_parts)
    .table_valued("value", with_ordinality="ordinal")
    .render_derived(name="part")
)
_KEYS = literal_column("ARRAY(SELECT jsonb_array_elements_text(part.value -> 'path'))", ARRAY(Text))
SELECT_MISSING_PATH = Statement(
    "select_path_missing_in_output",
    select(_step.step_key, literal_column("(part.value -> 'path')::text"))
    .select_from(workflow_step_dependencies.join(workflow_steps, _step.id == _edge.dependent_step_id).join(_part, TRUE))
    .where(_edge.prerequisite_step_id == parameter("step_id", Uuid))
    .where(_step.status == BLOCKED)
    .where(_step.dependency_count_unsatisfied == ZERO)
    .where(func.jsonb_typeof(_part.c.value) == constant("object"))
    .where(_part.c.value.op("->>")(constant("step")) == parameter("step_key", Text))
    .where(func.coalesce(_output, cast(constant("null"), JSONB)).op("#>")(_KEYS).is_(None))
    .order_by(_step.id, _part.c.ordinal)
    .limit(ONE),
)
"""The first place in a payload to which this output has nothing to give, among the steps behind a gate that can still
run."""

_passed = (
    update(workflow_steps)
    .where(_step.id == parameter("step_id", Uuid))
    .where(_step.status == WAITING)
    .values(
        status=_status,
        finished_at=CLOCK,
        output=case((_output.is_not(None), _output)),
        status_reason=_reason,
        last_error_code=_code,
        last_error_message=_message,
    )
    .returning(_step.id, _step.workflow_run_id, _step.status)
    .cte("passed")
)
COMPLETE_GATE = Statement(
    "complete_gate",
    select(func.count()).select_from(_passed).add_cte(counted(changes_of(_passed, WAITING, _passed.c.status))),
)


class _Gate(NamedTuple):
    step_id: str
    kind: str
    status: str
    has_same_status: bool
    has_same_output: bool
    has_same_words: bool


def complete_external_workflow_step(
    connection: AnyConnection,
    *,
    run_id: UUID | str,
    step_key: str,
    outcome: ExternalOutcome,
    scope: Scope | None = None,
) -> None:
    """The gate has ended with ``outcome``, and what waited for it is released or cancelled, with the caller's commit.

    Repeated with the same outcome it does nothing, also when the run has ended since. An output that lacks what a step
    behind it takes is refused, because the gate could not be answered again. Locks the run. Four statements, one more
    for a success, and three more when steps behind it can never run.

    Raises ExternalStepInvalidTerminalStatus or InvalidOutput before any SQL; TransactionRequired,
    ExternalCompletionUnsupportedIsolation, WorkflowReleaseConflict, ExternalStepNotFound (also outside ``scope``),
    ExternalStepNotExternal, ExternalStepNotWaiting, ExternalStepConflictingCompletionRetry,
    ExternalStepConflictingOutputRetry or ExternalStepOutputPathMissing, with nothing written.
    """
    wanted = _parameters(outcome)
    ledger = borrow(connection)
    run = run_identity(run_id, errors.ExternalStepNotFound)
    lock_runs(ledger, [run], unsupported=errors.ExternalCompletionUnsupportedIsolation)
    place = {"run_id": run, "step_key": str(step_key)} | scoped(Scope.any() if scope is None else scope)
    rows = ledger.fetch(SELECT_GATE, wanted | place)
    if not rows:
        raise _no_such_step(ledger, place)
    gate = _Gate(*rows[0])
    if _is_done(gate):
        return
    if isinstance(outcome, Succeeded):
        _check_serves(ledger, gate.step_id, place["step_key"], wanted["output"])
    ledger.fetch(COMPLETE_GATE, wanted | {"step_id": gate.step_id})
    advance_after_steps(ledger, [gate.step_id])


def _no_such_step(ledger: LedgerConnection, place: Parameters) -> errors.ExternalStepNotFound:
    gates = [row[0] for row in ledger.fetch(LIST_OPEN_GATES, place)]
    hint = f"open gates of the run: {', '.join(gates)}" if gates else None
    return errors.ExternalStepNotFound("no such step in this scope", hint=hint)


def _check_serves(ledger: LedgerConnection, step_id: str, step_key: str, output: str | None) -> None:
    """Raises ExternalStepOutputPathMissing when a step behind the gate takes something that is not in its output."""
    missing = ledger.fetch(SELECT_MISSING_PATH, {"step_id": step_id, "step_key": step_key, "output": output})
    if missing:
        taker, path = missing[0]
        shown = clean_text(" / ".join(json.loads(path)), IDENTIFIER_LIMIT)
        raise errors.ExternalStepOutputPathMissing(
            f"the output of gate {step_key!r} has no {shown!r}, which step {taker!r} takes",
            hint="complete it with an output that has it, or as failed",
        )


def run_identity(run_id: UUID | str, error: type[NotFoundError] = errors.WorkflowRunNotFound) -> str:
    """The id as text. Raises ``error`` for what is no UUID."""
    try:
        return str(UUID(str(run_id)))
    except ValueError:
        raise error("no such workflow run: the id is not a UUID") from None


def _parameters(outcome: ExternalOutcome) -> Parameters:
    status = _STATUSES.get(type(outcome))
    if status is None:
        raise errors.ExternalStepInvalidTerminalStatus("a gate ends as Succeeded, Failed or Canceled")
    output = code = message = None
    if isinstance(outcome, Succeeded):
        if outcome.output is not None:
            output = encode_json(outcome.output, error=InvalidOutput, field="output")
    else:
        code = None if outcome.code is None else clean_text(outcome.code, 200)
        message = None if outcome.message is None else clean_text(outcome.message, MESSAGE_LIMIT)
    return {
        "status": status.value,
        "output": output,
        "reason": None if outcome.reason is None else clean_text(outcome.reason, REASON_LIMIT),
        "error_code": code,
        "error_message": message,
    }


def _is_done(gate: _Gate) -> bool:
    """Whether the gate has ended in this very way already. Raises when it has ended otherwise or does not wait."""
    if gate.kind != StepKind.EXTERNAL:
        raise errors.ExternalStepNotExternal("the step is a job; only a gate is completed from outside")
    if not WorkflowStepStatus(gate.status).is_final:
        if gate.status != WorkflowStepStatus.WAITING_FOR_EXTERNAL:
            raise errors.ExternalStepNotWaiting("the gate does not wait yet: its prerequisites have not ended")
        return False
    if not gate.has_same_status:
        raise errors.ExternalStepConflictingCompletionRetry(f"the gate was already completed as {gate.status}")
    if not gate.has_same_output:
        raise errors.ExternalStepConflictingOutputRetry("the gate already succeeded with another output")
    if not gate.has_same_words:
        message = "the gate was already completed with another reason, code or message"
        raise errors.ExternalStepConflictingCompletionRetry(message)
    return True

"""A run or an append, checked as a whole and made ready for SQL; and the snapshot by which its retry is recognised.

The snapshot says what was asked for, in one canonical form: the order of steps and edges is nothing, a default mode is
written out, and what is empty and optional is left away, so that older snapshots stay equal.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from runledger.core import workflow_errors as errors
from runledger.core.dag import EncodedStep, check_graph, encode_steps, is_blank
from runledger.core.errors import FieldDifference, InvalidPayload
from runledger.core.gate import KEY_LIMIT, check_identifier, encode_json
from runledger.core.headers import encode_headers
from runledger.core.jobs import JsonValue
from runledger.core.requests import check_organization
from runledger.core.snapshots import differences
from runledger.core.states import JobStage, StepKind
from runledger.core.workflows import AppendRequest, WorkflowRunRequest


@dataclass(slots=True)
class EncodedRun:
    """A run as SQL takes it. The snapshot exists for keyed runs only."""

    workflow_type: str
    organization_id: str | None
    metadata: str
    idempotency_key: str | None
    active_key: str | None
    result_step_key: str | None
    headers: str | None
    steps: list[EncodedStep]
    snapshot: str | None


@dataclass(slots=True)
class EncodedAppend:
    """An append as SQL takes it; whether it fits into the run, only the stored run can tell."""

    mutation_key: str
    window_step_key: str
    metadata: str
    steps: list[EncodedStep]


def encode_run(request: WorkflowRunRequest) -> EncodedRun:
    """The run with every rule checked: each step by itself, the keys, the graph, the result step, in this order.

    Raises an InvalidWorkflow; InvalidIdentifier, InvalidRequest or InvalidPayload for a value outside its limits.
    """
    steps = encode_steps(request.steps)
    if request.idempotency_key is not None and is_blank(request.idempotency_key):
        raise errors.BlankIdempotencyKey("the idempotency key of the run is blank")
    if request.active_key is not None and is_blank(request.active_key):
        raise errors.BlankActiveKey("the active key of the run is blank")
    if request.result_step_key is not None and is_blank(request.result_step_key):
        raise errors.BlankResultStepKey("the key of the result step is blank")
    if is_blank(request.workflow_type):
        raise errors.BlankWorkflowType("the workflow type is blank")
    check_graph(steps)
    run = EncodedRun(
        check_identifier(request.workflow_type, field="workflow_type"),
        None if request.organization_id is None else check_organization(request.organization_id),
        _metadata(request.metadata),
        _key(request.idempotency_key, "idempotency_key"),
        _key(request.active_key, "active_key"),
        None if request.result_step_key is None else check_identifier(request.result_step_key, field="result_step_key"),
        encode_headers(request.headers),
        steps,
        None,
    )
    if run.result_step_key is not None and all(step.step_key != run.result_step_key for step in steps):
        raise errors.UnknownResultStepKey("the result step is no step of this workflow", step_key=run.result_step_key)
    adopt(steps, run.organization_id)
    if run.idempotency_key is not None:
        run.snapshot = run_snapshot(run)
    return run


def encode_append(request: AppendRequest) -> EncodedAppend:
    """The append with every rule checked that needs no look at the run. Raises AppendMutationKeyBlank, and what
    ``encode_run`` raises for its steps."""
    if is_blank(request.mutation_key):
        raise errors.AppendMutationKeyBlank("the mutation key is blank")
    mutation_key = check_identifier(request.mutation_key, field="mutation_key", limit_bytes=KEY_LIMIT)
    steps = encode_steps(request.steps)
    if not steps:
        raise errors.EmptySteps("an append needs at least one step")
    window = check_identifier(request.window_step_key, field="window_step_key")
    return EncodedAppend(mutation_key, window, _metadata(request.metadata), steps)


def adopt(steps: Sequence[EncodedStep], organization_id: str | None) -> None:
    """Steps without an organization of their own belong to the run's."""
    for step in steps:
        step.organization_id = step.organization_id or organization_id


def run_snapshot(run: EncodedRun) -> str:
    """JSON object text. Type, organization and key are not in it: they are what the run was found by."""
    optional = {"active_key": run.active_key, "result_step_key": run.result_step_key}
    given = {name: json.dumps(value) for name, value in optional.items() if value is not None}
    return _object({"metadata": run.metadata} | given | {"steps": _steps(run.steps)})


def append_snapshot(append: EncodedAppend) -> str:
    """JSON object text; metadata is not compared. The steps must have adopted the run's organization."""
    window = json.dumps(append.window_step_key)
    return _object({"append_window_step_key": window, "steps": _steps(append.steps)})


def _steps(steps: Sequence[EncodedStep]) -> str:
    return f"[{','.join(_step(step) for step in sorted(steps, key=lambda step: step.step_key))}]"


def _step(step: EncodedStep) -> str:
    stage = (step.stage or JobStage.QUEUED).value if step.kind is StepKind.JOB else None
    dependencies = [
        {"prerequisite_step_key": key, "release_mode": mode.value} for key, mode in sorted(step.dependencies.items())
    ]
    fields = {
        "step_key": json.dumps(step.step_key),
        "execution_kind": json.dumps(step.kind.value),
        "job_type": json.dumps(step.job_type),
        "organization_id": json.dumps(step.organization_id),
        "payload": step.template.payload,
        "priority": json.dumps(step.priority),
        "max_attempts": json.dumps(step.max_attempts),
        "timeout_seconds": json.dumps(step.timeout_seconds),
        "stage": json.dumps(stage),
        "dependencies": json.dumps(dependencies),
    }
    if step.template.parts is not None:
        fields["payload_parts"] = step.template.parts
    return _object(fields)


def _object(fields: dict[str, str]) -> str:
    return "{" + ",".join(f'"{name}":{text}' for name, text in fields.items()) + "}"


def workflow_differences(stored: str, requested: str) -> tuple[FieldDifference, ...]:
    """Where two snapshots differ, field by field of each step: ``steps.persist.payload``."""
    try:
        return differences(_flat(stored), _flat(requested))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return differences(stored, requested)


def _flat(snapshot: str) -> str:
    fields = json.loads(snapshot)
    for step in fields.pop("steps"):
        fields |= {f"steps.{step['step_key']}.{name}": value for name, value in step.items() if name != "step_key"}
    return json.dumps(fields, ensure_ascii=False)


def _metadata(value: JsonValue) -> str:
    return "{}" if value is None else encode_json(value, error=InvalidPayload, field="metadata")


def _key(value: str | None, field: str) -> str | None:
    return None if value is None else check_identifier(value, field=field, limit_bytes=KEY_LIMIT)

"""What a caller says about workflows: steps, edges, runs, appends, how gates end; and what is answered.

These are requests as written; ``dag.py`` checks them, ``workflow_builder.py`` makes them in a few lines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from runledger.core.errors import InvalidRequest
from runledger.core.jobs import JsonValue
from runledger.core.states import JobStage, ReleaseMode, StepKind, WorkflowRunStatus, WorkflowStepStatus
from runledger.core.workflow_graph_errors import InvalidOutputReference

DEPENDENCY_UNSATISFIED: Final = "workflow.dependency_unsatisfied"
"""Stored on a step that was cancelled because an edge can never be satisfied; not an exception."""

INPUT_MISSING: Final = "workflow.input_missing"
"""Stored on a step that failed because ``output_of`` led nowhere; not an exception."""

STEP_REUSED: Final = "workflow.step_reused"
"""The status reason of a step that a re-run took over from the run before, with its output."""


@dataclass(frozen=True, slots=True)
class OutputOf:
    """A place in a payload that takes a prerequisite's output when the step is released. Made by ``output_of``."""

    step_key: str
    path: tuple[str | int, ...] = ()

    def __str__(self) -> str:
        raise InvalidOutputReference(
            f"the output of step {self.step_key!r} is not known yet, so it cannot be part of a text",
            prerequisite_step_key=self.step_key,
            hint="give it to the step as a value of its own, and let the handler make the text",
        )

    def __format__(self, format_spec: str) -> str:
        return str(self)


def output_of(step_key: str, /, *path: str | int) -> OutputOf:
    """Stands in the payload of a step for the output of a direct prerequisite, or for the value at ``path`` in it: keys
    of objects and indexes of arrays. A path that is not there fails the step with ``workflow.input_missing``.

    Raises InvalidRequest for a path of anything but texts and indexes from zero.
    """
    for part in path:
        is_index = isinstance(part, int) and not isinstance(part, bool) and part >= 0
        if not is_index and not isinstance(part, str):
            raise InvalidRequest("the path of output_of takes keys and indexes from zero")
    return OutputOf(step_key, path)


@dataclass(frozen=True, slots=True)
class StepDependency:
    """An edge to a prerequisite. ON_SUCCESS is satisfied by success only, ON_TERMINAL by any end."""

    prerequisite_step_key: str
    release_mode: ReleaseMode = ReleaseMode.ON_TERMINAL


@dataclass(frozen=True, slots=True)
class StepRequest:
    """One step: a job of ``job_type``, or with ``kind=StepKind.EXTERNAL`` a gate, which takes no job type and no queue
    settings. What is omitted takes the default of the stored definition; the organization is the run's."""

    step_key: str
    job_type: str | None = None
    payload: JsonValue = None
    _: KW_ONLY
    kind: StepKind = StepKind.JOB
    organization_id: UUID | str | None = None
    priority: int | None = None
    max_attempts: int | None = None
    timeout_seconds: int | None = None
    stage: JobStage | None = None
    dependencies: Sequence[StepDependency] = ()


@dataclass(frozen=True, slots=True)
class WorkflowRunRequest:
    """One run to enqueue. Neither the order of the steps nor that of their edges means anything. Of one workflow type,
    organization and ``active_key``, one run at a time is live. ``headers`` are those of all its jobs; they and
    ``middleware`` are as in ``JobRequest``."""

    workflow_type: str
    steps: Sequence[StepRequest]
    _: KW_ONLY
    metadata: JsonValue = None
    organization_id: UUID | str | None = None
    idempotency_key: str | None = None
    active_key: str | None = None
    result_step_key: str | None = None
    headers: Mapping[str, str] | None = None
    middleware: tuple[Any, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class AppendRequest:
    """Steps to add to a live run while the gate ``window_step_key`` is open. Their edges may lead from steps of the
    run; a retry is recognised by ``mutation_key``, and ``metadata`` is not compared."""

    mutation_key: str
    window_step_key: str
    steps: Sequence[StepRequest]
    _: KW_ONLY
    metadata: JsonValue = None


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The outside world said yes; ``output`` is any JSON, for the steps behind the gate."""

    output: JsonValue = None
    _: KW_ONLY
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The outside world said no."""

    code: str | None = None
    message: str | None = None
    _: KW_ONLY
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Canceled:
    """Nobody waits for the outside world any more."""

    code: str | None = None
    message: str | None = None
    _: KW_ONLY
    reason: str | None = None


ExternalOutcome = Succeeded | Failed | Canceled


@dataclass(frozen=True, slots=True)
class EnqueuedWorkflowRun:
    """What an enqueue or a re-run answers. ``is_new`` is false when the idempotency key already had this very graph,
    when a live run holds the active key, or when the run is being run again already."""

    run_id: UUID
    is_new: bool
    status: WorkflowRunStatus


class AppendOutcome(StrEnum):
    """Whether an append added its steps, or had been applied before under the same mutation key."""

    APPENDED = "APPENDED"
    ALREADY_APPLIED = "ALREADY_APPLIED"


@dataclass(frozen=True, slots=True)
class AppendedSteps:
    """What an append answers: the ids of its steps by key, in the order of the request."""

    run_id: UUID
    outcome: AppendOutcome
    status: WorkflowRunStatus
    step_ids: Mapping[str, UUID]


@dataclass(frozen=True, slots=True)
class WorkflowRun:
    """A run as people read it. ``result`` is the output of the result step, once the run has succeeded."""

    run_id: UUID
    workflow_type: str
    organization_id: UUID | None
    status: WorkflowRunStatus
    metadata: JsonValue
    idempotency_key: str | None
    result_step_key: str | None
    result: JsonValue
    step_count: int
    unfinished_count: int
    failed_count: int
    started_at: datetime
    finished_at: datetime | None
    status_reason: str | None
    created_at: datetime
    rerun_of_run_id: UUID | None
    active_key: str | None


@dataclass(frozen=True, slots=True)
class WorkflowStep:
    """A step as people read it; RUNNING while its job is leased. Output and last error of a job step are its job's."""

    step_id: UUID
    run_id: UUID
    step_key: str
    kind: StepKind
    status: WorkflowStepStatus
    job_type: str | None
    organization_id: UUID | None
    payload: JsonValue
    priority: int | None
    max_attempts: int | None
    timeout_seconds: int | None
    job_id: UUID | None
    dependency_count_total: int
    dependency_count_pending: int
    dependency_count_unsatisfied: int
    output: JsonValue
    released_at: datetime | None
    finished_at: datetime | None
    status_reason: str | None
    last_error_code: str | None
    last_error_message: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class WorkflowStepDependency:
    """An edge as people read it."""

    run_id: UUID
    prerequisite_step_id: UUID
    prerequisite_step_key: str
    dependent_step_id: UUID
    dependent_step_key: str
    release_mode: ReleaseMode

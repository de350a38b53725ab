"""The rules of a graph: each step by itself, then all of them together. Nothing recurses, so depth costs nothing.

The order of the checks is part of the contract: of several mistakes, the same one is always reported.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from runledger.core import workflow_errors as errors
from runledger.core.errors import InvalidIdentifier, InvalidRequest
from runledger.core.gate import IDENTIFIER_LIMIT, check_identifier, clean_text
from runledger.core.limits import MAX_ATTEMPTS, MAX_INT32, MAX_TIMEOUT_SECONDS, MIN_INT32, check_integer
from runledger.core.requests import check_organization
from runledger.core.states import JobStage, ReleaseMode, StepKind
from runledger.core.templates import Template, encode_template
from runledger.core.workflows import StepDependency, StepRequest

MOST_STEPS = 10_000
MOST_EDGES = 100_000
LONGEST_CIRCLE = 10
"""Steps of a circle that a message names."""

_STAGES = (None, JobStage.QUEUED, JobStage.SCHEDULED)


@dataclass(slots=True)
class EncodedStep:
    """A step as SQL takes it: checked, in plain types. ``organization_id`` is its own, before the run's."""

    step_key: str
    kind: StepKind
    job_type: str | None
    organization_id: str | None
    template: Template
    priority: int | None
    max_attempts: int | None
    timeout_seconds: int | None
    stage: JobStage | None
    dependencies: dict[str, ReleaseMode]


def encode_steps(steps: Sequence[StepRequest]) -> list[EncodedStep]:
    """Every step checked by itself, in order. Raises an InvalidWorkflow, InvalidIdentifier, InvalidRequest or
    InvalidPayload."""
    if not isinstance(steps, Sequence):
        raise InvalidRequest("steps must be a sequence of StepRequest")
    if len(steps) > MOST_STEPS:
        raise errors.TooManySteps(f"a request holds at most {MOST_STEPS:,} steps")
    return [_encode_step(step, index) for index, step in enumerate(steps)]


def check_graph(steps: Sequence[EncodedStep], existing: Collection[str] = ()) -> None:
    """The steps make a graph, together with the ``existing`` ones of a run. Raises EmptySteps, DuplicateStepKey,
    MissingDependency, DependencyCountOverflow or CycleDetected, in this order."""
    if not steps:
        raise errors.EmptySteps("a workflow needs at least one step")
    keys: set[str] = set()
    for step in steps:
        if step.step_key in keys or step.step_key in existing:
            raise errors.DuplicateStepKey(f"the step key {step.step_key!r} is taken", step_key=step.step_key)
        keys.add(step.step_key)
    for step in steps:
        for prerequisite in step.dependencies:
            if prerequisite not in keys and prerequisite not in existing:
                raise errors.MissingDependency(
                    f"step {step.step_key!r} depends on {prerequisite!r}, which is no step of this workflow",
                    step_key=step.step_key,
                    prerequisite_step_key=prerequisite,
                )
    if sum(len(step.dependencies) for step in steps) > MOST_EDGES:
        raise errors.DependencyCountOverflow(f"a request holds at most {MOST_EDGES:,} edges")
    _check_acyclic(steps, keys)


def is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _encode_step(step: StepRequest, index: int) -> EncodedStep:
    if not isinstance(step, StepRequest):
        raise InvalidRequest(f"steps[{index}] must be a StepRequest")
    if is_blank(step.step_key):
        raise errors.BlankStepKey(f"steps[{index}] has a blank key")
    step_key = check_identifier(step.step_key, field="step_key")
    job_type = None
    if step.kind == StepKind.EXTERNAL:
        _check_external(step, step_key)
    else:
        job_type = _check_job(step, step_key)
    dependencies = _encode_dependencies(step, step_key)
    template = encode_template(step.payload)
    for reference in template.references:
        _check_reference(reference.step_key, step_key, dependencies)
    return EncodedStep(
        step_key,
        StepKind(step.kind),
        job_type,
        None if step.organization_id is None else check_organization(step.organization_id),
        template,
        _integer(step.priority, "priority", MIN_INT32, MAX_INT32),
        _integer(step.max_attempts, "max_attempts", 1, MAX_ATTEMPTS),
        _integer(step.timeout_seconds, "timeout_seconds", 1, MAX_TIMEOUT_SECONDS),
        step.stage,
        dependencies,
    )


def _check_job(step: StepRequest, step_key: str) -> str:
    if step.kind != StepKind.JOB:
        raise InvalidRequest("kind must be JOB or EXTERNAL")
    if is_blank(step.job_type):
        raise errors.BlankStepJobType(f"step {step_key!r} names no job type", step_key=step_key)
    if _is_below_one(step.max_attempts):
        raise errors.NonPositiveStepMaxAttempts(f"max_attempts of step {step_key!r} is below 1", step_key=step_key)
    if _is_below_one(step.timeout_seconds):
        message = f"timeout_seconds of step {step_key!r} is below 1"
        raise errors.NonPositiveStepTimeoutSeconds(message, step_key=step_key)
    if step.stage not in _STAGES:
        raise InvalidRequest("stage must be queued or scheduled")
    return check_identifier(step.job_type, field="job_type")


def _check_external(step: StepRequest, step_key: str) -> None:
    if step.job_type is not None:
        raise errors.ExternalStepJobTypeNotAllowed(f"the gate {step_key!r} has a job type", step_key=step_key)
    if any(value is not None for value in (step.priority, step.max_attempts, step.timeout_seconds, step.stage)):
        message = f"the gate {step_key!r} has queue settings"
        raise errors.ExternalStepQueueSettingsNotAllowed(message, step_key=step_key)


def _encode_dependencies(step: StepRequest, step_key: str) -> dict[str, ReleaseMode]:
    dependencies: dict[str, ReleaseMode] = {}
    for dependency in step.dependencies:
        if not isinstance(dependency, StepDependency):
            raise InvalidRequest(f"the dependencies of step {step_key!r} must be StepDependency values")
        if is_blank(dependency.prerequisite_step_key):
            message = f"step {step_key!r} has a prerequisite with a blank key"
            raise errors.BlankDependencyStepKey(message, step_key=step_key)
        key = check_identifier(dependency.prerequisite_step_key, field="prerequisite_step_key")
        if key == step_key:
            raise errors.SelfDependency(f"step {step_key!r} depends on itself", step_key=step_key)
        if key in dependencies:
            message = f"step {step_key!r} depends on {key!r} twice"
            raise errors.DuplicateDependency(message, step_key=step_key, prerequisite_step_key=key)
        try:
            dependencies[key] = ReleaseMode(dependency.release_mode)
        except ValueError:
            raise InvalidRequest("release_mode must be ON_TERMINAL or ON_SUCCESS") from None
    return dependencies


def _check_reference(reference: str, step_key: str, dependencies: dict[str, ReleaseMode]) -> None:
    try:
        is_known = check_identifier(reference, field="output_of") in dependencies
    except InvalidIdentifier:
        is_known = False
    if not is_known:
        shown = clean_text(reference, IDENTIFIER_LIMIT)
        raise errors.InvalidOutputReference(
            f"the payload of step {step_key!r} takes the output of {shown!r}, which is no direct prerequisite of it",
            step_key=step_key,
            prerequisite_step_key=shown,
            hint=f"make it one: after_success({step_key!r}, [{shown!r}])",
        )


def _is_below_one(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value < 1


def _integer(value: object, field: str, low: int, high: int) -> int | None:
    return None if value is None else check_integer(value, field=field, low=low, high=high)


def _check_acyclic(steps: Sequence[EncodedStep], keys: set[str]) -> None:
    """Kahn's algorithm: whatever cannot be taken away stands in a circle or behind one."""
    waiting = {step.step_key: [key for key in step.dependencies if key in keys] for step in steps}
    counts = {key: len(prerequisites) for key, prerequisites in waiting.items()}
    dependents: dict[str, list[str]] = {key: [] for key in waiting}
    for key, prerequisites in waiting.items():
        for prerequisite in prerequisites:
            dependents[prerequisite].append(key)
    free = [key for key, count in counts.items() if not count]
    while free:
        key = free.pop()
        del waiting[key]
        for dependent in dependents[key]:
            counts[dependent] -= 1
            if not counts[dependent]:
                free.append(dependent)
    if waiting:
        circle = _circle(waiting)
        shown = " -> ".join(circle if len(circle) <= LONGEST_CIRCLE else [*circle[:LONGEST_CIRCLE], "…"])
        raise errors.CycleDetected(f"steps wait for each other in a circle: {shown}", step_key=circle[0])


def _circle(waiting: dict[str, list[str]]) -> list[str]:
    """One circle among steps of which each waits for another one of them; its first step stands at the end again."""
    key = next(iter(waiting))
    seen: dict[str, int] = {}
    path: list[str] = []
    while key not in seen:
        seen[key] = len(path)
        path.append(key)
        key = next(one for one in waiting[key] if one in waiting)
    return [*path[seen[key] :], key]

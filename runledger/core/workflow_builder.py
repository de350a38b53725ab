"""The builder of workflow graphs: one call for each step and each set of edges, and ``build`` checks the whole."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Self
from uuid import UUID

from runledger.core import workflow_errors as errors
from runledger.core.dag import is_blank
from runledger.core.jobs import JsonValue
from runledger.core.middleware import Middleware
from runledger.core.states import JobStage, ReleaseMode, StepKind
from runledger.core.workflow_requests import encode_run
from runledger.core.workflows import StepDependency, StepRequest, WorkflowRunRequest

ResolveJob = Callable[[Any, JsonValue], tuple[str, JsonValue]]
"""What a catalog puts in between: job type and payload of a step, checked."""


class WorkflowDagBuilder:
    """A run in the making. Every call appends and answers with the builder; a refused call changes nothing.

    A prerequisite may be added after the edge that names it; the step that waits must be there already.
    """

    def __init__(
        self,
        workflow_type: str,
        *,
        metadata: JsonValue = None,
        organization_id: UUID | str | None = None,
        resolve_job: ResolveJob | None = None,
        middleware: tuple[Middleware, ...] = (),
    ) -> None:
        self._workflow_type = workflow_type
        self._metadata = metadata
        self._organization_id = organization_id
        self._resolve_job = resolve_job
        self._middleware = middleware
        self._headers: Mapping[str, str] | None = None
        self._idempotency_key: str | None = None
        self._active_key: str | None = None
        self._result_step_key: str | None = None
        self._steps: dict[str, StepRequest] = {}
        self._edges: dict[str, list[StepDependency]] = {}

    def organization_id(self, organization_id: UUID | str | None) -> Self:
        """The run, and each step that names no other, belongs to this organization; None for none."""
        self._organization_id = organization_id
        return self

    def idempotency_key(self, key: str | None) -> Self:
        """The same graph under the same key is enqueued once; None for no key."""
        self._idempotency_key = key
        return self

    def active_key(self, key: str | None) -> Self:
        """One run of this workflow type, organization and key is live at a time; None for no key."""
        self._active_key = key
        return self

    def result_step(self, step_key: str | None) -> Self:
        """The output of this step is the result of the run; None for no result."""
        self._result_step_key = step_key
        return self

    def headers(self, headers: Mapping[str, str] | None) -> Self:
        """Every job of the run has these headers; None for none."""
        self._headers = headers
        return self

    def job(
        self,
        step_key: str,
        job_type: Any,
        payload: JsonValue = None,
        *,
        organization_id: UUID | str | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        timeout_seconds: int | None = None,
        stage: JobStage | None = None,
    ) -> Self:
        """A step that runs as a job. With a catalog behind the builder, ``job_type`` may also be the handler.

        Raises BlankStepKey, DuplicateStepKey or BlankStepJobType, in this order; then what the catalog raises.
        """
        self._check_new(step_key)
        if is_blank(job_type):
            raise errors.BlankStepJobType(f"step {step_key!r} names no job type", step_key=step_key)
        if self._resolve_job is not None:
            job_type, payload = self._resolve_job(job_type, payload)
        return self._add(
            StepRequest(
                step_key,
                job_type,
                payload,
                organization_id=organization_id,
                priority=priority,
                max_attempts=max_attempts,
                timeout_seconds=timeout_seconds,
                stage=stage,
            )
        )

    def step(self, step: StepRequest) -> Self:
        """A step that was made elsewhere, with its edges. Raises BlankStepKey or DuplicateStepKey."""
        self._check_new(step.step_key)
        if self._resolve_job is not None and step.kind == StepKind.JOB and not is_blank(step.job_type):
            job_type, payload = self._resolve_job(step.job_type, step.payload)
            step = replace(step, job_type=job_type, payload=payload)
        return self._add(step)

    def external(self, step_key: str, payload: JsonValue = None, *, organization_id: UUID | str | None = None) -> Self:
        """A gate: it waits until somebody completes it. Raises BlankStepKey or DuplicateStepKey."""
        self._check_new(step_key)
        return self._add(
            StepRequest(step_key, payload=payload, kind=StepKind.EXTERNAL, organization_id=organization_id)
        )

    def after_success(self, step_key: str, prerequisites: Iterable[str]) -> Self:
        """The step waits until all these have succeeded; when one cannot any more, the step is cancelled.

        Raises BlankStepKey, BlankDependencyStepKey or UnknownStepKey, in this order.
        """
        return self._link(step_key, prerequisites, ReleaseMode.ON_SUCCESS)

    def after_terminal(self, step_key: str, prerequisites: Iterable[str]) -> Self:
        """The step waits until all these have ended, in whatever way. Raises as ``after_success`` does."""
        return self._link(step_key, prerequisites, ReleaseMode.ON_TERMINAL)

    def build(self) -> WorkflowRunRequest:
        """The checked request; the builder may go on and build another. Raises what ``encode_run`` raises."""
        request = WorkflowRunRequest(
            self._workflow_type,
            tuple(replace(step, dependencies=tuple(self._edges[key])) for key, step in self._steps.items()),
            metadata=self._metadata,
            organization_id=self._organization_id,
            idempotency_key=self._idempotency_key,
            active_key=self._active_key,
            result_step_key=self._result_step_key,
            headers=self._headers,
            middleware=self._middleware,
        )
        encode_run(request)
        return request

    def _check_new(self, step_key: str) -> None:
        if is_blank(step_key):
            raise errors.BlankStepKey("the key of a step is blank")
        if step_key in self._steps:
            raise errors.DuplicateStepKey(f"the step key {step_key!r} is taken", step_key=step_key)

    def _add(self, step: StepRequest) -> Self:
        self._steps[step.step_key] = step
        self._edges[step.step_key] = list(step.dependencies)
        return self

    def _link(self, step_key: str, prerequisites: Iterable[str], mode: ReleaseMode) -> Self:
        if isinstance(prerequisites, str):
            prerequisites = (prerequisites,)
        edges = [StepDependency(key, mode) for key in prerequisites]
        if is_blank(step_key):
            raise errors.BlankStepKey("the key of a step is blank")
        if any(is_blank(edge.prerequisite_step_key) for edge in edges):
            message = f"step {step_key!r} has a prerequisite with a blank key"
            raise errors.BlankDependencyStepKey(message, step_key=step_key)
        if step_key not in self._edges:
            message = f"the builder has no step {step_key!r} yet"
            raise errors.UnknownStepKey(message, step_key=step_key, hint="add the step before its edges")
        self._edges[step_key].extend(edges)
        return self

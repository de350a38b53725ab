"""The catalog: which job types a program has, with what settings, which function runs each, and what is scheduled.

Whatever is wrong with a registration raises where it is written, at import, and not when the first job arrives.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, TypeVar
from uuid import UUID

from runledger.core.definitions import DEFAULT_QUEUE, JobDefinition, RetryPolicy, check_definition, check_retry_delay
from runledger.core.errors import (
    DisabledJobType,
    InvalidDefinition,
    InvalidHandler,
    InvalidPayload,
    InvalidScheduleName,
)
from runledger.core.gate import check_identifier
from runledger.core.handler_table import HandlerTable
from runledger.core.handlers import HandlerFunction, JobHandler, RegisteredHandler
from runledger.core.middleware import Middleware
from runledger.core.requests import JobRequest
from runledger.core.schedules import ScheduleRequest, encode_schedule
from runledger.core.states import JobStage, MissedPolicy, OverlapPolicy
from runledger.core.templates import has_holes
from runledger.core.workflow_builder import WorkflowDagBuilder

Function = TypeVar("Function", bound=HandlerFunction)


class JobCatalog:
    """Job types with their handlers and settings. The arguments are the settings of types that name none."""

    def __init__(
        self,
        *,
        max_attempts: int = 3,
        timeout_seconds: int = 300,
        priority: int = 0,
        queue: str = DEFAULT_QUEUE,
        retry: RetryPolicy | None = None,
        crash_budget: int = 3,
    ) -> None:
        self._defaults = check_definition(
            JobDefinition(
                job_type="defaults",
                max_attempts=max_attempts,
                timeout_seconds=timeout_seconds,
                priority=priority,
                queue=queue,
                retry=RetryPolicy() if retry is None else retry,
                crash_budget=crash_budget,
            )
        )
        self._table = HandlerTable()
        self._schedules: dict[str, ScheduleRequest] = {}

    def job(
        self,
        job_type: str,
        *,
        max_attempts: int | None = None,
        timeout_seconds: int | None = None,
        priority: int | None = None,
        queue: str | None = None,
        version: int = 1,
        enabled: bool = True,
        retry: RetryPolicy | None = None,
        crash_budget: int | None = None,
        max_running: int | None = None,
        rate_limit: str | None = None,
    ) -> Callable[[Function], Function]:
        """Decorates a function of ``(context, payload)``, which is returned itself, so a test may call it plainly.

        The settings are checked at once, the function when it is decorated. Raises InvalidIdentifier,
        InvalidDefinition, DuplicateJobType or InvalidHandler.
        """
        definition = self._definition(
            job_type,
            max_attempts=max_attempts,
            timeout_seconds=timeout_seconds,
            priority=priority,
            queue=queue,
            version=version,
            enabled=enabled,
            retry=retry,
            crash_budget=crash_budget,
            max_running=max_running,
            rate_limit=rate_limit,
        )
        self._table.refuse_duplicate(definition.job_type)

        def register(function: Function) -> Function:
            self._table.add(definition, function, None, source=function)
            return function

        return register

    def register(
        self,
        handler: JobHandler,
        *,
        max_attempts: int | None = None,
        timeout_seconds: int | None = None,
        priority: int | None = None,
        queue: str | None = None,
        version: int = 1,
        enabled: bool = True,
        retry: RetryPolicy | None = None,
        crash_budget: int | None = None,
        max_running: int | None = None,
        rate_limit: str | None = None,
    ) -> None:
        """A handler object runs its ``job_type`` from now on; with ``on_dead_letter``, the catalog also holds the
        internal job type under which that hook runs. Raises as ``job`` does."""
        execute = getattr(handler, "execute", None)
        if isinstance(handler, type) or execute is None or not hasattr(handler, "job_type"):
            raise InvalidHandler("a handler is an object with job_type and execute(context, payload)")
        definition = self._definition(
            handler.job_type,
            max_attempts=max_attempts,
            timeout_seconds=timeout_seconds,
            priority=priority,
            queue=queue,
            version=version,
            enabled=enabled,
            retry=retry,
            crash_budget=crash_budget,
            max_running=max_running,
            rate_limit=rate_limit,
        )
        self._table.add(definition, execute, getattr(handler, "on_dead_letter", None), source=handler)

    def retry_delay(self, job_type: str, failure_code: str, delay: timedelta | float) -> None:
        """Attempts of ``job_type`` that fail with this code wait exactly ``delay`` (a timedelta or seconds), instead of
        formula and jitter. Raises UnknownJobType, or InvalidDefinition, also for a code that has a delay already."""
        handler = self.handler(job_type)
        code = check_identifier(failure_code, field="failure_code", error=InvalidDefinition)
        seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
        overrides = dict(handler.definition.retry.overrides)
        if code in overrides:
            raise InvalidDefinition(f"{job_type} already has a retry delay for {code}")
        overrides[code] = check_retry_delay(seconds, setting="delay")
        policy = replace(handler.definition.retry, overrides=MappingProxyType(overrides))
        self._table.redefine(replace(handler.definition, retry=policy))

    def use(self, middleware: Middleware) -> None:
        """The attempts of this catalog's workers, and enqueues of requests it makes from now on, meet ``middleware``;
        the first one named is the outermost. Raises InvalidConfiguration unless it is a Middleware."""
        self._table.use(middleware)

    @property
    def middleware(self) -> tuple[Middleware, ...]:
        """What is in use, the outermost first."""
        return self._table.middleware

    def schedule(
        self,
        name: str,
        *,
        cron: str,
        job_type: str,
        payload: Any = None,
        timezone: str = "UTC",
        jitter_seconds: int = 0,
        missed: MissedPolicy | str = MissedPolicy.ONE,
        overlap: OverlapPolicy | str = OverlapPolicy.ALLOW,
        organization_id: UUID | str | None = None,
        is_active: bool = True,
    ) -> ScheduleRequest:
        """Jobs of ``job_type`` are enqueued at the times that ``cron`` names, once the schedule is stored.

        Everything is checked at once: raises UnknownJobType, DisabledJobType, InvalidPayload and what
        ``encode_schedule`` raises; InvalidScheduleName also for a name that the catalog has already.
        """
        handler = self._enabled_handler(job_type)
        template = handler.payload_type.to_json({} if payload is None else payload)
        if not handler.payload_type.is_plain and not isinstance(template, dict):
            raise InvalidPayload("the payload of a schedule must be an object where the handler declares a type")
        request = ScheduleRequest(
            name,
            cron=cron,
            job_type=job_type,
            payload=template,
            timezone=timezone,
            jitter_seconds=jitter_seconds,
            missed=missed,
            overlap=overlap,
            organization_id=organization_id,
            is_active=is_active,
        )
        known_as = encode_schedule(request).name
        if known_as in self._schedules:
            raise InvalidScheduleName(f"the catalog already has a schedule {known_as!r}")
        self._schedules[known_as] = request
        return request

    @property
    def schedules(self) -> tuple[ScheduleRequest, ...]:
        """Every schedule, by name."""
        return tuple(self._schedules[name] for name in sorted(self._schedules))

    def request(
        self,
        job: str | HandlerFunction | JobHandler,
        payload: Any = None,
        *,
        organization_id: UUID | str | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        timeout_seconds: int | None = None,
        next_run_at: datetime | None = None,
        delay: timedelta | float | None = None,
        idempotency_key: str | None = None,
        idempotency_ttl: timedelta | None = None,
        active_key: str | None = None,
        stage: JobStage | None = None,
        expires_at: datetime | None = None,
        tags: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> JobRequest:
        """A request for a job type of this catalog, named or by its handler; its payload fits the handler's type.

        Raises UnknownJobType, DisabledJobType or InvalidPayload. The options are checked when it is enqueued.
        """
        handler = self._enabled_handler(job)
        return JobRequest(
            handler.job_type,
            handler.payload_type.to_json({} if payload is None else payload),
            organization_id=organization_id,
            priority=priority,
            max_attempts=max_attempts,
            timeout_seconds=timeout_seconds,
            next_run_at=next_run_at,
            delay=delay,
            idempotency_key=idempotency_key,
            idempotency_ttl=idempotency_ttl,
            active_key=active_key,
            stage=stage,
            expires_at=expires_at,
            tags=tags,
            headers=headers,
            middleware=self._table.middleware,
        )

    def workflow(
        self, workflow_type: str, *, metadata: Any = None, organization_id: UUID | str | None = None
    ) -> WorkflowDagBuilder:
        """A builder whose steps are checked against this catalog as they are added: the job type, named or by its
        handler, and its payload, unless that waits for outputs. Its ``job`` raises as ``request`` does."""
        return WorkflowDagBuilder(
            workflow_type,
            metadata=metadata,
            organization_id=organization_id,
            resolve_job=self._step_job,
            middleware=self._table.middleware,
        )

    def _step_job(self, job: Any, payload: Any) -> tuple[str, Any]:
        handler = self._enabled_handler(job)
        if not has_holes(payload):
            payload = handler.payload_type.to_json({} if payload is None else payload)
        return handler.job_type, payload

    def handler(self, job_type: str) -> RegisteredHandler:
        """What runs this type, also while it is disabled: queued work is still served. Raises UnknownJobType."""
        return self._table.by_type(job_type)

    def _enabled_handler(self, job: str | HandlerFunction | JobHandler) -> RegisteredHandler:
        handler = self._table.by_type(job) if isinstance(job, str) else self._table.by_source(job)
        if not handler.definition.is_enabled:
            raise DisabledJobType(f"job type {handler.job_type} is disabled in the catalog")
        return handler

    @property
    def job_types(self) -> tuple[str, ...]:
        """Every type, sorted, with those of dead-letter hooks."""
        return self._table.job_types

    @property
    def definitions(self) -> tuple[JobDefinition, ...]:
        """The definition of every type, in the order of ``job_types``."""
        return tuple(self.handler(job_type).definition for job_type in self.job_types)

    def __contains__(self, job_type: object) -> bool:
        return job_type in self._table

    def _definition(
        self,
        job_type: str,
        *,
        max_attempts: int | None,
        timeout_seconds: int | None,
        priority: int | None,
        queue: str | None,
        version: int,
        enabled: bool,
        retry: RetryPolicy | None,
        crash_budget: int | None,
        max_running: int | None,
        rate_limit: str | None,
    ) -> JobDefinition:
        defaults = self._defaults
        return check_definition(
            JobDefinition(
                job_type=check_identifier(job_type, field="job_type"),
                version=version,
                max_attempts=defaults.max_attempts if max_attempts is None else max_attempts,
                timeout_seconds=defaults.timeout_seconds if timeout_seconds is None else timeout_seconds,
                priority=defaults.priority if priority is None else priority,
                queue=check_identifier(defaults.queue if queue is None else queue, field="queue"),
                is_enabled=enabled,
                retry=defaults.retry if retry is None else retry,
                crash_budget=defaults.crash_budget if crash_budget is None else crash_budget,
                max_running=max_running,
                rate_limit=rate_limit,
            )
        )

"""OpenTelemetry: a span for each enqueue and each attempt, linked across processes and days, and a histogram.

Follows the semantic conventions for messaging (status *Development*, version 1.37), whose names stand here as
constants, so that a change of theirs is one of ours and no surprise. Needs ``opentelemetry-api`` only; without an SDK
nothing is recorded.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from runledger.core.context import JobContext
from runledger.core.errors import InvalidRequest
from runledger.core.failures import Continue, JobFailure, Snooze
from runledger.core.middleware import Middleware
from runledger.core.requests import JobRequest
from runledger.core.states import StepKind
from runledger.core.workflows import WorkflowRunRequest

SYSTEM: Final = "messaging.system"
DESTINATION: Final = "messaging.destination.name"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
BATCH_COUNT: Final = "messaging.batch.message_count"
MESSAGE_ID: Final = "messaging.message.id"
CONVERSATION_ID: Final = "messaging.message.conversation_id"
ERROR_TYPE: Final = "error.type"
ATTEMPT: Final = "runledger.job.attempt"
RUN_NUMBER: Final = "runledger.job.run_number"
WORKFLOW_TYPE: Final = "runledger.workflow.type"
STEP_KEY: Final = "runledger.workflow.step_key"
PROCESS_DURATION: Final = "messaging.process.duration"

_SCOPE: Final = "runledger"
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class OpenTelemetry(Middleware):
    """Spans ``send <job type>`` and ``process <job type>``. A batch is one span, and so is a workflow run: the
    attempts of its steps are linked to it.

    An attempt's span begins a trace of its own and has a link to the span of its enqueue, because a job may run days
    later and often; with ``is_child`` it belongs to the trace of the enqueue instead. Without providers, those that
    are set globally when the middleware is made or later.
    """

    def __init__(
        self,
        *,
        is_child: bool = False,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._is_child = is_child
        self._providers = (tracer_provider, meter_provider)
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self._duration = meter.create_histogram(PROCESS_DURATION, "s", "Duration of processing operation.")

    def on_enqueue_batch(self, requests: Sequence[JobRequest]) -> Sequence[JobRequest]:
        destinations = {request.job_type for request in requests}
        attributes: dict[str, str | int] = {}
        name = "send"
        if len(destinations) == 1:
            [attributes[DESTINATION]] = destinations
            name = f"send {attributes[DESTINATION]}"
        if len(requests) > 1:
            attributes[BATCH_COUNT] = len(requests)
        carrier = self._send(name, attributes)
        if not carrier:
            return requests
        return [replace(request, headers={**(request.headers or {}), **carrier}) for request in requests]

    def on_enqueue_run(self, request: WorkflowRunRequest) -> WorkflowRunRequest:
        carrier = self._send(
            f"send {request.workflow_type}",
            {
                WORKFLOW_TYPE: request.workflow_type,
                BATCH_COUNT: sum(step.kind == StepKind.JOB for step in request.steps),
            },
        )
        return replace(request, headers={**(request.headers or {}), **carrier}) if carrier else request

    def _send(self, name: str, attributes: Mapping[str, str | int]) -> dict[str, str]:
        """A span of a producer has been recorded; answers with the headers that lead to it."""
        carrier: dict[str, str] = {}
        attributes = {SYSTEM: _SCOPE, OPERATION_NAME: "send", OPERATION_TYPE: "send", **attributes}
        with self._tracer.start_as_current_span(name, kind=trace.SpanKind.PRODUCER, attributes=attributes):
            _PROPAGATOR.inject(carrier)
        return carrier

    def around_attempt(self, context: JobContext, payload: Any, proceed: Callable[[], Any]) -> Any:
        producer = _producer_of(context)
        linked = trace.get_current_span(producer).get_span_context()
        span = self._tracer.start_span(
            f"process {context.job_type}",
            context=producer if self._is_child else Context(),
            kind=trace.SpanKind.CONSUMER,
            attributes=_attributes_of(context),
            links=[trace.Link(linked)] if linked.is_valid else [],
        )
        labels = {SYSTEM: _SCOPE, DESTINATION: context.job_type, OPERATION_NAME: "process"}
        began_at = time.monotonic()
        try:
            with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
                try:
                    return proceed()
                except (Snooze, Continue):
                    raise
                except BaseException as error:  # timeouts and cancellations are no Exceptions
                    labels[ERROR_TYPE] = _error_type(error)
                    span.record_exception(error)
                    span.set_attribute(ERROR_TYPE, labels[ERROR_TYPE])
                    span.set_status(trace.StatusCode.ERROR, labels[ERROR_TYPE])
                    raise
        finally:
            self._duration.record(time.monotonic() - began_at, labels)

    def on_worker_exit(self) -> None:
        """What an SDK still holds is sent: a worker leaves without the interpreter's own exit."""
        tracers, meters = self._providers
        for provider in (tracers or trace.get_tracer_provider(), meters or metrics.get_meter_provider()):
            flush = getattr(provider, "force_flush", None)  # the API has no such method; the SDK does
            if flush is not None:
                flush()


def _producer_of(context: JobContext) -> Context:
    with suppress(InvalidRequest):  # stored past the gate: no reason to fail the job
        return _PROPAGATOR.extract(dict(context.headers), Context())
    return Context()


def _attributes_of(context: JobContext) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        SYSTEM: _SCOPE,
        DESTINATION: context.job_type,
        OPERATION_NAME: "process",
        OPERATION_TYPE: "process",
        MESSAGE_ID: str(context.job_id),
        ATTEMPT: context.attempt,
        RUN_NUMBER: context.run_number,
    }
    if context.workflow_run_id is not None:
        attributes[CONVERSATION_ID] = str(context.workflow_run_id)
    if context.step_key is not None:
        attributes[STEP_KEY] = context.step_key
    return attributes


def _error_type(error: BaseException) -> str:
    return error.code if isinstance(error, JobFailure) else type(error).__qualname__

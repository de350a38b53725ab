"""Sentry: each attempt in a scope and a transaction of its own; an error is reported once the job is given up.

Call ``sentry_sdk.init`` yourself, where the app is imported: it holds in every worker process.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import sentry_sdk
from sentry_sdk.crons import capture_checkin
from sentry_sdk.crons.consts import MonitorStatus

from runledger.core.context import JobContext
from runledger.core.errors import InvalidRequest
from runledger.core.failures import Continue, JobCancelled, Snooze, failure_of
from runledger.core.headers import SCHEDULE_HEADER, Headers
from runledger.core.middleware import Middleware, SettledAttempt
from runledger.core.requests import JobRequest
from runledger.core.states import JobStatus, Outcome
from runledger.core.workflows import WorkflowRunRequest

FLUSH_SECONDS: Final = 2.0
_TRACE_HEADERS: Final = ("sentry-trace", "baggage")
_MOST_REMEMBERED: Final = 1_000


class Sentry(Middleware):
    """Tags ``job_type``, ``job_id``, ``attempt`` and so on. By default only failures after which the job does not run
    again are reported; with ``reports_every_failure``, each. ``has_check_ins`` tells the monitors of Sentry, named as
    the schedules, how the jobs that schedules fired went."""

    def __init__(self, *, reports_every_failure: bool = False, has_check_ins: bool = True) -> None:
        self._reports_every_failure = reports_every_failure
        self._has_check_ins = has_check_ins
        self._reported: deque[int] = deque(maxlen=_MOST_REMEMBERED)

    def on_enqueue_batch(self, requests: Sequence[JobRequest]) -> Sequence[JobRequest]:
        """Jobs enqueued within a trace belong to it."""
        headers = _headers_of_trace()
        if not headers:
            return requests
        return [replace(request, headers={**(request.headers or {}), **headers}) for request in requests]

    def on_enqueue_run(self, request: WorkflowRunRequest) -> WorkflowRunRequest:
        """So do the jobs of a workflow run."""
        headers = _headers_of_trace()
        return replace(request, headers={**(request.headers or {}), **headers}) if headers else request

    def around_attempt(self, context: JobContext, payload: Any, proceed: Callable[[], Any]) -> Any:
        headers = _headers_of(context)
        with sentry_sdk.isolation_scope() as scope:
            scope.clear_breadcrumbs()
            for name, value in _tags_of(context).items():
                scope.set_tag(name, value)
            transaction = sentry_sdk.continue_trace(
                {name: headers[name] for name in _TRACE_HEADERS if name in headers},
                op="queue.process",
                name=context.job_type,
                source="task",
            )
            with sentry_sdk.start_transaction(transaction) as span:
                span.set_data("messaging.system", "runledger")
                span.set_data("messaging.destination.name", context.job_type)
                span.set_data("messaging.message.id", str(context.job_id))
                span.set_data("messaging.message.retry.count", context.attempt - 1)
                try:
                    result = proceed()
                except (Snooze, Continue):
                    span.set_status("ok")
                    raise
                except BaseException as error:  # timeouts are no Exceptions
                    span.set_status("internal_error")
                    self._report(context, error)
                    raise
                span.set_status("ok")
                return result

    def on_settled(self, attempt: SettledAttempt) -> None:
        """What failed outside the handler, a payload that does not decode for example, is reported here."""
        if attempt.final_status is JobStatus.DEAD_LETTERED and attempt.lease_token not in self._reported:
            with sentry_sdk.isolation_scope() as scope:
                scope.set_tag("job_type", attempt.job_type)
                scope.set_tag("job_id", str(attempt.job_id))
                scope.set_tag("error_code", attempt.error_code)
                sentry_sdk.capture_message(f"{attempt.job_type}: {attempt.error_message}", level="error")
        schedule = attempt.headers.get(SCHEDULE_HEADER)
        if self._has_check_ins and schedule is not None and attempt.final_status is not None:
            is_good = attempt.final_status is JobStatus.SUCCEEDED
            capture_checkin(
                monitor_slug=schedule,
                status=MonitorStatus.OK if is_good else MonitorStatus.ERROR,
                duration=attempt.seconds,
            )

    def on_worker_exit(self) -> None:
        """What is still to be sent is sent, for at most two seconds: a worker leaves without the interpreter's exit."""
        sentry_sdk.flush(timeout=FLUSH_SECONDS)

    def _report(self, context: JobContext, error: BaseException) -> None:
        if isinstance(error, JobCancelled):
            return
        is_last = context.attempt >= context.max_attempts or failure_of(error).outcome is Outcome.TERMINAL
        if is_last or self._reports_every_failure:
            sentry_sdk.capture_exception(error)
            self._reported.append(context.lease_token)


def _headers_of_trace() -> Headers:
    if sentry_sdk.get_current_span() is None:
        return {}
    found = {"sentry-trace": sentry_sdk.get_traceparent(), "baggage": sentry_sdk.get_baggage()}
    return {name: value for name, value in found.items() if value}


def _headers_of(context: JobContext) -> Headers:
    with suppress(InvalidRequest):  # stored past the gate: no reason to fail the job
        return context.headers
    return {}


def _tags_of(context: JobContext) -> dict[str, str]:
    tags = {
        "job_id": str(context.job_id),
        "job_type": context.job_type,
        "attempt": str(context.attempt),
        "run_number": str(context.run_number),
        "worker_id": context.worker_id,
    }
    if context.workflow_run_id is not None:
        tags["workflow_run_id"] = str(context.workflow_run_id)
    if context.organization_id is not None:
        tags["organization_id"] = str(context.organization_id)
    return tags

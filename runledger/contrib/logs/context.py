"""Which job a log line comes from: every record that a handler causes can carry it, with any logging library.

``JobLogContext`` keeps the facts of the running attempt in a context variable. ``JobLogFilter`` puts them on records of
the standard library, ``add_job`` into the events of structlog. Nothing here touches a logger by itself.
"""

import logging
from collections.abc import Callable, Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, Final

from runledger.core.context import JobContext
from runledger.core.middleware import Middleware

FIELDS: Final = ("job_id", "job_type", "attempt", "run_number", "workflow_run_id", "step_key", "worker_id")

_running: ContextVar[Mapping[str, Any] | None] = ContextVar("runledger_running_job", default=None)


def current_job() -> Mapping[str, Any]:
    """The facts of the attempt that runs here, under the names of ``FIELDS``: texts and numbers, None for what a job
    outside a workflow has not. Empty outside an attempt. A thread that a handler starts sees them when it runs in a
    copy of the handler's context (``contextvars.copy_context``)."""
    return _running.get() or {}


class JobLogContext(Middleware):
    """Records of an attempt can be told from all others. Use it first, so that other middleware logs with it too."""

    def around_attempt(self, context: JobContext, payload: Any, proceed: Callable[[], Any]) -> Any:
        run_id = context.workflow_run_id
        token = _running.set(
            {
                "job_id": str(context.job_id),
                "job_type": context.job_type,
                "attempt": context.attempt,
                "run_number": context.run_number,
                "workflow_run_id": None if run_id is None else str(run_id),
                "step_key": context.step_key,
                "worker_id": context.worker_id,
            }
        )
        try:
            return proceed()
        finally:
            _running.reset(token)


class JobLogFilter(logging.Filter):
    """Lets every record pass, with an attribute for each of ``FIELDS``: None outside an attempt, so a format may name
    them always. Attributes that a record has already are left alone. Add it to a handler, not to a logger: filters of
    loggers do not see the records of their children."""

    def filter(self, record: logging.LogRecord) -> bool:
        job = current_job()
        for name in FIELDS:
            if not hasattr(record, name):
                setattr(record, name, job.get(name))
        return True


def add_job(logger: object, method_name: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor for structlog: what is known of the running attempt stands in the event, unless it is there."""
    for name, value in current_job().items():
        if value is not None:
            event_dict.setdefault(name, value)
    return event_dict

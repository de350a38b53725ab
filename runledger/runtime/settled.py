"""What middleware hears after a commit: told in the worker's own thread between two attempts, never beside one.

The exchange notes what was settled, whoever of the two threads wrote it; without middleware nothing is noted.
"""

import logging
from collections.abc import Callable, Container, Sequence
from functools import partial
from uuid import UUID

from runledger.core.errors import InvalidRequest
from runledger.core.headers import Headers, decode_headers
from runledger.core.jobs import ClaimedJob
from runledger.core.middleware import Middleware, SettledAttempt
from runledger.core.results import Ended, Succeeded
from runledger.core.states import JobStatus, Outcome
from runledger.runtime.logs import log
from runledger.runtime.outbox import Waiting


class Announcer:
    """Tells each middleware of a catalog what was settled, in order, and that the worker ends."""

    def __init__(self, middleware: Sequence[Middleware], worker_id: str) -> None:
        self._all = tuple(middleware)
        self._listening = [one for one in middleware if type(one).on_settled is not Middleware.on_settled]
        self._worker_id = worker_id
        self._noted: list[tuple[Waiting, Outcome | None]] = []

    def note(self, waiting: Sequence[Waiting], settled: Container[str]) -> None:
        """The outcomes of those whose job ids are ``settled`` are committed. For either thread."""
        if self._listening:
            self._noted += [(one, None) for one in waiting if one.started_at is not None and one.end.job_id in settled]

    def note_confirmed(self, one: Waiting, stored: Outcome | None) -> None:
        """The outcome was committed before, as ``stored`` says. For either thread."""
        if self._listening and one.started_at is not None:
            self._noted.append((one, stored))

    def tell(self) -> None:
        """Everything noted so far is told; what a middleware raises is logged."""
        while self._noted:
            one, stored = self._noted.pop(0)
            attempt = _attempt(one, stored, self._worker_id)
            for middleware in self._listening:
                _call_safely("middleware.on_settled_failed", middleware, partial(middleware.on_settled, attempt))

    def tell_exit(self) -> None:
        """The worker's last outcome was written and told."""
        self.tell()
        for middleware in self._all:
            _call_safely("middleware.on_worker_exit_failed", middleware, middleware.on_worker_exit)


def _call_safely(event: str, middleware: Middleware, call: Callable[[], None]) -> None:
    try:
        call()
    except Exception as error:  # a middleware is the user's; the outcome is stored, whatever it thinks of it
        log(logging.ERROR, event, middleware=type(middleware).__name__, error=repr(error))


def _attempt(one: Waiting, stored: Outcome | None, worker_id: str) -> SettledAttempt:
    job, end = one.job, one.end
    assert job is not None
    assert one.started_at is not None
    if isinstance(end, Succeeded) or (stored is Outcome.SUCCEEDED and end.outcome is not stored):
        end = Ended(job.job_id, job.lease_token, Outcome.SUCCEEDED, final_status=JobStatus.SUCCEEDED)
    return SettledAttempt(
        job_id=UUID(job.job_id),
        job_type=job.job_type,
        run_number=job.run_number,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        lease_token=job.lease_token,
        worker_id=worker_id,
        organization_id=None if job.organization_id is None else UUID(job.organization_id),
        workflow_run_id=None if job.workflow_run_id is None else UUID(job.workflow_run_id),
        headers=_headers(job),
        outcome=end.outcome,
        final_status=end.final_status,
        status_reason=end.status_reason,
        error_code=end.error_code,
        error_message=end.error_message,
        retry_seconds=end.retry_seconds,
        seconds=one.finished_at - one.started_at,
        waited_seconds=job.waited_seconds,
    )


def _headers(job: ClaimedJob) -> Headers:
    try:
        return decode_headers(job.headers)
    except InvalidRequest:
        return {}

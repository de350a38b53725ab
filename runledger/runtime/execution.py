"""One attempt: decode, run the handler, decide what its end leads to. Everything that a handler can do ends here.

The outcome is data; the worker writes it with others. Nothing below touches the database, except through the
attempt's reporter when the handler asks for it.
"""

import os
import random
import resource
import time
from typing import Any

from runledger.core.context import JobContext
from runledger.core.errors import InvalidOutput, InvalidPayload, RunledgerError
from runledger.core.failures import (
    Continue,
    Failure,
    JobCancelled,
    Snooze,
    decide,
    failure_of,
    terminal_failure_of,
)
from runledger.core.gate import decode_json, encode_json
from runledger.core.handlers import RegisteredHandler
from runledger.core.jobs import ClaimedJob
from runledger.core.results import Ended, Succeeded, failed_end
from runledger.core.states import JobStatus, Outcome
from runledger.runtime.interrupts import Interrupts
from runledger.runtime.reporter import Reporter

SHORT_SECONDS = 0.000_5
"""A job that took less is charged no millisecond of CPU."""

MEASURED_EVERY_SECONDS = 0.002


class Execution:
    """Runs attempts one after the other in this process."""

    __slots__ = ("_cpu_seconds", "_interrupts", "_max_rss_kb", "_measured_at", "_pid", "_reporter", "_worker_id")

    def __init__(self, worker_id: str, interrupts: Interrupts, reporter: Reporter) -> None:
        self._worker_id = worker_id
        self._interrupts = interrupts
        self._reporter = reporter
        self._pid = os.getpid()
        self._cpu_seconds = self._measured_at = 0.0
        self._max_rss_kb = 0

    def run(self, handler: RegisteredHandler, job: ClaimedJob, started_at: float) -> Succeeded | Ended | None:
        """How the attempt ended and what follows; None when there is nothing to write, because its lease is gone or
        it was finished in the handler's own transaction. ``started_at`` is a monotonic time."""
        try:
            payload = handler.payload_type.from_json(decode_json(job.payload, error=InvalidPayload))
        except RunledgerError as error:
            return self._measured(failed(job, handler, terminal_failure_of(error)), started_at)
        result, error_raised = self._call(handler, job, payload, started_at)
        if isinstance(error_raised, JobCancelled) and self._interrupts.has_been_told(job.lease_token):
            return None  # raised by a handler on its own, it is a failure like any other
        if error_raised is None and not self._reporter.is_finished:
            return self._measured(_returned(job, handler, result), started_at)
        return self._measured(self._raised(job, handler, error_raised), started_at)

    def _call(
        self, handler: RegisteredHandler, job: ClaimedJob, payload: Any, started_at: float
    ) -> tuple[Any, BaseException | None]:
        self._reporter.begin(job)
        context = JobContext(
            job,
            worker_id=self._worker_id,
            reporter=self._reporter,
            deadline=started_at + job.timeout_seconds,
            clock=time.monotonic,
            inputs_text=job.inputs,
        )
        try:
            self._interrupts.enter(job.lease_token, job.timeout_seconds)
            try:
                return handler.call(context, payload), None
            finally:
                self._interrupts.leave()
        except BaseException as error:  # a handler may raise anything; all of it is an outcome of its attempt
            return None, error
        finally:
            if os.getpid() != self._pid:  # the handler forked and both sides came back: only one of them is a worker
                os._exit(0)

    def _raised(self, job: ClaimedJob, handler: RegisteredHandler, error: BaseException | None) -> Ended:
        if error is None:
            return failed(job, handler, _FINISH_ROLLED_BACK)
        if isinstance(error, Snooze | Continue):
            return _deferred(job, error)
        return failed(job, handler, failure_of(error))

    def _measured(self, end: Succeeded | Ended, started_at: float) -> Succeeded | Ended:
        """The end with what it cost this process since the last one that was measured. Asking the system costs more
        than running a short job, so the shortest are asked about every other millisecond only."""
        now = time.monotonic()
        if now - started_at < SHORT_SECONDS and now - self._measured_at < MEASURED_EVERY_SECONDS:
            end.cpu_ms, end.max_rss_kb = 0, self._max_rss_kb
            return end
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu_seconds = usage.ru_utime + usage.ru_stime
        end.cpu_ms = round((cpu_seconds - self._cpu_seconds) * 1_000)
        end.max_rss_kb = self._max_rss_kb = usage.ru_maxrss
        self._cpu_seconds, self._measured_at = cpu_seconds, now
        return end


_FINISH_ROLLED_BACK = Failure(
    Outcome.RETRYABLE,
    "job.finish_rolled_back",
    "the handler finished its attempt in a transaction that did not commit",
    None,
    None,
)


def _returned(job: ClaimedJob, handler: RegisteredHandler, result: Any) -> Succeeded | Ended:
    if result is None:
        return Succeeded(job.job_id, job.lease_token, workflow_run_id=job.workflow_run_id)
    if isinstance(result, Snooze | Continue):
        return _deferred(job, result)
    try:
        output = encode_json(result, error=InvalidOutput, field="output")
        return Succeeded(job.job_id, job.lease_token, output, workflow_run_id=job.workflow_run_id)
    except InvalidOutput as error:
        return failed(job, handler, terminal_failure_of(error))


def _deferred(job: ClaimedJob, wish: Snooze | Continue) -> Ended:
    if isinstance(wish, Snooze):
        return Ended(
            job.job_id,
            job.lease_token,
            Outcome.SNOOZED,
            retry_seconds=wish.delay_seconds,
            is_refunded=True,
            status_reason="SNOOZED",
        )
    return Ended(
        job.job_id,
        job.lease_token,
        Outcome.SUCCEEDED,
        retry_seconds=wish.delay_seconds,
        is_continued=True,
        status_reason="HANDLER_CONTINUATION",
    )


def failed(job: ClaimedJob, handler: RegisteredHandler, failure: Failure) -> Ended:
    """The end of a failed attempt, decided."""
    decision = decide(
        failure,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        crashes=0,
        crash_budget=handler.definition.crash_budget,
        policy=handler.definition.retry,
        chance=random.random(),  # noqa: S311 - spreads retries; protects nothing
    )
    return failed_end(job.job_id, job.lease_token, failure, decision, workflow_run_id=job.workflow_run_id)


def given_back(job: ClaimedJob, reason: str) -> Ended:
    """A claimed job that never began returns to its place in line, its attempt refunded."""
    return Ended(
        job.job_id, job.lease_token, Outcome.RELEASED, status_reason=reason, is_refunded=True, is_unstarted=True
    )


def cut_short(job: ClaimedJob) -> Ended:
    """A job that was interrupted because its host stops goes back, its attempt refunded."""
    return Ended(job.job_id, job.lease_token, Outcome.RELEASED, status_reason="SHUTDOWN", is_refunded=True)


def expired(job: ClaimedJob) -> Ended:
    """A job whose expiry passed before it began is cancelled."""
    return Ended(
        job.job_id,
        job.lease_token,
        Outcome.CANCELED,
        final_status=JobStatus.CANCELED,
        status_reason="EXPIRED",
        is_refunded=True,
        is_unstarted=True,
        workflow_run_id=job.workflow_run_id,
    )

"""What a running attempt says: progress, checkpoints, log lines, and its own end in the handler's transaction.

A checkpoint is stored when the call returns. Progress and log lines are stored at once when the last ones are a
second old, and otherwise wait for the next, for the attendant's look, or for the end of the attempt; so a handler may
report in a tight loop.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any

from runledger.core.errors import InvalidConfiguration, LeaseLost, RunledgerError, UnavailableError
from runledger.core.jobs import ClaimedJob
from runledger.core.operations import JobRuntimeConfig
from runledger.core.results import Succeeded
from runledger.core.states import LogLevel
from runledger.postgres.connection import borrow, is_in_transaction
from runledger.postgres.leases import held_leases, save_progress, write_logs
from runledger.postgres.runtime_configs import find_job_runtime_config
from runledger.postgres.settle import settle_jobs
from runledger.runtime.interrupts import Interrupts
from runledger.runtime.link import DatabaseLink

WRITE_EVERY_SECONDS = 1.0
MOST_LOG_LINES = 1_000
"""Lines kept of one attempt; the last one says that there were more."""


class Reporter:
    """The reporter of whichever attempt runs now."""

    def __init__(self, link: DatabaseLink, interrupts: Interrupts) -> None:
        self._link = link
        self._interrupts = interrupts
        self._job: ClaimedJob | None = None
        self._done: int | None = None
        self._total: int | None = None
        self._logs: list[tuple[LogLevel, str, str]] = []
        self._log_lines = 0
        self._written_at = 0.0
        self._finished_on: Any = None
        self._finished_with: Any = None
        self.is_asked_to_stop: Callable[[], bool] = lambda: False

    @property
    def is_stopping(self) -> bool:
        return self.is_asked_to_stop()

    def stop(self) -> None:
        """From here on the worker is stopping, whatever asks."""
        self.is_asked_to_stop = lambda: True

    def begin(self, job: ClaimedJob) -> None:
        """From here on everything is said about ``job``."""
        with self._link.lock:  # the attendant may be writing what the attempt before has said
            self._job = job
            self._done = self._total = None
            self._logs = []
            self._log_lines = 0
            self._written_at = 0.0
            self._finished_on = self._finished_with = None

    @property
    def is_finished(self) -> bool:
        """Whether the handler has finished its attempt, in a transaction of which nobody here knows the end."""
        return self._finished_on is not None

    @property
    def is_left_open(self) -> bool:
        """Whether the connection on which the handler finished is in a transaction: that one, as a rule."""
        return self._finished_on is not None and is_in_transaction(self._finished_on)

    def hang_up(self) -> None:
        """The connection on which the handler finished is closed, and the server rolls back. First by what wraps it, so
        that a session or Django knows, and opens another one."""
        owner = self._finished_with
        for end in (getattr(owner, "invalidate", None), getattr(owner, "close", None), self._finished_on.close):
            if end is not None:
                with contextlib.suppress(Exception):  # of whichever library; it may be closed, or broken
                    end()

    def save_progress(self, done: int | None, total: int | None) -> None:
        self._done = self._done if done is None else done
        self._total = self._total if total is None else total
        with self._interrupts.shielded():
            self._write_if_due()

    def save_checkpoint(self, checkpoint_text: str) -> None:
        with self._interrupts.shielded():
            self._write(checkpoint_text)

    def write_log(self, level: LogLevel, message: str, fields_text: str) -> None:
        self._log_lines += 1
        if self._log_lines < MOST_LOG_LINES:
            self._logs.append((level, message, fields_text))
        elif self._log_lines == MOST_LOG_LINES:
            self._logs.append((LogLevel.WARNING, f"more than {MOST_LOG_LINES} lines; the rest is not kept", "{}"))
        with self._interrupts.shielded():
            self._write_if_due()

    def read_runtime_config(self, job_type: str) -> JobRuntimeConfig | None:
        with self._interrupts.shielded(), self._link.autocommit() as ledger:
            return find_job_runtime_config(ledger, job_type)

    def finish(self, connection: Any, output_text: str | None) -> None:
        job = self._current()
        with self._interrupts.shielded():
            self._write()
            end = Succeeded(job.job_id, job.lease_token, output_text, workflow_run_id=job.workflow_run_id)
            theirs = borrow(connection, self._link.schema)
            if not settle_jobs(theirs, [end]):
                raise self._refusal(job)
            self._finished_on, self._finished_with = theirs.driver_connection, connection

    def flush(self) -> None:
        """What still waits is stored; called before the attempt is settled and by the attendant of a long job."""
        with self._link.lock:
            if self._job is not None and (self._logs or self._done is not None or self._total is not None):
                self._write()

    def _refusal(self, job: ClaimedJob) -> RunledgerError:
        """Why nothing was settled on the handler's connection."""
        if self.is_finished:
            return LeaseLost("the handler has finished this attempt before; nothing was written")
        with self._link.autocommit() as ledger:
            if held_leases(ledger, [job.lease_token]):
                return InvalidConfiguration(
                    "the connection does not see this job: it leads to another database than the worker's, or its "
                    "transaction began before the claim; nothing was written"
                )
        return LeaseLost("the lease is not held any more; nothing was written")

    def _current(self) -> ClaimedJob:
        if self._job is None:
            raise LeaseLost("no attempt is running here")
        return self._job

    def _write_if_due(self) -> None:
        if time.monotonic() - self._written_at >= WRITE_EVERY_SECONDS:
            self._write()

    def _write(self, checkpoint_text: str | None = None) -> None:
        """What was said so far is stored. It waits for the next write when the database cannot be used now; a line may
        then be stored twice, when that was the answer to the commit."""
        with self._link.lock:
            job = self._current()
            done, total, self._done, self._total = self._done, self._total, None, None
            logs, self._logs = self._logs, []
            if done is None and total is None and checkpoint_text is None and not logs:
                return
            try:
                with self._link.transaction() as ledger:
                    if done is not None or total is not None or checkpoint_text is not None:
                        save_progress(
                            ledger, job.job_id, job.lease_token, done=done, total=total, checkpoint=checkpoint_text
                        )
                    write_logs(ledger, job.job_id, job.lease_token, logs)
            except UnavailableError:
                self._done = done if self._done is None else self._done
                self._total = total if self._total is None else self._total
                self._logs[:0] = logs
                raise
            self._written_at = time.monotonic()

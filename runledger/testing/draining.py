"""Run due jobs here and now, through the worker itself: the same claim, execution and settle as in production.

Nothing is faked. The worker claims one job at a time over a connection of its own, so it sees what is committed, and
only that; handlers run in this thread, with their real timeouts.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from uuid import uuid4

from sqlalchemy import Text, select

from runledger.core.catalog import JobCatalog
from runledger.core.errors import InvalidConfiguration
from runledger.core.jobs import Attempt, Job, JsonValue, Scope
from runledger.core.states import Outcome
from runledger.postgres.connection import AnyConnection
from runledger.postgres.expressions import as_text, parameter
from runledger.postgres.firing import fire_due_schedules
from runledger.postgres.promote import promote_due_jobs
from runledger.postgres.reads import get_job, list_job_attempts
from runledger.postgres.recovery import reap_lapsed_leases
from runledger.postgres.statements import Statement
from runledger.postgres.tables import job_attempts
from runledger.runtime.config import JobsConfig
from runledger.runtime.interrupts import CANCEL_SIGNAL, Interrupts
from runledger.runtime.link import DatabaseLink
from runledger.runtime.slots import Slot, SlotTable
from runledger.runtime.worker import Worker
from runledger.testing.faults import CrashPoint, Fault, FaultySlot, SimulatedCrash
from runledger.testing.targets import target_of

MOST_JOBS = 1_000
"""Jobs after which a drain without ``max_jobs`` gives up: something enqueues or continues for ever."""

ATTEMPTS_OF_WORKER = Statement(
    "attempts_of_worker",
    select(as_text(job_attempts.c.job_id), job_attempts.c.lease_token)
    .where(job_attempts.c.worker_id == parameter("worker_id", Text))
    .order_by(job_attempts.c.lease_token),
)


@dataclass(frozen=True, slots=True)
class Ran:
    """One attempt, and its job as it was when the drain ended."""

    attempt: Attempt
    job: Job

    @property
    def is_failed(self) -> bool:
        """Whether the attempt failed, for now or for good."""
        return self.attempt.error_code is not None

    def __str__(self) -> str:
        told = f"{self.job.job_type} attempt {self.attempt.attempt}: {self.attempt.outcome}, job {self.job.status}"
        if not self.is_failed:
            return told
        reason = f"{self.attempt.error_code}: {self.attempt.error_message}"
        return "\n".join([told, reason, self.attempt.traceback or ""]).rstrip()


@dataclass(frozen=True, slots=True)
class Drained:
    """What a drain did, in order. ``crashed_at`` says where its worker ended, when a fault was asked for."""

    ran: tuple[Ran, ...]
    crashed_at: CrashPoint | None = None

    def __len__(self) -> int:
        return len(self.ran)

    def __iter__(self) -> Iterator[Ran]:
        return iter(self.ran)

    @property
    def job_types(self) -> list[str]:
        """The types in the order in which the jobs ran."""
        return [one.job.job_type for one in self.ran]

    @property
    def outcomes(self) -> list[Outcome]:
        """How the attempts ended, in order."""
        return [one.attempt.outcome for one in self.ran]

    @property
    def outputs(self) -> list[JsonValue]:
        """The outputs of the jobs, in the order in which they ran; None where there is none."""
        return [one.job.output for one in self.ran]

    def check(self) -> "Drained":
        """Itself. Raises AssertionError with every failure and its traceback when an attempt failed."""
        failures = [str(one) for one in self.ran if one.is_failed]
        if failures:
            raise AssertionError("\n\n".join([f"{len(failures)} of {len(self)} attempts failed", *failures]))
        return self


def drain(
    database: str | AnyConnection,
    catalog: JobCatalog,
    *,
    schema: str | None = None,
    max_jobs: int | None = None,
    until: Callable[[], bool] | None = None,
    queues: Sequence[str] | None = None,
    fault: Fault | None = None,
) -> Drained:
    """Jobs that are due have run, one after the other, until none is due, ``max_jobs`` have run, or ``until()`` is
    true, which is asked after each. Lapsed leases are reaped and due schedules fire, as they would in production; the
    catalog's definitions and schedules are stored first. ``database`` is a URL, or a connection to it such as Django's.

    Raises AssertionError when nothing more is due and ``until()`` is still false, when ``fault`` was never reached, or
    after a thousand jobs without ``max_jobs``; InvalidConfiguration outside the main thread, where timeouts cannot be
    raised, and for a connection in a transaction, which nobody else sees; and what the database refuses.
    """
    database_url, schema = target_of(database, schema)
    worker_id = f"drain-{uuid4()}"
    most = MOST_JOBS if max_jobs is None else max_jobs
    link = DatabaseLink(database_url, schema, "drain")
    turns = _Turns(catalog, worker_id, most, until, queues, fault)
    try:
        if fault is not None and fault.is_killed:
            crashed_at: CrashPoint | None = _killed_at(
                fault, lambda: turns.run(DatabaseLink(database_url, link.schema, "drain"))
            )
        else:
            crashed_at = turns.run(link)
        with link.autocommit() as ledger:
            rows = ledger.fetch(ATTEMPTS_OF_WORKER, {"worker_id": worker_id})
            any_scope = Scope.any()
            jobs = {job_id: get_job(ledger, job_id, scope=any_scope) for job_id, _ in rows}
            attempts = {
                one.lease_token: one for job_id in jobs for one in list_job_attempts(ledger, job_id, scope=any_scope)
            }
    finally:
        link.close()
    ran = tuple(Ran(attempts[token], jobs[job_id]) for job_id, token in rows)
    if max_jobs is None and turns.is_cut_short:
        raise AssertionError(f"jobs were still due after {MOST_JOBS}; say max_jobs when that is meant")
    return Drained(ran, crashed_at)


class _Turns:
    """The turns of one worker: each looks for what became due, runs one job, and settles it."""

    def __init__(
        self,
        catalog: JobCatalog,
        worker_id: str,
        most: int,
        until: Callable[[], bool] | None,
        queues: Sequence[str] | None,
        fault: Fault | None,
    ) -> None:
        self._catalog = catalog
        self._worker_id = worker_id
        self._most = most
        self._until = until
        self._queues = queues
        self._fault = fault
        self.is_cut_short = False

    def run(self, link: DatabaseLink) -> CrashPoint | None:
        """Every turn is over; answers with where the worker ended when it did not live to the end."""
        [slot] = SlotTable(1).slots
        slot.reset(1, time.monotonic_ns())
        slot.set_pid(os.getpid())
        if self._fault is not None:
            slot = FaultySlot(slot, self._fault)
        with borrowed_signals():
            worker = Worker(
                self._catalog,
                link,
                slot,
                Interrupts(slot),
                worker_id=self._worker_id,
                config=JobsConfig(max_global_concurrency=1, claim_batch_size=1, settle_delay_ms=0),
                queues=self._queues,
            )
            try:
                self._run_all(worker, link, slot)
            except SimulatedCrash:
                assert self._fault is not None
                return self._fault.point
            finally:
                worker.close()
        if self._fault is not None:
            raise AssertionError(f"no job reached the fault: {self._fault}")
        return None

    def _run_all(self, worker: Worker, link: DatabaseLink, slot: Slot) -> None:
        for _ in range(self._most):
            _bring_due(link)
            if worker.tick() != 0.0:
                break
            slot.set_quiet(True)  # the outcome is written, and nothing is claimed with it
            worker.tick()
            slot.set_quiet(False)
            if self._until is not None and self._until():
                return
        else:
            self.is_cut_short = True
        if self._until is not None:
            raise AssertionError("nothing more is due, or max_jobs have run, and until() is still false")


def _bring_due(link: DatabaseLink) -> None:
    """What reaper, scheduler and keeper of a host would have done by now."""
    with link.transaction() as ledger:
        reap_lapsed_leases(ledger)
    with link.transaction() as ledger:
        fire_due_schedules(ledger)
    with link.transaction() as ledger:
        promote_due_jobs(ledger)


def _killed_at(fault: Fault, run: Callable[[], object]) -> CrashPoint:
    """``run`` was called in a child, which killed itself at the fault."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            run()
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status):
        raise AssertionError(f"no job reached the fault: {fault}")
    return fault.point


@contextlib.contextmanager
def borrowed_signals() -> Iterator[None]:
    """The signals and the timer of an attempt are free inside the block; afterwards they are as they were, with the
    time that passed taken off a timer that ran. Raises InvalidConfiguration outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        raise InvalidConfiguration("drain works in the main thread only: the timeout of a job is a signal")
    numbers = (signal.SIGALRM, CANCEL_SIGNAL)
    handlers = {number: signal.getsignal(number) for number in numbers}
    left, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    began_at = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, left - (time.monotonic() - began_at)), interval)

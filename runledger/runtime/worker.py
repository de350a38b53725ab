"""The worker: claim, run, settle; one job at a time. One tick is one exchange with the database and one batch."""

import logging
import random
import time
from collections.abc import Callable, Sequence

from runledger.core.catalog import JobCatalog
from runledger.core.errors import InvalidConfiguration, LeaseLost, PermissionDenied, RunledgerError
from runledger.core.jobs import ClaimedJob
from runledger.core.results import Ended
from runledger.postgres.definitions import sync_definitions
from runledger.postgres.schedules import sync_schedules
from runledger.postgres.stats import has_unfinished_work
from runledger.runtime.attendant import Attendant
from runledger.runtime.config import JobsConfig
from runledger.runtime.exchange import Exchange
from runledger.runtime.execution import Execution, cut_short, expired, given_back
from runledger.runtime.failure_lines import log_failure
from runledger.runtime.fitness import check_fitness
from runledger.runtime.interrupts import Interrupts
from runledger.runtime.link import DatabaseLink
from runledger.runtime.logs import log
from runledger.runtime.outbox import Outbox
from runledger.runtime.prefetch import STALE_SECONDS, Prefetch
from runledger.runtime.reporter import Reporter
from runledger.runtime.settled import Announcer
from runledger.runtime.slots import LARGEST_BATCH, Slot, SlotState, SlotTable
from runledger.runtime.tally import Tally

FIRST_PAUSE_SECONDS = 0.02
"""The pause after the first empty look; it doubles up to the poll interval."""

IDLE_POLLS = 8
"""The keeper looks at the queue every poll interval and wakes idle workers; by themselves they look this much less
often, in case there is no keeper for a moment."""

_GRANTS_HINT = "runledger migrate --grants prints roles and what each of them needs"


class Worker:
    """One worker process's work. ``is_stopping`` may be set at any time; the next turn notices."""

    def __init__(
        self,
        catalog: JobCatalog,
        link: DatabaseLink,
        slot: Slot,
        interrupts: Interrupts,
        *,
        worker_id: str,
        config: JobsConfig,
        queues: Sequence[str] | None = None,
        is_draining: bool = False,
        with_sync: bool = True,
        tally: Tally | None = None,
        table: SlotTable | None = None,
        on_prepared: Callable[[], None] | None = None,
    ) -> None:
        self._catalog = catalog
        self._table = SlotTable(0) if table is None else table
        self._link = link
        self._slot = slot
        self._config = config
        self._is_draining = is_draining
        self._with_sync = with_sync
        self._is_prepared = False
        self._on_prepared = on_prepared
        self._job_types = catalog.job_types
        self._outbox = Outbox(config.settle_delay_seconds)
        self._tally = tally
        listeners = catalog.middleware if tally is None else (*catalog.middleware, tally)
        self._announcer = Announcer(listeners, worker_id)
        self._exchange = Exchange(
            link,
            self._outbox,
            self._announcer,
            worker_id=worker_id,
            job_types=self._job_types,
            queues=queues,
            lease_ttl_seconds=config.lease_ttl_seconds,
            workers=config.max_global_concurrency,
        )
        self._reporter = Reporter(link, interrupts)
        self._execution = Execution(worker_id, interrupts, self._reporter)
        self._attendant = Attendant(self._exchange, self._outbox, self._reporter)
        self._prefetch = Prefetch(config.claim_batch_size)
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._attendant.start()

    @property
    def is_stopping(self) -> bool:
        """Whether the worker ends between two jobs: it was told to, or asked to make room for a fresh process."""
        return self._reporter.is_stopping or self._slot.is_asked_to_leave

    def stop(self) -> None:
        """No more jobs begin; handlers see ``context.is_stopping``."""
        self._reporter.stop()

    def close(self) -> None:
        """Its thread ends; for a process that outlives its worker. The link stays the caller's."""
        self._attendant.end()

    def watch_stop(self, is_asked: Callable[[], bool]) -> None:
        """The same, as soon as ``is_asked`` says so; looked at between jobs and by handlers that ask."""
        self._reporter.is_asked_to_stop = is_asked

    def end(self) -> None:
        """The worker is done and begins nothing more: its middleware hears of it."""
        self._announcer.tell_exit()

    def tick(self) -> float | None:
        """Outcomes are written, due jobs claimed and run. Answers with the pause, or None when the worker is done."""
        if self.is_stopping and self._has_nothing_to_write():  # a database that is away must not hold us up
            self._slot.turn(SlotState.LEAVING, time.monotonic_ns())
            return None
        self._slot.turn(SlotState.BUSY, time.monotonic_ns())
        if not self._is_prepared:
            self._prepare()
        sent_at = time.monotonic()
        is_claiming = not (self.is_stopping or self._slot.is_quiet)
        jobs = self._exchange.settle_and_claim(self._prefetch.size if is_claiming else 0)
        self._announcer.tell()
        if self._tally is not None:
            self._tally.publish(is_idle=not jobs)
        unsettled = self._exchange.unsettled[: LARGEST_BATCH - len(jobs)]
        tokens = unsettled + [job.lease_token for job in jobs]
        self._slot.hold(tokens, time.monotonic_ns(), begun=len(unsettled))
        if jobs:
            self._run_batch(jobs, sent_at, first_position=len(unsettled))
            self._pause_seconds = FIRST_PAUSE_SECONDS
            return 0.0
        return self._idle()

    def _has_nothing_to_write(self) -> bool:
        with self._link.lock:  # the attendant may be writing what it took out of the outbox
            return not len(self._outbox)

    def _prepare(self) -> None:
        """The schema fits; the catalog's definitions and schedules are stored. Raises what ``check_fitness`` raises;
        InvalidConfiguration when the role may not do so: no later try would help it."""
        try:
            self._look_and_sync()
        except PermissionDenied as error:
            raise InvalidConfiguration(
                "the database role lacks the grants of a worker", error.internal_message, _GRANTS_HINT
            ) from None
        self._is_prepared = True
        self._slot.set_prepared()
        if self._on_prepared is not None:
            self._on_prepared()

    def _look_and_sync(self) -> None:
        with self._link.transaction() as ledger:
            ahead = check_fitness(ledger, self._table)
            if ahead is not None:
                log(logging.WARNING, "schema.moved_ahead", error=str(ahead), hint=ahead.hint)
            if self._with_sync:
                changed = sync_definitions(ledger, self._catalog.definitions)
                if changed:
                    log(logging.INFO, "definitions.synchronised", job_types=",".join(changed))
                changed = sync_schedules(ledger, self._catalog.schedules)
                if changed:
                    log(logging.INFO, "schedules.synchronised", names=",".join(changed))

    def _idle(self) -> float | None:
        if self.is_stopping or (self._is_draining and self._is_drained()):
            self._slot.turn(SlotState.LEAVING, time.monotonic_ns())
            return None
        self._slot.turn(SlotState.IDLE, time.monotonic_ns())
        pause = self._pause_seconds
        self._pause_seconds = min(self._config.poll_interval_seconds * IDLE_POLLS, pause * 2)
        pause *= random.uniform(0.75, 1.25)  # noqa: S311 - spreads polls; protects nothing
        soon = self._exchange.comes_again_seconds
        return pause if soon is None else min(pause, soon)

    def _is_drained(self) -> bool:
        with self._link.autocommit() as ledger:
            return not has_unfinished_work(ledger, self._job_types)

    def _run_batch(self, jobs: list[ClaimedJob], sent_at: float, *, first_position: int) -> None:
        began_at = time.monotonic()
        self._attendant.watch()
        try:
            for position, job in enumerate(jobs):
                now = time.monotonic()
                if position and (now - sent_at > STALE_SECONDS or self.is_stopping):
                    self._give_back(jobs[position:], now)
                    break
                self._run_one(first_position + position, job, now)
                if self._outbox.is_due(time.monotonic()):
                    self._settle_quietly()
                self._announcer.tell()
        finally:
            self._attendant.rest()
        self._prefetch.learn(claimed=len(jobs), seconds=time.monotonic() - began_at)

    def _run_one(self, position: int, job: ClaimedJob, now: float) -> None:
        if job.is_expired:
            self._outbox.add(expired(job), None, now)
            return
        handler = self._catalog.handler(job.job_type)
        hard_seconds = job.timeout_seconds + self._config.timeout_grace_seconds
        now_ns = time.monotonic_ns()
        self._slot.begin(position, job.lease_token, now_ns, now_ns + hard_seconds * 1_000_000_000)
        end = self._execution.run(handler, job, now)
        self._slot.end()
        self._flush_reports()
        if end is None:
            self._void(job, now)
            return
        is_failed = isinstance(end, Ended) and end.error_code is not None
        is_doubtful = is_failed and self._reporter.is_finished  # whether a finish was rolled back, its settle finds out
        self._outbox.add(end, now, time.monotonic(), job, is_doubtful=is_doubtful)
        if isinstance(end, Ended) and is_failed and not is_doubtful:
            log_failure(job, end)
        if self._reporter.is_left_open:
            self._end_what_was_left_open(job)

    def _end_what_was_left_open(self, job: ClaimedJob) -> None:
        """The handler finished and returned without ending the transaction. While it is open, nobody can settle the
        lease or take it back, and a later handler on the same connection would commit it."""
        self._settle_quietly()
        if job.lease_token in self._exchange.unsettled and self._reporter.is_left_open:
            self._hang_up(job)  # else the transaction is another one: a pool has given the connection to somebody else
            self._exchange.try_the_locked_next()

    def _hang_up(self, job: ClaimedJob) -> None:
        self._reporter.hang_up()
        log(
            logging.ERROR,
            "job.finish_left_open",
            job_id=job.job_id,
            job_type=job.job_type,
            lease_token=job.lease_token,
            meaning="the handler returned before its transaction had ended; its connection was closed to roll it back",
        )

    def _void(self, job: ClaimedJob, started_at: float) -> None:
        """The attempt was interrupted: its lease is gone and nothing can be written; or the host stops in a hurry,
        and the job goes back with its attempt refunded."""
        log(logging.INFO, "job.attempt_void", job_id=job.job_id, lease_token=job.lease_token)
        if self._reporter.is_left_open:
            self._hang_up(job)
        if self.is_stopping:
            self._outbox.add(cut_short(job), started_at, time.monotonic(), job)
        try:
            self._exchange.note_ended(job)
        except RunledgerError as error:
            log(logging.WARNING, "job.end_not_noted", job_id=job.job_id, code=error.code, error=str(error))

    def _flush_reports(self) -> None:
        try:
            self._reporter.flush()
        except LeaseLost:
            pass  # the settle of the attempt finds out, and says so
        except RunledgerError as error:
            log(logging.WARNING, "job.report_lost", code=error.code, error=str(error))

    def _settle_quietly(self) -> None:
        """Outcomes that cannot be written now stay in the outbox; the next exchange tries again."""
        try:
            self._exchange.settle()
        except RunledgerError as error:
            log(logging.WARNING, "settle.postponed", code=error.code, error=str(error))

    def _give_back(self, jobs: list[ClaimedJob], now: float) -> None:
        reason = "the worker is stopping" if self.is_stopping else "claimed ahead and not begun in time"
        for job in jobs:
            self._outbox.add(given_back(job, reason), None, now)

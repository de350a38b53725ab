"""The one conversation of a worker with the database: outcomes out, claimed jobs in, in one commit.

When the answer is lost, nobody knows whether the commit happened. The outcomes stay in the outbox and are sent again;
those that had been written come back as not settled, and the attempts tell that it was us.
"""

import logging
import time
from collections.abc import Sequence

from runledger.core.errors import LockNotAvailable, RunledgerError, UnavailableError
from runledger.core.jobs import ClaimedJob
from runledger.core.results import Ended, Succeeded, runs_to_lock
from runledger.core.states import Outcome
from runledger.core.workflow_errors import WorkflowReleaseConflict
from runledger.postgres.cancellation import quiesce_canceled
from runledger.postgres.claim import CLAIM_JOBS, CLAIM_STEPS, claim_parameters
from runledger.postgres.leases import stored_attempts
from runledger.postgres.settle import settle_calls, settle_jobs
from runledger.postgres.statements import Call, Row
from runledger.postgres.workflow_inputs import add_inputs
from runledger.runtime.failure_lines import log_failure
from runledger.runtime.limits import Limits
from runledger.runtime.link import DatabaseLink
from runledger.runtime.logs import log
from runledger.runtime.outbox import Outbox, Waiting
from runledger.runtime.settled import Announcer
from runledger.runtime.shallows import Shallows

LOCKED_AGAIN_SECONDS = 5.0
"""Pause before an outcome whose lease somebody has locked is tried again; a try waits for the lock at most a second."""

_STILL_LOCKED = LockNotAvailable("a lease is locked by somebody else")

_LOST_BEFORE_A_RUN = "harmless: its handler had not begun, and the job is in other hands or has ended"
_LOST_AFTER_A_RUN = "its handler ran and the outcome was not written: unless the job has ended otherwise, it runs again"


class Exchange:
    """Settles and claims over one link."""

    def __init__(
        self,
        link: DatabaseLink,
        outbox: Outbox,
        announcer: Announcer,
        *,
        worker_id: str,
        job_types: Sequence[str],
        queues: Sequence[str] | None,
        lease_ttl_seconds: float,
        workers: int = 1,
    ) -> None:
        self._link = link
        self._outbox = outbox
        self._announcer = announcer
        self._worker_id = worker_id
        self._job_types = job_types
        self._queues = queues
        self._lease_ttl_seconds = lease_ttl_seconds
        self._locked: list[Waiting] = []
        self._locked_again_at = 0.0
        self._expects_steps = False
        self._shallows = Shallows(link, job_types, workers=workers)
        self._limits = Limits(link, job_types, queues, worker_id)

    @property
    def unsettled(self) -> list[int]:
        """The leases of attempts that have ended and whose outcomes were set aside: somebody has locked them."""
        return [one.end.lease_token for one in self._locked if one.started_at is not None]

    def try_the_locked_next(self) -> None:
        """The next exchange does not wait for the end of the pause: who held the lock is gone."""
        self._locked_again_at = 0.0

    def settle(self) -> None:
        """Every waiting outcome is written, or was refused because its lease is lost."""
        self._run([])

    def settle_and_claim(self, limit: int) -> list[ClaimedJob]:
        """The same, and up to ``limit`` jobs are leased to this worker in the same commit."""
        self._try_the_locked()
        calls = self._claims(limit)
        began_at = time.monotonic()
        jobs = [ClaimedJob(*row) for row in self._run(calls)]
        self._shallows.learn(time.monotonic() - began_at)
        is_informed, self._expects_steps = self._expects_steps, any(job.workflow_run_id for job in jobs)
        if self._expects_steps and not is_informed:
            with self._link.autocommit() as ledger:
                add_inputs(ledger, jobs)
        return jobs

    def note_ended(self, job: ClaimedJob) -> None:
        """The attempt, which counts no more, has ended: nobody needs to wait for its lease before a requeue."""
        with self._link.autocommit() as ledger:
            quiesce_canceled(ledger, [job.job_id], [job.lease_token])

    @property
    def comes_again_seconds(self) -> float | None:
        """When to look again at the latest, because a limit kept the last claim from jobs that wait."""
        return self._limits.comes_again_seconds

    def _claims(self, limit: int) -> list[Call]:
        """The claim, and what has to be sent together with it."""
        self._limits.forget()
        if limit <= 0 or not self._job_types:
            return []
        waterlines = self._shallows.waterlines()
        parameters = claim_parameters(
            worker_id=self._worker_id,
            job_types=self._job_types,
            limit=limit,
            lease_ttl_seconds=self._lease_ttl_seconds,
            queues=self._queues,
            waterlines=waterlines,
        )
        claim = (CLAIM_STEPS if self._expects_steps else CLAIM_JOBS, parameters)
        return self._limits.around(claim, waterlines)

    def _run(self, claims: list[Call]) -> list[Row]:
        """What waits is written and the claim made; the rows of the claim."""
        with self._link.lock:
            waiting = self._outbox.take()
            if not waiting and not claims:
                return []
            try:
                settled, claimed = self._send(waiting, claims)
            except UnavailableError as error:
                if isinstance(error, LockNotAvailable) and waiting:
                    self._settle_one_by_one(waiting, error)
                    return []
                self._outbox.put_back(waiting)
                raise
            except RunledgerError as error:
                self._settle_one_by_one(waiting, error)
                return []
        self._note(waiting, settled)
        self._report_lost([one for one in waiting if one.end.job_id not in settled])
        return claimed

    def _send(self, waiting: list[Waiting], claims: list[Call]) -> tuple[set[str], list[Row]]:
        """The ids that were settled and the rows of the claim, committed together. Plain jobs take one round trip; when
        jobs of workflow runs end, their runs are locked first and advance before the claim, which must be the last to
        lock anything: two."""
        ends = [one.end for one in waiting]
        if not runs_to_lock(ends):
            settles = settle_calls(ends)
            answers = self._link.run_together(*settles, *claims)
            settled = {row[0] for answer in answers[: len(settles)] for row in answer}
            return settled, self._limits.claimed(answers[len(settles) :])
        with self._link.pipelined() as ledger:
            settled = settle_jobs(ledger, ends)
            return settled, self._limits.claimed(list(ledger.fetch_each(claims)))

    def _settle_one_by_one(self, waiting: list[Waiting], refusal: RunledgerError) -> None:
        """The database refuses something in the batch. Each outcome is tried alone, so that one which cannot be stored
        takes no other with it; its lease runs out and the reaper decides. One whose lease somebody has locked, in a
        transaction that a handler left open for example, is tried again for as long as a lease lasts.
        """
        if not waiting:
            raise refusal
        for position, one in enumerate(waiting):
            try:
                settled, _ = self._send([one], [])
            except (LockNotAvailable, WorkflowReleaseConflict) as error:
                self._set_aside(one, error)
                continue
            except UnavailableError:
                self._outbox.put_back(waiting[position:])
                raise
            except RunledgerError as error:
                _log_refused(one, error)
                continue
            if settled:
                self._note([one], settled)
            else:
                self._report_lost([one])

    def _note(self, waiting: list[Waiting], settled: set[str]) -> None:
        """Middleware will hear of it, and the log of failures that only the settle could find out."""
        self._announcer.note(waiting, settled)
        for one in waiting:
            if one.is_doubtful and one.end.job_id in settled and one.job is not None and isinstance(one.end, Ended):
                log_failure(one.job, one.end)

    def _set_aside(self, one: Waiting, error: LockNotAvailable | WorkflowReleaseConflict) -> None:
        """It is tried again by itself, so that nothing else waits for that lock."""
        now = time.monotonic()
        if now - one.finished_at < self._lease_ttl_seconds:
            self._locked.append(one)
            self._locked_again_at = now + LOCKED_AGAIN_SECONDS
        else:
            _log_refused(one, error)

    def _try_the_locked(self) -> None:
        if self._locked and time.monotonic() >= self._locked_again_at:
            locked, self._locked = self._locked, []
            with self._link.lock:
                self._settle_one_by_one(locked, _STILL_LOCKED)

    def _report_lost(self, lost: list[Waiting]) -> None:
        """Outcomes that were refused. Where the stored attempt says the same, it was ours all along: the commit had
        happened and only the answer was lost, or the handler had finished it in its own transaction. Raises nothing:
        what was claimed and settled with them is committed, and counts."""
        stored: dict[int, Outcome] = {}
        try:
            if lost:
                stored = self._look_up(lost)
        except RunledgerError as error:
            log(logging.WARNING, "exchange.lost_not_looked_up", code=error.code, error=str(error))
        for one in lost:
            outcome = stored.get(one.end.lease_token)
            if outcome in (Outcome.SUCCEEDED, _outcome_of(one.end)):
                self._announcer.note_confirmed(one, outcome)
                log(logging.INFO, "job.outcome_confirmed", job_id=one.end.job_id, lease_token=one.end.lease_token)
                continue
            _log_lost(one, outcome)

    def _look_up(self, lost: list[Waiting]) -> dict[int, Outcome]:
        """How their attempts are recorded. Those that were cancelled have ended now, and may be requeued."""
        tokens, job_ids = [one.end.lease_token for one in lost], [one.end.job_id for one in lost]
        with self._link.autocommit() as ledger:
            stored = stored_attempts(ledger, tokens, job_ids)
            if Outcome.CANCELED in stored.values():
                quiesce_canceled(ledger, job_ids, tokens)
        return stored


def _log_lost(one: Waiting, recorded: Outcome | None) -> None:
    """Whether that matters: a handler that ran may run again, one that had not begun loses nothing."""
    has_run = one.started_at is not None
    log(
        logging.WARNING if has_run else logging.INFO,
        "job.lease_lost",
        job_id=one.end.job_id,
        lease_token=one.end.lease_token,
        age=f"{time.monotonic() - one.finished_at:.3f}s",
        recorded=None if recorded is None else recorded.value,
        meaning=_LOST_AFTER_A_RUN if has_run else _LOST_BEFORE_A_RUN,
    )


def _log_refused(one: Waiting, error: RunledgerError) -> None:
    log(
        logging.ERROR,
        "job.outcome_refused",
        job_id=one.end.job_id,
        code=error.code,
        detail=error.internal_message,
    )


def _outcome_of(end: Succeeded | Ended) -> Outcome:
    return Outcome.SUCCEEDED if isinstance(end, Succeeded) else end.outcome

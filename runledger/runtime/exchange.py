"""The one conversation of a worker with the database: outcomes out, claimed jobs in, in one commit.

When the answer is lost, nobody knows whether the commit happened. The outcomes stay in the outbox and are sent again;
those that had been written come back as not settled, and the attempts tell that it was us.
"""

import logging
import time
from collections.abc import Sequence

from runledger.core.errors import RunledgerError, UnavailableError
from runledger.core.jobs import ClaimedJob
from runledger.core.results import Ended, LeaseCheck, Succeeded
from runledger.core.states import Outcome
from runledger.postgres.claim import CLAIM_JOBS, claim_parameters
from runledger.postgres.leases import stored_attempts
from runledger.postgres.settle import SETTLE_ENDED, SETTLE_SUCCEEDED, ended_parameters, succeeded_parameters
from runledger.postgres.statements import Parameters, Row, Statement
from runledger.runtime.link import DatabaseLink
from runledger.runtime.logs import log
from runledger.runtime.outbox import Outbox, Waiting


class Exchange:
    """Settles and claims over one link."""

    def __init__(
        self,
        link: DatabaseLink,
        outbox: Outbox,
        *,
        worker_id: str,
        job_types: Sequence[str],
        queues: Sequence[str] | None,
        lease_ttl_seconds: float,
    ) -> None:
        self._link = link
        self._outbox = outbox
        self._worker_id = worker_id
        self._job_types = job_types
        self._queues = queues
        self._lease_ttl_seconds = lease_ttl_seconds

    def settle(self) -> None:
        """Every waiting outcome is written, or was refused because its lease is lost."""
        if len(self._outbox):
            self._run([], 0)

    def settle_and_claim(self, limit: int) -> list[ClaimedJob]:
        """The same, and up to ``limit`` jobs are leased to this worker in the same commit."""
        calls: list[tuple[Statement, Parameters]] = []
        if limit > 0 and self._job_types:
            calls.append((CLAIM_JOBS, self._claim(limit)))
        rows = self._run(calls, len(calls))
        return [ClaimedJob(*row) for row in rows]

    def _claim(self, limit: int) -> Parameters:
        return claim_parameters(
            worker_id=self._worker_id,
            job_types=self._job_types,
            limit=limit,
            lease_ttl_seconds=self._lease_ttl_seconds,
            queues=self._queues,
        )

    def _run(self, claim: list[tuple[Statement, Parameters]], claims: int) -> list[Row]:
        with self._link.lock:
            waiting = self._outbox.take()
            settles = _settles(waiting)
            if not settles and not claim:
                return []
            try:
                answers = self._link.run_together(*settles, *claim)
            except UnavailableError:
                self._outbox.put_back(waiting)
                raise
            except RunledgerError as error:
                self._settle_one_by_one(waiting, error)
                return []
        settled = {row[0] for answer in answers[: len(settles)] for row in answer}
        self._report_lost([one for one in waiting if one.end.job_id not in settled])
        return answers[-1] if claims else []

    def _settle_one_by_one(self, waiting: list[Waiting], refusal: RunledgerError) -> None:
        """The database refuses something in the batch. Each outcome is tried alone, so that one which cannot be stored
        takes no other with it; its lease runs out and the reaper decides."""
        if not waiting:
            raise refusal
        for position, one in enumerate(waiting):
            try:
                [answer] = self._link.run_together(*_settles([one]))
            except UnavailableError:
                self._outbox.put_back(waiting[position:])
                raise
            except RunledgerError as error:
                log(
                    logging.ERROR,
                    "job.outcome_refused",
                    job_id=one.end.job_id,
                    code=error.code,
                    detail=error.internal_message,
                )
                continue
            if not answer:
                self._report_lost([one])

    def _report_lost(self, lost: list[Waiting]) -> None:
        """Outcomes that were refused. Where the stored attempt says the same, it was ours all along: the commit had
        happened and only the answer was lost, or the handler had finished it in its own transaction."""
        if not lost:
            return
        with self._link.autocommit() as ledger:
            stored = stored_attempts(ledger, [one.end.lease_token for one in lost], [one.end.job_id for one in lost])
        for one in lost:
            if stored.get(one.end.lease_token) in (Outcome.SUCCEEDED, _outcome_of(one.end)):
                log(logging.INFO, "job.outcome_confirmed", job_id=one.end.job_id, lease_token=one.end.lease_token)
                continue
            log(
                logging.WARNING,
                "job.lease_lost",
                job_id=one.end.job_id,
                lease_token=one.end.lease_token,
                age=f"{time.monotonic() - one.finished_at:.3f}s",
            )


def _outcome_of(end: Succeeded | Ended) -> Outcome:
    return Outcome.SUCCEEDED if isinstance(end, Succeeded) else end.outcome


def _settles(waiting: list[Waiting]) -> list[tuple[Statement, Parameters]]:
    successes = [one.end for one in waiting if isinstance(one.end, Succeeded)]
    ends = [one.end for one in waiting if isinstance(one.end, Ended)]
    calls: list[tuple[Statement, Parameters]] = []
    if successes:
        calls.append((SETTLE_SUCCEEDED, succeeded_parameters(successes)))
    if ends:
        calls.append((SETTLE_ENDED, ended_parameters(ends, LeaseCheck.LIVE)))
    return calls

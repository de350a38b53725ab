"""The scheduler: fire schedules when they are due. Any number may run; one at a time does the work, and even two at
once could not fire a slot twice.
"""

import logging

from runledger.postgres.firing import LARGEST_FIRING, FiredSchedules, fire_due_schedules, seconds_until_due
from runledger.postgres.locks import try_lock_scheduler
from runledger.runtime.config import JobsConfig
from runledger.runtime.link import DatabaseLink
from runledger.runtime.logs import log

SHORTEST_PAUSE_SECONDS = 0.001


class Scheduler:
    """One tick asks how long the next schedule has to wait. When it is due, one transaction takes the lock, or leaves
    it to who has it, and fires a batch."""

    def __init__(self, link: DatabaseLink, config: JobsConfig) -> None:
        self._link = link
        self._config = config
        self.is_stopping = False

    def tick(self) -> float | None:
        """Answers with the time until the next schedule is due, at most the poll interval; None after a stop
        request."""
        if self.is_stopping:
            return None
        longest = float(self._config.schedule_poll_interval_seconds)
        with self._link.autocommit() as ledger:
            wait = seconds_until_due(ledger)
        if wait is None or wait > 0:
            return longest if wait is None else min(longest, wait + SHORTEST_PAUSE_SECONDS)
        with self._link.transaction() as ledger:
            if not try_lock_scheduler(ledger):
                return longest
            done = fire_due_schedules(ledger, limit=LARGEST_FIRING)
        _tell(done)
        return 0.0 if done.due else longest


def _tell(done: FiredSchedules) -> None:
    for firing in done.fired:
        log(logging.INFO, "schedule.fired", schedule=firing.name, slot=firing.slot.isoformat(), job_id=firing.job_id)
    for skipped in done.skipped:
        log(logging.WARNING, "schedule.skipped", schedule=skipped.name, code=skipped.code, message=skipped.message)
    for deferred in done.deferred:
        log(logging.WARNING, "schedule.deferred", schedule=deferred.name, code=deferred.code, message=deferred.message)

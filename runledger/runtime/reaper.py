"""The reaper: recover lapsed leases anywhere in the fleet. Any number may run; one at a time does the work."""

import logging
from datetime import timedelta

from runledger.postgres.locks import try_lock_reaper
from runledger.postgres.metrics_rollup import roll_up_metrics
from runledger.postgres.recovery import LARGEST_REAP, reap_lapsed_leases
from runledger.runtime.config import JobsConfig
from runledger.runtime.link import DatabaseLink
from runledger.runtime.logs import log
from runledger.runtime.sweep import BATCH_PAUSE_SECONDS, Sweep

SHORTEST_STEP, FIRST_STEP, LONGEST_STEP = timedelta(seconds=1), timedelta(seconds=15), timedelta(days=1)
FEW_ATTEMPTS, MANY_ATTEMPTS = 10_000, 50_000


class Reaper:
    """One tick takes the lock or leaves it to who has it: one batch of lapsed leases, and when none is left, one step
    of the roll-up of figures and one batch of retention; each is a transaction by itself."""

    def __init__(self, link: DatabaseLink, config: JobsConfig) -> None:
        self._link = link
        self._config = config
        self._step = FIRST_STEP
        self._sweep = Sweep(config)
        self.is_stopping = False

    def tick(self) -> float | None:
        """Answers with zero after a full batch, else with the interval; None after a stop request."""
        if self.is_stopping:
            return None
        with self._link.transaction() as ledger:
            if not try_lock_reaper(ledger):
                return float(self._config.reaper_interval_seconds)
            recovered = reap_lapsed_leases(ledger, retry_after_seconds=self._config.reaper_retry_delay_ms / 1_000)
        if len(recovered):
            log(
                logging.WARNING,
                "leases.reaped",
                retried=len(recovered.retried),
                dead_lettered=len(recovered.dead_lettered),
            )
        if len(recovered) >= LARGEST_REAP or self._roll_up():
            return 0.0
        if self._sweep.is_due() and self._prune():
            return BATCH_PAUSE_SECONDS
        return float(self._config.reaper_interval_seconds)

    def _prune(self) -> bool:
        """Whether the walk goes on."""
        with self._link.transaction() as ledger:
            if not try_lock_reaper(ledger):
                return False
            deleted = self._sweep.run_batch(ledger)
        if deleted:
            log(logging.INFO, "retention.pruned", rows=deleted)
        return self._sweep.is_due()

    def _roll_up(self) -> bool:
        """Whether more attempts wait to be counted. The step is as long as keeps one transaction short."""
        with self._link.transaction() as ledger:
            if not try_lock_reaper(ledger):
                return False
            counted = roll_up_metrics(ledger, step=self._step)
        if counted.attempts > MANY_ATTEMPTS:
            self._step = max(self._step / 2, SHORTEST_STEP)
        elif counted.attempts < FEW_ATTEMPTS:
            self._step = min(self._step * 2, LONGEST_STEP)
        return counted.is_behind

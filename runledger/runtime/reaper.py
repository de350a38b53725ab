"""The reaper: recover lapsed leases anywhere in the fleet. Any number may run; one at a time does the work."""

import logging

from runledger.postgres.locks import try_lock_reaper
from runledger.postgres.recovery import LARGEST_REAP, reap_lapsed_leases
from runledger.runtime.config import JobsConfig
from runledger.runtime.link import DatabaseLink
from runledger.runtime.logs import log


class Reaper:
    """One tick is one transaction: take the lock or leave it to who has it, then one batch of lapsed leases."""

    def __init__(self, link: DatabaseLink, config: JobsConfig) -> None:
        self._link = link
        self._config = config
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
        return 0.0 if len(recovered) >= LARGEST_REAP else float(self._config.reaper_interval_seconds)

"""Automatic retention: what the settings let go leaves in small batches, walk after walk, by the reaper's process."""

import time
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from runledger.core.jobs import Scope
from runledger.core.states import JobStatus
from runledger.postgres.connection import LedgerConnection
from runledger.postgres.metrics_rollup import prune_metrics
from runledger.postgres.operator_actions import prune_operator_actions
from runledger.postgres.retention import PRUNED_BY_DEFAULT, Pruned, Retention, prune_jobs, prune_workflow_runs
from runledger.runtime.config import JobsConfig

SECONDS_BETWEEN_WALKS = 600.0
BATCH_PAUSE_SECONDS = 0.05
Walk = tuple[Callable[..., Pruned], Retention]


class Sweep:
    """One batch at a time. Where a walk stands is in memory only: another process begins at the first id, and finds
    gone what is gone."""

    def __init__(self, config: JobsConfig) -> None:
        self._actions_kept = timedelta(days=config.retention_days)
        self._walks = list(_walks(config))
        self._position = 0
        self._after: UUID | None = None
        self._next_at = time.monotonic()

    def is_due(self) -> bool:
        return time.monotonic() >= self._next_at

    def run_batch(self, ledger: LedgerConnection) -> int:
        """How many jobs, runs, actions and figures one batch deleted; ten minutes after the last walk ended, the
        first begins again. For one transaction, with the lock of the reaper."""
        if self._position == len(self._walks):
            deleted = prune_metrics(ledger)
            if self._actions_kept:
                deleted += prune_operator_actions(ledger, older_than=self._actions_kept)
            self._position, self._next_at = 0, time.monotonic() + SECONDS_BETWEEN_WALKS
            return deleted
        prune, retention = self._walks[self._position]
        pruned = prune(ledger, retention, scope=Scope.any(), after=self._after)
        self._after = pruned.next_after
        if self._after is None:
            self._position += 1
        return pruned.jobs + pruned.workflow_runs


def _walks(config: JobsConfig) -> list[Walk]:
    """Jobs and runs for each setting that is not 0."""
    kept = ((config.retention_days, PRUNED_BY_DEFAULT), (config.dead_letter_retention_days, (JobStatus.DEAD_LETTERED,)))
    return [
        (prune, Retention(timedelta(days=days), statuses))
        for days, statuses in kept
        if days
        for prune in (prune_jobs, prune_workflow_runs)
    ]

"""Faults to plant in a host, each the absence of one rule, so that the soak can show that it notices.

Nothing of this is in the product: a host of the soak is patched before it starts.
"""

import re
from collections.abc import Callable
from typing import Any

from runledger.core.results import Ended
from runledger.postgres import recovery, settle
from runledger.postgres.statements import SCHEMA, Statement
from runledger.runtime import exchange, keeper, reaper

_TOKEN_CHECK = re.compile(r" AND (\S+)\.lease_token = (\S+)\.lease_token")
_LIVENESS_CHECK = re.compile(r"WHERE held\.lease_expires_at > clock_timestamp\(\)", re.IGNORECASE)
DROP_LEASES = f"DELETE FROM {SCHEMA}.job_leases WHERE worker_id = %(worker_id)s RETURNING job_id"
DROP_LAPSED = f"DELETE FROM {SCHEMA}.job_leases WHERE lease_expires_at <= clock_timestamp() RETURNING job_id"


def plant(name: str) -> None:
    """The fault is in every process that is forked from here. Raises KeyError for an unknown name."""
    MUTANTS[name]()


def _settle_without_token() -> None:
    """A success is written to whatever lease the job has now, whoever holds it."""
    without = _Rewritten(settle.SETTLE_SUCCEEDED, lambda text: _LIVENESS_CHECK.sub("", _TOKEN_CHECK.sub("", text)))
    settle.SETTLE_SUCCEEDED = exchange.SETTLE_SUCCEEDED = without


def _refund_crashes() -> None:
    """An attempt that killed its worker does not count, so the next one has the same number."""
    decided = recovery._decided

    def decided_and_refunded(*arguments: Any) -> Ended:
        end = decided(*arguments)
        end.is_refunded = True
        return end

    recovery._decided = decided_and_refunded


def _drop_leases_of_the_dead() -> None:
    """Leases of dead workers and lapsed ones are deleted, and their jobs put nowhere."""

    def drop_workers(connection: Any, death: Any) -> recovery.Recovered:
        connection.driver.execute(DROP_LEASES, {"worker_id": death.worker_id})
        return recovery.Recovered()

    def drop_lapsed(connection: Any, **options: Any) -> recovery.Recovered:
        connection.driver.execute(DROP_LAPSED)
        return recovery.Recovered()

    keeper.settle_dead_worker = drop_workers
    reaper.reap_lapsed_leases = drop_lapsed


class _Rewritten(Statement):
    """A statement with another text. Raises AssertionError when the rewriting changes nothing."""

    def __init__(self, original: Statement, rewrite: Callable[[str], str]) -> None:
        super().__init__(original.name, original.core, is_prepared=original.is_prepared)
        self._rewrite = rewrite

    def text(self, schema: str) -> str:
        original = super().text(schema)
        rewritten = self._rewrite(original)
        assert rewritten != original, "the mutant changes nothing"
        return rewritten


MUTANTS: dict[str, Callable[[], None]] = {
    "settle-without-token": _settle_without_token,
    "refund-crashes": _refund_crashes,
    "drop-leases-of-the-dead": _drop_leases_of_the_dead,
}

"""Which of a worker's job types may run only so often at once, in the whole fleet.

A claim skips these types unless its transaction has locked them first. A worker without such types, the usual case,
sends nothing for them but one look every few seconds.
"""

import time
from collections.abc import Sequence

from runledger.postgres.limits import LOCK_LIMITED_TYPES, SELECT_LIMITED_TYPES, lock_parameters
from runledger.postgres.statements import Call, Row
from runledger.postgres.waterlines import Waterlines
from runledger.runtime.link import DatabaseLink

LOOK_EVERY_SECONDS = 10.0
"""A limit holds with the commit that sets it, and a type that just got one waits at most so long for this worker."""


class Limits:
    """The limited types of one worker, as they are stored."""

    def __init__(self, link: DatabaseLink, job_types: Sequence[str]) -> None:
        self._link = link
        self._job_types = list(job_types)
        self._limited: list[str] = []
        self._look_at = 0.0
        self.is_contended = False

    def locks(self, queues: Sequence[str] | None, waterlines: Waterlines) -> list[Call]:
        """What has to be sent before a claim, in its transaction: nothing without a limited type."""
        now = time.monotonic()
        if now >= self._look_at:
            with self._link.autocommit() as ledger:
                self._limited = [row[0] for row in ledger.fetch(SELECT_LIMITED_TYPES, {"job_types": self._job_types})]
            self._look_at = now + LOOK_EVERY_SECONDS
        if not self._limited:
            return []
        return [(LOCK_LIMITED_TYPES, lock_parameters(self._link.schema, self._limited, queues, waterlines))]

    def note(self, answers: Sequence[Sequence[Row]]) -> None:
        """What those calls answered."""
        self.is_contended = any(busy for answer in answers for _, busy in answer)

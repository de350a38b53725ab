"""Which of a worker's job types have a limit in the whole fleet, and what their claims send along.

A claim skips these types unless its transaction has locked them first. A worker without such types, the usual case,
sends nothing for them but one look every few seconds.
"""

import time
from collections.abc import Sequence

from runledger.postgres.limits import LOCK_LIMITED_TYPES, NOTE_STARTS, SELECT_LIMITED_TYPES, lock_parameters
from runledger.postgres.statements import Call, Row
from runledger.postgres.waterlines import Waterlines
from runledger.runtime.link import DatabaseLink

LOOK_EVERY_SECONDS = 10.0
"""A limit holds with the commit that sets it; a type that just got one waits at most so long for this worker."""

CONTENDED_SECONDS = 0.02
"""How soon to come again when another claim was taking jobs of the type; it may have left some."""

SHORTEST_WAIT_SECONDS = 0.005
"""For a rate: the next start may be free in a microsecond, but to ask for it takes a millisecond."""


class Limits:
    """The limited types of one worker, as they are stored."""

    def __init__(
        self, link: DatabaseLink, job_types: Sequence[str], queues: Sequence[str] | None, worker_id: str
    ) -> None:
        self._link = link
        self._job_types = list(job_types)
        self._queues = queues
        self._worker_id = worker_id
        self._limited: list[str] = []
        self._look_at = 0.0
        self.comes_again_seconds: float | None = None

    def forget(self) -> None:
        """Nothing is known to wait for a limit."""
        self.comes_again_seconds = None

    def around(self, claim: Call, waterlines: Waterlines) -> list[Call]:
        """The claim between what has to be sent before and after it, in its transaction."""
        now = time.monotonic()
        if now >= self._look_at:
            with self._link.autocommit() as ledger:
                self._limited = [row[0] for row in ledger.fetch(SELECT_LIMITED_TYPES, {"job_types": self._job_types})]
            self._look_at = now + LOOK_EVERY_SECONDS
        if not self._limited:
            return [claim]
        lock = lock_parameters(self._link.schema, self._limited, self._queues, waterlines)
        return [(LOCK_LIMITED_TYPES, lock), claim, (NOTE_STARTS, {"worker_id": self._worker_id})]

    def claimed(self, answers: list[list[Row]]) -> list[Row]:
        """The rows of the claim, of the answers to what was sent: to nothing, to the claim alone, or to all three."""
        match answers:
            case []:
                return []
            case [claimed]:
                return claimed
            case [[(_, busy, free_in)], claimed, _]:
                if busy:
                    self.comes_again_seconds = CONTENDED_SECONDS
                elif free_in is not None:
                    self.comes_again_seconds = max(SHORTEST_WAIT_SECONDS, free_in)
                return claimed
        raise AssertionError(f"{len(answers)} answers to a claim")

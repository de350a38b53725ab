"""Whether the head of the line has become slow to step over, and from where to claim while it is.

In good times this does nothing but compare a duration with a bound. When an exchange takes long, one look at the head
of the line tells whether that is the reason; only then do claims start at waterlines, until a look is quick again.
"""

import random
import time
from collections.abc import Sequence

from runledger.postgres.connection import LedgerConnection
from runledger.postgres.waterlines import NO_WATERLINES, Waterlines, find_waterlines
from runledger.runtime.link import DatabaseLink

SLOW_EXCHANGE_SECONDS = 0.010
SLOW_LOOK_SECONDS = 0.005
RAISE_EVERY_SECONDS = 0.5
LOOK_EVERY_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 30.0
"""Between two looks of a host at the very most; its workers take turns, so each of them waits longer."""

MUCH_QUICKER = 4.0
SHARE_OF_TIME = 1 / 50
"""Looks at the whole line take no more of a worker's time than this."""


class Shallows:
    """The waterlines of one of the ``workers`` of a host, which all serve the same types. Jobs that appear below them
    wait for the next look of any of these workers at the whole line: two seconds as a rule, about thirty at most."""

    def __init__(self, link: DatabaseLink, job_types: Sequence[str], *, workers: int = 1) -> None:
        self._link = link
        self._job_types = job_types
        self._longest_wait_seconds = LONGEST_WAIT_SECONDS * workers
        self._waterlines: Waterlines = NO_WATERLINES
        self._is_suspicious = False
        self._look_at = self._raise_at = 0.0

    def learn(self, seconds: float) -> None:
        """An exchange took ``seconds``."""
        self._is_suspicious = seconds > SLOW_EXCHANGE_SECONDS

    def waterlines(self) -> Waterlines:
        """Where the next claim starts; asks the database when it is time to."""
        now = time.monotonic()
        if now >= self._look_at and (self._is_suspicious or self._waterlines):
            self._look(now)
        elif self._waterlines and now >= self._raise_at:
            with self._link.autocommit() as ledger:
                self._waterlines = find_waterlines(ledger, self._job_types, start=self._waterlines)
            self._raise_at = now + RAISE_EVERY_SECONDS
        return self._waterlines

    def _look(self, began_at: float) -> None:
        with self._link.autocommit() as ledger:
            found = find_waterlines(ledger, self._job_types)
            ended_at = time.monotonic()
            seconds = ended_at - began_at
            is_deep = seconds > SLOW_LOOK_SECONDS and self._is_quicker_from(ledger, found, seconds)
        self._waterlines = found if is_deep else NO_WATERLINES
        self._raise_at = ended_at + RAISE_EVERY_SECONDS
        wait = min(self._longest_wait_seconds, max(LOOK_EVERY_SECONDS, seconds / SHARE_OF_TIME))
        self._look_at = ended_at + wait * random.uniform(0.75, 1.25)  # noqa: S311 - spreads looks; protects nothing

    def _is_quicker_from(self, ledger: LedgerConnection, waterlines: Waterlines, seconds: float) -> bool:
        """Whether dead rows at the head are why a look took ``seconds``, and not a machine that is busy: then a look
        that starts above them is much quicker."""
        began_at = time.monotonic()
        find_waterlines(ledger, self._job_types, start=waterlines)
        return (time.monotonic() - began_at) * MUCH_QUICKER < seconds

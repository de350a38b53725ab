"""Signs of life of the processes beside the workers: each counts in memory that it shares with its supervisor, at every
turn of its loop, every few seconds of a pause, and before every wait for the database. One that is stopped, or hangs
where nothing can reach it, counts no more, and is replaced.
"""

import mmap
import time
from collections.abc import Mapping

BEAT_SECONDS = 5.0
"""The longest time that a process pauses without a sign of life."""

STILL_SECONDS = 20.0
"""How long such a process may give no sign of life, beyond its longest wait for the database."""

LONGEST_STEP_SECONDS = 2.0
"""As much stillness as one look adds, however long ago the last look was."""


class Pulse:
    """One role's words in shared memory, made before the first fork. Its process writes, the supervisor reads."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 2 * 8)
        self._words = memoryview(self._memory).cast("q")

    def beat(self) -> None:
        """The process is alive."""
        self._words[0] += 1

    def confirm(self) -> None:
        """One more obituary needs not be told again."""
        self._words[1] += 1

    @property
    def beats(self) -> int:
        return self._words[0]

    @property
    def confirmed(self) -> int:
        """The obituaries that keepers of this host have dealt with, all that ever lived together."""
        return self._words[1]


class Vigil:
    """For how long each process has given no sign of life, as somebody sees who looks every second.

    A counter is compared, not a time, and a look adds two seconds at most: on a host that was stopped as a whole, or
    that is too slow for its supervisor as well, nobody has missed anything.
    """

    def __init__(self) -> None:
        self._looked_at = time.monotonic()
        self._seen: dict[int, tuple[int, float]] = {}

    def look(self, beats: Mapping[int, int], now: float) -> list[tuple[int, float]]:
        """Each process of ``beats``, which gives its count by pid, with the seconds that it has stood still. Others
        are forgotten."""
        step = min(now - self._looked_at, LONGEST_STEP_SECONDS)
        self._looked_at = now
        before, self._seen = self._seen, {}
        for pid, count in beats.items():
            known, still = before.get(pid, (count, -step))
            self._seen[pid] = (count, still + step if count == known else 0.0)
        return [(pid, still) for pid, (_, still) in self._seen.items()]

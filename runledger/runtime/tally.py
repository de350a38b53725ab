"""What the workers of a host count, merged for whoever scrapes it: durations and waits of attempts, by job type.

Each worker publishes into memory that it shares with the health process, in two halves of which one is complete at any
moment, so a worker that is killed while it writes damages nothing. Who follows in a slot goes on from what was
published there; a kill costs at most the counts of a second.
"""

import json
import mmap
import struct
import time
from bisect import bisect_left
from collections.abc import Iterable
from typing import Any, Final

from runledger.core.middleware import Middleware, SettledAttempt

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Upper bounds in seconds; a last one is infinite."""

MOST_TYPES: Final = 50
OTHER: Final = "other"
"""Stands for every job type beyond the first ``MOST_TYPES``: each label value costs whoever stores it."""

PUBLISH_EVERY_SECONDS: Final = 1.0
_HALF_BYTES: Final = 131_072
_WORD: Final = struct.Struct("=q")

Series = dict[tuple[str, ...], list[float]]
"""By label values: the counts of the buckets, and last the sum of what was observed."""


class TallyBoard:
    """A page for each slot, made before the first fork."""

    def __init__(self, count: int) -> None:
        self._page_bytes = _WORD.size + 2 * _HALF_BYTES
        self._memory = mmap.mmap(-1, count * self._page_bytes)
        self._count = count

    def write(self, index: int, durations: Series, waits: Series) -> None:
        """The page of the slot says this from now on. What is too long for it is dropped, the oldest stays."""
        text = json.dumps([[[*key, values] for key, values in one.items()] for one in (durations, waits)]).encode()
        if _WORD.size + len(text) > _HALF_BYTES:
            return
        base = index * self._page_bytes
        half = 1 - self._half(base)
        start = base + _WORD.size + half * _HALF_BYTES
        self._memory[start + _WORD.size : start + _WORD.size + len(text)] = text
        _WORD.pack_into(self._memory, start, len(text))
        _WORD.pack_into(self._memory, base, half)

    def read(self, index: int) -> tuple[Series, Series]:
        """What was last written there; empty before, or when it was overwritten meanwhile."""
        base = index * self._page_bytes
        start = base + _WORD.size + self._half(base) * _HALF_BYTES
        [length] = _WORD.unpack_from(self._memory, start)
        text = self._memory[start + _WORD.size : start + _WORD.size + length]
        try:
            durations, waits = json.loads(text) if length else ([], [])
        except ValueError:
            return {}, {}
        return _series(durations), _series(waits)

    def total(self) -> tuple[Series, Series]:
        """The sums over all slots, within the bound of types."""
        pages = [self.read(index) for index in range(self._count)]
        return _merged(page[0] for page in pages), _merged(page[1] for page in pages)

    def _half(self, base: int) -> int:
        half: int = _WORD.unpack_from(self._memory, base)[0]
        return half


def _series(items: list[list[Any]]) -> Series:
    return {tuple(item[:-1]): item[-1] for item in items}


def _merged(pages: Iterable[Series]) -> Series:
    merged: Series = {}
    types: set[str] = set()
    for page in pages:
        for (job_type, *rest), values in page.items():
            key = (bounded(types, job_type), *rest)
            known = merged.setdefault(key, [0.0] * len(values))
            merged[key] = [one + other for one, other in zip(known, values, strict=True)]
    return merged


def bounded(types: set[str], job_type: str) -> str:
    """The label for a type: itself while there is room in ``types``, which grows."""
    if job_type not in types:
        if len(types) >= MOST_TYPES:
            return OTHER
        types.add(job_type)
    return job_type


class Tally(Middleware):
    """Counts for one worker, and publishes on its slot's page."""

    def __init__(self, board: TallyBoard, index: int) -> None:
        self._board = board
        self._index = index
        self._durations, self._waits = board.read(index)
        self._types = {key[0] for key in self._waits} - {OTHER}
        self._is_dirty = False
        self._published_at = 0.0

    def on_settled(self, attempt: SettledAttempt) -> None:
        """The attempt is counted: how long its handler ran, and how long the job had been due before."""
        job_type = bounded(self._types, attempt.job_type)
        _observe(self._durations, (job_type, attempt.outcome.value), attempt.seconds)
        _observe(self._waits, (job_type,), attempt.waited_seconds)
        self._is_dirty = True

    def publish(self, *, is_idle: bool) -> None:
        """What was counted stands on the page: at once when the worker is idle, else once a second."""
        now = time.monotonic()
        if self._is_dirty and (is_idle or now - self._published_at >= PUBLISH_EVERY_SECONDS):
            self._board.write(self._index, self._durations, self._waits)
            self._published_at = now
            self._is_dirty = False


def _observe(series: Series, key: tuple[str, ...], seconds: float) -> None:
    values = series.get(key)
    if values is None:
        values = series[key] = [0.0] * (len(BUCKETS) + 2)
    values[bisect_left(BUCKETS, seconds)] += 1
    values[-1] += seconds

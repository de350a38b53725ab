"""What a host counts, merged for whoever scrapes it: durations and waits of attempts, and ends of jobs, by job type.

Each worker, and the keeper for those that died, publishes into memory that it shares with the health process, in two
halves of which one is complete at any moment, so a process that is killed while it writes damages nothing. Who follows
goes on from what was published there; a kill costs at most the counts of a second.
"""

import json
import mmap
import struct
import time
from bisect import bisect_left
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from runledger.core.middleware import Middleware, SettledAttempt
from runledger.core.states import JobStatus, Outcome
from runledger.postgres.recovery import Recovered

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Upper bounds in seconds; a last one is infinite."""

MOST_TYPES: Final = 50
OTHER: Final = "other"
"""Stands for every job type beyond the first ``MOST_TYPES``: each label value costs whoever stores it."""

PUBLISH_EVERY_SECONDS: Final = 1.0
_HALF_BYTES: Final = 262_144
_WORD: Final = struct.Struct("=q")

Series = dict[tuple[str, ...], list[float]]
"""By label values: the counts of the buckets, and last the sum of what was observed."""


class Tallies(NamedTuple):
    """Durations of attempts by job type and outcome, waits by job type, and the number of jobs that ended by job type
    and final status."""

    durations: Series
    waits: Series
    ended: Series


class TallyBoard:
    """A page for each slot and one for the keeper, made before the first fork."""

    def __init__(self, slots: int) -> None:
        self._page_bytes = _WORD.size + 2 * _HALF_BYTES
        self.keepers_page: Final = slots
        self._count = slots + 1
        self._memory = mmap.mmap(-1, self._count * self._page_bytes)

    def write(self, index: int, tallies: Tallies) -> None:
        """The page says this from now on. What is too long for it is dropped, the oldest stays."""
        text = json.dumps([[[*key, values] for key, values in one.items()] for one in tallies]).encode()
        if _WORD.size + len(text) > _HALF_BYTES:
            return
        base = index * self._page_bytes
        half = 1 - self._half(base)
        start = base + _WORD.size + half * _HALF_BYTES
        self._memory[start + _WORD.size : start + _WORD.size + len(text)] = text
        _WORD.pack_into(self._memory, start, len(text))
        _WORD.pack_into(self._memory, base, half)

    def read(self, index: int) -> Tallies:
        """What was last written there; empty before, or when it was overwritten meanwhile."""
        base = index * self._page_bytes
        start = base + _WORD.size + self._half(base) * _HALF_BYTES
        [length] = _WORD.unpack_from(self._memory, start)
        text = self._memory[start + _WORD.size : start + _WORD.size + length]
        try:
            return Tallies(*map(_series, json.loads(text) if length else ([], [], [])))
        except ValueError:
            return Tallies({}, {}, {})

    def total(self) -> Tallies:
        """The sums over all pages, within the bound of types."""
        pages = [self.read(index) for index in range(self._count)]
        return Tallies(*map(_merged, zip(*pages, strict=True)))

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
    """Counts for one worker or for the keeper, and publishes on its page."""

    def __init__(self, board: TallyBoard, index: int) -> None:
        self._board = board
        self._index = index
        self._tallies = board.read(index)
        self._types = {key[0] for series in self._tallies for key in series} - {OTHER}
        self._is_dirty = False
        self._published_at = 0.0

    def on_settled(self, attempt: SettledAttempt) -> None:
        """The attempt is counted: how long its handler ran, how long the job had been due before, and whether
        the job has ended."""
        job_type = bounded(self._types, attempt.job_type)
        _observe(self._tallies.waits, (job_type,), attempt.waited_seconds)
        self._count(job_type, attempt.outcome, attempt.seconds, attempt.final_status)

    def count_recovered(self, recovered: Recovered) -> None:
        """What was settled for a dead worker is counted: the attempt that was running, and the jobs that have ended."""
        for job_type, end in recovered.ends:
            self._count(bounded(self._types, job_type), end.outcome, end.started_ago, end.final_status)
        self.publish(is_idle=True)

    def _count(self, job_type: str, outcome: Outcome, seconds: float | None, final_status: JobStatus | None) -> None:
        if seconds is not None:
            _observe(self._tallies.durations, (job_type, outcome.value), seconds)
        if final_status is not None:
            self._tallies.ended.setdefault((job_type, final_status.value), [0.0])[0] += 1
        self._is_dirty = True

    def publish(self, *, is_idle: bool) -> None:
        """What was counted stands on the page: at once when the worker is idle, else once a second."""
        now = time.monotonic()
        if self._is_dirty and (is_idle or now - self._published_at >= PUBLISH_EVERY_SECONDS):
            self._board.write(self._index, self._tallies)
            self._published_at = now
            self._is_dirty = False


def _observe(series: Series, key: tuple[str, ...], seconds: float) -> None:
    values = series.get(key)
    if values is None:
        values = series[key] = [0.0] * (len(BUCKETS) + 2)
    values[bisect_left(BUCKETS, seconds)] += 1
    values[-1] += seconds

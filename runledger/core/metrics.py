"""Figures of attempts from logarithmic histograms: how they are read, and how exact they are.

Bucket 0 holds what lasted less than a millisecond, bucket n ≥ 1 what lasted at least 2^((n-1)/4) ms and less than
2^(n/4) ms. A percentile is the geometric middle of its bucket, so it lies within 9.1 % of the true one (nearest rank).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from runledger.core.errors import InvalidRequest
from runledger.core.states import Outcome

BUCKETS_PER_DOUBLING = 4
SLOT = timedelta(hours=1)
"""Attempts are counted by the slot in which they finished; a window is whole slots."""

METRICS_WINDOW = timedelta(days=1)
WAIT, DURATION = "WAIT", "DURATION"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class MetricsBy(StrEnum):
    """What a line of the figures stands for."""

    TYPE = "type"
    QUEUE = "queue"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Seconds, each within 9.1 % of the true value, or below a millisecond."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class MetricsWindow:
    """From ``since`` until before ``until``, in whole hours; ``until`` may lie ahead."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class JobMetrics:
    """The figures of one job type, queue or worker.

    ``ready``, ``scheduled``, ``leased`` and ``stale_leases`` (held, and lapsed) are of now, and so is
    ``oldest_due_seconds``: how long the first in line has been due. The rest is of the attempts that finished in the
    window. ``wait`` is from due to leased, ``duration`` from the start to the end of the handler; None without any.
    ``success_rate`` is the share of SUCCEEDED among the attempts that succeeded or failed. A worker has no line:
    of places it only knows ``leased`` and ``stale_leases``, and no dead letters are counted for it.
    """

    name: str
    ready: int = 0
    scheduled: int = 0
    leased: int = 0
    stale_leases: int = 0
    oldest_due_seconds: float | None = None
    attempts: int = 0
    attempts_per_second: float = 0.0
    success_rate: float | None = None
    outcomes: Mapping[Outcome, int] = field(default_factory=dict)
    dead_lettered: int = 0
    wait: Percentiles | None = None
    duration: Percentiles | None = None


@dataclass(slots=True)
class Tally:
    """What was counted of one name: ``histograms`` by outcome, WAIT or DURATION, each from bucket to attempts."""

    ready: int = 0
    scheduled: int = 0
    leased: int = 0
    stale_leases: int = 0
    oldest_due_seconds: float | None = None
    dead_lettered: int = 0
    histograms: dict[str, dict[int, int]] = field(default_factory=dict)

    def place(self, ready: int, scheduled: int, leased: int, stale: int, oldest_due_seconds: float | None) -> None:
        self.ready += ready
        self.scheduled += scheduled
        self.leased += leased
        self.stale_leases += stale
        known = [age for age in (self.oldest_due_seconds, oldest_due_seconds) if age is not None]
        self.oldest_due_seconds = max(known, default=None)

    def count(self, measure: str, bucket: int, attempts: int) -> None:
        histogram = self.histograms.setdefault(measure, {})
        histogram[bucket] = histogram.get(bucket, 0) + attempts

    def metrics(self, name: str, *, seconds: float) -> JobMetrics:
        """The figures, over a window of so many seconds."""
        outcomes = {outcome: sum(self.histograms.get(outcome.value, {}).values()) for outcome in Outcome}
        attempts = sum(outcomes.values())
        judged = attempts - sum(outcomes[one] for one in _NEITHER)
        return JobMetrics(
            name=name,
            ready=self.ready,
            scheduled=self.scheduled,
            leased=self.leased,
            stale_leases=self.stale_leases,
            oldest_due_seconds=self.oldest_due_seconds,
            attempts=attempts,
            attempts_per_second=attempts / seconds if seconds > 0 else 0.0,
            success_rate=outcomes[Outcome.SUCCEEDED] / judged if judged else None,
            outcomes=outcomes,
            dead_lettered=self.dead_lettered,
            wait=percentiles(self.histograms.get(WAIT, {})),
            duration=percentiles(self.histograms.get(DURATION, {})),
        )


_NEITHER = (Outcome.CANCELED, Outcome.SNOOZED, Outcome.RELEASED)


def percentiles(histogram: Mapping[int, int]) -> Percentiles | None:
    """The middle, and what only one in twenty and one in a hundred exceeds; None of an empty histogram."""
    if not histogram:
        return None
    return Percentiles(*(_percentile(histogram, share) for share in (0.50, 0.95, 0.99)))


def window_of(since: datetime | None, until: datetime | None, *, now: datetime) -> MetricsWindow:
    """The whole slots that hold the window; by default the last day, and all until now.

    Raises InvalidRequest for a time without a zone, or an end that is not after the start.
    """
    for name, moment in (("since", since), ("until", until)):
        if moment is not None and moment.tzinfo is None:
            raise InvalidRequest(f"{name} needs a time zone")
    end = _slot_of(now) + SLOT if until is None else _slot_of(until + SLOT - timedelta(microseconds=1))
    start = _slot_of((until or now) - METRICS_WINDOW if since is None else since)
    if start >= end or (since is not None and until is not None and since >= until):
        raise InvalidRequest("until must lie after since")
    return MetricsWindow(start, end)


def _slot_of(moment: datetime) -> datetime:
    return moment.astimezone(UTC) - (moment.astimezone(UTC) - _EPOCH) % SLOT


def _percentile(histogram: Mapping[int, int], share: float) -> float:
    rank = math.ceil(share * sum(histogram.values()))
    return next(_middle(bucket) for bucket, seen in _running(histogram.items()) if seen >= rank)


def _running(counts: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    seen = 0
    for bucket, attempts in sorted(counts):
        seen += attempts
        yield bucket, seen


def _middle(bucket: int) -> float:
    return 0.0005 if bucket == 0 else 2.0 ** ((bucket - 0.5) / BUCKETS_PER_DOUBLING) / 1_000

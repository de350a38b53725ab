"""The figures at the health address, as Prometheus reads them: those of this host from shared memory, those of the
queue from the database, asked at most every five seconds. All names stand in docs/reference/metrics.md.
"""

import importlib
import time
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, Final

from runledger.core.errors import RunledgerError
from runledger.core.states import JobStatus
from runledger.postgres.stats import QueueStats, get_queue_stats
from runledger.runtime.link import DatabaseLink
from runledger.runtime.slots import Slot
from runledger.runtime.tally import BUCKETS, Series, TallyBoard, bounded

ASK_EVERY_SECONDS: Final = 5.0
_BOUNDS: Final = (*(f"{bound:g}" for bound in BUCKETS), "+Inf")


class Metrics:
    """Collects when it is scraped. Raises ImportError unless prometheus-client is installed."""

    def __init__(self, slots: Sequence[Slot], board: TallyBoard, link: DatabaseLink) -> None:
        self._prometheus = importlib.import_module("prometheus_client")
        self._core = importlib.import_module("prometheus_client.core")
        self._slots = slots
        self._board = board
        self._link = link
        self._stats: list[QueueStats] | None = None
        self._asked_at = float("-inf")

    def text(self) -> str:
        """The exposition."""
        registry = self._prometheus.CollectorRegistry()
        registry.register(self)
        exposition: bytes = self._prometheus.generate_latest(registry)
        return exposition.decode()

    def collect(self) -> Iterator[Any]:
        """Called by the registry."""
        yield from self._of_workers()
        yield from self._of_attempts()
        yield from self._of_queue()

    def _of_workers(self) -> Iterator[Any]:
        done = self._core.CounterMetricFamily(
            "runledger_worker_jobs", "Attempts ended by the process in this slot", labels=["slot"]
        )
        busy = self._gauge("runledger_worker_busy", "1 while a handler runs in this slot", "slot")
        for slot in self._slots:
            done.add_metric([str(slot.index)], slot.jobs_done)
            busy.add_metric([str(slot.index)], int(slot.running_token != 0))
        yield from (done, busy)

    def _of_attempts(self) -> Iterator[Any]:
        durations, waits, ended = self._board.total()
        yield self._histogram(
            "runledger_job_duration_seconds", "How long handlers ran, by outcome", durations, "job_type", "outcome"
        )
        ends = self._core.CounterMetricFamily(
            "runledger_jobs_ended", "Jobs that this host ended, by final status", labels=["job_type", "status"]
        )
        for key, count in sorted(self._ended(ended).items()):
            ends.add_metric(list(key), count)
        yield ends
        yield self._histogram(
            "runledger_job_wait_seconds", "How long jobs had been due when they were claimed", waits, "job_type"
        )

    def _ended(self, series: Series) -> dict[tuple[str, ...], float]:
        """Each type begins at zero dead letters: Prometheus sees no increase in a series that begins with one."""
        types = {job_type for job_type, _ in series}
        labels = {bounded(types, one.job_type) for one in self._current_stats() or ()} | types
        zeros = {(label, JobStatus.DEAD_LETTERED.value): 0.0 for label in labels}
        return zeros | {key: count for key, [count] in series.items()}

    def _histogram(self, name: str, text: str, series: Series, *labels: str) -> Any:
        family = self._core.HistogramMetricFamily(name, text, labels=labels)
        for key, (*counts, total) in sorted(series.items()):
            buckets = list(zip(_BOUNDS, accumulate(counts), strict=True))
            family.add_metric(list(key), buckets, total)
        return family

    def _of_queue(self) -> Iterator[Any]:
        stats = self._current_stats()
        is_up = self._gauge("runledger_database_up", "1 when the database answered the last question")
        is_up.add_metric([], int(stats is not None))
        yield is_up
        jobs = self._gauge("runledger_jobs", "Unfinished jobs by place", "job_type", "place")
        oldest = self._gauge(
            "runledger_oldest_ready_seconds", "How long the first job in line has been due", "job_type"
        )
        for label, places, seconds in _bounded_stats(stats or []):
            for place, count in places.items():
                jobs.add_metric([label, place], count)
            oldest.add_metric([label], seconds)
        yield from (jobs, oldest)

    def _current_stats(self) -> list[QueueStats] | None:
        if time.monotonic() - self._asked_at >= ASK_EVERY_SECONDS:
            try:
                with self._link.autocommit() as ledger:
                    self._stats = get_queue_stats(ledger)
            except RunledgerError:
                self._stats = None  # runledger_database_up says so
            self._asked_at = time.monotonic()
        return self._stats

    def _gauge(self, name: str, text: str, *labels: str) -> Any:
        return self._core.GaugeMetricFamily(name, text, labels=labels)


def _bounded_stats(stats: Sequence[QueueStats]) -> list[tuple[str, dict[str, int], float]]:
    """Counts by place and the oldest due time, for each label."""
    types: set[str] = set()
    found: dict[str, tuple[dict[str, int], float]] = {}
    for one in stats:
        label = bounded(types, one.job_type)
        places, oldest = found.get(label, ({"ready": 0, "scheduled": 0, "leased": 0}, 0.0))
        places["ready"] += one.ready
        places["scheduled"] += one.scheduled
        places["leased"] += one.leased
        found[label] = (places, max(oldest, one.oldest_ready_seconds or 0.0))
    return [(label, *figures) for label, figures in found.items()]

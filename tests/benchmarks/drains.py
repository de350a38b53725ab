"""Draining a backlog of jobs that do nothing: speed, bytes of WAL and statements for each job."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from benchmarks import framework
from benchmarks.floor import Loop, drain_with, functions_loop, hand_loop
from benchmarks.ground import count_succeeded, fill, statement_calls, wal_position
from benchmarks.report import Contest

SHAPES = ((1, 100), (2, 100), (2, 500))
"""Worker processes and largest batch."""


@dataclass(frozen=True, slots=True)
class Drain:
    """A backlog of ``jobs`` for ``processes`` workers that claim up to ``batch`` at a time."""

    url: str
    jobs: int
    processes: int
    batch: int

    def contest(self) -> Contest:
        title = f"drain, {self.processes} worker{'s' if self.processes > 1 else ''}, batch {self.batch}"
        return Contest(
            title,
            {
                "hand-written floor": partial(self.run, hand_loop),
                "claim_jobs + settle_jobs": partial(self.run, functions_loop),
                "runledger worker --drain": partial(self.run, None),
            },
        )

    def run(self, loop: Loop | None) -> Mapping[str, float]:
        """One drain by ``loop``, or by the framework without one. Raises RuntimeError when a job did not succeed."""
        fill(self.url, self.jobs)
        wal, calls = wal_position(self.url), statement_calls(self.url)
        if loop is None:
            seconds = framework.drain(self.url, processes=self.processes, batch=self.batch)
        else:
            seconds = drain_with(loop, self.url, processes=self.processes, batch=self.batch)
        figures = {"jobs/s": self.jobs / seconds, "WAL B/job": (wal_position(self.url) - wal) / self.jobs}
        if calls is not None:
            figures["statements/job"] = ((statement_calls(self.url) or 0) - calls) / self.jobs
        if count_succeeded(self.url) != self.jobs:
            raise RuntimeError(f"not every one of {self.jobs} jobs succeeded")
        return figures

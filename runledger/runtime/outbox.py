"""The outcomes that wait to be written together: a few milliseconds at most, never lost while this process lives."""

import threading
import time
from typing import NamedTuple

from runledger.core.jobs import ClaimedJob
from runledger.core.results import Ended, Succeeded


class Waiting(NamedTuple):
    """An outcome with the monotonic times of its attempt, and the job as it was claimed. ``is_doubtful``: a failure
    only if the handler's own transaction, in which it finished, was rolled back."""

    end: Succeeded | Ended
    started_at: float | None
    finished_at: float
    job: ClaimedJob | None = None
    is_doubtful: bool = False


class Outbox:
    """Filled by the worker's loop, emptied by whoever writes: the loop itself, or the attendant of a long job."""

    def __init__(self, delay_seconds: float) -> None:
        self._delay_seconds = delay_seconds
        self._lock = threading.Lock()
        self._waiting: list[Waiting] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(
        self,
        end: Succeeded | Ended,
        started_at: float | None,
        finished_at: float,
        job: ClaimedJob | None = None,
        *,
        is_doubtful: bool = False,
    ) -> None:
        with self._lock:
            self._waiting.append(Waiting(end, started_at, finished_at, job, is_doubtful))

    def is_due(self, now: float) -> bool:
        """Whether the oldest outcome has waited as long as it may."""
        waiting = self._waiting
        return bool(waiting) and now - waiting[0].finished_at >= self._delay_seconds

    def take(self) -> list[Waiting]:
        """Everything that waits, the oldest first, with the attempt's times as seconds before now."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        now = time.monotonic()
        for end, started_at, finished_at, _job, _is_doubtful in waiting:
            end.started_ago = None if started_at is None else now - started_at
            end.finished_ago = now - finished_at
        return waiting

    def put_back(self, waiting: list[Waiting]) -> None:
        """They could not be written; they go before what came meanwhile."""
        with self._lock:
            self._waiting[:0] = waiting

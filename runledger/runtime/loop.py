"""The loop of every process: take signals, tick, wait. It knows nothing about what a tick does.

A tick answers with the seconds to wait, or None when the process is done. A tick that fails is tried again after a
pause, and logged unless one of its kind just was; it never ends the process by itself.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence

from runledger.core.errors import ConfigurationError, RunledgerError
from runledger.runtime.link import DatabaseLink
from runledger.runtime.logs import log
from runledger.runtime.pulse import BEAT_SECONDS
from runledger.runtime.signals import SignalQueue, wait_for

FIRST_SILENCE_SECONDS = 1.0
LONGEST_SILENCE_SECONDS = 60.0
"""After a failed tick that was logged, more of the same kind are only counted for this long; longer each time."""


class FailureLog:
    """The log lines of ticks that fail one after the other, as while a database is away: the first of each kind at
    once, then fewer and fewer, and one when a tick succeeds again."""

    def __init__(self) -> None:
        self._count = 0
        self._since = 0.0
        self._silent: dict[str, tuple[float, float]] = {}

    def note(self, error: RunledgerError, pause: float, now: float) -> None:
        """One more failed."""
        self._since = self._since if self._count else now
        self._count += 1
        silent_until, silence = self._silent.get(error.code, (0.0, FIRST_SILENCE_SECONDS))
        if now < silent_until:
            return
        self._silent[error.code] = (now + silence, min(LONGEST_SILENCE_SECONDS, silence * 2))
        log(
            logging.WARNING,
            "tick.failed",
            code=error.code,
            error=str(error),
            detail=error.internal_message,
            retry_in=f"{pause:.2f}s",
            failures=self._count,
        )

    def end(self, now: float) -> None:
        """A tick succeeded."""
        if self._count > 1:
            log(logging.INFO, "tick.recovered", failures=self._count, after=f"{now - self._since:.1f}s")
        self._count = 0
        self._silent.clear()


def run_loop(
    tick: Callable[[], float | None],
    *,
    signals: SignalQueue,
    link: DatabaseLink,
    parent_pid: int,
    wake: Callable[[], Sequence[int]] = tuple,
    beat: Callable[[], None] | None = None,
) -> int:
    """Ticks until the tick says None, or the parent is gone; answers with the exit status.

    A pause ends early when one of the ``wake`` descriptors is readable; what it says is for the tick to read. ``beat``
    is called before each tick and every few seconds of a pause.
    """
    failures = FailureLog()
    while os.getppid() == parent_pid:
        if beat is not None:
            beat()
        signals.take()
        seconds = _tick_safely(tick, link, failures)
        if seconds is None:
            return 0
        if seconds > 0:
            _wait([signals.fileno(), *wake()], seconds, beat)
    log(logging.WARNING, "process.orphaned")
    return 0


def _wait(descriptors: Sequence[int], seconds: float, beat: Callable[[], None] | None) -> None:
    if beat is None:
        wait_for(descriptors, seconds)
        return
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not wait_for(descriptors, min(left, BEAT_SECONDS)):
        beat()


def _tick_safely(tick: Callable[[], float | None], link: DatabaseLink, failures: FailureLog) -> float | None:
    try:
        seconds = tick()
    except ConfigurationError:
        raise
    except RunledgerError as error:
        pause = link.pause_seconds()
        failures.note(error, pause, time.monotonic())
        return max(pause, 0.01)
    failures.end(time.monotonic())
    return seconds

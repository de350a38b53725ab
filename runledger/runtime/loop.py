"""The loop of every process: take signals, tick, wait. It knows nothing about what a tick does.

A tick answers with the seconds to wait, or None when the process is done. A tick that fails is logged and tried again
after a pause; it never ends the process by itself.
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
    while os.getppid() == parent_pid:
        if beat is not None:
            beat()
        signals.take()
        seconds = _tick_safely(tick, link)
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


def _tick_safely(tick: Callable[[], float | None], link: DatabaseLink) -> float | None:
    try:
        return tick()
    except ConfigurationError:
        raise
    except RunledgerError as error:
        pause = link.pause_seconds()
        log(
            logging.WARNING,
            "tick.failed",
            code=error.code,
            error=str(error),
            detail=error.internal_message,
            retry_in=f"{pause:.2f}s",
        )
        return max(pause, 0.01)

"""The loop of every process: take signals, tick, wait. It knows nothing about what a tick does.

A tick answers with the seconds to wait, or None when the process is done. A tick that fails is logged and tried again
after a pause; it never ends the process by itself.
"""

import logging
import os
from collections.abc import Callable, Sequence

from runledger.core.errors import ConfigurationError, RunledgerError
from runledger.runtime.link import DatabaseLink
from runledger.runtime.logs import log
from runledger.runtime.signals import SignalQueue, wait_for


def run_loop(
    tick: Callable[[], float | None],
    *,
    signals: SignalQueue,
    link: DatabaseLink,
    parent_pid: int,
    wake: Callable[[], Sequence[int]] = tuple,
) -> int:
    """Ticks until the tick says None, or the parent is gone; answers with the exit status.

    A pause ends early when one of the ``wake`` descriptors is readable; what it says is for the tick to read.
    """
    while os.getppid() == parent_pid:
        signals.take()
        seconds = _tick_safely(tick, link)
        if seconds is None:
            return 0
        if seconds > 0:
            wait_for([signals.fileno(), *wake()], seconds)
    log(logging.WARNING, "process.orphaned")
    return 0


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

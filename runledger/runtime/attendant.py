"""The worker's second thread: what must not wait for a long handler.

While a handler runs, it writes outcomes that are overdue in the outbox, and what the handler said, every second. It
sleeps while the worker is idle, and does nothing that the loop would do by itself in time.
"""

import logging
import threading
import time

from runledger.core.errors import LeaseLost, RunledgerError
from runledger.runtime.exchange import Exchange
from runledger.runtime.logs import log
from runledger.runtime.outbox import Outbox
from runledger.runtime.reporter import WRITE_EVERY_SECONDS, Reporter

LOOK_EVERY_SECONDS = 0.02


class Attendant(threading.Thread):
    """Started after the fork; a daemon, because nothing of what it does outlives the process."""

    def __init__(self, exchange: Exchange, outbox: Outbox, reporter: Reporter) -> None:
        super().__init__(name="runledger-attendant", daemon=True)
        self._exchange = exchange
        self._outbox = outbox
        self._reporter = reporter
        self._is_busy = threading.Event()
        self._is_over = False
        self._flushed_at = 0.0

    def watch(self) -> None:
        """A batch has begun."""
        self._is_busy.set()

    def rest(self) -> None:
        """The batch is over."""
        self._is_busy.clear()

    def end(self) -> None:
        """The thread ends; for a process that outlives its worker, as a test does."""
        self._is_over = True
        self._is_busy.set()

    def run(self) -> None:
        while True:
            self._is_busy.wait()
            if self._is_over:
                return
            time.sleep(LOOK_EVERY_SECONDS)
            try:
                self._look(time.monotonic())
            except LeaseLost:
                continue  # the loop learns it from its own settle
            except RunledgerError as error:
                log(logging.WARNING, "attendant.failed", code=error.code, error=str(error))
                time.sleep(1.0)

    def _look(self, now: float) -> None:
        if self._outbox.is_due(now):
            self._exchange.settle()
        if now - self._flushed_at >= WRITE_EVERY_SECONDS and self._is_busy.is_set():
            self._flushed_at = now
            self._reporter.flush()

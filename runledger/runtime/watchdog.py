"""A deadline on every round trip, kept by this side: a server that was stopped defeats every timer of its own and of
TCP, so when the deadline passes, the socket is shut down and the waiting call fails at once.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

LOOK_EVERY_SECONDS = 0.5


class RoundTripWatchdog(threading.Thread):
    """One thread for one connection. ``arm`` and ``disarm`` cost two assignments."""

    def __init__(self) -> None:
        super().__init__(name="runledger-watchdog", daemon=True)
        self._deadline = float("inf")
        self._descriptor = -1
        self._is_over = False

    def arm(self, descriptor: int, seconds: float) -> None:
        """The socket is shut down when ``seconds`` pass before ``disarm``."""
        self._descriptor = descriptor
        self._deadline = time.monotonic() + seconds

    def disarm(self) -> None:
        """The answer has come."""
        self._deadline = float("inf")

    def end(self) -> None:
        """Nothing is watched any more, and the thread ends at its next look."""
        self.disarm()
        self._is_over = True

    @contextlib.contextmanager
    def watching(self, descriptor: int, seconds: float) -> Iterator[None]:
        """The same for a block, inside of which what was armed before is not watched."""
        before = self._descriptor, self._deadline
        self.arm(descriptor, seconds)
        try:
            yield
        finally:
            self.disarm()
            self._descriptor, self._deadline = before

    def run(self) -> None:
        while not self._is_over:
            time.sleep(LOOK_EVERY_SECONDS)
            if time.monotonic() > self._deadline:
                self._deadline = float("inf")
                with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._descriptor)) as copy:
                    copy.shutdown(socket.SHUT_RDWR)

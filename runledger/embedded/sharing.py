"""One server for several processes: each user holds a shared lock, and whoever finds itself alone stops the server.

The kernel drops the lock of a process that was killed, so it cannot keep the server running. A server that somebody
started with ``start()`` stays.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import NoReturn

from runledger.embedded.locks import lock_shared, open_lock, try_exclusive
from runledger.embedded.places import embedded_home
from runledger.embedded.server import EmbeddedServer
from runledger.embedded.settings import DEVELOPMENT_SETTINGS


class Membership:
    """The right of this process to use the server; left once, by the end of the block or at exit, not in a fork."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._pid = os.getpid()
        self._descriptor: int | None = None

    def join(self) -> None:
        """The server runs and counts us among its users; on an error we are not counted."""
        atexit.register(self.leave)
        try:
            with self._server.changing():
                self._descriptor = open_lock(self._server.place.users_lock)
                lock_shared(self._descriptor)
                self._server.ensure_running(keep_running=False)
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """We are no user any more; the server has stopped if we were the last and nobody asked to keep it."""
        if os.getpid() != self._pid:
            return
        atexit.unregister(self.leave)
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            with self._server.changing():
                if try_exclusive(descriptor) and not self._server.is_kept_running():
                    self._server.ensure_stopped()
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def running_server(
    home: Path | None = None, settings: Mapping[str, str] = DEVELOPMENT_SETTINGS
) -> Iterator[EmbeddedServer]:
    """The server of this home runs inside the block, shared with every other process that is inside one.

    The last to leave stops it: at the end of the block, at exit, and on SIGTERM where the process has not set a
    handler of its own. Whoever starts it decides the settings. Raises what ``EmbeddedServer.start`` raises.
    """
    server = EmbeddedServer(home or embedded_home(), settings)
    membership = Membership(server)
    with exit_on_sigterm():
        try:
            membership.join()
            yield server
        finally:
            membership.leave()


@contextlib.contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """SIGTERM raises SystemExit inside the block, so that it unwinds; the old handler is back afterwards.

    Does nothing outside the main thread or when the process handles SIGTERM itself.
    """
    is_main_thread = threading.current_thread() is threading.main_thread()
    if not is_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    owner_pid = os.getpid()

    def leave_block(signal_number: int, _frame: FrameType | None) -> NoReturn:
        if os.getpid() != owner_pid:
            signal.signal(signal_number, signal.SIG_DFL)
            os.kill(os.getpid(), signal_number)
        sys.exit(128 + signal_number)

    signal.signal(signal.SIGTERM, leave_block)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is leave_block:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

"""Health over HTTP, in a process of its own: ``/livez`` asks only the processes, ``/readyz`` also database and schema,
``/metrics`` gives Prometheus text.

Liveness never asks the database, and never waits for who does: a database that is away for a minute is no reason to
restart every worker.
"""

import io
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from runledger.core.errors import InvalidConfiguration, RunledgerError
from runledger.runtime.fitness import check_fitness
from runledger.runtime.link import DatabaseLink
from runledger.runtime.metrics import Metrics
from runledger.runtime.slots import SlotState, SlotTable
from runledger.runtime.tally import TallyBoard

STILL_SECONDS = 15.0
"""How long the supervisor's loop may stand still before the host counts as dead."""

REQUEST_SECONDS = 2.0
"""How long one request may take to arrive, and how long it waits while another one asks the database."""

_DATABASE_IS_BUSY = "an earlier request still waits for the database\n"


class Health:
    """One tick takes at most one request. Each is answered in a thread of its own, one at a time asks the database."""

    def __init__(self, address: str, table: SlotTable, board: TallyBoard, link: DatabaseLink) -> None:
        self._table = table
        self._board = board
        self._link = link
        self._collector: Metrics | None = None
        self._database = threading.Lock()
        self._server = _listen(address, self)
        self._server.timeout = 0.0
        self.is_stopping = False

    def fileno(self) -> int:
        return self._server.fileno()

    def tick(self) -> float | None:
        """Answers with the pause, or None after a stop request."""
        if self.is_stopping:
            self._server.server_close()
            return None
        self._server.handle_request()
        return 1.0

    def answer(self, path: str) -> tuple[int, str]:
        """Status and body for a path. Bodies name error codes, never what stands behind them."""
        if path == "/livez":
            return self._liveness()
        if path not in ("/readyz", "/metrics"):
            return 404, "not found: try /livez, /readyz or /metrics\n"
        if not self._database.acquire(timeout=REQUEST_SECONDS):
            return 503, _DATABASE_IS_BUSY
        try:
            return self._readiness() if path == "/readyz" else self._metrics()
        finally:
            self._database.release()

    def _liveness(self) -> tuple[int, str]:
        still = (time.monotonic_ns() - self._table.beaten_at) / 1e9
        if still > STILL_SECONDS:
            return 503, f"the supervisor has stood still for {still:.0f} seconds\n"
        return 200, "alive\n"

    def _readiness(self) -> tuple[int, str]:
        status, body = self._liveness()
        if status != 200:
            return status, body
        if not any(slot.state in (SlotState.IDLE, SlotState.BUSY) for slot in self._table.slots):
            return 503, "no worker is ready\n"
        try:
            with self._link.autocommit() as ledger:
                check_fitness(ledger, self._table)
        except RunledgerError as error:
            return 503, f"{error.code}\n"
        return 200, "ready\n"

    def _metrics(self) -> tuple[int, str]:
        try:
            self._collector = self._collector or Metrics(self._table.slots, self._board, self._link)
        except ImportError:
            return 501, "install the package prometheus-client to get metrics\n"
        return 200, self._collector.text()


class _Server(ThreadingHTTPServer):
    """Threads end with the process; nobody waits for a request that still runs."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is nothing that a person would ask about."""


class _UntilDeadline(io.RawIOBase):
    """What a client sends until a deadline for all of it, so that one byte a second is no way to stay for ever."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Raises TimeoutError when the deadline has passed."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``. Raises InvalidConfiguration."""
    host, separator, port = address.rpartition(":")
    if not separator or not (port.isascii() and port.isdigit() and int(port) < 65_536):
        raise InvalidConfiguration("the health address must look like 127.0.0.1:8080")
    return host.strip("[]") or "127.0.0.1", int(port)


def _listen(address: str, health: Health) -> ThreadingHTTPServer:
    place = parse_address(address)

    class Handler(BaseHTTPRequestHandler):
        server_version = "runledger"
        sys_version = ""

        def setup(self) -> None:
            super().setup()
            self.rfile = io.BufferedReader(_UntilDeadline(self.connection, time.monotonic() + REQUEST_SECONDS))

        def do_GET(self) -> None:
            status, body = health.answer(self.path.partition("?")[0])
            data = body.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """A probe every few seconds is nothing that a person would ask about."""

    try:
        return _Server(place, Handler)
    except OSError as error:
        raise InvalidConfiguration(f"cannot listen on {address}: {error.strerror}") from None

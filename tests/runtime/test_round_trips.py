"""A server process that stops answering: the deadline of a round trip is kept on this side, by this side's clock."""

import contextlib
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from runtime.benches import scalar
from runtime.hosts import Connection, Desk, Host, until

from runledger import DatabaseUnavailable, JobStatus
from runledger.runtime.link import DatabaseLink

StartHost = Callable[..., Host]
TIMEOUT_SECONDS = 1
SLACK_SECONDS = 1.0
BACKEND_OF = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"
    " ORDER BY backend_start DESC LIMIT 1"
)
IS_IDLE = "SELECT state = 'idle' FROM pg_stat_activity WHERE pid = %s"


@contextlib.contextmanager
def stopped(watcher: Connection, pid: int) -> Iterator[None]:
    """The server process does nothing inside the block; it had no statement when it was stopped, for at work it may
    hold a lock that the whole server needs. The test is skipped where the server runs elsewhere."""
    with contextlib.suppress(OSError):
        name = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"postgres" in name:
            until(lambda: _is_stopped_idle(watcher, pid), what="a moment without a statement")
            try:
                yield
            finally:
                os.kill(pid, signal.SIGCONT)
            return
    pytest.skip("the processes of this PostgreSQL cannot be stopped from here")


def _is_stopped_idle(watcher: Connection, pid: int) -> bool:
    """It is stopped, and had no statement; otherwise it goes on."""
    if scalar(watcher, IS_IDLE, pid):
        os.kill(pid, signal.SIGSTOP)
        if scalar(watcher, IS_IDLE, pid):
            return True
        os.kill(pid, signal.SIGCONT)
    return False


AUTHENTICATED = b"R" + struct.pack("!ii", 8, 0)
BACKEND_KEY = b"K" + struct.pack("!iii", 12, 4_711, 1)
READY_FOR_QUERY = b"Z" + struct.pack("!i", 5) + b"I"


@contextlib.contextmanager
def silent_server() -> Iterator[str]:
    """The URL of a server that lets everybody in and then says nothing: a pooler whose database hangs looks so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        thread = threading.Thread(target=_let_one_in, args=(listener,))
        thread.start()
        try:
            yield f"postgresql://someone@127.0.0.1:{listener.getsockname()[1]}/db?sslmode=disable&gssencmode=disable"
        finally:
            thread.join(30)


def _let_one_in(listener: socket.socket) -> None:
    """Until the client hangs up."""
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(30)
        connection.recv(4_096)
        connection.sendall(AUTHENTICATED + BACKEND_KEY + READY_FOR_QUERY)
        while connection.recv(4_096):
            pass


def test_a_call_to_a_stopped_server_fails_by_its_deadline_and_the_next_one_works(database_url: str) -> None:
    link = DatabaseLink(database_url, "runledger", "test", timeout_seconds=TIMEOUT_SECONDS)
    with link.autocommit() as ledger:
        backend = ledger.driver.info.backend_pid

    with psycopg.connect(database_url, autocommit=True) as watcher, stopped(watcher, backend):
        began_at = time.monotonic()
        with pytest.raises(DatabaseUnavailable), link.autocommit() as ledger:
            ledger.driver.execute("SELECT 1")
        took = time.monotonic() - began_at

        with link.autocommit() as ledger:
            assert ledger.driver.info.backend_pid != backend

    assert TIMEOUT_SECONDS <= took < TIMEOUT_SECONDS + SLACK_SECONDS
    link.close()


def test_the_deadline_holds_from_the_first_word_on_a_new_connection() -> None:
    with silent_server() as url:
        link = DatabaseLink(url, "runledger", "test", timeout_seconds=TIMEOUT_SECONDS)
        began_at = time.monotonic()
        with pytest.raises(DatabaseUnavailable), link.autocommit():
            raise AssertionError("there is nobody to talk to")
        took = time.monotonic() - began_at

    assert TIMEOUT_SECONDS <= took < TIMEOUT_SECONDS + SLACK_SECONDS


@pytest.mark.process
@pytest.mark.parametrize("role", ["worker-0", "keeper"])
def test_a_process_whose_server_process_stopped_goes_on_over_another_connection(
    desk: Desk, start_host: StartHost, role: str
) -> None:
    host = start_host(JOBS_DATABASE_TIMEOUT_SECONDS=TIMEOUT_SECONDS).ready()
    until(lambda: desk.scalar("SELECT count(*) FROM runledger.job_listeners"), what="the end of the keeper's echo")
    backend = until(lambda: _backend(desk, role), what=f"a connection of the {role}")

    with stopped(desk.connection, backend):
        stopped_at = time.monotonic()
        [failed] = host.wait_for_event("tick.failed")[:1]
        noticed = time.monotonic() - stopped_at
        replacement = until(lambda: _backend(desk, role) not in (None, backend), what="another connection")
        job_id = desk.one("work")
        assert desk.wait_for_end(job_id).status is JobStatus.SUCCEEDED

    assert replacement
    assert failed["code"] == "db.unavailable"
    assert noticed < 1.0 + TIMEOUT_SECONDS + SLACK_SECONDS, "longest pause between two calls, deadline, slack"
    assert desk.outcomes(job_id) == ["SUCCEEDED"]
    assert len(host.events("worker.ready")) == 1, "the worker lives on"
    assert host.stop() == 0


def _backend(desk: Desk, role: str) -> int | None:
    row = desk.connection.execute(BACKEND_OF, (f"runledger:{role}",)).fetchone()
    return None if row is None else int(row[0])

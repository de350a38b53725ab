"""An application waits for an answer of the database as long as its ledger says, whatever became of the server or of
the way to it, and is told so by an error that names no secret."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from chaos.nemesis import Fault
from chaos.proxy import Proxy
from runtime.crashing import CrashingServer, crashing_server, or_skipped
from runtime.forks import AS_WANTED, forked
from runtime.hosts import until
from runtime.networks import proxy_before, through

from runledger import DatabaseUnavailable, InvalidRequest, JobDefinition, JobRequest, Ledger, enqueue_job
from runledger.database import migrate
from runledger.postgres.connection import PsycopgConnection
from runledger.postgres.definitions import sync_definitions
from runledger.postgres.migrations import LOCK_MIGRATIONS
from runledger.testing import databases

TIMEOUT_SECONDS = 0.5
REACTION_SECONDS = 5.0
"""On a machine that has other things to do."""

SECRET = "a-password-that-nobody-sees"


@pytest.fixture
def proxy(own_database: str) -> Iterator[Proxy]:
    with psycopg.connect(own_database, autocommit=True) as connection:
        sync_definitions(connection, [JobDefinition("plain")])
    with proxy_before(own_database) as made:
        yield made


@pytest.fixture
def ledger(own_database: str, proxy: Proxy) -> Iterator[Ledger]:
    """Through the proxy, with a connection in its pool."""
    url = psycopg.conninfo.make_conninfo(through(proxy, own_database), password=SECRET)
    with Ledger(url, pool_size=1, timeout_seconds=TIMEOUT_SECONDS) as made:
        made.enqueue("plain")
        yield made
        proxy.heal()


@contextlib.contextmanager
def told_in_time() -> Iterator[None]:
    """The block ends with DatabaseUnavailable, soon, and without the password."""
    began_at = time.monotonic()
    with pytest.raises(DatabaseUnavailable, match="did not answer in time") as raised:
        yield
    assert time.monotonic() - began_at < REACTION_SECONDS
    assert SECRET not in f"{raised.value!r} {raised.value.internal_message} {raised.value.__cause__!r}"


def test_an_enqueue_into_a_black_hole_ends_and_the_same_ledger_works_afterwards(
    ledger: Ledger, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.break_by(Fault.BLACK_HOLE)
    with told_in_time():
        ledger.enqueue("plain", idempotency_key="one")
    proxy.heal()

    first = ledger.enqueue("plain", idempotency_key="one")
    assert ledger.enqueue("plain", idempotency_key="one").job_id == first.job_id
    assert SECRET not in caplog.text


def test_a_commit_into_a_black_hole_ends(ledger: Ledger, proxy: Proxy) -> None:
    with told_in_time(), ledger.begin() as connection:
        enqueue_job(connection, JobRequest("plain"))
        proxy.break_by(Fault.BLACK_HOLE)


def test_the_time_that_an_application_takes_between_two_statements_does_not_count(
    ledger: Ledger, own_database: str
) -> None:
    with psycopg.connect(own_database, autocommit=True) as clock, ledger.begin() as connection:
        first = enqueue_job(connection, JobRequest("plain"))
        clock.execute("SELECT pg_sleep(%s)", (2 * TIMEOUT_SECONDS,))
        second = enqueue_job(connection, JobRequest("plain"))

    assert {str(ledger.get_job(one.job_id).status) for one in (first, second)} == {"PENDING"}


def test_a_migration_may_take_longer_than_an_answer(server_url: str) -> None:
    """Another migrator is at work for three times as long."""
    with (
        databases.ephemeral_database(server_url) as url,
        Ledger(url, pool_size=2, timeout_seconds=TIMEOUT_SECONDS) as ledger,
        psycopg.connect(url) as other,
    ):
        PsycopgConnection(other, "runledger").fetch(LOCK_MIGRATIONS, {"schema": "runledger"})
        done: list[Any] = []
        migrator = threading.Thread(target=lambda: done.append(migrate(ledger.database)))
        migrator.start()
        until(lambda: _waiters(url) == 1, what="a migrator that waits")
        other.execute("SELECT pg_sleep(%s)", (3 * TIMEOUT_SECONDS,))
        other.commit()
        migrator.join(30)

    assert len(done) == 1
    assert done[0] != ()


def _waiters(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
            " WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
        ).fetchone()
    return 0 if row is None else int(row[0])


@pytest.mark.parametrize("nonsense", [0, -1, float("nan"), True, "30"])
def test_a_timeout_that_is_none_is_refused(database_url: str, nonsense: Any) -> None:
    with pytest.raises(InvalidRequest, match="timeout_seconds"):
        Ledger(database_url, timeout_seconds=nonsense)


@pytest.fixture(scope="module")
def server() -> Iterator[CrashingServer]:
    with or_skipped(crashing_server()) as made:
        migrate(made.url)
        with psycopg.connect(made.url, autocommit=True) as connection:
            sync_definitions(connection, [JobDefinition("plain")])
        yield made


@pytest.mark.process
def test_an_enqueue_on_a_stopped_server_ends_and_the_same_ledger_works_afterwards(server: CrashingServer) -> None:
    with Ledger(server.url, pool_size=1, timeout_seconds=TIMEOUT_SECONDS) as ledger:
        ledger.enqueue("plain")

        with server.stopped(), told_in_time():
            ledger.enqueue("plain", idempotency_key="stopped")

        assert ledger.enqueue("plain", idempotency_key="stopped").job_id
        assert not ledger.enqueue("plain", idempotency_key="stopped").is_new


@pytest.mark.process
def test_an_enqueue_on_a_stopped_backend_ends(server: CrashingServer) -> None:
    with Ledger(server.url, pool_size=1, timeout_seconds=TIMEOUT_SECONDS) as ledger:
        assert_it_ends(ledger)
        assert ledger.enqueue("plain").is_new


@pytest.mark.process
def test_a_child_after_a_fork_has_the_same_deadline_and_leaves_the_parent_alone(server: CrashingServer) -> None:
    with Ledger(server.url, pool_size=1, timeout_seconds=TIMEOUT_SECONDS) as ledger:
        backend = _backend_of(ledger)

        def child() -> bool:
            assert_it_ends(ledger)
            return ledger.enqueue("plain").is_new

        assert forked(child) == AS_WANTED
        assert _backend_of(ledger) == backend


def assert_it_ends(ledger: Ledger) -> None:
    """While its own backend, of whatever process, is stopped."""
    backend = _backend_of(ledger)
    os.kill(backend, signal.SIGSTOP)
    try:
        with told_in_time():
            ledger.enqueue("plain")
    finally:
        os.kill(backend, signal.SIGCONT)


def _backend_of(ledger: Ledger) -> int:
    with ledger.database.autocommit() as connection:
        assert isinstance(connection, PsycopgConnection)
        return connection.driver.info.backend_pid

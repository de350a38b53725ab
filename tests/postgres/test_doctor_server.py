"""The checks that ask about the whole server, each with what it looks for broken on a server of this module's own."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from postgres.observing import Connection, until

from runledger.core.checkups import CheckStatus
from runledger.database import migrate
from runledger.database.doctor import run_doctor
from runledger.embedded import TEST_SETTINGS, EmbeddedServer
from runledger.postgres.checks.check import sql_check
from runledger.postgres.checks.storage import PREPARED_TRANSACTIONS

SETTINGS = TEST_SETTINGS | {"max_prepared_transactions": "2", "wal_level": "replica", "max_replication_slots": "2"}


@pytest.fixture(scope="module")
def own_server() -> Iterator[str]:
    home = Path(tempfile.mkdtemp(prefix="runledger-doctor-"))
    server = EmbeddedServer(home, SETTINGS)
    try:
        url = server.start()
        migrate(url)
        yield url
    finally:
        server.destroy()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def connection(own_server: str) -> Iterator[Connection]:
    with psycopg.connect(own_server, autocommit=True) as connection:
        yield connection


def found(url: str, name: str) -> str:
    """The first finding of the check; empty when it passes."""
    [result] = run_doctor(url, names=[name]).results
    assert result.status in (CheckStatus.PASSED, CheckStatus.FOUND)
    return result.findings[0] if result.findings else ""


def test_autovacuum_that_is_off_is_found(own_server: str, connection: Connection) -> None:
    assert found(own_server, "autovacuum") == ""
    connection.execute("ALTER SYSTEM SET autovacuum = off")
    connection.execute("SELECT pg_reload_conf()")
    try:
        assert until(lambda: found(own_server, "autovacuum")) == "autovacuum is off"
    finally:
        connection.execute("ALTER SYSTEM RESET autovacuum")
        connection.execute("SELECT pg_reload_conf()")


def test_a_replication_slot_that_nobody_reads_is_found(own_server: str, connection: Connection) -> None:
    assert found(own_server, "replication-slots") == ""
    connection.execute("SELECT pg_create_physical_replication_slot('forgotten', true)")
    try:
        assert "forgotten" in found(own_server, "replication-slots")
    finally:
        connection.execute("SELECT pg_drop_replication_slot('forgotten')")


def test_a_prepared_transaction_that_is_left_is_found(own_server: str, connection: Connection) -> None:
    """It is as old as the server says, so the check is asked for moments instead of minutes."""
    impatient = sql_check("impatient", "", "", PREPARED_TRANSACTIONS.replace("5 minutes", "0 seconds"))
    connection.execute("BEGIN; CREATE TABLE left_behind (id int); PREPARE TRANSACTION 'forgotten'")
    try:
        [result] = run_doctor(own_server, checks=[impatient]).results
        assert "forgotten" in result.findings[0]
        assert found(own_server, "prepared-transactions") == ""
    finally:
        connection.execute("ROLLBACK PREPARED 'forgotten'")


def test_dead_rows_that_vacuum_does_not_take_away_are_found(own_server: str, connection: Connection) -> None:
    assert found(own_server, "dead-rows") == ""
    connection.execute("ALTER TABLE runledger.job_ready SET (autovacuum_enabled = false)")
    connection.execute(
        "INSERT INTO runledger.job_ready (job_id, next_run_at, priority, job_type)"
        " SELECT runledger.uuidv7(), now(), 0, 'x' FROM generate_series(1, 100001)"
    )
    connection.execute("DELETE FROM runledger.job_ready")
    connection.execute("SELECT pg_stat_force_next_flush()")
    try:
        assert "job_ready" in until(lambda: found(own_server, "dead-rows"))
    finally:
        connection.execute("VACUUM runledger.job_ready")
        connection.execute("ALTER TABLE runledger.job_ready RESET (autovacuum_enabled)")

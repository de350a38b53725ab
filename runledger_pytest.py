"""The pytest plugin of Runledger: ``runledger_db``, ``runledger_tx``, ``runledger_ledger``.

It stands beside the package, because pytest loads it into every run of every project of the environment, and importing
``runledger`` takes a tenth of a second. Everything is imported when the first fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import psycopg

    from runledger.testing import LedgerForTests


@pytest.fixture(scope="session")
def _runledger_template() -> Iterator[tuple[str, str]]:
    """The server's URL, and the name of a database on it that has our schema."""
    from runledger.database import migrate
    from runledger.postgres.migrations import bundled_migrations
    from runledger.testing import server_choice
    from runledger.testing.databases import migrated_template

    with server_choice.test_server() as url:
        checksum = "".join(migration.checksum for migration in bundled_migrations())
        yield url, migrated_template(url, migrate=migrate, checksum=checksum)


@pytest.fixture(scope="session")
def _runledger_shared_db(_runledger_template: tuple[str, str]) -> Iterator[str]:
    """One database for all tests that roll back."""
    from runledger.testing import ephemeral_database

    server_url, template = _runledger_template
    with ephemeral_database(server_url, template, prefix="runledger_tx") as url:
        yield url


@pytest.fixture
def runledger_db(_runledger_template: tuple[str, str]) -> Iterator[str]:
    """The URL of a migrated database for this test alone, dropped afterwards.

    The server: RUNLEDGER_TEST_DATABASE_URL, else an embedded one, else Docker; without any the test fails.
    """
    from runledger.testing import ephemeral_database

    server_url, template = _runledger_template
    with ephemeral_database(server_url, template, prefix="runledger_test") as url:
        yield url


@pytest.fixture
def runledger_ledger(runledger_db: str) -> Iterator[LedgerForTests]:
    """A ``Ledger`` on ``runledger_db`` that can also ``sync``, ``drain``, ``travel`` and ``assert_enqueued``."""
    from runledger.testing import LedgerForTests

    ledger = LedgerForTests(runledger_db)
    yield ledger
    ledger.close()


@pytest.fixture
def runledger_tx(_runledger_shared_db: str) -> Iterator[psycopg.Connection[Any]]:
    """A psycopg connection in a transaction that is rolled back afterwards. Its database is shared by the session's
    tests and stays empty, so it is there in a millisecond; only this connection sees what the test enqueues."""
    import psycopg

    with psycopg.connect(_runledger_shared_db) as connection:
        try:
            yield connection
        finally:
            connection.rollback()

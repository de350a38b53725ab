"""A drain finds the database behind whatever connection the test has."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine

from runledger import JobCatalog, Ledger
from runledger.core.errors import InvalidConfiguration
from runledger.testing import drain
from runledger.testing.targets import target_of

KINDS: dict[str, Callable[[str], Any]] = {
    "psycopg": lambda url: psycopg.connect(url, autocommit=True),
    "psycopg2": lambda url: _psycopg2(url),
    "sqlalchemy": lambda url: create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(url, autocommit=True)
    ).connect(),
}


def _psycopg2(url: str) -> Any:
    import psycopg2

    connection = psycopg2.connect(url)
    connection.autocommit = True
    return connection


@pytest.mark.parametrize("kind", KINDS)
def test_due_jobs_run_in_the_database_of_the_connection(kind: str, runledger_db: str) -> None:
    catalog = JobCatalog()
    catalog.job("mail.send")(lambda context, payload: payload)
    with Ledger(runledger_db) as ledger:
        with ledger.begin() as connection:
            catalog.sync_definitions(connection)
        ledger.enqueue("mail.send", {"to": "ada"})
    connection = KINDS[kind](runledger_db)
    try:
        assert drain(connection, catalog).check().outputs == [{"to": "ada"}]
    finally:
        connection.close()


def test_a_connection_in_a_transaction_is_refused(runledger_tx: psycopg.Connection) -> None:
    with pytest.raises(InvalidConfiguration, match="is in a transaction") as refused:
        drain(runledger_tx, JobCatalog())
    assert "runledger_ledger" in str(refused.value.hint)


def test_the_password_goes_along(runledger_db: str) -> None:
    with psycopg.connect(runledger_db, autocommit=True, password="sesame") as connection:
        assert "password=sesame" in target_of(connection, None)[0]

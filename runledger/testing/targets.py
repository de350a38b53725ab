"""Where a worker of a test connects to: a URL, or the database behind a connection that the test has already."""

from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from runledger.core.errors import InvalidConfiguration
from runledger.postgres.connection import (
    AnyConnection,
    DjangoConnection,
    LedgerConnection,
    Psycopg2Connection,
    PsycopgConnection,
    SqlAlchemyConnection,
    borrow,
    default_schema,
)


def target_of(database: str | AnyConnection, schema: str | None) -> tuple[str, str]:
    """Connection string and schema of a URL, or of what ``borrow`` takes.

    Raises InvalidConfiguration for a connection in a transaction: what it wrote is not there for any other one.
    """
    if isinstance(database, str):
        return database, default_schema() if schema is None else schema
    ledger = borrow(database, schema)
    if not ledger.is_autocommit:
        raise InvalidConfiguration(
            "jobs run on connections of their own, which see only what is committed; this one is in a transaction",
            hint="in Django derive the test from TransactionTestCase; with pytest take the fixture runledger_ledger",
        )
    return _conninfo(_driver_of(ledger)), ledger.schema


def _driver_of(ledger: LedgerConnection) -> Any:
    if isinstance(ledger, SqlAlchemyConnection):
        return ledger.core.connection.driver_connection
    if isinstance(ledger, DjangoConnection):
        ledger.django.ensure_connection()
        return ledger.django.connection
    assert isinstance(ledger, PsycopgConnection | Psycopg2Connection)
    return ledger.driver


def _conninfo(driver: Any) -> str:
    """The driver's parameters, and the password that it keeps apart from them."""
    is_psycopg = isinstance(driver, psycopg.Connection)
    parameters = driver.info.get_parameters() if is_psycopg else driver.info.dsn_parameters
    return make_conninfo(**parameters, **({"password": driver.info.password} if driver.info.password else {}))

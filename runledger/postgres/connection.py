"""Somebody else's connection as ours: one small face over psycopg, psycopg2, SQLAlchemy and Django connections.

Borrowing changes nothing on the connection and never ends its transaction. Rows come back as plain tuples whatever
row factory the owner set, and JSON crosses as text both ways, because each owner decodes it differently.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeAlias

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from sqlalchemy import Connection as CoreConnection
from sqlalchemy.exc import DBAPIError

from runledger.core.blocking import warn_in_event_loop
from runledger.core.errors import InvalidConfiguration, TransactionAborted
from runledger.postgres.statements import Call, Parameters, Row, Statement, check_schema_name
from runledger.postgres.tables import SCHEMA
from runledger.postgres.violations import error_for

AnyConnection: TypeAlias = Any
"""A psycopg or psycopg2 connection, a SQLAlchemy ``Connection`` or ORM ``Session``, a Django connection, or a
``Ledger``'s."""


LINES_AT_ONCE = 200
"""Of a COPY: some tens of kilobytes, so that the server works while the next ones are joined."""


class LedgerConnection:
    """A connection together with the schema that our tables live in. Make one with ``borrow``."""

    __slots__ = ("schema",)

    def __init__(self, schema: str) -> None:
        self.schema = schema

    def fetch(self, statement: Statement, parameters: Parameters | None = None) -> list[Row]:
        """Every row that ``statement`` returns. Raises the error of ours that says what the database refused."""
        with self._translated():
            return self._execute(statement, parameters or {})

    def fetch_each(self, calls: Iterable[Call]) -> Iterator[list[Row]]:
        """The rows of each call in turn, which is made when its rows are asked for, or before: read all of them."""
        for statement, parameters in calls:
            yield self.fetch(statement, parameters)

    def copy_lines(self, target: str, lines: Iterable[str]) -> None:
        """Writes ``lines``, each a row in COPY's text format, into ``target``: ``table (columns)`` without a schema.

        They are asked for while the server writes those before them.
        """
        remaining = iter(lines)
        with (
            self._translated(),
            self._driver_cursor() as cursor,
            cursor.copy(f"COPY {self.schema}.{target} FROM STDIN") as copy,
        ):
            while some := "".join(islice(remaining, LINES_AT_ONCE)):
                copy.write(some)

    @property
    def is_autocommit(self) -> bool:
        """Whether each statement would commit by itself, because no transaction is open and none would begin."""
        raise NotImplementedError

    @property
    def driver_connection(self) -> Any:
        """The connection of psycopg or psycopg2 underneath, which outlives what wraps it."""
        raise NotImplementedError

    def _execute(self, statement: Statement, parameters: Parameters) -> list[Row]:
        raise NotImplementedError

    @contextmanager
    def _driver_cursor(self) -> Iterator[psycopg.Cursor[Row]]:
        """The driver's own cursor, for COPY."""
        raise NotImplementedError
        yield  # type: ignore[unreachable]  # makes this a generator, which the decorator needs

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.Error, DBAPIError) as error:
            raise error_for(error) from None

    @property
    def can_copy(self) -> bool:
        return True


class PsycopgConnection(LedgerConnection):
    """Over a psycopg connection: our own pool's, or the caller's. On the caller's, the driver alone decides what is
    prepared: nobody here knows whether a pooler lends the session to somebody else afterwards."""

    __slots__ = ("_is_borrowed", "driver")

    def __init__(self, driver: psycopg.Connection[Any], schema: str, *, is_borrowed: bool = False) -> None:
        super().__init__(schema)
        self.driver = driver
        self._is_borrowed = is_borrowed

    @property
    def is_autocommit(self) -> bool:
        return self.driver.autocommit and self.driver.info.transaction_status == TransactionStatus.IDLE

    @property
    def driver_connection(self) -> Any:
        return self.driver

    def _execute(self, statement: Statement, parameters: Parameters) -> list[Row]:
        with self.driver.cursor(row_factory=tuple_row) as cursor:
            is_asked_for = statement.is_prepared and not self._is_borrowed
            cursor.execute(statement.text(self.schema).encode(), parameters, prepare=is_asked_for or None)
            result = cursor.pgresult  # asking for its description costs a tenth of an enqueue
            return cursor.fetchall() if result is not None and result.nfields else []

    @contextmanager
    def _driver_cursor(self) -> Iterator[psycopg.Cursor[Row]]:
        with self.driver.cursor(row_factory=tuple_row) as cursor:
            yield cursor


class PipelinedConnection(PsycopgConnection):
    """Over a psycopg connection of our own that is in pipeline mode and in a transaction. For statements that return
    rows, if only none."""

    __slots__ = ()

    @property
    def is_autocommit(self) -> bool:
        return False

    def fetch_each(self, calls: Iterable[Call]) -> Iterator[list[Row]]:
        """The rows of each call in turn. All calls are sent at once: one round trip, whatever their number."""
        for cursor in [self._send(*call) for call in calls]:
            with self._translated():
                rows = cursor.fetchall()
            yield rows

    def _execute(self, statement: Statement, parameters: Parameters) -> list[Row]:
        return self._send(statement, parameters).fetchall()

    def _send(self, statement: Statement, parameters: Parameters) -> psycopg.Cursor[Row]:
        return self.driver.execute(statement.text(self.schema).encode(), parameters)


class Psycopg2Connection(LedgerConnection):
    """Over a connection of psycopg2. It has no COPY that our statements could use, so long batches go in chunks."""

    __slots__ = ("driver",)

    def __init__(self, driver: Any, schema: str) -> None:
        super().__init__(schema)
        self.driver = driver

    @property
    def is_autocommit(self) -> bool:
        from psycopg2.extensions import TRANSACTION_STATUS_IDLE

        return bool(self.driver.autocommit) and self.driver.get_transaction_status() == TRANSACTION_STATUS_IDLE

    @property
    def driver_connection(self) -> Any:
        return self.driver

    @property
    def can_copy(self) -> bool:
        return False

    def _execute(self, statement: Statement, parameters: Parameters) -> list[Row]:
        from psycopg2.extensions import cursor as tuple_cursor

        with self.driver.cursor(cursor_factory=tuple_cursor) as cursor:
            cursor.execute(statement.text(self.schema), parameters)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from psycopg2 import Error as Psycopg2Error

        try:
            yield
        except Psycopg2Error as error:
            raise error_for(error) from None


class SqlAlchemyConnection(LedgerConnection):
    """Over a SQLAlchemy Core connection; statements run through it, so its events fire."""

    __slots__ = ("core",)

    def __init__(self, core: CoreConnection, schema: str) -> None:
        super().__init__(schema)
        self.core = core

    @property
    def is_autocommit(self) -> bool:
        return bool(self.driver_connection.autocommit)  # the isolation level that SQLAlchemy knows does not tell

    @property
    def driver_connection(self) -> Any:
        return self.core.connection.driver_connection

    @property
    def can_copy(self) -> bool:
        return isinstance(self.driver_connection, psycopg.Connection)

    def _execute(self, statement: Statement, parameters: Parameters) -> list[Row]:
        result = self.core.exec_driver_sql(statement.text(self.schema), parameters)
        return [tuple(row) for row in result] if result.returns_rows else []

    @contextmanager
    def _driver_cursor(self) -> Iterator[psycopg.Cursor[Row]]:
        driver = self.driver_connection
        if not isinstance(driver, psycopg.Connection):
            raise InvalidConfiguration("COPY needs a psycopg 3 connection")
        with driver.cursor(row_factory=tuple_row) as cursor:
            yield cursor


class DjangoConnection(LedgerConnection):
    """Over a Django connection; its cursor wrapper keeps Django's own state of the transaction right."""

    __slots__ = ("django",)

    def __init__(self, django: Any, schema: str) -> None:
        super().__init__(schema)
        self.django = django

    @property
    def is_autocommit(self) -> bool:
        return not self.django.in_atomic_block and bool(self.django.get_autocommit())

    @property
    def driver_connection(self) -> Any:
        return self.django.connection

    @property
    def can_copy(self) -> bool:
        self.django.ensure_connection()
        return isinstance(self.django.connection, psycopg.Connection)

    def _execute(self, statement: Statement, parameters: Parameters) -> list[Row]:
        with self.django.cursor() as cursor:
            cursor.execute(statement.text(self.schema), parameters)
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []

    @contextmanager
    def _driver_cursor(self) -> Iterator[psycopg.Cursor[Row]]:
        with self.django.cursor():  # opens the connection and refuses in a broken atomic block
            pass
        with self.django.connection.cursor(row_factory=tuple_row) as cursor:
            yield cursor

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from django.db import Error as DjangoError
        from django.db.transaction import TransactionManagementError

        try:
            yield
        except TransactionManagementError:
            raise TransactionAborted("the transaction has already failed; roll it back first") from None
        except (DjangoError, psycopg.Error) as error:  # a COPY goes past Django's cursor
            raise error_for(error) from None


def is_in_transaction(driver_connection: Any) -> bool:
    """Whether a transaction is open on this connection of psycopg or psycopg2, as far as this side knows."""
    if driver_connection.closed:
        return False
    return driver_connection.info.transaction_status not in (TransactionStatus.IDLE, TransactionStatus.UNKNOWN)


def default_schema() -> str:
    """``RUNLEDGER_SCHEMA``, else ``runledger``."""
    return check_schema_name(os.environ.get("RUNLEDGER_SCHEMA") or SCHEMA)


def borrow(connection: AnyConnection, schema: str | None = None) -> LedgerConnection:
    """``connection`` as ours, for the functions of this package; its transaction stays the owner's.

    Raises InvalidConfiguration for anything that is none of the kinds named by ``AnyConnection``.
    """
    warn_in_event_loop()
    if isinstance(connection, LedgerConnection):
        return connection
    schema = default_schema() if schema is None else check_schema_name(schema)
    if isinstance(connection, psycopg.Connection):
        if connection.pgconn.pipeline_status:
            raise InvalidConfiguration("the connection is in pipeline mode; leave it first")
        return PsycopgConnection(connection, schema, is_borrowed=True)
    if isinstance(connection, CoreConnection):
        return SqlAlchemyConnection(connection, schema)
    return _borrow_wrapped(connection, schema)


def _borrow_wrapped(connection: Any, schema: str) -> LedgerConnection:
    kinds = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(connection).__mro__}
    if "sqlalchemy.orm.session.Session" in kinds or "sqlalchemy.orm.scoping.scoped_session" in kinds:
        return SqlAlchemyConnection(connection.connection(), schema)
    if "psycopg2.extensions.connection" in kinds:
        return Psycopg2Connection(connection, schema)
    if any(kind.startswith(("django.db.", "django.utils.connection.")) for kind in kinds):
        if connection.vendor != "postgresql":
            raise InvalidConfiguration(f"the Django database {connection.alias!r} is not PostgreSQL")
        return DjangoConnection(connection, schema)
    raise InvalidConfiguration(
        f"cannot use a {type(connection).__name__} as a connection; pass a psycopg, psycopg2, SQLAlchemy or "
        "Django connection"
    )

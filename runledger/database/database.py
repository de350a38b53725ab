"""A database as an application uses it: a pool that opens on first use, in the process that uses it."""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from runledger.core.errors import DatabaseUnavailable, RunledgerError
from runledger.core.limits import MAX_DELAY_SECONDS, check_number
from runledger.database.bounded import BoundedConnection
from runledger.database.settings import connection_info, target_of
from runledger.postgres.connection import LedgerConnection, PsycopgConnection, default_schema
from runledger.postgres.statements import check_schema_name
from runledger.postgres.violations import error_for

POOL_SIZE = 10
ACQUIRE_TIMEOUT_SECONDS = 10.0
SHORTEST_TIMEOUT_SECONDS = 0.1
CONNECTION_MAX_AGE_SECONDS = 1_800.0
PATIENCE_SECONDS = 5.0
"""How much later than the server this side gives up."""

SESSION_SETTINGS = "; ".join(
    f"SET {setting}"
    for setting in (
        "plan_cache_mode = force_generic_plan",
        "enable_seqscan = off",
        "enable_bitmapscan = off",
        "enable_hashjoin = off",
        "enable_mergejoin = off",
        "jit = off",
        "lock_timeout = '1s'",
        "default_transaction_isolation = 'read committed'",
        "idle_in_transaction_session_timeout = '30s'",
    )
)
"""The statements of the processes know their rows by key, so the right plan walks indexes, however full the tables are.
A plan that the server chose while the queue was empty reads it whole behind 50,000 jobs (65 ms); a fresh plan for each
call costs more than the call (0.7 against 0.25 ms for an idle look). Saying so once gives the good plan for nothing.

No wait for a lock is longer than a second: whatever holds one, a worker has other jobs to settle. READ COMMITTED lets a
claim see the leases that were committed before it, which count against limits. And a host that lost its power between a
claim and its commit keeps its locks for half a minute only."""

ONLY_ON_REQUEST = 2**31
"""Executions of a statement after which the driver would prepare it by itself: never."""


class Database:
    """Connections to one database and one schema. Cheap to make: nothing is opened before the first use.

    Safe across fork: a pool belongs to the process that opened it, and a child opens its own. At most ``pool_size``
    connections, each at most half an hour old; waiting for one ends after ten seconds with DatabaseUnavailable, and
    waiting for an answer after ``timeout_seconds``, or never.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str | None = None,
        pool_size: int = POOL_SIZE,
        timeout_seconds: float | None = None,
    ) -> None:
        self._conninfo = connection_info(url, "runledger")
        self.target = target_of(url)
        self.schema = default_schema() if schema is None else check_schema_name(schema)
        self._pool_size = pool_size
        self._timeout_seconds = None if timeout_seconds is None else _checked(timeout_seconds)
        self._pool: ConnectionPool[BoundedConnection] | None = None
        self._pool_pid = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def begin(self) -> Iterator[LedgerConnection]:
        """A transaction: committed at the end of the block, rolled back when it raises."""
        with self._connection() as driver, driver.transaction():
            yield PsycopgConnection(driver, self.schema)

    @contextlib.contextmanager
    def autocommit(self) -> Iterator[LedgerConnection]:
        """A connection on which each statement commits by itself: for one statement, two round trips less."""
        with self._connection() as driver:
            yield PsycopgConnection(driver, self.schema)

    def close(self) -> None:
        """Every connection of this process is closed; the next use opens new ones."""
        with self._lock:
            pool, self._pool = self._pool, None
            if pool is not None and self._pool_pid == os.getpid():
                pool.close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[BoundedConnection]:
        try:
            with self._open_pool().connection(ACQUIRE_TIMEOUT_SECONDS) as driver:
                driver.timeout_seconds = self._timeout_seconds
                with _closing_when_unavailable(driver):
                    yield driver
        except RunledgerError:
            raise
        except (PoolTimeout, PoolClosed) as error:
            raise DatabaseUnavailable(
                f"no connection to {self.target} within {ACQUIRE_TIMEOUT_SECONDS:.0f} seconds",
                internal_message=str(error),
            ) from None
        except psycopg.Error as error:
            raise error_for(error) from None

    def _open_pool(self) -> "ConnectionPool[BoundedConnection]":
        with self._lock:
            if self._pool is None or self._pool_pid != os.getpid():
                self._check_reachable()
                self._pool = self._make_pool()
                self._pool_pid = os.getpid()
            return self._pool

    def _make_pool(self) -> "ConnectionPool[BoundedConnection]":
        return ConnectionPool(
            self._conninfo,
            connection_class=BoundedConnection,
            min_size=0,
            max_size=self._pool_size,
            max_lifetime=CONNECTION_MAX_AGE_SECONDS,
            kwargs={"autocommit": True, "prepare_threshold": None},
            configure=self._configure,
            open=True,
        )

    def _check_reachable(self) -> None:
        """One connection is tried at once, so that a wrong URL fails with its reason and not as a pool timeout."""
        connect(self._conninfo, self.target, timeout_seconds=self._timeout_seconds).close()

    def _configure(self, driver: BoundedConnection) -> None:
        """Statements that ask for it are prepared, which doubles the speed of a single enqueue; others never are."""
        driver.timeout_seconds = self._timeout_seconds
        driver.prepare_threshold = ONLY_ON_REQUEST if is_direct(driver) else None


@contextlib.contextmanager
def _closing_when_unavailable(driver: BoundedConnection) -> Iterator[None]:
    """A connection over which the database is not to be had, one to a demoted primary for example, is of no more use:
    it is closed, and the pool opens another."""
    try:
        yield
    except DatabaseUnavailable:
        driver.close()
        raise
    except psycopg.Error as error:
        translated = error_for(error)
        if isinstance(translated, DatabaseUnavailable):
            driver.close()
        raise translated from None


def allow_seconds(connection: LedgerConnection, seconds: float | None) -> None:
    """An answer on this connection of a ``Database`` may take this long, None for as long as it takes, until the
    connection goes back."""
    if isinstance(connection, PsycopgConnection) and isinstance(connection.driver, BoundedConnection):
        connection.driver.timeout_seconds = seconds


def only_read(connection: LedgerConnection, *, within_seconds: float) -> None:
    """The transaction that begins with this call changes nothing, and each of its statements ends in time: by the
    server, or soon after by this side, where the server cannot even do that."""
    assert isinstance(connection, PsycopgConnection)
    allow_seconds(connection, within_seconds + PATIENCE_SECONDS)
    milliseconds = sql.Literal(max(1, round(within_seconds * 1_000)))
    connection.driver.execute(sql.SQL("SET TRANSACTION READ ONLY"))
    connection.driver.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(milliseconds))
    connection.driver.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(milliseconds))


def connect(conninfo: str, target: str, *, timeout_seconds: float | None = None) -> BoundedConnection:
    """One connection of our own in autocommit, for the processes that run jobs.

    Unless a pooler is in between, statements are prepared with one plan that is pinned to the indexes. An answer is
    waited for at most ``timeout_seconds``, from the first word on: a pooler lets everybody in, and is silent when its
    database is.

    Raises DatabaseUnavailable; the text names ``target`` and never the connection string.
    """
    driver = None
    try:
        driver = BoundedConnection.connect(conninfo, autocommit=True, prepare_threshold=None)
        driver.timeout_seconds = timeout_seconds
        if is_direct(driver):
            driver.execute(SESSION_SETTINGS)
            driver.prepare_threshold = 0
    except psycopg.Error as error:
        if driver is not None:
            driver.close()
        translated = error_for(error)
        raise DatabaseUnavailable(
            f"{target}: {translated}",
            internal_message=translated.internal_message,
            hint="check the URL, or the settings, that name it",
        ) from None
    return driver


def is_direct(driver: psycopg.Connection[Any]) -> bool:
    """Whether no transaction pooler is in between, where a prepared statement would be lost or met by others. A pooler
    cannot name the process of a server connection that it has not chosen yet: the id it made up gives it away."""
    row = driver.execute("SELECT pg_catalog.pg_backend_pid()").fetchone()
    return row is not None and row[0] == driver.info.backend_pid


def is_demoted(driver: psycopg.Connection[Any]) -> bool:
    """Whether the server has said, by itself and beside its last answer, that it takes no writes any more. A pooler in
    between says nothing."""
    status = driver.info.parameter_status
    return status("in_hot_standby") == "on" or status("default_transaction_read_only") == "on"


def _checked(seconds: float) -> float:
    return check_number(seconds, field="timeout_seconds", low=SHORTEST_TIMEOUT_SECONDS, high=MAX_DELAY_SECONDS)

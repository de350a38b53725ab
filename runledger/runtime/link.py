"""A process's own connection: opened when needed, given up when it breaks or grows old, opened again after a growing
pause. Every use has a deadline that this side keeps.

Each process has one, made after its fork. It remembers the process it belongs to and refuses any other.
"""

import contextlib
import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
from psycopg import sql

from runledger.core.errors import DatabaseUnavailable, InternalError, RunledgerError
from runledger.database.database import connect, is_demoted
from runledger.database.settings import CONNECT_TIMEOUT_SECONDS, connection_info, target_of
from runledger.postgres.connection import PipelinedConnection, PsycopgConnection
from runledger.postgres.statements import Call, Row
from runledger.postgres.violations import error_for

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
TIMEOUT_SECONDS = 10.0
ECHO_SECONDS = 1.0
LONGEST_AGE_SECONDS = 1_800.0
"""A connection is replaced after half an hour, so that a fleet follows a failover and a changed role."""

SLOW_SECONDS = 0.010
PLANS_LAST_SECONDS = 2.0
FIRST_PLANS_LAST_SECONDS = 0.1
"""A plan is kept until the server analyses the tables again, a minute or more. One that was made while a table had
a few rows may read all of it for each row of a batch once it has many. So plans are made anew after a use that took
longer than the bound above: by then the server sees how large the tables have become. At first soon, then half as often
each time, down to once in two seconds."""


class DatabaseLink:
    """The connection of one process. The lock is held for every use, because the attendant thread shares it.

    ``beat`` is called before every wait that has a deadline, for whoever watches the process.
    """

    def __init__(
        self,
        url: str,
        schema: str,
        role: str,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        beat: Callable[[], object] = bool,
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._beat = beat
        self._opened_at = self._planned_at = 0.0
        self._plans_last_seconds = FIRST_PLANS_LAST_SECONDS
        self._is_slow = False
        self._conninfo = connection_info(
            url, f"runledger:{role}", connect_timeout_seconds=min(timeout_seconds, CONNECT_TIMEOUT_SECONDS)
        )
        self.target = target_of(url)
        self.schema = schema
        self.lock = threading.RLock()
        self._pid = os.getpid()
        self._driver: psycopg.Connection[Any] | None = None
        self._failures = 0
        self.is_listening = False

    @contextlib.contextmanager
    def transaction(self) -> Iterator[PsycopgConnection]:
        """A transaction, committed at the end of the block. Raises DatabaseUnavailable when the link is broken."""
        with self._using() as driver, driver.transaction():
            yield PsycopgConnection(driver, self.schema)

    @contextlib.contextmanager
    def autocommit(self) -> Iterator[PsycopgConnection]:
        """Each statement commits by itself."""
        with self._using() as driver:
            yield PsycopgConnection(driver, self.schema)

    def run_together(self, *calls: Call) -> list[list[Row]]:
        """All statements in one transaction and one round trip; answers in their order."""
        with self._using() as driver:
            if len(calls) == 1:
                statement, parameters = calls[0]
                return [driver.execute(statement.text(self.schema).encode(), parameters).fetchall()]
            with driver.pipeline():
                cursors = [
                    driver.execute(statement.text(self.schema).encode(), parameters) for statement, parameters in calls
                ]
            return [cursor.fetchall() for cursor in cursors]

    @contextlib.contextmanager
    def pipelined(self) -> Iterator[PipelinedConnection]:
        """A transaction that is begun with the first statements and committed with the last ones; those that are made
        together take one round trip. Rolled back when the block raises."""
        with self._using() as driver:
            try:
                with driver.pipeline():
                    driver.execute(b"BEGIN")
                    yield PipelinedConnection(driver, self.schema)
                    driver.execute(b"COMMIT")
            except BaseException:
                with contextlib.suppress(psycopg.Error):
                    driver.rollback()
                raise

    def pause_seconds(self) -> float:
        """How long to wait before the next try: full jitter below a bound that doubles with each failure."""
        bound = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self._failures, 10))
        return random.uniform(0.0, bound)  # noqa: S311 - spreads reconnects; protects nothing

    def fileno(self) -> int | None:
        """The socket to wait on for notifications; None while there is no connection."""
        return None if self._driver is None or self._driver.closed else self._driver.fileno()

    def listen(self, channel: str) -> bool:
        """Whether notifications on ``channel`` arrive from now on, until the connection breaks.

        Found out by an echo: a second connection notifies, and the answer must come while this one is idle. Behind a
        pooler that lends server connections by transaction, it never does.
        """
        with self._using() as driver:
            if self.is_listening:
                return True
            driver.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            echo = f"echo-{secrets.token_hex(8)}"
            with contextlib.closing(self._connect()) as other:
                other.execute("SELECT pg_notify(%s, %s)", (channel, echo))
            with contextlib.closing(driver.notifies(timeout=ECHO_SECONDS)) as heard:  # it locks the connection
                self.is_listening = any(one.payload == echo for one in heard)
            if not self.is_listening:
                driver.execute(sql.SQL("UNLISTEN {}").format(sql.Identifier(channel)))
            return self.is_listening

    def take_notifications(self) -> list[str]:
        """The payloads that have arrived on the socket; never waits."""
        with self._using() as driver:
            return [notification.payload for notification in driver.notifies(timeout=0)]

    def close(self) -> None:
        """The connection is closed; the next use opens another one."""
        self.is_listening = False
        driver, self._driver = self._driver, None
        if driver is not None and self._pid == os.getpid():
            with contextlib.suppress(psycopg.Error):
                driver.close()

    @contextlib.contextmanager
    def _using(self) -> Iterator[psycopg.Connection[Any]]:
        if self._pid != os.getpid():
            raise InternalError("a database link must not be used in a process forked from its owner")
        with self.lock:
            driver = self._open()
            self._beat()
            began_at = time.monotonic()
            try:
                self._refresh_plans(driver, began_at)
                yield driver
            except DatabaseUnavailable:
                self._break()
                raise
            except RunledgerError:
                raise
            except psycopg.Error as error:
                if driver.broken or driver.closed:
                    self._break()
                translated = error_for(error)
                if isinstance(translated, DatabaseUnavailable):
                    self._break()
                raise translated from None
            self._is_slow = time.monotonic() - began_at > SLOW_SECONDS
            self._failures = 0
            if is_demoted(driver):
                self.close()  # who only reads would never be refused, and stay

    def _refresh_plans(self, driver: psycopg.Connection[Any], now: float) -> None:
        """Plans that may have been made for smaller tables are forgotten; the next use of a statement makes its own."""
        is_old = now - self._planned_at > self._plans_last_seconds
        if self._is_slow and is_old and driver.prepare_threshold == 0:
            driver.execute(b"DISCARD PLANS")
            self._planned_at = now
            self._plans_last_seconds = min(PLANS_LAST_SECONDS, 2 * self._plans_last_seconds)

    def _open(self) -> psycopg.Connection[Any]:
        if time.monotonic() - self._opened_at > LONGEST_AGE_SECONDS:
            self.close()
        if self._driver is None or self._driver.closed:
            self.is_listening = False
            try:
                self._driver = self._connect()
                self._opened_at = self._planned_at = time.monotonic()
                self._plans_last_seconds = FIRST_PLANS_LAST_SECONDS
            except DatabaseUnavailable:
                self._failures += 1
                raise
        return self._driver

    def _connect(self) -> psycopg.Connection[Any]:
        self._beat()
        return connect(self._conninfo, self.target, timeout_seconds=self._timeout_seconds)

    def _break(self) -> None:
        self._failures += 1
        self.close()

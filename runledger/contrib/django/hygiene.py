"""Django's connections around each job, as Django itself keeps them around each request."""

import contextlib
from collections.abc import Callable
from typing import Any

from django.db import close_old_connections, connections, reset_queries
from psycopg.pq import TransactionStatus

from runledger.core.context import JobContext
from runledger.core.middleware import Middleware


class ConnectionHygiene(Middleware):
    """Before and after each attempt, connections that are broken or older than CONN_MAX_AGE are closed, and the log of
    queries is emptied; after it also those whose query was interrupted. A connection in an atomic block, as in a test
    case, is left alone."""

    def around_attempt(self, context: JobContext, payload: Any, proceed: Callable[[], Any]) -> Any:
        """Whatever the handler does to a connection, the next attempt finds one that works, or opens one."""
        reset_queries()
        close_old_connections()
        try:
            return proceed()
        finally:
            _close_the_interrupted()
            close_old_connections()
            reset_queries()


def _close_the_interrupted() -> None:
    """A timeout or cancel may be raised while the server works; Django, which sees no error of the database, would use
    the connection again. The server is told to stop, lest the query goes on and commits."""
    for connection in connections.all(initialized_only=True):
        if connection.vendor != "postgresql" or connection.connection is None or connection.in_atomic_block:
            continue
        if connection.connection.info.transaction_status == TransactionStatus.ACTIVE:
            with contextlib.suppress(Exception):  # the server may be out of reach; the connection goes all the same
                connection.connection.cancel()
            connection.close()

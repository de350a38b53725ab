"""Django's connections around each job, as Django itself keeps them around each request."""

from collections.abc import Callable
from typing import Any

from django.db import close_old_connections, reset_queries

from runledger.core.context import JobContext
from runledger.core.middleware import Middleware


class ConnectionHygiene(Middleware):
    """Before and after each attempt, connections that are broken or older than CONN_MAX_AGE are closed, and the log of
    queries is emptied. A connection in an atomic block, as in a test case, is left alone."""

    def around_attempt(self, context: JobContext, payload: Any, proceed: Callable[[], Any]) -> Any:
        """Whatever the handler does to a connection, the next attempt finds one that works, or opens one."""
        reset_queries()
        close_old_connections()
        try:
            return proceed()
        finally:
            close_old_connections()
            reset_queries()

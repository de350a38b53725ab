"""A psycopg connection that waits for an answer as long as it was told and no longer.

A server that was stopped and a network that swallows everything defeat every timer of the server and, for a while, of
TCP. The driver wakes ten times a second while it waits; the deadline is looked at there, so it needs no thread and no
signal, and works on either side of a fork.
"""

import time
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import ConnectionTimeout

Answer = TypeVar("Answer")


class BoundedConnection(psycopg.Connection[Any]):
    """``timeout_seconds`` may be changed between two statements; None waits for ever.

    An answer that is overdue raises psycopg's ``ConnectionTimeout`` and closes the connection: what came later would be
    taken for the answer to the next statement. The clock runs only while nothing at all arrives.
    """

    timeout_seconds: float | None = None

    def wait(self, gen: PQGen[Answer], *args: Any, **kwargs: Any) -> Answer:
        """What the driver calls for every exchange with the server, a commit included."""
        if self.timeout_seconds is None:
            return super().wait(gen, *args, **kwargs)
        try:
            return super().wait(_until(gen, time.monotonic() + self.timeout_seconds), *args, **kwargs)
        except ConnectionTimeout:
            self.close()
            raise


def _until(gen: PQGen[Answer], deadline: float) -> PQGen[Answer]:
    """The same exchange, given up when nothing is ready and the deadline has passed."""
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                raise ConnectionTimeout("timeout expired: no answer")
            wanted = gen.send(ready)
    except StopIteration as end:
        answer: Answer = end.value
        return answer

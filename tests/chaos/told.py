"""The ledger outside of the database: what those who asked for something were told.

Every fact is one appended line of a file and, for the check at the end, a value here. What was told is one of three
things: done, not done (the commit was never asked for), or unknown (the answer to the commit was lost).
"""

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar

import psycopg

from runledger import RunledgerError, UnavailableError

Answer = TypeVar("Answer")


PREPARE_THRESHOLD = 5
"""What an application has that does not care."""


class Told(StrEnum):
    DONE = "DONE"
    NOT_DONE = "NOT_DONE"
    UNKNOWN = "UNKNOWN"


class Witness:
    """Thread-safe; every process of the soak that asks for something tells it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")
        self._lock = threading.Lock()
        self.acknowledged: list[str] = []
        self.batches: dict[str, tuple[int, Told]] = {}
        self.keyed: dict[str, set[str]] = {}
        self.runs: dict[str, set[str]] = {}
        self.endings: dict[str, set[str]] = {}
        """By run: the statuses in which it may end."""
        self.gates: dict[tuple[str, str], str] = {}
        """By run and step: how the gate ended, for those who were told that it is done."""
        self.appended: dict[tuple[str, str], int] = {}
        self.cancelled: set[str] = set()
        """Jobs that somebody asked to cancel and was not told that nothing happened."""
        self.certainly_cancelled: set[str] = set()
        self.asked: Counter[str] = Counter()
        self.surprises: list[str] = []
        """Errors that no caller could act on."""

    def note(self, what: str, told: Told, **facts: Any) -> None:
        with self._lock:
            self.asked[f"{what} {told}"] += 1
            self._file.write(json.dumps({"what": what, "told": told, **facts}, default=str) + "\n")

    def batch(self, name: str, job_ids: list[str], size: int, told: Told) -> None:
        self.note("batch", told, name=name, jobs=job_ids)
        self.batches[name] = (size, told)
        self.acknowledged.extend(job_ids)

    def surprise(self, what: str, error: BaseException) -> None:
        self.note("surprise", Told.NOT_DONE, where=what, error=repr(error))
        self.surprises.append(f"{what}: {error!r}")

    @property
    def unknown_commits(self) -> int:
        return sum(count for what, count in self.asked.items() if what.endswith(Told.UNKNOWN))

    def close(self) -> None:
        self._file.close()


class Line:
    """A connection of somebody who asks; opened again after each failure. Behind a pooler that lends connections by
    transaction, it must not prepare statements."""

    def __init__(self, url: str, *, is_pooled: bool = False) -> None:
        self._url = url
        self._prepare_threshold = None if is_pooled else PREPARE_THRESHOLD
        self._connection: psycopg.Connection[Any] | None = None

    def connection(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._url, autocommit=True, connect_timeout=5, prepare_threshold=self._prepare_threshold
            )
        return self._connection

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()


@dataclass(slots=True)
class Asked(Generic[Answer]):
    """What became of one transaction; ``answer`` is there when it is done, ``error`` when Runledger refused."""

    told: Told = Told.NOT_DONE
    answer: Answer | None = None
    error: RunledgerError | None = None


def ask(line: Line, what: Callable[[psycopg.Connection[Any]], Answer]) -> Asked[Answer]:
    """``what`` in one transaction on ``line``. A refusal of ours and a broken connection are facts, not failures; any
    other error is raised."""
    asked: Asked[Answer] = Asked()
    has_asked_to_commit = False
    try:
        connection = line.connection()
        with connection.transaction():
            answer = what(connection)
            has_asked_to_commit = True
        asked.told, asked.answer = Told.DONE, answer
    except RunledgerError as error:
        asked.error = error
        if isinstance(error, UnavailableError):
            line.close()
    except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError):
        asked.told = Told.UNKNOWN if has_asked_to_commit else Told.NOT_DONE
        line.close()
    return asked

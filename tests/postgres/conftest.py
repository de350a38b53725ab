"""Connections to one database for each module, emptied before every test."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from postgres.observing import Connection

from runledger.postgres.tables import metadata

Connect = Callable[..., Connection]
EMPTY_ALL = "; ".join(
    f"DELETE FROM {table.fullname}"
    for table in reversed(metadata.sorted_tables)
    if not table.info.get("is_view") and table.name != "runledger_migration_history"
)


@pytest.fixture
def connect(database_url: str) -> Iterator[Connect]:
    """Opens further connections in autocommit; all of them are closed afterwards."""
    opened: list[Connection] = []

    def open_one(*, autocommit: bool = True) -> Connection:
        options = "-c synchronous_commit=off -c jit=off -c statement_timeout=20s"
        opened.append(psycopg.connect(database_url, autocommit=autocommit, options=options))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def connection(connect: Connect) -> Connection:
    """A psycopg connection in autocommit to an empty ledger."""
    made = connect()
    made.execute(EMPTY_ALL)
    return made


@pytest.fixture
def in_background() -> Iterator[Callable[..., "Future[Any]"]]:
    """Runs a function in another thread; its answer or error comes from the future."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        yield pool.submit

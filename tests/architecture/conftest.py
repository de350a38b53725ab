"""A database with our schema and nothing in it, one for each module of these tests."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest


@pytest.fixture(scope="module")
def database(database_url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection in autocommit; nothing is prepared unless a test says so."""
    with psycopg.connect(database_url, autocommit=True, prepare_threshold=None) as connection:
        yield connection

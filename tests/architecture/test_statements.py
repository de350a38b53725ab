"""Every statement that we ship is planned by a real server on the migrated schema."""

from typing import Any

import psycopg
import pytest
from architecture.statements import numbered, statements

GENERIC_PLAN_SINCE = 160000


def test_names_of_statements_are_unique() -> None:
    names = [one.name for one in statements().values()]

    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", sorted(statements()))
def test_a_statement_has_a_plan(database: psycopg.Connection[tuple[Any, ...]], name: str) -> None:
    text, count = numbered(statements()[name].text("runledger"))

    if database.info.server_version >= GENERIC_PLAN_SINCE:
        plan = database.execute(f"EXPLAIN (GENERIC_PLAN) {text}".encode()).fetchall()
    else:
        database.execute(f"PREPARE planned AS {text}".encode())
        nulls = f"({', '.join(['NULL'] * count)})" if count else ""
        plan = database.execute(f"EXPLAIN EXECUTE planned{nulls}".encode()).fetchall()
        database.execute("DEALLOCATE planned")

    assert plan

"""The plan of a statement as the server makes it, and what must not be in it."""

from collections.abc import Iterator
from typing import Any

import psycopg

from runledger.postgres.statements import Parameters, Statement


def nodes_of(
    connection: psycopg.Connection[Any], statement: Statement, parameters: Parameters, *, analyze: bool = False
) -> list[dict[str, Any]]:
    """The nodes of the plan; ``analyze`` runs it and takes it back."""
    options = "FORMAT JSON, ANALYZE" if analyze else "FORMAT JSON"
    with connection.transaction(force_rollback=True):
        row = connection.execute(f"EXPLAIN ({options}) {statement.text('runledger')}".encode(), parameters).fetchone()
    assert row is not None
    return list(_nodes(row[0][0]["Plan"]))


def whole_scans(nodes: list[dict[str, Any]], table: str) -> list[str]:
    """The sequential scans of ``table``."""
    return [
        node["Node Type"] for node in nodes if node.get("Relation Name") == table and node["Node Type"] == "Seq Scan"
    ]


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from _nodes(child)

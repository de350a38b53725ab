"""A check: a sentence that must hold, a query that finds where it does not, and what to do then."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import text

from runledger.postgres.connection import LedgerConnection
from runledger.postgres.statements import Statement

MOST_NAMED = 5
"""Cases that a finding names; their number is always the whole."""


@dataclass(frozen=True, slots=True)
class Check:
    """``find`` answers with the cases where ``what`` does not hold, the number of all of them last when it is larger.
    A finding of ``is_advice`` is worth a look and nothing is wrong yet. ``query`` is the SQL of a check that is one
    query on the tables of the schema ``runledger``."""

    name: str
    what: str
    fix: str
    find: Callable[[LedgerConnection], list[str]]
    is_advice: bool = False
    query: str = ""


def sql_check(name: str, what: str, fix: str, query: str, *, is_advice: bool = False) -> Check:
    """A check by SQL. The query gives one text for each case; ``:schema`` is the name of the schema, and tables are
    those of ``runledger``."""
    statement = Statement(
        f"check_{name.replace('-', '_')}",
        text(
            f"SELECT finding, count(*) OVER () FROM ({query}) AS found (finding) "  # noqa: S608 - all ours
            f"WHERE CAST(:schema AS text) IS NOT NULL LIMIT {MOST_NAMED}"
        ),
    )

    def find(ledger: LedgerConnection) -> list[str]:
        rows = ledger.fetch(statement, {"schema": ledger.schema})
        found = [str(row[0]) for row in rows]
        return found if not rows or rows[0][1] <= len(found) else [*found, f"{rows[0][1]:,} in all"]

    return Check(name, what, fix, find, is_advice, query)

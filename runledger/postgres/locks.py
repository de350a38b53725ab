"""The advisory locks of the fleet. All end with their transaction: no leader row, no term, nothing to resign."""

from sqlalchemy import Text, func, literal_column, select

from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import parameter
from runledger.postgres.statements import Statement

_REAPER = 0x72656170
"""Spells ``reap``; the second key is the schema, so that two ledgers in one database do not meet."""

TRY_LOCK_REAPER = Statement(
    "try_lock_reaper",
    select(func.pg_try_advisory_xact_lock(literal_column(str(_REAPER)), func.hashtext(parameter("schema", Text)))),
)


def try_lock_reaper(connection: AnyConnection) -> bool:
    """Whether this transaction is now the only one that reaps in this schema; never waits."""
    ledger = borrow(connection)
    return bool(ledger.fetch(TRY_LOCK_REAPER, {"schema": ledger.schema})[0][0])

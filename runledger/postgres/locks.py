"""The advisory locks of the fleet. All end with their transaction: no leader row, no term, nothing to resign."""

from typing import Any

from sqlalchemy import ColumnElement, Text, func, literal_column, select

from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import constant, parameter
from runledger.postgres.statements import Statement

_REAPER = 0x72656170
"""Spells ``reap``; the second key is the schema, so that two ledgers in one database do not meet."""

_SCHEDULER = 0x66697265
"""Spells ``fire``."""

_LIMIT = 0x6C696D74
"""Spells ``limt``; the second key is schema and job type. Types that share a hash take turns, no more."""


def _try_lock(name: str, key: int) -> Statement:
    schema_key = func.hashtext(parameter("schema", Text))
    return Statement(name, select(func.pg_try_advisory_xact_lock(literal_column(str(key)), schema_key)))


TRY_LOCK_REAPER = _try_lock("try_lock_reaper", _REAPER)
TRY_LOCK_SCHEDULER = _try_lock("try_lock_scheduler", _SCHEDULER)


def try_lock_reaper(connection: AnyConnection) -> bool:
    """Whether this transaction is now the only one that reaps in this schema; never waits."""
    return _has_locked(connection, TRY_LOCK_REAPER)


def try_lock_scheduler(connection: AnyConnection) -> bool:
    """Whether this transaction is now the only one that fires schedules in this schema; never waits."""
    return _has_locked(connection, TRY_LOCK_SCHEDULER)


def try_lock_type(job_type: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether the transaction is now the only one that claims jobs of this type, of which only so many may run."""
    return func.pg_try_advisory_xact_lock(
        literal_column(str(_LIMIT)), func.hashtext(parameter("schema", Text) + constant(":") + job_type)
    )


def _has_locked(connection: AnyConnection, statement: Statement) -> bool:
    ledger = borrow(connection)
    return bool(ledger.fetch(statement, {"schema": ledger.schema})[0][0])

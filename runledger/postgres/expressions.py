"""The shared vocabulary of the statements: clocks, typed parameters, statuses as literals, live leases.

Statuses are literals, never parameters: a bound status loses a partial index once the plan is generic.
"""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ColumnElement,
    Double,
    Text,
    Uuid,
    bindparam,
    cast,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import ENUM
from sqlalchemy.sql.selectable import CTE, TableValuedAlias
from sqlalchemy.types import TypeEngine

from runledger.postgres import tables

NOW: ColumnElement[Any] = func.now()
"""The start of the transaction: what a row is stamped with."""

CLOCK: ColumnElement[Any] = func.clock_timestamp()
"""The wall clock at this moment: what a lease is judged by, because a lock wait may lie in between."""

ASKED_AT: ColumnElement[Any] = func.statement_timestamp()
"""The clock when the statement began. One value, so an index on times can be asked for it; ``CLOCK`` moves on, and
every row has to be compared with it."""

IN_THE_LOG: ColumnElement[Any] = literal_column("pg_logical_emit_message(true, 'runledger', '')::text")
"""Makes a transaction that only reads commit like one that writes: it waits for the disk, and for the synchronous
standbys where there are any. What it tells its caller is then as safe as what it saw: after a crash, or when the
session of a waiting commit ends, one sees rows that no standby has."""

ONE: ColumnElement[Any] = literal_column("1")
ZERO: ColumnElement[Any] = literal_column("0")
TRUE: ColumnElement[Any] = literal_column("true")
FALSE: ColumnElement[Any] = literal_column("false")
ONE_SECOND: ColumnElement[Any] = literal_column("interval '1 second'")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WAKE_CHANNEL = "runledger_wake"
"""The notification channel; the payload is the schema, so that two ledgers in one database do not wake each other."""


def constant(text: str) -> ColumnElement[Any]:
    """A text of ours as a SQL literal. Only for words written in this package, never for anything that came in."""
    return literal_column(f"'{text}'")


def parameter(name: str, type_: TypeEngine[Any] | type[TypeEngine[Any]]) -> ColumnElement[Any]:
    """A parameter with its type said in SQL, so that every driver and every plan reads it alike."""
    return cast(bindparam(name), type_)


def seconds(name: str) -> ColumnElement[Any]:
    """A parameter in seconds as an interval: durations cross the wire, points in time do not."""
    return parameter(name, Double) * ONE_SECOND


def literal(value: StrEnum, type_: ENUM) -> ColumnElement[Any]:
    """One value of one of our enums as a typed SQL literal."""
    return literal_column(f"'{value.value}'::{tables.SCHEMA}.{type_.name}", type_)


def new_id() -> ColumnElement[Any]:
    """A fresh UUIDv7 of the database; rows made later sort later."""
    return literal_column(f"{tables.SCHEMA}.uuidv7()")


def first_id_since(moment: ColumnElement[Any]) -> ColumnElement[Any]:
    """The lowest UUIDv7 of a moment: those that were made later sort after it."""
    milliseconds = cast(func.extract("epoch", moment) * literal_column("1000"), BigInteger)
    time_of_id = func.lpad(func.to_hex(milliseconds), literal_column("12"), constant("0"))
    return cast(func.rpad(time_of_id, literal_column("32"), constant("0")), Uuid)


def rows_of(name: str, /, **columns: TypeEngine[Any] | type[TypeEngine[Any]]) -> TableValuedAlias:
    """Arrays of equal length, one parameter for each column, as the rows of a table; ``ordinal`` counts from 1."""
    arrays = [parameter(f"{column}s", ARRAY(type_)) for column, type_ in columns.items()]
    return func.unnest(*arrays).table_valued(*columns, with_ordinality="ordinal").render_derived(name=name)


def few_rows_of(source: CTE) -> TableValuedAlias:
    """The rows of a materialized ``source`` through arrays. The planner takes an array of unknown length for ten rows,
    so it looks their keys up in an index, where a wrong guess about ``source`` would have it read the whole table."""
    arrays = [func.array(select(column).scalar_subquery()) for column in source.c]
    columns = [Column(column.name, column.type) for column in source.c]
    return func.unnest(*arrays).table_valued(*columns).render_derived(name=f"few_{source.name}")


def any_of_few(name: str, type_: type[TypeEngine[Any]]) -> ColumnElement[Any]:
    """One of the elements of an array parameter, of which the planner does not know the length either."""
    return func.any(func.array(select(func.unnest(parameter(name, ARRAY(type_)))).scalar_subquery()))


def ids_of(rows: Any) -> Any:
    """The first column of these rows, for ``column == ids_of(rows)``: found by key whatever the statistics say."""
    return func.any(func.array(select(rows.c[0]).scalar_subquery()))


def as_text(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return cast(column, Text)


def as_microseconds(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """A point in time as microseconds since 1970: read alike whatever date style, time zone and adapters the owner of
    the connection has set. ``from_microseconds`` is the way back."""
    return cast(func.extract("epoch", column) * literal_column("1000000"), BigInteger)


def from_microseconds(value: int) -> datetime:
    return _EPOCH + timedelta(microseconds=value)


def keyed(**columns: ColumnElement[Any]) -> list[Any]:
    """Names and values in turn, as ``jsonb_build_object`` takes them."""
    return [part for name, column in columns.items() for part in (constant(name), column)]


def row_address(name: str) -> ColumnElement[Any]:
    """Where a row of table ``name`` stands. Deleting a locked row by address needs no index and has one plan.

    Only for rows that are never updated: a version made after the statement began is not found by its address.
    """
    return literal_column(f"{name}.ctid")


HAS_IDLE_LISTENER = select(literal_column("1")).where(tables.job_listeners.c.listening_until > CLOCK).exists()
"""Whether some host has said that all its workers are idle and that it listens."""

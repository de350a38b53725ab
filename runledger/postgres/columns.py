"""Columns with the way each is read: a row of text, numbers and microseconds becomes the fields of a value.

Text and microseconds read alike whatever adapters the owner of the connection has set.
"""

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy import ColumnElement

from runledger.postgres.expressions import from_microseconds
from runledger.postgres.statements import Row


def same(value: Any) -> Any:
    return value


def decoded_uuid(text: str | None) -> UUID | None:
    return None if text is None else UUID(text)


def decoded_json(text: str | None) -> Any:
    """Stored JSON for people: a value that does not decode is shown as its text, so that it can be looked at."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def decoded_moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else from_microseconds(microseconds)


Columns: TypeAlias = tuple[tuple[ColumnElement[Any], Callable[[Any], Any]], ...]
"""A column and how its value is read, in the order of the fields of the value it becomes."""


def selected(columns: Columns) -> tuple[ColumnElement[Any], ...]:
    return tuple(column for column, _ in columns)


def decoded(columns: Columns, row: Row) -> Iterator[Any]:
    return (read(value) for (_, read), value in zip(columns, row, strict=True))

"""The one place where a Core statement becomes SQL text.

A statement is built at import and compiled once for each schema, to text with named parameters; from then on only
the driver is between us and the server. Executing a Core constant costs 75 µs more than that, rebuilding it 400 µs
(docs/explanation/performance.md). The text runs alike on psycopg, SQLAlchemy, Django and psycopg2.
"""

import re
from typing import Any, TypeAlias

from sqlalchemy import ClauseElement
from sqlalchemy.dialects.postgresql.base import PGDialect

from runledger.core.errors import InvalidConfiguration
from runledger.postgres.tables import SCHEMA

_DIALECT = PGDialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]  # untyped in SQLAlchemy
_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_PLACEHOLDER = re.compile(rf"\b{SCHEMA}\.(?=[a-z_])")


def check_schema_name(schema: str) -> str:
    """The name itself when it is a plain lower-case identifier of at most 63 characters.

    Raises InvalidConfiguration otherwise: the name becomes part of SQL text, so it comes from a closed alphabet.
    """
    if not _SCHEMA_NAME.fullmatch(schema) or schema.startswith("pg_"):
        raise InvalidConfiguration("the schema name must be a plain lower-case identifier of at most 63 characters")
    return schema


class Statement:
    """A Core statement with a name. ``text(schema)`` is its SQL, with ``%(name)s`` parameters.

    ``is_prepared`` asks our own connections to prepare it on first use, with whatever plan the server settles on: only
    for a statement whose plan does not depend on how full the tables are.
    """

    __slots__ = ("_texts", "core", "is_prepared", "name")

    def __init__(self, name: str, core: ClauseElement, *, is_prepared: bool = False) -> None:
        self.name = name
        self.core = core
        self.is_prepared = is_prepared
        self._texts: dict[str, str] = {}

    def text(self, schema: str) -> str:
        text = self._texts.get(schema)
        if text is None:
            text = self._texts[schema] = self._compile(schema)
        return text

    def _compile(self, schema: str) -> str:
        compiled = self.core.compile(dialect=_DIALECT)
        hidden = [name for name, value in compiled.params.items() if value is not None]
        if hidden:
            raise AssertionError(f"statement {self.name} hides values in parameters {hidden}; write them as literals")
        text = f"/* runledger:{self.name} */ {compiled}"
        return text if schema == SCHEMA else _PLACEHOLDER.sub(f"{check_schema_name(schema)}.", text)

    def __repr__(self) -> str:
        return f"Statement({self.name!r})"


Row = tuple[Any, ...]
Parameters = dict[str, Any]
Call: TypeAlias = tuple[Statement, Parameters]

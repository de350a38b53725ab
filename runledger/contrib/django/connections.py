"""Which of Django's connections holds the jobs: as ours, as a URL for our processes, and closed before a fork."""

from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from psycopg import ProgrammingError
from psycopg.conninfo import make_conninfo

from runledger.contrib.django.configuration import Configuration, configuration
from runledger.core.errors import InvalidConfiguration
from runledger.postgres.connection import LedgerConnection, borrow

_PLACE = ("HOST", "PORT", "NAME")
_NOT_FOR_LIBPQ = frozenset(
    (
        "assume_role",
        "cursor_factory",
        "isolation_level",
        "pool",
        "prepare_threshold",
        "row_factory",
        "server_side_binding",
    )
)
"""Entries of OPTIONS that Django or the driver takes and a connection string does not."""

ENGINE_HINT = "set RUNLEDGER['DATABASE'] to an alias of django.db.backends.postgresql"


def ledger_connection(using: str | None = None) -> LedgerConnection:
    """Django's connection for the functions of ``runledger``, with the project's schema; its transaction is Django's.

    ``using`` may name another alias of the same database. Raises InvalidConfiguration for one of another database,
    because a job there would be met by no worker, and for an engine that is not PostgreSQL.
    """
    configured = configuration()
    alias = configured.DATABASE if using is None else using
    if alias != configured.DATABASE:
        _check_same_database(alias, configured)
    return borrow(connections[alias], configured.SCHEMA)


def _check_same_database(alias: str, configured: Configuration) -> None:
    ours, theirs = connections[configured.DATABASE].settings_dict, connections[alias].settings_dict
    if [ours.get(one) for one in _PLACE] != [theirs.get(one) for one in _PLACE]:
        raise InvalidConfiguration(
            f"the jobs live in the database of {configured.DATABASE!r}; {alias!r} is another one",
            hint="enqueue in a transaction on the database of the jobs, or set RUNLEDGER['DATABASE']",
        )


def database_conninfo(alias: str = DEFAULT_DB_ALIAS) -> str:
    """The connection string of the alias, with its password: for this process and its children, never for a command
    line. Raises InvalidConfiguration for an engine that is not PostgreSQL."""
    connection = connections[alias]
    if connection.vendor != "postgresql":
        raise InvalidConfiguration(f"the Django database {alias!r} is not PostgreSQL", hint=ENGINE_HINT)
    found: dict[str, Any] = dict(connection.settings_dict)
    parts = {
        "host": found.get("HOST"),
        "port": found.get("PORT"),
        "dbname": found.get("NAME"),
        "user": found.get("USER"),
        "password": found.get("PASSWORD"),
    }
    options = {name: value for name, value in found.get("OPTIONS", {}).items() if name not in _NOT_FOR_LIBPQ}
    named = {name: str(value) for name, value in {**parts, **options}.items() if value not in (None, "")}
    try:
        return make_conninfo(**named)
    except ProgrammingError:
        raise InvalidConfiguration(
            f"the OPTIONS of the Django database {alias!r} are not all for a PostgreSQL connection",
            hint="set RUNLEDGER_DATABASE_URL for the processes that run jobs",
        ) from None


def close_before_fork() -> None:
    """No connection or pool of Django is open in this process, so that no child can share one."""
    for alias in settings.DATABASES:
        connection = connections[alias]
        connection.close()
        if hasattr(connection, "close_pool"):  # PostgreSQL only
            connection.close_pool()

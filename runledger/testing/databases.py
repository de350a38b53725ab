"""Databases of their own for tests: made from a template in milliseconds, dropped afterwards by force.

A template is migrated once for each server and each state of the schema, however many processes ask at once.
"""

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

PRISTINE_TEMPLATE = "template0"
TEMPLATE_PREFIX = "runledger_template"
LONGEST_PREFIX = 32
TEMPLATE_LOCK_TIMEOUT = "180s"
TEMPLATE_LOCK_CLASS = 0x524C  # "RL"; the second key is taken from the name of the template

CREATE_DATABASE = "CREATE DATABASE {name} TEMPLATE {template}"
DROP_DATABASE = "DROP DATABASE IF EXISTS {name} WITH (FORCE)"
SEAL_TEMPLATE = "ALTER DATABASE {name} WITH IS_TEMPLATE true ALLOW_CONNECTIONS false"
LOCK_TEMPLATE = "SELECT pg_advisory_lock(%s, %s)"
IS_SEALED = "SELECT datistemplate FROM pg_database WHERE datname = %s"
LIST_DATABASES = "SELECT datname FROM pg_database WHERE datname ~ %s AND NOT datistemplate"


@contextlib.contextmanager
def ephemeral_database(server_url: str, template: str | None = None, prefix: str = "test") -> Iterator[str]:
    """The URL of a new database, gone afterwards together with every connection to it.

    Its name is ``PREFIX_PID_RANDOM``. Without a template it is empty. The prefix holds up to 32 letters, digits and
    underscores. Raises ValueError for another prefix.
    """
    if not re.fullmatch(rf"\w{{1,{LONGEST_PREFIX}}}", prefix, flags=re.ASCII):
        raise ValueError(f"a prefix is 1 to {LONGEST_PREFIX} letters, digits and underscores, not {prefix!r}")
    name = f"{prefix}_{os.getpid()}_{secrets.token_hex(4)}"
    with connect_as_admin(server_url) as connection:
        create_database(connection, name, template=template)
    try:
        yield database_url(server_url, name)
    finally:
        with connect_as_admin(server_url) as connection:
            drop_database(connection, name)


def migrated_template(server_url: str, *, migrate: Callable[[str], object], checksum: str) -> str:
    """The name of a template database on which ``migrate(url)`` ran; made once for each server and checksum.

    Locks the template's name by an advisory lock on the server, so parallel test processes wait for the first; one
    that was left half made is made anew. ``migrate`` must have closed its connections when it returns.
    """
    digest = hashlib.sha256(checksum.encode()).hexdigest()
    name = f"{TEMPLATE_PREFIX}_{digest[:16]}"
    with connect_as_admin(server_url) as connection:
        connection.execute(sql.SQL("SET lock_timeout = {}").format(TEMPLATE_LOCK_TIMEOUT))
        connection.execute(LOCK_TEMPLATE, (TEMPLATE_LOCK_CLASS, int(digest[:7], 16)))
        found = connection.execute(IS_SEALED, (name,)).fetchone()
        if found is None or not found[0]:
            drop_database(connection, name)
            create_database(connection, name, template=None)
            migrate(database_url(server_url, name))
            connection.execute(sql.SQL(SEAL_TEMPLATE).format(name=sql.Identifier(name)))
    return name


def directory_checksum(directory: Path, pattern: str = "*.sql") -> str:
    """A checksum over names and contents of the matching files; it changes when any of them does."""
    digest = hashlib.sha256()
    for path in sorted(directory.glob(pattern)):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def drop_abandoned_databases(server_url: str, prefix: str = "test") -> list[str]:
    """The databases of this prefix whose making process is gone are dropped; returns their names.

    Only right on a server that this machine's processes have to themselves, such as the embedded one.
    """
    with connect_as_admin(server_url) as connection:
        rows = connection.execute(LIST_DATABASES, (rf"^{re.escape(prefix)}_[0-9]+_[0-9a-f]{{8}}$",)).fetchall()
        names = [str(name) for (name,) in rows]
        abandoned = [name for name in names if not _process_exists(int(name.split("_")[-2]))]
        for name in abandoned:
            drop_database(connection, name)
    return abandoned


def database_url(server_url: str, name: str) -> str:
    """The same server and role with another database; a URL stays a URL, a key/value string stays one."""
    scheme, separator, rest = server_url.partition("://")
    if not separator:
        return make_conninfo(server_url, dbname=name)
    location, question_mark, query = rest.partition("?")
    authority = location.partition("/")[0]
    options = "&".join(option for option in query.split("&") if not option.startswith("dbname="))
    return f"{scheme}://{authority}/{quote(name, safe='')}{question_mark if options else ''}{options}"


def connect_as_admin(server_url: str) -> psycopg.Connection[tuple[object, ...]]:
    """An autocommit connection to the server's own database; databases are not made inside transactions."""
    return psycopg.connect(server_url, autocommit=True)


def create_database(connection: psycopg.Connection[tuple[object, ...]], name: str, *, template: str | None) -> None:
    """The database exists. Takes a lock that keeps others from connecting to the template meanwhile."""
    statement = sql.SQL(CREATE_DATABASE)
    connection.execute(
        statement.format(name=sql.Identifier(name), template=sql.Identifier(template or PRISTINE_TEMPLATE))
    )


def drop_database(connection: psycopg.Connection[tuple[object, ...]], name: str) -> None:
    """The database does not exist; connections to it were ended."""
    connection.execute(sql.SQL(DROP_DATABASE).format(name=sql.Identifier(name)))


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True

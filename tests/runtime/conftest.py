"""Hosts as processes and workers as objects; whatever a test starts has ended when it ends."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from chaos.app import CREATE_EFFECTS
from chaos.proxy import Proxy
from runtime.apps.hostile_jobs import catalog as hostile_catalog
from runtime.benches import EMPTY_ALL, Bench, KeeperBench
from runtime.crashing import CrashingServer, crashing_server, or_skipped
from runtime.follower import Follower, follower_of
from runtime.hosts import Connection, Desk, Host
from runtime.networks import proxy_before
from runtime.scenes import Stage, a_catalog

from runledger import JobCatalog, JobsConfig
from runledger.database import migrate
from runledger.postgres.definitions import sync_definitions
from runledger.runtime.host import Shared
from runledger.runtime.interrupts import Interrupts
from runledger.runtime.keeper import Keeper
from runledger.runtime.link import TIMEOUT_SECONDS as LINK_SECONDS
from runledger.runtime.link import DatabaseLink
from runledger.runtime.registry import Registry
from runledger.runtime.slots import SlotTable
from runledger.runtime.tally import Tally
from runledger.runtime.worker import Worker
from runledger.testing import databases

StartHost = Callable[..., Host]


@pytest.fixture
def own_database(server_url: str, database_template: str) -> Iterator[str]:
    """A database with our schema for one test alone: processes that a test killed may still hold it for a moment."""
    with databases.ephemeral_database(server_url, database_template) as url:
        yield url


@pytest.fixture
def desk(own_database: str, tmp_path: Path) -> Iterator[Desk]:
    """The test's own desk, with the definitions of the hostile app stored, so that it may enqueue before any host."""
    made = Desk(own_database, tmp_path)
    sync_definitions(made.connection, hostile_catalog.definitions)
    yield made
    made.close()


@pytest.fixture
def start_host(own_database: str, tmp_path: Path) -> Iterator[StartHost]:
    """Starts a host on the test's database: keyword arguments in capitals are environment, the rest is for the
    Supervisor. All its processes are ended afterwards, by their ids."""
    hosts: list[Host] = []

    def start(*, url: str = own_database, **given: Any) -> Host:
        environment = {name: str(value) for name, value in given.items() if name.isupper()}
        options = {name: value for name, value in given.items() if not name.isupper()}
        hosts.append(Host(url, tmp_path, environment, options))
        return hosts[-1]

    yield start
    for host in hosts:
        host.end()


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """A psycopg connection in autocommit to an empty ledger."""
    with psycopg.connect(database_url, autocommit=True) as made:
        made.execute(EMPTY_ALL)
        yield made


@pytest.fixture
def own_signals() -> Iterator[None]:
    """The handlers of this process are afterwards what they were before."""
    numbers = (signal.SIGALRM, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def link_url(database_url: str) -> str:
    """Where links lead; a module that breaks what is in between says another way."""
    return database_url


@pytest.fixture
def link_seconds() -> float:
    """How long links wait for an answer."""
    return LINK_SECONDS


@pytest.fixture
def links() -> Iterator[list[DatabaseLink]]:
    """Every link that was opened; closed afterwards."""
    opened: list[DatabaseLink] = []
    yield opened
    for link in opened:
        link.close()


@pytest.fixture
def open_link(link_url: str, link_seconds: float, links: list[DatabaseLink]) -> Callable[..., DatabaseLink]:
    """Links to the module's database."""

    def open_one(role: str = "test") -> DatabaseLink:
        links.append(DatabaseLink(link_url, "runledger", role, timeout_seconds=link_seconds))
        return links[-1]

    return open_one


@pytest.fixture(scope="module")
def proxy(database_url: str) -> Iterator[Proxy]:
    """A network before the module's database that can be broken."""
    with proxy_before(database_url) as made:
        yield made


@pytest.fixture
def stage(
    connection: Connection,
    proxy: Proxy,
    link_url: str,
    make_bench: Callable[..., Bench],
    make_keeper: Callable[..., KeeperBench],
    open_link: Callable[..., DatabaseLink],
    links: list[DatabaseLink],
) -> Iterator[Stage]:
    """Everything that a scene needs; its processes reach the database by ``link_url`` alone."""
    connection.execute(f"{CREATE_EFFECTS}; DELETE FROM chaos_effects")
    yield Stage(connection, proxy, link_url, make_bench, make_keeper, open_link, links, a_catalog(link_url))
    proxy.count_from_here()
    proxy.heal()


@pytest.fixture
def make_bench(
    connection: Connection, open_link: Callable[..., DatabaseLink], own_signals: None
) -> Callable[..., Bench]:
    """A worker over a catalog, with its slot and its link, and the test's own connection."""

    def make(catalog: JobCatalog, *, is_draining: bool = False, **settings: Any) -> Bench:
        config = JobsConfig(max_global_concurrency=1, **settings)
        [slot] = SlotTable(1).slots
        slot.reset(1, time.monotonic_ns())
        slot.set_pid(os.getpid())
        link = open_link("worker-0")
        interrupts = Interrupts(slot)
        worker = Worker(catalog, link, slot, interrupts, worker_id="test.0.1", config=config, is_draining=is_draining)
        sync_definitions(connection, catalog.definitions)
        return Bench(connection, catalog, worker, slot, link)

    return make


@pytest.fixture
def make_keeper(connection: Connection, open_link: Callable[..., DatabaseLink]) -> Iterator[Callable[..., KeeperBench]]:
    """A keeper over slots of its own; the pipes are closed afterwards."""
    opened: list[Shared] = []

    def make(slots: int = 1, *, tally: Tally | None = None, **settings: Any) -> KeeperBench:
        shared = Shared.among(slots)
        opened.append(shared)
        link = open_link("keeper")
        config = JobsConfig(max_global_concurrency=slots, **settings)
        registry = Registry(
            link, shared.table.slots, shared.board, host_id="test", app="tests", queues=None, config=config
        )
        keeper = Keeper(
            link,
            shared.table.slots,
            shared.obituaries.read,
            [wake.write for wake in shared.wakes],
            registry,
            host_id="test",
            config=config,
            tally=tally,
        )
        return KeeperBench(connection, keeper, shared.table.slots, link, shared)

    yield make
    for shared in opened:
        shared.close()


@pytest.fixture
def primary() -> Iterator[CrashingServer]:
    """A server of the test's own, migrated, with the definitions of the hostile app."""
    with or_skipped(crashing_server()) as made:
        migrate(made.url)
        with psycopg.connect(made.url, autocommit=True) as connection:
            sync_definitions(connection, hostile_catalog.definitions)
        yield made


@pytest.fixture
def standby(primary: CrashingServer) -> Iterator[Follower]:
    """It follows ``primary``; commits wait for it."""
    with follower_of(primary) as made:
        yield made

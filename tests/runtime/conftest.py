"""Hosts as processes and workers as objects; whatever a test starts has ended when it ends."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from runtime.apps.hostile_jobs import catalog as hostile_catalog
from runtime.hosts import Desk, Host

from runledger.postgres.definitions import sync_definitions
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

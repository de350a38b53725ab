"""One server for the whole run, chosen by ``runledger.testing``, and one migrated template to copy databases from."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from runledger.database import migrate
from runledger.postgres import migrations
from runledger.testing import databases, server_choice

pytest_plugins = ("pytester", "runledger_pytest")  # the second is an entry point, and named for a stale installation

settings.register_profile("shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared-machine")


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A server that may create databases: RUNLEDGER_TEST_DATABASE_URL, else the embedded one, else Docker."""
    with server_choice.test_server() as url:
        yield url


@pytest.fixture(scope="session")
def database_template(server_url: str) -> str:
    """The name of a database with our schema in it; copying it takes a tenth of a second."""
    checksum = "".join(migration.checksum for migration in migrations.bundled_migrations())
    return databases.migrated_template(server_url, migrate=migrate, checksum=checksum)


@pytest.fixture(scope="module")
def database_url(server_url: str, database_template: str) -> Iterator[str]:
    """A database with our schema for the tests of one module."""
    with databases.ephemeral_database(server_url, database_template) as url:
        yield url

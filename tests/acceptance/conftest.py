"""Databases for the command line, some with the shop's job types stored in them."""

from collections.abc import Iterator

import pytest
from acceptance.shop import catalog

from runledger import Ledger
from runledger.testing import databases


def _with_shop(url: str) -> str:
    with Ledger(url) as ledger, ledger.begin() as connection:
        catalog.sync_definitions(connection)
    return url


@pytest.fixture(scope="module")
def shop_url(database_url: str) -> str:
    """The module's database, with the shop's definitions."""
    return _with_shop(database_url)


@pytest.fixture
def own_url(server_url: str, database_template: str) -> Iterator[str]:
    """The same for one test alone."""
    with databases.ephemeral_database(server_url, database_template) as url:
        yield _with_shop(url)


@pytest.fixture
def empty_url(server_url: str) -> Iterator[str]:
    """A database without our schema."""
    with databases.ephemeral_database(server_url) as url:
        yield url

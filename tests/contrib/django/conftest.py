"""Databases for Django projects: one that is empty, and one that ``runledger migrate`` has been at."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from contrib.django.projects import ALL_APPS, Project, database, make_project
from psycopg.conninfo import conninfo_to_dict

from runledger.testing import databases


@pytest.fixture
def empty_url(server_url: str) -> Iterator[str]:
    with databases.ephemeral_database(server_url, prefix="django") as url:
        yield url


@pytest.fixture
def project(empty_url: str, tmp_path: Path) -> Project:
    """A project on an empty database."""
    return make_project(tmp_path, {"default": database(empty_url)})


@pytest.fixture(scope="session")
def shop_template(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a database that ``manage.py migrate`` has been at."""
    with databases.ephemeral_database(server_url, prefix="django_template") as url:
        make_project(tmp_path_factory.mktemp("template"), {"default": database(url)}, apps=ALL_APPS).run("migrate")
        yield conninfo_to_dict(url)["dbname"]


@pytest.fixture
def shop_url(server_url: str, shop_template: str) -> Iterator[str]:
    with databases.ephemeral_database(server_url, shop_template, prefix="django") as url:
        yield url


@pytest.fixture
def shop(shop_url: str, tmp_path: Path) -> Project:
    """A project on a migrated database."""
    return make_project(tmp_path, {"default": database(shop_url)})
